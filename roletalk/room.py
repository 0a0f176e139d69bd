"""Those who wait until a connection has room for what they send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._session import Link
    from .peer import Peer


class Room:
    """The waiters of one peer, by connection, in the order in which they came."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._waiters: dict[Link, dict[asyncio.Future[None], None]] = {}

    def wait(self, link: Link) -> asyncio.Future[None]:
        """A future that is done when `link` has room, or is gone."""
        waiter: asyncio.Future[None] = self._peer.loop.create_future()
        if link.has_room_now or not link.is_open:
            waiter.set_result(None)
        else:
            waiters = self._waiters.setdefault(link, {})
            waiters[waiter] = None
            waiter.add_done_callback(lambda done: waiters.pop(done, None))
            link.wait_for_room()
        return waiter

    def is_there(self, link: Link) -> None:
        """`link` has room, or is gone: wake all who wait for it."""
        for waiter in tuple(self._waiters.pop(link, ())):
            if not waiter.done():
                waiter.set_result(None)
