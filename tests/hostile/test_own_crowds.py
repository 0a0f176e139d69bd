"""Hostile numbers: more connections than a peer has room or file descriptors for."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme

from roletalk import lobby
from tests import rawclient as raw
from tests.helpers import eventually, peers, run

from .harness import VictimProcess, until

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def descriptors(limit: int) -> Iterator[None]:
    """As many may be open in processes that begin in here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_more_connections_than_descriptors(loop: str) -> None:
    """Those beyond are closed at once, and the others live on."""
    with descriptors(64):
        crowded = VictimProcess(loop=loop)
    with crowded.watched(), ExitStack() as stack:
        crowd = [
            stack.enter_context(raw.connect(crowded.hello["keyed"], timeout=10)) for _ in range(100)
        ]
        # Of the last ones none can have been let in.
        assert all(each.read_raw() == b"" for each in crowd[-30:])
        drops = crowded.state()["stats"]["keyed"]["drops"]
        assert drops["connections for lack of file descriptors"] >= 30
        for each in crowd:
            each.drop()
        until(lambda: not crowded.state()["stats"]["keyed"]["handshakes"])
    crowded.close()


def own_address() -> str:
    """An address of this machine other than loopback, which the limits for each address spare."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has loopback alone")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("tls", [True, False], ids=["wss", "ws"])
def test_one_address_cannot_take_all_the_room(tls: bool) -> None:
    """Nor by connections that never begin their TLS handshake."""

    async def main() -> None:
        host = own_address()
        async with peers("server", handshake_timeout=600) as (server,):
            listener = await server.listen(host, ssl=server_context() if tls else None)
            with ExitStack() as stack:
                for _ in range(200):
                    stack.enter_context(raw.connect(listener.port, host=host))
                limit = lobby.MAX_STRANGERS_PER_ADDRESS
                await eventually(lambda: sum(server.stats()["drops"].values()) == 200 - limit)
                assert server.stats()["handshakes"] == limit

    # In debug mode the server reports each one that it turns away.
    run(main(), debug=False, may_report="SSL handshake failed")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_the_refused_count_until_they_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is refused, and does not take part in the closing handshake, makes no room for more."""
    monkeypatch.setattr(lobby, "MAX_STRANGERS", 8)

    async def main() -> None:
        async with peers("server", keys={"k": "secret"}, handshake_timeout=600) as (server,):
            listener = await server.listen()
            with ExitStack() as stack:

                def refused() -> raw.Connection:
                    connection = stack.enter_context(raw.dial(listener.port))
                    connection.read_kind(raw.CHALLENGE)
                    connection.send(b"\x07")
                    connection.read_kind(raw.ERROR)
                    return connection

                for _ in range(8):
                    await asyncio.to_thread(refused)
                assert server.stats()["handshakes"] == 0
                late = stack.enter_context(raw.connect(listener.port))
                assert await asyncio.to_thread(late.read_raw) == b""
                await eventually(lambda: not server._lobby._strangers)
            async with peers("client", keys={"k": "secret"}) as (client,):
                assert (await client.connect(listener.url)).connected

    run(main(), debug=False)
