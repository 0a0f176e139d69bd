"""Log lines that remote peers can cause: escaped, cut, and so many a minute.

This module imports nothing of the package but `_text` and `errors`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from ._text import Hint, printable
from .errors import RoletalkError

__all__ = ["WINDOW", "RemoteLog"]

WINDOW: Final = 60.0  # s


class RemoteLog:
    """At most `max_lines` about one remote peer, and `max_lines_in_all`, in each window of time.

    What is left out is counted, and told in one line when the window is over.  The table of remote peers
    holds those that lines were written about, so it is bounded by the lines.
    """

    def __init__(
        self,
        max_lines: int,
        max_lines_in_all: int,
        *,
        logger: str = "roletalk",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_lines = max_lines
        self._max_lines_in_all = max_lines_in_all
        self._logger = logging.getLogger(logger)
        self._clock = clock
        self._ends = 0.0
        self._lines: Counter[str] = Counter()
        self._lines_in_all = 0
        self._left_out: Counter[str] = Counter()  # of those in `_lines`
        self._left_out_in_all = 0
        self._level = logging.NOTSET  # the highest of what was left out
        self.left_out = 0
        """Lines left out since the beginning."""

    def log(
        self,
        level: int,
        about: str,
        text: str,
        *args: object,
        error: BaseException | None = None,
    ) -> None:
        """Write ``text % args`` about a remote peer: a unit's id, or an address.

        Arguments are escaped and cut, but for numbers, a `Hint`, and the hint of an error.  With `error`
        its traceback follows.
        """
        if not self._logger.isEnabledFor(level):
            return
        self.tick()
        if self._lines_in_all >= self._max_lines_in_all or self._lines[about] >= self._max_lines:
            self.left_out += 1
            self._left_out_in_all += 1
            self._level = max(self._level, level)
            if about in self._lines:
                self._left_out[about] += 1
            return
        self._lines[about] += 1
        self._lines_in_all += 1
        self._logger.log(level, text, *map(_shown, args), exc_info=error, stacklevel=2)

    def tick(self, *, end: bool = False) -> None:
        """End the window when its time is over, or when `end` says so."""
        now = self._clock()
        if now < self._ends and not end:
            return
        self._ends = now + WINDOW
        self._lines.clear()
        self._lines_in_all = 0
        if not self._left_out_in_all:
            return
        count, self._left_out_in_all = self._left_out_in_all, 0
        most = ""
        for about, lines in self._left_out.most_common(1):
            most = f", {lines} of them about {printable(about)}"
        self._left_out.clear()
        level, self._level = self._level, logging.NOTSET
        self._logger.log(level, "%d log lines about remote peers were left out%s", count, most)


def _shown(arg: object) -> object:
    if isinstance(arg, (int, float, Hint)):
        return arg
    if isinstance(arg, RoletalkError):
        # What it says may be a remote peer's, and is cut.  The hint is ours, short, and what helps.
        hint = arg.hint
        return f"{printable(arg.what)} ({hint})" if hint else printable(arg.what)
    return printable(str(arg))
