"""Reading and writing past the transport: streams of frames that are cut anywhere, memory, full sockets.

What single frames mean is in test_frame.py and test_frame_out.py.
"""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

import roletalk
import tests.faketransport as fake
from roletalk._buffer import ReadSpace
from roletalk._frame import Connection, ConnectionState
from roletalk._inbound import FrameLimits
from roletalk._session import Link
from roletalk.gate import Admission
from tests import rawclient as raw
from tests.faketransport import Recorder, Remote, connected, parse_frames, turns
from tests.helpers import eventually, pair, peers, ready, run
from tests.streams import KIB, MIB, opened, pattern, read_all
from tests.test_frame import both_sides, close_code_of, in_loop
from tests.test_listener import client_context, server_context

LAZY_UNMASK = 4096
PLAIN_HEAD = 64
READ_SPACE = 262_144

EDGES: tuple[int, ...] = (0, 1, 2, 125, 126, 127, 65535, 65536, 65537)
EDGES += tuple(edge + off for edge in (PLAIN_HEAD, LAZY_UNMASK, 16384) for off in range(-9, 10))


def cut(data: bytes, rng: random.Random, most: int) -> Iterator[bytes]:
    """`data` in pieces of 1 to `most` bytes, small ones as likely as large ones."""
    at = 0
    while at < len(data):
        size = rng.randint(1, max(1, int(most ** rng.random())))
        yield data[at : at + size]
        at += size


# -- frames, whatever the cuts -----------------------------------------------------------------------


def some_frames(remote: Remote, rng: random.Random) -> tuple[bytes, list[bytes], list[bytes]]:
    """Frames of a remote end, the messages in them, and the pings that want an answer."""
    frames: list[bytes] = []
    messages: list[bytes] = []
    pings: list[bytes] = []

    def control() -> None:
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            payload = rng.randbytes(rng.choice((0, 1, 125)))
            opcode = rng.choice((raw.PING, raw.PONG))
            if opcode == raw.PING:
                pings.append(payload)
            frames.append(remote.frame(opcode, payload))

    for _ in range(rng.randint(1, 12)):
        control()
        message = rng.randbytes(rng.choice((*EDGES, rng.randint(0, 9000))))
        messages.append(message)
        parts = rng.choice((1, 1, 1, 2, 5))
        edges = [0, *sorted(rng.randint(0, len(message)) for _ in range(parts - 1)), len(message)]
        for number in range(parts):
            if number > 0:
                control()
            opcode = raw.BINARY if number == 0 else raw.CONTINUATION
            part = message[edges[number] : edges[number + 1]]
            frames.append(remote.frame(opcode, part, fin=number == parts - 1))
    return b"".join(frames), messages, pings


