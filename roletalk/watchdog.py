"""Saying what blocks an event loop while it still does."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from inspect import unwrap
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from ._peer import clock

if TYPE_CHECKING:
    from .callbacks import Callbacks
    from .heartbeat import Heartbeat
    from .peer import Peer

_log = logging.getLogger("roletalk")

LAG_WARNING: Final = 1.0  # s; a JS peer gives up after 2
LOOK: Final = 0.5  # s between looks


class Watchdog:
    """A thread that looks whether the loops of this process go round, while any peer is in use.

    It compares a time of each peer's heartbeat with the clock, twice a second; whoever serves messages
    does nothing for it.  A handler that keeps the interpreter to itself in C keeps this thread out, too.
    """

    def __init__(self) -> None:
        # Weakly: a peer that is dropped without being closed is not kept by who looks after it.
        self._watched: WeakSet[Heartbeat] = WeakSet()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def watch(self, heartbeat: Heartbeat) -> None:
        with self._changed:
            self._watched.add(heartbeat)
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(
                    target=self._look_around, name="roletalk watchdog", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    # Nobody is named then; all else works.
                    _log.warning("no watchdog thread: %s", error)
                else:
                    self._thread = thread

    def unwatch(self, heartbeat: Heartbeat) -> None:
        with self._changed:
            self._watched.discard(heartbeat)
            self._changed.notify_all()

    def _look_around(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: not self._watched, LOOK):
                    self._thread = None
                    return
            self._look()

    def _look(self) -> None:
        with self._changed:
            watched = tuple(self._watched)
        _look(watched, clock())


def _look(watched: Iterable[Heartbeat], now: float) -> None:
    by_thread: dict[int, list[Heartbeat]] = {}
    for heartbeat in watched:
        # A loop that has ended or stopped goes round no more, and its thread may have another one.
        if heartbeat.peer.loop.is_running():
            by_thread.setdefault(heartbeat.thread, []).append(heartbeat)
    for thread, heartbeats in by_thread.items():
        late = max(now - heartbeat.due for heartbeat in heartbeats)
        # Told once, however long it lasts and however many peers there are.
        if late <= LAG_WARNING or any(heartbeat.held_by for heartbeat in heartbeats):
            continue
        frame = sys._current_frames().get(thread)
        if frame is None:
            continue
        by = holder([heartbeat.peer for heartbeat in heartbeats], frame)
        for heartbeat in heartbeats:
            heartbeat.held_by = by
        _log.warning(
            "the event loop has been blocked for more than %.1f s, and is still, by %s", late, by
        )


def holder(peers: Iterable[Peer], frame: FrameType) -> str:
    """Who is at work in `frame`, the innermost of a loop's thread, and where: the handler, middleware or
    callback of one of `peers` if it is one."""
    at = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    # Something was added while it was looked at, or an object of the program's raised.
    with suppress(Exception):
        names = {
            code: name
            for peer in peers
            for function, name in _functions(peer)
            for code in _code(function)
        }
        outer: FrameType | None = frame
        while outer is not None:
            name = names.get(outer.f_code)
            if name is not None:
                return f"{name}, at {at}"
            outer = outer.f_back
    return f"what is none of its handlers, at {at}"


def _functions(peer: Peer) -> Iterator[tuple[Callable[..., object], str]]:
    for middleware in peer._middlewares:
        yield middleware.function, f"middleware {_name(middleware.function)}"
    for role in peer.roles:
        for middleware in role._middlewares:
            yield middleware.function, f"middleware {_name(middleware.function)}"
        for handler in role.handlers:
            yield handler.function, f"handler {_name(handler.function)} of role {role.name!r}"
    lists: list[Callbacks[Any]] = [peer._units.callbacks, peer._role_callbacks]
    lists += [unit._close_callbacks for unit in peer.units]
    lists += [role._status_callbacks for role in peer.roles]
    for destination in peer.destinations:
        lists += [destination._open_callbacks, destination._close_callbacks]
        lists.append(destination._unit_callbacks)
    for callbacks in lists:
        for function in callbacks.functions:
            yield function, f"callback {_name(function)}"


def _code(function: Callable[..., object]) -> Iterator[CodeType]:
    """The code of a function, a method, or an object that can be called, whatever is around it."""
    while isinstance(function, partial):
        function = function.func
    function = unwrap(function)
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        yield code


def _name(function: Callable[..., object]) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function)[:200])


_watchdog = Watchdog()


def watch(heartbeat: Heartbeat) -> None:
    """Look after it from now on; from the loop's thread."""
    _watchdog.watch(heartbeat)


def unwatch(heartbeat: Heartbeat) -> None:
    _watchdog.unwatch(heartbeat)


def _forked() -> None:
    # The thread is not there in the child, and its lock may be held for ever.
    global _watchdog
    _watchdog = Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
