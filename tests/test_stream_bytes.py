"""Reading and writing streams: every form of it, and misuse."""

from __future__ import annotations

import array
import asyncio
import mmap
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, ready, run
from tests.streams import (
    KIB,
    MIB,
    OPENERS,
    WINDOW,
    Opener,
    ends,
    open_streams,
    opened,
    pattern,
    write_all,
)

# -- reading


@pytest.mark.parametrize("opener", OPENERS)
def test_iterating_gives_all_in_chunks_that_are_not_empty(opener: Opener) -> None:
    async def main() -> None:
        data = pattern(3 * MIB + 17)
        async with ends(opener) as both:
            writing = asyncio.create_task(write_all(both.writer, data))
            chunks = [chunk async for chunk in both.reader]
            await writing
            assert all(type(chunk) is bytes and chunk for chunk in chunks)
            assert b"".join(chunks) == data
            # The end stays the end.
            assert [chunk async for chunk in both.reader] == []
            assert await both.reader.read() == await both.reader.read(5) == b""
            assert await both.reader.readinto(bytearray(3)) == 0
            assert both.reader.closed
            assert both.writer.closed

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_an_empty_stream(opener: Opener) -> None:
    async def main() -> None:
        async with ends(opener) as both:
            await both.writer.close()
            assert await both.reader.read() == b""
            assert await both.reader.readexactly(0) == b""
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await both.reader.readexactly(1)
            assert (caught.value.partial, caught.value.expected) == (b"", 1)

    run(main())


def test_read() -> None:
    async def main() -> None:
        data = pattern(100_000)
        async with ends() as both:
            await both.writer.write(data[:10])
            await both.writer.write(data[10:20])
            assert await both.reader.readexactly(20) == data[:20]
            # As soon as there are any, and no more than asked for.
            await both.writer.write(data[20:30])
            assert await both.reader.read(4) == data[20:24]
            got = data[:24]
            while len(got) < 30:
                chunk = await both.reader.read(1000)
                assert 0 < len(chunk) <= 6
                got += chunk
            waiting = asyncio.create_task(both.reader.read(100))
            await asyncio.sleep(0)
            assert not waiting.done()
            await both.writer.write(data[30:31])
            assert await waiting == data[30:31]
            writing = asyncio.create_task(write_all(both.writer, data[31:]))
            assert await both.reader.read(1) == data[31:32]
            assert await both.reader.read(-1) == data[32:]
            await writing
            assert await both.reader.read(0) == b""

    run(main())


def test_readexactly() -> None:
    async def main() -> None:
        data = pattern(300_000)
        async with ends() as both:
            writing = asyncio.create_task(write_all(both.writer, data))
            got = 0
            for size in (1, 0, 2, 65_535, 65_536, 65_537, 1, 100_000):
                assert await both.reader.readexactly(size) == data[got : got + size]
                got += size
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await both.reader.readexactly(10_000)
            assert caught.value.partial == data[got:]
            assert caught.value.expected == 10_000
            assert isinstance(caught.value, EOFError)
            assert await both.reader.read() == b""
            await writing

    run(main())


def test_readexactly_more_than_the_window() -> None:
    async def main() -> None:
        data = pattern(20 * WINDOW)
        async with ends(stream_window=WINDOW, stream_buffer=WINDOW) as both:
            writing = asyncio.create_task(write_all(both.writer, data))
            assert await both.reader.readexactly(len(data)) == data
            assert await both.reader.read() == b""
            await writing

    run(main())


def test_readinto() -> None:
    async def main() -> None:
        data = pattern(200_000)
        async with ends() as both:
            writing = asyncio.create_task(write_all(both.writer, data))
            got = bytearray()
            target = bytearray(1000)
            targets: list[Any] = [
                target,
                memoryview(target)[10:20],
                array.array("d", bytes(80)),
                mmap.mmap(-1, 4096),
            ]
            while True:
                buffer = targets[len(got) % len(targets)]
                before = bytes(memoryview(buffer).cast("B"))
                count = await both.reader.readinto(buffer)
                after = bytes(memoryview(buffer).cast("B"))
                assert 0 <= count <= len(after)
                assert after[count:] == before[count:]  # nothing behind what it says is touched
                if not count:
                    break
                got += after[:count]
            assert got == data
            await writing
            assert await both.reader.readinto(bytearray()) == 0
            del targets, buffer
            target.append(1)  # it is not held any more

    run(main())