@both_sides
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), most=st.sampled_from([1, 3, 20, 200, 5000, 300_000]))
def test_where_reads_end_changes_nothing(client: bool, seed: int, most: int) -> None:
    async def main() -> None:
        with connected(client=client) as (connection, remote):
            rng = random.Random(seed)
            data, messages, pings = some_frames(remote, rng)
            # Byte by byte only what is not large.
            for piece in cut(data, rng, max(most, len(data) // 2000)):
                remote.feed(piece)
            assert connection.messages == messages
            assert connection.bytes_received == sum(map(len, messages))
            assert [(frame.opcode, frame.payload) for frame in remote.sent()] == [
                (raw.PONG, ping) for ping in pings
            ]
            assert connection.is_open

    run(main(), debug=False)


@both_sides
@in_loop
async def test_frames_around_the_end_of_the_read_space(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        sizes = [READ_SPACE - 14 + off for off in range(0, 20, 3)] + [2 * READ_SPACE + 5]
        messages = [pattern(size, size) for size in sizes]
        for message in messages:
            remote.feed(remote.frame(raw.BINARY, message))
        assert connection.messages == messages
        connection.messages.clear()
        remote.feed(*(remote.frame(raw.BINARY, message) for message in messages))
        assert connection.messages == messages
        # One that ends where the space does, and an empty one behind it.
        head = len(remote.frame(raw.BINARY, bytes(70_000))) - 70_000
        last = remote.frame(raw.BINARY)
        connection.messages.clear()
        remote.feed(remote.frame(raw.BINARY, bytes(READ_SPACE - head - len(last))), last)
        assert [len(message) for message in connection.messages][1:] == [0]


# -- a unit whose frames are cut anywhere ------------------------------------------------------------


class Cut(NamedTuple):
    """A unit of `peer`, which masks; its remote end is the test."""

    peer: roletalk.Peer
    unit: roletalk.Unit
    link: Link
    remote: Remote

    def feed(self, messages: list[bytes], rng: random.Random, most: int) -> None:
        data = b"".join(self.remote.frame(raw.BINARY, message) for message in messages)
        for piece in cut(data, rng, most):
            self.remote.feed(piece)

    def heard(self) -> list[raw.Message]:
        """The messages of a unit that were sent to the remote end since the last call."""
        frames = [frame for frame in self.remote.sent() if frame.opcode == raw.BINARY]
        return [raw.decode(frame.payload) for frame in frames]


@asynccontextmanager
async def cut_unit(*roles: str, **options: Any) -> AsyncIterator[Cut]:
    async with peers("server", **options) as (server,):
        server.bind()
        admission = Admission(server)
        remote = Remote(admission.link, admission.gate)
        confirmed = raw.json_message(raw.CONFIRMED, raw.peer_data("remote", roles=roles))
        remote.feed(remote.frame(raw.BINARY, confirmed))
        unit = await admission.result
        await turns()
        remote.sent()
        try:
            yield Cut(server, unit, admission.link, remote)
        finally:
            admission.link.abort()
            await unit._lost.wait()


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


@asynccontextmanager
async def read_from(on: Cut) -> AsyncIterator[tuple[roletalk.ReadableStream, int]]:
    """A stream that the remote end writes to, and the channel that it does that on."""
    accepted: asyncio.Future[roletalk.ReadableStream] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def handler(ctx: roletalk.ReadableContext) -> None:
        accepted.set_result(await ctx.accept())
        await leave.wait()

    on.peer.role("r").on_readable("e")(handler)
    on.feed([raw.open_stream(raw.OPEN_WRITABLE, "r", "e", 1, 77)], random.Random(1), 1000)
    stream = await accepted
    await turns()
    (answer,) = [each for each in on.heard() if each.kind == raw.STREAM_RESOLVE]
    try:
        yield stream, answer.channel
    finally:
        leave.set()
        await turns(5)


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


# -- one space for all -------------------------------------------------------------------------------


class Sharing(Connection):
    """Does something in the middle of what was read."""

    def __init__(self, space: ReadSpace) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop, FrameLimits(), is_client=False, space=space)
        self.messages: list[bytes] = []
        self.then: Callable[[], object] | None = None

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)
        then, self.then = self.then, None
        if then is not None:
            then()


@in_loop
async def test_a_read_in_the_middle_of_another_connections_keeps_both() -> None:
    space = ReadSpace()
    connections = [Sharing(space) for _ in range(4)]
    remotes = [Remote(connection) for connection in connections]
    mine = [[pattern(size, who) for size in (10, 5000, 20_000, 7)] for who in range(4)]
    frames = [
        [remote.frame(raw.BINARY, message) for message in messages]
        for remote, messages in zip(remotes, mine, strict=True)
    ]
    frames[2].append(frames[2][2][:15_000])
    for who in range(3):
        connections[who].then = lambda who=who: remotes[who + 1].feed(*frames[who + 1])
    remotes[0].feed(*frames[0])
    assert [connection.messages for connection in connections] == mine
    # What was read into memory of its own goes on there.
    remotes[3].feed(*frames[3])
    remotes[2].feed(frames[2][2][15_000:])
    assert connections[2].messages == [*mine[2], mine[2][2]]
    assert connections[3].messages == mine[3] * 2
    for connection in connections:
        connection.abort()
    await turns()


def test_a_chunk_that_is_read_in_the_middle_of_another_connections_batch() -> None:
    async def main() -> None:
        async with cut_unit() as on, read_from(on) as (stream, channel):
            outer, inner = Sharing(on.peer.read_space), Sharing(on.peer.read_space)
            outer_end, inner_end = Remote(outer), Remote(inner)
            chunk = on.remote.frame(
                raw.BINARY, raw.stream_data(channel, raw.CHUNK, pattern(65_536))
            )
            on.remote.feed(chunk[:20_000])

            def meanwhile() -> None:
                on.remote.feed(chunk[20_000:40_000])
                inner_end.feed(inner_end.frame(raw.BINARY, b"\xee" * 10_000))
                on.remote.feed(chunk[40_000:])

            outer.then = meanwhile
            messages = [b"first", pattern(3000, 1), pattern(3000, 2)]
            outer_end.feed(*(outer_end.frame(raw.BINARY, message) for message in messages))
            assert outer.messages == messages
            assert inner.messages == [b"\xee" * 10_000]
            assert await stream.readexactly(65_536) == pattern(65_536)
            outer.abort()
            inner.abort()
            await turns()

    run(main(), debug=False)


@in_loop
async def test_a_failing_receiver_ends_its_own_connection_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    space = ReadSpace()
    bad, good = Sharing(space), Sharing(space)
    bad_end, good_end = Remote(bad), Remote(good)
    bad.then = fail
    half = good_end.frame(raw.BINARY, pattern(9000))
    good_end.feed(half[:5000])
    bad_end.feed(bad_end.frame(raw.BINARY, b"x"), bad_end.frame(raw.BINARY, b"y"))
    good_end.feed(half[5000:])
    assert close_code_of(bad_end) == 1011
    assert bad.messages == [b"x"]
    assert good.messages == [pattern(9000)]
    assert good.is_open
    caplog.clear()
    bad.abort()
    good.abort()
    await turns()


@pytest.mark.parametrize("rest", [False, True], ids=["in the space", "in memory of its own"])
def test_an_interrupt_loses_none_of_the_frames_behind_it(rest: bool) -> None:
    loop = asyncio.new_event_loop()

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def receive() -> Sharing:
        connection = Sharing(ReadSpace())
        remote = Remote(connection)
        connection.then = interrupt
        frames = b"".join(remote.frame(raw.BINARY, b"%d" % number) for number in range(4))
        at = 3 if rest else 0
        remote.feed(frames[:at])
        remote.feed(frames[at:-2])
        remote.feed(frames[-2:])
        assert connection.messages == [b"0", b"1", b"2", b"3"]
        return connection

    async def end(connection: Sharing) -> None:
        assert connection.is_open
        connection.abort()
        await turns()

    task = loop.create_task(receive())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait({task}))
        loop.run_until_complete(end(loop.run_until_complete(task)))
    finally:
        loop.close()


