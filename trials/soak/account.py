"""What a soak has come to: the figures of its end, and what is told while it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trials import figures
from trials.figures import Figure

from .flatness import Growth, growth
from .ledger import Ledger
from .mesh import Samples

MIB: Final = 1 << 20
RSS_GROWTH: Final = 4.0  # MiB, of a process, over the run
BEYOND_GROWTH: Final = 2  # descriptors that are no connection's
TASKS_GROWTH: Final = 5
OBJECTS_GROWTH: Final = 50  # live objects of one kind, in the debug build
KEPT: Final = 50  # faults whose text is kept


@dataclass(frozen=True)
class Grown:
    """A run of a process and how something grew in it."""

    where: str
    growth: Growth


class Account:
    """Everything that is told, gathered."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.faults: Counter[str] = Counter()
        self.texts: list[str] = []
        self.warnings: Counter[str] = Counter()

    def fault(self, kind: str, text: str) -> None:
        """Something that must not be: ``"wrong"`` or ``"unexpected"``."""
        self.faults[kind] += 1
        if len(self.texts) < KEPT:
            self.texts.append(f"{kind}: {text}")

    def warned(self, text: str) -> None:
        self.warnings[text.partition(" (")[0][:80]] += 1


def tallied(runs: Iterable[Samples]) -> Counter[str]:
    """The sum of what all runs of all processes did, as far as they told it."""
    total: Counter[str] = Counter()
    for run in runs:
        if run.last is not None:
            total.update(run.last["tally"])
            for stats in run.last["stats"]:
                for name in ("bytes_sent", "reconnects", "handshake_failures"):
                    total[name] += stats[name]
    return total


def most_grown(runs: Iterable[Samples], name: str) -> Grown | None:
    """The run in which `name` grew most; None when none was long enough."""
    found = []
    for run in runs:
        grown = growth(*run.series(name))
        if grown is not None:
            found.append(Grown(f"{run.process} {run.number}", grown))
    return max(found, key=lambda each: each.growth.by, default=None)


def flatness(runs: Sequence[Samples]) -> list[Figure]:
    """How much grew in the processes in which that was most."""
    found = []
    for what, name, unit, scale, bound in (
        ("growth of RSS", "rss", "MiB", MIB, RSS_GROWTH),
        ("growth of descriptors beyond connections", "beyond", "", 1, BEYOND_GROWTH),
        ("growth of asyncio tasks beyond those at work", "tasks", "", 1, TASKS_GROWTH),
    ):
        grown = most_grown(runs, name)
        text = f"{what}, in the process where it was most"
        if grown is None:
            found.append(figures.told(text, "too short a run to tell"))
            continue
        found.append(figures.at_most(text, grown.growth.by / scale, bound, unit))
    for what, name, unit, scale in (
        ("steepest slope of RSS", "rss", "MiB an hour", MIB),
        ("steepest slope of bytes allocated by malloc", "allocated", "MiB an hour", MIB),
        ("steepest slope of memory blocks of Python", "blocks", "an hour", 1),
    ):
        slopes = [each.an_hour / scale for run in runs if (each := growth(*run.series(name)))]
        if slopes:
            found.append(figures.told(what, max(slopes), unit))
    return found + _live_objects(runs)


def _live_objects(runs: Sequence[Samples]) -> list[Figure]:
    """Of the debug build, which counts them."""
    found = []
    for run in runs:
        times = [line["at"] for line in run.lines]
        for kind in run.lines[0]["objects"] if run.lines else ():
            grown = growth(times, [line["objects"][kind] for line in run.lines])
            if grown is not None:
                found.append(grown.by)
    if not found:
        return []
    return [figures.at_most("growth of live objects of one kind", max(found), OBJECTS_GROWTH)]


def peak(runs: Iterable[Samples], name: str) -> float:
    return max((line[name] for run in runs for line in run.lines), default=0.0)


def write_progress(file: Path, progress: dict[str, Any]) -> None:
    """Replace the summary at once, so that whoever reads it finds a whole one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(progress, indent=1, ensure_ascii=False) + "\n", "utf-8")
    new.replace(file)