def test_readinto_waits_and_lets_go_of_its_buffer_when_cancelled() -> None:
    async def main() -> None:
        async with ends() as both:
            target = bytearray(10)
            task = asyncio.create_task(both.reader.readinto(target))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            target.append(1)
            await both.writer.write(b"abc")
            assert await both.reader.readinto(target) == 3
            assert target[:4] == b"abc\0"

    run(main())


def test_wrong_arguments_of_reads() -> None:
    async def main() -> None:
        async with ends() as both:
            reader = both.reader
            wrong: list[tuple[tuple[type[Exception], ...], Callable[[], Awaitable[Any]]]] = [
                ((ValueError,), lambda: reader.readexactly(-1)),
                ((TypeError,), lambda: reader.readexactly("1")),  # type: ignore[arg-type]
                ((TypeError,), lambda: reader.read("1")),  # type: ignore[arg-type]
                ((TypeError, BufferError, ValueError), lambda: reader.readinto(b"read-only")),
                ((TypeError,), lambda: reader.readinto("text")),  # type: ignore[arg-type]
            ]
            for errors, make in wrong:
                with pytest.raises(errors):
                    await make()
            await both.writer.write(b"fine")
            assert await reader.readexactly(4) == b"fine"

    run(main())


# -- writing


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda data: memoryview(b"--" + data + b"--")[2 : 2 + len(data)],
    "writable memoryview": lambda data: memoryview(bytearray(data)),
    "non-contiguous": lambda data: memoryview(bytes(b for byte in data for b in (byte, 7)))[::2],
    "reversed": lambda data: memoryview(data[::-1])[::-1],
}


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 5 * MIB])
@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_of_any_kind_and_size(kind: str, size: int) -> None:
    async def main() -> None:
        data = pattern(size)
        buffer = BUFFERS[kind](data)
        async with ends("writes") as both:
            reading = asyncio.create_task(both.reader.read())
            await both.writer.write(buffer)
            await both.writer.write(buffer)
            await both.writer.close()
            assert await reading == data * 2
            if isinstance(buffer, bytearray):
                buffer.append(1)  # BufferError if it were still held

    # Going through megabytes byte by byte would be slow in debug mode.
    run(main(), debug=size <= 65_537)


def test_buffers_of_other_items_than_bytes() -> None:
    async def main() -> None:
        numbers = array.array("d", [0.5, -1.0, 3e300])
        matrix = memoryview(bytes(range(24))).cast("B", (4, 6))
        with mmap.mmap(-1, 10_000) as mapped:
            mapped[:5] = b"mmap!"
            async with ends() as both:
                reading = asyncio.create_task(both.reader.read())
                for buffer in (numbers, matrix, mapped, memoryview(numbers)[::2]):
                    await both.writer.write(buffer)
                await both.writer.close()
                want = numbers.tobytes() + matrix.tobytes() + mapped[:]
                want += memoryview(numbers)[::2].tobytes()
                assert await reading == want
            del buffer
            numbers.append(1.0)  # it is not held any more

    run(main())


def test_what_is_no_buffer_is_refused_and_changes_nothing() -> None:
    async def main() -> None:
        async with ends() as both:
            for wrong in ("text", 5, None, [1, 2], object()):
                with pytest.raises(TypeError):
                    await both.writer.write(wrong)  # type: ignore[arg-type]
            await both.writer.write(b"fine")
            await both.writer.close()
            assert await both.reader.read() == b"fine"

    run(main())


def test_a_buffer_is_sent_as_it_is_when_the_write_is_over() -> None:
    async def main() -> None:
        data = pattern(3 * MIB)
        async with ends() as both:
            reading = asyncio.create_task(both.reader.read())
            buffer = bytearray(100 * KIB)
            for start in range(0, len(data), len(buffer)):
                piece = data[start : start + len(buffer)]
                buffer[: len(piece)] = piece
                await both.writer.write(memoryview(buffer)[: len(piece)])
                buffer[:] = b"\0" * len(buffer)  # may not reach the reader
            await both.writer.close()
            assert await reading == data

    run(main(), debug=False)


