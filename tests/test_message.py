"""One-way messages: order, high water, waiting and cancelling, what is dropped and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, ready, run

CHUNK = b"x" * 65_536


@asynccontextmanager
async def stalled() -> AsyncIterator[tuple[roletalk.Destination, list[Any], asyncio.Event]]:
    """A destination whose unit's connection is above its high-water mark, as nobody reads it.

    Setting the event has it read again; the list holds what was received.
    """
    async with (
        peers("server") as (server,),
        peers("client", high_water=256 * 1024, low_water=64 * 1024, heartbeat_interval=None) as (
            client,
        ),
    ):
        received: list[Any] = []
        server.role("r").on_message("m")(lambda ctx: received.append(ctx.data))
        relay = Relay(await server.listen())
        await client.connect(await relay.start(), reconnect=False)
        destination = await ready(client)
        relay.flowing.clear()
        with pytest.raises(roletalk.WouldBlock):  # noqa: PT012  # at whichever turn
            for _ in range(10_000):
                destination.send_nowait("m", CHUNK)
                await asyncio.sleep(0)
        try:
            yield destination, received, relay.flowing
        finally:
            relay.flowing.set()
            await client.close()
            await relay.stop()


class Relay:
    """Passes bytes between a client and a listener, while `flowing` is set."""

    def __init__(self, listener: roletalk.Listener) -> None:
        self._port = listener.port
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=65_536)
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._tasks.append(asyncio.create_task(self._pump(reader, back)))
        self._tasks.append(asyncio.create_task(self._pump(there, writer)))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self.flowing.wait()
                data = await reader.read(65_536)
                if not data:
                    break
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_messages_arrive_once_and_in_order(is_async: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            received: list[int] = []

            def handler(ctx: roletalk.Context) -> None:
                received.append(ctx.data)

            async def async_handler(ctx: roletalk.Context) -> None:
                received.append(ctx.data)

            server.role("r").on_message("m")(async_handler if is_async else handler)
            destination = await ready(client)
            for i in range(0, 3000, 3):
                await destination.send("m", i)
                destination.send_nowait("m", i + 1)
                assert destination.broadcast("m", i + 2) == destination.units
            await eventually(lambda: len(received) == 3000, what="all messages")
            assert received == list(range(3000))

    run(main())


def test_what_a_message_handler_gets() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[roletalk.Context] = []
            server.role("r").on_message("m")(seen.append)
            await (await ready(client)).send("m", {"a": 1})
            await eventually(lambda: seen)
            (ctx,) = seen
            assert (ctx.kind, ctx.role, ctx.event, ctx.data) == ("message", "r", "m", {"a": 1})
            assert ctx.unit is server.unit(client.id)
            assert not hasattr(ctx, "reply")

    run(main())


def test_send_writes_at_the_call() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            received: list[str] = []
            server.role("r").on_message("m")(lambda ctx: received.append(ctx.data))
            destination = await ready(client)
            first = destination.send("m", "first")
            destination.send_nowait("m", "second")
            await first
            await eventually(lambda: len(received) == 2)
            assert received == ["first", "second"]

    run(main())


def test_a_message_and_a_request_of_one_name_are_two_events() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            received: list[str] = []
            role = server.role("r")
            role.on_message("e")(lambda ctx: received.append("message"))
            role.on_request("e")(lambda ctx: received.append("request"))
            destination = await ready(client)
            await destination.send("e")
            await destination.request("e")
            assert received == ["message", "request"]

    run(main())


def test_the_default_handler_of_messages() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            received: list[str] = []
            role = server.role("r")
            role.on_message("own")(lambda ctx: received.append("own"))
            role.on_message(lambda ctx: received.append(ctx.event))
            destination = await ready(client)
            await destination.send("own")
            await destination.send("other")
            await eventually(lambda: len(received) == 2)
            assert received == ["own", "other"]

    run(main())


def test_messages_take_the_units_in_turn_and_broadcasts_reach_all() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            received: dict[str, list[Any]] = {server.name: [] for server in servers}
            for server in servers:
                mine = received[server.name]
                server.role("r").on_message("m")(lambda ctx, mine=mine: mine.append(ctx.data))
                await client.connect((await server.listen()).url)
            destination = client.destination("r")
            for i in range(9):
                await destination.send("m", i)
            assert set(destination.broadcast("m", "all")) == set(client.units)
            await destination.send("m", "named", unit=client.unit(servers[1].id))
            destination.send_nowait("m", "named", unit=client.unit(servers[2].id))
            await eventually(lambda: sum(map(len, received.values())) == 14)
            assert [len(received[name]) for name in "abc"] == [4, 5, 5]
            assert sorted(i for each in received.values() for i in each[:3]) == list(range(9))
            assert received["b"][4] == received["c"][4] == "named"

    run(main())


def test_nobody_there() -> None:
    async def main() -> None:
        async with peers("alone") as (peer,):
            destination = peer.destination("r")
            with pytest.raises(roletalk.NoUnitsError):
                await destination.send("m")
            with pytest.raises(roletalk.NoUnitsError):
                destination.send_nowait("m")
            with pytest.raises(roletalk.NoUnitsError):
                destination.broadcast("m")

    run(main())


def test_a_unit_that_is_gone() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            destination = await ready(client)
            unit = client.units[0]
            await unit.close()
            with pytest.raises(roletalk.UnitClosedError):
                await destination.send("m", unit=unit)
            with pytest.raises(roletalk.UnitClosedError):
                destination.send_nowait("m", unit=unit)
            with pytest.raises(roletalk.UnitClosedError):
                await destination.request("m", unit=unit)

    run(main())


# -- above the high-water mark


def test_send_nowait_and_broadcast_above_the_high_water_mark() -> None:
    async def main() -> None:
        async with stalled() as (destination, received, flowing):
            client = destination.peer
            sent = client.stats()["messages_sent"]
            unsent = client.stats()["unsent_bytes"]
            for _ in range(5):
                with pytest.raises(roletalk.WouldBlock):
                    destination.send_nowait("m", b"")
            assert destination.broadcast("m", b"") == ()
            stats = client.stats()
            assert stats["messages_sent"] == sent
            assert stats["unsent_bytes"] <= unsent
            assert sum(stats["drops"].values()) == 1
            flowing.set()
            await eventually(lambda: len(received) == sent, what="all that was sent")
            destination.send_nowait("m", b"again")
            await eventually(lambda: received[-1] == b"again")

    run(main())


def test_unsent_bytes_stay_bounded() -> None:
    async def main() -> None:
        async with stalled() as (destination, _, _):
            unsent = destination.peer.stats()["unsent_bytes"]
            assert 256 * 1024 <= unsent <= 256 * 1024 + 2 * len(CHUNK)

    run(main())


def test_send_waits_for_room() -> None:
    async def main() -> None:
        async with stalled() as (destination, received, flowing):
            client = destination.peer
            sent = client.stats()["messages_sent"]
            waiting = [asyncio.create_task(destination.send("m", i)) for i in range(10)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            assert client.stats()["messages_sent"] == sent
            flowing.set()
            await asyncio.gather(*waiting)
            await eventually(lambda: len(received) == sent + 10)
            assert received[-10:] == list(range(10))

    run(main())


def test_a_send_that_is_cancelled_while_it_waits_sends_nothing() -> None:
    async def main() -> None:
        async with stalled() as (destination, received, flowing):
            client = destination.peer
            sent = client.stats()["messages_sent"]
            cancelled = asyncio.create_task(destination.send("m", "cancelled"))
            stays = asyncio.create_task(destination.send("m", "stays"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(destination.send("m", "timed out"), 0.02)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            flowing.set()
            await stays
            await destination.send("m", "last")
            await eventually(lambda: received[-1:] == ["last"])
            assert len(received) == sent + 2
            assert "cancelled" not in received
            assert "timed out" not in received

    run(main())


def test_a_send_that_nobody_awaits_above_the_mark_sends_nothing() -> None:
    async def main() -> None:
        async with stalled() as (destination, received, flowing):
            sent = destination.peer.stats()["messages_sent"]
            destination.send("m", "never awaited").close()
            flowing.set()
            await destination.send("m", "last")
            await eventually(lambda: received[-1:] == ["last"])
            assert len(received) == sent + 1

    run(main())


def test_a_request_waits_for_room_until_its_timeout() -> None:
    async def main() -> None:
        async with stalled() as (destination, _, flowing):
            client = destination.peer
            with pytest.raises(roletalk.RequestTimeout) as caught:
                await destination.request("m", timeout=0.05)
            assert (caught.value.role, caught.value.event) == ("r", "m")
            assert client.stats()["pending_requests"] == 0
            later = asyncio.create_task(destination.request("m", timeout=20))
            for _ in range(20):
                await asyncio.sleep(0)
            assert client.stats()["requests_sent"] == 0
            flowing.set()
            with pytest.raises(roletalk.RemoteError, match="not handled"):
                await later

    run(main())


def test_what_waits_for_room_fails_with_the_unit() -> None:
    async def main() -> None:
        async with stalled() as (destination, _, _):
            unit = destination.units[0]
            waiting = [
                asyncio.create_task(destination.send("m", "x")),
                asyncio.create_task(destination.send("m", "x", unit=unit)),
                asyncio.create_task(destination.request("m", "x", timeout=None)),
            ]
            await asyncio.sleep(0.01)
            unit.connections[0].abort()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(outcome, roletalk.RoletalkError) for outcome in outcomes)
            assert isinstance(outcomes[1], roletalk.UnitClosedError)

    run(main())


def test_close_does_not_wait_for_a_stalled_receiver_beyond_its_timeout() -> None:
    async def main() -> None:
        async with stalled() as (destination, _, _):
            await asyncio.wait_for(destination.peer.close(timeout=0.1), 10)
            assert destination.peer.units == ()

    run(main())


# -- what is dropped


def test_drops_are_counted_by_reason_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            role.on_request("done")(lambda ctx: None)
            destination = await ready(client)
            for _ in range(7):
                await destination.send("nobody handles it")
            await destination.request("done")
            (count,) = server.stats()["drops"].values()
            assert count == 7

    run(main())
    warnings = [r for r in caplog.records if "dropped" in r.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].levelno == logging.WARNING


def test_a_disabled_roles_messages_are_dropped() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            received: list[Any] = []
            role = server.role("r")
            role.on_message("m")(lambda ctx: received.append(1))
            server.role("other").on_request("done")(lambda ctx: None)
            destination = await ready(client)
            role.disable()
            await destination.send("m")
            await client.destination("other").request("done")
            assert received == []
            assert sum(server.stats()["drops"].values()) == 1

    run(main())


def test_a_message_handler_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            received: list[Any] = []

            @role.on_message("sync")
            def sync(ctx: roletalk.Context) -> None:
                raise LookupError("in sync")

            @role.on_message("async")
            async def later(ctx: roletalk.Context) -> None:
                await asyncio.sleep(0)
                raise LookupError("in async")

            @role.on_message("reject")
            def reject(ctx: roletalk.Context) -> None:
                raise roletalk.Reject("not this")

            role.on_message("last")(lambda ctx: received.append(1))
            destination = await ready(client)
            for event in ("sync", "async", "reject", "last"):
                await destination.send(event)
            await eventually(lambda: received)
            await eventually(lambda: not server.stats()["running_handlers"])

    run(main())
    assert "in sync" in caplog.text
    assert "in async" in caplog.text
    assert "Traceback" in caplog.text
