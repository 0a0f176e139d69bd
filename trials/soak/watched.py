"""A peer that tells of each connection that it loses."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from roletalk import Peer, Unit
from roletalk.units import Units

if TYPE_CHECKING:
    from roletalk.gate import Admission

_REMEMBERED: Final = 1024  # losses


class _WatchedUnits(Units):
    """Units tell of their last connection only, and the soak wants to know of each one."""

    def __init__(self, units: Units, lost: Callable[[Admission, Unit], None]) -> None:
        super().__init__(units._peer, units._most)
        self._lost = lost

    def link_lost(self, admission: Admission, unit: Unit) -> None:
        self._lost(admission, unit)
        super().link_lost(admission, unit)


class WatchedPeer(Peer):
    def __init__(self, told: Callable[[dict[str, Any]], None], **options: Any) -> None:
        # Handlers fail on purpose here, and each line has to be looked at.
        super().__init__(max_log_lines=1_000_000, max_log_lines_in_all=1_000_000, **options)
        self._told = told
        self._losses: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self._units = _WatchedUnits(self._units, self._link_lost)

    def _link_lost(self, admission: Admission, unit: Unit) -> None:
        link = admission.link
        # The loop's clock is the same one; this is compared with what other processes say.
        now = time.monotonic()
        self._losses.append((now, unit.name))
        how = f"{link.close_code} {link.close_reason}".strip()
        by = "us" if link.closed_by_us else "them"
        self._told(
            {
                "event": "lost",
                "peer": self.name,
                "unit": unit.name,
                "at": now,
                "how": f"{how}, by {by}",
            }
        )

    def lost_since(self, at: float, unit: str | None = None) -> bool:
        """Whether a connection was lost since then (monotonic clock), one to that unit if named."""
        return any(when >= at and unit in (None, name) for when, name in self._losses)