def test_empty_chunks_are_neither_sent_nor_delivered() -> None:
    async def main() -> None:
        async with pair() as (server, client), opened(server, client) as both:
            waiting = asyncio.create_task(both.reader.read(5))
            await asyncio.sleep(0)
            before = server.stats()["bytes_sent"]
            for empty in (b"", bytearray(), memoryview(b"")):
                await both.writer.write(empty)
            assert server.stats()["bytes_sent"] == before
            await both.writer.write(b"a")
            assert await waiting == b"a"
            await both.writer.close()
            assert [chunk async for chunk in both.reader] == []

    run(main())


def test_a_write_is_made_at_the_call() -> None:
    async def main() -> None:
        async with ends() as both:
            _ = both.writer.write(b"not ")  # nobody awaits it
            await both.writer.write(b"lost")
            await both.writer.close()
            assert await both.reader.read() == b"not lost"

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_a_write_that_is_left_behind_is_an_error_on_both_ends(
    opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pair(stream_window=WINDOW) as (server, client):
            data = pattern(10 * WINDOW)
            failed: list[roletalk.StreamError] = []

            async def read_all_of(stream: roletalk.ReadableStream) -> None:
                try:
                    await stream.read()
                except roletalk.StreamError as error:
                    failed.append(error)

            @server.role("r").on_readable("e")
            async def read(ctx: roletalk.ReadableContext) -> None:
                await read_all_of(await ctx.accept())

            @server.role("r").on_writable("e")
            async def write(ctx: roletalk.WritableContext) -> None:
                stream = await ctx.accept()
                stream.write(data)  # type: ignore[unused-coroutine]

            destination = await ready(client)
            if opener == "reads":
                async with destination.readable("e") as reader:
                    await read_all_of(reader)
                assert "await stream.write()" in caplog.text
            else:
                with pytest.raises(RuntimeError, match="await the write before"):
                    async with destination.writable("e") as writer:
                        writer.write(data)  # type: ignore[unused-coroutine]
                await eventually(lambda: failed)
            assert len(failed) == 1
            await eventually(lambda: open_streams(server, client) == 0)

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("size", [1024, 8192, 65_536])
def test_frames_keep_to_max_message_size(size: int, opener: Opener) -> None:
    async def main() -> None:
        data = pattern(300_000)
        async with ends(opener, max_message_size=size) as both:
            writing = asyncio.create_task(write_all(both.writer, data))
            assert await both.reader.read() == data
            await writing

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_closing_twice_is_closing_once(opener: Opener) -> None:
    async def main() -> None:
        async with ends(opener) as both:
            await both.writer.write(b"all")
            await both.writer.close()
            await both.writer.close()
            async with both.writer:
                pass
            assert await both.reader.read() == b"all"
            await both.reader.abort()
            await both.reader.abort("again")
            await both.writer.close()

    run(main())


def test_nothing_can_be_written_after_the_end() -> None:
    async def main() -> None:
        async with ends() as both:
            await both.writer.write(b"all")
            await both.writer.close()
            with pytest.raises((roletalk.StreamError, RuntimeError)):
                await both.writer.write(b"more")
            assert await both.reader.read() == b"all"

    run(main())


def test_bytes_both_ways_on_two_streams() -> None:
    async def main() -> None:
        data, back = pattern(2 * MIB, 1), pattern(2 * MIB, 2)
        async with (
            pair() as (server, client),
            opened(server, client, "reads") as down,
            opened(server, client, "writes") as up,
        ):
            results = await asyncio.gather(
                write_all(down.writer, data),
                write_all(up.writer, back),
                down.reader.read(),
                up.reader.read(),
            )
            assert list(results[2:]) == [data, back]
            for here, there in ((server, client), (client, server)):
                assert here.stats()["stream_bytes_sent"] == 2 * MIB
                assert there.stats()["stream_bytes_received"] == 2 * MIB
                assert here.stats()["streams_opened"] == 2

    run(main())


def test_a_block_is_left_while_a_write_is_under_way() -> None:
    """Whatever becomes of the write: the stream is over for both ends, and never a cut one whole."""

    async def main() -> None:
        async with pair(stream_window=WINDOW) as (server, client):
            data = pattern(10 * WINDOW)
            go_on = asyncio.Event()
            results: list[bytes | BaseException] = []

            @server.role("r").on_readable("e")
            async def handler(ctx: roletalk.ReadableContext) -> None:
                stream = await ctx.accept()
                await go_on.wait()
                try:
                    results.append(await stream.read())
                except roletalk.StreamError as error:
                    results.append(error)

            destination = await ready(client)
            writing: asyncio.Task[Any] | None = None
            with suppress(RuntimeError, roletalk.StreamError):
                async with destination.writable("e") as stream:
                    writing = asyncio.create_task(stream.write(data))
                    await asyncio.sleep(0)
            go_on.set()
            assert writing is not None
            await asyncio.wait([writing])
            writing.exception()
            await eventually(lambda: open_streams(server, client) == 0)
            await eventually(lambda: results)
            assert results == [data] or isinstance(results[0], roletalk.StreamError)

    run(main())


# -- who may use it, and when


def test_one_task_at_a_time_reads() -> None:
    async def main() -> None:
        async with ends() as both:
            first = asyncio.create_task(both.reader.read(10))
            await asyncio.sleep(0)
            others: list[Callable[[], Awaitable[Any]]] = [
                lambda: both.reader.read(1),
                lambda: both.reader.read(),
                lambda: both.reader.readexactly(1),
                lambda: both.reader.readinto(bytearray(1)),
                lambda: both.reader.__anext__(),
            ]
            for other in others:
                with pytest.raises(RuntimeError):
                    await other()
            await both.writer.write(b"first")
            assert await first == b"first"
            # One after another is fine.
            await both.writer.write(b"second")
            assert await asyncio.create_task(both.reader.readexactly(6)) == b"second"

    run(main())


def test_one_task_at_a_time_writes() -> None:
    async def main() -> None:
        data = pattern(10 * WINDOW)
        async with ends(stream_window=WINDOW) as both:
            first = asyncio.create_task(both.writer.write(data))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not first.done()
            with pytest.raises(RuntimeError):
                await both.writer.write(b"second")
            assert await both.reader.readexactly(len(data)) == data
            await first
            await asyncio.create_task(both.writer.write(b"third"))
            await both.writer.close()
            assert await both.reader.read() == b"third"

    run(main())


def test_the_wrong_thread_and_loop() -> None:
    async def main() -> None:
        async with ends() as both:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: both.reader.read(1),
                lambda: both.reader.readexactly(1),
                lambda: both.reader.readinto(bytearray(1)),
                lambda: both.writer.write(b"x"),
                lambda: both.writer.close(),
                lambda: both.reader.abort(),
                lambda: both.writer.abort(),
            ]

            def elsewhere(call: Callable[[], Awaitable[Any]]) -> None:
                async def use() -> None:
                    await call()

                with pytest.raises(RuntimeError):
                    asyncio.run(use())

            for call in calls:
                await asyncio.to_thread(elsewhere, call)
            await write_all(both.writer, b"unharmed")
            assert await both.reader.read() == b"unharmed"

    run(main())


def test_operations_work_wherever_a_coroutine_does() -> None:
    async def main() -> None:
        async with ends() as both:
            reader, writer = both.reader, both.writer
            assert (await asyncio.gather(reader.readexactly(2), writer.write(b"ab")))[0] == b"ab"
            await asyncio.wait_for(writer.write(b"cd"), 10)
            assert await asyncio.wait_for(reader.readexactly(2), 10) == b"cd"
            await asyncio.shield(writer.write(b"ef"))
            assert await asyncio.shield(reader.readexactly(2)) == b"ef"
            target = bytearray(2)
            await asyncio.ensure_future(writer.write(b"gh"))
            assert 1 <= await asyncio.ensure_future(reader.readinto(target)) <= 2
            assert target[:1] == b"g"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.readexactly(5), 0.01)
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await reader.readexactly(100)
                async with asyncio.TaskGroup() as group:
                    group.create_task(writer.write(b"ij"))
                    ending = group.create_task(reader.read())
                    await asyncio.sleep(0)
                    group.create_task(writer.close())
                assert ending.result().endswith(b"ij")
            else:
                await writer.close()

    run(main())
