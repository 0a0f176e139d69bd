"""What is read off the samples: figures, their ratios, and the spread of either over the rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .results import Outcome, Sample


@dataclass(frozen=True)
class Figure:
    """One number of a sample."""

    title: str
    unit: str  # empty for a rate, whose unit is the scenario's
    of: Callable[[Sample], float | None]
    more_is_better: bool = False


KB = 1000.0  # bytes


def _kb_per_connection(sample: Sample) -> float | None:
    kib = sample.kib_per_connection
    return None if kib is None else kib * 1024 / KB


# By the names that scenarios use for their ratios.
FIGURES = {
    "rate": Figure("rate", "", lambda sample: sample.per_second, more_is_better=True),
    "p50": Figure("p50", "µs", lambda sample: sample.p50_us),
    "p99": Figure("p99", "µs", lambda sample: sample.p99_us),
    "p999": Figure("p99.9", "µs", lambda sample: sample.p999_us),
    # Less disturbed by whatever else the machine does than the rates are.
    "CPU": Figure("CPU", "µs", lambda sample: sample.used_us),
    "client": Figure("client CPU", "µs", lambda sample: sample.client_us),
    "server": Figure("server CPU", "µs", lambda sample: sample.server_us),
    "bulk": Figure("stream beside", "MB/s", lambda s: s.bulk_per_second, more_is_better=True),
    "memory": Figure("memory", "KB", _kb_per_connection),
}


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and how far they go to either side."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        form = form_of(self.median)
        return f"{self.median:{form}} ({self.least:{form}}..{self.most:{form}})"


def form_of(value: float) -> str:
    """The format that shows some three digits of `value`, and those before the point in full."""
    size = abs(value)
    if size >= 100:
        return ",.0f"
    if size >= 10:
        return ".1f"
    if size >= 0.1 or size == 0:
        return ".2f"
    return ".3f" if size >= 0.01 else ".4f"


def spread(values: Sequence[float]) -> Spread | None:
    """None where there are no values."""
    return Spread(median(values), min(values), max(values)) if values else None


def values(outcome: Outcome, label: str, figure: str) -> list[float]:
    """That figure of one turn, in each round that has it."""
    of = FIGURES[figure].of
    return [value for sample in outcome.samples(label) if (value := of(sample)) is not None]


def spread_of(outcome: Outcome, label: str, figure: str) -> Spread | None:
    return spread(values(outcome, label, figure))


def quotients(outcome: Outcome, other: str, figure: str) -> list[float]:
    """The first turn's figure divided by that of `other`, each taken within one round.

    The machine's speed drifts between rounds: a quotient of two medians would contain that.
    """
    first, of = outcome.heading.labels[0], FIGURES[figure].of
    found = []
    for turns in outcome.rounds:
        if first in turns and other in turns:
            above, below = of(turns[first]), of(turns[other])
            if above is not None and below:
                found.append(above / below)
    return found


def ratio(outcome: Outcome, other: str, figure: str) -> Spread | None:
    return spread(quotients(outcome, other, figure))


def ratio_names(outcome: Outcome) -> list[str]:
    """Those that the scenario is about, of the known ones."""
    return [name for name in outcome.heading.ratios if name in FIGURES]


def column_title(outcome: Outcome, figure: str) -> str:
    """Its name and unit, at the head of a column."""
    if figure == "rate":
        return f"{outcome.heading.unit or 'times'}/s"
    return f"{FIGURES[figure].title} {FIGURES[figure].unit}"


def measured_figures(outcome: Outcome) -> list[str]:
    """The columns of a scenario's table: what any of its turns has; CPU by sides where it is."""
    labels = outcome.heading.labels
    names = [name for name in FIGURES if any(values(outcome, label, name) for label in labels)]
    return [name for name in names if name != "CPU" or "client" not in names]
