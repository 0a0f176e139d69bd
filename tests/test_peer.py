"""The peer: connecting, units, keys, tags, what it counts."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import Any

import pytest
import trustme

import roletalk
from tests.helpers import eventually, pair, peers, run
from tests.test_listener import client_context, server_context

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
        {"request_timeout": -1.0},
        {"heartbeat_interval": -1.0},
        {"heartbeat_timeout": float("nan")},
        {"handshake_timeout": -1.0},
        {"name": 5},
        {"name": "n" * 1025},
        {"name": "\ud800"},
        {"tags": {"\ud800": ""}},
        {"tags": {"t": "\ud800"}},
        {"tags": {f"t{i}": "" for i in range(257)}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        roletalk.Peer(**options)


COUNTS = [
    name
    for name, parameter in inspect.signature(roletalk.Peer).parameters.items()
    if parameter.annotation == "int"
]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_checked(name: str) -> None:
    assert "max_units" in COUNTS
    for wrong in (-1, 1 << 64):
        with pytest.raises(ValueError, match=name):
            roletalk.Peer(**{name: wrong})  # type: ignore[arg-type]
    for kind in (1.5, "1", None):
        with pytest.raises(TypeError, match=f"^{name} is an int, not "):
            roletalk.Peer(**{name: kind})  # type: ignore[arg-type]


def test_no_handler_is_slow_without_a_limit() -> None:
    assert roletalk.Peer(slow_handler=None).slow_handler == float("inf")


def test_seconds_that_are_no_number() -> None:
    with pytest.raises(
        TypeError, match=r"^handshake_timeout is in seconds, a number, .*, not str$"
    ):
        roletalk.Peer(handshake_timeout="5")  # type: ignore[arg-type]

    async def main() -> None:
        async with pair() as (server, client):
            client.destination("r")
            for call in (
                client.connect(server.listeners[0].url, timeout="1"),  # type: ignore[arg-type]
                client.destination("r").wait_ready("1"),  # type: ignore[arg-type]
                client.drain("1"),  # type: ignore[arg-type]
                client.close("1"),  # type: ignore[arg-type]
            ):
                with pytest.raises(
                    TypeError, match=r"^timeout= is in seconds, a number, .*, not str$"
                ):
                    await call
            assert not client.closing
            assert len(client.units) == 1

    run(main())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_no_limit_of_time_for_handshakes(secure: bool) -> None:
    authority = trustme.CA()

    async def main() -> None:
        async with peers("server", "client", handshake_timeout=None) as (server, client):
            listener = await server.listen(ssl=server_context(authority) if secure else None)
            unit = await client.connect(
                listener.url, ssl=client_context(authority) if secure else None
            )
            assert unit.name == "server"

    run(main())


def test_what_is_no_tls_context() -> None:
    async def main() -> None:
        async with peers("one") as (peer,):
            with pytest.raises(TypeError, match=r"^ssl= is an ssl\.SSLContext, not bool: "):
                await peer.listen(ssl=True)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"^ssl= is an ssl\.SSLContext, not str: "):
                await peer.connect("wss://127.0.0.1:1", ssl="x", retry=True)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"^server_hostname= is a str, not int$"):
                await peer.connect("wss://127.0.0.1:1", server_hostname=5)  # type: ignore[arg-type]

    run(main())


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


# -- stats


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_the_singleton_of_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roletalk.singletons._singleton", None)
    parents = roletalk.singleton(name="parent's")
    child = os.fork()
    if child == 0:
        try:
            own = roletalk.singleton(name="child's")
            os._exit(0 if own is not parents and own is roletalk.singleton() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert roletalk.singleton() is parents


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


def test_a_peer_has_at_most_256_tags() -> None:
    peer = roletalk.Peer(tags={str(number): "" for number in range(256)})
    peer.set_tag("0", "changed")
    with pytest.raises(ValueError, match="256"):
        peer.set_tag("256", "")
    peer.set_tag("0", None)
    peer.set_tag("256", "")


@pytest.mark.parametrize("keys", [{}, {"k": "secret"}], ids=["no keys", "keys"])
@pytest.mark.parametrize("dials", [True, False])
def test_tags_that_are_too_long_to_be_told(dials: bool, keys: dict[str, str]) -> None:
    async def main() -> None:
        async with peers("long", "other", keys=keys) as (long, other):
            for number in range(70):
                long.set_tag(f"t{number}", "x" * 1000)
            error: type[roletalk.RoletalkError]
            if dials:
                who, url = long, (await other.listen()).url
                error, text = (
                    roletalk.ProtocolError,
                    "own name and tags are too long .*shorter tags=",
                )
            else:
                who, url = other, (await long.listen()).url
                error, text = roletalk.ConnectError, "1009 .*its log says why"
            with pytest.raises(error, match=text):
                await who.connect(url)
            assert long.stats()["handshake_failures"] == 1

    run(main())
