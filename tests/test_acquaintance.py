"""Peers introduce each other."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

import roletalk
from roletalk.acquaintance import FORGET_AFTER, MAX_DIALS, MAX_WAITING
from roletalk.backoff import BackOff
from tests.helpers import eventually, pair, peers, run
from tests.rawclient import (
    ACQUAINT,
    Connection,
    PeerGone,
    RawListener,
    acquaint,
    authenticate,
    dial,
    json_message,
    peer_data,
)

# -- three peers of ours


def test_a_peer_in_the_middle_introduces_two_others() -> None:
    async def main() -> None:
        async with peers("middle", "server", "client") as (middle, server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.unit.name)
            middle_url = (await middle.listen()).url
            server_url = (await server.listen()).url
            destination = client.destination("r")
            await middle.connect(server_url)
            await client.connect(middle_url)
            # Only the client is told of an address: the middle has not dialled the client.
            await destination.wait_ready(10)
            assert (await destination.request("e")).data == "client"
            assert {unit.id for unit in client.units} == {middle.id, server.id}
            assert {unit.id for unit in server.units} == {middle.id, client.id}

    run(main())


def test_units_that_are_there_are_told_of_one_that_is_dialled_later() -> None:
    async def main() -> None:
        async with peers("middle", "server", "client") as (middle, server, client):
            server.role("r")
            destination = client.destination("r")
            await client.connect((await middle.listen()).url)
            await middle.connect((await server.listen()).url)
            await destination.wait_ready(10)
            assert client.unit(server.id) is not None

    run(main())


def test_an_acquaintance_is_dialled_again_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BackOff, "_next", lambda self: 0.01)

    async def main() -> None:
        async with peers("middle", "server", "client") as (middle, server, client):
            server.role("r")
            destination = client.destination("r")
            await middle.connect((await server.listen()).url)
            await client.connect((await middle.listen()).url)
            await destination.wait_ready(10)
            await middle.close()
            unit = destination.units[0]
            unit.connections[0].abort()
            await eventually(lambda: not unit.connected)
            await destination.wait_ready(10)
            await destination.units[0].close()
            assert not destination.ready

    run(main())


def test_acquaintances_need_the_key_as_well() -> None:
    async def main() -> None:
        async with (
            peers("middle", keys={"a": "1", "b": "2"}) as (middle,),
            peers("server", keys={"a": "1"}) as (server,),
            peers("client", keys={"b": "2"}) as (client,),
        ):
            server.role("r")
            client.destination("r")
            await middle.connect((await server.listen()).url)
            await client.connect((await middle.listen()).url)
            await eventually(lambda: server.stats()["handshake_failures"] == 1)
            await eventually(lambda: client.stats()["handshake_failures"] == 1)
            assert len(client.units) == len(server.units) == 1

    run(main())


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_is_not_friendly(who: str) -> None:
    async def main() -> None:
        async with (
            peers("middle") as (middle,),
            peers("server", friendly=who != "server") as (server,),
            peers("client", friendly=who != "client") as (client,),
        ):
            server.role("r")
            client.destination("r")
            await middle.connect((await server.listen()).url)
            await client.connect((await middle.listen()).url)
            if who == "client":
                # It is not told, so nothing but another exchange shows that nothing came.
                middle.role("done")
                await client.destination("done").wait_ready(10)
                assert len(client.units) == 1
                assert client.stats()["drops"] == {}
            else:
                # Not to be friendly is not to dial; others may still learn of it.
                await client.destination("r").wait_ready(10)

    run(main())


def test_acquaint_filter() -> None:
    async def main() -> None:
        asked: list[tuple[str, str]] = []
        answer = False

        def allow(unit: roletalk.Unit, url: str) -> bool:
            asked.append((unit.name, url))
            return answer

        async with (
            peers("middle", "server") as (middle, server),
            peers("client", acquaint_filter=allow) as (client,),
        ):
            server.role("r")
            client.destination("r")
            url = (await server.listen()).url
            await middle.connect(url)
            middle_url = (await middle.listen()).url
            unit = await client.connect(middle_url)
            await eventually(lambda: client.stats()["drops"])
            assert asked == [("middle", url)]
            assert len(client.units) == 1
            await unit.close()
            answer = True
            await client.connect(middle_url)
            await client.destination("r").wait_ready(10)
            assert len(asked) == 2

    run(main())


def test_an_acquaint_filter_that_raises_allows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def fail(unit: roletalk.Unit, url: str) -> bool:
            raise RuntimeError("filter")

        async with (
            peers("middle", "server") as (middle, server),
            peers("client", acquaint_filter=fail) as (client,),
        ):
            server.role("r")
            client.destination("r")
            await middle.connect((await server.listen()).url)
            await client.connect((await middle.listen()).url)
            await eventually(lambda: client.stats()["drops"])
            assert len(client.units) == 1

    run(main())
    assert "error in acquaint_filter" in caplog.text


def test_without_a_destination_nobody_is_dialled() -> None:
    async def main() -> None:
        async with peers("middle", "server", "client") as (middle, server, client):
            server.role("r")
            client.destination("other")
            await middle.connect((await server.listen()).url)
            await client.connect((await middle.listen()).url)
            middle.role("done")
            await client.destination("done").wait_ready(10)
            assert len(client.units) == 1
            assert len(client._dialers) == 1

    run(main())


# -- what goes over the wire


def acquaints(connection: Connection) -> list[dict[str, Any]]:
    """The introductions that came until the connection was closed."""
    found = []
    try:
        while True:
            message = connection.read_message()
            if message[0] == ACQUAINT:
                found.append(json.loads(message[1:]))
    except PeerGone:
        connection.drop()
        return found


@asynccontextmanager
async def raw_unit(port: int, **changed: Any) -> AsyncIterator[Connection]:
    def connect() -> Connection:
        connection = dial(port)
        authenticate(connection, data=peer_data(**changed))
        return connection

    with await asyncio.to_thread(connect) as connection:
        yield connection


@pytest.mark.parametrize("friendly", [False, True])
def test_what_is_told_and_what_never(friendly: bool) -> None:
    async def main() -> None:
        async with peers("middle", "dialled", "dialling") as (middle, dialled, dialling):
            listener = await middle.listen()
            dialled.role("b")
            dialled.role("a")
            url = (await dialled.listen()).url
            async with raw_unit(listener.port, friendly=friendly) as connection:
                reading = asyncio.create_task(asyncio.to_thread(acquaints, connection))
                await eventually(lambda: middle.units)
                await middle.connect(url)
                # Nobody dialled this one, so there is no address to tell of.
                await dialling.connect(listener.url)
                await eventually(lambda: len(middle.units) == 3)
                await middle.close()
                expected = {"id": dialled.id, "address": url, "roles": ["a", "b"]}
                assert await reading == ([expected] if friendly else [])

    run(main())


def test_a_unit_whose_roles_are_too_long_is_not_introduced() -> None:
    async def main() -> None:
        async with peers("middle", "dialled", "wordy") as (middle, dialled, wordy):
            listener = await middle.listen()
            for number in range(17):
                wordy.role(f"{number}" + "r" * 65_000)
            unit = await middle.connect((await wordy.listen()).url)
            await eventually(lambda: len(unit.roles) == 17)
            async with raw_unit(listener.port, friendly=True) as connection:
                reading = asyncio.create_task(asyncio.to_thread(acquaints, connection))
                await eventually(lambda: len(middle.units) == 2)
                await middle.connect((await dialled.listen()).url)
                # Neither of the two others is told of it, and nobody is closed for what it is told.
                assert middle.stats()["drops"] == {"introductions of units with too many roles": 2}
                assert len(middle.units) == 3
                await middle.close()
                assert [told["id"] for told in await reading] == [dialled.id]

    run(main())


def test_a_unix_socket_is_never_told_of(tmp_path: object) -> None:
    async def main() -> None:
        async with peers("middle", "dialled") as (middle, dialled):
            listener = await middle.listen()
            dialled.role("r")
            await middle.connect((await dialled.listen(path=f"{tmp_path}/s")).url)
            async with raw_unit(listener.port) as connection:
                reading = asyncio.create_task(asyncio.to_thread(acquaints, connection))
                await eventually(lambda: len(middle.units) == 2)
                await middle.close()
                assert await reading == []

    run(main())


def introduction(url: object, unit_id: str = "somebody") -> bytes:
    return json_message(ACQUAINT, {"id": unit_id, "address": url, "roles": ["r"]})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://127.0.0.1:1",
        "ws://8.8.8.8:1",
        "ws://10.0.0.1:1",
        "ws://localhost:1",
        "ws://user@127.0.0.1:1",
        "ws://127.0.0.1:1/\r\nX: y",
        "ws://[::ffff:127.0.0.1]:1",
        "ws://[::1]:1",
        "ws+unix:///run/x.sock",
    ],
)
def test_refused_addresses(url: str) -> None:
    async def main() -> None:
        async with peers("peer") as (peer,):
            peer.destination("r")
            listener = await peer.listen()
            async with raw_unit(listener.port) as connection:
                await eventually(lambda: peer.units)
                connection.send(introduction(url))
                await eventually(lambda: peer.stats()["drops"])
                assert peer.stats()["drops"] == {"acquaintances refused": 1}
                assert not peer._dialers
                assert len(peer.units) == 1

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"{}",
        b'{"id": "x", "roles": []}',
        b'{"id": "", "address": "ws://127.0.0.1:1", "roles": ["r"]}',
        b'{"id": "x", "address": null, "roles": ["r"]}',
        b'{"id": "x", "address": "ws://127.0.0.1:1", "roles": null}',
        b'{"id": "x", "address": "ws://127.0.0.1:1", "roles": [1]}',
    ],
)
def test_what_is_no_acquaint_message(body: bytes) -> None:
    async def main() -> None:
        async with peers("peer") as (peer,):
            peer.destination("r")
            listener = await peer.listen()
            async with raw_unit(listener.port) as connection:
                await eventually(lambda: peer.units)
                connection.send(bytes([ACQUAINT]) + body)
                assert await asyncio.to_thread(connection.wait_closed) == 4006
            await eventually(lambda: not peer.units)
            assert not peer._dialers

    run(main())


def test_whom_it_is_connected_to_and_itself_are_not_dialled() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            client.destination("r")
            listener = await client.listen()
            with RawListener() as silent:
                async with raw_unit(listener.port) as connection:
                    await eventually(lambda: len(client.units) == 2)
                    for unit_id in (server.id, client.id, connection.peer_id):
                        connection.send(acquaint(unit_id, silent.url, ["r"]))
                    connection.send(introduction("", "the last"))
                    await eventually(lambda: client.stats()["drops"])
                    assert silent.pending() == 0
                    assert len(client._dialers) == 1

    run(main())


def test_at_most_4_are_dialled_at_once() -> None:
    assert MAX_DIALS == 4

    async def main() -> None:
        silent = [RawListener() for _ in range(6)]
        try:
            async with peers("peer") as (peer,):
                peer.destination("r")
                listener = await peer.listen()
                async with raw_unit(listener.port) as connection:
                    await eventually(lambda: peer.units)
                    peer.handshake_timeout = 0.5
                    for index, each in enumerate(silent):
                        connection.send(introduction(each.url, str(index)))
                        connection.send(introduction(each.url, str(index)))  # once is enough
                    most = 0
                    dialled = [0] * 6

                    def all_were_dialled() -> bool:
                        nonlocal most
                        most = max(most, len(peer._dialers))
                        for index, each in enumerate(silent):
                            dialled[index] += each.pending()
                        return all(dialled)

                    await eventually(all_were_dialled)
                    await eventually(lambda: not peer._dialers)
                    assert most == 4
                    assert dialled == [1] * 6
                    assert peer.stats()["handshake_failures"] == 6
        finally:
            for each in silent:
                each.sock.close()

    run(main())


def test_only_so_many_wait_for_their_turn() -> None:
    async def main() -> None:
        with ExitStack() as stack:
            silent = [
                stack.enter_context(RawListener()) for _ in range(MAX_DIALS + MAX_WAITING + 10)
            ]
            async with peers("peer") as (peer,):
                peer.destination("r")
                listener = await peer.listen()
                async with raw_unit(listener.port) as connection:
                    await eventually(lambda: peer.units)
                    for index, each in enumerate(silent):
                        connection.send(introduction(each.url, str(index)))
                    # Another path is the same place.
                    connection.send(introduction(f"{silent[-11].url}again", "again"))
                    await eventually(lambda: peer.stats()["drops"])
                    await eventually(lambda: sum(peer.stats()["drops"].values()) == 10)
                    assert len(peer._dialers) == MAX_DIALS
                    # Closing ends all of it: nobody that waits is dialled afterwards.
                    await peer.close(timeout=0.1)
                    assert not peer._dialers

    run(main())


def test_an_address_that_failed_is_not_tried_again_at_once() -> None:
    async def main() -> None:
        with RawListener() as silent:
            async with peers("peer") as (peer,):
                peer.destination("r")
                listener = await peer.listen()
                async with raw_unit(listener.port) as connection:
                    await eventually(lambda: peer.units)
                    peer.handshake_timeout = 0.5
                    connection.send(introduction(silent.url))
                    await eventually(lambda: peer.stats()["handshake_failures"] == 1)
                    await eventually(lambda: not peer._acquaintances._dialling)
                    connection.send(introduction(silent.url))
                    await eventually(lambda: peer.stats()["drops"])
                    assert not peer._dialers
                    assert silent.pending() == 1
                    # Later it is.
                    failed = peer._acquaintances._failed
                    (place,) = failed
                    failed[place] -= FORGET_AFTER
                    connection.send(introduction(silent.url))
                    await eventually(lambda: peer.stats()["handshake_failures"] == 2)
                    assert silent.pending() == 1

    run(main())


def test_a_dead_port_is_dialled_once_whatever_the_path() -> None:
    async def main() -> None:
        async with peers("peer") as (peer,):
            peer.destination("r")
            peer.role("here").on_request("e")(lambda ctx: 1)
            listener = await peer.listen()
            with socket.socket() as dead:
                dead.bind(("127.0.0.1", 0))  # and nobody listens
                url = f"ws://127.0.0.1:{dead.getsockname()[1]}"
                async with raw_unit(listener.port) as connection:

                    def introduce(first: int) -> None:
                        for i in range(first, first + 50):
                            connection.send(introduction(f"{url}/{i}?{i}", f"id{i}"))
                        connection.ask("here", "e")  # answered when all of them were taken

                    known = peer._acquaintances
                    for first in (0, 50):  # the second time it is known not to answer
                        await asyncio.to_thread(introduce, first)
                        await eventually(lambda: not known._dialling and not known._waiting)
                        assert peer.stats()["handshake_failures"] == 1
                    assert peer.stats()["drops"]["acquaintances refused"] >= 50

    run(main())


@pytest.mark.parametrize("gone_first", ["introducer", "introduced"])
def test_who_is_not_whom_it_was_introduced_as_is_not_kept_up(
    gone_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[BackOff] = []

    def short(back_off: BackOff) -> float:
        delays.append(back_off)
        return 0.01

    monkeypatch.setattr(BackOff, "_next", short)

    async def main() -> None:
        async with peers("peer") as (peer,):
            peer.destination("r")
            port = (await peer.listen()).port

            def serve() -> Connection:
                connection = listener.accept_upgraded()
                authenticate(connection, data=peer_data("another"))
                return connection

            with RawListener() as listener:
                async with raw_unit(port, peer_id="introducer") as introducer:
                    await eventually(lambda: peer.units)
                    introducer.send(introduction(listener.url, "somebody"))
                    with await asyncio.to_thread(serve) as introduced:
                        await eventually(lambda: peer.unit("another"))
                        await eventually(lambda: not peer._dialers, what="the dialer's end")
                        ends = [("introducer", introducer), ("another", introduced)]
                        if gone_first == "introduced":
                            ends.reverse()
                        for unit_id, connection in ends:
                            connection.drop()
                            await eventually(lambda gone=unit_id: peer.unit(gone) is None)
                assert peer.units == ()
                assert not peer._dialers
                assert delays == []
                assert listener.pending() == 0

    run(main())


def test_after_so_many_failures_nobody_is_dialled_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("roletalk.acquaintance.MAX_REMEMBERED", 3)

    async def main() -> None:
        # Bound and let go: nobody listens there any more.
        with ExitStack() as stack:
            ports = [stack.enter_context(RawListener()).port for _ in range(5)]
        async with peers("peer") as (peer,):
            peer.destination("r")
            listener = await peer.listen()
            async with raw_unit(listener.port) as connection:
                await eventually(lambda: peer.units)
                for index, port in enumerate(ports):
                    connection.send(introduction(f"ws://127.0.0.1:{port}", str(index)))
                await eventually(lambda: peer.stats()["drops"] == {"acquaintances refused": 2})
                await eventually(lambda: not peer._acquaintances._dialling)
                failed = peer._acquaintances._failed
                assert set(failed) == {f"127.0.0.1:{port}" for port in ports[:3]}
                assert peer.stats()["handshake_failures"] == 3
                # The oldest is forgotten first, and makes room for one.
                failed[next(iter(failed))] -= FORGET_AFTER
                for index, port in enumerate(ports[3:]):
                    connection.send(introduction(f"ws://127.0.0.1:{port}", str(index)))
                await eventually(lambda: peer.stats()["drops"] == {"acquaintances refused": 3})
                await eventually(lambda: peer.stats()["handshake_failures"] == 4)

    run(main())


def test_only_so_many_introduced_are_kept_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roletalk.acquaintance.MAX_KEPT", 2)

    async def main() -> None:
        async with peers("peer", "a", "b", "c") as (peer, *others):
            peer.destination("r")
            listener = await peer.listen()
            async with raw_unit(listener.port) as connection:
                await eventually(lambda: peer.units)
                for count, other in enumerate(others, 1):
                    url = (await other.listen()).url
                    connection.send(introduction(url, other.id))
                    if count <= 2:
                        await eventually(lambda other=other: peer.unit(other.id))
                        await eventually(lambda: not peer._acquaintances._dialling)
                await eventually(lambda: peer.stats()["drops"] == {"acquaintances refused": 1})
                assert peer.unit(others[2].id) is None

    run(main())
