"""What a peer dials and listens on: sockets, unless a test says otherwise.

Whatever stands above transports is the same on every network.  `NETWORK` makes the one that a new
peer is on; `roletalk.testing` sets another there.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiofastnet

from .accepting import REMOTE_HOST, ListeningSocket
from .address import check_unix_sockets

if TYPE_CHECKING:
    import ssl as ssl_module

    from .address import Address
    from .peer import Peer

# s of a TLS handshake, for which asyncio has no way to say that there is no limit: an `Admission` has one.
UNLIMITED: Final = 1e7
ACCEPTS_PER_TURN: Final = 64  # connections taken in before the loop gets its turn


class Serving(Protocol):
    """What is listened on; it takes connections until `close`."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each; empty for a path."""

    def close(self) -> None: ...


class Network(Protocol):
    """Makes the transports of one peer."""

    async def connect(
        self,
        address: Address,
        protocol: asyncio.BaseProtocol,
        *,
        ssl: ssl_module.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        """Give `protocol` a transport to `address`.  Raises `OSError`."""

    async def listen(
        self,
        protocol: Callable[[str | None], asyncio.BaseProtocol],
        *,
        host: str | None,
        port: int,
        path: str | None,
        ssl: ssl_module.SSLContext | None,
        backlog: int,
    ) -> Serving:
        """Call `protocol` with the host of each connection that comes, None where it is not known.

        `path` goes before host and port.  When `protocol` raises `OSError` the connection is
        dropped.  Raises `OSError`.
        """


class SocketNetwork:
    """TCP, TLS and Unix sockets."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def connect(
        self,
        address: Address,
        protocol: asyncio.BaseProtocol,
        *,
        ssl: ssl_module.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        loop = self._peer.loop
        if address.path is not None:
            check_unix_sockets()
            await aiofastnet.create_unix_connection(loop, lambda: protocol, address.path)
            return
        options: dict[str, Any] = {}
        if ssl is not None:
            options = {
                "ssl": ssl,
                "server_hostname": server_hostname or address.host,
                "ssl_handshake_timeout": UNLIMITED,
            }
        await aiofastnet.create_connection(
            loop, lambda: protocol, address.host, address.port, **options
        )

    async def listen(
        self,
        protocol: Callable[[str | None], asyncio.BaseProtocol],
        *,
        host: str | None,
        port: int,
        path: str | None,
        ssl: ssl_module.SSLContext | None,
        backlog: int,
    ) -> Serving:
        loop = self._peer.loop

        def accepted() -> asyncio.BaseProtocol:
            return protocol(REMOTE_HOST.get())

        # aiofastnet takes in as many at a time as its backlog has; the system's is set below.
        few = min(backlog, ACCEPTS_PER_TURN)
        options: dict[str, Any] = {}
        if ssl is not None:
            limit = self._peer.handshake_timeout
            options = {"ssl": ssl, "ssl_handshake_timeout": UNLIMITED if limit is None else limit}
        if path is not None:
            check_unix_sockets()
            if not path or "\0" in os.fsdecode(path):
                raise ValueError(f"path= is that of a file, not {path!r}")
            bound = await aiofastnet.create_unix_server(
                loop, accepted, path, start_serving=False, cleanup_socket=False
            )
        else:
            bound = await aiofastnet.create_server(loop, accepted, host, port, start_serving=False)
        sockets: _Sockets | None = None
        try:
            sockets = _Sockets(path)
            for sock in bound.sockets:
                own = ListeningSocket(sock, self._turned_away)
                try:
                    server = await aiofastnet.create_server(
                        loop, accepted, sock=own, backlog=few, start_serving=False, **options
                    )
                except BaseException:
                    own.close()
                    raise
                # Known before it serves: a socket that the loop watches is closed by its server only.
                sockets.servers.append(server)
                await server.start_serving()
                own.listen(backlog)
        except BaseException:
            if sockets is not None:
                sockets.close()
            raise
        finally:
            bound.close()
        return sockets

    def _turned_away(self) -> None:
        self._peer.count_drop("connections for lack of file descriptors")


class _Sockets:
    """The listening sockets of one `listen`."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._inode = _inode(path)
        self.servers: list[Any] = []

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        return tuple(
            sock.getsockname()[:2]
            for server in self.servers
            for sock in server.sockets
            if sock.family in (socket.AF_INET, socket.AF_INET6)
        )

    def close(self) -> None:
        for server in self.servers:
            server.close()
        if self._path is not None:
            # Only our own socket is removed, not that of one who took the path over.
            with suppress(OSError):
                if _inode(self._path) == self._inode:
                    os.unlink(self._path)


def _inode(path: str | None) -> tuple[int, int] | None:
    if path is None:
        return None
    found = os.stat(path)
    return found.st_dev, found.st_ino


NETWORK: Final[ContextVar[Callable[[Peer], Network]]] = ContextVar(
    "roletalk network", default=SocketNetwork
)
"""Makes the network that a new peer is on."""
