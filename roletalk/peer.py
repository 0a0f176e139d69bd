"""The peer: the local node."""

from __future__ import annotations

import asyncio
import logging
import platform
import ssl as ssl_module
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from ._frame import FrameLimits
from ._session import Link, PeerCore, clock
from ._wire import CloseCode, MessageType
from .acquaintance import Acquaintances
from .address import Address
from .callbacks import Callbacks, Opening
from .destination import Destination
from .dialer import Dialer
from .errors import AuthError, ConnectError, ProtocolError, RoletalkError, UnitClosedError
from .gate import Admission
from .keys import KeyRing
from .listener import Listener
from .middleware import Kind, Middleware, MiddlewareFunction
from .role import Role
from .unit import Unit

if TYPE_CHECKING:
    from .auth import HandshakeResult

__all__ = ["Peer", "singleton"]

_log = logging.getLogger("roletalk")

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=MiddlewareFunction)

PROTOCOL_VERSION: Final = "2.0.0"
MAX_STRANGERS: Final = 1024
MAX_STRANGERS_PER_ADDRESS: Final = 64  # loopback and Unix sockets excepted
MAX_LINKS_PER_UNIT: Final = 64
MAX_ROLES: Final = 65_536
MAX_RT2_MEMORY: Final = 65_536  # ids and addresses that have spoken rt2
MAX_TAGS: Final = 256
CANCEL_GRACE: Final = 1.0  # s
LAG_WARNING: Final = 1.0  # s; a JS peer gives up after 2


class _Roles(msgspec.Struct):
    i: int
    roles: list[str]


