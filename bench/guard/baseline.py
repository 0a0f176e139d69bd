"""The committed counts, and what differs from them by more than chance."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

FILE = Path(__file__).with_name("baseline.json")

# path -> what is counted -> how often one operation does it
Counts = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Tolerance:
    """A count may differ by either, whichever is more."""

    share: float
    absolute: float

    def margin(self, baseline: float) -> float:
        return max(self.share * baseline, self.absolute)


TOLERANCES = {
    "allocations": Tolerance(share=0.02, absolute=0.05),
    "system calls": Tolerance(share=0.02, absolute=0.05),
    # The compiler's choices, and what libc picks for a CPU.
    "instructions": Tolerance(share=0.10, absolute=0.0),
}
# Whose counts are compared only within one environment: they are those of Python's build as well.
ENVIRONMENT_BOUND = ("instructions",)


class Measured(TypedDict):
    """What is kept for one version of Python."""

    environment: dict[str, str]
    counts: Counts


@dataclass(frozen=True)
class Row:
    """One count of one path; `baseline` is None where there is nothing to compare with."""

    path: str
    what: str
    baseline: float | None
    now: float

    @property
    def change(self) -> float:
        return 0.0 if self.baseline is None else self.now - self.baseline

    @property
    def is_worse(self) -> bool:
        return self.baseline is not None and self.change > self._margin()

    @property
    def is_better(self) -> bool:
        return self.baseline is not None and -self.change > self._margin()

    def _margin(self) -> float:
        return TOLERANCES[self.what].margin(self.baseline or 0.0)


def compare(baseline: Measured | None, now: Measured) -> list[Row]:
    """A row for each count of `now`."""
    return list(_rows(baseline, now))


def _rows(baseline: Measured | None, now: Measured) -> Iterator[Row]:
    same_environment = baseline is not None and not differences(baseline, now)
    for path, counts in now["counts"].items():
        known = {} if baseline is None else baseline["counts"].get(path, {})
        for what, count in counts.items():
            comparable = same_environment or what not in ENVIRONMENT_BOUND
            yield Row(path, what, known.get(what) if comparable else None, count)


def differences(baseline: Measured, now: Measured) -> list[str]:
    """What the two were counted with, where that is not the same."""
    then, here = baseline["environment"], now["environment"]
    return [
        f"{name} was {then.get(name, 'absent')}, is {here.get(name, 'absent')}"
        for name in sorted(then.keys() | here.keys())
        if then.get(name) != here.get(name)
    ]


def not_counted(baseline: Measured, now: Measured) -> list[str]:
    """The paths that the baseline has and that were not counted: a guard must not shrink unseen."""
    return sorted(baseline["counts"].keys() - now["counts"].keys())


def lowest(one: Measured, other: Measured) -> Measured:
    """The lower of both for each count, of two measurements in one environment."""
    counts = {
        path: {what: min(count, other["counts"][path][what]) for what, count in found.items()}
        for path, found in one["counts"].items()
    }
    return {"environment": one["environment"], "counts": counts}


def load(file: Path) -> dict[str, Measured]:
    """What is kept, by version of Python; nothing yet where there is no file."""
    if not file.exists():
        return {}
    kept: dict[str, Measured] = json.loads(file.read_text())
    return kept


def save(file: Path, version: str, measured: Measured) -> None:
    """Keep `measured` for `version` in place of what was; other versions stay.

    Where there is no valgrind now the instructions that were counted before go, too: they are of
    other code.
    """
    kept = {**load(file), version: measured}
    ordered = dict(sorted(kept.items(), key=lambda item: _as_numbers(item[0])))
    file.write_text(json.dumps(ordered, indent=2) + "\n")


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.rstrip("t").split("."))
