"""Faults of the links of a mesh, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import roletalk
from roletalk.testing import Mesh
from tests.helpers import ready
from tests.helpers import run_virtually as run

Met = tuple[Mesh, roletalk.Peer, roletalk.Peer, roletalk.Destination]


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def met(**options: Any) -> AsyncIterator[Met]:
    """A client, a server, and the client's destination."""
    async with Mesh(seed=7) as mesh:
        client, server = mesh.peer("client", **options), mesh.peer("server", **options)
        server.role("r").on_request("echo")(lambda ctx: ctx.data)
        await mesh.connect(client, server)
        yield mesh, client, server, await ready(client)


def test_a_delay_is_each_way_s() -> None:
    async def main() -> None:
        async with met() as (mesh, client, server, r):
            assert (await r.request("echo")).rtt == 0
            mesh.delay(client, server, 0.25)
            assert (await r.request("echo")).rtt == pytest.approx(0.5)
            mesh.delay(client, server, 1, one_way=True)
            assert (await r.request("echo")).rtt == pytest.approx(1.25)
            mesh.delay(client, server, 0)
            assert (await r.request("echo")).rtt == 0
            mesh.delay("localhost", client, 3)
            with pytest.raises(roletalk.RequestTimeout):
                await r.request("echo", timeout=5)
            for wrong in (-1, float("inf"), float("nan")):
                with pytest.raises(ValueError, match="not negative"):
                    mesh.delay(client, server, wrong)
                with pytest.raises(ValueError, match="not negative"):
                    mesh.delay(client, server, 0, jitter=wrong)

    run(main())


def test_jitter_keeps_the_order_and_is_the_same_each_time() -> None:
    def once() -> list[float]:
        at: list[float] = []

        async def main() -> None:
            async with met() as (mesh, client, server, r):
                mesh.delay(client, server, 0.1, jitter=0.5, one_way=True)
                seen: list[int] = []

                @server.role("r").on_message("m")
                def take(ctx: roletalk.Context) -> None:
                    seen.append(ctx.data)
                    at.append(now())

                for i in range(20):
                    await r.send("m", [i])
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1)
                assert seen == [[i] for i in range(20)]

        run(main())
        return at

    first = once()
    assert first == once()
    assert len(set(first)) > 5


def test_a_cut_tells_both_ends_which_connect_again() -> None:
    async def main() -> None:
        async with met() as (mesh, client, server, r):
            waiting = asyncio.create_task(r.request("echo", b"lost"))
            await asyncio.sleep(0)
            assert mesh.cut(client, server) == 1
            with pytest.raises(roletalk.UnitClosedError):
                await waiting
            assert not client.units
            assert not server.units
            began = now()
            await r.wait_ready(2)
            assert (await r.request("echo", 1)).data == 1
            assert now() - began < 1
            assert client.stats()["reconnects"] == 1
            assert mesh.cut(client, client) == 0

    run(main())


def test_a_dropped_link_is_found_by_heartbeats() -> None:
    async def main() -> None:
        async with met(heartbeat_interval=10, heartbeat_timeout=5) as (mesh, client, server, r):
            units = client.units[0], server.units[0]
            gone: list[float] = []
            for unit in units:
                unit.on_close(lambda unit: gone.append(now() - began))
            began = now()
            assert mesh.drop(client, server) == 1
            with pytest.raises(roletalk.RequestTimeout):
                await r.request("echo", timeout=8)
            assert not gone
            await asyncio.sleep(10)
            assert len(gone) == 2
            assert all(15 <= each < 16.5 for each in gone)
            # A new connection has nothing to do with it.
            await r.wait_ready(2)
            assert (await r.request("echo", 1)).data == 1

    run(main())


def test_a_link_dropped_one_way_still_brings_the_other() -> None:
    async def main() -> None:
        async with met(heartbeat_interval=None) as (mesh, client, server, r):
            seen: list[object] = []
            client.role("c").on_message("m")(lambda ctx: seen.append(ctx.data))
            to_client = await ready(server, "c")
            mesh.drop(client, server, one_way=True)
            await to_client.send("m", "heard")
            with pytest.raises(roletalk.RequestTimeout):
                await r.request("echo", timeout=1)
            assert seen == ["heard"]

    run(main())


def test_what_a_partition_holds_arrives_when_it_heals() -> None:
    async def main() -> None:
        async with met() as (mesh, client, server, r):
            mesh.partition({client}, {server, "elsewhere.test"})
            waiting = asyncio.create_task(r.request("echo", 1))
            await asyncio.sleep(3)
            assert not waiting.done()
            mesh.heal()
            assert (await waiting).data == 1
            assert (await waiting).rtt == pytest.approx(3)
            assert client.stats()["reconnects"] == 0

    run(main())


def test_nobody_connects_across_a_partition() -> None:
    async def main() -> None:
        async with met() as (mesh, client, server, r):
            url = server.listeners[0].url
            mesh.partition(client, server)
            began = now()
            with pytest.raises(roletalk.ConnectError, match="not done after 5 s"):
                await client.connect(url)
            assert now() - began == pytest.approx(5)
            # Both give the other up, and come back by themselves.
            await asyncio.sleep(60)
            assert not client.units
            assert not server.units
            other = mesh.peer("other")
            assert (await mesh.connect(other, server)).id == server.id
            mesh.heal()
            await r.wait_ready(60)
            assert (await r.request("echo", 1)).data == 1

    run(main())


def test_one_end_that_gave_up_is_heard_of_when_it_heals() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            client = mesh.peer(heartbeat_interval=1, heartbeat_timeout=1)
            server = mesh.peer(heartbeat_interval=None)
            await mesh.connect(client, server, reconnect=False)
            mesh.partition(client, server)
            await asyncio.sleep(10)
            assert not client.units
            assert server.units
            mesh.heal()
            await asyncio.sleep(0.1)
            assert not server.units

    run(main())


def test_closing_a_mesh_ends_its_faults() -> None:
    async def main() -> None:
        async with met() as (mesh, client, server, r):
            other = mesh.peer("other")
            mesh.delay(client, server, 1)
            await mesh.connect(other, server)
            mesh.delay(client, server, 1000)
            await r.send("m", None)
            mesh.partition(client, server)
            mesh.drop(other, server)
            began = now()
        assert now() - began < 1

    run(main())


def test_a_slow_link_connects_both_ends() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b = mesh.peer(), mesh.peer()
            mesh.delay(a, b, 0.5, one_way=True)
            began = now()
            await mesh.connect(a, b)
            assert b.unit(a.id)
            # Dialling, the upgrade, and what a says in the handshake.
            assert now() - began == pytest.approx(1.5, abs=0.01)

    run(main())


def test_faults_are_of_peers_and_hosts() -> None:
    mesh = Mesh()
    with pytest.raises(TypeError, match="a peer or the name of a host"):
        mesh.cut(mesh.peer(), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a peer or the name of a host"):
        mesh.partition([mesh.peer()], [7])  # type: ignore[list-item]
