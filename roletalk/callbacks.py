"""Lists of callbacks, and objects that can be awaited or entered with ``async with`` at once."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from ._text import Hint
from .signatures import check, where

if TYPE_CHECKING:
    from .peer import Peer

MAX_RUNNING: Final = 16_384  # async callbacks of a peer

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Callbacks(Generic[T]):
    """Functions that are called with the object concerned, in the order they were added.

    They may be sync or async; one that raises is logged and harms nobody.  While `MAX_RUNNING` async
    ones of a peer run, further ones are not begun, but counted: remote peers have a say in how often
    they are called.
    """

    def __init__(self, peer: Peer, name: str, argument: str) -> None:
        self._functions: list[Callable[[T], object]] = []
        self._peer = peer
        self._name = name
        self._argument = argument

    @property
    def functions(self) -> tuple[Callable[[T], object], ...]:
        return tuple(self._functions)

    def add(self, function: F) -> F:
        check(function, f"a callback of {self._name}", (self._argument,))
        self._functions.append(function)
        return function

    def __call__(self, subject: T) -> None:
        for function in tuple(self._functions):
            try:
                result = function(subject)
            except Exception as error:
                self._log(subject, function, error)
                continue
            if inspect.isawaitable(result):
                self._run(result, subject, function)

    def _run(self, awaitable: Awaitable[object], subject: T, function: object) -> None:
        if asyncio._get_running_loop() is None:
            # Roles may be made before the loop runs: it is begun when the peer is first used there.
            self._peer._early_callbacks.append(partial(self._run, awaitable, subject, function))
            return
        # asyncio keeps only weak references to tasks.
        tasks = self._peer._callback_tasks
        if len(tasks) >= MAX_RUNNING:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            self._peer.count_drop("callbacks while too many of them run")
            return
        task = asyncio.ensure_future(self._logged(awaitable, subject, function))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _logged(self, awaitable: Awaitable[object], subject: T, function: object) -> None:
        try:
            await awaitable
        except Exception as error:
            self._log(subject, function, error)

    def _log(self, subject: T, function: object, error: Exception) -> None:
        about = getattr(subject, "id", "callbacks")
        self._peer.remote_log.log(
            logging.ERROR,
            about,
            "error in callback %s of %s, called with %s",
            Hint(where(function)),
            self._name,
            subject,
            error=error,
        )


def check_seconds(what: str, seconds: Any) -> None:
    """`TypeError` or `ValueError`, naming `what`, unless it is a time, or ``None`` for no limit."""
    if seconds is None:
        return
    try:
        is_time = seconds >= 0
    except TypeError:
        kind = type(seconds).__name__
        raise TypeError(
            f"{what} is in seconds, a number, or None for no limit, not {kind}"
        ) from None
    if not is_time:
        raise ValueError(f"{what} is in seconds, 0 or more, or None for no limit, not {seconds!r}")


async def within(awaitable: Awaitable[T], timeout: float | None) -> T:
    """The result of `awaitable`; cancels it and raises `TimeoutError` after `timeout` seconds.

    `asyncio.wait_for` before Python 3.12 loses a cancellation that comes together with the result.
    """
    future = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({future}, timeout=timeout)
    except BaseException:
        # It may have failed in the same moment, which nobody will hear of.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
    finally:
        if not future.done():
            future.cancel()
    if not done:
        raise TimeoutError
    return future.result()


class _Closable(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)


class Opening(Coroutine[Any, Any, C]):
    """Something that is being opened: await it for the thing itself, or enter it to have it closed
    when the block is left."""

    __slots__ = ("_close", "_opened", "_opening")

    def __init__(
        self,
        opening: Coroutine[Any, Any, C],
        name: str,
        close: Callable[[C], Awaitable[None]] | None = None,
    ) -> None:
        # Python warns by this name when it is never awaited.
        opening.__qualname__ = name  # type: ignore[attr-defined]  # a coroutine of a function
        self._opening = opening
        self._opened: C | None = None
        self._close = close

    def send(self, value: Any) -> Any:
        return self._opening.send(value)

    def throw(self, *exc_info: Any) -> Any:
        return self._opening.throw(*exc_info)

    def close(self) -> None:
        self._opening.close()

    def __await__(self) -> Generator[Any, Any, C]:
        return self._opening.__await__()

    async def __aenter__(self) -> C:
        self._opened = await self._opening
        return self._opened

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if self._close is not None:
            await self._close(opened)
        else:
            await opened.close()
