"""The Go program, built once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from .gopeer import build


@pytest.fixture(scope="session")
def program() -> Path:
    return build()
