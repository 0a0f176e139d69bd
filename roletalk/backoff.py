"""When a lost address is dialled again (docs/protocol.md, section 6)."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = (0.0, 0.4)  # s after a loss: those who lost the same peer do not come back at once
# s between tries of what is likely to be a peer that restarts: it is found within a second.
QUICK: Final = (0.35, 0.7)
QUICK_TRIES: Final = 10
SCHEDULE: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 30.0, 60.0)  # s; the last one repeats
JITTER: Final = 0.2  # of the delay, each way
# s that a connection has to live for the delays to begin anew: more than it takes a remote to turn us
# out, and little enough that connections which are lost every few seconds are soon back each time.
STEADY: Final = 1.0
# Of a peer that keeps more than these, each is dialled more slowly: 120 dials a second at most.
QUICK_ADDRESSES: Final = 64


class BackOff:
    """The delays of one address.

    A dial that found nobody burdens nobody: the system answers it, or no one.  So as long as that is
    what happens the delays stay short, however long it lasts.  They grow where somebody was reached, a
    remote peer that is in trouble or does not want us.
    """

    def __init__(self) -> None:
        self._tries = 0

    def lost(self, lived: float) -> float:
        """Seconds to wait after a connection that lived for `lived` seconds is lost."""
        if lived >= STEADY:
            self._tries = 0
        return self._next()

    def found_nobody(self, addresses: int) -> float:
        """Seconds to wait after a dial that reached no program; `addresses`: how many are kept up."""
        self._tries = 1
        return self._next() * max(1.0, addresses / QUICK_ADDRESSES)

    def failed(self) -> float:
        """Seconds to wait after a dial that somebody answered, but that came to nothing."""
        return self._next()

    def refused(self) -> float:
        """Seconds to wait after a remote peer that turned us away in the handshake."""
        self._tries = max(self._tries, QUICK_TRIES + 1)
        return self._next()

    def _next(self) -> float:
        tries, self._tries = self._tries, self._tries + 1
        if tries == 0:
            return random.uniform(*FIRST)
        if tries <= QUICK_TRIES:
            return random.uniform(*QUICK)
        delay = SCHEDULE[min(tries - QUICK_TRIES, len(SCHEDULE)) - 1]
        return delay * random.uniform(1 - JITTER, 1 + JITTER)
