"""Log lines that remote peers cause: so many, and no more."""

from __future__ import annotations

import logging

import pytest

from roletalk.remote_log import WINDOW, RemoteLog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "roletalk")


def test_so_many_lines_about_one_remote_peer(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RemoteLog(3, 100, clock=clock)
    for number in range(10):
        log.log(logging.INFO, "noisy", "line %d", number)
    log.log(logging.INFO, "other", "of another one")
    assert caplog.messages == ["line 0", "line 1", "line 2", "of another one"]
    assert log.left_out == 7
    clock.now += WINDOW - 0.001
    log.tick()
    assert len(caplog.messages) == 4
    clock.now += 0.001
    log.tick()
    assert caplog.messages[4:] == [
        "7 log lines about remote peers were left out, 7 of them about noisy"
    ]
    log.log(logging.INFO, "noisy", "again")
    assert caplog.messages[5:] == ["again"]


def test_so_many_lines_in_all(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RemoteLog(3, 5, clock=clock)
    for number in range(10_000):
        log.log(logging.INFO, f"remote {number}", "here")
    assert len(caplog.messages) == 5
    assert log.left_out == 9995
    # Nothing is kept of those that no line was written about.
    assert len(log._lines) == 5
    assert not log._left_out
    clock.now += WINDOW
    log.log(logging.INFO, "a new one", "here")
    assert caplog.messages[5:] == ["9995 log lines about remote peers were left out", "here"]


def test_the_line_that_tells_has_the_highest_level_that_was_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = RemoteLog(0, 100)
    log.log(logging.ERROR, "a", "x")
    log.log(logging.DEBUG, "a", "x")
    log.tick(end=True)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    log.tick(end=True)
    assert len(caplog.records) == 1


def test_a_level_that_nobody_listens_to_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "roletalk")
    log = RemoteLog(1, 1)
    for _ in range(10):
        log.log(logging.INFO, "a", "unheard")
    log.log(logging.WARNING, "a", "heard")
    assert caplog.messages == ["heard"]
    assert log.left_out == 0


def test_arguments_are_escaped_and_cut(caplog: pytest.LogCaptureFixture) -> None:
    log = RemoteLog(10, 10)
    log.log(
        logging.INFO, "a", "%s %d %.2f %s", "\n\x1b[2J" + "x" * 10_000, 7, 1.5, ValueError("\r")
    )
    (line,) = caplog.messages
    assert line.isprintable()
    assert line.startswith(r"\n\x1b[2Jxx")
    assert line.endswith(r"… 7 1.50 \r")
    assert len(line) < 250


def test_the_traceback_of_an_error_follows(caplog: pytest.LogCaptureFixture) -> None:
    RemoteLog(1, 1).log(logging.ERROR, "a", "failed", error=ValueError("why"))
    (record,) = caplog.records
    assert record.exc_info
    assert isinstance(record.exc_info[1], ValueError)
