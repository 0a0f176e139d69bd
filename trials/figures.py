"""What a trial found: figures beside what was asked of them, printed, and kept for the scorecard."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).resolve().parent.parent / "build" / "trials"


@dataclass(frozen=True)
class Figure:
    """One row of the scorecard.

    what: what was measured, in words.  asked: its bound as text, empty when none was set.  got: the
    value as text, with its unit.  met: whether the bound holds; true when there is none.
    """

    what: str
    asked: str
    got: str
    met: bool


@dataclass(frozen=True)
class Result:
    """All that one run of one trial came to, and where and when."""

    trial: str
    command: str
    date: str
    machine: str
    figures: tuple[Figure, ...]

    @property
    def met(self) -> bool:
        return all(figure.met for figure in self.figures)


def at_most(what: str, got: float, bound: float, unit: str = "") -> Figure:
    """A figure that must not exceed `bound`; both in `unit`."""
    return Figure(what, f"≤ {_text(bound, unit)}", _text(got, unit), got <= bound)


def at_least(what: str, got: float, bound: float, unit: str = "") -> Figure:
    """A figure that must reach `bound`; both in `unit`."""
    return Figure(what, f"≥ {_text(bound, unit)}", _text(got, unit), got >= bound)


def told(what: str, got: float | str, unit: str = "") -> Figure:
    """A figure that nothing was asked of."""
    return Figure(what, "", got if isinstance(got, str) else _text(got, unit), met=True)


def report(trial: str, command: str, figures: Sequence[Figure]) -> int:
    """Print the figures and keep them in build/trials/; what the trial's process shall exit with.

    command: what a reader runs to get these figures, from the root of a checkout.
    """
    result = Result(
        trial,
        command,
        datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        f"{platform.system()} {platform.machine()},"
        f" {platform.python_implementation()} {platform.python_version()}",
        tuple(figures),
    )
    width = max(len(figure.what) for figure in figures)
    for figure in figures:
        asked = f"  ({figure.asked})" if figure.asked else ""
        print(f"{'  ' if figure.met else '! '}{figure.what:{width}}  {figure.got}{asked}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False)
    (RESULTS / f"{trial}.json").write_text(text + "\n", "utf-8")
    if not result.met:
        print(f"{trial}: what is marked with ! was not met", file=sys.stderr)
    return 0 if result.met else 1


def load(file: Path) -> Result:
    """What `report` has kept."""
    kept = json.loads(file.read_text("utf-8"))
    figures = tuple(Figure(**figure) for figure in kept.pop("figures"))
    return Result(figures=figures, **kept)


def _text(value: float, unit: str) -> str:
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"
    return f"{number} {unit}".rstrip()
