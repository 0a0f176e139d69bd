"""The peer: connecting, units, keys, tags, its end, and who may call it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, run

# -- connecting


def test_connect_makes_a_unit_on_both_sides() -> None:
    async def main() -> None:
        tags = {"zone": "a"}
        async with peers("server", tags=tags) as (server,), peers("client") as (client,):
            unit = await client.connect((await server.listen("127.0.0.1", 0)).url)
            assert client.units == (unit,)
            assert client.unit(server.id) is unit
            assert client.unit("unknown") is None
            assert (unit.id, unit.name, unit.friendly) == (server.id, "server", True)
            assert unit.tags == tags
            assert unit.meta["protocol"] == "2.0.0"
            assert str(unit.meta["runtime"]).startswith("python")
            assert unit.connected
            assert len(unit.connections) == 1
            await eventually(lambda: server.units, what="the server's unit")
            assert server.units[0].name == "client"
            assert server.units[0].tags == {}

    run(main())


def test_meta_and_tags_are_read_only() -> None:
    async def main() -> None:
        async with pair(tags={"a": "b"}) as (server, client):
            unit = client.unit(server.id)
            assert unit is not None
            with pytest.raises(TypeError):
                unit.meta["os"] = "x"  # type: ignore[index]
            with pytest.raises(TypeError):
                unit.tags["a"] = "x"  # type: ignore[index]
            with pytest.raises(TypeError):
                server.tags["a"] = "x"  # type: ignore[index]
            assert isinstance(unit.roles, frozenset)
            assert isinstance(server.units, tuple)
            assert isinstance(server.listeners, tuple)

    run(main())


def test_set_tag_counts_for_units_that_come_later() -> None:
    async def main() -> None:
        async with peers("server", tags={"a": "1", "b": "2"}) as (server,):
            listener = await server.listen()
            async with peers("first", "second") as (first, second):
                unit = await first.connect(listener.url)
                server.set_tag("a", "9")
                server.set_tag("b", None)
                server.set_tag("c", "3")
                server.set_tag("unknown", None)
                assert server.tags == {"a": "9", "c": "3"}
                assert unit.tags == {"a": "1", "b": "2"}
                assert (await second.connect(listener.url)).tags == {"a": "9", "c": "3"}
            with pytest.raises(TypeError):
                server.set_tag("a", 5)  # type: ignore[arg-type]

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"low_water": 0},
        {"low_water": 2, "high_water": 1},
        {"max_message_size": 10},
        {"name": 5},
        {"name": "n" * 1025},
        {"tags": {f"t{i}": "" for i in range(257)}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        roletalk.Peer(**options)


def test_redundant_connections() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            first, second = await server.listen(), await server.listen()
            unit = await client.connect(first.url)
            assert await client.connect(second.url) is unit
            assert client.units == (unit,)
            assert len(unit.connections) == 2
            destination = client.destination("r")
            assert destination.units == (unit,)
            closed: list[roletalk.Unit] = []
            unit.on_close(closed.append)
            for i in range(10):
                assert (await destination.request("e", i)).data == i
            # Both are used in rotation.
            sent = [link.bytes_sent for link in unit.connections]
            for _ in range(10):
                await destination.send("e", b"x" * 1000)
            await eventually(lambda: [link.unsent_bytes for link in unit.connections] == [0, 0])
            now = [link.bytes_sent for link in unit.connections]
            assert all(b - a > 4000 for a, b in zip(sent, now, strict=True))

    run(main())


def test_a_request_waits_on_when_one_of_two_connections_is_lost() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "over the other one"

            listeners = [await server.listen(), await server.listen()]
            unit = await client.connect(listeners[0].url, reconnect=False)
            await client.connect(listeners[1].url, reconnect=False)
            closed: list[roletalk.Unit] = []
            unit.on_close(closed.append)
            waiting = [
                asyncio.create_task(client.destination("r").request("slow")) for _ in range(2)
            ]
            await eventually(lambda: server.stats()["running_handlers"] == 2)
            unit.connections[0].abort()
            await eventually(lambda: len(unit.connections) == 1)
            await eventually(lambda: len(server.units[0].connections) == 1)
            release.set()
            assert [(await task).data for task in waiting] == ["over the other one"] * 2
            assert closed == []
            assert client.units == (unit,)

    run(main())


def test_a_unit_that_comes_back_is_another_unit() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            url = (await server.listen()).url
            unit = await client.connect(url)
            closed: list[roletalk.Unit] = []
            unit.on_close(closed.append)
            await server.units[0].close()
            await eventually(lambda: closed == [unit], what="on_close")
            assert not unit.connected
            assert unit.connections == ()
            again = await eventually(lambda: client.units, what="the connection made again")
            assert again[0] is not unit
            assert again[0].id == unit.id
            assert client.stats()["reconnects"] == 1

    run(main())


def test_closing_a_unit_stops_reconnecting() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            unit = await client.connect((await server.listen()).url)
            await eventually(lambda: server.units)
            await unit.close()
            await unit.close()
            assert client.units == ()
            await eventually(lambda: server.units == ())
            assert client.stats()["handshakes"] == 0
            assert not client._dialers

    run(main())


def test_closing_a_unit_that_is_being_reconnected_stops_that() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen()
            unit = await client.connect(listener.url)
            await listener.close()
            await eventually(lambda: server.units)
            await server.units[0].close()
            await eventually(lambda: not client.units)
            await unit.close()
            assert not client._dialers

    run(main())


def test_leaving_async_with_closes_the_unit() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            async with server.listen() as listener:
                async with client.connect(listener.url) as unit:
                    assert unit.connected
                assert not unit.connected
                assert client.units == ()
                assert not client._dialers
                port = listener.port
            assert server.listeners == ()
            with pytest.raises(roletalk.ConnectError):
                await client.connect(f"ws://127.0.0.1:{port}")

    run(main())


def test_connect_and_listen_work_as_coroutines_do() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await asyncio.create_task(server.listen())
            unit = await asyncio.wait_for(client.connect(listener.url), 10)
            assert unit.connected
            (again,) = await asyncio.gather(client.connect(listener.url))
            assert again is unit

    run(main())


def test_a_peer_that_reaches_itself() -> None:
    async def main() -> None:
        async with peers("narcissus") as (peer,):
            with pytest.raises(roletalk.AuthError, match="itself"):
                await peer.connect((await peer.listen()).url, retry=True, timeout=10)
            assert peer.units == ()
            await eventually(lambda: peer.stats()["handshakes"] == 0)

    run(main())


# -- keys


def test_keys() -> None:
    async def main() -> None:
        async with peers("server", keys={"k": "secret"}) as (server,):
            url = (await server.listen()).url
            async with peers("right", keys={"k": "secret"}) as (right,):
                await right.connect(url)
                await eventually(lambda: server.units)
            async with peers("wrong", keys={"k": "guess"}) as (wrong,):
                with pytest.raises(roletalk.AuthError):
                    await wrong.connect(url)
            async with peers("none") as (none,):
                with pytest.raises(roletalk.AuthError):
                    await none.connect(url)
            async with peers("other", keys={"other": "secret"}) as (other,):
                with pytest.raises(roletalk.AuthError):
                    await other.connect(url)
            await eventually(lambda: not server.units)
            assert server.stats()["handshake_failures"] == 3

    run(main())


def test_keys_are_added_and_removed_while_running() -> None:
    async def main() -> None:
        async with peers("server", keys={"old": "1"}) as (server,):
            url = (await server.listen()).url
            async with peers("a", keys={"old": "1"}) as (a,), peers("b", keys={"new": "2"}) as (b,):
                unit = await a.connect(url)
                with pytest.raises(roletalk.AuthError):
                    await b.connect(url)
                server.add_key("new", "2")
                await b.connect(url)
                server.remove_key("old")
                assert unit.connected  # what is open stays
                with pytest.raises(roletalk.AuthError):
                    await a.connect(url)
                with pytest.raises(KeyError):
                    server.remove_key("old")
                server.add_key("new", "3")
                with pytest.raises(roletalk.AuthError):
                    await b.connect(url)
                assert len(server.units) == 2

    run(main())


@pytest.mark.parametrize("legacy", [False, True])
def test_keys_that_legacy_peers_may_not_use(legacy: bool) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            server.add_key("k", "secret", legacy=legacy)
            client.add_key("k", "secret", legacy=False)
            await client.connect((await server.listen()).url)

    run(main())


def test_a_further_connection_has_to_prove_the_same_key() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            server.add_key("a", "1")
            client.add_key("a", "1")
            url = (await server.listen()).url
            unit = await client.connect(url)
            for peer in (server, client):
                peer.add_key("b", "2")
                peer.remove_key("a")
            with pytest.raises(roletalk.AuthError):
                await client.connect(url)
            assert client.units == (unit,)
            assert len(unit.connections) == 1

    run(main())


# -- the singleton


def test_singleton() -> None:
    async def main() -> None:
        peer = roletalk.singleton(name="only")
        assert peer.name == "only"
        assert roletalk.singleton() is peer
        with pytest.raises(RuntimeError):
            roletalk.singleton(name="other")
        await peer.listen()
        await peer.close()
        again = roletalk.singleton(name="next")
        assert again is not peer
        await again.close()

    run(main())


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
        async with pair() as (server, client):
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
                    try:
                        await stubborn.wait()
                    except asyncio.CancelledError:
                        pass

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
        with pytest.raises(LookupError):
            async with roletalk.Peer() as peer:
                await peer.listen()
                raise LookupError
        await asyncio.wait_for(peer.wait_closed(), 1)

    run(main())


# -- where it may be called from


PLAIN_CALLS: list[tuple[str, Callable[[roletalk.Peer], Any]]] = [
    ("role", lambda peer: peer.role("new")),
    ("destination", lambda peer: peer.destination("new")),
    ("add_key", lambda peer: peer.add_key("a", "b")),
    ("remove_key", lambda peer: peer.remove_key("a")),
    ("set_tag", lambda peer: peer.set_tag("a", "b")),
    ("enable", lambda peer: peer.roles[0].enable()),
    ("disable", lambda peer: peer.roles[0].disable()),
    ("on_request", lambda peer: peer.roles[0].on_request("x")(print)),
    ("send", lambda peer: peer.destinations[0].send("e")),
    ("send_nowait", lambda peer: peer.destinations[0].send_nowait("e")),
    ("broadcast", lambda peer: peer.destinations[0].broadcast("e")),
    ("request", lambda peer: peer.destinations[0].request("e")),
]


@pytest.mark.parametrize("call", [c for _, c in PLAIN_CALLS], ids=[n for n, _ in PLAIN_CALLS])
@pytest.mark.parametrize("where", ["thread", "thread with a loop", "other loop"])
def test_a_call_from_elsewhere_is_a_runtime_error(
    call: Callable[[roletalk.Peer], Any], where: str
) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            client.role("mine")
            await client.destination("r").wait_ready(10)
            outcome: list[BaseException | None] = []

            def attempt() -> None:
                try:
                    call(client)
                    outcome.append(None)
                except BaseException as error:
                    outcome.append(error)

            async def attempt_in_loop() -> None:
                attempt()

            def work() -> None:
                if where == "thread":
                    attempt()
                else:
                    asyncio.run(attempt_in_loop())

            if where == "other loop":
                other = asyncio.new_event_loop()
                current = asyncio._get_running_loop()
                asyncio._set_running_loop(None)
                try:
                    other.run_until_complete(attempt_in_loop())
                finally:
                    asyncio._set_running_loop(current)
                    other.close()
            else:
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            assert isinstance(outcome[0], RuntimeError), outcome
            assert any(word in str(outcome[0]) for word in ("thread", "loop"))

    run(main())


COROUTINES: list[tuple[str, Callable[[roletalk.Peer], Any]]] = [
    ("listen", lambda peer: peer.listen()),
    ("connect", lambda peer: peer.connect("ws://127.0.0.1:1")),
    ("close", lambda peer: peer.close()),
    ("drain", lambda peer: peer.drain()),
    ("serve_forever", lambda peer: peer.serve_forever()),
    ("wait_closed", lambda peer: peer.wait_closed()),
    ("wait_ready", lambda peer: peer.destinations[0].wait_ready()),
    ("Unit.close", lambda peer: peer.units[0].close()),
]


@pytest.mark.parametrize("call", [c for _, c in COROUTINES], ids=[n for n, _ in COROUTINES])
def test_a_coroutine_on_another_loop_is_a_runtime_error(
    call: Callable[[roletalk.Peer], Any],
) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            client.destination("r")
            outcome: list[BaseException | None] = []

            async def attempt() -> None:
                try:
                    await asyncio.wait_for(call(client), 5)
                    outcome.append(None)
                except BaseException as error:
                    outcome.append(error)

            thread = threading.Thread(target=lambda: asyncio.run(attempt()))
            thread.start()
            await asyncio.to_thread(thread.join)
            assert isinstance(outcome[0], RuntimeError), outcome
            assert "thread" in str(outcome[0])

    run(main())


FORK = textwrap.dedent(
    """
    import asyncio, os, sys
    import roletalk

    async def main():
        async with roletalk.Peer() as server, roletalk.Peer() as client:
            server.role("r").on_request("e")(lambda ctx: 1)
            await client.connect((await server.listen()).url)
            destination = client.destination("r")
            await destination.wait_ready(10)
            child = os.fork()
            if child == 0:
                said = []
                for call in (lambda: client.role("x"), lambda: client.destination("x"),
                             lambda: destination.send_nowait("e"), lambda: destination.send("e"),
                             lambda: destination.request("e"), lambda: client.add_key("a", "b")):
                    try:
                        call()
                        said.append("no error")
                    except RuntimeError as error:
                        said.append(str(error))
                os._exit(0 if all("fork" in text for text in said) else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert (await destination.request("e")).data == 1
        print("fine")

    asyncio.run(main())
    """
)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.slow
def test_a_call_in_a_forked_child_is_a_runtime_error() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "fine\n", done.stderr


def test_a_peer_may_be_set_up_before_the_loop_runs() -> None:
    peer = roletalk.Peer(name="early")
    peer.add_key("a", "b")
    peer.role("r").on_request("e")(lambda ctx: 1)
    peer.destination("d")
    peer.set_tag("a", "b")
    with pytest.raises(RuntimeError, match="loop"):
        peer.destination("d").request("e")

    async def main() -> None:
        await peer.listen()
        async with peers("client", keys={"a": "b"}) as (client,):
            await client.connect(peer.listeners[0].url)
            assert (await client.destination("r").request("e")).data == 1
        await peer.close()

    run(main())


# -- stats


def test_stats() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            role.on_request("e")(lambda ctx: 1)

            @role.on_request("no")
            def no(ctx: roletalk.RequestContext) -> None:
                raise roletalk.Reject

            role.on_message("m")(lambda ctx: None)
            destination = client.destination("r")
            await destination.wait_ready(10)
            await destination.request("e")
            with pytest.raises(roletalk.RemoteError):
                await destination.request("no")
            await destination.send("m")
            await destination.send("unhandled")
            await destination.request("e")
            ours, theirs = client.stats(), server.stats()
            assert (ours["requests_sent"], theirs["requests_received"]) == (3, 3)
            assert (ours["replies_received"], theirs["replies_sent"]) == (2, 2)
            assert (ours["rejects_received"], theirs["rejects_sent"]) == (1, 1)
            assert (ours["messages_sent"], theirs["messages_received"]) == (2, 2)
            assert sum(theirs["drops"].values()) == 1
            assert ours["units"] == ours["connections"] == 1
            assert ours["pending_requests"] == theirs["running_handlers"] == 0
            # Sent are frames, received are messages.
            assert ours["bytes_sent"] > theirs["bytes_received"] > 0
            assert theirs["bytes_sent"] > ours["bytes_received"] > 0
            ours["units"] = 99
            assert client.stats()["units"] == 1
            before = client.stats()["bytes_sent"]
            await client.units[0].close()
            assert client.stats()["bytes_sent"] >= before  # what gone connections sent still counts
            assert client.stats()["connections"] == 0

    run(main())
