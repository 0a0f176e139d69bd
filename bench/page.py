"""The report as one HTML file that needs nothing else: light or dark, as wide as the screen."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .figures import FIGURES, ratio, ratio_names, spread_of, values
from .markup import Html, join, tag
from .plots import Bar, Curve, bars, curves, ratio_bars, spread_html
from .report import READING, figure_rows, ratio_rows
from .results import Outcome, Run
from .targets import Verdict, judge, summary

STYLE = Path(__file__).with_name("page.css")
TITLES = {
    "rate": "Rate",
    "CPU": "CPU for each",
    "p50": "Latency, median",
    "p99": "Latency, 99th percentile",
    "p999": "Latency, 99.9th percentile",
    "memory": "Memory",
}
KINDS = 9  # of colours in the style sheet, beside that of ours


def page(run: Run) -> str:
    """The whole run.  Raises `OSError` if the style sheet is not beside this file."""
    kinds = _kinds(run)
    sections = [_scenario(name, outcome, kinds) for name, outcome in run.outcomes.items()]
    body = join(
        _head(run),
        tag("main", _targets(judge(run)), _overview(run), *sections, _setting(run)),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "roletalk: results of the benchmark"),
        tag("style", Html(STYLE.read_text("utf-8"))),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _kinds(run: Run) -> dict[str, str]:
    """A CSS class a label, the same one in every scenario."""
    kinds: dict[str, str] = {}
    firsts = {outcome.heading.labels[0] for outcome in run.outcomes.values()}
    for outcome in run.outcomes.values():
        for label in outcome.heading.labels:
            if label not in kinds and label not in firsts:
                kinds[label] = f"other o{len(kinds) % KINDS}"
    return kinds | dict.fromkeys(firsts, "ours")


def _head(run: Run) -> Html:
    names = ("date", "CPU", "cores", "Python", "roletalk")
    known = [run.setting[name] for name in names if name in run.setting]
    if "cores" in run.setting:
        known[known.index(run.setting["cores"])] = f"{run.setting['cores']} cores"
    return tag(
        "header",
        tag("h1", "roletalk", tag("span", " results of the benchmark")),
        tag("p", " · ".join(known)),
    )


def _setting(run: Run) -> Html:
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", value))
        for name, value in run.setting.items()
    ]
    return tag(
        "section",
        tag("h2", "Setting"),
        tag("table", tag("tbody", *rows), class_="setting"),
        id="setting",
    )


def _targets(verdicts: Sequence[Verdict]) -> Html:
    rows = []
    for verdict in verdicts:
        mark = {True: "✓", False: "✗", None: "-"}[verdict.reached]
        about, measured = join(verdict.target.about), Html(verdict.word)
        if verdict.spread is not None:
            measured = spread_html(verdict.spread)
        else:
            about = join(about, " ", tag("small", verdict.why_not))
        rows.append(
            tag(
                "tr",
                tag("td", mark, title=verdict.word, class_="mark"),
                tag("th", about, scope="row"),
                tag("td", verdict.target.asked, class_="asked"),
                tag("td", measured, class_="figure"),
                class_=verdict.word.split()[0],
            )
        )
    head = tag(
        "tr", tag("td"), *(tag("th", text, scope="col") for text in ("target", "asked", "measured"))
    )
    return tag(
        "section",
        tag("h2", "Targets"),
        tag("p", f"{summary(verdicts)}. {READING}"),
        tag("table", tag("thead", head), tag("tbody", *rows), class_="targets"),
    )


def _overview(run: Run) -> Html:
    """All ratios, a chart for each figure."""
    charts = []
    for name, figure in FIGURES.items():
        groups = []
        for scenario, outcome in run.outcomes.items():
            others = outcome.heading.labels[1:]
            rows = []
            for other in others if name in ratio_names(outcome) else ():
                found = ratio(outcome, other, name)
                if found is not None and found.least > 0:
                    ahead = (found.median > 1) is figure.more_is_better
                    rows.append(Bar(other, found, "ahead" if ahead else "behind"))
            if rows:
                groups.append((scenario, rows))
        if groups:
            good = "more" if figure.more_is_better else "less"
            title = TITLES.get(name, figure.title)
            charts.append(
                _chart(
                    title,
                    f"roletalk's figure divided by the other's: {good} than 1 is better",
                    ratio_bars(groups),
                )
            )
    return tag(
        "section",
        tag("h2", "Beside the others"),
        tag(
            "p",
            "Bars go from 1 to the median, whiskers from the least to the most of the rounds; "
            "the axes are logarithmic.",
        ),
        tag("div", *charts, class_="charts flow"),
    )


def _scenario(name: str, outcome: Outcome, kinds: dict[str, str]) -> Html:
    unit = outcome.heading.unit or "times"
    one = {"requests": "request", "messages": "message"}.get(unit, unit)
    charts = [
        *_simple(outcome, kinds, "rate", "Rate", f"{unit}/s: more is better"),
        *_cpu(outcome, f"µs for one {one}: client, then server; less is better"),
        *_curves(outcome, kinds),
    ]
    if not outcome.heading.curve:
        charts += _simple(outcome, kinds, "p50", TITLES["p50"], "µs: less is better")
        charts += _simple(outcome, kinds, "p99", TITLES["p99"], "µs: less is better")
    charts += _simple(outcome, kinds, "bulk", "Stream beside it", "MB/s: more is better")
    charts += _simple(outcome, kinds, "memory", "Memory", "KB a connection: less is better")
    tables = [
        _table(head, rows) for head, rows in (figure_rows(outcome), ratio_rows(outcome)) if rows
    ]
    missing = [
        tag("p", tag("b", label), f" was not measured: {why}", class_="note")
        for label, why in outcome.missing.items()
    ]
    return tag(
        "section",
        tag("h2", name),
        tag("p", f"{outcome.heading.about}."),
        tag("div", *charts, class_="charts"),
        *missing,
        tag("details", tag("summary", "All figures"), *tables) if tables else Html(),
    )


def _simple(
    outcome: Outcome, kinds: dict[str, str], figure: str, title: str, note: str
) -> list[Html]:
    rows = [
        Bar(label, found, kinds[label])
        for label in outcome.heading.labels
        if (found := spread_of(outcome, label, figure)) is not None
    ]
    return [_chart(title, note, bars(rows))] if rows else []


def _cpu(outcome: Outcome, note: str) -> list[Html]:
    rows = []
    for number, label in enumerate(outcome.heading.labels):
        sides = [values(outcome, label, side) for side in ("client", "server")]
        found = spread_of(outcome, label, "CPU")
        if found is not None:
            # Scaled so that both together end where the median of their sums is.
            parts = [median(side) for side in sides]
            fit = found.median / sum(parts) if sum(parts) else 1.0
            kind = "ours" if number == 0 else "other"
            rows.append(Bar(label, found, kind, tuple(part * fit for part in parts)))
    legend = tag(
        "ul",
        tag("li", tag("i", class_="part0"), "client"),
        tag("li", tag("i", class_="part1"), "server"),
        class_="legend parts",
    )
    return [_chart("CPU", note, legend, bars(rows))] if rows else []


def _curves(outcome: Outcome, kinds: dict[str, str]) -> list[Html]:
    if not outcome.heading.curve:
        return []
    series = []
    for label in outcome.heading.labels:
        rounds = [s.latencies_us for s in outcome.samples(label) if s.latencies_us is not None]
        if rounds:
            medians, least, most = (
                tuple(pick(column) for column in zip(*rounds, strict=True))
                for pick in (median, min, max)
            )
            series.append(Curve(label, kinds[label], medians, least, most))
    note = (
        "µs over the percentile, both axes logarithmic: lower is better. Lines are medians of the "
        "rounds, bands go from the least to the most"
    )
    return [_chart("Latency", note, curves(series), wide=True)] if series else []


def _chart(title: str, note: str, *content: Html, wide: bool = False) -> Html:
    caption = tag("figcaption", tag("b", title), tag("span", f" {note}"))
    return tag("figure", caption, *content, class_="wide" if wide else None)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    lines = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    titles = tag("tr", *(tag("th", title, scope="col") for title in head))
    return tag(
        "div", tag("table", tag("thead", titles), tag("tbody", *lines), class_="all"), class_="wrap"
    )
