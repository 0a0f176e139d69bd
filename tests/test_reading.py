"""Streams of frames that are cut anywhere, one read space for all connections, and its memory.

What single frames mean is in test_frame.py and test_frame_out.py.
"""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roletalk._buffer import ReadSpace
from roletalk._frame import Connection, ConnectionState
from roletalk._inbound import FrameLimits
from tests import rawclient as raw
from tests.cuts import cut, cut_unit, read_from
from tests.faketransport import Remote, connected, turns
from tests.helpers import run
from tests.streams import KIB, MIB, pattern
from tests.test_frame import both_sides, close_code_of, in_loop

LAZY_UNMASK = 4096
PLAIN_HEAD = 64
READ_SPACE = 262_144

EDGES: tuple[int, ...] = (0, 1, 2, 125, 126, 127, 65535, 65536, 65537)
EDGES += tuple(edge + off for edge in (PLAIN_HEAD, LAZY_UNMASK, 16384) for off in range(-9, 10))


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
