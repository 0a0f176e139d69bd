from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from .middleware import Kind

@disjoint_base
class Handler:
    def __init__(
        self, role: RoleCore, kind: Kind, event: str | None, function: Callable[[Any], Any]
    ) -> None: ...
    @property
    def role(self) -> RoleCore: ...
    @property
    def event(self) -> str | None: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def function(self) -> Callable[[Any], Any]: ...
    def set_target(self, target: Callable[[Any], Any]) -> None: ...

@disjoint_base
class RoleCore:
    """A local role: whether it is active, and its handlers by kind and event."""

    is_active: bool
    def __init__(self, table: HandlerTable, name: str, *, active: bool = True) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def handlers(self) -> tuple[Handler, ...]: ...
    def set_handler(self, kind: Kind, event: str | None, function: Callable[[Any], Any]) -> Handler:
        """Handle `event` (every other event, when None) of `kind` with `function`; replaces what did."""

@disjoint_base
class HandlerTable:
    def __init__(self) -> None: ...

def encode_name(name: str, what: str) -> bytes: ...
