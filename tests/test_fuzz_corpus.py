"""The targets of trials/fuzz without a fuzzer: on what it found or grew, and on hypothesis's inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trials.fuzz import CORPUS, TARGETS

NAMES = sorted(file.stem for file in TARGETS.glob("*.py") if file.stem != "__init__")
MOST_FILES = 60  # of one target
MOST_BYTES = 300_000  # of all


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[bytes], None], list[Path]]]:
    name: str = request.param
    module = import_module(f"trials.fuzz.targets.{name}")
    yield module.test_one, sorted((CORPUS / name).iterdir())
    loop: asyncio.AbstractEventLoop | None = getattr(module, "LOOP", None)
    if isinstance(loop, asyncio.AbstractEventLoop):
        # It is the module's, and stays; what a target leaves in it must be over with this test.
        loop.run_until_complete(asyncio.sleep(0))


def test_the_corpus(target: tuple[Callable[[bytes], None], list[Path]]) -> None:
    test_one, seeds = target
    assert 0 < len(seeds) <= MOST_FILES
    for seed in seeds:
        try:
            test_one(seed.read_bytes())
        except BaseException as error:
            raise AssertionError(f"{seed} fails") from error


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=300))
def test_any_input(name: str, data: bytes) -> None:
    import_module(f"trials.fuzz.targets.{name}").test_one(data)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_two_of_the_corpus(name: str, data: st.DataObject) -> None:
    """The start of one, what hypothesis likes, and the end of another."""
    seeds = st.sampled_from(sorted((CORPUS / name).iterdir()))
    first, last = data.draw(seeds).read_bytes(), data.draw(seeds).read_bytes()
    at, behind = data.draw(st.integers(0, len(first))), data.draw(st.integers(0, len(last)))
    between = data.draw(st.binary(max_size=8))
    import_module(f"trials.fuzz.targets.{name}").test_one(first[:at] + between + last[behind:])


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    assert sorted(each.name for each in CORPUS.iterdir()) == NAMES
    assert sum(file.stat().st_size for file in CORPUS.rglob("*")) < MOST_BYTES
