"""Listening: TCP ports, Unix sockets, TLS and what proofs are bound to there."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

import roletalk
from roletalk.auth import HandshakeResult
from roletalk.gate import CHALLENGES
from roletalk.listener import server_certificate
from tests.helpers import eventually, peers, run
from tests.rawclient import RawListener, connect, upgrade_request

# -- TCP


def test_port_and_url() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen(port=0)
            assert 0 < listener.port < 65_536
            assert listener.url == f"ws://127.0.0.1:{listener.port}"
            assert listener.addresses == (("127.0.0.1", listener.port),)
            assert listener.path is None
            assert server.listeners == (listener,)
            assert listener.url in repr(listener)
            other = await server.listen("0.0.0.0", 0)
            assert other.url == f"ws://127.0.0.1:{other.port}"
            assert other.port != listener.port
            unit = await client.connect(listener.url)
            assert await client.connect(other.url) is unit

    run(main())


def test_closing_a_listener_leaves_its_connections() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            async with server.listen() as listener:
                url = listener.url
                unit = await client.connect(url, reconnect=False)
            assert server.listeners == ()
            assert (listener.port, listener.url, listener.addresses) == (0, "", ())
            assert "closed" in repr(listener)
            await listener.close()
            assert unit.connected
            with pytest.raises(roletalk.ConnectError):
                await client.connect(url)
            assert unit.connected

    run(main())


def test_a_port_that_is_taken() -> None:
    async def main() -> None:
        with RawListener() as taken:
            async with peers("server") as (server,):
                with pytest.raises(OSError):
                    await server.listen("127.0.0.1", taken.port)
                assert server.listeners == ()

    run(main())


def test_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")

    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen("::1")
            assert listener.url == f"ws://[::1]:{listener.port}"
            assert (await client.connect(listener.url)).id == server.id

    run(main())


# -- Unix sockets


@pytest.mark.parametrize(
    "name", ["a peer?#%20.sock", "\udcff", "é"], ids=["signs", "bytes", "accent"]
)
def test_the_url_of_any_path_may_be_dialled(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen(path=str(tmp_path / name))
            assert (await client.connect(listener.url)).name == "server"

    run(main())


def test_a_unix_socket(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "peer.sock"
        async with peers("server", "client", keys={"k": "secret"}) as (server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            listener = await server.listen(path=str(path))
            assert listener.url == f"ws+unix://{path}"
            assert (listener.port, listener.addresses) == (0, ())
            unit = await client.connect(listener.url)
            destination = client.destination("r")
            assert (await destination.request("e", b"x" * 300_000)).data == b"x" * 300_000
            assert unit.connected
            await listener.close()
            assert not path.exists()
            assert (await destination.request("e", 1)).data == 1

    run(main())


def test_only_its_own_socket_file_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "peer.sock"
        async with peers("old", "new", "client") as (old, new, client):
            first = await old.listen(path=str(path))
            path.unlink()
            second = await new.listen(path=str(path))
            await first.close()
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert (await client.connect(second.url)).id == new.id
            await second.close()
            assert not path.exists()
            third = await old.listen(path=str(path))
            path.unlink()
            path.write_text("a file of somebody's")
            await third.close()
            assert path.read_text() == "a file of somebody's"

    run(main())


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_text("something")
        async with peers("server") as (server,):
            with pytest.raises(OSError):
                await server.listen(path=str(path))
            assert path.read_text() == "something"

    run(main())


def test_a_socket_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "peer.sock"
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
        async with peers("server", "client") as (server, client):
            listener = await server.listen(path=str(path))
            assert (await client.connect(listener.url)).id == server.id

    run(main())


@pytest.mark.parametrize("path", ["", "\0abstract"])
def test_a_path_that_is_no_file(path: str) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            with pytest.raises(ValueError, match="path= is that of a file"):
                await server.listen(path=path)

    run(main())


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen(path="peer.sock")
            assert listener.url == f"ws+unix://{os.path.realpath(tmp_path)}/peer.sock"
            assert (await client.connect(listener.url)).id == server.id

    monkeypatch.chdir(os.path.realpath(tmp_path))
    run(main())


# -- TLS

KEY_TYPES = {"ecdsa": trustme.KeyType.ECDSA, "rsa": trustme.KeyType.RSA}


def server_context(ca: trustme.CA, key_type: str = "ecdsa") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1", key_type=KEY_TYPES[key_type]).configure_cert(context)
    return context


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def result(unit: roletalk.Unit) -> HandshakeResult:
    """How the handshake of its first connection ended."""
    owner = unit.connections[0].owner
    assert owner is not None
    assert owner._handshake is not None
    return owner._handshake.result


@pytest.mark.parametrize("key_type", KEY_TYPES)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("keys", [{}, {"k": "secret"}], ids=["no key", "key"])
def test_tls(key_type: str, version: ssl.TLSVersion, keys: dict[str, str]) -> None:
    async def main() -> None:
        ca = trustme.CA()
        context = server_context(ca, key_type)
        context.minimum_version = context.maximum_version = version
        async with peers("server", "client", keys=keys) as (server, client):
            server.role("up").on_request("e")(lambda ctx: ctx.data)
            client.role("down").on_request("e")(lambda ctx: ctx.data)
            listener = await server.listen(ssl=context)
            assert listener.url == f"wss://127.0.0.1:{listener.port}"
            unit = await client.connect(listener.url, ssl=client_context(ca))
            await server.destination("down").wait_ready(10)
            big = b"x" * 500_000
            assert (await client.destination("up").request("e", big)).data == big
            assert (await server.destination("down").request("e", big)).data == big
            # With keys the proofs of both sides cover the certificate.
            for each in (unit, server.units[0]):
                assert result(each).binding is bool(keys)

    run(main())


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_the_certificate_of_a_context(key_type: str) -> None:
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued = ca.issue_cert("127.0.0.1", key_type=KEY_TYPES[key_type])
    issued.configure_cert(context)
    pem = issued.cert_chain_pems[0].bytes().decode()
    assert server_certificate(context) == ssl.PEM_cert_to_DER_cert(pem)
    # Those that ask their clients for a certificate, too.
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    assert server_certificate(context) == ssl.PEM_cert_to_DER_cert(pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert server_certificate(context) == ssl.PEM_cert_to_DER_cert(pem)


def test_a_context_without_a_certificate_has_none() -> None:
    assert server_certificate(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_with_certificates(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        ca = trustme.CA()
        ours, theirs = server_context(ca), client_context(ca)
        ours.verify_mode = ssl.CERT_REQUIRED
        ours.maximum_version = version
        ca.configure_trust(ours)
        async with peers("server", "client", keys={"k": "secret"}) as (server, client):
            listener = await server.listen(ssl=ours)
            with pytest.raises(roletalk.ConnectError, match="client certificate"):
                await client.connect(listener.url, ssl=theirs)
            ca.issue_cert("client.example").configure_cert(theirs)
            unit = await client.connect(listener.url, ssl=theirs)
            assert result(unit).binding

    # The refused handshake is the next test's subject.
    run(main(), may_report="SSL handshake failed")


@pytest.mark.xfail(reason="aiofastnet tells the loop's exception handler of it", strict=True)
def test_a_stranger_that_fails_at_tls_is_no_error_of_the_loop() -> None:
    # Whoever can reach the port could otherwise fill the log with errors.
    async def main() -> None:
        ca = trustme.CA()
        async with peers("server", "client") as (server, client):
            listener = await server.listen(ssl=server_context(ca))
            with pytest.raises(roletalk.ConnectError):
                await client.connect(listener.url)  # it does not trust the certificate
            assert (await client.connect(listener.url, ssl=client_context(ca))).connected

    run(main())


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def man_in_the_middle(
    target: int, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> AsyncIterator[int]:
    """A port that speaks TLS with a certificate of its own, and passes all on to `target`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target, ssl=theirs)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours) as server:
        yield server.sockets[0].getsockname()[1]
        await eventually(lambda: len(asyncio.all_tasks()) <= 2, what="the end of all pumps")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_man_in_the_middle_with_a_trusted_certificate_is_refused(legacy: bool) -> None:
    async def main() -> None:
        ca = trustme.CA()
        trust = client_context(ca)
        async with peers("server", "client") as (server, client):
            for peer in (server, client):
                peer.add_key("k", "secret", legacy=legacy)
            listener = await server.listen(ssl=server_context(ca))
            async with man_in_the_middle(listener.port, server_context(ca), trust) as port:
                with pytest.raises(roletalk.AuthError):
                    await client.connect(f"wss://127.0.0.1:{port}", ssl=trust)
                assert client.units == ()
                assert server.units == ()
                await client.close()
                await server.close()

    run(main())


