"""Two runs beside each other: what got slower, or faster, beyond the noise.

Rates of two runs cannot be compared, for the machine was not the same: the ratios to the references
can, which were taken in turns.  A change counts when both hold:

- the rounds of one run lie so far above those of the other that chance orders them like this, or
  further apart, in at most one of 200 cases (Mann-Whitney, exact, one-sided): with five rounds
  each, all of one above all of the other;
- the medians differ by more than a tolerance, for what a run holds constant, such as where its
  processes lie in memory, differs between runs and is not in the spread of its rounds.

Memory does not depend on the machine's speed: it is compared as it is, in however few rounds, and
changes when the tolerance is exceeded and the rounds of the two runs do not overlap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb

from .figures import FIGURES, Spread, quotients, ratio_names, spread, values
from .results import Outcome, Run
from .tables import aligned

SIGNIFICANCE = 0.005
TOLERANCE = 0.1
SAME = "same within the noise"

STEADY = ("memory",)  # figures that do not depend on the machine's speed
Key = tuple[str, str]  # a figure, and the turn that the first is compared with


@dataclass(frozen=True)
class Change:
    """One ratio in both runs."""

    scenario: str
    figure: str
    other: str  # the turn that the first is compared with; empty where the figure itself is meant
    old: Spread | None
    new: Spread | None
    word: str  # "slower", "faster", SAME, or why nothing is said

    @property
    def slower(self) -> bool:
        return self.word == "slower"


def compare(old: Run, new: Run, tolerance: float = TOLERANCE) -> list[Change]:
    """All that either run has; `tolerance` is a fraction."""
    return [
        _judge(scenario, key, before, after, tolerance)
        for scenario, key, before, after in _pairs(old, new)
    ]


def _pairs(old: Run, new: Run) -> Iterator[tuple[str, Key, list[float], list[float]]]:
    for name in dict.fromkeys((*old.outcomes, *new.outcomes)):
        runs = [run.outcomes.get(name) for run in (old, new)]
        found = [_series(outcome) if outcome is not None else {} for outcome in runs]
        for key in dict.fromkeys((*found[0], *found[1])):
            yield name, key, found[0].get(key, []), found[1].get(key, [])


def _series(outcome: Outcome) -> dict[Key, list[float]]:
    """What is compared of a scenario."""
    first, *others = outcome.heading.labels
    series = {}
    for figure in ratio_names(outcome):
        if figure in STEADY:
            continue
        for other in others:
            if found := quotients(outcome, other, figure):
                series[figure, other] = found
    for figure in STEADY:
        if found := values(outcome, first, figure):
            series[figure, ""] = found
    return series


def _judge(scenario: str, key: Key, old: list[float], new: list[float], tolerance: float) -> Change:
    figure, other = key
    before, after = spread(old), spread(new)
    if before is None or after is None:
        word = "only in the new run" if before is None else "only in the old run"
    elif figure not in STEADY and 1 / comb(len(old) + len(new), len(old)) > SIGNIFICANCE:
        word = "too few rounds"
    else:
        low, high = sorted((before.median, after.median))
        above, below = (new, old) if after.median > before.median else (old, new)
        clear = (
            min(above) > max(below) if figure in STEADY else chance(above, below) <= SIGNIFICANCE
        )
        if not clear or high <= low * (1 + tolerance):
            word = SAME
        else:
            word = "faster" if (above is new) is FIGURES[figure].more_is_better else "slower"
    return Change(scenario, FIGURES[figure].title, other, before, after, word)


def chance(above: Sequence[float], below: Sequence[float]) -> float:
    """That values from one source lie in this order, or further apart.

    A pair that is equal counts as being in the wrong order.
    """
    wrong = sum(one <= other for one in above for other in below)
    orders = comb(len(above) + len(below), len(above))
    return _orders(len(above), len(below), wrong) / orders


@cache
def _orders(above: int, below: int, wrong: int) -> int:
    """Of so many values above and below, those with at most `wrong` pairs in the wrong order."""
    if wrong < 0:
        return 0
    if not above or not below:
        return 1
    # The largest of all is one of `above`, wrong with none, or one of `below`, wrong with all.
    return _orders(above - 1, below, wrong) + _orders(above, below - 1, wrong - above)


def comparison_text(old: Run, new: Run, changes: Sequence[Change]) -> str:
    """What differs in the settings, every ratio, and the sum of it."""
    lines = []
    names = dict.fromkeys((*old.setting, *new.setting))
    differing = [
        [name, old.setting.get(name, "-"), new.setting.get(name, "-")]
        for name in names
        if name not in ("date", "load") and old.setting.get(name) != new.setting.get(name)
    ]
    if differing:
        lines += [aligned(["what differs", "old", "new"], differing, left=3, indent=""), ""]
    head = ["scenario", "figure", "to", "old", "new", "change", "verdict"]
    rows = [
        [
            change.scenario,
            change.figure,
            change.other,
            "-" if change.old is None else str(change.old),
            "-" if change.new is None else str(change.new),
            _percent(change),
            "" if change.word == SAME else change.word,
        ]
        for change in changes
    ]
    lines += [aligned(head, rows, left=3, indent=""), ""]
    slower = sum(change.slower for change in changes)
    faster = sum(change.word == "faster" for change in changes)
    same = sum(change.word == SAME for change in changes)
    lines.append(f"{slower} slower, {faster} faster, {same} {SAME}")
    return "\n".join(lines)


def _percent(change: Change) -> str:
    if change.old is None or change.new is None or not change.old.median:
        return ""
    return f"{change.new.median / change.old.median - 1:+.0%}"
