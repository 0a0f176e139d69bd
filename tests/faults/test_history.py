"""trials.faults.history: the checker finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import roletalk
from trials.faults.history import History, Rule

TIMEOUT = 2.0


def history() -> History:
    """Four operations as they should be: two acknowledged, one failed unexecuted, one executed."""
    made = History((roletalk.RequestTimeout, roletalk.UnitClosedError), slack=0.5)
    for number in range(4):
        assert made.invoke(number / 10, timeout=TIMEOUT, expected=f"reply {number}") == number
    for number in (0, 1, 3):
        made.execute(number)
    made.acknowledge(0, "reply 0", 0.5)
    made.acknowledge(1, "reply 1", 0.6)
    made.fail(2, roletalk.RequestTimeout(), 2.3)
    made.fail(3, roletalk.UnitClosedError(), 0.7)
    return made


def test_a_good_history_has_no_violations() -> None:
    good = history()
    assert good.violations() == []
    assert set(good.counts().values()) == {0}
    assert good.acknowledged == 2
    assert good.failures() == {"RequestTimeout": 1, "UnitClosedError": 1}
    assert good.latest() == pytest.approx(0.1)


def lose(planted: History) -> None:
    del planted.executions[0]


def execute_twice(planted: History) -> None:
    planted.execute(3)


def never_end(planted: History) -> None:
    planted.invoke(1.0, timeout=None)


def answer_another(planted: History) -> None:
    planted.operations[0].answer = "reply 1"


def answer_nothing(planted: History) -> None:
    planted.operations[0].answer = None


def end_twice(planted: History) -> None:
    planted.fail(0, roletalk.UnitClosedError(), 0.9)


def end_late(planted: History) -> None:
    planted.operations[2].ended_at = 0.2 + TIMEOUT + 0.6


def fail_strangely(planted: History) -> None:
    planted.operations[3].error = KeyError("internal")


def execute_what_nobody_asked_for(planted: History) -> None:
    planted.execute(17)


@pytest.mark.parametrize(
    ("plant", "rule", "number"),
    [
        (lose, Rule.LOST, 0),
        (execute_twice, Rule.TWICE, 3),
        (never_end, Rule.ENDLESS, 4),
        (answer_another, Rule.FOREIGN, 0),
        (answer_nothing, Rule.FOREIGN, 0),
        (end_twice, Rule.ENDED_TWICE, 0),
        (end_late, Rule.LATE, 2),
        (fail_strangely, Rule.UNDOCUMENTED, 3),
        (execute_what_nobody_asked_for, Rule.UNKNOWN, 17),
    ],
)
def test_a_planted_violation_is_found(
    plant: Callable[[History], None], rule: Rule, number: int
) -> None:
    planted = history()
    plant(planted)
    (found,) = planted.violations()
    assert (found.rule, found.number) == (rule, number)
    assert rule.value in str(found)
    assert planted.counts()[rule] == 1
    assert sum(planted.counts().values()) == 1


def test_a_message_may_get_lost_but_not_come_twice() -> None:
    sent = History((roletalk.NoUnitsError,))
    for number in range(3):
        sent.invoke(0.0, number=number)
        sent.acknowledge(number, None, 0.1)
    sent.execute(0)
    assert sent.violations() == []
    sent.execute(0)
    assert [found.rule for found in sent.violations()] == [Rule.TWICE]
