"""Middleware around handlers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ._context import Context
from .signatures import MIDDLEWARE, check, where

Kind: TypeAlias = Literal["message", "request", "readable", "writable"]
KINDS: frozenset[str] = frozenset({"message", "request", "readable", "writable"})

CallNext: TypeAlias = Callable[[], Awaitable[Any]]
MiddlewareFunction: TypeAlias = Callable[[Any, CallNext], Awaitable[Any]]


@dataclass(frozen=True)
class Middleware:
    """One middleware and the kinds of message that it is called for."""

    function: MiddlewareFunction
    kinds: frozenset[str]

    @classmethod
    def make(cls, function: MiddlewareFunction, kinds: Iterable[Kind] | None) -> Middleware:
        """Raises `TypeError` and `ValueError` for what cannot be one."""
        check(function, "a middleware", MIDDLEWARE)
        chosen = KINDS if kinds is None else frozenset(kinds)
        if not chosen <= KINDS:
            raise ValueError(
                f"the kinds of a middleware are of {sorted(KINDS)}, not {sorted(chosen - KINDS)}"
            )
        return cls(function, chosen)


def wrap(
    function: Callable[[Any], Any], chain: Iterable[Middleware], kind: str
) -> Callable[[Any], Any]:
    """`function` inside the middlewares of `chain` that `kind` concerns, the first one outermost.

    Without any it is `function` itself.
    """
    concerned = [each.function for each in chain if kind in each.kinds]
    if not concerned:
        return function

    async def call_next(context: Context) -> Any:
        result = function(context)
        if inspect.isawaitable(result):
            result = await result
        return _no_coroutine(result, function, "handler", "is an await missing in it?")

    # Python warns by this name of one that was never awaited.
    call_next.__qualname__ = "call_next"
    call: Callable[[Context], Coroutine[Any, Any, Any]] = call_next
    for middleware in reversed(concerned):
        call = _around(middleware, call)
    return call


def _around(
    middleware: MiddlewareFunction, inner: Callable[[Context], Awaitable[Any]]
) -> Callable[[Context], Coroutine[Any, Any, Any]]:
    async def call_next(context: Context) -> Any:
        awaitable = middleware(context, lambda: inner(context))
        if not inspect.isawaitable(awaitable):
            raise TypeError(
                f"middleware {where(middleware)} returned {type(awaitable).__name__}, which cannot be"
                " awaited: write it as `async def`"
            )
        result = await awaitable
        return _no_coroutine(result, middleware, "middleware", "write `return await call_next()`")

    call_next.__qualname__ = "call_next"
    return call_next


def _no_coroutine(result: Any, function: Callable[..., Any], what: str, hint: str) -> Any:
    if inspect.iscoroutine(result):
        # It never runs; Python need not warn of it as well.
        result.close()
        raise TypeError(
            f"{what} {where(function)} returned a coroutine that it did not await: {hint}"
        )
    return result
