"""What goes wrong on the way to a connection, as a user does it, and what says so on either side."""

from __future__ import annotations

import asyncio
import datetime
import errno
import socket
import ssl
from copy import copy
from pathlib import Path

import pytest
import trustme

import roletalk
from tests.helpers import eventually, peers, run


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://h:9000/x", "ws://h:9000/x"),
        ("https://h:9000", "wss://h:9000"),
        ("HTTP://h:9000", "ws://h:9000"),
        ("tcp://h:9000", "ws://h:9000"),
        ("tls://h:9000", "wss://h:9000"),
        ("localhost:9000", "ws://localhost:9000"),
        ("127.0.0.1:9000", "ws://127.0.0.1:9000"),
        ("[::1]:9000", "ws://[::1]:9000"),
        ("//h:9000", "ws+unix:////h:9000"),
        ("h", "ws://h"),
        ("ws:/h:9000", "ws://h:9000"),
        ("wss//h:9000", "wss://h:9000"),
        ("wsserver:9000", "ws://wsserver:9000"),
        ("unix:///run/x.sock", "ws+unix:///run/x.sock"),
        ("/run/x.sock", "ws+unix:///run/x.sock"),
        ("ws+unix://run/x.sock", "ws+unix:///run/x.sock"),
    ],
)
def test_a_url_that_is_nearly_one(url: str, meant: str) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with pytest.raises(ValueError, match=r"^the URL ") as caught:
                await client.connect(url)
            assert str(caught.value).endswith(f"write {meant!r}")

    run(main())


def test_a_url_without_a_port() -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with pytest.raises(roletalk.ConnectError, match="port 80, as the URL names none"):
                await client.connect("ws://127.0.0.1", timeout=5)

    run(main())


def test_where_nobody_listens() -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            for url, text in (
                ("ws://127.0.0.1:1", "is the peer started, and the address right"),
                ("ws+unix:///nowhere/x.sock", "is a peer listening on that path"),
                ("ws://no-such-host.invalid:1", "the name of the host is not known here"),
            ):
                with pytest.raises(roletalk.ConnectError, match=text) as caught:
                    await client.connect(url)
                assert f"cannot connect to {url}: " in str(caught.value)

    run(main())


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError(errno.EHOSTUNREACH, "no route"), "or a firewall in between"),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), "or a firewall in between"),
        # What asyncio makes of a name with several addresses.
        (
            OSError(f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] ::1, ..."),
            "nobody listens there",
        ),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "want a client certificate"),
    ],
)
def test_an_address_that_cannot_be_reached(
    error: OSError, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: object, **__: object) -> None:
        raise copy(error)  # it keeps a traceback, and the case stays

    async def main() -> None:
        async with peers("client") as (client,):
            monkeypatch.setattr(client._network, "connect", connect)
            with pytest.raises(roletalk.ConnectError) as caught:
                await client.connect("wss://orders.test:9000")
            assert hint in caught.value.hint

    run(main())


def test_where_one_cannot_listen(tmp_path: Path) -> None:
    async def main() -> None:
        async with peers("first", "second") as (first, second):
            port = (await first.listen()).port
            with pytest.raises(
                OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*port=0 takes"
            ):
                await second.listen("127.0.0.1", port)
            with pytest.raises(
                socket.gaierror, match=r"cannot listen on no-such-host\.invalid:0: "
            ):
                await second.listen("no-such-host.invalid")
            with pytest.raises(OSError, match=r"cannot listen on path '.*choose a shorter one"):
                await second.listen(path=str(tmp_path / ("x" * 200)))
            with pytest.raises(FileNotFoundError, match=r"cannot listen on path '.*No such file"):
                await second.listen(path=str(tmp_path / "none" / "x.sock"))

    run(main())


# -- keys --------------------------------------------------------------------------------------------

Keys = dict[str, str]


