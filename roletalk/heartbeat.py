"""Finding dead connections and a blocked loop (docs/protocol.md, section 6)."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Final

from . import watchdog
from ._peer import clock
from .watchdog import LAG_WARNING

if TYPE_CHECKING:
    from .peer import Peer

_log = logging.getLogger("roletalk")

# s. A ping and what it tells may each be a tick late: so a dead link is known within a second of
# interval and timeout, on a busy machine too.
SLOWEST_TICK: Final = 0.25
FASTEST_TICK: Final = 0.02  # s


class Heartbeat:
    """One timer for all connections of a peer: pings the silent, closes the dead, measures loop lag.

    `interval` and `timeout` are in seconds; with ``None`` for `interval` nobody is pinged, with
    ``None`` for `timeout` nobody is closed.
    """

    def __init__(self, peer: Peer, interval: float | None, timeout: float | None) -> None:
        self._interval = float("inf") if interval is None else interval
        self._timeout = float("inf") if timeout is None else timeout
        bounds = [bound for bound in (interval, timeout) if bound is not None]
        self._period = max(FASTEST_TICK, min([SLOWEST_TICK, *(bound / 4 for bound in bounds)]))
        self._timer: asyncio.TimerHandle | None = None
        self.peer = peer
        self.due: float = 0.0  # s on the clock, when it ticks next
        self.thread: int = 0  # the loop's
        # What the watchdog saw the loop held by, since the last tick.
        self.held_by: str | None = None
        self.lag: float = 0.0  # s, at the last tick
        self.max_lag: float = 0.0  # s, ever

    def start(self) -> None:
        """Begin to tick; does nothing when it does already."""
        if self._timer is None:
            self.thread = threading.get_ident()
            self._schedule(clock())
            watchdog.watch(self)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            watchdog.unwatch(self)
        self.peer.remote_log.tick(end=True)

    def _schedule(self, now: float) -> None:
        self.due = now + self._period
        self._timer = self.peer.loop.call_later(self._period, self._tick)

    def _tick(self) -> None:
        now = clock()
        self.lag = max(now - self.due, 0.0)
        self.max_lag = max(self.max_lag, self.lag)
        if self.lag > LAG_WARNING:
            _log.warning(
                "the event loop was blocked for %.2f s by %s: remote peers that hear nothing for that"
                " long may close their connections",
                self.lag,
                self.held_by or "what was over before it was looked at",
            )
        self.held_by = None
        self._schedule(now)
        self.peer.remote_log.tick()
        for unit in self.peer.units:
            for link in unit.connections:
                link.check_alive(now, self._interval, self._timeout, self.lag)
