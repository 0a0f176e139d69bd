"""Peers introduce each other (docs/protocol.md, sections 5 and 8)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from ._text import named
from ._wire import CloseCode, MessageType
from .address import Address, introduced, may_dial
from .announcer import MAX_ROLES, lists_too_many
from .dialer import Dialer
from .errors import ProtocolError, RoletalkError
from .signatures import check

if TYPE_CHECKING:
    from .peer import Peer
    from .unit import Unit

MAX_DIALS: Final = 4  # introduced addresses dialled at once
MAX_WAITING: Final = 64  # that wait for their turn
MAX_REMEMBERED: Final = 1024  # that failed, and are not tried again for a while, nor others then
FORGET_AFTER: Final = 60.0  # s
MAX_TOLD: Final = 1 << 20  # bytes of what one unit is told of another; who gets too much closes
MAX_KEPT: Final = 1024  # introduced addresses that are connected or dialled again


class _Acquaint(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    address: str
    roles: Annotated[list[str], msgspec.Meta(max_length=MAX_ROLES)]


class _Introduced(NamedTuple):
    id: str
    address: Address
    by: str


class Acquaintances:
    """What a peer tells its units of each other, and what it makes of being told."""

    def __init__(self, peer: Peer, filter: Callable[[Unit, str], bool] | None) -> None:
        if filter is not None:
            check(filter, "acquaint_filter", ("unit", "url"), is_sync=True)
        self._peer = peer
        self._filter = filter
        self._waiting: deque[_Introduced] = deque()
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._kept: set[Dialer] = set()
        # By host and port: neither a path nor a query makes another peer of one that did not answer.
        self._failed: dict[str, float] = {}
        # The units that there is something to tell of: of thousands who dialled us there is not.
        self._dialled: dict[Unit, None] = {}

    # -- introducing others

    def dialled(self, unit: Unit) -> None:
        """A connection to that unit was made by dialling."""
        self._dialled[unit] = None

    def lost(self, unit: Unit) -> None:
        """The unit is gone."""
        self._dialled.pop(unit, None)

    def introduce(self, unit: Unit) -> None:
        """A unit has come: tell it of the others, and the others of it."""
        if unit.friendly:
            for other in tuple(self._dialled):
                if other is not unit:
                    self._tell(unit, other)
        if unit in self._dialled:
            for other in self._peer.units:
                if other is not unit and other.friendly:
                    self._tell(other, unit)

    def _tell(self, whom: Unit, of: Unit) -> None:
        address = next((d.address for d in of._dialers if d.address.path is None), None)
        if address is None:
            return
        message = msgspec.json.encode(_Acquaint(of.id, address.url, sorted(of.roles)))
        if len(message) > MAX_TOLD:
            self._peer.count_drop("introductions of units with too many roles")
            return
        whom.send_control(bytes([MessageType.ACQUAINT]) + message)

    # -- being introduced

    def received(self, introducer: Unit, text: bytes) -> None:
        """Dial whom `introducer` told of, if that is wanted and allowed.

        Raises `ProtocolError` for what is no acquaint message; a bad address is only not dialled.
        """
        if lists_too_many(text):
            raise ProtocolError("too many roles", CloseCode.BAD_STRUCTURE)
        try:
            told = msgspec.json.decode(text, type=_Acquaint)
        except (ValueError, RecursionError):
            raise ProtocolError("malformed acquaint message", CloseCode.BAD_STRUCTURE) from None
        if not self._peer.friendly or not self._wanted(told):
            return
        try:
            address = introduced(told.address)
        except ValueError as exc:
            self._peer.remote_log.log(
                logging.INFO,
                introducer.id,
                "%s introduced an address that is never dialled: %s",
                named(introducer),
                exc,
            )
            self._peer.count_drop("acquaintances refused")
            return
        if not self._allowed(introducer, address):
            self._peer.count_drop("acquaintances refused")
            return
        place = address.place
        if place in self._dialling or any(place == each.address.place for each in self._waiting):
            return
        self._kept = {dialer for dialer in self._kept if dialer.alive}
        if any(dialer.address.place == place for dialer in self._peer._dialers):
            return
        self._forget()
        if (
            place in self._failed
            # What is forgotten too soon may be dialled again: whole networks, over and over.
            or len(self._failed) + len(self._dialling) + len(self._waiting) >= MAX_REMEMBERED
            or len(self._waiting) >= MAX_WAITING
            or len(self._kept) >= MAX_KEPT
        ):
            self._peer.count_drop("acquaintances refused")
            return
        self._waiting.append(_Introduced(told.id, address, introducer.id))
        self._dial_next()

    def _forget(self) -> None:
        """Those that failed long enough ago; the oldest come first."""
        now = self._peer.loop.time()
        while self._failed and self._failed[next(iter(self._failed))] <= now:
            del self._failed[next(iter(self._failed))]

    def _wanted(self, told: _Acquaint) -> bool:
        peer = self._peer
        if told.id == peer.id or peer.unit(told.id) is not None or peer.closing:
            return False
        return any(role in peer._destinations for role in told.roles)

    def _allowed(self, introducer: Unit, address: Address) -> bool:
        if self._filter is not None:
            try:
                return bool(self._filter(introducer, address.url))
            except Exception as exc:
                self._peer.remote_log.log(
                    logging.ERROR,
                    introducer.id,
                    "error in acquaint_filter, so %s is not dialled; introduced by %s",
                    address.url,
                    named(introducer),
                    error=exc,
                )
                return False
        hosts = {link.owner.host for link in introducer.connections if link.owner is not None}
        hosts.update(dialer.address.host for dialer in introducer._dialers)
        return may_dial(address.host, frozenset(hosts - {""}))

    def _dial_next(self) -> None:
        while self._waiting and len(self._dialling) < MAX_DIALS and not self._peer.closing:
            told = self._waiting.popleft()
            if self._peer.unit(told.id) is None:
                task = self._peer.loop.create_task(self._dial(*told))
                self._dialling[told.address.place] = task

    async def _dial(self, unit_id: str, address: Address, introducer_id: str) -> None:
        dialer = Dialer(self._peer, address)
        try:
            unit = await dialer.first
            if unit.id == unit_id:
                self._kept.add(dialer)
            else:
                # Somebody else than was introduced: a connection as good as any, but not to be kept up.
                dialer.stop()
        except Exception as exc:
            if isinstance(exc, RoletalkError):
                self._peer.remote_log.log(
                    logging.INFO, introducer_id, "introduced address %s: %s", address.url, exc
                )
            else:
                # Nothing that is known to happen.
                self._peer.remote_log.log(
                    logging.ERROR,
                    introducer_id,
                    "unexpected error while dialling %s",
                    address.url,
                    error=exc,
                )
            self._failed[address.place] = self._peer.loop.time() + FORGET_AFTER
        finally:
            self._dialling.pop(address.place, None)
            self._dial_next()

    def close(self) -> None:
        self._waiting.clear()
        for task in tuple(self._dialling.values()):
            task.cancel()
