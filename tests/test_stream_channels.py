"""Streams with stand-ins for the legacy peers: channel numbers, Go's ways, and frames that are wrong."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

import roletalk
from tests import rawclient as raw
from tests.helpers import eventually, run
from tests.legacystreams import (
    CREDIT,
    GO,
    MIB,
    NODE20,
    OPENERS,
    Opener,
    Stage,
    Way,
    each_opener,
    each_way,
    legacy,
    some_bytes,
    within,
)

# -- numbers -----------------------------------------------------------------------------------------


@each_opener
@pytest.mark.parametrize("channel", [1, 0xFF, 0x100, 0xFFFF, 0x123456])
def test_a_frame_carries_the_shortest_form_of_their_number(opener: Opener, channel: int) -> None:
    """JS looks a channel up by its exact bytes."""

    async def main() -> None:
        async with legacy() as on:
            stream, _, _ = await on.open("writes", opener, channel)
            await stream.write(b"x")
            await stream.close()
            assert (await on.hear_data()).raw == raw.stream_data(channel, raw.CHUNK, b"x")
            assert (await on.hear_data()).raw == raw.stream_data(channel, raw.FINISH)

    run(main())


def test_a_padded_number_in_an_answer_is_read() -> None:
    async def main() -> None:
        async with legacy() as on:
            task = asyncio.ensure_future(within(on.bench.writable("x")))
            asked = await on.hear(raw.OPEN_WRITABLE)
            correlation, channel = raw.number(asked.correlation, 7), raw.number(0x1234, 7)
            on.say(raw.stream_answer(raw.STREAM_RESOLVE, correlation, channel))
            stream = await task
            await stream.write(b"x")
            assert (await on.hear_data()).raw == raw.stream_data(0x1234, raw.CHUNK, b"x")
            padded = raw.number(asked.channel, 8)
            on.say(raw.stream_data(padded, raw.STREAM_ERROR, b"enough"))
            with pytest.raises(roletalk.StreamError, match="enough"):
                await stream.write(bytes(MIB))

    run(main())


def test_both_numbers_of_an_answer_are_of_one_length() -> None:
    """Go reads the data type at the wrong place otherwise; nor can JS take channel 0."""

    async def main() -> None:
        async with legacy() as on:
            bench = on.peer.role("bench")

            @bench.on_readable("taken")
            async def taken(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept(ctx.data) as stream:
                    assert await stream.read() == b""

            used = []
            for index in range(300):
                correlation = (0, 5, 0xFF, 0x100, 0x123456)[index % 5]
                theirs = 0x8000 + index
                payload = raw.value(index)
                on.say(
                    raw.open_stream(
                        raw.OPEN_WRITABLE, "bench", "taken", correlation, theirs, payload
                    )
                )
                answer = await on.hear(raw.STREAM_RESOLVE, raw.STREAM_REJECT)
                size = max(len(raw.number(correlation)), len(raw.number(answer.channel)))
                assert answer.raw == raw.stream_answer(
                    raw.STREAM_RESOLVE,
                    raw.number(correlation, size),
                    raw.number(answer.channel, size),
                    payload,
                )
                used.append(answer.channel)
                on.say_data(answer.channel, raw.FINISH)
            assert 0 not in used
            assert len(set(used)) == len(used)
            assert max(used) > 0xFF
            on.say(raw.open_stream(raw.OPEN_WRITABLE, "bench", "unknown", 3, 0x1234))
            rejected = await on.hear(raw.STREAM_REJECT)
            assert rejected.raw[1] == rejected.raw[2]

    run(main())


def test_ours_opens_with_the_shortest_numbers_and_never_with_0() -> None:
    async def main() -> None:
        async with legacy() as on:
            used = []
            for _ in range(300):
                stream, channel, asked = await on.open("writes", "ours")
                assert asked.raw == raw.open_stream(
                    raw.OPEN_WRITABLE, "bench", "held", asked.correlation, channel
                )
                await stream.close()
                used.append(channel)
            assert 0 not in used
            assert len(set(used)) == len(used)

    run(main(), debug=False)


def test_a_number_that_is_in_use_is_rejected() -> None:
    async def main() -> None:
        async with legacy() as on:
            served: list[object] = []
            for kind in (on.peer.role("bench").on_readable, on.peer.role("bench").on_writable):
                kind("other")(served.append)
            for opener in OPENERS:
                stream, channel, _ = await on.open("reads", opener, 7)
                for asking in (raw.OPEN_WRITABLE, raw.OPEN_READABLE):
                    on.say(raw.open_stream(asking, "bench", "other", 9, 7))
                    answer = await on.hear(raw.STREAM_RESOLVE, raw.STREAM_REJECT)
                    assert (answer.kind, answer.correlation) == (raw.STREAM_REJECT, 9)
                    assert answer.data
                on.say_data(channel, raw.CHUNK, b"unharmed")
                on.say_data(channel, raw.FINISH)
                assert await stream.read() == b"unharmed"
            assert not served

    run(main())


# -- Go, which puts its own number into what it sends ------------------------------------------------


@each_opener
def test_go_writes(opener: Opener) -> None:
    async def main() -> None:
        async with legacy(GO) as on:
            for own in (1, 2, 3):
                stream, channel, said = await on.open("reads", opener, own)
                assert channel == own
                assert said.channel == own if opener == "theirs" else said.channel >= 1 << 30
                quota = await on.hear_data()
                assert (quota.channel, quota.flag) == (own, raw.QUOTA)
                chunk = raw.stream_data(own, raw.CHUNK, some_bytes(6000))
                on.connection.send_fragments([chunk[:4096], chunk[4096:]])
                on.say_data(own, raw.FINISH)
                assert await stream.read() == some_bytes(6000)
                assert await on.settle() == []
                assert not on.stats["drops"]

    run(main())


@each_opener
def test_go_reads(opener: Opener) -> None:
    async def main() -> None:
        async with legacy(GO) as on:
            for own in (1, 2, 3):
                stream, channel, _ = await on.open("writes", opener, own)
                writing = asyncio.create_task(stream.write(bytes(20_000)))
                received = 0
                while received < 20_000:
                    chunk = await on.hear_data()
                    assert (chunk.channel, chunk.flag) == (own, raw.CHUNK)
                    received += len(chunk.payload)
                    on.say_data(channel, raw.QUOTA, raw.number(len(chunk.payload)))
                await writing
                await stream.close()
                finish = await on.hear_data()
                assert (finish.channel, finish.flag) == (own, raw.FINISH)
                assert not on.stats["drops"]

    run(main())


def test_go_opens_while_ours_are_open() -> None:
    async def main() -> None:
        async with legacy(GO) as on:
            streams = [
                (await on.open("reads", opener, own)).stream
                for own, opener in enumerate(OPENERS * 2, 1)
            ]
            for own in (4, 3, 2, 1):
                on.say_data(own, raw.CHUNK, bytes([own]))
                on.say_data(own, raw.FINISH)
            assert [await stream.read() for stream in streams] == [b"\1", b"\2", b"\3", b"\4"]
            assert not on.stats["drops"]

    run(main())


def overrun(on: Stage, channel: int, data: bytes, piece: int = 32768) -> None:
    """Write without regard to any credit, as Go does after the first quota."""
    for at in range(0, len(data), piece):
        chunk = raw.stream_data(channel, raw.CHUNK, data[at : at + piece])
        on.connection.send_frame(raw.BINARY, chunk, mask=raw.ZERO_MASK, timeout=30)
    on.say_data(channel, raw.FINISH)


def test_an_overrunning_go_writer() -> None:
    """It ignores its credit: the connection is not read from until the consumer has caught up."""
    window = 65536
    data = some_bytes(48 * MIB)
    sent = hashlib.sha256(data).digest()

    async def main() -> None:
        async with legacy(
            GO, stream_window=window, heartbeat_interval=0.5, heartbeat_timeout=3.0
        ) as on:
            stream, channel, _ = await on.open("reads", "theirs", 1)

            def wait_for_pongs(count: int) -> None:
                while count:
                    count -= on.connection.read_frame().opcode == raw.PONG

            overrunning = asyncio.create_task(asyncio.to_thread(overrun, on, channel, data))
            await eventually(lambda: on.stats["stream_bytes_received"] > window)
            # None of these answers a ping: they keep the other side's heartbeat alive, and its pongs
            # to ours cannot be read for now.
            await asyncio.to_thread(wait_for_pongs, 6)
            assert on.stats["stream_bytes_received"] < window + 2 * MIB
            assert not overrunning.done()
            assert on.peer.units[0].connected

            digest = hashlib.sha256()
            async for chunk in stream:
                digest.update(chunk)
            await overrunning
            assert digest.digest() == sent
            assert not on.stats["drops"]
            await on.settle()

    run(main(), debug=False)


@each_opener
def test_the_connection_is_read_again_when_the_reader_gives_up(opener: Opener) -> None:
    window = 65536

    async def main() -> None:
        async with legacy(GO, stream_window=window) as on:
            stream, channel, _ = await on.open("reads", opener, 1)
            data = bytes(16 * MIB)
            overrunning = asyncio.create_task(asyncio.to_thread(overrun, on, channel, data))
            await eventually(lambda: on.stats["stream_bytes_received"] > window)
            await stream.abort("enough")
            await overrunning
            assert [f.flag for f in await on.settle()] == [raw.QUOTA, raw.STREAM_ERROR]
            assert on.stats["late_stream_frames"] > 0
            assert not on.stats["drops"]

    run(main(), debug=False)


# -- frames that belong nowhere ----------------------------------------------------------------------

UNKNOWN_CHANNEL = "stream frames of an unknown channel"
UNKNOWN_FLAG = "stream frames with an unknown flag"


@pytest.mark.parametrize("runtime", [NODE20, GO])
def test_frames_of_an_unknown_channel(runtime: str) -> None:
    async def main() -> None:
        async with legacy(runtime) as on:
            stream, channel, _ = await on.open("reads", "theirs", 5)
            for unknown in (0, 9999, (1 << 30) + 1, (1 << 53) - 1):
                for flag in (raw.CHUNK, raw.FINISH, raw.STREAM_ERROR, raw.QUOTA):
                    on.say_data(unknown, flag, b"\x01")
            on.say_data(channel, raw.CHUNK, b"still")
            on.say_data(channel, raw.FINISH)
            assert await stream.read() == b"still"
            await on.settle()
            if runtime == GO:  # whose own numbers ours takes over: none is known to be unused
                assert on.stats["late_stream_frames"] + sum(on.stats["drops"].values()) == 16
            else:
                assert on.stats["drops"] == {UNKNOWN_CHANNEL: 16}
                assert on.stats["late_stream_frames"] == 0

    run(main())


@each_opener
@each_way
def test_unknown_flags(opener: Opener, way: Way) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open(way, opener)
            for flag in (4, 5, 128, 255):
                on.say_data(channel, flag, b"whatever")
            sent = await on.settle()
            assert [found.flag for found in sent] == [raw.QUOTA] * (way == "reads")
            assert on.stats["drops"] == {UNKNOWN_FLAG: 4}
            assert not stream.closed
            await stream.abort()

    run(main())


@each_opener
@each_way
def test_frames_in_the_wrong_direction(opener: Opener, way: Way) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open(way, opener)
            for flag in (raw.QUOTA,) if way == "reads" else (raw.CHUNK, raw.FINISH):
                on.say_data(channel, flag, b"\x01")
            await on.settle()
            assert sum(on.stats["drops"].values()) == 1 + (way == "writes")
            assert on.stats["stream_bytes_received"] == 0
            assert not stream.closed
            await stream.abort()

    run(main())


@each_opener
@pytest.mark.parametrize("end", ["finish", "error", "abort"])
def test_frames_of_a_channel_that_is_over(opener: Opener, end: str) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("reads", opener)
            if end == "abort":
                await stream.abort()
            else:
                on.say_data(channel, raw.FINISH if end == "finish" else raw.STREAM_ERROR)
                await eventually(lambda: stream.closed)
            await on.settle()
            for flag in (raw.CHUNK, raw.FINISH, raw.STREAM_ERROR, raw.QUOTA):
                on.say_data(channel, flag, b"\x01")
            assert await on.settle() == []
            assert on.stats["late_stream_frames"] == 4
            assert not on.stats["drops"]
            assert on.stats["streams"] == 0

    run(main())


@each_opener
@pytest.mark.parametrize("quota", [b"", b"\0" * 9])
def test_a_quota_that_is_none(opener: Opener, quota: bytes) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("writes", opener)
            on.say_data(channel, raw.QUOTA, quota)
            assert await asyncio.to_thread(on.connection.wait_closed) == 4004
            await eventually(lambda: stream.closed)
            with pytest.raises(roletalk.StreamError):
                await stream.write(b"x")

    run(main())


@each_opener
@pytest.mark.parametrize("quota", [1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_huge_quota(opener: Opener, quota: int) -> None:
    """It counts as 2^53-1, and credit does not wrap: one is enough, many do no harm."""

    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("writes", opener)
            for _ in range(5):
                on.say_data(channel, raw.QUOTA, raw.number(quota, 8))
            await on.settle()
            writing = asyncio.create_task(stream.write(bytes(2 * MIB)))
            received = 0
            while received < 2 * MIB:
                received += len((await on.hear_data()).payload)
            await writing
            await stream.close()

    run(main())


@each_opener
def test_a_quota_with_leading_zeros(opener: Opener) -> None:
    async def main() -> None:
        async with legacy() as on:
            stream, channel, _ = await on.open("writes", opener)
            on.say_data(channel, raw.QUOTA, raw.number(0, 1))
            on.say_data(channel, raw.QUOTA, raw.number(10, 8))
            writing = asyncio.create_task(stream.write(bytes(CREDIT[NODE20] + 11)))
            received = 0
            while received < CREDIT[NODE20] + 10:
                received += len((await on.hear_data()).payload)
            assert await on.settle() == []
            assert not writing.done()
            await stream.abort()
            with pytest.raises(roletalk.StreamError):
                await writing

    run(main())
