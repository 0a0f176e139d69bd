"""The peer: the local node."""

from __future__ import annotations

import asyncio
import logging
import platform
import ssl as ssl_module
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MappingProxyType, TracebackType
from typing import Any, Final, TypeVar

from ._inbound import FrameLimits
from ._peer import PeerCore, clock
from ._text import quoted
from .acquaintance import Acquaintances
from .address import Address
from .announcer import Announcer
from .callbacks import Callbacks, Opening, check_seconds, within
from .destination import Destination
from .dialer import Dialer
from .errors import ConnectError, RoletalkError
from .gate import Admission
from .heartbeat import Heartbeat
from .keys import KeyRing
from .listener import Listener
from .lobby import Lobby
from .middleware import Middleware, TakesMiddleware
from .network import NETWORK, Network
from .remote_log import RemoteLog
from .role import Role
from .room import Room
from .shutdown import Shutdown
from .signals import asked
from .stats import Stats
from .unit import Unit
from .units import Units

__all__ = ["Peer"]

UnitCallback = TypeVar("UnitCallback", bound=Callable[[Unit], object])
RoleCallback = TypeVar("RoleCallback", bound=Callable[[Role], object])

PROTOCOL_VERSION: Final = "2.0.0"
MAX_TAGS: Final = 256


class Peer(PeerCore, TakesMiddleware):
    """The local node: it serves roles, and talks to units through destinations.

    A peer belongs to the event loop in which it is first used; a call from another thread, loop or
    process raises `RuntimeError`.  An async context manager: leaving it closes it.

    Who it is:

    - `name`: told to the units, at most 1,024 characters; need not be unique.
    - `friendly`: whether to dial peers that others introduce.
    - `tags`: told to units of this implementation.

    Seconds, ``None`` for no limit:

    - `request_timeout`: of requests that name none.
    - `heartbeat_interval`: of silence until a ping.
    - `heartbeat_timeout`: until its answer, after which the connection is given up.
    - `handshake_timeout`: of a connection from its start to the end of the handshake.
    - `slow_handler`: that a handler may hold the event loop before a warning names it.

    Bytes:

    - `max_message_size`: of a message, either way; 1 KiB to 1 GiB.
    - `high_water`: unsent on a connection, above which sending waits.
    - `low_water`: unsent on a connection, below which it is not busy.
    - `max_handler_bytes`: of payload that the async handlers running for one unit keep, beyond which
      its requests are rejected.
    - `stream_window`: of one stream, unread or on their way; 16 KiB to 1 GiB.
    - `stream_buffer`: the same of all streams of a unit together, beyond 16 KiB each.
    - `max_received_bytes`: over all units, what is kept of messages that are not whole and of payload
      for running async handlers, and likewise the windows of all streams.

    Counts:

    - `max_units`: connected at once.
    - `max_pending`: requests pending on one unit.
    - `max_handlers`: async handlers running for one unit.
    - `max_streams`: open with one unit.
    - `max_log_lines`: in a minute, about one remote peer.
    - `max_log_lines_in_all`: in a minute, about all of them.

    What others may cause:

    - `expose_errors`: reject with the exception's type and text where a handler fails, in place of
      ``internal error``.
    - `acquaint_filter`: ``(unit, url) -> bool``, whether to dial an address that a unit introduced; by
      default only hosts in the unit's own private or loopback range, or its own host.

    docs/limits.md tells what happens beyond each limit.  Raises `ValueError` for values out of range,
    and `TypeError` for those that are no numbers.
    """

    def __init__(
        self,
        *,
        name: str = "",
        friendly: bool = True,
        tags: Mapping[str, str] | None = None,
        request_timeout: float | None = 60.0,
        heartbeat_interval: float | None = 10.0,
        heartbeat_timeout: float | None = 5.0,
        handshake_timeout: float | None = 5.0,
        max_message_size: int = 16 * 1024 * 1024,
        expose_errors: bool = False,
        acquaint_filter: Callable[[Unit, str], bool] | None = None,
        high_water: int = 1024 * 1024,
        low_water: int = 256 * 1024,
        max_units: int = 16_384,
        max_pending: int = 65_536,
        max_handlers: int = 16_384,
        max_handler_bytes: int = 64 * 1024 * 1024,
        slow_handler: float | None = 0.5,
        max_streams: int = 4096,
        stream_window: int = 4 * 1024 * 1024,
        stream_buffer: int = 64 * 1024 * 1024,
        max_received_bytes: int = 128 * 1024 * 1024,
        max_log_lines: int = 100,
        max_log_lines_in_all: int = 1000,
    ) -> None:
        _check_counts(
            max_message_size=max_message_size,
            high_water=high_water,
            low_water=low_water,
            max_units=max_units,
            max_pending=max_pending,
            max_handlers=max_handlers,
            max_handler_bytes=max_handler_bytes,
            max_streams=max_streams,
            stream_window=stream_window,
            stream_buffer=stream_buffer,
            max_received_bytes=max_received_bytes,
            max_log_lines=max_log_lines,
            max_log_lines_in_all=max_log_lines_in_all,
        )
        if not 0 < low_water <= high_water:
            raise ValueError(
                f"0 < low_water <= high_water does not hold: {low_water=}, {high_water=}"
            )
        if not 1024 <= max_message_size <= 1 << 30:
            raise ValueError(f"max_message_size is between 1 KiB and 1 GiB, not {max_message_size}")
        if not 16 * 1024 <= stream_window <= 1 << 30:
            raise ValueError(f"stream_window is between 16 KiB and 1 GiB, not {stream_window}")
        check_seconds("request_timeout", request_timeout)
        check_seconds("heartbeat_interval", heartbeat_interval)
        check_seconds("heartbeat_timeout", heartbeat_timeout)
        check_seconds("handshake_timeout", handshake_timeout)
        check_seconds("slow_handler", slow_handler)
        if not isinstance(name, str) or len(name) > 1024:
            raise ValueError("name is a str of at most 1024 characters")
        _check_told("name", name)
        super().__init__(
            FrameLimits(
                max_message_size=max_message_size, high_water=high_water, low_water=low_water
            ),
            request_timeout=request_timeout,
            expose_errors=expose_errors,
            max_handlers=max_handlers,
            max_handler_bytes=max_handler_bytes,
            max_pending=max_pending,
            slow_handler=float("inf") if slow_handler is None else slow_handler,
            max_streams=max_streams,
            stream_window=stream_window,
            stream_buffer=stream_buffer,
            max_received_bytes=max_received_bytes,
            remote_log=RemoteLog(max_log_lines, max_log_lines_in_all, clock=clock),
        )
        self.id: Final[str] = uuid.uuid4().hex
        self.name: Final[str] = name
        self.friendly: Final[bool] = friendly
        self.handshake_timeout: float | None = handshake_timeout
        self._tags: dict[str, str] = {}
        for tag, value in (tags or {}).items():
            self.set_tag(tag, value)
        self._keys = KeyRing()
        self._roles: dict[str, Role] = {}
        self._destinations: dict[str, Destination] = {}
        self._units = Units(self, max_units)
        self._network: Network = NETWORK.get()(self)
        self._listeners: set[Listener] = set()
        self._dialers: set[Dialer] = set()
        self._middlewares: list[Middleware] = []
        self._callback_tasks: set[asyncio.Task[Any]] = set()
        self._early_callbacks: list[Callable[[], None]] = []  # async ones, until a loop runs
        self._role_callbacks: Callbacks[Role] = Callbacks(self, "Peer.on_role", "role")
        self._acquaintances = Acquaintances(self, acquaint_filter)
        self._lobby = Lobby(clock)
        self._room = Room(self)
        self._announcer = Announcer(self)
        self._started = time.monotonic()
        self._handshake_failures = 0
        self._heartbeat = Heartbeat(self, heartbeat_interval, heartbeat_timeout)
        self._shutdown = Shutdown(self)

    # -- identity

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags, read-only; `set_tag` changes them."""
        return MappingProxyType(self._tags)

    def set_tag(self, tag: str, value: str | None) -> None:
        """Set a tag, or remove it with ``None``; units that connect from now on are told."""
        self.check_thread()
        if not isinstance(tag, str) or not isinstance(value, (str, type(None))):
            raise TypeError("a tag and its value are str")
        _check_told("a tag and its value", tag, value or "")
        if value is None:
            self._tags.pop(tag, None)
        elif tag not in self._tags and len(self._tags) >= MAX_TAGS:
            raise ValueError(f"a peer has at most {MAX_TAGS} tags")
        else:
            self._tags[tag] = value

    def add_key(self, id: str, key: str, *, legacy: bool = True) -> None:
        """Add a preshared key, or replace the one of that id; connections that are open stay.

        A peer with keys connects only to peers that prove one of them; one without accepts anybody.
        With ``legacy=False`` the key admits only peers that prove it as docs/protocol.md, section 9
        says, which the Go and Node.js peers cannot.  Raises `ValueError` for an empty id or key, or
        beyond 64 keys.
        """
        self.check_thread()
        self._keys.add(id, key, legacy=legacy)

    def remove_key(self, id: str) -> None:
        """Remove a preshared key; connections that are open stay. Raises `KeyError` if there is none."""
        self.check_thread()
        self._keys.remove(id)

    def bind(self) -> None:
        """Bind the peer to the running loop, or raise `RuntimeError` when it is bound elsewhere."""
        super().bind()
        while self._early_callbacks:
            self._early_callbacks.pop(0)()

    # -- what there is

    @property
    def closing(self) -> bool:
        """Whether `drain` or `close` was called."""
        return self._shutdown.begun

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of this peer, active or not, in the order in which they were made."""
        return tuple(self._roles.values())

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """The destinations that were asked for, in the order in which they were made."""
        return tuple(self._destinations.values())

    @property
    def units(self) -> tuple[Unit, ...]:
        """The connected units, in the order in which they came."""
        return tuple(self._units)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners that are not closed."""
        return tuple(self._listeners)

    def role(self, name: str, *, active: bool = True) -> Role:
        """The role of that name, made at the first call; `active` counts only then.

        Raises `TypeError` and `ValueError` for what cannot be a role's name.
        """
        self.check_thread()
        role = self._roles.get(name)
        if role is None:
            role = self._roles[name] = Role(self, name, active=active)
            if active:
                self._announcer.changed()
            self._role_callbacks(role)
        return role

    def destination(self, name: str) -> Destination:
        """The destination of that name, made at the first call.

        Raises `TypeError` and `ValueError` for what cannot be a role's name.
        """
        self.check_thread()
        destination = self._destinations.get(name)
        if destination is None:
            destination = self._destinations[name] = Destination(self, name)
            for unit in self._units:
                if name in unit.roles:
                    destination._add(unit)
        return destination

    def unit(self, id: str) -> Unit | None:
        """The connected unit of that id, or None."""
        return self._units.get(id)

    def on_unit(self, function: UnitCallback) -> UnitCallback:
        """Decorate a callback, called with each unit that comes."""
        return self._units.callbacks.add(function)

    def on_role(self, function: RoleCallback) -> RoleCallback:
        """Decorate a callback, called with each role that is made on this peer."""
        return self._role_callbacks.add(function)

    def _add_middleware(self, middleware: Middleware) -> None:
        self.check_thread()
        self._middlewares.append(middleware)
        for role in self._roles.values():
            role._wrap_handlers()

    def stats(self) -> Stats:
        """Counters since the peer was made, and what there is now; a new dict of plain values.

        ``bytes_sent`` counts frames, ``bytes_received`` the messages in them.  ``loop_lag`` and
        ``loop_lag_max`` are in seconds.  ``drops`` counts by reason what could not be
        delivered; ``late_replies`` are answers to requests that nobody waited for any more,
        ``late_stream_frames`` those of streams that were over.  ``received_bytes_kept`` is what
        `max_received_bytes` bounds, ``log_lines_left_out`` what `max_log_lines` held back.
        """
        counted = self.counted()
        links = [link for unit in self._units for link in unit.connections]
        counted["bytes_sent"] += sum(link.bytes_sent for link in links)
        counted["bytes_received"] += sum(link.bytes_received for link in links)
        return {
            **counted,
            "drops": dict(self.drops),
            "reconnects": self._units.reconnects,
            "handshake_failures": self._handshake_failures,
            "loop_lag": self._heartbeat.lag,
            "loop_lag_max": self._heartbeat.max_lag,
            "units": len(self._units),
            "connections": len(links),
            "unsent_bytes": sum(link.unsent_bytes for link in links),
            "pending_requests": sum(unit.calls.used for unit in self._units),
            "running_handlers": len(self._units.running_handlers()),
            "streams": sum(unit.streams.open for unit in self._units),
            "handshakes": len(self._lobby),
            "received_bytes_kept": self.account.kept,
            "log_lines_left_out": self.remote_log.left_out,
        }

    # -- connecting

    def listen(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        backlog: int = 1024,
    ) -> Opening[Listener]:
        """Listen on a TCP port (0: a free one), or on the Unix socket `path`; await or enter it.

        With `ssl` a server-side context, for ``wss://``; its certificate at this time is what rt2
        proofs are bound to (docs/protocol.md, section 9).  Raises `OSError` when the address cannot
        be had.
        """

        async def listen() -> Listener:
            _check_context(ssl)
            self.bind()
            self._refuse_when_closing("cannot listen")
            listener = Listener(self, ssl, path)
            await listener._start(host, port, backlog)
            if self.closing:
                await listener.close()
            self._refuse_when_closing("cannot listen")
            self._listeners.add(listener)
            self._heartbeat.start()
            return listener

        return Opening(listen(), "Peer.listen")

    def connect(
        self,
        url: str,
        *,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        reconnect: bool = True,
        retry: bool = False,
        timeout: float | None = None,
    ) -> Opening[Unit]:
        """Connect to a peer that listens at `url`; await or enter it for the `Unit`.

        ``ws://host:port``, ``wss://host:port`` (`ssl`: a client-side context, by default one that trusts
        the system's authorities) or ``ws+unix:///path``.  A lost connection is made again until the unit
        is closed here, unless ``reconnect=False``: within a second while nobody answers there, more and
        more seldom, up to each 60 s, where somebody does who fails or refuses.  With ``retry=True`` the
        first one is tried again as well, until `timeout` seconds are over.

        Raises `ConnectError`, `AuthError`, `ProtocolError`, `ValueError` for a bad URL.  Leaving
        ``async with`` closes the unit.
        """
        made: list[Dialer] = []

        async def connect() -> Unit:
            _check_context(ssl)
            if not isinstance(server_hostname, (str, type(None))):
                raise TypeError(f"server_hostname= is a str, not {type(server_hostname).__name__}")
            check_seconds("timeout=", timeout)
            self.bind()
            self._refuse_when_closing(f"cannot connect to {url!r}")
            address = Address.parse(url)
            if (ssl is not None or server_hostname is not None) and not address.secure:
                meant = "wss" + url[2:] if url[:5].lower() == "ws://" else "a wss:// URL"
                raise ValueError(
                    f"ssl= and server_hostname= are for TLS, and {url!r} is plain: use {meant}"
                )
            self._heartbeat.start()
            dialer = Dialer(
                self,
                address,
                ssl=ssl,
                server_hostname=server_hostname,
                reconnect=reconnect,
                retry=retry,
            )
            made.append(dialer)
            try:
                return await within(asyncio.shield(dialer.first), timeout)
            except TimeoutError:
                dialer.give_up()
                last = f"; the last try: {dialer.failure}" if dialer.failure else ""
                raise ConnectError(
                    f"no connection to {url} within {timeout:g} s{last}",
                    hint="connect(timeout=...) allows more",
                ) from None
            except BaseException:
                # The connection may have been made in the meantime.
                dialer.give_up()
                raise

        async def close(unit: Unit) -> None:
            for dialer in made:
                current = dialer.unit
                dialer.stop()
                if current is not None and current is not unit:
                    await current.close()
            if unit.connected:
                await unit.close()

        return Opening(connect(), "Peer.connect", close)

    def _refuse_when_closing(self, what: str) -> None:
        if self.closing:
            raise RuntimeError(
                f"{what}: peer {quoted(self.name)} is closed or closing; make a new Peer to go on"
            )

    def _refuse_when_closed(self, what: str) -> None:
        if self._shutdown.done.is_set():
            raise RuntimeError(
                f"{what}: peer {quoted(self.name)} is closed; make a new Peer to go on"
            )

    # -- handshakes

    def _admission_failed(self, admission: Admission, error: RoletalkError) -> None:
        self._handshake_failures += 1
        if admission.dialer is None:
            self.remote_log.log(
                logging.INFO, admission.whom, "a connection was turned away: %s", error
            )

    # -- what is told of this peer

    def _describe(self) -> dict[str, Any]:
        """The peer data of docs/protocol.md, section 4."""
        return {
            "id": self.id,
            "name": self.name,
            "roles": self.active_roles(),
            "friendly": self.friendly,
            "meta": {
                "os": sys.platform,
                "runtime": f"python {platform.python_version()}",
                "time": int(time.time() * 1000),
                "uptime": int((time.monotonic() - self._started) * 1000),
                "protocol": PROTOCOL_VERSION,
            },
            "tags": self._tags,
        }

    def serves(self, role: str) -> bool:
        """Whether this peer has that role and it is active."""
        found = self._roles.get(role)
        return found is not None and found.active

    def active_roles(self) -> list[str]:
        """The names that the units are told of."""
        return [] if self.closing else [role.name for role in self._roles.values() if role.active]

    # -- the end

    async def serve_forever(
        self, *, handle_sigterm: bool = True, timeout: float | None = 5.0
    ) -> None:
        """Run until the peer is closed; closes it when cancelled, and when the process gets SIGTERM.

        On SIGTERM it drains and closes, in `timeout` seconds and a little more, and returns, so that the
        program goes on to its end; a second SIGTERM ends the process at once.  The signal is left alone with
        ``handle_sigterm=False``, where the program handles it itself, and outside of the main thread.
        """
        self.bind()
        asked_to_end = asyncio.Event()
        with asked.telling(asked_to_end.set) if handle_sigterm else nullcontext():
            ends = (
                self.loop.create_task(self._shutdown.done.wait()),
                self.loop.create_task(asked_to_end.wait()),
            )
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not self._shutdown.done.is_set():
                    deadline = None if timeout is None else clock() + timeout
                    await self.drain(timeout)
                    await self.close(None if deadline is None else max(deadline - clock(), 0.0))
            except asyncio.CancelledError:
                await self.close()
                raise
            finally:
                for end in ends:
                    end.cancel()

    async def wait_closed(self) -> None:
        """Wait until `close` is done."""
        self.bind()
        await self._shutdown.done.wait()

    async def drain(self, timeout: float | None = 5.0) -> None:
        """Stop listening and reconnecting, withdraw the roles, let running handlers finish and their
        replies leave.  Connections stay; what runs after `timeout` seconds is cancelled.

        May be called twice, and before `close`.
        """
        check_seconds("timeout=", timeout)
        self.bind()
        await self._shutdown.drain(timeout)

    async def close(self, timeout: float | None = 5.0) -> None:
        """Drain, fail our own pending requests with `UnitClosedError`, close all connections (4000).

        Handlers that serve streams get half a second: `drain` first to let long ones end.  Our own
        streams fail with `StreamError`.  All of it within `timeout` seconds; what is left then is
        cancelled and dropped.  May be called twice: the second call waits for the first.
        """
        check_seconds("timeout=", timeout)
        if self.loop is None:
            self._shutdown.nothing_to_close()
            return
        self.bind()
        await self._shutdown.close(timeout)

    async def __aenter__(self) -> Peer:
        self.bind()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closing" if self.closing else f"units={len(self._units)}"
        return f"<Peer {self.name!r} id={self.id!r} {state}>"


def _check_context(ssl: object) -> None:
    if not isinstance(ssl, (ssl_module.SSLContext, type(None))):
        kind = type(ssl).__name__
        raise TypeError(
            f"ssl= is an ssl.SSLContext, not {kind}: ssl.create_default_context() makes one"
        )


def _check_counts(**counts: object) -> None:
    for what, count in counts.items():
        if not isinstance(count, int):
            raise TypeError(f"{what} is an int, not {type(count).__name__}")
        if not 0 <= count <= sys.maxsize:
            raise ValueError(f"{what} is 0 or more, at most {sys.maxsize}, not {count}")


def _check_told(what: str, *texts: str) -> None:
    """Refuse what no handshake could tell the units."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what}: lone surrogates, which UTF-8 cannot hold") from None
