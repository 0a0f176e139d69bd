"""Measures ours beside the reference, in turns: ``python -m bench``.

The machine's speed drifts, so only ratios taken within one round count.
"""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import Child
from .reference import build_cyecho
from .report import Pair, Sample, as_json, describe_setting, print_scenario

WARM_UP_SECONDS = 0.5
QUIET_LOAD = 1.0


@dataclass(frozen=True)
class Scenario:
    """What is asked of the client process, and on which cores."""

    about: str
    command: str
    arguments: dict[str, Any]
    one_core: bool = False


def requests(event: str, in_flight: int, *, timed: bool = False) -> dict[str, Any]:
    return {"event": event, "in_flight": in_flight, "timed": timed}


# More of them go here: the raw floors, the Go peer, streams, many connections, memory.
SCENARIOS = {
    "p64": Scenario("64 requests in flight, sync handler", "requests", requests("echo", 64)),
    "p64 async": Scenario(
        "64 requests in flight, async handler", "requests", requests("echo_async", 64)
    ),
    "p256": Scenario("256 requests in flight, sync handler", "requests", requests("echo", 256)),
    "p256 async": Scenario(
        "256 requests in flight, async handler", "requests", requests("echo_async", 256)
    ),
    "sequential": Scenario(
        "one request after the other, both sides on one core",
        "requests",
        requests("echo", 1, timed=True),
        one_core=True,
    ),
    "one-way": Scenario("messages of 32 B, counted where they arrive", "messages", {}),
}


class Contender:
    """The two processes of ours or of the reference."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.server = stack.enter_context(Child("bench.server", name))
        self.client = stack.enter_context(Child("bench.client", name, str(self.server.ask("port"))))

    def pin(self, *, one_core: bool) -> None:
        self.server.ask("pin", core=0)
        self.client.ask("pin", core=0 if one_core else 1)

    def measure(self, scenario: Scenario, seconds: float) -> Sample:
        """Run `scenario` once."""
        server_cpu, client_cpu = self.server.ask("cpu"), self.client.ask("cpu")
        result = self.client.ask(scenario.command, seconds=seconds, **scenario.arguments)
        server_cpu = self.server.ask("cpu") - server_cpu
        client_cpu = self.client.ask("cpu") - client_cpu
        count = result["count"]
        return Sample(
            per_second=count / result["seconds"],
            client_us=1e6 * client_cpu / count,
            server_us=1e6 * server_cpu / count,
            p50_us=result.get("p50_us"),
            p99_us=result.get("p99_us"),
        )


def measure(
    scenario: Scenario, ours: Contender, reference: Contender, rounds: int, seconds: float
) -> list[Pair]:
    """A warm-up, then `rounds` of both, one after the other."""
    for contender in (ours, reference):
        contender.pin(one_core=scenario.one_core)
        contender.measure(scenario, WARM_UP_SECONDS)
    return [
        Pair(ours.measure(scenario, seconds), reference.measure(scenario, seconds))
        for _ in range(rounds)
    ]


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

    build_cyecho()
    print(", ".join(f"{name} {value}" for name, value in describe_setting().items()))
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > QUIET_LOAD:
        print(f"the machine is busy (load {load:.1f}): trust the CPU figures, not the rates")
    results: dict[str, list[Pair]] = {}
    with ExitStack() as stack:
        ours, reference = Contender("roletalk", stack), Contender("cyecho", stack)
        for name in options.scenario or SCENARIOS:
            scenario = SCENARIOS[name]
            results[name] = measure(scenario, ours, reference, options.rounds, options.seconds)
            print_scenario(name, scenario.about, results[name])
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(results), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
