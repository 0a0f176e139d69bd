"""Tables as text: aligned for a terminal, or as Markdown that reads as well unrendered."""

from collections.abc import Iterable, Sequence

Row = Sequence[str]


def aligned(head: Row, rows: Iterable[Row], *, left: int = 1, indent: str = "  ") -> str:
    """The first `left` columns flush left, the figures flush right; an empty head is left out."""
    body = [list(row) for row in rows]
    lines = [list(head), *body] if any(head) else body
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        (indent + "   ".join(_pad(line, widths, left))).rstrip() for line in lines if line
    )


def markdown(head: Row, rows: Iterable[Row], *, left: int = 1) -> str:
    """The same with pipes; whatever the cells hold stays inside them."""
    lines = [[_escape(cell) for cell in line] for line in (head, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * width if number < left else "-" * (width - 1) + ":"
        for number, width in enumerate(widths)
    ]
    padded = [_pad(line, widths, left) for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _pad(line: Row, widths: Sequence[int], left: int) -> list[str]:
    return [
        cell.ljust(width) if number < left else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _escape(cell: str) -> str:
    """One line, without what Markdown or the HTML in it would take for markup."""
    text = " ".join(cell.split()).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\|*_`[]":
        text = text.replace(character, "\\" + character)
    return text
