"""The victim that the tests of a module share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import VictimProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def victim() -> Iterator[VictimProcess]:
    """One whose own timeouts are far away."""
    process = VictimProcess()
    yield process
    process.close()


@pytest.fixture
def fresh_victim() -> Iterator[VictimProcess]:
    """One that remembers nothing of other tests."""
    process = VictimProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def hasty_victim() -> Iterator[VictimProcess]:
    """One that gives a handshake, the upgrade included, half a second."""
    process = VictimProcess(handshake_timeout=0.5)
    yield process
    process.close()
