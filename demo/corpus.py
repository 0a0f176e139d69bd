"""The text that the demo works on, and the plain loop that its results are compared with."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .worker import split_words

SUFFIXES = {".c", ".go", ".h", ".js", ".md", ".pxd", ".py", ".pyi", ".pyx", ".rst", ".toml", ".txt"}
SKIPPED = {"build", "dist", "node_modules", "venv"}
PIECE_LINES = 100


def read_texts(folder: Path) -> list[str]:
    """The text files below `folder`, those in hidden and built folders left out."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return [path.read_text("utf-8", "replace") for path in paths if _is_source(path, folder)]


def _is_source(path: Path, folder: Path) -> bool:
    parents = path.relative_to(folder).parts[:-1]
    return path.is_file() and not any(p in SKIPPED or p.startswith((".", "__")) for p in parents)


def pieces(text: str) -> Iterator[str]:
    """`text` in pieces of some lines each; no word spans two lines."""
    lines = text.splitlines(keepends=True)
    for start in range(0, len(lines), PIECE_LINES):
        yield "".join(lines[start : start + PIECE_LINES])


def plain_counts(texts: list[str]) -> Counter[str]:
    """How often each word occurs, by a plain loop in this process."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text))
    return counts


def differences(expected: Counter[str], found: Counter[str]) -> list[str]:
    """One line for each word whose two counts differ; none when both are the same."""
    return [
        f"{word!r}: expected {expected[word]}, found {found[word]}"
        for word in sorted(expected.keys() | found.keys())
        if expected[word] != found[word]
    ]