class Peer(PeerCore):
    """The local node: it serves roles, and talks to units through destinations.

    name: told to the units; need not be unique.  friendly: whether to dial peers that others introduce.
    tags: told to units of this implementation.

    Seconds, ``None`` for no limit: `request_timeout` of requests that name none; `heartbeat_interval`
    of silence until a ping, `heartbeat_timeout` for its answer; `handshake_timeout` for a connection
    from its start to the end of the handshake.

    Bytes: `max_message_size` of a message either way; `high_water` unsent on a connection above which
    sending waits, `low_water` below which it is not busy.

    Counts: `max_units`; `max_pending` requests on one unit; `max_handlers` that run for one unit.

    expose_errors: reject with the exception's type and text where a handler fails, in place of
    ``internal error``.  acquaint_filter: ``(unit, url) -> bool``, whether to dial `url` that `unit`
    introduced; by default only hosts in the unit's own private or loopback range, or its own host.

    A peer belongs to the event loop in which it is first used; a call from another thread, loop or
    process raises `RuntimeError`.  An async context manager: leaving it closes it.
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
        handshake_timeout: float = 5.0,
        max_message_size: int = 16 * 1024 * 1024,
        expose_errors: bool = False,
        acquaint_filter: Callable[[Unit, str], bool] | None = None,
        high_water: int = 1024 * 1024,
        low_water: int = 256 * 1024,
        max_units: int = 16_384,
        max_pending: int = 65_536,
        max_handlers: int = 16_384,
        slow_handler: float = 0.5,
    ) -> None:
        if not 0 < low_water <= high_water:
            raise ValueError("0 < low_water <= high_water does not hold")
        if not 1024 <= max_message_size <= 1 << 30:
            raise ValueError("max_message_size is between 1 KiB and 1 GiB")
        if not isinstance(name, str) or len(name) > 1024:
            raise ValueError("name is a str of at most 1024 characters")
        super().__init__(
            FrameLimits(
                max_message_size=max_message_size, high_water=high_water, low_water=low_water
            ),
            request_timeout=request_timeout,
            expose_errors=expose_errors,
            max_handlers=max_handlers,
            max_pending=max_pending,
            slow_handler=slow_handler,
        )
        self.id: Final = uuid.uuid4().hex
        self.name: Final = name
        self.friendly: Final = friendly
        self.handshake_timeout = handshake_timeout
        self.heartbeat_interval = heartbeat_interval
        self.heartbeat_timeout = heartbeat_timeout
        self.closing = False
        self._tags: dict[str, str] = {}
        for tag, value in (tags or {}).items():
            self.set_tag(tag, value)
        self._keys = KeyRing()
        self._max_units = max_units
        self._roles: dict[str, Role] = {}
        self._destinations: dict[str, Destination] = {}
        self._units: dict[str, Unit] = {}
        self._listeners: set[Listener] = set()
        self._dialers: set[Dialer] = set()
        self._middlewares: list[Middleware] = []
        self._callback_tasks: set[asyncio.Task[Any]] = set()
        self._unit_callbacks: Callbacks[Unit] = Callbacks(self._callback_tasks)
        self._role_callbacks: Callbacks[Role] = Callbacks(self._callback_tasks)
        self._acquaintances = Acquaintances(self, acquaint_filter)
        # Handshakes under way; those of strangers, who dialled us, are counted by address.
        self._lobby: set[Admission] = set()
        self._strangers: Counter[str] = Counter()
        self._spoke_rt2: dict[str, None] = {}
        self._room_waiters: dict[Link, list[asyncio.Future[None]]] = {}
        self._roles_counter = 0
        self._announce_scheduled = False
        self._started = time.monotonic()
        self._reconnects = 0
        self._handshake_failures = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._lag = 0.0
        self._max_lag = 0.0
        self._close_task: asyncio.Task[None] | None = None
        self._closers: set[asyncio.Task[Any]] = set()
        self._closed: asyncio.Event = asyncio.Event()

    # -- identity

    @property
    def tags(self) -> Mapping[str, str]:
        """A copy of the tags; `set_tag` changes them."""
        return dict(self._tags)

    def set_tag(self, tag: str, value: str | None) -> None:
        """Set a tag, or remove it with ``None``; units that connect from now on are told."""
        if not isinstance(tag, str) or not isinstance(value, (str, type(None))):
            raise TypeError("a tag and its value are str")
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

    # -- what there is

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(self._roles.values())

    @property
    def destinations(self) -> tuple[Destination, ...]:
        return tuple(self._destinations.values())

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(self._units.values())

    @property
    def listeners(self) -> tuple[Listener, ...]:
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
                self._roles_changed()
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
            for unit in self._units.values():
                if name in unit.roles:
                    destination._add(unit)
        return destination

    def unit(self, id: str) -> Unit | None:
        """The connected unit of that id, or None."""
        return self._units.get(id)

    def on_unit(self, function: F) -> F:
        """Decorate a callback, called with each unit that comes."""
        return self._unit_callbacks.add(function)

    def on_role(self, function: F) -> F:
        """Decorate a callback, called with each role that is made on this peer."""
        return self._role_callbacks.add(function)

    @overload
    def middleware(self, *, kinds: Iterable[Kind] | None = None) -> Callable[[M], M]: ...

    @overload
    def middleware(self, function: M, *, kinds: Iterable[Kind] | None = None) -> M: ...

    def middleware(self, function: M | None = None, *, kinds: Iterable[Kind] | None = None) -> Any:
        """Decorate ``async def m(ctx, call_next)``, called around the handlers of all roles.

        See `Role.middleware`; a peer's come before a role's.
        """
        self.check_thread()

        def decorate(function: M) -> M:
            self._middlewares.append(Middleware.make(function, kinds))
            for role in self._roles.values():
                role._wrap_handlers()
            return function

        return decorate if function is None else decorate(function)

    def stats(self) -> dict[str, Any]:
        """Counters since the peer was made, and what there is now; a new dict of plain values.

        ``loop_lag`` and ``loop_lag_max`` are in seconds.  ``drops`` counts by reason what could not be
        delivered; ``late_replies`` are answers to requests that nobody waited for any more.
        """
        counted: dict[str, Any] = self.counted()
        links = [link for unit in self._units.values() for link in unit.connections]
        counted["bytes_sent"] += sum(link.bytes_sent for link in links)
        counted["bytes_received"] += sum(link.bytes_received for link in links)
        return counted | {
            "drops": dict(self.drops),
            "reconnects": self._reconnects,
            "handshake_failures": self._handshake_failures,
            "loop_lag": self._lag,
            "loop_lag_max": self._max_lag,
            "units": len(self._units),
            "connections": len(links),
            "unsent_bytes": sum(link.unsent_bytes for link in links),
            "pending_requests": sum(unit.calls.used for unit in self._units.values()),
            "running_handlers": sum(len(unit.tasks) for unit in self._units.values()),
            "handshakes": len(self._lobby),
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
            self.bind()
            self._refuse_when_closing()
            listener = Listener(self, ssl, path)
            await listener._start(host, port, backlog)
            self._listeners.add(listener)
            self._start_ticking()
            return listener

        return Opening(listen())

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
        the system's authorities) or ``ws+unix:///path``.  A lost connection is made again (after 0, 1,
        2, 3, 4, 5, 10, 30 and then each 60 s, with jitter) until the unit is closed here, unless
        ``reconnect=False``.  With ``retry=True`` the first one is tried again as well, until `timeout`
        seconds are over.

        Raises `ConnectError`, `AuthError`, `ProtocolError`, `ValueError` for a bad URL.  Leaving
        ``async with`` closes the unit.
        """
        made: list[Dialer] = []

        async def connect() -> Unit:
            self.bind()
            self._refuse_when_closing()
            address = Address.parse(url)
            if ssl is not None and not address.secure:
                raise ValueError(f"ssl is given, but {url!r} is not a wss:// URL")
            self._start_ticking()
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
                return await asyncio.wait_for(asyncio.shield(dialer.first), timeout)
            except asyncio.TimeoutError:
                dialer.stop()
                raise ConnectError(f"no connection to {url} within {timeout:g} s") from None
            except BaseException:
                dialer.stop()
                raise

        async def close(unit: Unit) -> None:
            for dialer in made:
                current = dialer.unit
                dialer.stop()
                if current is not None and current is not unit:
                    await current.close()
            if unit.connected:
                await unit.close()

        return Opening(connect(), close)

    def _refuse_when_closing(self) -> None:
        if self.closing:
            raise RuntimeError("this peer is closed or closing")

    # -- strangers

    def _may_enter(self, admission: Admission) -> bool:
        """Whether one more that has not authenticated may stay; docs/protocol.md, section 8."""
        host = admission.host
        local = host in ("", "::1") or host.startswith("127.")
        if sum(self._strangers.values()) >= MAX_STRANGERS or self.closing:
            return False
        if not local and self._strangers[host] >= MAX_STRANGERS_PER_ADDRESS:
            return False
        self._strangers[host] += 1
        admission.counted = True
        return True

    def _left_lobby(self, admission: Admission) -> None:
        if admission.counted:
            admission.counted = False
            self._strangers[admission.host] -= 1
            if not self._strangers[admission.host]:
                del self._strangers[admission.host]

    def _admission_failed(self, admission: Admission, error: RoletalkError) -> None:
        self._handshake_failures += 1
        if admission.dialer is None:
            _log.info("a connection was turned away: %s", error)

    def _note_rt2(self, who: str) -> None:
        self._spoke_rt2.setdefault(who)
        if len(self._spoke_rt2) > MAX_RT2_MEMORY:
            del self._spoke_rt2[next(iter(self._spoke_rt2))]

    # -- units come and go

    def _take_in(self, admission: Admission, result: HandshakeResult) -> Unit | None:
        """The unit that an authenticated connection belongs to; None when it is refused."""
        link = admission.link
        unit = self._units.get(result.peer.id)
        refusal = ""
        if self.closing:
            refusal = "this peer is closing"
        elif unit is None:
            if len(self._units) >= self._max_units:
                refusal = "too many units"
            else:
                unit = Unit(self, result.peer, result.key_id)
        elif unit._key_id != result.key_id:
            refusal = "another key than the first connection of this unit proved"
        elif len(unit.connections) >= MAX_LINKS_PER_UNIT:
            refusal = "too many connections of one unit"
        if refusal or unit is None:
            admission.fail(AuthError(refusal))
            link.close(CloseCode.AUTH_REJECTED, refusal)
            return None
        link.admit(unit)
        return unit

    def _welcome(self, admission: Admission, unit: Unit, *, roles_changed: bool) -> None:
        if admission.dialer is not None:
            # Whom we dialled is what acquaintance tells of.
            unit._dialers.add(admission.dialer)
        is_new = unit.id not in self._units
        if is_new:
            self._units[unit.id] = unit
            self._serve(unit, frozenset(), unit.roles)
        if roles_changed:
            unit.send_control(self._roles_message())
        if is_new:
            self._acquaintances.introduce(unit)
            self._unit_callbacks(unit)

    def _link_lost(self, admission: Admission, unit: Unit) -> None:
        link = admission.link
        for waiter in self._room_waiters.pop(link, ()):
            if not waiter.done():
                waiter.set_result(None)
        left = unit.forget_link(link)
        if admission.dialer is not None:
            admission.dialer.lost()
        if left:
            # A roles message may have been lost with the connection: say it again, with a counter
            # that counts as new.
            self._roles_counter += 1
            unit.send_control(self._roles_message())
            return
        if self._units.get(unit.id) is unit:
            del self._units[unit.id]
        self._serve(unit, unit.roles, frozenset())

        def error(role: str, event: str) -> UnitClosedError:
            closed = UnitClosedError(
                f"unit {unit.name or unit.id!r} went away before it answered {event!r} of role"
                f" {role!r}; it may have been executed"
            )
            closed.unit, closed.role, closed.event = unit, role, event
            return closed

        unit.calls.fail_all(error)
        unit._lost.set()
        unit._close_callbacks(unit)

    def _serve(self, unit: Unit, old: frozenset[str], new: frozenset[str]) -> None:
        """Tell the destinations concerned that `unit` serves `new` in place of `old`."""
        changed = old ^ new
        if len(changed) > len(self._destinations):
            concerned = [name for name in self._destinations if name in changed]
        else:
            concerned = [name for name in changed if name in self._destinations]
        for name in concerned:
            destination = self._destinations[name]
            if name in new:
                destination._add(unit)
            else:
                destination._remove(unit)

    # -- roles, announced and heard of (docs/protocol.md, section 5)

    def _describe(self) -> dict[str, Any]:
        """The peer data of section 4."""
        return {
            "id": self.id,
            "name": self.name,
            "roles": self._active_roles(),
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

    def _active_roles(self) -> list[str]:
        return [] if self.closing else [role.name for role in self._roles.values() if role.active]

    def _roles_message(self) -> bytes:
        message = _Roles(self._roles_counter, self._active_roles())
        return bytes([MessageType.ROLES]) + msgspec.json.encode(message)

    def _roles_changed(self) -> None:
        self._roles_counter += 1
        if self._units and not self._announce_scheduled:
            self._announce_scheduled = True
            self.loop.call_soon(self._announce)

    def _announce(self) -> None:
        self._announce_scheduled = False
        message = self._roles_message()
        for unit in self._units.values():
            unit.send_control(message)

    def _roles_received(self, unit: Unit, text: bytes) -> None:
        try:
            told = msgspec.json.decode(text, type=_Roles)
        except (ValueError, RecursionError):
            raise ProtocolError("malformed roles message", CloseCode.BAD_STRUCTURE) from None
        if len(told.roles) > MAX_ROLES:
            raise ProtocolError("too many roles", CloseCode.BAD_STRUCTURE)
        if told.i <= unit._roles_at:
            return
        unit._roles_at = told.i
        old, unit.roles = unit.roles, frozenset(told.roles)
        self._serve(unit, old, unit.roles)

    # -- waiting for room

    def _wait_for_room(self, link: Link) -> asyncio.Future[None]:
        """A future that is done when `link` has room, or is gone."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        if link.has_room_now or not link.is_open:
            waiter.set_result(None)
        else:
            self._room_waiters.setdefault(link, []).append(waiter)
            link.wait_for_room()
        return waiter

    def _room_is_there(self, link: Link) -> None:
        for waiter in self._room_waiters.pop(link, ()):
            if not waiter.done():
                waiter.set_result(None)

    # -- heartbeats and loop lag

    def _start_ticking(self) -> None:
        if self._ticker is None:
            self._tick_at = clock()
            self._next_tick()

    def _next_tick(self) -> None:
        bounds = [t for t in (self.heartbeat_interval, self.heartbeat_timeout) if t is not None]
        period = max(0.02, min(1.0, *(bound / 4 for bound in bounds))) if bounds else 1.0
        self._tick_at += period
        delay = self._tick_at - clock()
        self._ticker = self.loop.call_later(max(delay, 0.0), self._tick)

    def _tick(self) -> None:
        now = clock()
        self._lag = max(now - self._tick_at, 0.0)
        self._max_lag = max(self._max_lag, self._lag)
        if self._lag > LAG_WARNING:
            _log.warning(
                "the event loop was blocked for %.2f s: remote peers that hear nothing for that long"
                " may close their connections",
                self._lag,
            )
        self._tick_at = now
        interval = self.heartbeat_interval
        timeout = self.heartbeat_timeout
        if interval is not None:
            for unit in self.units:
                for link in unit.connections:
                    link.check_alive(now, interval, float("inf") if timeout is None else timeout)
        self._next_tick()

    # -- the end

    async def serve_forever(self) -> None:
        """Run until the peer is closed; closes it when cancelled."""
        self.bind()
        try:
            await self._closed.wait()
        except asyncio.CancelledError:
            await self.close()
            raise

    async def wait_closed(self) -> None:
        """Wait until `close` is done."""
        self.bind()
        await self._closed.wait()

    async def drain(self, timeout: float | None = 5.0) -> None:
        """Stop listening and reconnecting, withdraw the roles, let running handlers finish and their
        replies leave.  Connections stay; what runs after `timeout` seconds is cancelled.

        May be called twice, and before `close`.
        """
        self.bind()
        self._note_closer()
        await self._drain(timeout)

    def _note_closer(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._closers.add(task)
            task.add_done_callback(self._closers.discard)

    async def _drain(self, timeout: float | None) -> None:
        deadline = None if timeout is None else clock() + timeout
        if not self.closing:
            self.closing = True
            for role in self._roles.values():
                role.is_active = False
            self._roles_changed()
            self._acquaintances.close()
        for listener in tuple(self._listeners):
            await listener.close()
        for dialer in tuple(self._dialers):
            dialer.stop()
            await dialer.wait_stopped()
        await self._handlers_done(deadline)
        await self._all_sent(deadline)

    async def _handlers_done(self, deadline: float | None) -> None:
        # A handler may be the one that closes the peer: it is not waited for.
        tasks = {task for unit in self.units for task in unit.tasks} - self._closers
        if tasks:
            await asyncio.wait(tasks, timeout=_left(deadline))
        late = {task for task in tasks if not task.done()}
        if late:
            _log.warning("%d handlers were still running when the peer was closed", len(late))
            await _cancel(late)

    async def _all_sent(self, deadline: float | None) -> None:
        while any(link.unsent_bytes for unit in self.units for link in unit.connections):
            if deadline is not None and clock() >= deadline:
                return
            await asyncio.sleep(0.005)

    async def close(self, timeout: float | None = 5.0) -> None:
        """Drain, fail our own pending requests with `UnitClosedError`, close all connections (4000).

        All of it within `timeout` seconds; what is left then is cancelled and dropped.  May be called
        twice: the second call waits for the first.
        """
        if self.loop is None:
            # Never used: there is nothing to close.
            self.closing = True
            self._closed.set()
            return
        self.bind()
        self._note_closer()
        if self._close_task is None:
            self._close_task = self.loop.create_task(self._close(timeout), name="roletalk close")
        await asyncio.shield(self._close_task)

    async def _close(self, timeout: float | None) -> None:
        deadline = None if timeout is None else clock() + timeout
        await self._drain(timeout)

        def error(role: str, event: str) -> UnitClosedError:
            return UnitClosedError(
                f"this peer was closed before {event!r} of role {role!r} was answered;"
                " it may have been executed"
            )

        units = self.units
        for unit in units:
            unit.calls.fail_all(error, and_ignoring=True)
        for admission in tuple(self._lobby):
            admission.fail(AuthError("this peer was closed"))
            admission.abort()
        for unit in units:
            for link in unit.connections:
                link.close(CloseCode.MANUAL, "closed on purpose")
        waiting = [asyncio.ensure_future(unit._lost.wait()) for unit in units]
        if waiting:
            left = _left(deadline)
            await asyncio.wait(waiting, timeout=None if left is None else max(left, 0.1))
        for unit in units:
            for link in unit.connections:
                link.abort()
        if waiting:
            await asyncio.gather(*waiting)
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self.stop_sweeping()
        await _cancel(self._callback_tasks - self._closers)
        self._closed.set()

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


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel, and wait a little for those that take their time over it."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_GRACE)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - clock(), 0.0)


_singleton: Peer | None = None


def singleton(**options: Any) -> Peer:
    """The peer of the whole process, made with `options` at the first call.

    Raises `RuntimeError` when options are given later; a closed one is replaced by a new one.
    """
    global _singleton
    if _singleton is None or _singleton._closed.is_set():
        _singleton = Peer(**options)
    elif options:
        raise RuntimeError("the singleton peer exists already; its options are fixed")
    return _singleton
