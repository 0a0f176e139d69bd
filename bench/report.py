"""What the benchmark prints, and what it writes as JSON."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One contender in one round."""

    per_second: float
    client_us: float  # of CPU, a request or message
    server_us: float
    p50_us: float | None = None
    p99_us: float | None = None


@dataclass(frozen=True)
class Pair:
    """Both contenders in one round, one right after the other."""

    ours: Sample
    reference: Sample


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


def print_scenario(name: str, about: str, pairs: Sequence[Pair]) -> None:
    """One scenario: a line for each contender, one for the ratio."""
    print(f"\n{name}: {about}")
    for label, samples in (
        ("ours", [pair.ours for pair in pairs]),
        ("cyecho", [pair.reference for pair in pairs]),
    ):
        line = (
            f"  {label:<7} {spread([s.per_second for s in samples], ',.0f'):<36} /s   "
            f"CPU µs client {median(s.client_us for s in samples):6.2f} "
            f"server {median(s.server_us for s in samples):6.2f}"
        )
        p50 = [s.p50_us for s in samples if s.p50_us is not None]
        p99 = [s.p99_us for s in samples if s.p99_us is not None]
        if p50:
            line += f"   p50 {spread(p50, '.1f')} p99 {spread(p99, '.1f')} µs"
        print(line)
    rates = [pair.ours.per_second / pair.reference.per_second for pair in pairs]
    line = f"  ratio   {spread(rates, '.2f')}"
    p50_ratios = [
        pair.ours.p50_us / pair.reference.p50_us
        for pair in pairs
        if pair.ours.p50_us is not None and pair.reference.p50_us is not None
    ]
    if p50_ratios:
        line += f"   of p50: {spread(p50_ratios, '.2f')}"
    # Less disturbed by whatever else the machine does than the rates are.
    cpu = [used(pair.reference) / used(pair.ours) for pair in pairs]
    print(f"{line}   of CPU, theirs to ours: {spread(cpu, '.2f')}", flush=True)


def used(sample: Sample) -> float:
    """µs of CPU of both sides together."""
    return sample.client_us + sample.server_us


def as_json(results: dict[str, list[Pair]]) -> dict[str, Any]:
    """Every sample of every round."""
    return {
        "setting": describe_setting(),
        "scenarios": {name: [asdict(pair) for pair in pairs] for name, pairs in results.items()},
    }
