"""Each connection that is lost has to be explained by what the soak did itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

PATIENCE: Final = 20.0  # s from what was done until a connection is lost by it
SKEW: Final = 1.0  # s that a loss may be noticed before what explains it was noted
DELAY: Final = 30.0  # s after which no explanation can come any more


@dataclass(frozen=True)
class Loss:
    """A connection that a peer lost: by names, when (monotonic clock), and how it was closed."""

    peer: str
    unit: str
    at: float
    how: str


@dataclass
class Explanation:
    """`links` connections between two peers were broken, or, with no `unit`, all of one peer's."""

    peer: str
    unit: str | None
    at: float
    links: int
    spent: Counter[str] = field(default_factory=Counter)

    def covers(self, loss: Loss) -> bool:
        """Whether the loss is this one's doing; then it counts as one of `links` at its end."""
        if not self.at - SKEW <= loss.at <= self.at + PATIENCE:
            return False
        if self.unit is None:
            return self.peer in (loss.peer, loss.unit)
        if {loss.peer, loss.unit} != {self.peer, self.unit} or self.spent[loss.peer] >= self.links:
            return False
        self.spent[loss.peer] += 1
        return True


class Ledger:
    """Losses and explanations, which come in any order."""

    def __init__(self) -> None:
        self.explained = 0
        self.unexplained: list[Loss] = []
        self._losses: list[Loss] = []
        self._explanations: list[Explanation] = []

    def broke(self, peer: str, unit: str | None, at: float, links: int = 1) -> None:
        """`links` connections of `peer` with `unit` were broken on purpose at that time.

        Without a unit all of the peer's are, however many, as when its process is killed.
        """
        self._explanations.append(Explanation(peer, unit, at, links))

    def lost(self, loss: Loss) -> None:
        self._losses.append(loss)

    def settle(self, now: float) -> None:
        """Judge the losses for which no further explanation can come; infinity judges all."""
        due = sorted(
            (loss for loss in self._losses if loss.at < now - DELAY), key=lambda loss: loss.at
        )
        self._losses = [loss for loss in self._losses if loss.at >= now - DELAY]
        for loss in due:
            if any(explanation.covers(loss) for explanation in self._explanations):
                self.explained += 1
            else:
                self.unexplained.append(loss)
        self._explanations = [each for each in self._explanations if each.at > now - 4 * DELAY]

    def touched(self, peer: str, since: float) -> bool:
        """Whether anything of that peer was broken on purpose since then."""
        return any(
            peer in (each.peer, each.unit) and each.at >= since for each in self._explanations
        )
