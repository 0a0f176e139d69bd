"""How a peer ends: drain, close, and what they win over."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, run

# -- the end


def test_a_peer_that_was_never_used_closes() -> None:
    async def main() -> None:
        peer = roletalk.Peer()
        await peer.close()
        await peer.close()
        await peer.wait_closed()
        with pytest.raises(RuntimeError):
            await peer.listen()
        with pytest.raises(RuntimeError):
            await peer.connect("ws://127.0.0.1:1")

    run(main())


def test_close_closes_with_4000_and_may_be_called_twice() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            links = [*server.units[0].connections, *client.units[0].connections]
            await asyncio.gather(server.close(), server.close())
            await server.close()
            await server.wait_closed()
            assert server.units == ()
            assert server.listeners == ()
            await eventually(lambda: not client.units)
            assert [link.close_code for link in links] == [4000, 4000]

    run(main())


def test_serve_forever_ends_with_the_peer() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            await server.listen()
            serving = asyncio.create_task(server.serve_forever())
            waiting = asyncio.create_task(server.wait_closed())
            await asyncio.sleep(0)
            assert not serving.done()
            await server.close()
            await asyncio.gather(serving, waiting)

    run(main())


def test_serve_forever_closes_when_cancelled() -> None:
    async def main() -> None:
        async with pair() as (server, _):
            serving = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert server.units == ()
            await asyncio.wait_for(server.wait_closed(), 1)

    run(main())


def test_close_loses_no_reply_that_was_being_computed() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> bytes:
                await release.wait()
                return b"x" * 300_000

            destination = client.destination("r")
            await destination.wait_ready(10)
            waiting = [asyncio.create_task(destination.request("slow")) for _ in range(20)]
            await eventually(lambda: server.stats()["running_handlers"] == 20)
            closing = asyncio.create_task(server.close())
            await eventually(lambda: not destination.ready, what="the roles' withdrawal")
            release.set()
            replies = await asyncio.gather(*waiting)
            assert all(len(reply.data) == 300_000 for reply in replies)
            await closing

    run(main())


def test_close_from_inside_a_handler() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            done: list[str] = []

            @server.role("r").on_request("stop")
            async def stop(ctx: roletalk.RequestContext) -> None:
                ctx.reply("stopping")
                await server.close(timeout=None)
                done.append("closed")

            destination = client.destination("r")
            await destination.wait_ready(10)
            assert (await destination.request("stop")).data == "stopping"
            await asyncio.wait_for(server.wait_closed(), 5)
            await eventually(lambda: done, what="the handler's end")

    run(main())


def test_close_cancels_a_handler_that_hangs() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ended: list[str] = []

            @server.role("r").on_request("hang")
            async def hang(ctx: roletalk.RequestContext) -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    ended.append("cancelled")
                    raise

            destination = client.destination("r")
            await destination.wait_ready(10)
            waiting = asyncio.create_task(destination.request("hang"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await server.close(timeout=0.05)
            assert ended == ["cancelled"]
            with pytest.raises(roletalk.RoletalkError):
                await waiting

    run(main())


def test_close_gives_up_a_handler_that_refuses_to_be_cancelled() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            stubborn = asyncio.Event()

            @server.role("r").on_request("hang")
            async def hang(ctx: roletalk.RequestContext) -> None:
                while not stubborn.is_set():
                    with suppress(asyncio.CancelledError):
                        await stubborn.wait()

            destination = client.destination("r")
            await destination.wait_ready(10)
            waiting = asyncio.create_task(destination.request("hang"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await asyncio.wait_for(server.close(timeout=0.05), 10)
            assert server.units == ()
            with pytest.raises(roletalk.UnitClosedError):
                await waiting
            stubborn.set()
            await asyncio.sleep(0.01)

    run(main())


def test_close_fails_our_own_pending_requests() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            destination = client.destination("r")
            await destination.wait_ready(10)
            waiting = [asyncio.create_task(destination.request("slow")) for _ in range(3)]
            await eventually(lambda: server.stats()["running_handlers"] == 3)
            await client.close()
            for task in waiting:
                with pytest.raises(roletalk.UnitClosedError):
                    await task
            with pytest.raises(roletalk.NoUnitsError):
                await destination.request("slow")
            never.set()

    run(main())


def test_drain_keeps_connections() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "done"

            never = asyncio.Event()

            @client.role("c").on_request("slow")
            async def slow_too(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            destination = client.destination("r")
            await destination.wait_ready(10)
            await server.destination("c").wait_ready(10)
            waiting = asyncio.create_task(destination.request("slow"))
            ours = asyncio.create_task(server.destination("c").request("slow"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await eventually(lambda: client.stats()["running_handlers"] == 1)
            url = server.listeners[0].url
            draining = asyncio.gather(server.drain(), server.drain())
            await eventually(lambda: not destination.ready)
            assert not draining.done()
            release.set()
            await draining
            await server.drain()
            assert (await waiting).data == "done"
            assert len(server.units) == 1
            assert not ours.done()
            with pytest.raises(roletalk.ConnectError):
                await client.connect(url)
            await server.close()
            with pytest.raises(roletalk.UnitClosedError):
                await ours
            never.set()

    run(main())


def test_drain_cancels_what_runs_past_its_timeout() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("hang")
            async def hang(ctx: roletalk.RequestContext) -> None:
                await asyncio.Event().wait()

            destination = client.destination("r")
            await destination.wait_ready(10)
            waiting = asyncio.create_task(destination.request("hang"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await server.drain(timeout=0.02)
            with pytest.raises(roletalk.RemoteError):
                await waiting
            assert len(server.units) == 1

    run(main())


def test_close_wins_over_reconnecting() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen()
            await client.connect(listener.url)
            await listener.close()
            await eventually(lambda: server.units)
            await server.units[0].close()
            await eventually(lambda: not client.units)
            await client.close()
            assert client.units == ()
            assert client.stats()["handshakes"] == 0

    run(main())


def test_close_wins_over_a_connect_that_is_under_way() -> None:
    async def main() -> None:
        async with peers("client", handshake_timeout=20.0) as (client,):
            taken: list[asyncio.StreamWriter] = []

            async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                taken.append(writer)

            silent = await asyncio.start_server(accept, "127.0.0.1", 0)
            port = silent.sockets[0].getsockname()[1]
            connecting = asyncio.create_task(client.connect(f"ws://127.0.0.1:{port}"))
            await eventually(lambda: taken)
            await asyncio.wait_for(client.close(), 10)
            with pytest.raises(roletalk.ConnectError):
                await connecting
            silent.close()
            for writer in taken:
                writer.close()
            await silent.wait_closed()

    run(main())


def test_leaving_the_block_closes_the_peer_also_after_an_error() -> None:
    async def main() -> None:
        with pytest.raises(LookupError):  # noqa: PT012  # leaving the block is what is tested
            async with roletalk.Peer() as peer:
                await peer.listen()
                raise LookupError
        await asyncio.wait_for(peer.wait_closed(), 1)

    run(main())


def test_handlers_of_a_unit_that_is_gone_are_waited_for_too() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            go_on, done = asyncio.Event(), asyncio.Event()

            @server.role("r").on_request("e")
            async def outlive(ctx: roletalk.Context) -> None:
                await go_on.wait()
                done.set()

            await client.destination("r").wait_ready(10)
            asking = asyncio.ensure_future(client.destination("r").request("e"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await client.close()
            await eventually(lambda: not server.units)
            assert server.stats()["running_handlers"] == 1
            closing = asyncio.create_task(server.close())
            await eventually(lambda: not server.listeners)
            assert not closing.done()
            go_on.set()
            await closing
            assert done.is_set()
            assert server.stats()["running_handlers"] == 0
            with pytest.raises(roletalk.UnitClosedError):
                await asking

    run(main())


def test_handlers_of_a_unit_that_is_gone_are_cancelled_past_the_timeout() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            cancelled = asyncio.Event()

            @server.role("r").on_request("e")
            async def outlive(ctx: roletalk.Context) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

            await client.destination("r").wait_ready(10)
            asking = asyncio.ensure_future(client.destination("r").request("e"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await client.close()
            await eventually(lambda: not server.units)
            await server.close(timeout=0)
            assert cancelled.is_set()
            with pytest.raises(roletalk.UnitClosedError):
                await asking

    run(main())
