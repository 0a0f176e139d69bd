"""Dialling: what fails, when it is tried again, and what ends it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import aiofastnet
import pytest
import trustme

import roletalk
from roletalk.backoff import BackOff
from roletalk.testing import Mesh
from tests.helpers import eventually, peers, run, run_virtually
from tests.rawclient import RawListener
from tools.ports import quiet_port


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which delays were asked for; the delays themselves are cut to 10 ms."""
    asked: list[str] = []

    def cut(name: str) -> Callable[..., float]:
        def short(self: BackOff, *_: object) -> float:
            asked.append(name)
            return 0.01

        return short

    for name in ("lost", "found_nobody", "failed", "refused"):
        monkeypatch.setattr(BackOff, name, cut(name))
    return asked


# -- dialling again


def test_a_peer_that_died_and_came_back_on_its_port(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            async with peers("first") as (first,):
                first.role("r").on_request("e")(lambda ctx: "first")
                port = (await first.listen(port=quiet_port())).port
                unit = await client.connect(f"ws://127.0.0.1:{port}")
                destination = client.destination("r")
                assert (await destination.request("e")).data == "first"
            await eventually(lambda: not unit.connected)
            assert not destination.ready
            await eventually(lambda: len(delays) > 3)
            async with peers("second") as (second,):
                second.role("r").on_request("e")(lambda ctx: "second")
                await second.listen("127.0.0.1", port)
                await destination.wait_ready(10)
                assert (await destination.request("e")).data == "second"
                assert client.units[0].id == second.id
                await eventually(lambda: client.stats()["reconnects"] == 1)
                assert delays == ["lost"] + ["found_nobody"] * (len(delays) - 1)

    run(main())


def test_how_long_a_connection_lived_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lives: list[float] = []

    def lost(self: BackOff, lived: float) -> float:
        lives.append(lived)
        return 0.0

    monkeypatch.setattr(BackOff, "lost", lost)

    async def main() -> None:
        async with peers("server", "client") as (server, client):
            await client.connect((await server.listen()).url)
            for tries in range(3):
                connected_at = time.monotonic()
                await eventually(lambda: server.units and client.units)
                await server.units[0].close()
                await eventually(lambda tries=tries: len(lives) > tries)
                assert 0 <= lives[tries] <= time.monotonic() - connected_at + 1.0

    run(main())


@pytest.mark.parametrize("secure", [False, True])
def test_who_answers_and_fails_is_told_from_nobody(delays: list[str], secure: bool) -> None:
    async def main() -> None:
        with RawListener() as listener:
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{listener.port}"
            async with peers("client") as (client,):
                connecting = asyncio.create_task(client.connect(url, retry=True))
                (await asyncio.to_thread(listener.accept)).drop()
                await eventually(lambda: delays)
                assert delays[0] == "failed"
                listener.sock.close()
                await eventually(lambda: delays[-1] == "found_nobody")
                connecting.cancel()

    run(main())


def test_a_remote_that_turns_us_away_is_told(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            server.add_key("k", "secret")
            url = (await server.listen()).url
            connecting = asyncio.create_task(client.connect(url, retry=True))
            await eventually(lambda: delays)
            assert delays[0] == "refused"
            connecting.cancel()

    run(main())


def test_a_name_that_is_not_found_is_asked_for_as_a_remote_is(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            url = "ws://does-not-exist.invalid:1"
            connecting = asyncio.create_task(client.connect(url, retry=True))
            await eventually(lambda: delays)
            assert delays[0] == "failed"
            connecting.cancel()

    run(main())


def test_a_socket_that_connected_to_itself_gives_its_port_back(
    delays: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What happens sooner or later to who dials a local port again and again that nobody listens on.
    dial = aiofastnet.create_connection
    itself = socket.socket()
    itself.bind(("127.0.0.1", 0))
    port = itself.getsockname()[1]
    itself.connect(("127.0.0.1", port))

    async def dialled(loop: Any, factory: Any, *_: object, **__: object) -> Any:
        return await dial(loop, factory, sock=itself)

    async def main() -> None:
        async with peers("server", "client") as (server, client):
            monkeypatch.setattr(aiofastnet, "create_connection", dialled)
            url = f"ws://127.0.0.1:{port}"
            connecting = asyncio.create_task(client.connect(url, retry=True))
            await eventually(lambda: delays)
            assert delays[0] == "found_nobody"
            monkeypatch.setattr(aiofastnet, "create_connection", dial)
            await server.listen("127.0.0.1", port)
            assert (await connecting).id == server.id

    run(main())


def test_without_reconnect_a_lost_connection_stays_lost(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            unit = await client.connect((await server.listen()).url, reconnect=False)
            unit.connections[0].abort()
            await eventually(lambda: not unit.connected)
            await eventually(lambda: not client._dialers)
            assert delays == []
            assert client.units == ()

    run(main())


def test_each_address_is_dialled_again_by_itself(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            unit = await client.connect((await server.listen()).url)
            await client.connect((await server.listen()).url)
            for _ in range(3):
                unit.connections[0].abort()
                await eventually(lambda: len(unit.connections) == 1)
                await eventually(lambda: len(unit.connections) == 2)
            assert client.units == (unit,)
            await unit.close()
            await eventually(lambda: not client._dialers)

    run(main())


def test_connections_that_are_cut_in_turn_are_back_before_the_other_goes() -> None:
    # Each lives for two seconds less the time it takes to dial it again: were that not steady, the
    # delays would grow until both are away.
    async def main() -> None:
        async with Mesh() as mesh:
            server, client = mesh.peer("server"), mesh.peer("client")
            ports = [(await server.listen()).port for _ in range(2)]
            for port in ports:
                unit = await client.connect(f"ws://127.0.0.1:{port}")
            for turn in range(60):
                await asyncio.sleep(1)
                dialling = [link.ends[0] for link in mesh._hub.links]
                (end,) = (
                    each
                    for each in dialling
                    if each.get_extra_info("peername")[1] == ports[turn % 2]
                )
                end.cut()
                await asyncio.sleep(0)
                assert unit.connected
            assert client.stats()["reconnects"] >= 59

    run_virtually(main())


def test_retry_waits_for_a_peer_that_is_not_there_yet(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen()
            url, port = listener.url, listener.port
            await listener.close()
            connecting = asyncio.create_task(client.connect(url, retry=True))
            await eventually(lambda: len(delays) > 3)
            assert not connecting.done()
            await server.listen("127.0.0.1", port)
            assert (await connecting).id == server.id
            assert client.stats()["reconnects"] == 0

    run(main())


def test_retry_ends_with_its_timeout(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with pytest.raises(roletalk.ConnectError, match=r"within 0\.2 s"):
                await client.connect("ws://127.0.0.1:1", retry=True, timeout=0.2)
            assert delays
            tries = len(delays)
            assert not client._dialers
            await asyncio.sleep(0.05)
            assert len(delays) == tries

    run(main())


def test_a_cancelled_connect_dials_no_more(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            connecting = asyncio.create_task(client.connect("ws://127.0.0.1:1", retry=True))
            await eventually(lambda: len(delays) > 2)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert not client._dialers

    run(main())


def test_leaving_async_with_closes_and_dials_no_more(delays: list[str]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            async with client.connect((await server.listen()).url) as unit:
                # Also when the unit that it gave is gone and another one took its place.
                unit.connections[0].abort()
                await eventually(lambda: client.units and client.units[0] is not unit)
                await eventually(lambda: server.units)
            assert client.units == ()
            assert not client._dialers
            await eventually(lambda: not server.units)
            with pytest.raises(KeyError):
                async with client.connect(server.listeners[0].url):
                    raise KeyError
            assert client.units == ()

    run(main())


# -- what fails


def refused(
    expected: type[Exception], text: str, connect: Callable[[roletalk.Peer], object]
) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with pytest.raises(expected, match=text):
                await connect(client)  # type: ignore[misc]
            assert client.units == ()
            assert not client._dialers
            assert client.stats()["handshakes"] == 0

    run(main())


def test_nobody_listens() -> None:
    with RawListener() as free:
        url = free.url
    refused(roletalk.ConnectError, "cannot connect to", lambda client: client.connect(url))
    refused(ConnectionError, "cannot connect to", lambda client: client.connect(url))


def test_an_unknown_host() -> None:
    url = "ws://does-not-exist.invalid:1"
    refused(roletalk.ConnectError, "cannot connect to", lambda client: client.connect(url))


def test_no_such_unix_socket(tmp_path: object) -> None:
    url = f"ws+unix://{tmp_path}/missing.sock"
    refused(roletalk.ConnectError, "cannot connect to", lambda client: client.connect(url))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"",
    ],
    ids=["http 200", "http 404", "ssh", "tls alert", "nothing"],
)
def test_what_is_no_websocket(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with peers("client") as (client,):
                url = f"ws://127.0.0.1:{port}"
                with pytest.raises(roletalk.ConnectError, match=f"^no WebSocket at {url}"):
                    await client.connect(url)
                assert not client._dialers

    run(main())


def test_silence_ends_with_the_handshake_timeout() -> None:
    async def main() -> None:
        with RawListener() as silent:
            async with peers("client", handshake_timeout=0.2) as (client,):
                with pytest.raises(roletalk.ConnectError, match=r"not done after 0\.2 s"):
                    await client.connect(silent.url)

    run(main())


def test_the_timeout_of_connect() -> None:
    async def main() -> None:
        with RawListener() as silent:
            async with peers("client") as (client,):
                with pytest.raises(roletalk.ConnectError, match=r"within 0\.1 s"):
                    await client.connect(silent.url, timeout=0.1)
                await eventually(lambda: client.stats()["handshakes"] == 0)

    run(main())


def contexts(ca: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client


def test_tls_and_none_do_not_meet() -> None:
    async def main() -> None:
        server_context, client_context = contexts(trustme.CA())
        async with peers("server", "client") as (server, client):
            secure = await server.listen(ssl=server_context)
            plain = await server.listen()
            with pytest.raises(roletalk.ConnectError, match="wss://"):
                await client.connect(f"ws://127.0.0.1:{secure.port}")
            with pytest.raises(roletalk.ConnectError, match="no TLS is spoken there: use ws://"):
                await client.connect(f"wss://127.0.0.1:{plain.port}", ssl=client_context)
            assert server.units == ()
            assert (await client.connect(secure.url, ssl=client_context)).connected

    run(main())


def test_certificates_that_do_not_hold() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        server_context, trusting = contexts(trustme.CA())
        async with (
            await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context) as server,
            peers("client") as (client,),
        ):
            url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(roletalk.ConnectError, match="certificate is"):
                await client.connect(url)
            with pytest.raises(roletalk.ConnectError, match="certificate is"):
                await client.connect(url, ssl=trusting, server_hostname="example.org")

    run(main())


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9000", "http://127.0.0.1:9000", "ws://", "ws://h:0", "ws://a@h:1"]
)
def test_bad_urls(url: str) -> None:
    refused(ValueError, "ws://", lambda client: client.connect(url))


def test_bad_arguments() -> None:
    context = ssl.create_default_context()
    refused(TypeError, "str", lambda client: client.connect(5))  # type: ignore[arg-type]
    refused(
        ValueError,
        "for TLS, and .* use wss://h:1",
        lambda client: client.connect("ws://h:1", ssl=context),
    )


def test_a_closed_peer_dials_nobody() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            url = (await server.listen()).url
            await client.close()
            with pytest.raises(RuntimeError):
                await client.connect(url)
            with pytest.raises(RuntimeError):
                await client.listen()

    run(main())


# -- dials that are given up


def test_a_peer_closes_promptly_whatever_its_dialer_is_doing() -> None:
    # Some turns of the loop after an attempt ran out of time, while it still unwinds.
    async def main() -> None:
        with RawListener() as silent:
            for turns in range(8):
                async with peers("client", handshake_timeout=0.05) as (client,):
                    dial = asyncio.ensure_future(client.connect(silent.url, retry=True))
                    while not client.stats()["handshake_failures"]:
                        await asyncio.sleep(0)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    (dialer,) = client._dialers
                    await asyncio.wait_for(client.close(timeout=0.5), 5)
                    assert dialer._task.done(), f"not over when closed after {turns} turns"
                    with pytest.raises(roletalk.RoletalkError):
                        await dial

    run(main())


def test_a_dial_that_is_cancelled_leaves_nothing_whenever_it_is() -> None:
    async def main() -> None:
        async with peers("server", keys={"k": "secret"}) as (server,):
            url = (await server.listen()).url
            for turns in range(500):
                async with peers("client", keys={"k": "secret"}) as (client,):
                    dial = asyncio.ensure_future(client.connect(url))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if not dial.cancel():
                        await dial
                        break
                    with pytest.raises(asyncio.CancelledError):
                        await dial
                    assert not client._dialers
                    await eventually(
                        lambda client=client: not client.units,
                        what=f"no unit after a cancellation at turn {turns}",
                        timeout=3,
                    )
                    for peer in (client, server):
                        await eventually(lambda peer=peer: peer.stats()["handshakes"] == 0)
                    await eventually(lambda: not server.units)
            assert turns > 5  # it was cancelled at many

    run(main())
