"""Redundant connections, one of them reset every second: nothing acknowledged is lost or done twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trials.faults.history import History, Rule
from trials.faults.scenario import Settings
from trials.faults.storm import Outcome, Plan, storm
from trials.figures import Figure, at_least, at_most, told

NAME = "redundant connections under resets"

IN_TURN = Plan(requests=100_000, delay=0.02, jitter=0.005)
IN_PIECES = Plan(requests=5_000, timeout=3.0, delay=0.005, jitter=0.005, piece=1, at_random=True)
MESSAGES = Plan(messages=200_000, delay=0.005)
STREAMS = Plan(streams=300, delay=0.005, jitter=0.005, at_random=True)


async def run(settings: Settings) -> Sequence[Figure]:
    shrink = 20 if settings.quick else 1
    in_turn = await storm(replace(IN_TURN, requests=IN_TURN.requests // shrink))
    in_pieces = await storm(replace(IN_PIECES, requests=IN_PIECES.requests // shrink))
    messages = await storm(replace(MESSAGES, messages=MESSAGES.messages // shrink))
    streams = await storm(replace(STREAMS, streams=STREAMS.streams // shrink))
    figures = [
        *_of_requests("resets in turn, 20 to 25 ms each way", in_turn),
        at_most("resets in turn: times that the unit was gone", in_turn.unit_lost, 0),
        *_of_requests("resets at random, bytes one by one, 5 to 10 ms", in_pieces),
        *_of_messages("messages", messages),
        *_of_streams("streams of 2 MB", streams),
    ]
    if not settings.quick:
        figures.append(at_least("resets in turn: resets", in_turn.resets, 10))
    return figures


def _of_requests(what: str, outcome: Outcome) -> Sequence[Figure]:
    history = outcome.requests
    return [
        told(f"{what}: requests", len(history.operations)),
        told(f"{what}: acknowledged", history.acknowledged),
        _failures(what, history),
        told(f"{what}: resets, reconnects", f"{outcome.resets}, {outcome.reconnects}"),
        told(f"{what}: longest time without a reply", outcome.gap, "s"),
        at_most(
            f"{what}: ended after its timeout by at most", history.latest(), history.slack, "s"
        ),
        *_violations(what, history, Rule.LOST, Rule.TWICE, Rule.FOREIGN, Rule.ENDLESS, Rule.LATE),
    ]


def _of_messages(what: str, outcome: Outcome) -> Sequence[Figure]:
    history = outcome.messages
    return [
        told(f"{what}: sent, in how many resets", f"{len(history.operations):,}, {outcome.resets}"),
        told(f"{what}: delivered", sum(history.executions.values())),
        _failures(what, history),
        *_violations(what, history, Rule.TWICE),
    ]


def _of_streams(what: str, outcome: Outcome) -> Sequence[Figure]:
    history = outcome.streams
    return [
        told(f"{what}: opened, in how many resets", f"{len(history.operations)}, {outcome.resets}"),
        told(f"{what}: complete", history.acknowledged),
        _failures(what, history),
        *_violations(what, history, Rule.TWICE, Rule.FOREIGN, Rule.ENDLESS),
    ]


def _failures(what: str, history: History) -> Figure:
    failures = sorted(history.failures().items())
    return told(f"{what}: failed", ", ".join(f"{n:,} {name}" for name, n in failures) or "none")


def _violations(what: str, history: History, *rules: Rule) -> Sequence[Figure]:
    """How many there are of `rules`, and of all others together."""
    for violation in history.violations()[:20]:
        print(violation)
    counts = history.counts()
    others = sum(count for rule, count in counts.items() if rule not in rules)
    return [
        *(at_most(f"{what}: {rule.value}", counts[rule], 0) for rule in rules),
        at_most(f"{what}: any other contradiction", others, 0),
    ]
