"""The pages of the documentation, and the code blocks that they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from sybil import Document, Region
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

ROOT: Final = Path(__file__).parents[2]

RUN: Final = frozenset({"python", "sh"})
# What `check.py` reads for faults of syntax.
CHECKED: Final = frozenset({"dockerfile", "go", "ini", "javascript", "json", "toml", "yaml"})
# `hexdump` is held to the codec by tests/test_vectors.py, in docs/protocol.md.
SHOWN: Final = frozenset({"console", "haproxy", "hexdump", "nginx", "text"})

FENCE: Final = re.compile(r"^ *(`{3,}|~{3,})(.*)$")
FILE_NAME: Final = re.compile(r"(?:#|//|--|;) ((?:[\w-]+/)*[\w-]*(?:\.[\w-]+)+|Dockerfile)")
MACHINE: Final = re.compile(r"# on machine ([AB])\b")
NOT_RUN: Final = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
# What may stand between a block and its output: nothing, or a paragraph of one sentence's length
# that ends in a colon.
BETWEEN: Final = re.compile(r"\s*(?:(?!#)[^\n]+(?:\n[^\n]+){0,2}:\s*)?")
COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or a hidden one in an HTML comment."""

    page: Path
    line: int  # of its first line, from 1
    language: str
    source: str = field(repr=False)
    is_hidden: bool
    follows: bool  # nothing but a line that introduces it stands after the visible block before
    reason: str  # why it is not run; "" where it is

    @property
    def where(self) -> str:
        page = self.page.relative_to(ROOT) if ROOT in self.page.parents else self.page
        return f"{page}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The file that it is to be written to, where its first line is a comment that names one."""
        found = FILE_NAME.fullmatch(self.source.split("\n", 1)[0].rstrip())
        return found[1] if found and self.language not in ("console", "text") else None

    @property
    def machine(self) -> str:
        """The machine of two that it is for, "A" or "B", by its first line; "" where there is one."""
        found = MACHINE.match(self.source)
        return found[1] if found else ""

    @property
    def is_run(self) -> bool:
        return self.language in RUN and not self.file_name and not self.reason


@dataclass(frozen=True)
class Page:
    path: Path
    text: str = field(repr=False)
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(sorted({block.machine for block in self.blocks if block.machine}))

    def runs(self, *languages: str) -> bool:
        return any(block.is_run and block.language in languages for block in self.blocks)


class BlockParser:
    """A Sybil parser that takes every fenced block, whatever its language, and the hidden ones."""

    def __init__(self) -> None:
        self._fenced = FencedCodeBlockLexer(language=r"[^\n]+?")
        self._hidden = DirectiveInHTMLCommentLexer("invisible-code-block", arguments=r"\w+")

    def __call__(self, document: Document) -> Iterator[Region]:
        for region in self._fenced(document):
            region.parsed = (region.lexemes["language"].strip(), False)
            yield region
        for region in self._hidden(document):
            region.parsed = (region.lexemes["arguments"], True)
            yield region


def parse(path: Path) -> Page:
    document = Document.parse(str(path), BlockParser())
    blocks = []
    end = 0  # of the visible block before
    for _, region in document.regions:
        source = region.lexemes["source"]
        language, is_hidden = region.parsed
        before = document.text[end : region.start]
        not_run = NOT_RUN.search(before)
        blocks.append(
            Block(
                path,
                line=document.text.count("\n", 0, region.start + source.offset) + 1,
                language=language,
                source=source,
                is_hidden=is_hidden,
                follows=bool(end and BETWEEN.fullmatch(COMMENT.sub("", before))),
                reason=" ".join(not_run[1].split()) if not_run else "",
            )
        )
        if not is_hidden:
            end = region.end
    return Page(path, document.text, tuple(blocks))


@cache
def pages() -> tuple[Page, ...]:
    """Those of the repository's top and all below docs/."""
    paths = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
    return tuple(parse(path) for path in paths)


def fences(text: str) -> Iterable[int]:
    """The lines, from 1, on which a fenced block begins; found without the parser above."""
    open_fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        found = FENCE.match(line)
        if not found:
            continue
        if not open_fence:
            open_fence = found[1]
            yield number
        elif found[1].startswith(open_fence) and not found[2].strip():
            open_fence = ""
