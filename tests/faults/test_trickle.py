"""Connections that come in pieces, slowly, or end on one side only."""

from __future__ import annotations

import pytest

from tests.helpers import run
from trials.faults.trickle import SHAPES, STREAMS, VALUES, half_close, trickle


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_is_right(shape: str) -> None:
    result = run(trickle(SHAPES[shape], rounds=1, stream_size=2000), timeout=60, debug=False)
    assert result.history.violations() == []
    assert result.history.acknowledged == 2 * len(VALUES)
    assert result.streams == STREAMS


@pytest.mark.parametrize("up", [True, False])
def test_an_end_of_file_fails_what_is_pending_and_nothing_else(up: bool) -> None:
    history = run(half_close(up=up))
    assert history.violations() == []
    assert 2 * history.acknowledged == len(history.operations)
