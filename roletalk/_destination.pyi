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
    ) -> Coroutine[Any, Any, Context]: ...
    def send(
        self, event: str, data: object = None, *, unit: Unit | None = None
    ) -> Coroutine[Any, Any, None]: ...
    def send_nowait(self, event: str, data: object = None, *, unit: Unit | None = None) -> None: ...
    def readable(
        self,
        event: str,
        data: object = None,
        *,
        timeout: float | None = ...,
        unit: Unit | None = None,
    ) -> StreamOpening[ReadableStream]: ...
    def writable(
        self,
        event: str,
        data: object = None,
        *,
        timeout: float | None = ...,
        unit: Unit | None = None,
    ) -> StreamOpening[WritableStream]: ...
    def broadcast(self, event: str, data: object = None) -> tuple[Unit, ...]: ...
