"""Links to what lies outside docs/, which work on GitHub as they stand, are made to work here.

A page of the repository's top leads to the page here that includes it, a directory to nothing (its
name stays), and any other file is offered as a download, as MyST does by itself.  A page that
includes one of the top gets its text with the links as they are from here.  A link to a name of the
reference, ``peer.md#roletalk.Peer.listen``, is made one that Sphinx checks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

INCLUDED: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/reporting.md",
    "examples/README.md": "examples.md",
}
INCLUDE: Final = re.compile(r"^```\{include\} (\S+\.md)\n```$", re.MULTILINE)
# What only the tests read.
COMMENT: Final = re.compile(
    r"^<!---? (?:invisible-code-block|not run): .*?-->$", re.MULTILINE | re.DOTALL
)
LINK: Final = re.compile(r"\[([^][]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def bring_in(app: Sphinx, docname: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    page_folder = (docs / docname).parent

    def with_links(text: str, folder: Path) -> str:
        """The text of a page in `folder`, as one of `page_folder`."""

        def replaced(link: re.Match[str]) -> str:
            if (link[3] or "").startswith("#roletalk."):
                text = link[1].replace("`", "")
                return f"{{py:obj}}`{text} <{link[3][1:]}>`"
            path = (folder / link[2]).resolve()
            included = INCLUDED.get(os.path.relpath(path, docs.parent))
            if included:
                path = docs / included
            elif path.is_dir():
                return link[1]
            return f"[{link[1]}]({os.path.relpath(path, page_folder)}{link[3] or ''})"

        return LINK.sub(replaced, text)

    def contents(include: re.Match[str]) -> str:
        path = (page_folder / include[1]).resolve()
        app.env.note_dependency(str(path))
        return with_links(path.read_text("utf-8"), path.parent)

    text = INCLUDE.sub(contents, with_links(source[0], page_folder))
    # Lines keep their numbers, for the warnings' sake.
    source[0] = COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", bring_in)
    return {"parallel_read_safe": True}
