"""The network that the peers of a mesh are on."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from roletalk import Peer
from roletalk.address import Address

from ._faults import Faults, Place
from ._transport import MemoryTransport, Wire

if TYPE_CHECKING:
    import ssl as ssl_module

LOCALHOST: Final = "localhost"
LOCALHOST_ELSEWHERE: Final = "localhost.test"  # what other hosts call it: theirs is another one
FIRST_PORT: Final = 32768  # of those that are given out for port 0 and to who dials
LAST_PORT: Final = 65535
LOOPBACK: Final = "127.0.0.1"

Name = tuple[str, int] | str
"""Of what is listened on: host and port, or a path."""


@dataclass(eq=False)
class Listening:
    """One name that a peer takes connections at; it knows who listens, and how to make protocols."""

    hub: Hub
    place: Place
    name: Name
    secure: bool
    protocol: Callable[[str | None], asyncio.BaseProtocol]
    context: Context

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        return () if isinstance(self.name, str) else (_numbered(self.name),)

    def close(self) -> None:
        self.hub.listening.pop(self.name, None)


@dataclass(eq=False)
class Link:
    """A connection: the wire from who dialled and the one to them, and their places."""

    source: Place
    target: Place
    wires: tuple[Wire, Wire]

    @property
    def ends(self) -> tuple[MemoryTransport, MemoryTransport]:
        return self.wires[0].sender, self.wires[1].sender


class Hub:
    """All names and connections of a mesh."""

    def __init__(self, capacity: int, faults: Faults) -> None:
        self._capacity = capacity
        self._faults = faults
        self._ports = cycle(range(FIRST_PORT, LAST_PORT + 1))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_bound: Callable[[], None] = lambda: None
        self.listening: dict[Name, Listening] = {}
        self.links: set[Link] = set()
        self._changed = asyncio.Event()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The one that its connections belong to; None before the first of them."""
        return self._loop

    def bind(self) -> asyncio.AbstractEventLoop:
        """The running loop.  Raises `RuntimeError` on another one than before."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this mesh is used on another event loop: make one for each loop")
        if self._loop is None:
            self._loop = loop
            self.on_bound()
        return loop

    def new_port(self) -> int:
        """One that nobody listens on; they come round again, as a system's do."""
        taken = {name[1] for name in self.listening if not isinstance(name, str)}
        return next(port for port in self._ports if port not in taken)

    def wake(self) -> None:
        """What was blocked may be so no more."""
        for link in tuple(self.links):
            for wire in link.wires:
                wire.wake()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- what networks do

    def listen(
        self,
        place: Place,
        name: Name,
        secure: bool,
        protocol: Callable[[str | None], asyncio.BaseProtocol],
    ) -> Listening:
        self.bind()
        name = _canonical(name)
        if name in self.listening:
            raise OSError(errno.EADDRINUSE, f"{shown(name)} is listened on already")
        listening = Listening(self, place, name, secure, protocol, copy_context())
        self.listening[name] = listening
        return listening

    async def connect(
        self, place: Place, name: Name, secure: bool, protocol: asyncio.BaseProtocol
    ) -> None:
        loop = self.bind()
        name = _canonical(name)
        listening = self.listening.get(name)
        if listening is not None:
            await self._round_trip(place, listening.place)
            listening = self.listening.get(name)
        if listening is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {shown(name)}")
        if secure != listening.secure:
            raise ConnectionResetError(errno.ECONNRESET, "one end speaks TLS, the other does not")
        there = listening.place
        out, back = self._wire(loop, place, there), self._wire(loop, there, place)
        link = Link(place, there, (out, back))
        names = self._end_names(place, name)

        def lost() -> None:
            if all(end.is_lost for end in link.ends):
                self.links.discard(link)

        def made(
            protocol: asyncio.BaseProtocol, context: Context, out: Wire, back: Wire, extra: Any
        ) -> MemoryTransport:
            return MemoryTransport(loop, protocol, context, out, back, extra, lost)

        # Made together: a wire has two ends.  Nobody has been told of them yet.
        dialled = made(protocol, copy_context(), out, back, names)
        turned = {"sockname": names["peername"], "peername": names["sockname"]}
        accepted = made(asyncio.Protocol(), listening.context, back, out, turned)
        self.links.add(link)

        def accept() -> None:
            host = names["sockname"]
            try:
                accepted.set_protocol(listening.protocol(host[0] if host else ""))
            except OSError:
                accepted.abort()
            else:
                accepted.start()

        loop.call_soon(accept, context=listening.context)
        dialled.start()

    async def _round_trip(self, source: Place, target: Place) -> None:
        """What it takes until a connection is there: for ever, while the way is blocked."""
        faults = self._faults
        while faults.is_blocked(source, target) or faults.is_blocked(target, source):
            await self._changed.wait()
        delay = faults.delay(source, target) + faults.delay(target, source)
        if delay:
            await asyncio.sleep(delay)

    def _wire(self, loop: asyncio.AbstractEventLoop, source: Place, target: Place) -> Wire:
        faults = self._faults
        return Wire(
            loop,
            self._capacity,
            lambda: faults.delay(source, target),
            lambda: faults.is_blocked(source, target),
        )

    def _end_names(self, place: Place, name: Name) -> dict[str, Any]:
        if isinstance(name, str):
            return {"sockname": "", "peername": name}
        return {"sockname": _numbered((place.host, self.new_port())), "peername": _numbered(name)}


class MemoryNetwork:
    """What one peer of a mesh dials and listens on (see `roletalk.network.Network`)."""

    def __init__(self, hub: Hub, peer: Peer, host: str) -> None:
        self._hub = hub
        self.place = Place(peer, host)

    async def connect(
        self,
        address: Address,
        protocol: asyncio.BaseProtocol,
        *,
        ssl: ssl_module.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        name: Name = address.path or (self._host(address.host), address.port)
        await self._hub.connect(self.place, name, address.secure, protocol)

    async def listen(
        self,
        protocol: Callable[[str | None], asyncio.BaseProtocol],
        *,
        host: str | None,
        port: int,
        path: str | None,
        ssl: ssl_module.SSLContext | None,
        backlog: int,
    ) -> Listening:
        name: Name = path or (self._host(host or ""), port or self._hub.new_port())
        return self._hub.listen(self.place, name, ssl is not None, protocol)

    def _host(self, host: str) -> str:
        """Whose that name is: loopback and wildcard addresses are one's own."""
        host = host.lower().rstrip(".")
        if host in ("", LOCALHOST, "::", "::1", "0.0.0.0") or host.startswith("127."):
            return self.place.host
        return LOCALHOST if host == LOCALHOST_ELSEWHERE else host


def _canonical(name: Name) -> Name:
    return os.path.abspath(name) if isinstance(name, str) else name


def shown(name: Name) -> str:
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def _numbered(name: tuple[str, int]) -> tuple[str, int]:
    host, port = name
    return (LOOPBACK if host == LOCALHOST else host), port
