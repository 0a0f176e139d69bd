"""What is measured, as data: one `Sample` a turn, an `Outcome` a scenario, one `Run` in all.

`save` and `load` keep a run as JSON, every sample of every round.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import msgspec

# Where a latency curve is noted, in percent.
PERCENTILES = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)

# Of the files.  Raise it when a field changes its meaning or its unit, or PERCENTILES changes.
SCHEMA = 1


@dataclass(frozen=True)
class Sample:
    """One turn in one round.  What a turn does not measure is ``None``."""

    per_second: float | None = None  # requests, messages, or MB of 10^6 bytes
    client_us: float | None = None  # of CPU for one of them
    server_us: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    latencies_us: tuple[float, ...] | None = None  # at PERCENTILES
    bulk_per_second: float | None = None  # MB that a stream carried meanwhile
    kib_per_connection: float | None = None  # of resident memory, on the server

    @property
    def used_us(self) -> float | None:
        """µs of CPU of both sides together."""
        if self.client_us is None or self.server_us is None:
            return None
        return self.client_us + self.server_us


Round = Mapping[str, Sample]  # by the label of the turn, one right after the other


@dataclass(frozen=True)
class Heading:
    """What a scenario is, for whoever reads its figures."""

    about: str
    labels: tuple[str, ...]  # of its turns; the first is the one that the others are compared with
    unit: str  # of what is counted: requests, messages or MB; empty where nothing is
    ratios: tuple[str, ...]  # those that are printed, by name
    curve: bool = False  # whether it is about latency, and a curve is drawn of it


@dataclass
class Outcome:
    """What came of a scenario."""

    heading: Heading
    rounds: list[Round]
    missing: dict[str, str] = field(default_factory=dict)  # the turns that could not be, and why

    def samples(self, label: str) -> list[Sample]:
        """Those of the rounds in which that turn was taken."""
        return [turns[label] for turns in self.rounds if label in turns]


@dataclass
class Run:
    """One run of the benchmark."""

    setting: dict[str, str]  # the machine, the versions, the date
    outcomes: dict[str, Outcome]  # by the scenario's name


class BadResults(ValueError):
    """A file does not hold a run that this version can read; the text says what is wrong."""


@dataclass
class _File:
    schema: int
    setting: dict[str, str]
    outcomes: dict[str, Outcome]


def save(run: Run, path: Path) -> None:
    """Write `run`, replacing what was there at once.  Raises `OSError`."""
    content = msgspec.json.encode(_File(SCHEMA, run.setting, run.outcomes))
    half = path.with_name(path.name + ".part")
    half.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
    half.replace(path)


def load(path: Path) -> Run:
    """The run that `save` wrote.  Raises `OSError` or `BadResults`."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or "schema" not in content:
            raise BadResults(f"{path} is not a result of this benchmark: it has no schema")
        if (schema := content["schema"]) != SCHEMA:
            raise BadResults(f"{path} has schema {schema}, and this version reads schema {SCHEMA}")
        file = msgspec.convert(content, _File)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadResults):
            raise
        raise BadResults(f"{path} cannot be read: {error}") from error
    for name, outcome in file.outcomes.items():
        for fault in _faults(outcome):
            raise BadResults(f"{path}, scenario {name!r}: {fault}")
    return Run(file.setting, file.outcomes)


def _faults(outcome: Outcome) -> Iterator[str]:
    """What the types alone do not refuse."""
    labels = set(outcome.heading.labels)
    if not labels:
        yield "it has no turns"
    if unknown := outcome.missing.keys() - labels:
        yield f"{min(unknown)!r} is missing, but is none of its turns"
    for number, turns in enumerate(outcome.rounds, 1):
        if unknown := turns.keys() - labels:
            yield f"round {number} has {min(unknown)!r}, which is none of its turns"
        for label, sample in turns.items():
            for entry in fields(Sample):
                value = getattr(sample, entry.name)
                numbers = value if isinstance(value, tuple) else (value,)
                if any(n is not None and not (math.isfinite(n) and n >= 0) for n in numbers):
                    yield f"{entry.name} of {label!r} in round {number} is {value}"
            curve = sample.latencies_us
            if curve is not None and len(curve) != len(PERCENTILES):
                yield f"the curve of {label!r} in round {number} has {len(curve)} points"