@pytest.mark.parametrize("how", ["abort", "close", "lost"])
@pytest.mark.parametrize("rest", [False, True], ids=["in the space", "in memory of its own"])
@in_loop
async def test_a_receiver_that_ends_the_connection_it_is_read_from(how: str, rest: bool) -> None:
    connection = Sharing(ReadSpace())
    remote = Remote(connection)
    endings: dict[str, Callable[[], object]] = {
        "abort": connection.abort,
        "close": lambda: connection.close(4000),
        "lost": lambda: connection.connection_lost(None),
    }
    connection.then = endings[how]
    large = remote.frame(raw.BINARY, pattern(1_000_000))
    frames = large + remote.frame(raw.BINARY, pattern(100_000)) * 2 + large[:5000]
    at = 70_000 if rest else 0
    remote.feed(frames[:at])
    remote.feed(frames[at:])
    await turns()
    assert connection.messages[0] == pattern(1_000_000)
    if how != "abort":
        assert len(connection.messages) == 1
    remote.transport._lose()
    assert connection.state == ConnectionState.CLOSED


# -- memory ------------------------------------------------------------------------------------------


@pytest.fixture
def held() -> Iterator[Callable[[], int]]:
    """Bytes that are allocated; also those of compiled code."""

    def measure() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    yield measure
    tracemalloc.stop()


