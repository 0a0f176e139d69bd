"""Fixtures and settings of the whole suite."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest

from roletalk._debug import is_debug_build, live_objects
from roletalk.gate import SPOKE_RT2
from roletalk.testing import Mesh

# A slow machine is no failure: no deadline decides; CI prints what is needed to repeat a failure.
hypothesis.settings.register_profile("default", deadline=None, max_examples=100)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=200, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


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


@pytest.fixture(autouse=True)
def ports_are_new() -> None:
    """A port that one test's peer spoke rt2 on may be a legacy peer's in the next."""
    SPOKE_RT2.clear()


@pytest.fixture
def on_mesh() -> Iterator[None]:
    """For modules whose point is not sockets: the peers of a test are connected in memory."""
    mesh = Mesh()
    with mesh.installed():
        yield
    assert not mesh._left()


def pytest_report_header() -> str:
    return f"roletalk build: {'debug' if is_debug_build() else 'release'}"
