"""The end of what is heard: violations, close frames, and what comes after them."""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from roletalk._frame import ConnectionState
from roletalk._inbound import FrameLimits
from tests import rawclient as raw
from tests.faketransport import connected, turns
from tests.helpers import eventually, peers, run
from tests.streams import MIB
from tests.test_frame import both_sides, close_code_of, in_loop


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