def test_the_memory_of_an_unfinished_frame_is_given_back(held: Callable[[], int]) -> None:
    async def main() -> None:
        with connected() as (connection, remote):
            frame = remote.frame(raw.BINARY, bytes(4 * MIB))
            remote.feed(remote.frame(raw.BINARY, b"warm"))
            before = held()
            for piece in cut(frame[: 3 * MIB], random.Random(1), 300_000):
                remote.feed(piece)
            assert held() - before >= 3 * MIB
            remote.feed(frame[3 * MIB :])
            connection.messages.clear()
            assert held() - before < 64 * KIB

    run(main(), debug=False)


def test_the_start_of_the_next_frame_does_not_keep_the_memory_of_a_large_one(
    held: Callable[[], int],
) -> None:
    async def main() -> None:
        with connected() as (connection, remote):
            frame = remote.frame(raw.BINARY, bytes(8 * MIB))
            before = held()
            for piece in cut(frame + frame[:1], random.Random(1), 300_000):
                remote.feed(piece)
            assert len(connection.messages) == 1
            connection.messages.clear()
            assert held() - before < 2 * MIB
            remote.feed(frame[1:])
            assert len(connection.messages) == 1

    run(main(), debug=False)


def test_idle_connections_of_a_peer_hold_no_read_memory(held: Callable[[], int]) -> None:
    async def main() -> None:
        space = ReadSpace()
        count = 100
        connections = [Sharing(space) for _ in range(count)]
        remotes = [Remote(connection) for connection in connections]
        await turns()
        before = held()
        for remote in remotes:
            frame = remote.frame(raw.BINARY, pattern(20_000))
            remote.feed(frame[:12_000])
            remote.feed(frame[12_000:], remote.frame(raw.PING))
        for connection, remote in zip(connections, remotes, strict=True):
            assert len(connection.messages) == 1
            connection.messages.clear()
            remote.sent()
            assert connection.unsent_bytes == 0
        assert (held() - before) / count < 4 * KIB
        for connection in connections:
            connection.abort()
        await turns()

    run(main(), debug=False)


# -- the end of what is heard ------------------------------------------------------------------------


@both_sides
@pytest.mark.parametrize("rest", [False, True], ids=["whole", "in parts"])
@in_loop
async def test_after_a_violation_what_comes_is_read_and_not_kept(client: bool, rest: bool) -> None:
    with connected(client=client, limits=FrameLimits(close_timeout=600.0)) as (connection, remote):
        bad = remote.frame(raw.BINARY, b"x", rsv=1)
        more = remote.frame(raw.BINARY, bytes(100_000))
        remote.feed(bad[: 1 if rest else 0])
        remote.feed(bad[1 if rest else 0 :], more)
        tracemalloc.start()
        for _ in range(20):
            remote.feed(more[:-1])
        assert tracemalloc.get_traced_memory()[0] < 300_000
        tracemalloc.stop()
        assert remote.transport.reading
        assert close_code_of(remote) == 1002
        assert connection.messages == []
        assert connection.state == ConnectionState.CLOSING
        # It is over as soon as the remote's side is.
        assert not connection.eof_received()
        remote.transport.close()
        await turns()
        assert connection.state == ConnectionState.CLOSED
        assert remote.sent() == []


@both_sides
@in_loop
async def test_after_a_violation_a_remote_that_says_nothing_is_dropped(client: bool) -> None:
    with connected(client=client, limits=FrameLimits(close_timeout=0.01)) as (connection, remote):
        remote.feed(remote.frame(raw.PONG, b"x", rsv=1))
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert remote.transport.aborted
        assert connection.closed_by_us