@pytest.mark.parametrize(
    ("listeners", "dialers", "listener_says", "dialer_says"),
    [
        (
            {"a": "secret"},
            {},
            (
                "a proof is required, and the other side gave none (the other side has no keys, this peer"
                " has 'a': peer.add_key(id, key) there)"
            ),
            (
                "a proof is asked of a peer that has no keys (this peer has no keys, the other side has 'a':"
                " peer.add_key(id, key) here)"
            ),
        ),
        (
            {},
            {"b": "secret"},
            "(this peer has no keys, the other side has 'b': peer.add_key(id, key) here)",
            "(the other side has no keys, this peer has 'b': peer.add_key(id, key) there)",
        ),
        (
            {"a": "secret", "a2": "x"},
            {"b": "secret"},
            (
                "no key id in common (this peer has 'a', 'a2', the other side 'b': peer.add_key() the same"
                " id and key on both sides)"
            ),
            (
                "no key id in common (this peer has 'b', the other side 'a', 'a2': peer.add_key() the same"
                " id and key on both sides)"
            ),
        ),
        (
            {"a": "secret"},
            {"a": "another"},
            (
                "a wrong proof for the key 'a' (most likely the key 'a' has another secret on the other"
                " side: peer.add_key() the same one on both)"
            ),
            (
                "(most likely the key 'a' has another secret on the other side: peer.add_key() the same one"
                " on both)"
            ),
        ),
    ],
    ids=["none here", "none there", "another id", "another secret"],
)
def test_keys_that_do_not_fit(
    listeners: Keys,
    dialers: Keys,
    listener_says: str,
    dialer_says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            for peer, keys in ((server, listeners), (client, dialers)):
                for key_id, key in keys.items():
                    peer.add_key(key_id, key)
            listener = await server.listen()
            with pytest.raises(roletalk.AuthError) as caught:
                await client.connect(listener.url)
            assert str(caught.value).startswith(f"handshake with {listener.url}: ")
            assert dialer_says in str(caught.value)
            await eventually(lambda: "turned away" in caplog.text)

    caplog.set_level("INFO", "roletalk")
    run(main())
    (line,) = caplog.messages
    assert line.startswith("a connection was turned away: handshake with 127.0.0.1: ")
    assert listener_says in line


# -- TLS ---------------------------------------------------------------------------------------------


def contexts(ca: trustme.CA, name: str = "127.0.0.1") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client


def test_tls_on_one_side_only(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server_context, client_context = contexts(trustme.CA())
        async with (
            peers("server", handshake_timeout=0.5) as (server,),
            peers("client") as (client,),
        ):
            plain = await server.listen()
            with pytest.raises(roletalk.ConnectError, match="no TLS is spoken there: use ws://"):
                await client.connect(f"wss://127.0.0.1:{plain.port}", ssl=client_context)
            await eventually(
                lambda: "it speaks TLS, and this listener does not (dial ws://" in caplog.text
            )
            secure = await server.listen(ssl=server_context)
            with pytest.raises(roletalk.ConnectError, match="wss://"):
                await client.connect(f"ws://127.0.0.1:{secure.port}")
            # Nothing says at once that the TLS handshake failed.
            await eventually(
                lambda: "no TLS handshake came to its end: it dials ws://" in caplog.text
            )

    caplog.set_level("INFO", "roletalk")
    run(main())
    assert {record.levelname for record in caplog.records if record.name == "roletalk"} == {"INFO"}


def test_certificates_that_do_not_fit() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def refusal(server_context: ssl.SSLContext, client_context: ssl.SSLContext | None) -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
        async with server, peers("client") as (client,):
            url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(roletalk.ConnectError, match=f"no TLS with {url}: ") as caught:
                await client.connect(url, ssl=client_context)
            return caught.value.hint

    async def main() -> None:
        ca = trustme.CA()
        server_context, _ = contexts(ca)
        assert "is not trusted here: connect(ssl=" in await refusal(server_context, None)
        other_name, trusting = contexts(ca, "example.org")
        assert "for another name" in await refusal(other_name, trusting)
        expired = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(
            "127.0.0.1",
            not_before=datetime.datetime(2020, 1, 1),  # trustme takes no other
            not_after=datetime.datetime(2020, 1, 2),
        ).configure_cert(expired)
        assert "renew its certificate" in await refusal(expired, trusting)

    run(main())


def test_tls_options_for_a_url_without_it() -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with pytest.raises(ValueError, match=r"are for TLS, and .* use wss://h:1"):
                await client.connect("ws://h:1", ssl=ssl.create_default_context())
            with pytest.raises(ValueError, match="are for TLS"):
                await client.connect("ws://h:1", server_hostname="h")

    run(main())


# -- nobody of ours ----------------------------------------------------------------------------------


def test_what_is_no_peer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, peers("client") as (client,):
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(
                roletalk.ConnectError, match=f"no WebSocket at {url}.*roletalk peer"
            ):
                await client.connect(url)

    run(main())
