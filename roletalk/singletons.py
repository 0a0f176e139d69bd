"""The one peer of a process."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, Final, ParamSpec

from .peer import Peer

P = ParamSpec("P")

_singleton: Peer | None = None
# Of processes that this one was forked from.  They are kept: what they have open is not this one's to close.
_inherited: Final[list[Peer]] = []


def _forked() -> None:
    global _singleton
    if _singleton is not None:
        _inherited.append(_singleton)
    _singleton = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _called_as(like: Callable[P, Peer]) -> Callable[[Callable[..., Peer]], Callable[P, Peer]]:
    """Say that a function takes the arguments of `like`, which are written down only there."""

    def say(function: Callable[..., Peer]) -> Callable[P, Peer]:
        function.__signature__ = inspect.signature(like)  # type: ignore[attr-defined]
        return function

    return say


@_called_as(Peer)
def singleton(**options: Any) -> Peer:
    """The peer of the whole process, made with `options` at the first call.

    Raises `RuntimeError` when options are given later; a closed one is replaced by a new one.  A forked
    child makes one of its own.
    """
    global _singleton
    if _singleton is None or _singleton._shutdown.done.is_set():
        _singleton = Peer(**options)
    elif options:
        raise RuntimeError(
            f"singleton() was called with {', '.join(options)} after the singleton was made: its options"
            " are those of the first call; call it without any, or make a Peer of your own"
        )
    return _singleton
