"""Roles, announced and heard of (docs/protocol.md, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ._wire import CloseCode, MessageType
from .errors import ProtocolError

if TYPE_CHECKING:
    from .peer import Peer
    from .unit import Unit

MAX_ROLES: Final = 65_536


class _Roles(msgspec.Struct):
    i: int
    roles: list[str]


class Announcer:
    """Tells the units which roles are active: the changes of one loop turn in one message."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._scheduled = False
        self.counter = 0  # raised once a change

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
