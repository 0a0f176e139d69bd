"""Peers that are connected in memory."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

import roletalk
from roletalk.network import SocketNetwork
from roletalk.testing import Mesh
from tests.helpers import eventually, raises_eventually, ready, run


def echo(peer: roletalk.Peer, role: str = "r") -> None:
    @peer.role(role).on_request("echo")
    def echoed(ctx: roletalk.RequestContext) -> Any:
        return ctx.data


def test_the_usual_calls_work() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            worker = mesh.peer("worker", tags={"zone": "a"})
            client = mesh.peer("client")
            echo(worker)
            worker.add_key("cluster", "secret")
            client.add_key("cluster", "secret")
            listener = await worker.listen("worker.test", 9000)
            assert listener.url == "ws://worker.test:9000"
            unit = await client.connect("ws://worker.test:9000")
            assert (unit.name, dict(unit.tags)) == ("worker", {"zone": "a"})
            r = await ready(client)
            assert (await r.request("echo", {"n": 1})).data == {"n": 1}
            assert mesh.peers == (worker, client)
        assert not client.units
        assert "connections=0" in repr(mesh)

    run(main())


def test_ports_and_names() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b = mesh.peer("a"), mesh.peer("b")
            first, second = await a.listen(), await b.listen("0.0.0.0", 0)
            assert first.port != second.port
            assert {first.addresses[0][0], second.addresses[0][0]} == {"127.0.0.1"}
            with pytest.raises(OSError, match="listened on already"):
                await b.listen("localhost", first.port)
            url = first.url
            await first.close()
            with pytest.raises(roletalk.ConnectError, match=r"nobody listens on localhost:\d+"):
                await b.connect(url)
            await b.listen("127.0.0.1", int(url.rpartition(":")[2]))
            async with a.listen(path="/run/../run/a.sock") as listener:
                assert (await b.connect(listener.url)).id == a.id

    run(main())


def test_ports_come_round_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roletalk.testing._network.FIRST_PORT", 65533)

    async def main() -> None:
        async with Mesh() as mesh:
            server, client = mesh.peer("server"), mesh.peer("client")
            url = (await server.listen()).url
            for _ in range(4):
                async with client.connect(url):
                    pass
            other = await client.listen()
            assert other.port in (65534, 65535)
            await server.connect(other.url)

    run(main())


def test_every_host_has_a_loopback_of_its_own() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            services = [mesh.peer(name, host=f"{name}.test") for name in ("a", "b")]
            for service in services:
                await service.listen("0.0.0.0", 9000)
            client = mesh.peer("client", host="b.test")
            assert (await client.connect("ws://A.test:9000")).name == "a"
            assert (await client.connect("ws://127.0.0.1:9000")).name == "b"
            (link,) = services[0].units[0].connections
            assert link.transport.get_extra_info("peername")[0] == "b.test"

    run(main())


def test_wss_needs_a_listener_with_ssl_as_ever() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b = mesh.peer("a"), mesh.peer("b")
            secure = await a.listen(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            assert (await b.connect(secure.url)).id == a.id
            with pytest.raises(roletalk.ConnectError, match="the other does not"):
                await b.connect(secure.url.replace("wss", "ws"))

    run(main())


def test_peers_of_others_come_onto_it() -> None:
    async def service() -> None:
        async with roletalk.Peer(name="service") as peer:
            echo(peer)
            await peer.listen("0.0.0.0", 9000)
            await peer.serve_forever(handle_sigterm=False)

    async def main() -> None:
        async with Mesh() as mesh:
            with mesh.installed("service.test"):
                running = asyncio.create_task(service())
            assert mesh.peers == ()
            client = mesh.peer()
            # Its task has not begun to run yet.
            await client.connect("ws://service.test:9000", retry=True, timeout=5)
            assert (await (await ready(client)).request("echo", 1)).data == 1
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert isinstance(roletalk.Peer()._network, SocketNetwork)

    run(main())


def test_connect_listens_where_that_is_needed() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b, c = (mesh.peer(name) for name in "abc")
            assert (await mesh.connect(a, b)).id == b.id
            assert b.unit(a.id) is not None
            await mesh.connect(c, b, reconnect=False)
            assert len(b.listeners) == 1
            d = mesh.peer("d", host="d.test")
            assert (await mesh.connect(d, b)).id == b.id
            assert (await mesh.connect(a, d)).id == d.id
            with pytest.raises(ValueError, match="not on this mesh"):
                await mesh.connect(a, roletalk.Peer())

    run(main())


def test_an_acquaintance_is_dialled() -> None:
    async def main() -> None:
        async with Mesh() as mesh:
            a, b, hub = (mesh.peer(name) for name in ("a", "b", "hub"))
            echo(b)
            a.destination("r")
            await mesh.connect(hub, b)
            await mesh.connect(a, hub)
            assert (await (await ready(a)).request("echo", 1)).unit.id == b.id

    run(main())


def test_a_stream_and_its_back_pressure() -> None:
    data = bytes(range(256)) * 16384  # 4 MiB

    async def main() -> None:
        async with Mesh(capacity=10_000) as mesh:
            a, b = mesh.peer(), mesh.peer(stream_window=64 * 1024)

            @b.role("r").on_readable("upload")
            async def upload(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept() as stream:
                    got.append(await stream.read())

            got: list[bytes] = []
            await mesh.connect(a, b)
            r = await ready(a)
            async with r.writable("upload") as stream:
                await stream.write(data)
            await eventually(lambda: got)
            assert got == [data]

    run(main())


def test_a_receiver_that_does_not_read_blocks_its_sender() -> None:
    async def main() -> None:
        async with Mesh(capacity=10_000) as mesh:
            a = mesh.peer(high_water=20_000, low_water=10_000)
            b = mesh.peer()
            seen: list[int] = []
            b.role("r").on_message("m")(lambda ctx: seen.append(len(ctx.raw)))
            await mesh.connect(a, b)
            r = await ready(a)
            mesh.partition(a, b)

            async def send_one() -> None:
                r.send_nowait("m", b"x" * 1000)

            await raises_eventually(roletalk.WouldBlock, send_one)
            waiting = asyncio.create_task(r.send("m", b"last"))
            await asyncio.sleep(0)
            assert not waiting.done()
            mesh.heal()
            await waiting
            await eventually(lambda: seen and seen[-1] == 4)
            assert set(seen[:-1]) == {1000}

    run(main())


def test_what_is_left_is_told() -> None:
    async def main() -> None:
        mesh = Mesh()
        a, b = mesh.peer("a"), mesh.peer("b")
        ended = asyncio.Event()

        @b.role("r").on_message("m")
        async def stubborn(ctx: roletalk.Context) -> None:
            while not ended.is_set():
                try:
                    await ended.wait()
                except asyncio.CancelledError:
                    continue

        await mesh.connect(a, b)
        await (await ready(a)).send("m", None)
        await eventually(lambda: b.stats()["running_handlers"])
        await b.close(0.01)
        with pytest.raises(AssertionError, match=r"left behind on the mesh: .*stubborn.* 'b'"):
            await mesh.close()
        ended.set()
        await eventually(lambda: not b.stats()["running_handlers"])
        with pytest.raises(ZeroDivisionError):
            async with mesh:
                raise ZeroDivisionError

    run(main())


def test_one_mesh_is_of_one_loop() -> None:
    mesh = Mesh()

    async def bind() -> None:
        async with mesh:
            pass

    run(bind())
    with pytest.raises(RuntimeError, match="another event loop"):
        run(bind())
    with pytest.raises(ValueError, match="at least 1 byte"):
        Mesh(capacity=0)
