import asyncio
from typing import Any

from typing_extensions import disjoint_base

from ._calls import CallTable
from ._channels import UnitStreams
from ._context import Responder
from ._frame import Connection
from ._peer import PeerCore
from .gate import Admission

@disjoint_base
class Link(Connection):
    """A connection to a unit, made by either side; a unit may have several."""

    owner: Admission | None
    def __init__(self, peer: PeerCore, owner: Admission, *, is_client: bool) -> None: ...
    @property
    def peer(self) -> PeerCore: ...
    @property
    def unit(self) -> UnitCore | None: ...
    @property
    def has_room_now(self) -> bool: ...
    def admit(self, unit: UnitCore) -> None:
        """The handshake is done: from now on messages are dispatched for `unit`."""
    @property
    def stream_tasks(self) -> set[asyncio.Task[Any]]:
        """The handlers that serve streams of this connection, or are asked to."""
    def wait_for_room(self) -> None:
        """Have `owner.writable(link)` called once the unsent bytes are below the high-water mark."""

@disjoint_base
class UnitCore(Responder):
    """A remote peer: its connections, what it was asked, and the handlers that run for it."""

    def __init__(self, peer: PeerCore) -> None: ...
    @property
    def handling(self) -> int: ...
    @property
    def peer(self) -> PeerCore: ...
    @property
    def calls(self) -> CallTable: ...
    @property
    def streams(self) -> UnitStreams: ...
    @property
    def tasks(self) -> set[asyncio.Task[Any]]: ...
    @property
    def gone(self) -> bool: ...
    @property
    def links(self) -> tuple[Link, ...]: ...
    def forget_link(self, link: Link) -> int:
        """A connection is lost; returns how many are left."""
    def send_control(self, message: bytes) -> bool:
        """Queue a message of section 5 (roles or acquaint) that the caller encoded, whole.

        These are few and small, and are not held back by the high-water mark; a unit that takes none of
        what is unsent loses the connection.  Returns whether there was one to write to.
        """
