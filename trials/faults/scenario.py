"""What each scenario is given and what it has, so that the command can run it by its name."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trials.figures import Figure


@dataclass(frozen=True)
class Settings:
    """quick: a size that ends within seconds; its figures are held to the same bounds."""

    quick: bool = False


class Scenario(Protocol):
    """A module of this package. `run` may be a coroutine; it is then run on a uvloop of its own."""

    NAME: str  # in words, for a progress line

    def run(self, settings: Settings) -> Sequence[Figure] | Awaitable[Sequence[Figure]]: ...
