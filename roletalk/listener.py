"""Listening for connections."""

from __future__ import annotations

import errno
import os
import socket
import ssl as ssl_module
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from .gate import Admission, Gate

if TYPE_CHECKING:
    from types import TracebackType

    from .network import Serving
    from .peer import Peer


PATH_BYTES: Final = 107 if sys.platform == "linux" else 103  # of a Unix socket


class Listener:
    """What a peer listens on, made by `Peer.listen`. An async context manager."""

    def __init__(self, peer: Peer, ssl: ssl_module.SSLContext | None, path: str | None) -> None:
        self._peer = peer
        self._ssl = ssl
        self._serving: Serving | None = None
        self.path: str | None = path
        self.certificate: bytes | None = None if ssl is None else server_certificate(ssl)

    async def _start(self, host: str | None, port: int, backlog: int) -> None:
        listen = self._peer._network.listen
        try:
            self._serving = await listen(
                self._protocol, host=host, port=port, path=self.path, ssl=self._ssl, backlog=backlog
            )
        except OSError as error:
            where = f"path {self.path!r}" if self.path is not None else f"{host}:{port}"
            why = error.strerror or str(error)
            text = f"cannot listen on {where}: {why}{_listen_hint(error, self.path)}"
            raise type(error)(error.errno or errno.EINVAL, text) from error

    def _protocol(self, host: str | None) -> Gate:
        if not self._peer._lobby.has_room(host):
            self._peer.count_drop("connections beyond those that may be without authentication")
            # The server closes the socket, and says nothing of it outside asyncio's debug mode.
            raise ConnectionRefusedError("too many strangers, or too fast")
        return Admission(self._peer, listener=self, host=host).gate

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each listening socket; empty for a Unix socket."""
        return () if self._serving is None else self._serving.addresses

    @property
    def port(self) -> int:
        """The port of the (first) listening socket; 0 for a Unix socket or a closed listener."""
        return self.addresses[0][1] if self.addresses else 0

    @property
    def url(self) -> str:
        """What a peer on this machine may dial: ``ws://``, ``wss://`` or ``ws+unix://``."""
        if self.path is not None:
            return f"ws+unix://{quote(os.fsencode(os.path.abspath(self.path)))}"
        if not self.addresses:
            return ""
        host, port = self.addresses[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"{'wss' if self._ssl else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Stop listening; connections that were accepted live on. May be called twice."""
        serving, self._serving = self._serving, None
        if serving is not None:
            self._peer._listeners.discard(self)
            serving.close()

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


def _listen_hint(error: OSError, path: str | None) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            " (another listener has it; port=0 takes a free port)"
            if path is None
            else " (another listener has it)"
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return " (host= is an address of this machine; '0.0.0.0' or '::' for all of them)"
    if error.errno == errno.EACCES and path is None:
        return " (ports below 1024 are for the superuser)"
    size = 0 if path is None else len(os.fsencode(path))
    if size > PATH_BYTES:
        return f" ({size} bytes; at most {PATH_BYTES} are possible: choose a shorter one)"
    return ""


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
