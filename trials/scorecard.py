"""Puts what the trials found into the scorecard: ``python -m trials.scorecard [DOCUMENT]``.

The document has a place for each trial, between ``<!-- trial: NAME -->`` and ``<!-- end -->``.  What
stands there is replaced where build/trials/ has a result of that trial, and kept where it has none.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from .figures import RESULTS, Result, load

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"

_PLACE: Final = re.compile(r"(<!-- trial: (?P<trial>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(result: Result) -> str:
    """The result in Markdown, for its place in the scorecard."""
    rows = [
        f"| {figure.what} | {figure.asked} | {figure.got}{'' if figure.met else ' **not met**'} |\n"
        for figure in result.figures
    ]
    return (
        f"\n`{result.command}` ({result.date}; {result.machine})\n\n"
        f"| what | asked | measured |\n| --- | --- | --- |\n{''.join(rows)}\n"
    )


def fill(text: str, results: dict[str, Result]) -> str:
    """The document's text with each result in its place; `KeyError` for one that has none."""
    homeless = results.keys() - set(places(text))
    if homeless:
        raise KeyError(f"the document has no place for {sorted(homeless)}")

    def replaced(place: re.Match[str]) -> str:
        result = results.get(place["trial"])
        return place[0] if result is None else f"{place[1]}{table(result)}{place[3]}"

    return _PLACE.sub(replaced, text)


def places(text: str) -> list[str]:
    """The names of the trials that the document has a place for."""
    return [place["trial"] for place in _PLACE.finditer(text)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.scorecard", description=__doc__)
    parser.add_argument("document", nargs="?", type=Path, default=DOCUMENT)
    document: Path = parser.parse_args().document
    found = [load(file) for file in sorted(RESULTS.glob("*.json"))]
    results = {result.trial: result for result in found}
    document.write_text(fill(document.read_text("utf-8"), results), "utf-8")
    print(f"{document}: {', '.join(results)}" if results else f"no results in {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
