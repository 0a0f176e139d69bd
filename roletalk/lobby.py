"""Connections whose handshake is under way (docs/protocol.md, section 8)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .errors import RoletalkError
    from .gate import Admission

MAX_STRANGERS: Final = 1024
MAX_STRANGERS_PER_ADDRESS: Final = 64  # loopback and Unix sockets excepted


class Lobby:
    """All admissions under way; those of strangers, who dialled us, are limited in number."""

    def __init__(self) -> None:
        self._admissions: set[Admission] = set()
        self._strangers: dict[Admission, str] = {}
        self._by_host: Counter[str] = Counter()

    def enter(self, admission: Admission) -> None:
        self._admissions.add(admission)

    def let_in(self, admission: Admission, host: str) -> bool:
        """Whether one more stranger from `host` (empty: a Unix socket) may stay; counts it if so."""
        local = host in ("", "::1") or host.startswith("127.")
        if len(self._strangers) >= MAX_STRANGERS:
            return False
        if not local and self._by_host[host] >= MAX_STRANGERS_PER_ADDRESS:
            return False
        self._strangers[admission] = host
        self._by_host[host] += 1
        return True

    def leave(self, admission: Admission) -> None:
        """Its handshake is over, one way or the other; more than one call does no harm."""
        self._admissions.discard(admission)
        host = self._strangers.pop(admission, None)
        if host is not None:
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]

    def __len__(self) -> int:
        return len(self._admissions)

    def clear(self, reason: RoletalkError) -> None:
        """Turn everybody away."""
        for admission in tuple(self._admissions):
            admission.fail(reason)
            admission.abort()
