"""Dead connections and a blocked loop are noticed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

import roletalk
from roletalk._debug import set_clock
from roletalk.heartbeat import Heartbeat
from roletalk.testing import Mesh, VirtualTimeLoop
from tests.helpers import eventually, pair, peers, ready, run, run_virtually
from tests.rawclient import (
    BINARY,
    PING,
    PONG,
    RESOLVE,
    Connection,
    PeerGone,
    authenticate,
    dial,
    encode_frame,
    request,
    value,
)

FAST: dict[str, Any] = {"heartbeat_interval": 0.05, "heartbeat_timeout": 2.0}


@pytest.mark.parametrize(
    ("interval", "timeout"), [(10.0, 5.0), (60.0, 60.0), (None, 5.0), (2.0, 1.0)]
)
def test_two_ticks_are_less_than_a_second(interval: float | None, timeout: float) -> None:
    # A ping waits for a tick, and so does giving up on its answer.
    assert 2 * Heartbeat(roletalk.Peer(), interval, timeout)._period < 1.0


def raw_unit(port: int) -> Connection:
    connection = dial(port)
    authenticate(connection)
    return connection


def test_a_silent_remote_is_found() -> None:
    async def main() -> None:
        async with peers("server", heartbeat_interval=0.05, heartbeat_timeout=0.1) as (server,):
            listener = await server.listen()
            server.destination("x")
            links: list[Any] = []
            # It may be gone again before anybody looks.
            server.on_unit(lambda unit: links.extend(unit.connections))
            with await asyncio.to_thread(raw_unit, listener.port) as silent:
                await eventually(lambda: links and not server.units)
                (link,) = links
                assert link.close_code == roletalk.CloseCode.HEARTBEAT_TIMEOUT
                assert link.closed_by_us
                frame = await asyncio.to_thread(silent.read_frame)
                assert frame.opcode == PING
                assert await asyncio.to_thread(silent.wait_closed, answer_close=False) == 4005

    run(main())


def test_a_dialled_remote_that_falls_silent_is_dialled_again() -> None:
    async def main() -> None:
        async with (
            peers("server") as (server,),
            peers("client", heartbeat_interval=0.05, heartbeat_timeout=0.1) as (client,),
        ):
            unit = await client.connect((await server.listen()).url)
            await eventually(lambda: server.units)
            server.units[0].connections[0].transport.pause_reading()
            await eventually(lambda: not unit.connected)
            await eventually(lambda: client.units)
            assert client.units[0].id == server.id

    run(main())


def test_a_pong_is_life() -> None:
    async def main() -> None:
        async with peers("server", **FAST) as (server,):
            listener = await server.listen()
            with await asyncio.to_thread(raw_unit, listener.port) as connection:
                await eventually(lambda: server.units)
                unit = server.units[0]

                def answer_pings() -> None:
                    for _ in range(60):
                        while (frame := connection.read_frame()).opcode != PING:
                            pass
                        connection.send_frame(PONG, frame.payload)

                # As many as would take longer than the timeout, were they not taken for life.
                await asyncio.to_thread(answer_pings)
                assert unit.connected

    run(main())


@pytest.mark.usefixtures("on_mesh")
def test_idle_peers_keep_their_connection() -> None:
    async def main() -> None:
        async with pair() as (_, client):
            unit = client.units[0]
            await asyncio.sleep(600)
            assert unit.connected
            assert client.units == (unit,)
            assert client.stats()["reconnects"] == 0

    run_virtually(main())


def test_the_bytes_of_one_big_message_are_life() -> None:
    async def main() -> None:
        async with peers("server", **FAST) as (server,):
            server.role("r").on_request("e")(lambda ctx: len(ctx.data))
            listener = await server.listen()
            with await asyncio.to_thread(raw_unit, listener.port) as connection:
                await eventually(lambda: server.units)
                unit = server.units[0]

                def trickle() -> bytes:
                    # Pings are left unanswered: all that can be heard of it is a byte now and then.
                    frame = encode_frame(BINARY, request("r", "e", 5, value(b"x" * 1000)))
                    end = time.monotonic() + 4
                    sent = 0
                    while time.monotonic() < end and sent < len(frame) - 1:
                        connection.send_raw(frame[sent : sent + 1])
                        sent += 1
                        time.sleep(0.02)
                    connection.send_raw(frame[sent:])
                    return connection.read_kind(RESOLVE)

                answer = await asyncio.to_thread(trickle)
                assert answer.endswith(b"1000")
                assert unit.connected

    run(main())


def test_none_for_the_interval_pings_nobody() -> None:
    async def main() -> None:
        async with peers("server", heartbeat_interval=None, heartbeat_timeout=0.05) as (server,):
            server.role("r").on_request("e")(lambda ctx: None)
            listener = await server.listen()
            with await asyncio.to_thread(raw_unit, listener.port) as connection:
                await eventually(lambda: server.units)
                deadline = time.monotonic() + 0.5
                await eventually(lambda: time.monotonic() > deadline)
                assert server.units
                with pytest.raises(TimeoutError):
                    connection.read_frame(timeout=0.01)

    run(main())


def test_none_for_the_timeout_closes_nobody() -> None:
    async def main() -> None:
        async with peers("server", heartbeat_interval=0.02, heartbeat_timeout=None) as (server,):
            listener = await server.listen()
            with await asyncio.to_thread(raw_unit, listener.port) as connection:
                await eventually(lambda: server.units)
                assert (await asyncio.to_thread(connection.read_frame)).opcode == PING
                deadline = time.monotonic() + 0.5
                await eventually(lambda: time.monotonic() > deadline)
                assert server.units

    run(main())


@pytest.mark.lag
def test_loop_lag_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair(heartbeat_interval=0.1) as (server, _):
            before = server.stats()["loop_lag_max"]
            time.sleep(before + 1.3)  # noqa: ASYNC251  # what must not be done
            await eventually(lambda: server.stats()["loop_lag_max"] > before + 1)
            # The greatest one is remembered, the last one is not.
            await eventually(lambda: server.stats()["loop_lag"] < 1)
            assert server.stats()["loop_lag_max"] > before + 1

    with caplog.at_level(logging.WARNING, "roletalk"):
        run(main())
    assert "the event loop was blocked for " in caplog.text


def test_a_blocked_loop_costs_no_connection() -> None:
    # What the remote sent meanwhile waits in the socket; it must be read before it is judged.
    async def main() -> None:
        async with peers("server", heartbeat_interval=0.02, heartbeat_timeout=0.5) as (server,):
            server.role("r")
            listener = await server.listen()
            connection = await asyncio.to_thread(raw_unit, listener.port)
            answered = threading.Event()

            def answer_pings() -> None:
                while not answered.is_set():
                    try:
                        frame = connection.read_frame()
                    except PeerGone:
                        return
                    if frame.opcode == PING:
                        connection.send_frame(PONG, frame.payload)

            with connection:
                answering = asyncio.create_task(asyncio.to_thread(answer_pings))
                await eventually(lambda: server.units)
                unit = server.units[0]
                for _ in range(3):
                    time.sleep(0.8)  # noqa: ASYNC251  # what must not be done
                    await asyncio.sleep(0.03)
                assert unit.connected
                answered.set()
                await answering

    run(main())


def stand_still(seconds: float) -> None:
    """Have that much of virtual time pass while nothing runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop._jumping.at += seconds
    set_clock(loop.time())


