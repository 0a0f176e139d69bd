"""Dialling: what fails, when it is tried again, and what ends it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from statistics import mean

import pytest
import trustme

import roletalk
from roletalk.dialer import BACK_OFF, FIRST_JITTER, JITTER, back_off
from tests.helpers import eventually, peers, run
from tests.rawclient import RawListener

# -- the schedule


def test_the_schedule_is_that_of_the_protocol() -> None:
    assert BACK_OFF == (0, 1, 2, 3, 4, 5, 10, 30, 60)


@pytest.mark.parametrize("attempt", [*range(12), 1000])
def test_jitter_stays_within_its_bounds(attempt: int) -> None:
    delay = BACK_OFF[min(attempt, 8)]
    low, high = (0, FIRST_JITTER) if delay == 0 else (delay * (1 - JITTER), delay * (1 + JITTER))
    waits = [back_off(attempt) for _ in range(500)]
    assert all(low <= wait <= high for wait in waits)
    # It is spread over all of that range, around its middle.
    assert max(waits) - min(waits) > (high - low) * 0.8
    assert abs(mean(waits) - (low + high) / 2) < (high - low) * 0.15


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that delays were asked for; the delays themselves are cut to 10 ms."""
    asked: list[int] = []

    def short(attempt: int) -> float:
        asked.append(attempt)
        return 0.01

    monkeypatch.setattr("roletalk.dialer.back_off", short)
    return asked


# -- dialling again


def test_a_peer_that_died_and_came_back_on_its_port(attempts: list[int]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            async with peers("first") as (first,):
                first.role("r").on_request("e")(lambda ctx: "first")
                port = (await first.listen()).port
                unit = await client.connect(f"ws://127.0.0.1:{port}")
                destination = client.destination("r")
                assert (await destination.request("e")).data == "first"
            await eventually(lambda: not unit.connected)
            assert not destination.ready
            await eventually(lambda: len(attempts) > 3)
            async with peers("second") as (second,):
                second.role("r").on_request("e")(lambda ctx: "second")
                await second.listen("127.0.0.1", port)
                await destination.wait_ready(10)
                assert (await destination.request("e")).data == "second"
                assert client.units[0].id == second.id
                await eventually(lambda: client.stats()["reconnects"] == 1)
                # It counted up without a gap.
                assert attempts == list(range(len(attempts)))

    run(main())


@pytest.mark.parametrize("steady", [True, False])
def test_only_a_steady_connection_begins_the_delays_anew(
    attempts: list[int], steady: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roletalk.dialer.STEADY", 0.0 if steady else 60.0)

    async def main() -> None:
        async with peers("server", "client") as (server, client):
            await client.connect((await server.listen()).url)
            for _ in range(3):
                tries = len(attempts)
                await eventually(lambda: server.units)
                await server.units[0].close()
                await eventually(lambda tries=tries: len(attempts) > tries)
                await eventually(lambda: client.units)
            assert attempts[:3] == ([0, 0, 0] if steady else [0, 1, 2])

    run(main())


def test_without_reconnect_a_lost_connection_stays_lost(attempts: list[int]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            unit = await client.connect((await server.listen()).url, reconnect=False)
            unit.connections[0].abort()
            await eventually(lambda: not unit.connected)
            await eventually(lambda: not client._dialers)
            assert attempts == []
            assert client.units == ()

    run(main())


def test_each_address_is_dialled_again_by_itself(attempts: list[int]) -> None:
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


def test_retry_waits_for_a_peer_that_is_not_there_yet(attempts: list[int]) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen()
            url, port = listener.url, listener.port
            await listener.close()
            connecting = asyncio.create_task(client.connect(url, retry=True))
            await eventually(lambda: len(attempts) > 3)
            assert not connecting.done()
            await server.listen("127.0.0.1", port)
            assert (await connecting).id == server.id
            assert client.stats()["reconnects"] == 0

    run(main())


def test_retry_ends_with_its_timeout(attempts: list[int]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with pytest.raises(roletalk.ConnectError, match=r"within 0\.2 s"):
                await client.connect("ws://127.0.0.1:1", retry=True, timeout=0.2)
            assert attempts
            tries = len(attempts)
            assert not client._dialers
            await asyncio.sleep(0.05)
            assert len(attempts) == tries

    run(main())


def test_a_cancelled_connect_dials_no_more(attempts: list[int]) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            connecting = asyncio.create_task(client.connect("ws://127.0.0.1:1", retry=True))
            await eventually(lambda: len(attempts) > 2)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert not client._dialers

    run(main())


def test_leaving_async_with_closes_and_dials_no_more(attempts: list[int]) -> None:
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
            # The listener waits for the end of what it takes for an HTTP request.
            with pytest.raises(roletalk.ConnectError):
                await client.connect(
                    f"wss://127.0.0.1:{plain.port}", ssl=client_context, timeout=0.3
                )
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
            with pytest.raises(roletalk.ConnectError, match="is its certificate trusted here"):
                await client.connect(url)
            with pytest.raises(roletalk.ConnectError, match="is its certificate trusted here"):
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
    refused(ValueError, "not a wss", lambda client: client.connect("ws://h:1", ssl=context))


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
