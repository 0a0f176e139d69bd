"""``python -m trials.leaks``: do what ends a hundred thousand times, and see what is left.

Each action runs in a process of its own, on the release build, and then on the debug build, which
counts its live objects, a tenth as often.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from trials import figures

from .actions import ACTIONS
from .child import ROUNDS, Footprint, Left

COMMAND = "make leaks"
ROOT = Path(__file__).resolve().parents[2]
MOST_OBJECTS = 100  # of the second half of the actions: caches that fill late, not one each
MOST_BLOCKS = 500
MOST_MEMORY = 1 << 20  # bytes
# The other actions are done a tenth as often: what they do ends in failures that take their time.
OFTEN = ("connects", "peers made", "requests", "streams that")
NO_CYCLES = ("requests", "streams")  # actions whose objects must be gone without a collection


def run(action: str, count: int, *, debug: bool) -> Left:
    """Measure in a process of its own.  Raises `CalledProcessError`."""
    environment = dict(os.environ)
    if debug:
        environment["PYTHONPATH"] = str(ROOT / "tools" / "debug")
    command = [sys.executable, "-m", "trials.leaks.child", action, str(count)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    return Left(**{**found, "growth": Footprint(**found["growth"])})


def faults(left: Left) -> list[str]:
    """What is left that should not be, in words."""
    grown = left.growth
    bad = []
    if grown.files > 0 or grown.tasks > 0:
        bad.append(f"{grown.files} files and {grown.tasks} tasks are left")
    if grown.objects > MOST_OBJECTS or grown.blocks > MOST_BLOCKS:
        bad.append(f"{grown.objects} objects and {grown.blocks} blocks are left")
    if grown.memory > MOST_MEMORY and not left.debug:
        bad.append(f"{grown.memory} bytes are left")
    if left.cycles and left.action.startswith(NO_CYCLES):
        bad.append(f"{left.cycles} objects were in cycles")
    if left.alive:
        bad.append(f"{left.alive} compiled objects are alive")
    return bad


def figure(left: Left) -> figures.Figure:
    grown = left.growth
    asked = f"0 files, 0 tasks, ≤ {MOST_OBJECTS} objects, ≤ {MOST_BLOCKS} blocks, "
    got = f"{grown.files} files, {grown.tasks} tasks, {grown.objects} objects, {grown.blocks} blocks, "
    if left.debug:
        asked += "0 alive"
        got += f"{left.alive} alive"
    else:
        asked += f"≤ {MOST_MEMORY >> 10} KiB"
        got += f"{grown.memory >> 10} KiB"
    got += f"; {left.cycles / left.count:.1f} objects each in cycles, {left.seconds:.0f} s"
    build = "debug build" if left.debug else "release build"
    return figures.Figure(f"{left.count:,} {left.action}, {build}", asked, got, not faults(left))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.leaks", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="of connects, requests, streams")
    parser.add_argument("--action", action="append", choices=tuple(ACTIONS), help="only this one")
    options = parser.parse_args()
    least = 20 * ROUNDS
    results = []
    for action in options.action or ACTIONS:
        for debug in (False, True):
            rarely = (10 if debug else 1) * (1 if action.startswith(OFTEN) else 10)
            count = max(options.count // rarely, least)
            left = run(action, count, debug=debug)
            results.append(figure(left))
            print(f"{left.count:,} {action}: {left.seconds:.0f} s", flush=True)
            for bad in faults(left):
                print(f"leaks: {action}: {bad}", file=sys.stderr)
    return figures.report("leaks", COMMAND, results)


if __name__ == "__main__":
    sys.exit(main())
