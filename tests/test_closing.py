"""How a WebSocket connection is closed by its own side (RFC 6455, 7.1), and how one ends without."""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import pytest

from roletalk._debug import set_clock
from roletalk._frame import ConnectionState
from roletalk._inbound import FrameLimits
from roletalk._peer import clock
from tests.faketransport import connected, turns
from tests.helpers import eventually
from tests.rawclient import BINARY, CLOSE, PING, close_payload
from tests.test_frame import both_sides, in_loop


@both_sides
@in_loop
async def test_our_closing_handshake(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        connection.send_message(b"queued before")
        connection.close(4000, "on purpose")
        assert connection.state == ConnectionState.CLOSING
        connection.close(4005)
        frames = remote.sent()
        assert [frame.opcode for frame in frames] == [BINARY, CLOSE]
        assert frames[1].payload == close_payload(4000, "on purpose")
        with pytest.raises(ConnectionError):
            connection.send_message(b"too late")

        remote.feed(remote.frame(BINARY, b"crossed it"), remote.frame(PING))
        assert not remote.transport.closing
        remote.feed(remote.frame(CLOSE, close_payload(4000)))
        await turns()
        assert connection.state == ConnectionState.CLOSED
        assert connection.messages == []
        assert remote.sent() == []
        assert (connection.close_code, connection.close_reason) == (4000, "on purpose")
        assert connection.closed_by_us
        assert connection.closings == 1
        assert not remote.transport.aborted


@in_loop
async def test_a_long_close_reason_is_cut_between_characters() -> None:
    with connected() as (connection, remote):
        connection.close(4000, "ü" * 100)
        (frame,) = remote.sent()
        assert frame.payload[2:].decode() == "ü" * 61


@pytest.mark.parametrize("by_us", [True, False])
@in_loop
async def test_a_remote_that_stalls_the_closing_handshake_is_dropped(by_us: bool) -> None:
    with connected(limits=FrameLimits(close_timeout=0.01)) as (connection, remote):
        remote.transport.stalled = True
        if by_us:
            connection.close(4000)
        else:
            remote.feed(remote.frame(CLOSE, close_payload(4000)))
        assert connection.state == ConnectionState.CLOSING
        assert not remote.transport.aborted
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert remote.transport.aborted
        assert connection.close_code == 4000


@pytest.mark.parametrize("on_purpose", [True, False])
@in_loop
async def test_a_remote_that_talks_on_is_waited_for_when_it_is_closed_on_purpose(
    on_purpose: bool,
) -> None:
    with connected(limits=FrameLimits(close_timeout=600.0)) as (connection, remote):
        connection.close(4000 if on_purpose else 4006)
        remote.feed(remote.frame(BINARY, b"has not come to our close frame"))
        connection._closing_overdue()
        assert remote.transport.aborted != on_purpose
        # Once it is silent it has had its time.
        connection.limits.close_timeout = 0.0
        connection._closing_overdue()
        assert remote.transport.aborted


@in_loop
async def test_a_loop_that_stood_still_gives_the_remote_its_time_once_more() -> None:
    with connected(limits=FrameLimits(close_timeout=600.0)) as (connection, remote):
        connection.close(4000)
        began = clock()
        try:
            set_clock(began + 5000)
            connection._closing_overdue()
            assert not remote.transport.aborted
            set_clock(began + 5600)
            connection._closing_overdue()
            assert remote.transport.aborted
        finally:
            set_clock(-1.0)  # it goes


@in_loop
async def test_a_remote_that_never_stops_talking_is_dropped_all_the_same() -> None:
    with connected(limits=FrameLimits(close_timeout=0.01)) as (connection, remote):

        def talk() -> bool:
            if connection.state == ConnectionState.CLOSING:
                remote.feed(remote.frame(BINARY, b"and another thing"))
            return connection.state == ConnectionState.CLOSED

        connection.close(4000)
        await eventually(talk)
        assert remote.transport.aborted


@in_loop
async def test_closing_reads_on_where_reading_was_paused() -> None:
    limits = FrameLimits()
    limits.max_unsent = 10
    with connected(limits=limits) as (connection, remote):
        remote.transport.stalled = True
        connection.send_message(b"x" * 100)
        await turns()
        assert not remote.transport.reading
        connection.close(4000)
        remote.feed(remote.frame(CLOSE, close_payload(4000)))
        remote.transport.take()
        await turns()
        assert connection.state == ConnectionState.CLOSED
        assert not remote.transport.aborted


@both_sides
@in_loop
async def test_a_connection_that_just_goes(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(BINARY, b"half", fin=False))
        remote.transport.close()
        await turns()
        assert connection.state == ConnectionState.CLOSED
        assert (connection.close_code, connection.closed_by_us) == (1006, False)
        assert connection.closings == 1
        assert connection.unsent_bytes == 0
        connection.close()
        connection.abort()
        with pytest.raises(ConnectionError):
            connection.send_message(b"")


@in_loop
async def test_abort() -> None:
    with connected() as (connection, remote):
        remote.transport.stalled = True
        connection.send_message(b"never read")
        connection.abort()
        await turns()
        assert remote.transport.aborted
        assert connection.state == ConnectionState.CLOSED
        assert connection.close_code == 1006
        assert connection.closings == 1
