"""Destinations: roles as seen from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, TypeVar, cast

from ._destination import UNSET, DestinationCore
from ._peer import clock
from ._session import Link
from ._text import named, quoted
from .callbacks import Callbacks, check_seconds, within
from .errors import NoUnitsError, RequestTimeout, RoletalkError
from .hints import NAMED, why_nobody

if TYPE_CHECKING:
    from ._context import Context
    from .peer import Peer
    from .unit import Unit

DestinationCallback = TypeVar("DestinationCallback", bound=Callable[["Destination"], object])
UnitCallback = TypeVar("UnitCallback", bound=Callable[["Unit"], object])


class Destination(DestinationCore):
    """A role that connected units serve, made by `Peer.destination`.

    Messages and requests take the units in turn, unless ``unit=`` names one.  Delivered at most once:
    the library never sends anything a second time.
    """

    peer: Peer

    def __init__(self, peer: Peer, name: str) -> None:
        super().__init__(peer, name)
        self._wake = asyncio.Event()  # that there is a unit, or will be none
        self._open_callbacks: Callbacks[Destination] = Callbacks(
            peer, "Destination.on_open", "destination"
        )
        self._close_callbacks: Callbacks[Destination] = Callbacks(
            peer, "Destination.on_close", "destination"
        )
        self._unit_callbacks: Callbacks[Unit] = Callbacks(peer, "Destination.on_unit", "unit")

    @property
    def units(self) -> tuple[Unit, ...]:
        """The connected units that serve the role now."""
        return self.current_units()  # type: ignore[return-value]  # all that are added are Units

    @property
    def ready(self) -> bool:
        """Whether any connected unit serves the role."""
        return bool(self.units)

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until a connected unit serves the role.

        Raises `TimeoutError` after `timeout` seconds, naming the role; `RuntimeError` once the peer is
        closed.
        """
        check_seconds("timeout=", timeout)
        self.peer.bind()
        if self.ready:
            return
        try:
            await within(self._served(), timeout)
        except TimeoutError:
            raise TimeoutError(
                f"no unit serves role {quoted(self.name)} after {timeout:g} s"
                f" ({why_nobody(self.peer, self.name)()})"
            ) from None

    async def _served(self) -> None:
        while not self.ready:
            self.peer._refuse_when_closed(f"no unit will serve role {quoted(self.name)}")
            await self._wake.wait()

    def survey(
        self, event: str, data: object = None, *, timeout: float | None = UNSET
    ) -> AsyncGenerator[Context | RoletalkError, None]:
        """Ask every unit that serves the role; yields their answers as they come.

        For each unit its reply, or the `RoletalkError` that it ended with, whose `unit` says which.
        Raises `NoUnitsError` with no unit, and what `Destination.request` raises of bad arguments.
        """
        self.peer.check_thread()
        return self._survey(event, data, timeout)

    async def _survey(
        self, event: str, data: object, timeout: float | None
    ) -> AsyncGenerator[Context | RoletalkError, None]:
        units = self.units
        if not units:
            nobody = self._nobody()
            nobody.role, nobody.event = self.name, event
            raise nobody
        asked = [asyncio.ensure_future(self._ask(unit, event, data, timeout)) for unit in units]
        waiting = set(asked)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(
        self, unit: Unit, event: str, data: object, timeout: float | None
    ) -> Context | RoletalkError:
        try:
            return await self.request(event, data, timeout=timeout, unit=unit)
        except RoletalkError as error:
            error.unit = unit
            return error

    async def _room(self, link: Link, deadline: float, event: str) -> None:
        """Wait until `link` is below its high-water mark; `deadline` is on the monotonic clock."""
        waiting = self.peer._room.wait(link)
        try:
            left = None if deadline == float("inf") else deadline - clock()
            await within(waiting, left)
        except TimeoutError:
            error = RequestTimeout(
                f"{event!r} was not sent to role {self.name!r} before its timeout: more than the"
                f" high-water mark is unsent to {named(link.unit)}",
                hint="it reads too slowly: send less, or Peer(high_water=...)",
            )
            error.unit = cast("Unit", link.unit)
            error.role, error.event = self.name, event
            raise error from None

    def _nobody(self, unit: Unit | None = None) -> NoUnitsError:
        """That there is nobody to send to, or not `unit`, and why."""
        role = quoted(self.name)
        if unit is None:
            return NoUnitsError(
                f"no connected unit serves role {role}", hint=why_nobody(self.peer, self.name)
            )
        served = ", ".join(map(quoted, sorted(unit.roles)[:NAMED])) or "none"
        return NoUnitsError(
            f"{named(unit)} does not serve role {role}", hint=f"its roles: {served}"
        )

    def _add(self, unit: Unit) -> None:
        self.add_unit(unit)
        self._wake.set()
        if len(self.units) == 1:
            self._open_callbacks(self)
        self._unit_callbacks(unit)

    def _remove(self, unit: Unit) -> None:
        self.remove_unit(unit)
        if not self.units:
            self._wake.clear()
            self._close_callbacks(self)

    def _peer_closed(self) -> None:
        self._wake.set()

    def on_open(self, function: DestinationCallback) -> DestinationCallback:
        """Decorate a callback, called with the destination when its first unit comes."""
        return self._open_callbacks.add(function)

    def on_close(self, function: DestinationCallback) -> DestinationCallback:
        """Decorate a callback, called with the destination when its last unit has gone."""
        return self._close_callbacks.add(function)

    def on_unit(self, function: UnitCallback) -> UnitCallback:
        """Decorate a callback, called with each unit that begins to serve the role."""
        return self._unit_callbacks.add(function)

    def __repr__(self) -> str:
        return f"<Destination {self.name!r} units={len(self.units)}>"
