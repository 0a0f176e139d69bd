"""A unit whose frames are cut anywhere: requests, replies, roles, chunks of its streams."""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import roletalk
from roletalk._frame import ConnectionState
from tests import rawclient as raw
from tests.cuts import cut, cut_unit, read_from
from tests.faketransport import turns
from tests.helpers import eventually, run
from tests.streams import pattern, read_all

LAZY_UNMASK = 4096
SIZES = (LAZY_UNMASK - 20, LAZY_UNMASK - 6, LAZY_UNMASK, 5000, 70_000, 300_000)
MOST = (7, 1000, 70_000, 1_000_000)


@pytest.mark.parametrize("most", MOST)
def test_large_requests_of_a_client(most: int) -> None:
    async def main() -> None:
        async with cut_unit() as on:
            got: list[bytes] = []

            def echo(ctx: roletalk.RequestContext) -> Any:
                got.append(ctx.data)
                return ctx.data

            on.peer.role("r").on_request("echo")(echo)
            on.peer.role("r").on_message("note")(lambda ctx: got.append(ctx.data))
            sent = [pattern(size, size) for size in SIZES for _ in range(2)]
            messages = [
                raw.request("r", "echo", 10 + number, raw.value(data))
                if number % 2 == 0
                else raw.message("r", "note", raw.value(data))
                for number, data in enumerate(sent)
            ]
            on.feed(messages, random.Random(most), most)
            assert got == sent
            await turns()
            answers = [each for each in on.heard() if each.kind == raw.RESOLVE]
            assert [
                each.raw[-len(data) :] for each, data in zip(answers, sent[::2], strict=True)
            ] == (sent[::2])

    run(main(), debug=False)


@pytest.mark.parametrize("most", MOST)
def test_large_replies_and_roles_of_a_client(most: int) -> None:
    async def main() -> None:
        async with cut_unit("theirs") as on:
            asked = [
                asyncio.ensure_future(on.peer.destination("theirs").request("e")) for _ in SIZES
            ]
            await turns(5)
            correlations = [each.correlation for each in on.heard() if each.kind == raw.REQUEST]
            replies = [
                raw.answer(raw.RESOLVE, correlation, raw.value(pattern(size, size)))
                for correlation, size in zip(correlations, SIZES, strict=True)
            ]
            names = [f"role number {number}" for number in range(500)]
            on.feed([*replies, raw.roles_message(1, names)], random.Random(most), most)
            for size, reply in zip(SIZES, asked, strict=True):
                assert (await reply).data == pattern(size, size)
            assert set(names) <= set(on.unit.roles)

    run(main(), debug=False)


async def read_chunks(stream: roletalk.ReadableStream, rng: random.Random) -> bytes:
    data = b""
    async for chunk in stream:
        data += chunk
        for _ in range(rng.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)
    return data


async def read_into(stream: roletalk.ReadableStream, rng: random.Random) -> bytes:
    data = bytearray()
    while True:
        space = bytearray(rng.choice((1, 63, 64, 65, 4095, 65_536, 100_000)))
        size = await stream.readinto(space)
        if size == 0:
            return bytes(data)
        # Nothing beyond what it says is touched.
        assert not any(space[size:])
        data += space[:size]


@pytest.mark.parametrize("read", [read_chunks, read_into])
@pytest.mark.parametrize("most", [50, 5000, 70_000, 1_000_000])
@pytest.mark.parametrize(
    "sizes",
    [(65_536,), (16_384,), (1, 7, 60), (4096 - 5, 4096, 4097, 1), (1_100_000, 65_536, 20_000, 3)],
    ids=str,
)
def test_chunks_of_a_client(read: Any, most: int, sizes: tuple[int, ...]) -> None:
    async def main() -> None:
        rng = random.Random(f"{most} {sizes}")
        total = max(min(1000 * sum(sizes), 600_000), 2 * sum(sizes))
        # No byte of it is 0: what was not written can be told.
        data = pattern(total, 3).replace(b"\0", b"\1")
        async with cut_unit() as on, read_from(on) as (stream, channel):
            reading = asyncio.ensure_future(read(stream, rng))
            frames, at = bytearray(), 0
            while at < len(data):
                chunk = data[at : at + rng.choice(sizes)]
                at += len(chunk)
                message = raw.stream_data(channel, raw.CHUNK, chunk)
                frames += raw.encode_frame(raw.BINARY, message, mask=rng.randbytes(4))
                if rng.random() < 0.1:
                    frames += on.remote.frame(raw.PING, b"?")
            frames += on.remote.frame(raw.BINARY, raw.stream_data(channel, raw.FINISH))
            for piece in cut(bytes(frames), rng, max(most, len(frames) // 3000)):
                on.remote.feed(piece)
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            assert await reading == data
            assert on.peer.stats()["stream_bytes_received"] == len(data)

    run(main(), debug=False)


@pytest.mark.parametrize("ending", ["close", "abort", "violation", "shut"])
@pytest.mark.parametrize("there", [100, 30_000])
def test_a_connection_that_ends_in_the_middle_of_a_chunk(ending: str, there: int) -> None:
    async def main() -> None:
        async with cut_unit() as on, read_from(on) as (stream, channel):
            whole = on.remote.frame(
                raw.BINARY, raw.stream_data(channel, raw.CHUNK, pattern(65_536))
            )
            on.remote.feed(on.remote.frame(raw.BINARY, raw.stream_data(channel, 0, b"before")))
            on.remote.feed(whole[:there])
            if ending == "close":
                on.link.close(4000)
                on.remote.feed(whole[there:])
                on.remote.feed(on.remote.frame(raw.CLOSE, raw.close_payload(4000)))
            elif ending == "abort":
                on.link.abort()
            elif ending == "violation":
                on.remote.feed(whole[there:], b"\xff\xff", whole)
            else:
                on.remote.transport.close()
            got: list[bytes] = []
            with pytest.raises(roletalk.StreamError):
                await read_all(stream, got)
            whole_one = [pattern(65_536)] if ending == "violation" else []
            assert got == [b"before", *whole_one]
            on.link.abort()
            await eventually(lambda: on.link.state == ConnectionState.CLOSED)

    run(main(), debug=False)
