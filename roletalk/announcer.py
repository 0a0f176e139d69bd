"""Roles, announced and heard of (docs/protocol.md, section 5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from ._peer import clock
from ._wire import CloseCode, MessageType
from .errors import ProtocolError

if TYPE_CHECKING:
    from .peer import Peer
    from .unit import Unit

MAX_ROLES: Final = 65_536
OTHER_QUOTES: Final = 1024  # of what else a message that lists roles may hold


def lists_too_many(text: bytes) -> bool:
    """Whether JSON has to be refused for the number of roles in it, before objects are made of them.

    A message of the greatest size holds millions, which would take tens of times its memory.
    """
    return text.count(b'"') - text.count(rb"\"") > 2 * MAX_ROLES + OTHER_QUOTES


ROLE_CHANGES: Final = 256  # of a unit that take effect at once in a second


class _Roles(msgspec.Struct):
    i: int
    roles: list[str]


class Announcer:
    """Tells the units which roles are active: the changes of one loop turn in one message."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._scheduled = False
        self.counter: int = 0  # raised once a change

    def changed(self) -> None:
        """A role was made, enabled or disabled."""
        self.counter += 1
        if self._peer.units and not self._scheduled:
            self._scheduled = True
            self._peer.loop.call_soon(self._announce)

    def _announce(self) -> None:
        self._scheduled = False
        message = self._message()
        for unit in self._peer.units:
            unit.send_control(message)

    def tell(self, unit: Unit) -> None:
        unit.send_control(self._message())

    def tell_again(self, unit: Unit) -> None:
        """What `unit` was told may be lost: say it with a counter that counts as new."""
        self.counter += 1
        self.tell(unit)

    def _message(self) -> bytes:
        message = _Roles(self.counter, self._peer.active_roles())
        return bytes([MessageType.ROLES]) + msgspec.json.encode(message)

    @staticmethod
    def heard(unit: Unit, text: bytes) -> frozenset[str] | None:
        """The roles that `unit` announces; None when it has announced later ones already.

        Raises `ProtocolError` for what is no roles message.
        """
        if lists_too_many(text):
            raise ProtocolError("too many roles", CloseCode.BAD_STRUCTURE)
        try:
            told = msgspec.json.decode(text, type=_Roles)
        except (ValueError, RecursionError):
            raise ProtocolError("malformed roles message", CloseCode.BAD_STRUCTURE) from None
        if len(told.roles) > MAX_ROLES:
            raise ProtocolError("too many roles", CloseCode.BAD_STRUCTURE)
        if told.i <= unit._roles_at:
            return None
        unit._roles_at = told.i
        return frozenset(told.roles)


class RoleChanges:
    """The roles that one unit announces, as they take effect here.

    Each change may call callbacks, and a remote peer announces as often as it likes: beyond
    `ROLE_CHANGES` in a second only the last change takes effect, when the second is over.
    """

    def __init__(self, peer: Peer, unit: Unit) -> None:
        self._peer = peer
        self._unit = unit
        self._ends = 0.0  # of the second
        self._count = 0
        self._last: frozenset[str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self, roles: frozenset[str]) -> None:
        now = clock()
        if self._timer is None and now >= self._ends:
            self._ends, self._count = now + 1.0, 0
        self._count += 1
        if self._count <= ROLE_CHANGES:
            self._peer._units.roles_changed(self._unit, roles)
            return
        self._last = roles
        if self._timer is None:
            self._timer = self._peer.loop.call_later(self._ends - now, self._late)

    def _late(self) -> None:
        roles, self._timer = self._last, None
        if roles is not None:
            self.take(roles)

    def stop(self) -> None:
        """The unit is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
