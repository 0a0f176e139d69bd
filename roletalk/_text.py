"""Text from elsewhere, made fit for an error or a log line.  This module imports nothing of the package."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ERROR_CHARS", "SHOWN_CHARS", "Hint", "named", "printable", "quoted"]

SHOWN_CHARS: Final = 200  # of one text in a log line
NAME_CHARS: Final = 100  # of a name in a text of ours
ERROR_CHARS: Final = 4096  # of an error
ID_CHARS: Final = 8  # of a unit's id beside its name


class Hint(str):
    """A text of ours with nothing of a remote peer's in it: a log line has the whole of it."""

    __slots__ = ()


def printable(text: str, limit: int = SHOWN_CHARS) -> str:
    """`text` as one line of at most `limit` characters that leave a log and a terminal as they are.

    What has no glyph (control characters, ends of lines, marks of direction, lone surrogates) is
    escaped as in a literal.  Where something was cut off, an ellipsis stands for it.
    """
    if len(text) <= limit and text.isprintable():
        return text
    # One character more than there is room for tells that there was more.
    shown = "".join(map(_visible, text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quoted(text: str, limit: int = NAME_CHARS) -> str:
    """The `repr` of the first `limit` characters of a name."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def named(unit: Any) -> str:
    """How an error or a log line calls a unit: by its name and the beginning of its id."""
    name, unit_id = getattr(unit, "name", ""), getattr(unit, "id", "")
    if not name:
        return f"unit {quoted(unit_id)}" if unit_id else "the unit"
    return f"unit {quoted(name)} ({printable(unit_id[:ID_CHARS])})"


def _visible(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
