"""trials.figures: what trials end in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trials import figures
from trials.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (figures.at_most("a", 0.08, 0.1, "s"), Figure("a", "≤ 0.1 s", "0.08 s", True)),
        (figures.at_most("a", 0.1, 0.1, "s"), Figure("a", "≤ 0.1 s", "0.1 s", True)),
        (figures.at_most("a", 0.11, 0.1, "s"), Figure("a", "≤ 0.1 s", "0.11 s", False)),
        (figures.at_least("a", 9_999, 10_000), Figure("a", "≥ 10,000", "9,999", False)),
        (figures.at_least("a", 10_000, 10_000), Figure("a", "≥ 10,000", "10,000", True)),
        (figures.told("a", 1234567, "B"), Figure("a", "", "1,234,567 B", True)),
        (figures.told("a", "b"), Figure("a", "", "b", True)),
    ],
)
def test_what_a_figure_says(figure: Figure, expected: Figure) -> None:
    assert figure == expected


@pytest.mark.parametrize(("got", "status"), [(1, 0), (3, 1)])
def test_a_report_is_printed_and_kept_and_tells_by_its_status(
    got: int,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "new")
    found = [figures.at_most("lost", got, 2), figures.told("sent", 5)]
    assert figures.report("t", "make t", found) == status
    printed = capsys.readouterr().out
    assert "lost" in printed
    assert ("! lost" in printed) == bool(status)
    kept = figures.load(tmp_path / "new" / "t.json")
    assert kept.figures == tuple(found)
    assert (kept.trial, kept.command, kept.met) == ("t", "make t", not status)
