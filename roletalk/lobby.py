"""Connections whose handshake is under way, or was refused (docs/protocol.md, section 8)."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from .errors import RoletalkError
    from .gate import Admission

MAX_STRANGERS: Final = 1024
MAX_STRANGERS_PER_ADDRESS: Final = 64  # loopback and Unix sockets excepted
# Connections in a second, loopback and Unix sockets excepted as well.
MAX_ARRIVALS: Final = 2048
MAX_ARRIVALS_PER_ADDRESS: Final = 256
SPARE_DESCRIPTORS: Final = 128  # of the process, and at most a quarter of them


def leaves_descriptors(descriptor: int) -> bool:
    """Whether the program has some left beside this one, the highest in use or nearly so.

    With none left nothing is accepted, by anybody, and no file can be opened.
    """
    if sys.platform == "win32":
        return True
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most == resource.RLIM_INFINITY or descriptor < most - min(SPARE_DESCRIPTORS, most // 4)


def _is_local(host: str) -> bool:
    return host in ("", "::1") or host.startswith("127.")


class Lobby:
    """All admissions under way; those of strangers, who dialled us, are limited in number and rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second_ends = 0.0
        self._arrivals: Counter[str] = Counter()  # in this second
        self._arrivals_in_all = 0
        self._admissions: set[Admission] = set()
        # None: the event loop does not say whom it has accepted before a TLS handshake is done.
        self._strangers: dict[Admission, str | None] = {}
        self._by_host: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether no further stranger may come."""
        return len(self._strangers) >= MAX_STRANGERS

    def has_room(self, host: str | None) -> bool:
        """Whether a further stranger may come from `host`; empty for a Unix socket, None: unknown."""
        return not self.full and (host is None or self._may_come(host))

    def enter(self, admission: Admission, *, stranger: bool) -> None:
        """A handshake begins; a stranger counts from the moment that its socket is accepted."""
        self._admissions.add(admission)
        if stranger:
            self._strangers[admission] = None

    def let_in(self, admission: Admission, host: str) -> bool:
        """Whether a stranger may stay whose address is known now: `host`, empty for a Unix socket."""
        if self._strangers.get(admission) is not None:
            return True
        if not self._may_come(host):
            return False
        self._strangers[admission] = host
        self._by_host[host] += 1
        if not _is_local(host):
            self._arrivals[host] += 1
            self._arrivals_in_all += 1
        return True

    def _may_come(self, host: str) -> bool:
        if _is_local(host):
            return True
        now = self._clock()
        if now >= self._second_ends:
            self._second_ends = now + 1.0
            self._arrivals.clear()
            self._arrivals_in_all = 0
        # Those that one address has too many of do not use up what is there for all.
        return (
            self._by_host[host] < MAX_STRANGERS_PER_ADDRESS
            and self._arrivals[host] < MAX_ARRIVALS_PER_ADDRESS
            and self._arrivals_in_all < MAX_ARRIVALS
        )

    def leave(self, admission: Admission, *, lingers: bool = False) -> None:
        """Its handshake is over, one way or the other; more than one call does no harm.

        A stranger that `lingers`, refused but with its socket open, counts until it leaves for good.
        """
        self._admissions.discard(admission)
        if lingers:
            return
        host = self._strangers.pop(admission, None)
        if host is not None:
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]

    def __len__(self) -> int:
        return len(self._admissions)

    def clear(self, reason: RoletalkError) -> None:
        """Turn everybody away, and those who linger."""
        for admission in {*self._admissions, *self._strangers}:
            admission.fail(reason)
            admission.abort()
