"""Two connections to one unit, one of them reset now and then, under requests, messages and streams."""

from __future__ import annotations

import pytest

from tests.helpers import run
from trials.faults.storm import Outcome, Plan, storm


def weather(plan: Plan, *, timeout: float = 60) -> Outcome:
    outcome = run(storm(plan), timeout=timeout, debug=False)
    for history in (outcome.requests, outcome.messages, outcome.streams):
        # Lateness is a figure of the trial; here it is only to end at all.
        history.slack = 30
        assert history.violations() == []
    return outcome


def test_requests_while_connections_are_reset() -> None:
    outcome = weather(
        Plan(requests=3000, reset_every=0.2, delay=0.01, jitter=0.005, at_random=True)
    )
    assert outcome.resets >= 1
    assert outcome.requests.acknowledged > 1000


def test_requests_in_pieces_while_connections_are_reset() -> None:
    plan = Plan(requests=300, in_flight=50, reset_every=0.1, jitter=0.005, piece=1, timeout=3)
    assert weather(plan).requests.acknowledged > 0


def test_messages_while_connections_are_reset() -> None:
    outcome = weather(Plan(messages=5000, reset_every=0.05, delay=0.005))
    assert 0 < outcome.messages.executions.total() <= 5000


def test_streams_while_connections_are_reset() -> None:
    outcome = weather(Plan(streams=16, stream_size=300_000, reset_every=0.2, jitter=0.01))
    assert len(outcome.streams.operations) == 16


@pytest.mark.slow
def test_requests_while_connections_are_reset_in_turn() -> None:
    # That one is always back before the other goes is for virtual time: tests/test_dialer.py.
    outcome = weather(Plan(requests=40_000, delay=0.02))
    assert outcome.resets >= 6
    assert outcome.reconnects >= 6