def test_who_ends_tls_for_both_with_the_same_certificate_is_let_through() -> None:
    # A proxy that holds the server's own certificate is trusted with it.
    async def main() -> None:
        ca = trustme.CA()
        trust, context = client_context(ca), server_context(ca)
        async with peers("server", "client", keys={"k": "secret"}) as (server, client):
            listener = await server.listen(ssl=context)
            async with man_in_the_middle(listener.port, context, trust) as port:
                unit = await client.connect(f"wss://127.0.0.1:{port}", ssl=trust)
                assert result(unit).binding
                await client.close()
                await server.close()

    run(main())


@pytest.mark.parametrize("too_late", ["for its handshake", "for the peer"])
def test_a_stranger_whose_tls_handshake_ends_too_late_is_dropped(too_late: str) -> None:
    def greet(bare: socket.socket, trust: ssl.SSLContext) -> bytes:
        """What is answered to TLS and an upgrade; nothing when the connection ends instead."""
        bare.settimeout(10)
        try:
            with trust.wrap_socket(bare, server_hostname="127.0.0.1") as secure:
                secure.sendall(upgrade_request())
                return secure.recv(1000)
        except TimeoutError:
            raise
        except OSError:
            return b""

    async def main() -> None:
        ca = trustme.CA()
        trust = client_context(ca)
        challenges = len(CHALLENGES)
        async with peers("server", keys={"k": "secret"}) as (server,):
            listener = await server.listen(ssl=server_context(ca))
            if too_late == "for its handshake":
                # Shorter than what the listener gave TLS when it began to listen.
                server.handshake_timeout = 0.1
            with ExitStack() as stack:
                strangers = [stack.enter_context(connect(listener.port)).sock for _ in range(5)]
                if too_late == "for its handshake":
                    await eventually(lambda: server.stats()["handshake_failures"] == 5)
                else:
                    await eventually(lambda: server.stats()["handshakes"] == 5)
                    await server.close()
                answers = await asyncio.gather(
                    *(asyncio.to_thread(greet, each, trust) for each in strangers)
                )
            assert answers == [b""] * 5
            assert len(server._lobby) == 0
            assert not server._lobby._strangers
            assert not server._lobby._by_host
            assert server.units == ()
            assert len(CHALLENGES) == challenges

    # That they hung up in the middle of TLS.
    run(main(), may_report="SSL handshake failed")


