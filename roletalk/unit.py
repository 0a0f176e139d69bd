"""Units: the remote peers that this one is connected to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from ._session import UnitCore
from ._text import quoted
from ._wire import CloseCode
from .announcer import RoleChanges
from .callbacks import Callbacks

if TYPE_CHECKING:
    from ._session import Link
    from .auth import PeerInfo
    from .dialer import Dialer
    from .peer import Peer

CloseCallback = TypeVar("CloseCallback", bound=Callable[["Unit"], object])

# Listed in message 3 (docs/protocol.md, section 9): a writer that never sends beyond its credit.
STREAMS: Final = "streams"
FIRST_CREDIT: Final = 16_384  # bytes (docs/protocol.md, section 7)
NODE_22_CREDIT: Final = 65_536  # bytes


class Unit(UnitCore):
    """A remote peer, for as long as at least one connection to it lives.

    `id`, `name`, `friendly`, `meta` and `tags` are what it said of itself when it came
    (docs/protocol.md, section 4); `roles` is what it serves now.  `key_id` is the id of the key that it
    proved, ``None`` where this peer has no keys: of all these the one that it cannot choose freely.  A
    remote peer that went and came back is another `Unit`.
    """

    peer: Peer
    id: str
    name: str
    friendly: bool
    meta: Mapping[str, str | int | float | bool]
    tags: Mapping[str, str]
    roles: frozenset[str]
    key_id: str | None

    def __init__(
        self, peer: Peer, info: PeerInfo, key_id: str | None, features: frozenset[str]
    ) -> None:
        super().__init__(peer)
        self.id = info.id
        self.name = info.name
        self.friendly = info.friendly
        self.meta = info.meta
        self.tags = info.tags
        self.roles = frozenset(info.roles)
        # A further connection has to have proved the same one (docs/protocol.md, section 8).
        self.key_id = key_id
        # The counter of the last roles message that was taken.
        self._roles_at = -1
        self._role_changes = RoleChanges(peer, self)
        self._dialers: set[Dialer] = set()
        self._close_callbacks: Callbacks[Unit] = Callbacks(peer, "Unit.on_close", "unit")
        self._lost = asyncio.Event()
        # A connection that was being made when it was closed is closed as well.
        self._is_closed = False
        runtime = str(info.meta.get("runtime", ""))
        self.streams.set_manners(
            is_exact=STREAMS in features,
            is_go=runtime == "GO",
            first_credit=NODE_22_CREDIT if _is_node_22(runtime) else FIRST_CREDIT,
        )

    @property
    def connected(self) -> bool:
        """Whether at least one connection to it lives; once False, never True again."""
        return not self.gone

    @property
    def connections(self) -> tuple[Link, ...]:
        """The connections to it that are open, or in their closing handshake."""
        return self.links

    async def close(self) -> None:
        """Close all its connections on purpose (4000) and stop reconnecting to its addresses.

        Returns when the last one is gone; requests pending on it fail with `UnitClosedError`.
        """
        self.peer.bind()
        self._is_closed = True
        # Those too that dial it again, and have it in mind as it was before.
        lost = (each for each in self.peer._dialers if each.unit and each.unit.id == self.id)
        for dialer in {*self._dialers, *lost}:
            dialer.stop()
        for link in self.connections:
            link.close(CloseCode.MANUAL, "closed on purpose")
        await self._lost.wait()

    async def __aenter__(self) -> Unit:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def on_close(self, function: CloseCallback) -> CloseCallback:
        """Decorate a callback, called with the unit when its last connection is gone."""
        return self._close_callbacks.add(function)

    def __repr__(self) -> str:
        state = f"connections={len(self.connections)}" if self.connected else "closed"
        return f"<Unit {quoted(self.name)} id={quoted(self.id)} {state}>"


def _is_node_22(runtime: str) -> bool:
    """Whether it is a Node.js whose streams begin with 64 KiB in place of 16."""
    found = re.match(r"nodejs v(\d{1,4})\.", runtime)
    return found is not None and int(found[1]) >= 22
