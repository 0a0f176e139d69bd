"""Measures ours beside the references, in turns: ``python -m bench``.

The machine's speed drifts, so only ratios taken within one round count.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from .contenders import Contender, Contenders, Unavailable
from .report import Outcome, as_json, describe_setting, print_scenario
from .scenarios import SCENARIOS, Scenario, Turn

WARM_UP_SECONDS = 0.5
QUIET_LOAD = 1.0


def measure(scenario: Scenario, contenders: Contenders, rounds: int, seconds: float) -> Outcome:
    """A warm-up, then `rounds` of all turns, one after the other."""
    turns: list[tuple[Turn, Contender]] = []
    outcome = Outcome([])
    for turn in scenario.turns:
        try:
            turns.append((turn, contenders.get(turn.contender)))
        except Unavailable as error:
            outcome.missing[turn.label] = str(error)
    for turn, contender in turns:
        contender.pin(one_core=scenario.one_core)
        contender.measure(turn, WARM_UP_SECONDS)
    for _ in range(rounds):
        outcome.rounds.append(
            {turn.label: contender.measure(turn, seconds) for turn, contender in turns}
        )
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each contender (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="a round (default: 1)")
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="may be repeated (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")

    print(", ".join(f"{name} {value}" for name, value in describe_setting().items()))
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > QUIET_LOAD:
        print(f"the machine is busy (load {load:.1f}): trust the CPU figures, not the rates")
    outcomes: dict[str, Outcome] = {}
    with Contenders() as contenders:
        for name in options.scenario or SCENARIOS:
            outcomes[name] = measure(SCENARIOS[name], contenders, options.rounds, options.seconds)
            print_scenario(name, SCENARIOS[name], outcomes[name])
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(outcomes), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
