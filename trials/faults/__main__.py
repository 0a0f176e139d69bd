"""`python -m trials.faults`: every scenario, or those that are named, and their figures."""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import sys
import time
import traceback
from collections.abc import Awaitable, Sequence
from importlib import import_module
from typing import Final, cast

import uvloop

from trials.faults.scenario import Scenario, Settings
from trials.figures import Figure, report

# The modules, in the order in which they are run; each is imported when it is.
SCENARIOS: Final = (
    "redundancy",
    "lost",
    "halfopen",
    "graceful",
    "trickle",
    "network",
    "restart",
    "crowd",
    "stalled",
    "blocked",
    "sigterm",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller size of each")
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, help="this one; may be given again"
    )
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for name in options.only or SCENARIOS:
        figures += _run(name, Settings(quick=options.quick))
    return report("faults", _command(options), figures)


def _run(name: str, settings: Settings) -> Sequence[Figure]:
    """The figures of one scenario; where it breaks down, one that says so."""
    # What the scenario before has left is not collected in the middle of this one's times.
    gc.collect()
    started = time.monotonic()
    try:
        scenario = cast(Scenario, import_module(f"trials.faults.{name}"))
        print(f"{scenario.NAME} …", file=sys.stderr, flush=True)
        figures = scenario.run(settings)
        if inspect.isawaitable(figures):
            figures = _run_in_loop(figures)
    except Exception as exc:
        traceback.print_exc()
        return [Figure(name, "runs to its end", f"{type(exc).__name__}: {exc}", met=False)]
    print(f"{scenario.NAME}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    return figures


def _run_in_loop(figures: Awaitable[Sequence[Figure]]) -> Sequence[Figure]:
    async def body() -> Sequence[Figure]:
        return await figures

    loop = uvloop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(body())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _command(options: argparse.Namespace) -> str:
    given = ["--quick"] * options.quick + [f"--only {name}" for name in options.only or ()]
    return "make faults" + (f' TRIAL_ARGS="{" ".join(given)}"' if given else "")


if __name__ == "__main__":
    sys.exit(main())
