"""trials.idle: a small one."""

from __future__ import annotations

import resource
import sys

import pytest

from trials import idle, vitals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_vitals_are_those_of_this_process() -> None:
    assert vitals.missing() == ""
    assert 0 < vitals.uss() <= vitals.rss() * 1.1
    before = vitals.descriptors()
    with open("/dev/null", "rb"):
        assert vitals.descriptors() == before + 1
    used = vitals.cpu_seconds()
    while vitals.cpu_seconds() == used:
        pass


def test_what_is_missing_is_said_where_the_hard_limit_is_too_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 5000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert "10,100 descriptors are needed" in idle.raise_limit(10_100)
    assert "5,000 are allowed" in idle.raise_limit(10_100)
    assert set_to == []
    assert idle.raise_limit(1000) == ""
    assert set_to == []
    assert idle.raise_limit(4000) == ""
    assert set_to == [(4000, 5000)]


@pytest.mark.slow
def test_a_small_one() -> None:
    found = idle.measure(200, seconds=0.5, requests=50)
    assert (found.before.units, found.full.units, found.idle.units) == (0, 200, 200)
    assert (found.empty.units, found.full_again.units, found.empty_again.units) == (0, 200, 0)
    assert found.full.descriptors - found.before.descriptors == 200
    assert found.empty.descriptors == found.before.descriptors
    assert found.empty.tasks == found.before.tasks
    assert len(found.latencies) == 50
    rows = {figure.what: figure for figure in idle.figures_of(found)}
    assert rows["memory of a connection"].met
