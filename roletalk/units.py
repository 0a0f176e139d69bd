"""The units that a peer is connected to, as they come and go."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ._text import named, printable
from ._wire import CloseCode
from .announcer import Announcer
from .callbacks import Callbacks
from .errors import AuthError, ConnectError, UnitClosedError
from .unit import Unit

if TYPE_CHECKING:
    from ._session import Link
    from .auth import HandshakeResult
    from .gate import Admission
    from .peer import Peer

MAX_LINKS_PER_UNIT: Final = 64


class Units:
    """The connected units of one peer, at most `most`; iterates over them.

    ::

        take_in ──▶ welcome ──▶ roles_changed ... ──▶ link_lost, the last one
    """

    def __init__(self, peer: Peer, most: int) -> None:
        self._peer = peer
        self._most = most
        self._by_id: dict[str, Unit] = {}
        # Units that are gone: handlers that still run for one keep it alive.
        self._gone: weakref.WeakSet[Unit] = weakref.WeakSet()
        self.callbacks: Callbacks[Unit] = Callbacks(peer, "Peer.on_unit", "unit")
        self.reconnects: int = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._by_id.values())

    def get(self, id: str) -> Unit | None:
        return self._by_id.get(id)

    def running_handlers(self) -> set[asyncio.Task[Any]]:
        """The tasks of the handlers that run, those for units that are gone too."""
        return {task for unit in (*self, *self._gone) for task in unit.tasks}

    def take_in(self, admission: Admission, result: HandshakeResult) -> Unit | None:
        """The unit that an authenticated connection belongs to; None when it is refused."""
        link = admission.link
        unit = self._by_id.get(result.peer.id)
        refusal = hint = ""
        if self._peer.closing:
            refusal = "this peer is closing"
        elif unit is None:
            if len(self) >= self._most:
                refusal, hint = "too many units", "Peer(max_units=...) of this one allows more"
            else:
                unit = Unit(self._peer, result.peer, result.key_id, result.features)
        elif unit.key_id != result.key_id:
            refusal = "another key than the first connection of this unit proved"
            hint = "its first connection has to go before, if its keys were changed"
        elif len(unit.connections) >= MAX_LINKS_PER_UNIT:
            refusal = "too many connections of one unit"
            hint = "does it connect again and again to the same peer?"
        if refusal or unit is None:
            admission.fail(AuthError(admission.about(refusal), hint=hint))
            link.close(CloseCode.AUTH_REJECTED, refusal)
            return None
        link.admit(unit)
        return unit

    def welcome(self, admission: Admission, unit: Unit, *, roles_changed: bool) -> None:
        """A connection of `unit` is ready.

        `roles_changed`: this peer's are no more those that it was told in the handshake.
        """
        peer = self._peer
        if admission.dialer is not None:
            # Whom we dialled is what acquaintance tells of.
            unit._dialers.add(admission.dialer)
            peer._acquaintances.dialled(unit)
            if admission.dialer.first.done():
                self.reconnects += 1
        is_new = unit.id not in self._by_id
        if is_new:
            self._by_id[unit.id] = unit
            way = "dialled at" if admission.dialer is not None else "come from"
            peer.remote_log.log(
                logging.INFO, unit.id, "%s is connected, %s %s", named(unit), way, admission.whom
            )
            self._serve(unit, frozenset(), unit.roles)
        if roles_changed:
            peer._announcer.tell(unit)
        if is_new:
            peer._acquaintances.introduce(unit)
            self.callbacks(unit)
        if unit._is_closed:
            if admission.dialer is not None:
                text = f"{named(unit)} was closed here while {admission.whom} was dialled"
                admission.dialer.stop(ConnectError(text))
            admission.link.close(CloseCode.MANUAL, "closed on purpose")

    def link_lost(self, admission: Admission, unit: Unit) -> None:
        """A connection of `unit` is gone, and the unit with its last one."""
        peer, link = self._peer, admission.link
        peer._room.is_there(link)
        left = unit.forget_link(link)
        if admission.dialer is not None:
            admission.dialer.lost()
        if left:
            peer._announcer.tell_again(unit)
        else:
            self._gone_for_good(unit, link)

    def _gone_for_good(self, unit: Unit, last: Link) -> None:
        peer = self._peer
        if self._by_id.get(unit.id) is unit:
            del self._by_id[unit.id]
        unit._role_changes.stop()
        if unit.tasks:
            self._gone.add(unit)
        peer._acquaintances.lost(unit)
        self._serve(unit, unit.roles, frozenset())

        code = last.close_code
        reason = f" ({printable(last.close_reason)})" if last.close_reason else ""
        text = "%s is gone, closed with %d%s"
        peer.remote_log.log(logging.INFO, unit.id, text, named(unit), code, reason)

        def error(role: str, event: str) -> UnitClosedError:
            closed = UnitClosedError(
                f"{named(unit)} went away before it answered {event!r} of role {role!r}, closed with"
                f" {code}{reason}",
                hint="it may have been executed",
            )
            closed.unit, closed.role, closed.event = unit, role, event
            return closed

        unit.calls.fail_all(error)
        peer.keep_pending(unit.calls)
        unit._lost.set()
        unit._close_callbacks(unit)

    # -- their roles

    def roles_received(self, unit: Unit, text: bytes) -> None:
        """`unit` announces its roles (docs/protocol.md, section 5).  Raises `ProtocolError`."""
        roles = Announcer.heard(unit, text)
        if roles is not None:
            unit._role_changes.take(roles)

    def roles_changed(self, unit: Unit, roles: frozenset[str]) -> None:
        """`unit` serves `roles` from now on."""
        old, unit.roles = unit.roles, roles
        self._serve(unit, old, roles)

    def _serve(self, unit: Unit, old: frozenset[str], new: frozenset[str]) -> None:
        """Tell the destinations concerned that `unit` serves `new` in place of `old`."""
        destinations = self._peer._destinations
        changed = old ^ new
        if len(changed) > len(destinations):
            concerned = [name for name in destinations if name in changed]
        else:
            concerned = [name for name in changed if name in destinations]
        for name in concerned:
            if name in new:
                destinations[name]._add(unit)
            else:
                destinations[name]._remove(unit)
