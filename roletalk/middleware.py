"""Middleware around handlers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, overload

from ._context import Context, RequestContext
from ._opening import ReadableContext, WritableContext
from .signatures import MIDDLEWARE, check, where

__all__ = ["CallNext", "Kind", "Middleware", "TakesMiddleware", "wrap"]

Kind: TypeAlias = Literal["message", "request", "readable", "writable"]
KINDS: frozenset[str] = frozenset({"message", "request", "readable", "writable"})

CallNext: TypeAlias = Callable[[], Awaitable[Any]]
"""What a middleware calls to go on: ``await call_next()`` gives the reply."""

MiddlewareFunction: TypeAlias = Callable[[Any, CallNext], Awaitable[object]]

# What it is called with depends on the kinds that it is called for.
AnyMiddleware = TypeVar("AnyMiddleware", bound=Callable[[Context, CallNext], Awaitable[object]])
RequestMiddleware = TypeVar(
    "RequestMiddleware", bound=Callable[[RequestContext, CallNext], Awaitable[object]]
)
ReadableMiddleware = TypeVar(
    "ReadableMiddleware", bound=Callable[[ReadableContext, CallNext], Awaitable[object]]
)
WritableMiddleware = TypeVar(
    "WritableMiddleware", bound=Callable[[WritableContext, CallNext], Awaitable[object]]
)


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


class TakesMiddleware:
    """What middlewares are added to: a peer, or a role."""

    __slots__ = ()

    # Those that take the function overlap, but each returns the very function.
    @overload
    def middleware(
        self, *, kinds: Iterable[Literal["readable"]]
    ) -> Callable[[ReadableMiddleware], ReadableMiddleware]: ...

    @overload
    def middleware(
        self, *, kinds: Iterable[Literal["writable"]]
    ) -> Callable[[WritableMiddleware], WritableMiddleware]: ...

    @overload
    def middleware(
        self, *, kinds: Iterable[Literal["request", "readable", "writable"]]
    ) -> Callable[[RequestMiddleware], RequestMiddleware]: ...

    @overload
    def middleware(
        self, *, kinds: Iterable[Kind] | None = None
    ) -> Callable[[AnyMiddleware], AnyMiddleware]: ...

    @overload
    def middleware(  # type: ignore[overload-overlap]
        self, function: ReadableMiddleware, /, *, kinds: Iterable[Literal["readable"]]
    ) -> ReadableMiddleware: ...

    @overload
    def middleware(  # type: ignore[overload-overlap]
        self, function: WritableMiddleware, /, *, kinds: Iterable[Literal["writable"]]
    ) -> WritableMiddleware: ...

    @overload
    def middleware(  # type: ignore[overload-overlap]
        self,
        function: RequestMiddleware,
        /,
        *,
        kinds: Iterable[Literal["request", "readable", "writable"]],
    ) -> RequestMiddleware: ...

    @overload
    def middleware(
        self, function: AnyMiddleware, /, *, kinds: Iterable[Kind] | None = None
    ) -> AnyMiddleware: ...

    def middleware(
        self, function: MiddlewareFunction | None = None, *, kinds: Iterable[Kind] | None = None
    ) -> Any:
        """Decorate ``async def m(ctx, call_next)``, called around the handlers of the role, or of all
        roles of the peer.

        The peer's middlewares come first, then the role's, in the order they were added.
        ``await call_next()`` gives the reply, which may be replaced by returning something else;
        `ctx.data` may be replaced before.  `kinds` narrows what it is called for.
        """

        def decorate(function: MiddlewareFunction) -> MiddlewareFunction:
            self._add_middleware(Middleware.make(function, kinds))
            return function

        return decorate if function is None else decorate(function)

    def _add_middleware(self, middleware: Middleware) -> None:
        """Put it around the handlers concerned.  Raises `RuntimeError` in a wrong thread."""
        raise NotImplementedError  # each of the two says what is concerned


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
