"""What becomes of streams whose operations are cancelled, at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, ready, run
from tests.streams import (
    OPENERS,
    WINDOW,
    Opener,
    ends,
    open_streams,
    opened,
    pattern,
    read_all,
    write_all,
)


@pytest.mark.parametrize("how", ["read", "readexactly", "readinto", "iterate", "all"])
@pytest.mark.parametrize("when", ["as it comes", "soon", "late"])
def test_a_cancelled_read_loses_nothing(how: str, when: str) -> None:
    """Cancelled in the turn in which bytes come, before the reader runs, as at any other moment."""

    async def main() -> None:
        async with pair() as (server, client), opened(server, client) as both:
            got = bytearray()

            async def read() -> None:
                if how == "read":
                    got.extend(await both.reader.read(100))
                elif how == "readexactly":
                    got.extend(await both.reader.readexactly(150))
                elif how == "readinto":
                    buffer = bytearray(100)
                    count = await both.reader.readinto(buffer)
                    got.extend(buffer[:count])
                elif how == "iterate":
                    async for chunk in both.reader:
                        got.extend(chunk)
                else:
                    got.extend(await both.reader.read())

            data = pattern(20_000)
            for start in range(0, len(data), 100):
                task = asyncio.create_task(read())
                await asyncio.sleep(0)
                before = client.stats()["stream_bytes_received"]
                await both.writer.write(data[start : start + 100])
                if when == "soon":
                    for _ in range(start // 100 % 10):
                        await asyncio.sleep(0)
                else:
                    while client.stats()["stream_bytes_received"] == before:
                        await asyncio.sleep(0)
                if when == "late":
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            assert bytes(got) == data[: len(got)]
            assert how != "all" or not got
            await both.writer.close()
            got.extend(await both.reader.read())
            assert got == data

    run(main())


def test_reads_that_time_out_lose_nothing() -> None:
    async def main() -> None:
        async with ends(stream_window=WINDOW) as both:
            data = pattern(400_000)
            writing = asyncio.create_task(write_all(both.writer, data))
            got = bytearray()
            timeouts = 0
            while len(got) < len(data) // 2:
                try:
                    # A whole of 30,000 bytes is never there at once.
                    got += await asyncio.wait_for(both.reader.readexactly(30_000), 0.0005)
                except asyncio.TimeoutError:
                    timeouts += 1
                    got += await both.reader.read(10_000)
            assert bytes(got) == data[: len(got)]
            got += await both.reader.read()
            assert got == data
            await writing

    run(main())


def test_a_cancelled_read_holds_up_nothing_else() -> None:
    """It had taken, and granted, more than the window; all of that is unread again."""

    async def main() -> None:
        async with (
            pair(stream_window=WINDOW, stream_buffer=WINDOW) as (server, client),
            opened(server, client) as both,
        ):
            server.role("r").on_request("ping")(lambda ctx: None)
            data = pattern(40 * WINDOW)
            half = len(data) // 2
            reading = asyncio.create_task(both.reader.readexactly(len(data)))
            await both.writer.write(data[:half])
            await eventually(lambda: client.stats()["stream_bytes_received"] == half)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            writing = asyncio.create_task(write_all(both.writer, data[half:]))
            for _ in range(5):
                await client.destination("r").request("ping", timeout=5)
            assert await both.reader.read() == data
            await writing

    run(main())


@pytest.mark.parametrize("how", ["all", "exactly", "into"])
def test_an_abort_ends_the_read_that_waits(how: str) -> None:
    async def main() -> None:
        async with pair() as (server, client), opened(server, client) as both:
            reader = both.reader
            waiting: asyncio.Task[Any] = asyncio.create_task(
                reader.read()
                if how == "all"
                else reader.readexactly(10)
                if how == "exactly"
                else reader.readinto(bytearray(5))
            )
            await asyncio.sleep(0)
            if how != "into":
                await both.writer.write(b"abc")
                await eventually(lambda: client.stats()["stream_bytes_received"] == 3)
                await asyncio.sleep(0)
            await reader.abort("no more")
            with pytest.raises(roletalk.StreamError):
                await waiting
            attempts: list[Callable[[], Awaitable[Any]]] = [
                reader.read,
                lambda: reader.read(1),
                reader.__anext__,
            ]
            for again in attempts:
                with pytest.raises(roletalk.StreamError):
                    await again()
            await eventually(lambda: both.writer.closed)

    run(main())


@pytest.mark.parametrize("turns", range(5))
def test_a_cancelled_write_sends_no_foreign_bytes(turns: int) -> None:
    async def main() -> None:
        data = pattern(10 * WINDOW)
        async with ends(stream_window=WINDOW) as both:
            buffer = bytearray(data)
            task = asyncio.create_task(both.writer.write(buffer))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The buffer is the caller's again.
            buffer[:] = b"\xff" * len(buffer)
            buffer.extend(b"\xff")
            chunks: list[bytes] = []
            reading = asyncio.create_task(read_all(both.reader, chunks))
            tail = b"-- afterwards --"
            try:
                await write_all(both.writer, tail)
            except roletalk.StreamError:
                with pytest.raises(roletalk.StreamError):
                    await reading
                tail = b""
            else:
                await reading
            got = b"".join(chunks)
            assert got.endswith(tail)
            sent = got[: len(got) - len(tail)]
            assert sent == data[: len(sent)]
            assert len(sent) < len(data)

    run(main())


def test_writes_that_time_out_leave_a_prefix_each() -> None:
    async def main() -> None:
        async with ends(stream_window=WINDOW) as both:
            pieces = [bytes([i]) * 50_000 for i in range(20)]
            chunks: list[bytes] = []

            async def lagging() -> None:
                while chunk := await both.reader.read(7000):
                    chunks.append(chunk)
                    await asyncio.sleep(0.0005)

            reading = asyncio.create_task(lagging())
            broken = False
            for piece in pieces:
                try:
                    await asyncio.wait_for(both.writer.write(piece), 0.001)
                except asyncio.TimeoutError:
                    continue
                except roletalk.StreamError:
                    broken = True
                    break
            with suppress(roletalk.StreamError):
                await both.writer.close()
            if broken:
                with pytest.raises(roletalk.StreamError):
                    await reading
            else:
                await reading
            got = b"".join(chunks)
            counts = [got.count(bytes([i])) for i in range(20)]
            assert got == b"".join(bytes([i]) * n for i, n in enumerate(counts))
            assert all(count <= 50_000 for count in counts)

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_a_cancelled_opening_leaves_nothing(opener: Opener) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            errors: list[BaseException] = []

            async def handler(ctx: Any) -> None:
                try:
                    async with ctx.accept() as stream:
                        if ctx.kind == "readable":
                            await stream.read()
                        else:
                            while True:
                                await stream.write(bytes(1000))
                except roletalk.StreamError as error:
                    errors.append(error)

            role = server.role("r")
            role.on_readable("e")(handler)
            role.on_writable("e")(handler)
            destination = await ready(client)
            opening = destination.readable if opener == "reads" else destination.writable
            opened_in_time = 0
            for turns in range(40):
                task = asyncio.ensure_future(opening("e"))
                for _ in range(turns % 20):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    stream: Any = await task
                except asyncio.CancelledError:
                    continue
                opened_in_time += 1
                await stream.abort()
            await eventually(lambda: open_streams(server, client) == 0)
            await eventually(lambda: server.stats()["running_handlers"] == 0)
            assert client.stats()["pending_requests"] == 0
            assert client.stats()["drops"] == server.stats()["drops"] == {}

    run(main())
