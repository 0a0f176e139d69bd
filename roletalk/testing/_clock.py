"""Time that passes at once, where nothing else is to be done."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from roletalk._debug import set_clock

T = TypeVar("T")

START: Final = 1000.0  # s, at which every virtual time begins
OWN_FILES: Final = 1  # in a loop's selector: what wakes it from other threads
GOES: Final = -1.0  # for set_clock

_in_use = threading.Lock()


def _forked() -> None:
    """The loop that time stood still for runs in the process that this one came from."""
    global _in_use
    _in_use = threading.Lock()
    set_clock(GOES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _Selector(selectors.DefaultSelector):
    """Lets time pass in place of waiting for it, unless something from outside may come."""

    at = START
    outside = 0  # processes, and calls that run in other threads

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is not None and not self.outside and len(self.get_map()) <= OWN_FILES:
            self.at += timeout
            set_clock(self.at)
            return ready
        # A socket, a process or a thread lives by the wall clock.
        began = time.monotonic()
        ready = super().select(timeout)
        waited = time.monotonic() - began
        self.at += waited if ready or timeout is None else timeout
        set_clock(self.at)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything runs, and jumps to the next timer when
    nothing does: a timeout of a minute is over at once, and always at the same moment.

    `time()` begins at 1000 s.  All of roletalk in the process lives by it while the loop runs, and
    nothing else does: ``time.time()`` and ``time.monotonic()`` go on as ever.  While the loop waits
    for something outside of it - a socket, a process, a call in a thread by ``run_in_executor`` or
    ``asyncio.to_thread`` - time passes as on the wall.

    For ``asyncio.Runner(loop_factory=VirtualTimeLoop)`` and whatever else takes such a factory;
    `run_in_virtual_time` has it done.  Running raises `RuntimeError` while another such loop of the
    process runs.
    """

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds, virtual."""
        return self._jumping.at

    def run_forever(self) -> None:
        if not _in_use.acquire(blocking=False):
            raise RuntimeError("another loop of this process runs in virtual time")
        try:
            set_clock(self._jumping.at)
            super().run_forever()
        finally:
            set_clock(GOES)
            _in_use.release()

    def run_in_executor(  # type: ignore[override]  # typeshed has type variables there
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.outside += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        self._jumping.outside -= 1

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        # The threads end by the wall clock, and their number is not known here.
        self._jumping.outside += 1
        try:
            await super().shutdown_default_executor(*args, **options)
        finally:
            self._jumping.outside -= 1

    async def subprocess_exec(
        self, protocol_factory: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        return await self._process(super().subprocess_exec, protocol_factory, *args, **options)

    async def subprocess_shell(
        self, protocol_factory: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        return await self._process(super().subprocess_shell, protocol_factory, *args, **options)

    async def _process(
        self,
        start: Callable[..., Any],
        protocol_factory: Callable[[], Any],
        /,
        *args: Any,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Start a process; not every loop watches it by a file, which the selector would see."""
        is_out = True
        self._jumping.outside += 1

        def ended() -> None:
            nonlocal is_out
            if is_out:
                is_out = False
                self._jumping.outside -= 1

        def made() -> Any:
            protocol = protocol_factory()
            exited = protocol.process_exited

            def process_exited() -> None:
                ended()
                exited()

            protocol.process_exited = process_exited
            return protocol

        try:
            pair: tuple[Any, Any] = await start(made, *args, **options)
        except BaseException:
            ended()
            raise
        return pair


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` as ``asyncio.run`` does, on a `VirtualTimeLoop`, and give what it returns.

    Raises what `main` raises, and `RuntimeError` where a loop runs already.
    """
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("run_in_virtual_time() cannot be called from a running event loop")
    loop = VirtualTimeLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks that `main` has left running, as ``asyncio.run`` does."""
    left = asyncio.all_tasks(loop)
    if not left:
        return
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    for task in left:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during the end of run_in_virtual_time()",
                    "exception": task.exception(),
                    "task": task,
                }
            )
