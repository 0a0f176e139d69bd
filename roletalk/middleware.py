"""Middleware around handlers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ._context import Context

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
        if not callable(function):
            raise TypeError(f"a middleware is an async function, not {type(function).__name__}")
        chosen = KINDS if kinds is None else frozenset(kinds)
        if not chosen <= KINDS:
            raise ValueError(f"kinds are {sorted(KINDS)}, not {sorted(chosen - KINDS)}")
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

    async def innermost(context: Context) -> Any:
        result = function(context)
        return await result if inspect.isawaitable(result) else result

    call: Callable[[Context], Coroutine[Any, Any, Any]] = innermost
    for middleware in reversed(concerned):
        call = _around(middleware, call)
    return call


def _around(
    middleware: MiddlewareFunction, inner: Callable[[Context], Awaitable[Any]]
) -> Callable[[Context], Coroutine[Any, Any, Any]]:
    async def call(context: Context) -> Any:
        return await middleware(context, lambda: inner(context))

    return call
