"""The messages that docs/howto/messages.md and docs/reference/logging.md list are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("docs/howto/messages.md", "docs/reference/logging.md")


def literals() -> str:
    """The source of the package, with its literals joined, and one mark for what is put into them."""
    source = "\n".join(
        path.read_text()
        for path in sorted((ROOT / "roletalk").iterdir())
        if path.suffix in (".py", ".pyx")
    )
    source = re.sub(r"""(["'])\s*\n\s*f?\1""", "", source)
    source = re.sub(r"\{[^{}\n]*\}", "…", source)
    return re.sub(r"%(?:\.\d)?[sdrf]", "…", source).replace("\\'", "'")


SOURCE = literals()


def messages() -> list[str]:
    found: list[str] = []
    for page in PAGES:
        for line in (ROOT / page).read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if not line.startswith("| ") or len(cells) < 3 or cells[0] in ("logger", "message"):
                continue
            cell = cells[1] if page.endswith("logging.md") else cells[0]
            found += [one or two for one, two in re.findall(r"``(.+?)``|`([^`]+)`", cell)]
    return found


@pytest.mark.parametrize("message", [each for each in messages() if "coroutine '" not in each])
def test_the_code_says_so(message: str) -> None:
    """Most of its words in a row, for some stand for what differs."""
    message = re.sub(r"^\w+(?:Error|Timeout|Block|Warning): ", "", message.strip())
    words = re.findall(r"[^\s…]+", message)
    rows = [" ".join(words[at : at + 2]) for at in range(len(words) - 1)]
    said = [row for row in rows if row.strip(" ;:,.()'") in SOURCE]
    assert len(said) >= 0.6 * len(rows), f"nothing says {sorted(set(rows) - set(said))}"


def test_there_are_messages() -> None:
    assert len(messages()) > 90
