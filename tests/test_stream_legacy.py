"""Streams with stand-ins for the legacy peers: credit, ends and rejects (docs/protocol.md, section 7)."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

import roletalk
from tests import rawclient as raw
from tests.helpers import eventually, run
from tests.legacystreams import (
    CREDIT,
    GO,
    MIB,
    NODE20,
    NODE22,
    WINDOW,
    JsReader,
    JsWriter,
    Opener,
    Way,
    each_opener,
    each_way,
    legacy,
    some_bytes,
    within,
)

each_node = pytest.mark.parametrize("runtime", [NODE20, NODE22])


async def read_oddly(stream: roletalk.ReadableStream, rng: random.Random) -> bytes:
    """All of a stream, by every way of reading."""
    data = bytearray()
    space = bytearray(100_000)
    while True:
        way, size = rng.randrange(3), rng.choice((1, 7, 1_001, 65_537, 99_991))
        if way == 0:
            chunk = await stream.read(size)
            assert len(chunk) <= size
        elif way == 1:
            chunk = bytes(space[: await stream.readinto(memoryview(space)[:size])])
        else:
            try:
                chunk = await stream.readexactly(size)
                assert len(chunk) == size
            except asyncio.IncompleteReadError as error:
                chunk = error.partial
        data += chunk
        if not chunk:
            return bytes(data)


@each_opener
@each_node
@pytest.mark.parametrize(
    ("window", "size"), [(16384, 2 * MIB), (100_000, 4 * MIB), (WINDOW, 16 * MIB)]
)
def test_a_js_writer_never_stalls(runtime: str, opener: Opener, window: int, size: int) -> None:
    async def main() -> None:
        rng = random.Random(f"{runtime} {opener} {window}")
        data = some_bytes(size)
        async with legacy(runtime, stream_window=window) as on:
            stream, channel, _ = await on.open("reads", opener)
            writer = JsWriter(on.connection, channel, 0x1234, CREDIT[runtime], window)
            writing = asyncio.create_task(asyncio.to_thread(writer.write, data, rng))
            received = await read_oddly(stream, random.Random(size))
            await writing
            assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
            assert on.stats["stream_bytes_received"] == size
            assert not on.stats["drops"]

    run(main(), debug=False)


@each_opener
@each_node
def test_a_js_reader_gets_everything(runtime: str, opener: Opener) -> None:
    async def main() -> None:
        rng = random.Random(f"{runtime} {opener}")
        data = some_bytes(8 * MIB)
        async with legacy(runtime) as on:
            stream, channel, _ = await on.open("writes", opener)
            reader = JsReader(on.connection, channel, 0x1234, CREDIT[runtime])
            reading = asyncio.create_task(asyncio.to_thread(reader.read))
            at = 0
            while at < len(data):
                size = rng.randrange(1, rng.choice((2, 2_000, 70_000, 700_000)))
                await stream.write(data[at : at + size])
                at += size
            await stream.close()
            await reading
            assert hashlib.sha256(reader.data).digest() == hashlib.sha256(data).digest()
            assert await on.settle() == []
            assert not on.stats["drops"]
            await eventually(lambda: on.stats["streams"] == 0)

    run(main(), debug=False)


@pytest.mark.parametrize(
    ("runtime", "credit"),
    [
        (NODE20, 16384),
        (NODE22, 65536),
        ("nodejs v24.0.0", 65536),
        ("nodejs v9.11.2", 16384),
        ("nodejs v100.0.0", 65536),
        ("nodejs v", 16384),
        ("node v22.11.0", 16384),
        (GO, 16384),
    ],
)
@each_opener
def test_the_credit_at_the_start(runtime: str, credit: int, opener: Opener) -> None:
    async def main() -> None:
        async with legacy(runtime) as on:
            stream, channel, _ = await on.open("writes", opener)
            writing = asyncio.create_task(stream.write(bytes(credit + 1)))
            received = 0
            while received < credit:
                received += len((await on.hear_data()).payload)
            assert received == credit
            assert await on.settle() == []
            assert not writing.done()
            on.say_data(channel, raw.QUOTA, b"\x01")
            assert (await on.hear_data()).payload == b"\0"
            await writing
            await stream.close()

            # Their number may be used again: that stream is over.
            other, _, _ = await on.open("reads", opener)
            first = await on.hear_data()
            while first.flag != raw.QUOTA:
                first = await on.hear_data()
            assert first.channel == 0x1234
            assert int.from_bytes(first.payload, "big") == WINDOW - credit
            await other.abort()

    run(main())


@each_opener
def test_what_is_not_read_is_not_granted_again(opener: Opener) -> None:
    """Credit left and unread bytes must be at or below half of the window."""

    async def main() -> None:
        async with legacy(NODE22, stream_window=65536) as on:
            stream, channel, _ = await on.open("reads", opener)
            on.say_data(channel, raw.CHUNK, bytes(65536))
            assert await on.settle() == []
            await stream.readexactly(32767)
            assert await on.settle() == []
            await stream.readexactly(1)
            granted = await on.hear_data()
            assert (granted.flag, granted.payload) == (raw.QUOTA, raw.number(32768))
            await stream.abort()

    run(main())


# -- ends --------------------------------------------------------------------------------------------


@each_opener
def test_the_empty_error_of_a_js_reader_after_the_end(opener: Opener) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("writes", opener)
            await stream.write(b"all")
            await stream.close()
            assert (await on.hear_data()).payload == b"all"
            assert (await on.hear_data()).flag == raw.FINISH
            on.say_data(channel, raw.QUOTA, raw.number(3))
            on.say_data(channel, raw.STREAM_ERROR)
            assert await on.settle() == []
            await stream.close()
            assert on.stats["late_stream_frames"] == 2
            assert not on.stats["drops"]

    run(main())


@each_opener
def test_the_error_of_a_js_reader_before_the_end(opener: Opener) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("writes", opener)
            await stream.write(b"some")
            on.say_data(channel, raw.STREAM_ERROR, b"reader gives up")
            with pytest.raises(roletalk.StreamError, match="reader gives up") as caught:
                await stream.write(bytes(MIB))
            assert caught.value.unit is on.peer.units[0]
            assert caught.value.role == "bench"
            with pytest.raises(roletalk.StreamError, match="reader gives up"):
                await stream.close()
            sent = await on.settle()
            assert {found.flag for found in sent} == {raw.CHUNK}

    run(main())


@each_opener
def test_a_js_writer_goes_on_after_an_error(opener: Opener) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("reads", opener)
            on.say_data(channel, raw.CHUNK, b"abc")
            assert await stream.readexactly(3) == b"abc"
            await stream.abort("reader gives up")
            assert (await on.hear_data()).flag == raw.QUOTA
            error = await on.hear_data()
            assert (error.flag, error.payload) == (raw.STREAM_ERROR, b"reader gives up")
            on.say_data(channel, raw.STREAM_ERROR, b"Error: Remote readable stream sent error")
            for _ in range(20):
                on.say_data(channel, raw.CHUNK, bytes(60_000))
            on.say_data(channel, raw.FINISH)
            assert await on.settle() == []
            assert on.stats["late_stream_frames"] == 22
            assert on.stats["stream_bytes_received"] == 3
            assert not on.stats["drops"]

    run(main(), debug=False)


@each_opener
def test_an_error_of_the_writer_comes_after_its_bytes(opener: Opener) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("reads", opener)
            on.say_data(channel, raw.CHUNK, b"abc")
            on.say_data(channel, raw.CHUNK)
            on.say_data(channel, raw.STREAM_ERROR, b"Error: writer gives up")
            await on.settle()
            assert await stream.read(1) == b"a"
            assert await stream.read(9) == b"bc"
            for _ in range(2):
                with pytest.raises(roletalk.StreamError, match="writer gives up"):
                    await stream.read()

    run(main())


@each_opener
@each_way
def test_the_connection_goes(opener: Opener, way: Way) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, _, _ = await on.open(way, opener)
            waiting = stream.read() if way == "reads" else stream.write(bytes(MIB))
            task = asyncio.create_task(waiting)
            await on.settle()
            on.connection.drop()
            with pytest.raises(roletalk.StreamError):
                await task
            assert on.stats["streams"] == 0

    run(main())


# -- rejects -----------------------------------------------------------------------------------------

REJECTS: list[tuple[int, object, str]] = [
    (raw.STREAM_REJECT, '{"data":"Error: no stream"}', "no stream"),
    (
        raw.STREAM_REJECT,
        '{"data":"The event \\"x\\" is not handled"}',
        'The event "x" is not handled',
    ),
    (raw.STREAM_REJECT, '{"data":""}', "rejected"),
    (raw.STREAM_REJECT, "plain", "plain"),
    (raw.STREAM_REJECT, '{"other":"kept"}', '{"other":"kept"}'),
    (raw.STREAM_REJECT, '{"data":', '{"data":'),
    (raw.STREAM_REJECT, None, "rejected"),
    (raw.STREAM_REJECT, {}, "rejected"),
    (raw.REJECT, {}, "rejected"),
    (raw.REJECT, "", "rejected"),
    (raw.REJECT, "plain", "plain"),
]


@pytest.mark.parametrize(("kind", "payload", "text"), REJECTS)
def test_rejects(kind: int, payload: object, text: str) -> None:
    async def main() -> None:
        async with legacy(GO if kind == raw.REJECT else NODE20) as on:
            for open_stream in (on.bench.readable, on.bench.writable):
                task = asyncio.ensure_future(within(open_stream("x")))
                asked = await on.hear(raw.OPEN_READABLE, raw.OPEN_WRITABLE)
                if kind == raw.REJECT:
                    on.say(raw.answer(kind, asked.correlation, raw.value(payload)))
                else:
                    on.say(raw.stream_answer(kind, asked.correlation, 0, raw.value(payload)))
                with pytest.raises(roletalk.RemoteError) as caught:
                    await task
                assert caught.value.text == text
                assert (caught.value.role, caught.value.event) == ("bench", "x")
            assert await on.settle() == []
            assert on.stats["streams_opened"] == on.stats["streams"] == 0

    run(main())


def test_an_answer_that_comes_too_late_is_aborted() -> None:
    """The other end has a stream then, whose end it must learn."""

    async def main() -> None:
        async with legacy() as on:
            with pytest.raises(roletalk.RequestTimeout):
                await on.bench.readable("x", timeout=0.01)
            asked = await on.hear(raw.OPEN_READABLE)
            on.say(raw.stream_answer(raw.STREAM_RESOLVE, asked.correlation, 0x1234))
            error = await on.hear_data()
            assert (error.channel, error.flag) == (0x1234, raw.STREAM_ERROR)
            on.say_data(asked.channel, raw.CHUNK, b"late")
            assert await on.settle() == []
            assert on.stats["streams"] == 0
            assert on.stats["stream_bytes_received"] == 0

    run(main())
