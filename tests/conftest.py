"""Fixtures and settings of the whole suite."""

from __future__ import annotations

import gc
import itertools
import logging
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any

import hypothesis
import pytest

from roletalk._debug import is_debug_build, live_objects
from roletalk.gate import SPOKE_RT2
from roletalk.testing import Mesh
from tests.handlerscene import LOOPS
from tests.helpers import run

# A slow machine is no failure: no deadline decides.  A failure prints what it takes to repeat it.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In the debug build: whatever compiled objects a test made are gone after it."""
    if not is_debug_build():
        yield
        return
    before = live_objects()
    yield
    for record in caplog.get_records("call"):
        # Its traceback would keep the frames of a handler that raised.
        record.exc_info = None
    after = live_objects()
    for _ in range(3):
        # A collection takes longer than most tests; where nothing is left none is needed.
        if after != before:
            gc.collect()
            after = live_objects()
    assert after == before, f"compiled objects left behind: {after} (before: {before})"


OF_LAG = re.compile(r"held the event loop|event loop (was|has been) blocked|took \d+\.\d+ seconds$")


@pytest.fixture(autouse=True)
def a_busy_machine_is_no_news(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """What asyncio and roletalk say of a loop that stands still is not captured, but for `lag`."""

    def is_news(record: logging.LogRecord) -> bool:
        return OF_LAG.search(record.getMessage()) is None

    if request.node.get_closest_marker("lag"):
        yield
        return
    caplog.handler.addFilter(is_news)
    yield
    caplog.handler.removeFilter(is_news)


@pytest.fixture(autouse=True)
def ports_are_new() -> None:
    """A port that one test's peer spoke rt2 on may be a legacy peer's in the next."""
    SPOKE_RT2.clear()


@pytest.fixture(
    params=list(itertools.product(LOOPS, (False, True))), ids=lambda p: f"{p[0]}-{p[1]}"
)
def run_here(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`run` on either loop, with asyncio's debug mode and without."""
    name, debug = request.param
    return lambda main, **options: run(main, debug=debug, new_loop=LOOPS[name], **options)


@pytest.fixture
def on_mesh() -> Iterator[None]:
    """For modules whose point is not sockets: the peers of a test are connected in memory."""
    mesh = Mesh()
    with mesh.installed():
        yield
    assert not mesh._left()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What was logged goes from one process to another as UTF-8, whatever was in it.
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_report_header() -> str:
    return f"roletalk build: {'debug' if is_debug_build() else 'release'}"