def test_a_remote_that_floods_after_its_violation_is_read_until_it_ends() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            server.limits.close_timeout = 600.0
            listener = await server.listen()

            def flood() -> int | None:
                with raw.dial(listener.port) as connection:
                    raw.authenticate(connection)
                    connection.send_raw(raw.encode_frame(raw.BINARY, b"x", rsv=1))
                    connection.send_raw(bytes(32 * MIB))
                    connection.finish_sending()
                    return connection.wait_closed(answer_close=False)

            assert await asyncio.to_thread(flood) == 1002
            await eventually(lambda: not server.units)

    run(main(), debug=False)


@both_sides
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        (raw.close_payload(1000) + b"\xff", 1007),
        (raw.close_payload(1000) + b"\xc3", 1007),
        (raw.close_payload(1000) + b"\xed\xa0\x80", 1007),
        (raw.close_payload(4000) + b"x" * 122 + b"\xc3", 1007),
        (raw.close_payload(999) + b"\xff", 1002),
    ],
)
@in_loop
async def test_a_close_frame_that_is_not_right(client: bool, payload: bytes, code: int) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(raw.CLOSE, payload), remote.frame(raw.BINARY, b"late"))
        await turns()
        assert close_code_of(remote) == code
        assert connection.closed_by_us
        assert connection.state == ConnectionState.CLOSED
        assert connection.messages == []


@both_sides
@in_loop
async def test_the_longest_close_reason(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(raw.CLOSE, raw.close_payload(4000, "ü" * 61 + "x")))
        await turns()
        assert close_code_of(remote) == 4000
        assert connection.close_reason == "ü" * 61 + "x"


@pytest.mark.parametrize("admitted", [False, True], ids=["stranger", "unit"])
@pytest.mark.parametrize("fragments", [1, 2, 5])
def test_an_empty_message(admitted: bool, fragments: int) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()

            def say_nothing() -> int | None:
                with raw.dial(listener.port) as connection:
                    if admitted:
                        raw.authenticate(connection)
                    connection.send_fragments([b""] * fragments)
                    return connection.wait_closed()

            assert await asyncio.to_thread(say_nothing) == 4006

    run(main())


@in_loop
async def test_closing_and_holding_in_the_middle_of_a_batch_end_in_a_closed_connection() -> None:
    limits = FrameLimits(high_water=1000, low_water=500, close_timeout=600.0)
    limits.max_unsent = 1000
    with connected(limits=limits) as (connection, remote):
        remote.transport.stalled = True
        connection.send_message(bytes(2000))
        await turns()
        assert not remote.transport.reading
        connection.close(4000)
        remote.feed(remote.frame(raw.CLOSE, raw.close_payload(4000)))
        await turns()
        remote.transport.take()
        await turns()
        assert connection.state == ConnectionState.CLOSED


# -- past the transport ------------------------------------------------------------------------------


class SocketTransport(fake.FakeTransport):
    """One that writes to a socket, as aiofastnet's do; a connection may write there as well.

    `read` is the other end of that socket.
    """

    # aiofastnet's keep no reference to what they are given.
    __module__ = "aiofastnet.stand_in"

    def __init__(self, protocol: Any) -> None:
        self.held = bytearray()
        self.calls = 0
        super().__init__(protocol)
        self._ours.setblocking(False)

    def write(self, data: Any) -> None:
        if not isinstance(self.protocol, Connection):
            super().write(data)
            return
        assert not self.lost, "written after the connection was lost"
        self.calls += 1
        if not self.aborted:
            self.held += data
            self.send_held()
            if self.backlog > self._high and not self._over:
                self._over = True
                self.protocol.pause_writing()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def send_held(self) -> None:
        while self.held:
            try:
                del self.held[: self._ours.send(self.held)]
            except BlockingIOError:
                break
        self.backlog = len(self.held)

    def abort(self) -> None:
        self.held.clear()
        super().abort()

    def narrow(self) -> None:
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def fill(self) -> int:
        """Have the socket take no more; the count of the bytes that it took."""
        count = 0
        while True:
            try:
                count += self._ours.send(bytes(100))
            except BlockingIOError:
                return count

    def peek(self) -> bytes:
        """What the socket holds."""
        data = b""
        with suppress(BlockingIOError):
            while piece := self._theirs.recv(1 << 20):
                data += piece
        return data

    def read(self, size: int) -> bytes:
        """At most `size` bytes; the transport hears of the room that this makes."""
        try:
            data = self._theirs.recv(size)
        except BlockingIOError:
            data = b""
        if not self.lost:
            self.send_held()
            if self._over and self.backlog <= self._low:
                self._over = False
                self.protocol.resume_writing()
            if self.closing and not self.backlog:
                self._loop.call_soon(self._lose)
        return data

    def read_all(self) -> bytes:
        data = b""
        while piece := self.read(1 << 20):
            data += piece
        return data

    def _collect(self) -> None:
        self.writes.append(self.read_all())


