"""When a lost address is dialled again: how long each delay is."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import pytest

from roletalk.backoff import (
    FIRST,
    JITTER,
    QUICK,
    QUICK_ADDRESSES,
    QUICK_TRIES,
    SCHEDULE,
    STEADY,
    BackOff,
)


def delays(step: Callable[[BackOff], float], before: int) -> list[float]:
    """Many samples of the delay that follows `before` others of its kind."""
    found = []
    for _ in range(500):
        back_off = BackOff()
        for _ in range(before):
            step(back_off)
        found.append(step(back_off))
    return found


def bounds(tries: int) -> tuple[float, float]:
    """Of the delay after that many of those that grow."""
    if tries == 0:
        return FIRST
    if tries <= QUICK_TRIES:
        return QUICK
    delay = SCHEDULE[min(tries - QUICK_TRIES - 1, len(SCHEDULE) - 1)]
    return delay * (1 - JITTER), delay * (1 + JITTER)


@pytest.mark.parametrize("step", [BackOff.failed, lambda self: self.lost(STEADY / 2)])
@pytest.mark.parametrize("tries", [*range(QUICK_TRIES + 10), 200])
def test_delays_grow_and_are_spread(step: Callable[[BackOff], float], tries: int) -> None:
    low, high = bounds(tries)
    found = delays(step, tries)
    assert all(low <= delay <= high for delay in found)
    assert max(found) - min(found) > (high - low) * 0.8
    assert abs(mean(found) - (low + high) / 2) < (high - low) * 0.15


def test_the_last_delays_are_those_of_the_protocol() -> None:
    assert SCHEDULE == (1, 2, 3, 4, 5, 10, 30, 60)


def test_a_steady_connection_begins_them_anew() -> None:
    back_off = BackOff()
    for _ in range(30):
        back_off.failed()
    assert back_off.lost(STEADY) <= FIRST[1]


def test_as_long_as_there_is_nobody_the_delays_stay_short() -> None:
    back_off = BackOff()
    for _ in range(30):
        back_off.failed()
    assert all(QUICK[0] <= back_off.found_nobody(1) <= QUICK[1] for _ in range(1000))
    # Then somebody is there again: a restart, whose first failures are no reason to stay away.
    assert all(back_off.failed() <= QUICK[1] for _ in range(QUICK_TRIES - 1))
    assert back_off.failed() > QUICK[1]


def test_many_addresses_are_dialled_more_slowly_each() -> None:
    back_off = BackOff()
    assert all(
        4 * QUICK[0] <= back_off.found_nobody(4 * QUICK_ADDRESSES) <= 4 * QUICK[1]
        for _ in range(100)
    )


def test_who_turned_us_away_is_not_bothered_quickly() -> None:
    back_off = BackOff()
    found = [back_off.refused() for _ in range(len(SCHEDULE) + 3)]
    for delay, expected in zip(found, [*SCHEDULE, 60, 60, 60], strict=True):
        assert expected * (1 - JITTER) <= delay <= expected * (1 + JITTER)
