"""Ending peers when their process is asked to end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_log = logging.getLogger("roletalk")

# What service managers, containers and `kill` send.  The Ctrl-C of a terminal is the loop's own affair:
# asyncio.run() cancels its task, which closes the peer as well.
ASKED: Final = signal.SIGTERM


class Asked:
    """Who of a loop wants to know that SIGTERM came.

    It is taken only where nothing else took it, in the main thread, and given back by the last one who
    leaves, or when it came: the second one then does what it does to any process, and ends it at once.
    """

    def __init__(self) -> None:
        self._told: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Within the block, `tell` is called in the running loop when the signal comes."""
        loop = asyncio.get_running_loop()
        told = self._told.get(loop)
        if told is None:
            if signal.getsignal(ASKED) is not signal.SIG_DFL:
                yield
                return
            try:
                loop.add_signal_handler(ASKED, self._came, loop)
            except (NotImplementedError, RuntimeError, ValueError):
                # Windows; another thread than the main one.
                yield
                return
            told = self._told[loop] = []
        told.append(tell)
        try:
            yield
        finally:
            told.remove(tell)
            # Not what another one took after it came.
            if not told and self._told.get(loop) is told:
                self._release(loop)

    def _came(self, loop: asyncio.AbstractEventLoop) -> None:
        told = tuple(self._told.get(loop, ()))
        self._release(loop)
        _log.info("%s: closing; a second one ends the process at once", ASKED.name)
        for tell in told:
            tell()

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._told.pop(loop, None) is not None:
            with suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(ASKED)


asked: Final = Asked()
