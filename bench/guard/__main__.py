"""Counts what a request costs and compares that with the baseline: ``python -m bench.guard``.

Allocations, system calls and instructions do not depend on how fast or busy the machine is.  The
exit status is 1 when something got worse than the baseline by more than its tolerance.
"""

import argparse
import sys
from pathlib import Path

from .baseline import (
    FILE,
    TOLERANCES,
    Measured,
    Row,
    compare,
    differences,
    load,
    lowest,
    not_counted,
    save,
)
from .compiled import NoCompilerError
from .counting import MeasurementError, measure, python_version
from .elsewhere import BuildError, run_with

UPDATE_HINT = "make guard-update"


def print_table(rows: list[Row]) -> None:
    width = max(len(row.path) for row in rows)
    print(f"{'of one operation':{width}}  {'':12} {'baseline':>10} {'now':>10} {'change':>16}")
    before = ""
    for row in rows:
        name, before = (row.path if row.path != before else ""), row.path
        known = "-" if row.baseline is None else number(row.baseline)
        print(
            f"{name:{width}}  {row.what:12} {known:>10} {number(row.now):>10} {change_of(row):>16}"
            + ("  WORSE" if row.is_worse else "  better" if row.is_better else "")
        )


def number(count: float) -> str:
    return f"{count:,.0f}" if count >= 1000 else f"{count:.2f}"


def change_of(row: Row) -> str:
    if row.baseline is None:
        return "-"
    if row.baseline == 0:
        return f"{row.change:+.2f}"
    return f"{row.change:+,.2f} {row.change / row.baseline:+.1%}"


def judge(kept: Measured | None, now: Measured, notes: list[str], version: str) -> int:
    """Print all there is to say.  Returns the exit status."""
    rows = compare(kept, now)
    print_table(rows)
    missing: list[str] = []
    if kept is None:
        notes.append(f"there is no baseline for Python {version}: nothing was compared")
    else:
        missing = not_counted(kept, now)
        changed = differences(kept, now)
        notes.extend(f"since the baseline: {change}" for change in changed)
        if changed:
            notes.append("instructions depend on all of that: they are shown, not compared")
    for note in notes:
        print(f"note: {note}")
    for path in missing:
        print(f"{path!r} is in the baseline and was not counted")
    worse = sum(row.is_worse for row in rows)
    if worse:
        print(f"{worse} of {len(rows)} counts are worse than the baseline")
    if worse or missing:
        print(f"if that is meant: {UPDATE_HINT}")
        return 1
    if any(row.is_better for row in rows):
        print(f"better than the baseline; have it guarded: {UPDATE_HINT}")
    return 0


def guard(file: Path, *, update: bool) -> int:
    version = python_version()
    notes: list[str] = []
    try:
        now = measure(notes)
        kept = load(file).get(version)
        if not update and any(row.is_worse for row in compare(kept, now)):
            # A count cannot be too low by chance.
            now = lowest(now, measure([]))
    except NoCompilerError as error:
        print(f"note: nothing is guarded: {error}")
        return 1 if update else 0
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Python {version}")
    status = judge(kept, now, notes, version)
    if update:
        save(file, version, now)
        print(f"the baseline of Python {version} is updated")
        return 0
    return status


def main() -> int:
    allowed = ", ".join(f"{what} {tolerance.share:.0%}" for what, tolerance in TOLERANCES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.guard", description=__doc__, epilog=f"Tolerances: {allowed}."
    )
    parser.add_argument("--update", action="store_true", help="make what is counted the baseline")
    parser.add_argument(
        "--baseline", type=Path, default=FILE, metavar="FILE", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="count with that one in place of this, after building for it; may be repeated",
    )
    options = parser.parse_args()
    if not options.python:
        return guard(options.baseline, update=options.update)
    arguments = ["--baseline", str(options.baseline.resolve())]
    arguments += ["--update"] if options.update else []
    try:
        return max(run_with(python, arguments) for python in options.python)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
