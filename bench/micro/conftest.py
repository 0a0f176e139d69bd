"""Fixtures of the micro-benchmarks.  Figures are nanoseconds an operation, whatever a round does."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from roletalk._debug import is_debug_build

if find_spec("pytest_benchmark") is None:
    raise pytest.UsageError("bench/micro needs pytest-benchmark: pip install pytest-benchmark")
if is_debug_build():
    raise pytest.UsageError("bench/micro measures the release build")

from .rig import BATCH, Rig, clock

Measure = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        module = item.nodeid.partition("::")[0].rpartition("test_")[2].removesuffix(".py")
        item.add_marker(pytest.mark.benchmark(timer=clock, disable_gc=True, group=module))


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """``measure(function, *arguments)``: a round calls it once, with `BATCH` as the last argument."""

    def run(function: Callable[..., object], *arguments: object) -> None:
        benchmark.pedantic(
            function, args=(*arguments, BATCH), rounds=100, warmup_rounds=10, iterations=1
        )

    return run


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()
