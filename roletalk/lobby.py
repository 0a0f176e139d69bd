"""Connections whose handshake is under way, or was refused (docs/protocol.md, section 8)."""

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
        # None: the event loop does not say whom it has accepted before a TLS handshake is done.
        self._strangers: dict[Admission, str | None] = {}
        self._by_host: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether no further stranger may come."""
        return len(self._strangers) >= MAX_STRANGERS

    def has_room(self, host: str | None) -> bool:
        """Whether a further stranger may come from `host`; empty for a Unix socket, None: unknown."""
        if host is None or host in ("", "::1") or host.startswith("127."):
            return not self.full
        return not self.full and self._by_host[host] < MAX_STRANGERS_PER_ADDRESS

    def enter(self, admission: Admission, *, stranger: bool) -> None:
        """A handshake begins; a stranger counts from the moment that its socket is accepted."""
        self._admissions.add(admission)
        if stranger:
            self._strangers[admission] = None

    def let_in(self, admission: Admission, host: str) -> bool:
        """Whether a stranger may stay whose address is known now: `host`, empty for a Unix socket."""
        if self._strangers.get(admission) is not None:
            return True
        local = host in ("", "::1") or host.startswith("127.")
        if not local and self._by_host[host] >= MAX_STRANGERS_PER_ADDRESS:
            return False
        self._strangers[admission] = host
        self._by_host[host] += 1
        return True

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
        """Turn everybody away."""
        for admission in tuple(self._admissions):
            admission.fail(reason)
            admission.abort()
