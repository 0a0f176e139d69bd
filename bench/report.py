"""What the benchmark prints, and the same as Markdown."""

from collections.abc import Sequence
from textwrap import shorten

from .figures import FIGURES, column_title, measured_figures, ratio, ratio_names, spread_of
from .results import Outcome, Run
from .tables import aligned, markdown
from .targets import Verdict, judge, summary

WHY_WIDTH = 45  # characters
READING = (
    "Medians over the rounds (least..most). The turns of a round follow each other at once: a "
    "ratio is taken within a round, for the machine's speed drifts from one to the next. Trust "
    "the ratios, not the rates."
)


def figure_rows(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """The head and a line for each turn that was taken; CPU as medians, for it varies little."""
    names = measured_figures(outcome)
    rows = []
    for label in outcome.heading.labels:
        if outcome.samples(label):
            spreads = [spread_of(outcome, label, name) for name in names]
            rows.append([label, *("" if found is None else str(found) for found in spreads)])
    return ["", *(column_title(outcome, name) for name in names)], rows


def ratio_rows(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """The head and a line for each turn that the first is compared with."""
    first, *others = outcome.heading.labels
    names = ratio_names(outcome)
    rows = []
    for other in others:
        spreads = [ratio(outcome, other, name) for name in names]
        if any(found is not None for found in spreads):
            cells = ("" if found is None else str(found) for found in spreads)
            rows.append([other, *cells])
    return [f"{first}, as a ratio to", *(FIGURES[name].title for name in names)], rows


def scenario_text(name: str, outcome: Outcome) -> str:
    """One scenario for a terminal."""
    lines = [f"\n{name}: {outcome.heading.about}"]
    for head, rows in (figure_rows(outcome), ratio_rows(outcome)):
        if rows:
            lines.append(aligned(head, rows))
    lines += [f"  {label}: not measured: {why}" for label, why in outcome.missing.items()]
    return "\n".join(lines)


def targets_text(run: Run) -> str:
    """Those that the run's scenarios are about."""
    verdicts = [verdict for verdict in judge(run) if verdict.target.scenario in run.outcomes]
    if not verdicts:
        return ""
    table = aligned(["target", "", "asked", "measured"], _target_rows(verdicts), left=2)
    return f"\n{summary(verdicts)}\n{table}"


def markdown_text(run: Run) -> str:
    """The whole run."""
    verdicts = judge(run)
    parts = [
        "# roletalk: results of the benchmark",
        READING,
        f"## Targets: {summary(verdicts)}",
        markdown(["target", "", "asked", "measured"], _target_rows(verdicts), left=2),
        "## Setting",
        markdown(["", "value"], run.setting.items(), left=2),
        "## Scenarios",
    ]
    for name, outcome in run.outcomes.items():
        parts += [f"### {name}", f"{outcome.heading.about}."]
        for head, rows in (figure_rows(outcome), ratio_rows(outcome)):
            if rows:
                parts.append(markdown(head, rows))
        if outcome.missing:
            parts.append(markdown(["not measured", "why"], outcome.missing.items(), left=2))
    return "\n\n".join(parts) + "\n"


def _target_rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    rows = []
    for verdict in verdicts:
        # In full where the scenario is; here it would widen the whole table.
        why_not = shorten(verdict.why_not, WHY_WIDTH, placeholder=" ...")
        measured = why_not if verdict.spread is None else str(verdict.spread)
        rows.append([verdict.target.about, verdict.word, verdict.target.asked, measured])
    return rows