@pytest.mark.parametrize("tenths", range(0, 16, 2))
def test_a_machine_that_stood_still_costs_no_handshake(tenths: int) -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b = mesh.peer(), mesh.peer()
            mesh.delay(a, b, 0.3)
            connecting = asyncio.create_task(mesh.connect(a, b))
            await asyncio.sleep(tenths / 10)
            assert not connecting.done()
            stand_still(30)
            await connecting

    run_virtually(main())


def test_a_handshake_that_goes_on_standing_still_is_over_in_time() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b = mesh.peer(), mesh.peer()
            await b.listen()
            mesh.partition(a, b)
            connecting = asyncio.create_task(mesh.connect(a, b))
            await asyncio.sleep(1)
            stand_still(30)
            # That time is on top, but no more than the limit once more.
            began = asyncio.get_running_loop().time()
            with pytest.raises(roletalk.ConnectError, match="not done after 5 s"):
                await connecting
            assert asyncio.get_running_loop().time() - began == pytest.approx(5)

    run_virtually(main())


def test_a_machine_that_stood_still_costs_no_connection() -> None:
    # Nothing was sent meanwhile either: both peers live on it.
    async def main() -> None:
        async with Mesh() as mesh:
            a = mesh.peer(heartbeat_interval=1.0, heartbeat_timeout=1.0)
            b = mesh.peer(heartbeat_interval=None)
            await mesh.connect(a, b, reconnect=False)
            mesh.delay(a, b, 0.3)
            for tenths in range(1, 30):
                # A ping is out, or its answer, or neither.
                await asyncio.sleep(tenths / 10)
                stand_still(30)
            await asyncio.sleep(5)
            assert a.units
            mesh.drop(a, b)
            await asyncio.sleep(3)
            assert not a.units

    run_virtually(main())


@pytest.mark.usefixtures("on_mesh")
def test_requests_go_on_between_pings() -> None:
    async def main() -> None:
        async with pair(heartbeat_interval=0.02, heartbeat_timeout=5.0) as (server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            destination = await ready(client)
            for count in range(100):
                data = b"x" * (count % 7 * 10_000)
                assert (await destination.request("e", data)).data == data
                await asyncio.sleep(count % 3 * 0.02)
            assert client.stats()["reconnects"] == 0

    run_virtually(main())
