"""Whether a function can be what it is registered as, told when it is registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
    is_plain = inspect.isroutine(function) or isinstance(function, type)
    runs = function if is_plain else getattr(function, "func", type(function).__call__)
    if inspect.isgeneratorfunction(runs) or inspect.isasyncgenfunction(runs):
        raise TypeError(
            f"{what} cannot be a generator, and {where(function)} has a yield in it: return one value"
            " (many are sent by a stream: on_writable)"
        )
    if is_sync and inspect.iscoroutinefunction(runs):
        raise TypeError(f"{what} is a plain function, and {where(function)} is an async one")
    try:
        # Not what a decorator wraps: what it makes of it is called.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
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
    name = getattr(function, "__qualname__", None) or repr(function)[:200]
    code = getattr(inspect.unwrap(getattr(function, "func", function)), "__code__", None)
    return f"{quoted(name, 200)[1:-1]}" + (
        f" ({code.co_filename}:{code.co_firstlineno})" if inspect.iscode(code) else ""
    )


def _bare(signature: inspect.Signature) -> inspect.Signature:
    """Without annotations, which say nothing of how it is called."""
    empty = inspect.Parameter.empty
    bare = [each.replace(annotation=empty) for each in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=empty)


def _why(signature: inspect.Signature) -> str:
    if next(iter(signature.parameters), "") in ("self", "cls"):
        return "; register the bound method of an object: role.on_request(event)(object.method)"
    return ""