def flush_soon(connection: Any) -> None:
    """What the loop would call at the end of the turn."""
    connection._flush_soon()


def socket_of(remote: Remote) -> SocketTransport:
    assert isinstance(remote.transport, SocketTransport)
    return remote.transport


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of the test have a socket that they may write to."""
    monkeypatch.setattr(fake, "FakeTransport", SocketTransport)


@pytest.mark.usefixtures("past")
@both_sides
@in_loop
async def test_what_an_idle_socket_takes_does_not_go_through_the_transport(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        transport = socket_of(remote)
        calls = transport.calls
        connection.send_message(pattern(1000))
        assert connection.unsent_bytes > 1000
        await turns()
        assert transport.calls == calls
        assert connection.unsent_bytes == 0
        assert [frame.payload for frame in remote.sent()] == [pattern(1000)]


@pytest.mark.usefixtures("past")
@both_sides
@pytest.mark.parametrize("seed", range(4))
@in_loop
async def test_a_slow_reader_gets_everything_in_order(client: bool, seed: int) -> None:
    limits = FrameLimits(high_water=50_000, low_water=20_000)
    with connected(client=client, limits=limits) as (connection, remote):
        transport = socket_of(remote)
        transport.narrow()
        rng = random.Random(seed)
        messages, got = [], bytearray()
        before = connection.bytes_sent
        for _ in range(150):
            for _ in range(rng.choice((0, 1, 1, 5))):
                messages.append(rng.randbytes(rng.choice((0, 1, 100, 3000, 70_000))))
                connection.send_message(messages[-1])
            if rng.random() < 0.5:
                await asyncio.sleep(0)
                # Right after a flush: what the transport holds, and nothing else.
                assert connection.unsent_bytes == transport.backlog
                assert connection.busy == (transport.backlog > 20_000)
            got += transport.read(rng.choice((1, 100, 3000, 500_000)))
        await turns()
        got += transport.read_all()
        assert connection.bytes_sent - before == len(got)
        assert connection.unsent_bytes == 0
        assert [frame.payload for frame in parse_frames(bytes(got))] == messages
        assert transport.calls > 0


@pytest.mark.usefixtures("past")
@in_loop
async def test_a_socket_that_takes_nothing() -> None:
    with connected() as (connection, remote):
        transport = socket_of(remote)
        transport.narrow()
        filler = transport.fill()
        connection.send_message(b"first")
        await turns()
        assert transport.calls == 1
        assert connection.unsent_bytes == transport.backlog == 7
        connection.send_message(b"second")
        await turns()
        assert transport.calls == 2
        got = remote.transport.written()[filler:]
        assert [frame.payload for frame in parse_frames(got)] == [b"first", b"second"]
        connection.send_message(b"third")
        await turns()
        assert transport.calls == 2
        assert [frame.payload for frame in remote.sent()] == [b"third"]


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize("look", [False, True], ids=["unseen", "seen"])
@in_loop
async def test_nothing_is_written_behind_what_abort_dropped(look: bool) -> None:
    # A remote that got the first part of a frame would take what follows for the rest of it.
    with connected() as (connection, remote):
        transport = socket_of(remote)
        transport.narrow()
        connection.send_message(bytes(100_000))
        await turns()
        assert transport.backlog > 0
        connection.send_message(b"\xff" * 1000)
        connection.abort()
        assert not look or connection.unsent_bytes >= 1000
        connection.send_message(b"\xff" * 1000)
        got = transport.peek()
        flush_soon(connection)
        got += transport.peek()
        await turns()
        assert connection.state == ConnectionState.CLOSED
        assert b"\xff" not in got[10:]


def test_nothing_is_written_behind_what_the_owner_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "FakeTransport", SocketTransport)

    async def main() -> None:
        async with cut_unit() as on:
            transport = socket_of(on.remote)
            transport.narrow()
            on.link.send_message(raw.message("r", "e", raw.value(bytes(100_000))))
            await turns()
            assert transport.backlog > 0
            admission: Any = on.link.owner
            on.link.send_message(b"\xff" * 1000)
            admission.abort()
            got = transport.peek()
            flush_soon(on.link)
            got += transport.peek()
            await turns()
            assert on.link.state == ConnectionState.CLOSED
            assert b"\xff" not in got[10:]

    run(main())


@pytest.mark.usefixtures("past")
@in_loop
async def test_what_the_transport_held_before_the_upgrade_goes_first() -> None:
    connection = Recorder(FrameLimits(), is_client=False)
    transport = SocketTransport(asyncio.Protocol())
    transport.narrow()
    filler = transport.fill()
    transport.held += b"HTTP"
    transport.backlog = 4
    connection.upgraded(transport)
    assert len(transport.peek()) == filler
    connection.send_message(b"frame")
    await turns()
    frame = raw.encode_frame(raw.BINARY, b"frame", mask=None)
    assert transport.read_all() == b"HTTP" + frame
    connection.abort()
    await turns()


@pytest.mark.parametrize("seed", range(4))
def test_chunks_to_a_slow_reader(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(fake, "FakeTransport", SocketTransport)

    async def main() -> None:
        rng = random.Random(seed)
        data = pattern(1 * MIB, seed)
        async with cut_unit() as on:
            transport = socket_of(on.remote)
            transport.narrow()

            async def handler(ctx: roletalk.WritableContext) -> None:
                stream = await ctx.accept()
                at = 0
                while at < len(data):
                    size = rng.choice((1, 100, 8191, 8192, 65_536, 200_000))
                    await stream.write(data[at : at + size])
                    at += size
                await stream.close()

            on.peer.role("r").on_writable("e")(handler)
            on.feed([raw.open_stream(raw.OPEN_READABLE, "r", "e", 1, 77)], rng, 100)
            await turns(5)
            got = bytearray(transport.read(1 << 16))
            # The first chunks are on their way already.
            said = (raw.decode(frame.payload) for frame in parse_frames(bytes(got)))
            answer = next(each for each in said if each.kind == raw.STREAM_RESOLVE)
            on.feed([raw.stream_data(answer.channel, raw.QUOTA, raw.number(4 * MIB))], rng, 100)
            # Small reads end in every part of a frame, and of what is written of two together.
            while on.peer.stats()["streams"] or transport.backlog or not got:
                await asyncio.sleep(0)
                got += transport.read(rng.choice((1, 17, 2000, 9000, 50_000)))
            got += transport.read_all()
            heard = [raw.decode(frame.payload) for frame in parse_frames(bytes(got))]
            chunks = [each for each in heard if each.kind == raw.STREAM_DATA]
            assert {each.channel for each in chunks} == {77}
            assert b"".join(each.raw[4:] for each in chunks if each.raw[3] == raw.CHUNK) == data
            assert chunks[-1].raw[3] == raw.FINISH

    run(main(), debug=False)


# -- real sockets ------------------------------------------------------------------------------------


def squeeze(peer: roletalk.Peer) -> None:
    """Leave the sockets of `peer` little room."""
    for unit in peer.units:
        for link in unit.connections:
            sock = link.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


@asynccontextmanager
async def connected_peers(place: str, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    if place == "tcp":
        async with pair() as both:
            yield both
        return
    async with peers("server", "client") as (server, client):
        if place == "unix":
            listener = await server.listen(path=str(tmp_path / "s"))
            await client.connect(listener.url)
        else:
            ca = trustme.CA()
            listener = await server.listen(ssl=server_context(ca))
            await client.connect(listener.url, ssl=client_context(ca))
        await eventually(lambda: server.units)
        yield server, client


@pytest.mark.parametrize("place", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("opener", ["reads", "writes"])
def test_a_stream_through_narrow_sockets(place: str, opener: Any, tmp_path: Path) -> None:
    async def main() -> None:
        data = pattern(2 * MIB, 7)
        async with connected_peers(place, tmp_path) as (server, client):
            squeeze(server)
            squeeze(client)
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            destination = await ready(client)
            async with opened(server, client, opener) as ends:

                async def write() -> None:
                    at = 0
                    rng = random.Random(5)
                    while at < len(data):
                        size = rng.choice((1, 5000, 65_536, 300_000))
                        await ends.writer.write(data[at : at + size])
                        at += size
                    await ends.writer.close()

                writing = asyncio.create_task(write())
                # Requests and their replies go between the chunks.
                asked = [
                    asyncio.ensure_future(destination.request("echo", pattern(size, size)))
                    for size in (0, 10, 5000, 100_000)
                ]
                got = bytearray()
                while chunk := await ends.reader.read(10_000):
                    got += chunk
                await writing
                assert got == data
                for size, reply in zip((0, 10, 5000, 100_000), asked, strict=True):
                    assert (await reply).data == pattern(size, size)

    run(main(), debug=False)


def unit_of(port: int) -> raw.Connection:
    """A connection that has become a unit's."""
    connection = raw.dial(port)
    raw.authenticate(connection)
    return connection


