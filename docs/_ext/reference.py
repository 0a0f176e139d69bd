"""The blocks of the reference: ``{reference} NAME``, with the members to be shown in its body.

Without a body it is the class or function itself.  A member without a docstring is an error; where the
sources have no place for one, the block explains it: ``name: what it is``.  ``name(arguments)``, or
``name(arguments) -> returned``, shows these in place of its overloads.  What stands in single
backticks in a docstring becomes a link where the reference has such a name.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sphinx.util.logging import getLogger
from stubs import BLOCK, Member, documented, members

if TYPE_CHECKING:
    from sphinx.application import Sphinx

logger = getLogger(__name__)

OUTERMOST: Final = frozenset({"class", "data", "exception", "function"})
PAGE: Final = re.compile(r"\bdocs/([\w/-]+)\.md\b")
BACKTICKS: Final = re.compile(r"(?<![`:\w])`([^`\n]+)`(?![`_])")


@cache
def known() -> frozenset[str]:
    return frozenset(documented())


def linked(doc: str, member: Member) -> str:
    """Its names in single backticks as links, or as code where there is nothing to lead to."""
    package = member.full_name.rpartition(".")[0]

    def replaced(found: re.Match[str]) -> str:
        text = found[1]
        for scope in (member.full_name, package, "roletalk"):
            target = f"{scope}.{text.removesuffix('()')}"
            if target in known() and target != member.full_name:
                return f":py:obj:`{text} <{target}>`"
        return f"``{text}``"

    return PAGE.sub(r":doc:`docs/\1.md </\1>`", BACKTICKS.sub(replaced, doc))


def directive(member: Member) -> str:
    """The member in reStructuredText."""
    if not member.doc and not any(option.startswith(":value:") for option in member.options):
        logger.warning("%s has no docstring", member.full_name)
    package = member.full_name.rpartition(".")[0] if member.role in OUTERMOST else ""
    module = package or member.full_name.rsplit(".", 2)[0]
    first, *others = member.signatures
    lines = [f".. py:{member.role}:: {first}"]
    lines += [" " * (len(member.role) + 9) + other for other in others]
    lines += [f"   {option}" for option in (f":module: {module}", *member.options)]
    lines += ["", *(f"   {line}" for line in linked(member.doc, member).splitlines()), ""]
    return "\n".join(lines)


def write_out(app: Sphinx, docname: str, source: list[str]) -> None:
    def rendered(block: re.Match[str]) -> str:
        return "```{eval-rst}\n" + "\n".join(map(directive, members(block))) + "\n```"

    if docname.startswith("reference/"):
        source[0] = BLOCK.sub(rendered, source[0])
        # Docstrings may have changed where the page has not.
        app.env.note_reread()


def setup(app: Sphinx) -> dict[str, Any]:
    known.cache_clear()
    app.connect("source-read", write_out)
    return {"parallel_read_safe": True}
