"""The project's targets, and which of them a run reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

from .figures import Spread, ratio, spread_of
from .results import Run


@dataclass(frozen=True)
class Target:
    """A bound on a ratio of a scenario's first turn to the best of some others, or on its own figure."""

    about: str
    scenario: str
    figure: str
    others: tuple[str, ...]  # the turns compared with; none where the figure itself is bounded
    bound: float
    at_least: bool = False  # whether more is asked for, or at most that much

    @property
    def asked(self) -> str:
        unit = "" if self.others else " KB"
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{unit}"


@dataclass(frozen=True)
class Verdict:
    """What a run says about a target."""

    target: Target
    spread: Spread | None
    why_not: str = ""  # it was not measured

    @property
    def reached(self) -> bool | None:
        """By the median; None where it was not measured."""
        if self.spread is None:
            return None
        if self.target.at_least:
            return self.spread.median >= self.target.bound
        return self.spread.median <= self.target.bound

    @property
    def word(self) -> str:
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


GO = ("go", "go, all cores")  # a core a side like everybody, and as its users run it


def _streams(scenario: str, way: str) -> tuple[Target, ...]:
    about = f"a stream of 64 KiB chunks, {way}: rate"
    return (
        Target(f"{about}, to a bare uvloop transfer", scenario, "rate", ("uvloop",), 0.75, True),
        Target(f"{about}, to the Go peer", scenario, "rate", GO, 3.0, True),
    )


def _beside(scenario: str, way: str) -> Target:
    about = f"one request after the other beside a stream, {way}: p99, to that without it"
    return Target(about, scenario, "p99", ("without",), 5.0)


# The names are those of `scenarios`.
TARGETS = (
    Target(
        "one request after the other, both sides on one core: p50, to cyecho",
        "sequential",
        "p50",
        ("cyecho",),
        1.25,
    ),
    Target(
        "64 requests in flight, sync handler: rate, to cyecho",
        "p64",
        "rate",
        ("cyecho",),
        2.5,
        True,
    ),
    Target(
        "64 requests in flight, sync handler: rate, to the Go peer at its best",
        "p64",
        "rate",
        GO,
        5.0,
        True,
    ),
    Target(
        "256 requests in flight, async handler: rate, to cyecho",
        "p256 async",
        "rate",
        ("cyecho",),
        3.0,
        True,
    ),
    Target(
        "one-way messages of 32 B: rate, to the Go peer at its best",
        "one-way",
        "rate",
        GO,
        10.0,
        True,
    ),
    *_streams("stream up", "client to server"),
    *_streams("stream down", "server to client"),
    Target(
        "64 connections with 1 request in flight each: CPU, to cyecho",
        "64 connections",
        "CPU",
        ("cyecho",),
        1.3,
    ),
    _beside("under bulk up", "client to server"),
    _beside("under bulk down", "server to client"),
    Target(
        "an idle, authenticated connection: resident memory on the server",
        "memory",
        "memory",
        (),
        20.0,
    ),
)


def judge(run: Run) -> list[Verdict]:
    """One verdict a target, in their order."""
    return [_judge(run, target) for target in TARGETS]


def _judge(run: Run, target: Target) -> Verdict:
    outcome = run.outcomes.get(target.scenario)
    if outcome is None:
        return Verdict(target, None, f"{target.scenario!r} was not part of this run")
    first = outcome.heading.labels[0]
    if not target.others:
        found = spread_of(outcome, first, target.figure)
    else:
        ratios = [ratio(outcome, other, target.figure) for other in target.others]
        choose = min if target.at_least else max
        found = choose((r for r in ratios if r), key=lambda spread: spread.median, default=None)
    if found is not None:
        return Verdict(target, found)
    for label in (first, *target.others):
        if label in outcome.missing:
            return Verdict(target, None, f"{label}: {outcome.missing[label]}")
    return Verdict(target, None, f"{target.scenario!r} did not measure it")


def summary(verdicts: Sequence[Verdict]) -> str:
    """In one line."""
    reached = sum(verdict.reached is True for verdict in verdicts)
    unmeasured = sum(verdict.reached is None for verdict in verdicts)
    text = f"{reached} of {len(verdicts)} targets reached"
    return f"{text}, {unmeasured} not measured" if unmeasured else text
