"""Accepting connections: whose they are, and what happens when file descriptors run out."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

REMOTE_HOST: Final[ContextVar[str | None]] = ContextVar("remote_host", default=None)
"""Of the connection that was accepted last, in the task that makes its transport; None: unknown."""

_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY: Final = (errno.ENOBUFS, errno.ENOMEM)


class ListeningSocket(socket.socket):
    """A duplicate of a bound socket, with an `accept` that a server may call in any case.

    A server that is told of a lack of file descriptors reports it and tries again at once, as long as
    the lack lasts: the connection stays in the queue.  Here one descriptor is kept for that: it takes
    the connection out of the queue and closes it, and `turned_away` is called.
    """

    def __init__(self, bound: Any, turned_away: Callable[[], None]) -> None:
        spare = os.open(os.devnull, os.O_RDONLY)
        try:
            super().__init__(bound.family, bound.type, bound.proto, fileno=bound.dup().detach())
        except BaseException:
            os.close(spare)
            raise
        self._turned_away = turned_away
        self._spare = spare

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            accepted, address = super().accept()
        except OSError as exc:
            if exc.errno in _NO_MEMORY:
                raise BlockingIOError from exc
            if exc.errno in _NO_DESCRIPTOR:
                raise self._turn_away() from exc
            raise
        # The task is made in a copy of this context.
        REMOTE_HOST.set(address[0] if isinstance(address, tuple) else "")
        return accepted, address

    def _turn_away(self) -> OSError:
        """What a server takes to go on with, or to wait if that is of no use."""
        outcome: OSError = BlockingIOError()
        self._close_spare()
        with suppress(OSError):
            super().accept()[0].close()
            self._turned_away()
            outcome = ConnectionAbortedError()
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)
        return outcome

    def _close_spare(self) -> None:
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)

    def close(self) -> None:
        super().close()
        self._close_spare()