def test_strangers_that_say_nothing_of_tls_are_cut_after_the_handshake_timeout() -> None:
    async def main() -> None:
        async with peers("server", handshake_timeout=0.2) as (server,):
            listener = await server.listen(ssl=server_context(trustme.CA()))
            with ExitStack() as stack:
                silent = [stack.enter_context(connect(listener.port)) for _ in range(5)]
                ends = await asyncio.gather(*(asyncio.to_thread(each.read_raw) for each in silent))
            assert ends == [b""] * 5
            await eventually(lambda: not server._lobby._strangers)
            assert server.stats()["handshakes"] == 0

    run(main(), may_report="SSL handshake failed")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system's backlog is asked")
def test_the_backlog_is_the_systems_and_few_are_taken_in_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("roletalk.network.ACCEPTS_PER_TURN", 4)

    async def main() -> None:
        async with peers("server") as (server,):
            port = (await server.listen(backlog=50)).port
            dialled = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
            # All of them are connected, though nobody has run meanwhile who could take them in.
            assert server.stats()["handshakes"] == 0
            before, most = 0, 0
            while before < len(dialled):
                await asyncio.sleep(0)
                now = server.stats()["handshakes"]
                most, before = max(most, now - before), now
            assert 1 <= most <= 5
            for sock in dialled:
                sock.close()

    run(main())


def test_a_peer_that_is_closed_while_it_begins_to_listen_does_not() -> None:
    async def main() -> None:
        peer = roletalk.Peer()
        # A name has to be looked up, which lets others have their turn.
        listening = asyncio.ensure_future(peer.listen("localhost"))
        await asyncio.sleep(0)
        await peer.close()
        with pytest.raises(RuntimeError, match="closed or closing"):
            await listening
        assert peer.listeners == ()

    run(main())


@pytest.mark.parametrize("turns", range(1, 7))
def test_to_listen_may_be_cancelled_at_any_time(turns: int) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listening = asyncio.ensure_future(server.listen())
            for _ in range(turns):
                await asyncio.sleep(0)
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            # One that gets the descriptor of what was given up hears of its own connections.
            for _ in range(2):
                await client.connect((await server.listen()).url)

    run(main())


def test_where_there_are_no_unix_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("roletalk.address.HAS_UNIX_SOCKETS", False)

    async def main() -> None:
        async with peers("one") as (peer,):
            with pytest.raises(OSError, match="no Unix sockets"):
                await peer.listen(path=str(tmp_path / "peer.sock"))
            with pytest.raises(roletalk.ConnectError, match="no Unix sockets"):
                await peer.connect(f"ws+unix://{tmp_path}/peer.sock")

    run(main())
