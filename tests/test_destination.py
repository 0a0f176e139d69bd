"""Destinations: who serves a role now, and waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, ready, run

pytestmark = pytest.mark.usefixtures("on_mesh")


def test_a_destination_is_made_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            destination = await ready(client)
            assert client.destination("r") is destination
            assert client.destinations == (destination,)
            assert (destination.name, destination.peer) == ("r", client)
            assert destination.units == client.units
            # One that is made when units are there knows them at once.
            unit = client.units[0]
            server.role("s")
            await eventually(lambda: "s" in unit.roles)
            assert client.destination("s").units == (unit,)
            assert client.destination("s").ready
            assert not client.destination("t").ready
            assert "units=1" in repr(destination)
            with pytest.raises(TypeError):
                client.destination(5)  # type: ignore[arg-type]
            with pytest.raises(ValueError):
                client.destination("x" * 65_536)

    run(main())


def test_wait_ready() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            destination = client.destination("r")
            waiting = [asyncio.create_task(destination.wait_ready()) for _ in range(3)]
            await client.connect((await server.listen()).url)
            assert not any(task.done() for task in waiting)
            server.role("r")
            await asyncio.gather(*waiting)
            assert destination.ready
            await destination.wait_ready(0)
            server.role("r").disable()
            await eventually(lambda: not destination.ready)
            again = asyncio.create_task(destination.wait_ready(10))
            await asyncio.sleep(0)
            assert not again.done()
            server.role("r").enable()
            await again

    run(main())


def test_wait_ready_past_its_timeout() -> None:
    async def main() -> None:
        async with pair() as (_, client):
            with pytest.raises(TimeoutError) as caught:
                await client.destination("missing").wait_ready(0.01)
            assert "'missing'" in str(caught.value)
            assert "1 unit connected" in str(caught.value)
            with pytest.raises(TimeoutError):
                await client.destination("missing").wait_ready(timeout=0)

    run(main())


def test_wait_ready_ends_with_its_peer() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            waiting = asyncio.create_task(client.destination("r").wait_ready())
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(RuntimeError, match=r"no unit will serve role 'r': .* is closed"):
                await waiting
            await server.close()
            with pytest.raises(RuntimeError, match="closed"):
                await client.destination("r").wait_ready(1)

    run(main())


def test_wait_ready_can_be_cancelled() -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            task = asyncio.create_task(client.destination("r").wait_ready())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_on_open_on_unit_and_on_close() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):
            seen: list[tuple[str, Any]] = []

            def note(what: str) -> Callable[[Any], None]:
                return lambda subject: seen.append((what, subject))

            destination = client.destination("r")
            destination.on_open(note("open"))
            destination.on_unit(note("unit"))
            destination.on_close(note("close"))

            @destination.on_open
            async def later(opened: roletalk.Destination) -> None:
                assert opened.ready
                await opened.request("e")
                note("asked")(opened)

            for peer in (a, b):
                peer.role("r").on_request("e")(lambda ctx: None)
            first = await client.connect((await a.listen()).url)
            await eventually(lambda: len(seen) == 3)
            assert seen == [("open", destination), ("unit", first), ("asked", destination)]
            second = await client.connect((await b.listen()).url)
            await eventually(lambda: len(seen) == 4)
            assert seen[3:] == [("unit", second)]
            a.role("r").disable()
            await eventually(lambda: destination.units == (second,))
            assert len(seen) == 4
            await second.close()
            await eventually(lambda: len(seen) == 5)
            assert seen[4:] == [("close", destination)]
            assert not destination.ready
            a.role("r").enable()
            await eventually(lambda: len(seen) == 8)
            assert seen[5:7] == [("open", destination), ("unit", first)]

    run(main())


def test_roles_that_stay_change_nothing() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            destination = await ready(client)
            seen: list[object] = []
            for decorate in (destination.on_open, destination.on_unit, destination.on_close):
                decorate(seen.append)
            server.role("other")
            await eventually(lambda: "other" in client.units[0].roles)
            assert seen == []
            assert len(destination.units) == 1

    run(main())


def test_a_role_that_comes_and_goes_in_one_turn_is_never_seen() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            opened: list[object] = []
            client.destination("r").on_open(opened.append)
            server.role("r")
            server.role("r").disable()
            server.role("s")
            await eventually(lambda: client.units[0].roles == {"s"})
            assert opened == []

    run(main())


def test_units_take_turns_for_messages_too() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            got = {server.id: 0 for server in servers}

            def counter(server: roletalk.Peer) -> Callable[[roletalk.Context], None]:
                def count(ctx: roletalk.Context) -> None:
                    got[server.id] += 1

                return count

            for server in servers:
                server.role("r").on_message("m")(counter(server))
                await client.connect((await server.listen()).url)
            destination = client.destination("r")
            assert len(destination.units) == 3
            for _ in range(3):
                await destination.send("m")
                destination.send_nowait("m")
            assert destination.broadcast("m") == destination.units
            await destination.send("m", unit=destination.units[0])
            await eventually(lambda: sum(got.values()) == 10)
            assert sorted(got.values()) == [3, 3, 4]
            assert got[destination.units[0].id] == 4

    run(main())


def test_a_unit_that_went_is_not_taken() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):
            for server in (a, b):
                server.role("r").on_request("e")(lambda ctx, name=server.name: name)
                await client.connect((await server.listen()).url, reconnect=False)
            destination = client.destination("r")
            assert {(await destination.request("e")).data for _ in range(4)} == {"a", "b"}
            gone = client.unit(a.id)
            assert gone is not None
            await a.close()
            await eventually(lambda: len(destination.units) == 1)
            assert {(await destination.request("e")).data for _ in range(4)} == {"b"}
            with pytest.raises(roletalk.UnitClosedError):
                await destination.request("e", unit=gone)
            with pytest.raises(roletalk.UnitClosedError):
                await destination.send("e", unit=gone)

    run(main())


def test_a_unit_that_does_not_serve_the_role() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            await ready(client)
            with pytest.raises(roletalk.NoUnitsError):
                await client.destination("other").request("e", unit=client.units[0])
            with pytest.raises(TypeError):
                await client.destination("r").request("e", unit=server.units[0])
            with pytest.raises(TypeError):
                await client.destination("r").request("e", unit="server")  # type: ignore[arg-type]

    run(main())


def test_more_events_than_are_kept_encoded() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            received: list[str] = []
            server.role("r").on_message(lambda ctx: received.append(ctx.event))
            destination = await ready(client)
            # Twice, for what was forgotten is encoded anew.
            sent = [f"event {number}" for number in range(1025)] * 2
            for event in sent:
                await destination.send(event)
            await eventually(lambda: len(received) == len(sent))
            assert received == sent

    run(main())
