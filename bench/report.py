"""What the benchmark prints, and what it writes as JSON."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any

from .scenarios import Scenario


@dataclass(frozen=True)
class Sample:
    """One turn in one round."""

    per_second: float  # requests, messages, or MB of 10^6 bytes
    client_us: float  # of CPU for one of them
    server_us: float
    p50_us: float | None = None
    p99_us: float | None = None
    bulk_per_second: float | None = None  # MB that a stream carried meanwhile


Round = Mapping[str, Sample]  # by the label of the turn, one right after the other


@dataclass
class Outcome:
    """What came of a scenario."""

    rounds: list[Round]
    missing: dict[str, str] = field(default_factory=dict)  # the turns that could not be, and why

    def samples(self, label: str) -> list[Sample]:
        return [turns[label] for turns in self.rounds]


def used(sample: Sample) -> float:
    """µs of CPU of both sides together."""
    return sample.client_us + sample.server_us


def quotient(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


# Of the first turn of a round and another one; None where they have no such figure.
RATIOS: dict[str, tuple[str, Callable[[Sample, Sample], float | None]]] = {
    "rate": ("of rate", lambda one, other: quotient(one.per_second, other.per_second)),
    "p50": ("of p50", lambda one, other: quotient(one.p50_us, other.p50_us)),
    "p99": ("of p99", lambda one, other: quotient(one.p99_us, other.p99_us)),
    # Less disturbed by whatever else the machine does than the rates are.
    "CPU": ("of CPU, theirs to ours", lambda one, other: quotient(used(other), used(one))),
}


def spread(values: Sequence[float], form: str) -> str:
    """``median (min..max)``"""
    return f"{median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def describe_setting() -> dict[str, str]:
    """What the figures depend on, beside the machine."""
    names = ("uvloop", "picows", "aiofastnet")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in names},
    }


def print_scenario(name: str, scenario: Scenario, outcome: Outcome) -> None:
    """One scenario: a line for each turn, one for the ratios of the first to each other one."""
    print(f"\n{name}: {scenario.about}")
    for turn in scenario.turns:
        if turn.label in outcome.missing:
            print(f"  {turn.label:<8} not measured: {outcome.missing[turn.label]}")
        else:
            print(f"  {turn.label:<8} {figures(outcome.samples(turn.label), scenario.unit)}")
    first, *others = (t.label for t in scenario.turns if t.label not in outcome.missing)
    for other in others:
        pairs = list(zip(outcome.samples(first), outcome.samples(other), strict=True))
        line = ""
        for ratio in scenario.ratios:
            label, divide = RATIOS[ratio]
            values = [value for pair in pairs if (value := divide(*pair)) is not None]
            if values:
                line += f"   {label} {spread(values, '.2f')}"
        print(f"  {first} to {other}:{line}", flush=True)


def figures(samples: Sequence[Sample], unit: str) -> str:
    """The medians and spreads of one turn."""
    line = (
        f"{spread([s.per_second for s in samples], ',.0f'):<36} {unit}/s   "
        f"CPU µs client {median(s.client_us for s in samples):6.2f} "
        f"server {median(s.server_us for s in samples):6.2f}"
    )
    p50 = [s.p50_us for s in samples if s.p50_us is not None]
    p99 = [s.p99_us for s in samples if s.p99_us is not None]
    if p50 and p99:
        line += f"   p50 {spread(p50, '.1f')} p99 {spread(p99, '.1f')} µs"
    bulk = [s.bulk_per_second for s in samples if s.bulk_per_second is not None]
    if bulk:
        line += f"   beside {spread(bulk, ',.0f')} MB/s"
    return line


def as_json(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Every sample of every round; `missing` says what could not be measured, and why."""
    return {
        "setting": describe_setting(),
        "scenarios": {
            name: [{label: asdict(sample) for label, sample in turns.items()} for turns in o.rounds]
            for name, o in outcomes.items()
        },
        "missing": {name: o.missing for name, o in outcomes.items() if o.missing},
    }