@pytest.mark.parametrize("when", ["idle", "full"])
def test_a_remote_that_resets(when: str) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()
            with await asyncio.to_thread(unit_of, listener.port) as connection:
                await eventually(lambda: server.units)
                link: Any = server.units[0].connections[0]
                if when == "full":
                    link.send_message(bytes(16 * MIB))
                    await turns()
                    assert link.unsent_bytes > 0
                linger = struct.pack("ii", 1, 0)
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.drop()
                # The reset is there already; the loop has not seen it.
                for _ in range(5):
                    link.send_message(bytes(1000))
                    link.send_message(bytes(100_000))
                    link._flush_soon()
            await eventually(lambda: link.state == ConnectionState.CLOSED)
            assert link.close_code == 1006
            assert link.unsent_bytes == 0
            with pytest.raises(ConnectionError):
                link.send_message(b"late")

    run(main(), debug=False)


@pytest.mark.skipif(not hasattr(os, "dup2"), reason="needs os.dup2")
@pytest.mark.parametrize("ending", ["abort", "eof"])
def test_a_descriptor_that_is_used_again_gets_nothing(ending: str) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()
            with await asyncio.to_thread(unit_of, listener.port) as connection:
                await eventually(lambda: server.units)
                link: Any = server.units[0].connections[0]
                descriptor = link.transport.get_extra_info("socket").fileno()
                link.send_message(b"in time")
                if ending == "abort":
                    link.abort()
                else:
                    connection.drop()
            while link.state != ConnectionState.CLOSED:
                if link.is_open:
                    link.send_message(b"perhaps")
                await asyncio.sleep(0)
            ours, theirs = socket.socketpair()
            if theirs.fileno() == descriptor:
                ours, theirs = theirs, ours
            with ours, theirs:
                if ours.fileno() != descriptor:
                    os.dup2(ours.fileno(), descriptor)
                for _ in range(5):
                    link._flush_soon()
                    link.check_alive(1e12, 0.0, 0.0)
                    link.close()
                    await asyncio.sleep(0)
                theirs.setblocking(False)
                with pytest.raises(BlockingIOError):
                    theirs.recv(1)
                if ours.fileno() != descriptor:
                    os.close(descriptor)

    run(main(), debug=False)
