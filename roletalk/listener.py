"""Listening sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import aiofastnet

from .accepting import REMOTE_HOST, ListeningSocket
from .address import check_unix_sockets
from .gate import Admission, Gate

if TYPE_CHECKING:
    from types import TracebackType

    from .peer import Peer


ACCEPTS_PER_TURN: Final = 64  # connections taken in before the loop gets its turn


class Listener:
    """A listening socket of a peer, made by `Peer.listen`. An async context manager."""

    def __init__(self, peer: Peer, ssl: ssl_module.SSLContext | None, path: str | None) -> None:
        self._peer = peer
        self._ssl = ssl
        self._servers: list[Any] = []
        self._inode: tuple[int, int] | None = None
        self.path = path
        self.certificate = None if ssl is None else server_certificate(ssl)

    async def _start(self, host: str | None, port: int, backlog: int) -> None:
        loop = asyncio.get_running_loop()
        # aiofastnet takes in as many at a time as its backlog has; the system's is set below.
        few = min(backlog, ACCEPTS_PER_TURN)
        tls: dict[str, Any] = {}
        if self._ssl is not None:
            tls = {"ssl": self._ssl, "ssl_handshake_timeout": self._peer.handshake_timeout}
        if self.path is not None:
            check_unix_sockets()
            bound = await aiofastnet.create_unix_server(
                loop, self._protocol, self.path, start_serving=False, cleanup_socket=False
            )
            found = os.stat(self.path)
            self._inode = (found.st_dev, found.st_ino)
        else:
            bound = await aiofastnet.create_server(
                loop, self._protocol, host, port, start_serving=False
            )
        try:
            for sock in bound.sockets:
                own = ListeningSocket(sock, self._turned_away)
                try:
                    server = await aiofastnet.create_server(
                        loop, self._protocol, sock=own, backlog=few, **tls
                    )
                except BaseException:
                    own.close()
                    raise
                own.listen(backlog)
                self._servers.append(server)
        except BaseException:
            self._stop()
            raise
        finally:
            bound.close()

    def _turned_away(self) -> None:
        self._peer.count_drop("connections for lack of file descriptors")

    def _protocol(self) -> Gate:
        host = REMOTE_HOST.get()
        if not self._peer._lobby.has_room(host):
            self._peer.count_drop("connections beyond those that may be without authentication")
            # The server closes the socket, and says nothing of it outside asyncio's debug mode.
            raise ConnectionRefusedError("too many strangers, or too fast")
        return Admission(self._peer, listener=self, host=host).gate

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each listening socket; empty for a Unix socket."""
        if self.path is not None:
            return ()
        return tuple(
            sock.getsockname()[:2]
            for server in self._servers
            for sock in server.sockets
            if sock.family in (socket.AF_INET, socket.AF_INET6)
        )

    @property
    def port(self) -> int:
        """The port of the (first) listening socket; 0 for a Unix socket or a closed listener."""
        return self.addresses[0][1] if self.addresses else 0

    @property
    def url(self) -> str:
        """What a peer on this machine may dial: ``ws://``, ``wss://`` or ``ws+unix://``."""
        if self.path is not None:
            return f"ws+unix://{os.path.abspath(self.path)}"
        if not self.addresses:
            return ""
        host, port = self.addresses[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"{'wss' if self._ssl else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Stop listening; connections that were accepted live on. May be called twice."""
        if not self._servers:
            return
        self._peer._listeners.discard(self)
        self._stop()

    def _stop(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        if self.path is not None:
            # Only our own socket is removed, not that of one who took the path over.
            with suppress(OSError):
                found = os.stat(self.path)
                if (found.st_dev, found.st_ino) == self._inode:
                    os.unlink(self.path)

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Listener {self.url or 'closed'}>"


def server_certificate(context: ssl_module.SSLContext) -> bytes | None:
    """The DER of the certificate that `context` presents to a client that names no server.

    The ssl module has no way to ask a context for it, so a TLS handshake is played in memory.  None
    when the context has no certificate.
    """
    to_server, to_client = ssl_module.MemoryBIO(), ssl_module.MemoryBIO()
    client_context = ssl_module.SSLContext(ssl_module.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl_module.CERT_NONE
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    flights = b""
    for _ in range(4):
        with suppress(ssl_module.SSLError):
            client.do_handshake()
        with suppress(ValueError):
            return client.getpeercert(True)
        with suppress(ssl_module.SSLError):
            server.do_handshake()
        flight = to_client.read()
        flights += flight
        to_client.write(flight)
    # A TLS 1.2 server that wants a client's certificate never gets there, but says its own in the clear.
    return _certificate_in(flights)


def _certificate_in(records: bytes) -> bytes | None:
    """The first certificate of a Certificate message (RFC 5246, 7.4.2) in TLS records."""
    messages = b""
    while len(records) >= 5:
        size = int.from_bytes(records[3:5], "big")
        if records[0] == 22:  # handshake
            messages += records[5 : 5 + size]
        records = records[5 + size :]
    while len(messages) >= 4:
        size = int.from_bytes(messages[1:4], "big")
        if messages[0] == 11:  # certificate: its list's size, the first one's size, that one
            first = int.from_bytes(messages[7:10], "big")
            return messages[10 : 10 + first] or None
        messages = messages[4 + size :]
    return None
