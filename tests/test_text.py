"""Text from elsewhere is escaped and cut before it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roletalk import RemoteError, RoletalkError
from roletalk._text import ERROR_CHARS, NAME_CHARS, SHOWN_CHARS, printable, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text, ünïcödé \U0001f600", "plain text, ünïcödé \U0001f600"),
        ("C:\\path", "C:\\path"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b[2J\x9b2J\x07\0", r"\x1b[2J\x9b2J\x07\x00"),
        ("\u202eright to left\u2066", r"\u202eright to left\u2066"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\ud800 alone", r"\ud800 alone"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_has_no_glyph_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_it_is_cut_at_the_limit() -> None:
    assert printable("x" * SHOWN_CHARS) == "x" * SHOWN_CHARS
    assert printable("x" * (SHOWN_CHARS + 1)) == "x" * (SHOWN_CHARS - 1) + "…"
    # What counts is what is shown.
    assert printable("\n" * SHOWN_CHARS) == r"\n" * (SHOWN_CHARS // 2 - 1) + "\\…"


@given(st.text(), st.integers(1, 50))
def test_any_text_becomes_one_printable_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert quoted(text).isprintable()


def test_a_name_is_quoted_and_cut() -> None:
    assert quoted("a\n") == r"'a\n'"
    assert quoted("x" * NAME_CHARS) == repr("x" * NAME_CHARS)
    assert quoted("x" * (NAME_CHARS + 1)) == repr("x" * (NAME_CHARS - 1) + "…")


def test_every_error_of_the_library_is_printable_and_cut() -> None:
    def leaves(kind: type[RoletalkError]) -> list[type[RoletalkError]]:
        return [kind, *(leaf for each in kind.__subclasses__() for leaf in leaves(each))]

    assert len(leaves(RoletalkError)) >= 10
    for kind in leaves(RoletalkError):
        error = kind("\n\x1b[2J\u202e" + "x" * 10_000)
        assert str(error).isprintable()
        assert len(str(error)) == ERROR_CHARS
        assert str(kind("as it is")) == "as it is"


def test_the_text_of_a_reject_stays_as_it_was() -> None:
    error = RemoteError("two\nlines")
    assert error.text == "two\nlines"
    assert str(error) == r"two\nlines"
