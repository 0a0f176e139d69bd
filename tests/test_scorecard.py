"""trials.scorecard, and that the scorecard in the documents is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trials import scorecard
from trials.figures import Result, at_most, told

ROOT = Path(__file__).resolve().parent.parent
RESULT = Result("b", "make b", "2026-01-02", "here", (at_most("lost", 3, 2), told("sent", 5)))
DOCUMENT = """before
<!-- trial: a -->
kept
<!-- end -->
between
<!-- trial: b -->
old
<!-- end -->
after
"""


def test_a_result_replaces_what_stood_in_its_place() -> None:
    filled = scorecard.fill(DOCUMENT, {"b": RESULT})
    assert "kept" in filled
    assert "old" not in filled
    assert "`make b` (2026-01-02; here)" in filled
    assert "| lost | ≤ 2 | 3 **not met** |" in filled
    assert "| sent |  | 5 |" in filled
    assert filled.endswith("after\n")
    assert scorecard.fill(filled, {"b": RESULT}) == filled


def test_a_result_without_a_place_is_an_error() -> None:
    with pytest.raises(KeyError, match="b"):
        scorecard.fill("", {"b": RESULT})


def test_every_trial_has_figures_and_a_command_that_exists() -> None:
    text = scorecard.DOCUMENT.read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    modules = set(re.findall(r"-m trials\.(\w+)", makefile)) - {"scorecard"}
    assert len(modules) >= 8
    assert set(scorecard.places(text)) == modules
    filled = re.findall(
        r"<!-- trial: ([\w-]+) -->\n\n`make ([\w-]+)[^`]*` .*?<!-- end -->", text, re.DOTALL
    )
    assert {trial for trial, _ in filled} == modules
    assert {target for _, target in filled} <= targets
