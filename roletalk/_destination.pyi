from collections.abc import Coroutine
from typing import Any, Final

from typing_extensions import disjoint_base

from ._context import Context
from ._opening import StreamOpening
from ._peer import PeerCore
from ._readable import ReadableStream
from ._session import UnitCore
from ._writable import WritableStream
from .unit import Unit

UNSET: Final[Any]

@disjoint_base
class DestinationCore:
    """A role as seen from outside: the units that serve it, and whose turn it is."""

    def __init__(self, peer: PeerCore, name: str) -> None: ...
    @property
    def peer(self) -> PeerCore: ...
    @property
    def name(self) -> str: ...
    def current_units(self) -> tuple[UnitCore, ...]: ...
    def add_unit(self, unit: UnitCore) -> None: ...
    def remove_unit(self, unit: UnitCore) -> None: ...
    def request(
        self,
        event: str,
        data: object = None,
        *,
        timeout: float | None = ...,
        unit: Unit | None = None,
        ignore_unit_close: bool = False,
    ) -> Coroutine[Any, Any, Context]:
        """Ask one unit; await it for the reply's `Context`.

        The request is written at the call (docs/protocol.md, section 3), unless the connection is above
        its high-water mark: then when it is awaited and there is room.

        ``timeout`` is in seconds, ``None`` for no limit, by default the peer's `request_timeout`.  `unit`
        names the unit; by default they take turns.  With `ignore_unit_close` a request whose unit goes
        away waits on until its timeout.

        Raised by the await: `RemoteError` when it is rejected, `RequestTimeout`, `NoUnitsError`,
        `UnitClosedError`, `WouldBlock` when too many are pending on the unit, `TypeError` and
        `ValueError` for what cannot be sent.  Raised at once: `RuntimeError` in a wrong thread, loop or
        process.
        """
    def send(
        self, event: str, data: object = None, *, unit: Unit | None = None
    ) -> Coroutine[Any, Any, None]:
        """Send a one-way message to one unit; await it.

        Written at the call.  Above the connection's high-water mark nothing is written until there is
        room; cancelled there, nothing was sent.  Delivered at most once.

        Raised by the await: `NoUnitsError`, `UnitClosedError`, `TypeError` and `ValueError` for what
        cannot be sent.  Raised at once: `RuntimeError` in a wrong thread, loop or process.
        """
    def send_nowait(self, event: str, data: object = None, *, unit: Unit | None = None) -> None:
        """Send a one-way message to one unit at once.

        Raises `WouldBlock` above the connection's high-water mark, and what `send` raises.
        """
    def readable(
        self,
        event: str,
        data: object = None,
        *,
        timeout: float | None = ...,
        unit: Unit | None = None,
    ) -> StreamOpening[ReadableStream]:
        """Open a stream that one unit writes; await or enter it for the `ReadableStream`.

        `data` goes to the handler; the one that accepted is `stream.reply`.  The stream lives on one
        connection, the one of the unit that has the fewest streams.  ``timeout`` is in seconds until it is
        accepted, ``None`` for no limit, by default the peer's `request_timeout`.

        Raised by the await: `RemoteError` when it is rejected, `RequestTimeout`, `NoUnitsError`,
        `UnitClosedError`, `StreamError` when its connection is lost, `WouldBlock` when too many streams
        are open with the unit, `TypeError` and `ValueError` for what cannot be sent, `RuntimeError` in a
        wrong thread, loop or process.
        """
    def writable(
        self,
        event: str,
        data: object = None,
        *,
        timeout: float | None = ...,
        unit: Unit | None = None,
    ) -> StreamOpening[WritableStream]:
        """Open a stream that one unit reads; await or enter it for the `WritableStream`.

        See `readable`.
        """
    def broadcast(self, event: str, data: object = None) -> tuple[Unit, ...]:
        """Send a one-way message to every unit; returns the tuple of units that it was written to.

        Units above their high-water mark are left out and counted in `stats()`.  Raises `NoUnitsError`
        when there is no unit, `TypeError` and `ValueError` for what cannot be sent.
        """
