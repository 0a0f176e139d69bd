"""Units: coming and going, and their redundant connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

import roletalk
from roletalk.testing import Mesh
from tests.helpers import eventually, pair, peers, ready, run, run_virtually
from tests.rawclient import ROLES, Connection, authenticate, dial, peer_data


def test_on_unit_and_on_close() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            came: list[roletalk.Unit] = []
            gone: list[tuple[roletalk.Unit, bool]] = []

            @client.on_unit
            def sync(unit: roletalk.Unit) -> None:
                came.append(unit)
                assert client.unit(unit.id) is unit
                unit.on_close(lambda unit: gone.append((unit, unit.connected)))

            @client.on_unit
            async def later(unit: roletalk.Unit) -> None:
                await client.destination("r").request("e", unit=unit)
                came.append(unit)

            server.role("r").on_request("e")(lambda ctx: None)
            unit = await client.connect((await server.listen()).url)
            await eventually(lambda: came == [unit, unit])
            assert gone == []
            await unit.close()
            assert gone == [(unit, False)]
            assert client.units == ()
            assert unit.connections == ()
            assert "closed" in repr(unit)
            await unit.close()  # once more does no harm
            assert len(gone) == 1
            await eventually(lambda: not server.units)

    run(main())


def test_the_side_that_listened_may_close_as_well() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            url = (await server.listen()).url
            unit = await client.connect(url, reconnect=False)
            await eventually(lambda: server.units)
            link = unit.connections[0]
            await server.units[0].close()
            await eventually(lambda: not unit.connected)
            assert link.close_code == roletalk.CloseCode.MANUAL
            assert not link.closed_by_us

    run(main())


def test_a_close_by_the_other_side_is_reconnected() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            unit = client.units[0]
            await server.units[0].close()
            await eventually(lambda: not unit.connected)
            await eventually(lambda: client.units)
            assert client.units[0] is not unit
            assert client.units[0].id == unit.id
            await eventually(lambda: client.stats()["reconnects"] == 1)

    run(main())


# -- redundant connections


async def doubled(
    server: roletalk.Peer, client: roletalk.Peer
) -> tuple[roletalk.Unit, roletalk.Unit]:
    """The unit of each side, after two connections."""
    for _ in range(2):
        await client.connect((await server.listen()).url, reconnect=False)
    await eventually(lambda: server.units and len(server.units[0].connections) == 2)
    return client.units[0], server.units[0]


def test_requests_go_on_when_one_connection_is_cut() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            unit, remote = await doubled(server, client)
            destination = client.destination("r")
            came: list[object] = []
            client.on_unit(came.append)
            unit.on_close(came.append)
            destination.on_close(came.append)

            lost: list[int] = []

            async def ask() -> None:
                for i in range(300):
                    try:
                        assert (await destination.request("e", i, timeout=5)).data == i
                    except roletalk.RequestTimeout:
                        lost.append(i)

            asking = asyncio.create_task(ask())
            await eventually(lambda: server.stats()["replies_sent"] > 50)
            remote.connections[0].close(4000, "one of them")
            await eventually(lambda: len(unit.connections) == 1)
            await asking
            # At most once: the one that was on its way over that connection is not said again.
            assert len(lost) <= 1
            assert came == []
            assert client.units == (unit,)
            # It can be doubled again.
            await client.connect(server.listeners[0].url)
            assert len(unit.connections) == 2
            assert came == []

    run(main())


def test_the_unit_goes_with_its_last_connection() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            unit, _ = await doubled(server, client)
            closed: list[object] = []
            unit.on_close(closed.append)
            unit.connections[0].abort()
            await eventually(lambda: len(unit.connections) == 1)
            assert unit.connected
            assert closed == []
            unit.connections[0].abort()
            await eventually(lambda: not unit.connected)
            assert closed == [unit]

    run(main())


def test_closing_a_unit_closes_all_of_its_connections() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            unit, remote = await doubled(server, client)
            links = unit.connections
            await unit.close()
            assert [link.close_code for link in links] == [4000, 4000]
            await eventually(lambda: not remote.connected)

    run(main())


def test_leaving_the_block_of_a_unit_closes_it() -> None:
    async def main() -> None:
        async with pair() as (_, client):
            (unit,) = client.units
            async with unit as entered:
                assert entered is unit
                assert unit.connected
            assert not unit.connected
            assert client.units == ()

    run(main())


def test_connections_may_be_made_from_both_sides() -> None:
    async def main() -> None:
        async with peers("a", "b") as (a, b):
            to_b = await a.connect((await b.listen()).url)
            to_a = await b.connect((await a.listen()).url)
            await eventually(lambda: len(to_b.connections) == len(to_a.connections) == 2)
            assert a.units == (to_b,)
            assert b.units == (to_a,)

    run(main())


def raw_doubled(port: int) -> tuple[Connection, Connection, dict[str, Any]]:
    first, second = dial(port), dial(port)
    data = peer_data(roles=["r"])
    authenticate(first, data=data)
    authenticate(second, data=data)
    return first, second, data


def test_a_busy_connection_is_passed_by() -> None:
    async def main() -> None:
        async with peers("server", low_water=4096, high_water=64 << 20) as (server,):
            listener = await server.listen()
            first, second, _ = await asyncio.to_thread(raw_doubled, listener.port)
            with first, second:
                destination = await ready(server)
                unit = destination.units[0]
                await eventually(lambda: len(unit.connections) == 2)
                # Neither remote end reads: sooner or later one connection's buffers are full.
                for _ in range(200):
                    if any(link.busy for link in unit.connections):
                        break
                    destination.send_nowait("m", b"x" * (1 << 20))
                    await asyncio.sleep(0)
                busy = [link for link in unit.connections if link.busy]
                free = [link for link in unit.connections if not link.busy]
                assert len(busy) == 1
                before = busy[0].bytes_sent
                sent = free[0].bytes_sent
                for _ in range(20):
                    destination.send_nowait("m", b"small")
                    await asyncio.sleep(0)
                    assert not free[0].busy
                assert busy[0].bytes_sent == before
                assert free[0].bytes_sent > sent

    run(main())


def test_a_further_connection_changes_neither_name_nor_tags() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()

            def connect(data: dict[str, Any]) -> Connection:
                connection = dial(listener.port)
                authenticate(connection, data=data)
                return connection

            data = peer_data(roles=["r"], tags={"a": "1"})
            first = await asyncio.to_thread(connect, data)
            changed = data | {"name": "changed", "tags": {"a": "2"}, "roles": ["s"]}
            second = await asyncio.to_thread(connect, changed)
            with first, second:
                await eventually(lambda: server.units and len(server.units[0].connections) == 2)
                unit = server.units[0]
                assert (unit.name, dict(unit.tags)) == ("raw", {"a": "1"})
                # Roles are told by counted messages, not by a further handshake.
                assert unit.roles == {"r"}
                first.send(bytes([ROLES]) + json.dumps({"i": 3, "roles": ["t"]}).encode())
                await eventually(lambda: unit.roles == {"t"})
                second.send(bytes([ROLES]) + json.dumps({"i": 2, "roles": ["old"]}).encode())
                second.send(bytes([ROLES]) + json.dumps({"i": 4, "roles": ["u"]}).encode())
                await eventually(lambda: unit.roles != {"t"})
                assert unit.roles == {"u"}

    run(main())


def test_a_connection_with_another_key_is_refused() -> None:
    async def main() -> None:
        async with peers("server", keys={"a": "1", "b": "2"}) as (server,):
            listener = await server.listen()
            data = peer_data()

            def connect(key_id: str, key: str) -> Connection:
                connection = dial(listener.port)
                authenticate(connection, key, key_id, data=data)
                return connection

            with (
                await asyncio.to_thread(connect, "a", "1"),
                await asyncio.to_thread(connect, "a", "1"),
            ):
                await eventually(lambda: server.units and len(server.units[0].connections) == 2)
                # Its handshake is right, so only the unit's id tells that it is not wanted.
                third = await asyncio.to_thread(connect, "b", "2")
                with third:
                    assert await asyncio.to_thread(third.wait_closed) == 4001
                assert len(server.units[0].connections) == 2
                assert server.units[0].connected

    run(main())


def test_a_unit_has_at_most_64_connections() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            url = (await server.listen()).url
            for _ in range(64):
                await client.connect(url, reconnect=False)
            with pytest.raises(roletalk.AuthError):
                await client.connect(url, reconnect=False)
            assert len(client.units[0].connections) == 64
            assert client.units[0].connected

    run(main())


def test_max_units() -> None:
    async def main() -> None:
        async with peers("server", max_units=2) as (server,), peers("a", "b", "c") as clients:
            url = (await server.listen()).url
            units = [await client.connect(url, reconnect=False) for client in clients[:2]]

            # Without keys it may take itself for connected until the refusal comes.
            with suppress(roletalk.AuthError):
                refused = await clients[2].connect(url, reconnect=False)
                await eventually(lambda: not refused.connected)
            assert clients[2].units == ()
            assert len(server.units) == 2
            await units[0].close()
            await eventually(lambda: len(server.units) == 1)
            assert (await clients[2].connect(url)).connected

    run(main())


def test_a_unit_is_shown() -> None:
    async def main() -> None:
        async with pair() as (_, client):
            text = repr(client.units[0])
            assert "'server'" in text
            assert "connections=1" in text

    run(main())


def test_the_key_that_a_unit_proved() -> None:
    async def main() -> None:
        async with peers("server", "shop", "till") as (server, shop, till):
            url = (await server.listen()).url
            for client in (shop, till):
                server.add_key(client.name, f"secret of {client.name}", legacy=False)
                client.add_key(client.name, f"secret of {client.name}", legacy=False)
                assert (await client.connect(url)).key_id == client.name
            await eventually(lambda: len(server.units) == 2)
            assert {(unit.name, unit.key_id) for unit in server.units} == {
                ("shop", "shop"),
                ("till", "till"),
            }
            # A further connection of the same unit by another key: not even its own process's.
            shop.remove_key("shop")
            shop.add_key("till", "secret of till")
            with pytest.raises(roletalk.AuthError, match="another key"):
                await shop.connect(url)
        async with peers("server", "client") as (server, client):
            assert (await client.connect((await server.listen()).url)).key_id is None

    run(main())


def test_closing_ends_the_dialling_that_has_not_found_it_again() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            server, client = mesh.peer("server"), mesh.peer("client")
            for host in ("one.test", "other.test"):
                await server.listen(host, 9000)
                await client.connect(f"ws://{host}:9000")
            (unit,) = client.units
            mesh.partition(client, "other.test")
            await server.units[0].close()
            await eventually(lambda: client.units and client.units[0] is not unit)
            assert len(client.units[0].connections) == 1
            await client.units[0].close()
            mesh.heal()
            await asyncio.sleep(120)
            assert not client.units

    run_virtually(main())


@pytest.mark.parametrize("dials", ["who closes", "the other"])
def test_closing_includes_a_connection_that_is_being_made(dials: str) -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            one, other = mesh.peer("one", host="one"), mesh.peer("other", host="other")
            listener = await other.listen("other", 1)
            unit = await one.connect(listener.url)
            mesh.delay(one, other, 1.0)
            if dials == "the other":
                url = (await one.listen("one", 1)).url
                dialling = asyncio.ensure_future(other.connect(url, reconnect=False))
            else:
                dialling = asyncio.ensure_future(one.connect(listener.url))
            # Its handshake comes to an end while the other connection is closed.
            await eventually(lambda: one.stats()["handshakes"])
            await asyncio.sleep(3.5 if dials == "who closes" else 2.5)
            assert len(unit.connections) == 1
            await asyncio.wait_for(unit.close(), 20)
            if dials == "the other":
                await dialling
            else:
                with pytest.raises(roletalk.ConnectError, match="was closed here while ws://other"):
                    await dialling
            await asyncio.sleep(120)
            assert not one.units

    run_virtually(main())
