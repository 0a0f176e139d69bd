"""What a WebSocket connection writes, and when: frames, masks, batches, pongs, room, heartbeats.

Written against docs/protocol.md, sections 1 and 6, and RFC 6455.
"""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import os
from typing import Any

import pytest

import roletalk
from roletalk._frame import ConnectionState
from roletalk._inbound import FrameLimits
from roletalk._peer import clock
from roletalk._session import Link, UnitCore
from roletalk.gate import Admission
from tests.faketransport import Recorder, Remote, connected, parse_frames, turns
from tests.helpers import peers, run
from tests.rawclient import (
    BINARY,
    CLOSE,
    CONFIRMED,
    PING,
    PONG,
    json_message,
    message,
    peer_data,
)
from tests.test_frame import both_sides, close_code_of, in_loop

# -- frames ------------------------------------------------------------------------------------------


@both_sides
@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (1, b"\x82\x01"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
@in_loop
async def test_each_message_is_one_frame_with_the_shortest_length(
    client: bool, size: int, header: bytes
) -> None:
    with connected(client=client) as (connection, remote):
        message = os.urandom(size)
        connection.send_message(message)
        await turns()
        data = remote.transport.written()
        assert data[0] == header[0]
        assert data[1] == header[1] | (0x80 if client else 0)
        assert data[2 : len(header)] == header[2:]
        assert len(data) == len(header) + (4 if client else 0) + size
        (frame,) = parse_frames(data)
        assert frame.payload == message
        assert connection.bytes_sent == len(data)


@in_loop
async def test_a_message_is_bytes() -> None:
    with connected(client=True) as (connection, remote):
        for wrong in (None, "text", bytearray(b"x")):
            with pytest.raises(TypeError):
                connection.send_message(wrong)
        await turns()
        assert remote.transport.written() == b""


@both_sides
@in_loop
async def test_every_size_unmasks_to_the_message(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        messages = [os.urandom(size) for size in range(40)]
        for message in messages:
            connection.send_message(message)
        await turns()
        assert [frame.payload for frame in remote.sent()] == messages


@in_loop
async def test_a_server_does_not_mask() -> None:
    with connected() as (connection, remote):
        connection.send_message(b"plain")
        connection.close()
        assert [frame.mask for frame in remote.sent()] == [None, None]


@in_loop
async def test_masks_differ_from_frame_to_frame() -> None:
    with connected(client=True) as (connection, remote):
        # More than one pool of random bytes holds.
        for _ in range(3000):
            connection.send_message(b"")
        await turns()
        masks = [frame.mask for frame in remote.sent()]
        assert len(masks) == 3000
        assert None not in masks
        # Of 3000 numbers out of 2^32, three equal pairs come once in 10^10 runs.
        assert len(set(masks)) > 2997


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a thing of Unix")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_share_masks() -> None:
    masks_of_a_client()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"".join(masks_of_a_client()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 32
    assert not {theirs[i : i + 4] for i in range(0, 32, 4)} & set(masks_of_a_client())


def masks_of_a_client() -> list[bytes]:
    async def main() -> list[bytes]:
        with connected(client=True) as (connection, remote):
            for _ in range(8):
                connection.send_message(b"")
            await turns()
            return [frame.mask or b"" for frame in remote.sent()]

    return run(main())


# -- one write ---------------------------------------------------------------------------------------


class Answering(Recorder):
    """Answers each message with one of as many bytes as its text says."""

    def on_message(self, message: bytes) -> None:
        super().on_message(message)
        self.send_message(b"x" * int(message))


def answering(*, client: bool = False) -> tuple[Answering, Remote]:
    connection = Answering(FrameLimits(), is_client=client)
    return connection, Remote(connection)


async def drop(connection: Recorder) -> None:
    connection.abort()
    await turns()


@both_sides
@in_loop
async def test_frames_of_one_loop_turn_leave_in_one_write(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        for number in range(100):
            connection.send_message(b"%d" % number)
        assert remote.transport.writes == []
        assert connection.unsent_bytes > 0
        await turns()
        assert len(remote.transport.writes) == 1
        assert [int(frame.payload) for frame in remote.sent()] == list(range(100))
        assert connection.unsent_bytes == 0


@in_loop
async def test_a_turn_does_not_gather_without_limit() -> None:
    with connected() as (connection, remote):
        for _ in range(64):
            connection.send_message(b"x" * 4096)
        assert sum(map(len, remote.transport.writes)) >= 128 * 1024
        assert 2 <= len(remote.transport.writes) <= 8
        await turns()
        assert len(remote.sent()) == 64


@both_sides
@in_loop
async def test_answers_to_one_read_leave_when_it_has_been_read(client: bool) -> None:
    connection, remote = answering(client=client)
    remote.feed(*(remote.frame(BINARY, b"10") for _ in range(50)))
    # No turn of the loop in between.
    assert len(remote.transport.writes) == 1
    assert len(remote.sent()) == 50
    await drop(connection)


@in_loop
async def test_answers_of_a_kilobyte_leave_early() -> None:
    connection, remote = answering()
    # What is left to read is less than the first kilobyte of answers.
    remote.feed(*(remote.frame(BINARY, b"300") for _ in range(40)))
    sizes = [len(data) for data in remote.transport.writes]
    assert len(sizes) == 10
    assert min(sizes) > 1024
    assert len(remote.sent()) == 40
    await drop(connection)


@in_loop
async def test_answers_wait_while_more_is_left_to_read() -> None:
    connection, remote = answering()
    filler = remote.frame(PONG, b"x" * 120)
    remote.feed(*(remote.frame(BINARY, b"600") for _ in range(2)), filler * 11)
    assert len(remote.transport.writes) == 1
    await drop(connection)


# -- pings -------------------------------------------------------------------------------------------


@both_sides
@pytest.mark.parametrize("payload", [b"", b"x", bytes(125)])
@in_loop
async def test_a_ping_is_answered_at_once(client: bool, payload: bytes) -> None:
    with connected(client=client) as (_, remote):
        remote.feed(remote.frame(PING, payload))
        (frame,) = remote.sent()
        assert (frame.opcode, frame.payload, frame.fin) == (PONG, payload, True)


def limits(*, high: int, low: int) -> FrameLimits:
    return FrameLimits(max_message_size=1 << 20, high_water=high, low_water=low, close_timeout=0.01)


@in_loop
async def test_a_flood_of_pings_to_a_stalled_writer_is_answered_once() -> None:
    with connected(limits=limits(high=10_000, low=5_000)) as (connection, remote):
        remote.transport.stalled = True
        for number in range(5_000):
            remote.feed(remote.frame(PING, b"%05d" % number))
        assert connection.unsent_bytes <= 10_000 + 7
        before = len(remote.sent())
        assert before < 1_500
        remote.transport.stalled = False
        remote.transport.take()
        await turns()
        assert [frame.payload for frame in remote.sent()] == [b"04999"]


@in_loop
async def test_a_pong_that_waits_for_room_is_not_sent_after_a_close_frame() -> None:
    with connected(limits=limits(high=1000, low=500)) as (connection, remote):
        remote.transport.stalled = True
        connection.send_message(b"x" * 2000)
        await turns()
        remote.feed(remote.frame(PING, b"?"))
        connection.close(4000)
        remote.transport.take()
        await turns()
        assert [frame.opcode for frame in remote.sent()] == [BINARY, CLOSE]


# -- room --------------------------------------------------------------------------------------------


@in_loop
async def test_unsent_bytes_and_busy() -> None:
    with connected(limits=limits(high=1000, low=500)) as (connection, remote):
        remote.transport.stalled = True
        assert (connection.unsent_bytes, connection.busy) == (0, False)
        connection.send_message(b"x" * 496)
        assert (connection.unsent_bytes, connection.busy) == (500, False)
        await turns()
        assert (connection.unsent_bytes, connection.busy) == (500, False)
        connection.send_message(b"")
        assert (connection.unsent_bytes, connection.busy) == (502, True)
        await turns()
        assert (connection.unsent_bytes, connection.busy) == (502, True)
        remote.transport.take(2)
        assert (connection.unsent_bytes, connection.busy) == (500, False)
        remote.transport.take()
        assert (connection.unsent_bytes, connection.busy) == (0, False)


class Owner:
    """What a link tells its owner."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def opened(self, link: Link) -> None:
        self.told.append("opened")

    def writable(self, link: Link) -> None:
        self.told.append("writable")

    def lost(self, link: Link) -> None:
        self.told.append("lost")


@in_loop
async def test_a_link_says_when_it_has_room_again() -> None:
    peer = roletalk.Peer(high_water=1000, low_water=500)
    peer.bind()
    owner: Any = Owner()
    link = Link(peer, owner, is_client=False)
    remote = Remote(link)
    link.admit(UnitCore(peer))
    remote.transport.stalled = True
    link.send_message(b"x" * 996)
    await turns()
    assert link.has_room_now
    link.send_message(b"")
    assert not link.has_room_now
    await turns()
    assert not link.has_room_now
    link.wait_for_room()
    remote.transport.take(100)
    await turns()
    assert owner.told == ["opened"], "only below the low mark is it worth a wake-up"
    remote.transport.take(500)
    assert owner.told == ["opened", "writable"]
    assert link.has_room_now
    remote.transport.take()
    await turns()
    assert owner.told == ["opened", "writable"]
    link.abort()
    await turns()
    assert owner.told == ["opened", "writable", "lost"]
    assert not link.has_room_now
    await peer.close()


@in_loop
async def test_a_link_whose_frames_left_by_themselves_has_room_again() -> None:
    peer = roletalk.Peer(high_water=1000, low_water=500)
    peer.bind()
    owner: Any = Owner()
    link = Link(peer, owner, is_client=False)
    remote = Remote(link)
    link.admit(UnitCore(peer))
    link.send_message(b"x" * 2000)
    assert not link.has_room_now
    link.wait_for_room()
    await turns()
    assert owner.told == ["opened", "writable"]
    assert remote.transport.backlog == 0
    link.abort()
    await turns()
    await peer.close()


@in_loop
async def test_a_remote_that_does_not_read_is_not_read() -> None:
    bounds = limits(high=1000, low=500)
    bounds.max_unsent = 4000
    with connected(limits=bounds) as (connection, remote):
        remote.transport.stalled = True
        connection.send_message(b"x" * 3996)
        await turns()
        assert remote.transport.reading
        connection.send_message(b"x")
        await turns()
        assert not remote.transport.reading
        remote.feed(remote.frame(BINARY, b"later"))
        assert connection.messages == []
        remote.transport.take(3000)
        await turns()
        assert not remote.transport.reading
        remote.transport.take(600)
        await turns()
        assert remote.transport.reading
        assert connection.messages == [b"later"]


# -- heartbeat ---------------------------------------------------------------------------------------


@both_sides
@in_loop
async def test_a_silent_remote_is_pinged_once_and_then_given_up(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        at = connection.received_at
        connection.check_alive(at + 9.9, 10.0, 5.0)
        await turns()
        assert remote.sent() == []
        for later in (10.0, 10.1, 14.9):
            connection.check_alive(at + later, 10.0, 5.0)
        await turns()
        assert [frame.opcode for frame in remote.sent()] == [PING]
        connection.check_alive(at + 15.0, 10.0, 5.0)
        await turns()
        assert close_code_of(remote) == 4005
        assert remote.transport.aborted
        assert connection.state == ConnectionState.CLOSED
        assert (connection.close_code, connection.closed_by_us) == (4005, True)
        connection.check_alive(at + 30.0, 10.0, 5.0)


@pytest.mark.parametrize("opcode", [PONG, PING, BINARY])
@in_loop
async def test_any_frame_is_life(opcode: int) -> None:
    with connected() as (connection, remote):
        connection.check_alive(clock(), 0.0, 1e9)
        await turns()
        assert [frame.opcode for frame in remote.sent()] == [PING]
        remote.feed(remote.frame(opcode))
        connection.check_alive(clock(), 1e9, 0.0)
        assert connection.is_open
        # The next silence is pinged anew.
        remote.sent()
        connection.check_alive(clock(), 0.0, 1e9)
        await turns()
        assert [frame.opcode for frame in remote.sent()] == [PING]


@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "looked at meanwhile"])
@in_loop
async def test_the_bytes_that_a_paused_remote_takes_are_life(is_looked_at: bool) -> None:
    bounds = limits(high=1000, low=500)
    bounds.max_unsent = 1000
    with connected(limits=bounds) as (connection, remote):
        remote.transport.stalled = True
        connection.send_message(b"x" * 5000)
        await turns()
        assert not remote.transport.reading
        at = connection.received_at
        connection.check_alive(at + 10, 10.0, 5.0)
        remote.transport.take(10)
        if is_looked_at:
            assert connection.unsent_bytes > 0
        connection.check_alive(at + 15, 10.0, 5.0)
        assert connection.is_open
        connection.check_alive(at + 25, 10.0, 5.0)
        connection.check_alive(at + 30, 10.0, 5.0)
        assert connection.close_code == 4005
        await turns()


@in_loop
async def test_part_of_a_frame_is_life() -> None:
    async with peers("server") as (server,):
        server.bind()
        admission = Admission(server)
        remote = Remote(admission.link, admission.gate)
        remote.feed(remote.frame(BINARY, json_message(CONFIRMED, peer_data("remote"))))
        unit = await admission.result
        link = admission.link
        await turns()
        remote.sent()
        big = remote.frame(BINARY, message("unknown", "event", bytes(1500)))

        for number in range(3):
            link.check_alive(clock(), 0.0, 1e9)
            await turns()
            assert [frame.opcode for frame in remote.sent()] == [PING]
            remote.feed(big[number * 100 : number * 100 + 100])
            link.check_alive(clock(), 1e9, 0.0)
            assert link.is_open
        remote.feed(big[300:])
        assert server.stats()["messages_received"] == 1
        remote.transport.close()
        await unit._lost.wait()
