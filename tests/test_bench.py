"""What drives the benchmark: its processes, its turns, and what is made of latencies."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from bench.commands import Answer, Broken, Child, Unknown
from bench.contenders import CONTENDERS, Contender, Contenders, Unavailable
from bench.figures import FIGURES
from bench.latencies import Latencies
from bench.measure import measure, turns_ahead
from bench.results import PERCENTILES, Sample
from bench.scenarios import SCENARIOS, Scenario, Turn, chosen
from bench.targets import TARGETS

# Bounds what should take milliseconds, on a machine that may be busy with something else.
PATIENCE_S = 20.0


# --- scenarios --------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_scenario_is_consistent(scenario: Scenario) -> None:
    labels = scenario.heading.labels
    assert len(set(labels)) == len(labels) >= 2
    assert scenario.turns[0].contender.startswith("roletalk")
    assert {turn.contender for turn in scenario.turns} <= CONTENDERS.keys()
    assert set(scenario.ratios) <= FIGURES.keys()


def test_contenders_all_have_a_turn() -> None:
    turns = [turn for scenario in SCENARIOS.values() for turn in scenario.turns]
    assert {turn.contender for turn in turns} == CONTENDERS.keys()


@pytest.mark.parametrize("quick", [False, True])
def test_targets_can_be_judged(quick: bool) -> None:
    for target in TARGETS:
        scenario = chosen(quick)[target.scenario]
        assert target.figure in scenario.ratios
        assert set(target.others) <= set(scenario.heading.labels)


# --- latencies --------------------------------------------------------------------------------


def test_percentiles() -> None:
    pytest.importorskip("hdrh")
    latencies = Latencies([1000 * number for number in range(1, 10_001)])
    assert latencies.at_us(50) == pytest.approx(5_000, rel=0.001)
    assert latencies.at_us(99) == pytest.approx(9_900, rel=0.001)
    curve = latencies.curve_us()
    assert len(curve) == len(PERCENTILES)
    assert list(curve) == sorted(curve)
    assert curve[-1] == pytest.approx(10_000, rel=0.001)


def test_latency_beyond_the_histogram_counts_as_the_longest() -> None:
    pytest.importorskip("hdrh")
    assert Latencies([1000, 10**15]).at_us(100) == pytest.approx(60e6, rel=0.001)


# --- a process --------------------------------------------------------------------------------

GREETS = "import json, sys; print(json.dumps('here'), flush=True);"


def child(program: str) -> Child:
    return Child("its server", [sys.executable, "-c", program], {}, start_seconds=PATIENCE_S)


def answering(line: str) -> Child:
    return child(f"{GREETS} sys.stdin.readline(); print({line!r}, flush=True); sys.stdin.read()")


def test_child_answers() -> None:
    with answering('{"answer": 5, "cpu": 0.25}') as one:
        assert one.greeting == "here"
        assert one.ask("anything", within=PATIENCE_S) == Answer(5, 0.25)


@pytest.mark.parametrize(
    ("text", "error"), [("no such command: fly", Unknown), ("fly: OSError: no", Broken)]
)
def test_child_says_why_not(text: str, error: type[Exception]) -> None:
    with answering(f'{{"error": "{text}"}}') as one, pytest.raises(error, match=text):
        one.ask("fly", within=PATIENCE_S)


def test_child_that_hangs() -> None:
    with child(f"{GREETS} sys.stdin.read()") as one, pytest.raises(Broken, match="said nothing"):
        one.ask("anything", within=0.1)


def test_child_that_dies_leaves_its_last_words() -> None:
    with (
        child(f"{GREETS} sys.stdin.readline(); sys.exit('no more')") as one,
        pytest.raises(Broken, match="its server ended with status 1: no more"),
    ):
        one.ask("anything", within=PATIENCE_S)


def test_child_that_says_something_else() -> None:
    with answering("hello") as one, pytest.raises(Broken, match="its server said 'hello"):
        one.ask("anything", within=PATIENCE_S)


def test_child_that_does_not_start() -> None:
    with pytest.raises(Broken, match="status 3"):
        child("raise SystemExit(3)")
    with pytest.raises(Broken, match="cannot be started"):
        Child("it", ["/nonexistent/program"], {}, start_seconds=PATIENCE_S)


# --- turns ------------------------------------------------------------------------------------


class FakePair:
    """A pair whose client fails as it is told: an exception each, None where it does not."""

    def __init__(self, failures: Iterator[Exception | None]) -> None:
        self._failures = failures

    def prepare(self, *, one_core: bool, connections: Mapping[str, Any]) -> None: ...

    def server_cpu(self) -> float:
        return 0.0

    def ask(self, command: str, seconds: float, arguments: Mapping[str, Any]) -> Answer:
        if (failure := next(self._failures, None)) is not None:
            raise failure
        return Answer({"count": 100, "seconds": 0.5, "latencies_ns": []}, 0.001)


class FakeContenders:
    def __init__(self, **failures: list[Exception | None]) -> None:
        self.starts: dict[str, int] = {}
        self._failures = {name: iter(some) for name, some in failures.items()}
        self._running: dict[str, FakePair] = {}

    def get(self, name: str) -> FakePair:
        if name == "absent":
            raise Unavailable("it is not installed")
        if name not in self._running:
            self.starts[name] = self.starts.get(name, 0) + 1
            self._running[name] = FakePair(self._failures.get(name, iter(())))
        return self._running[name]

    def discard(self, name: str) -> None:
        self._running.pop(name, None)

    def close_connections(self) -> None: ...


def scenario_of(*contenders: str) -> Scenario:
    turns = tuple(Turn(name, name, "requests", {}) for name in contenders)
    return Scenario("of a test", turns)


def measured(scenario: Scenario, contenders: FakeContenders) -> Any:
    return measure(scenario, cast("Contenders", contenders), 3, 0.1, lambda _: None)


def test_turns_are_taken_one_after_the_other() -> None:
    scenario = scenario_of("one", "other")
    labels: list[str] = []
    outcome = measure(scenario, cast("Contenders", FakeContenders()), 3, 0.1, labels.append)
    assert labels == ["one", "other"] * 4  # a warm-up and three rounds
    assert turns_ahead([scenario], 3) == len(labels)
    assert [list(turns) for turns in outcome.rounds] == [["one", "other"]] * 3
    assert outcome.rounds[0]["one"] == Sample(per_second=200.0, client_us=10.0, server_us=0.0)
    assert not outcome.missing


def test_fewer_rounds_and_no_warm_up() -> None:
    scenario = replace(scenario_of("one"), most_rounds=2, warm_up=False)
    assert turns_ahead([scenario], 3) == 2
    assert turns_ahead([scenario], 1) == 1
    assert len(measured(scenario, FakeContenders()).rounds) == 2


def test_contender_that_fails_is_started_once_more() -> None:
    contenders = FakeContenders(weak=[None, Broken("a wake-up was missed")])
    outcome = measured(scenario_of("weak", "strong"), contenders)
    assert contenders.starts == {"weak": 2, "strong": 1}
    assert not outcome.missing
    assert len(outcome.samples("weak")) == 3


def test_contender_that_was_started_once_more_is_warmed_up() -> None:
    failures: list[Exception | None] = [None, Broken("in the first round"), None, None]
    contenders = FakeContenders(weak=[*failures, Broken("late"), Broken("for good")])
    outcome = measured(scenario_of("weak"), contenders)
    assert len(outcome.samples("weak")) == 1  # of the four that succeed, two are warm-ups
    assert outcome.missing == {"weak": "for good"}


def test_contender_that_fails_again_is_left_out_of_the_rounds_to_come() -> None:
    contenders = FakeContenders(weak=[None, None, Broken("once"), Broken("twice")])
    outcome = measured(scenario_of("weak", "strong"), contenders)
    assert contenders.starts["weak"] == 2
    assert outcome.missing == {"weak": "twice"}
    assert len(outcome.samples("weak")) == 1
    assert len(outcome.samples("strong")) == 3


def test_what_a_contender_cannot_do_is_not_tried_again() -> None:
    contenders = FakeContenders(weak=[Unknown("no such command: requests")])
    outcome = measured(scenario_of("absent", "weak", "strong"), contenders)
    assert contenders.starts == {"weak": 1, "strong": 1}
    assert outcome.missing == {
        "absent": "it is not installed",
        "weak": "no such command: requests",
    }
    assert [list(turns) for turns in outcome.rounds] == [["strong"]] * 3


def test_contender_that_does_not_start_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def start(contender: Contender) -> Any:
        tried.append(contender)
        raise Broken("its server said nothing for 20 s")

    monkeypatch.setattr("bench.contenders.Pair", start)
    with Contenders() as contenders:
        for _ in range(2):
            outcome = measure(scenario_of("roletalk"), contenders, 1, 0.1, lambda _: None)
            assert outcome.missing == {"roletalk": "its server said nothing for 20 s"}
    assert len(tried) == 2


@pytest.mark.slow
def test_ours_takes_each_turn() -> None:
    pytest.importorskip("hdrh")
    ours = {
        name: replace(
            scenario,
            turns=tuple(t for t in scenario.turns if t.contender == "roletalk"),
            connections={**scenario.connections, "count": min(scenario.connections["count"], 8)},
        )
        for name, scenario in SCENARIOS.items()
        if name not in {"memory", "fan-out 1000"}  # they take their time
    }
    fan_out = ours["fan-out 100"].turns[0]
    few = replace(fan_out, arguments={**fan_out.arguments, "units": 8})
    ours["fan-out 100"] = replace(ours["fan-out 100"], turns=(few,))
    with Contenders() as contenders:
        for name, scenario in ours.items():
            outcome = measure(scenario, contenders, 1, 0.05, lambda _: None)
            assert not outcome.missing, name
            for turn in scenario.turns:
                (sample,) = outcome.samples(turn.label)
                assert (sample.per_second or 0) > 0, name
                if scenario.curve:
                    assert (sample.p50_us or 0) > 0, name
