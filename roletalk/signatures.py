"""Whether a function can be what it is registered as, told when it is registered."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from ._text import quoted

HANDLER: Final = ("ctx",)
MIDDLEWARE: Final = ("ctx", "call_next")


def check(
    function: Callable[..., Any], what: str, arguments: tuple[str, ...], *, is_sync: bool = False
) -> None:
    """Raise `TypeError` unless `function` can be called with that many arguments, and then runs.

    what: ``"a handler"``, for the text.  is_sync: its result is used at once, not awaited.  A function
    written in C that does not tell its signature passes.
    """
    if not callable(function):
        raise TypeError(f"{what} is a function, not {type(function).__name__}")
    runs = function
    if isinstance(function, functools.partial):
        runs = function.func
    elif not (inspect.isroutine(function) or isinstance(function, type)):
        runs = type(function).__call__
    if _is_generator(runs):
        raise TypeError(
            f"{what} cannot be a generator, and {where(function)} has a yield in it: return one value"
            " (many are sent by a stream: on_writable)"
        )
    if is_sync and inspect.iscoroutinefunction(runs):
        raise TypeError(f"{what} is a plain function, and {where(function)} is an async one")
    try:
        signature = _signature(function)
    except Exception:  # of whatever plays a function: mocks, and objects with a __signature__
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        wanted = f"{getattr(function, '__name__', 'function')}({', '.join(arguments)})"
        raise TypeError(
            f"{what} is called as {wanted}, and {where(function)} takes {_bare(signature)}"
            f"{_why(signature)}"
        ) from None


def where(function: Any) -> str:
    """A function as an error names it: its name, and the file and line where it is written."""
    called = function.func if isinstance(function, functools.partial) else function
    try:
        code = getattr(inspect.unwrap(called), "__code__", None)
    except ValueError:  # it wraps itself
        code = None
    name = getattr(function, "__qualname__", None)
    shown = quoted(name if isinstance(name, str) and name else repr(function)[:200], 200)[1:-1]
    if not isinstance(code, CodeType):
        return shown
    return f"{shown} ({code.co_filename}:{code.co_firstlineno})"


def _is_generator(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    flags = code.co_flags if isinstance(code, CodeType) else 0
    # What types.coroutine decorates is a generator, and can be awaited.
    return bool(flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)) and not (
        flags & inspect.CO_ITERABLE_COROUTINE
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Not that of what a decorator wraps: what it makes of it is called."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # They are evaluated otherwise, and may name what is imported for a type checker only.
        return inspect.signature(
            function, follow_wrapped=False, annotation_format=Format.FORWARDREF
        )
    else:  # noqa: RET505  # to mypy what follows is unreachable otherwise
        return inspect.signature(function, follow_wrapped=False)


def _bare(signature: inspect.Signature) -> inspect.Signature:
    """Without annotations, which say nothing of how it is called."""
    empty = inspect.Parameter.empty
    bare = [each.replace(annotation=empty) for each in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=empty)


def _why(signature: inspect.Signature) -> str:
    if next(iter(signature.parameters), "") in ("self", "cls"):
        return "; register the bound method of an object: role.on_request(event)(object.method)"
    return ""
