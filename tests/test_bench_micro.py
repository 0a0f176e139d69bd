"""The micro-benchmarks still compile against the extensions as they are."""

from __future__ import annotations

import pytest

from bench.micro.compiled import load_loops
from roletalk._debug import is_debug_build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(is_debug_build(), reason="they are made for the release build"),
]


def test_the_loops_compile_and_load() -> None:
    loops = load_loops()
    assert {name for name in dir(loops) if not name.startswith("_")}
