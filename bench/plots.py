"""Bars and curves, as HTML tables with inline SVG.

Drawn by hand and not by matplotlib, for three reasons: colours are the page's CSS variables, so one
file serves light and dark; bars stand in a table, so that their labels are text of the page's own
size on a wide screen as on a phone, can be selected, and are read aloud; and a page stays at some
hundred kilobytes.  For that, lengths are in percent of the room there is, and only lines, whose
points SVG does not take in percent, are drawn in a box that is stretched.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .figures import Spread, form_of
from .markup import Html, join, tag
from .results import PERCENTILES

ROW = 22  # px
BAR = 12
THOUSANDS = ((1e6, "M", 1e6), (1e3, "k", 1e4))  # and from where figures are written so
Scale = Callable[[float], float]  # to percent of the width


@dataclass(frozen=True)
class Bar:
    """One row: what it is called, how far it goes, and what stands beside it."""

    label: str
    spread: Spread
    kind: str = ""  # a CSS class
    parts: tuple[float, ...] = ()  # that it is made of, one upon the other


@dataclass(frozen=True)
class Curve:
    label: str
    kind: str
    points: tuple[float, ...]  # at PERCENTILES
    least: tuple[float, ...]
    most: tuple[float, ...]


def bars(rows: Sequence[Bar]) -> Html:
    """From zero, all on one scale; the whisker goes from the least to the most of the rounds."""
    top = max(1e-9, *(row.spread.most for row in rows))
    ticks = _linear_ticks(top)
    top = max(top, ticks[-1])

    def scale(value: float) -> float:
        return 100 * value / top

    return _table([_bar(row, scale, ticks) for row in rows], ticks, scale)


def ratio_bars(groups: Sequence[tuple[str, Sequence[Bar]]]) -> Html:
    """To either side of 1, on a logarithmic axis: half as much is as far as twice as much."""
    every = [row.spread for _, rows in groups for row in rows]
    low = math.log10(min(0.5, *(spread.least for spread in every))) - 0.05
    high = math.log10(max(2.0, *(spread.most for spread in every))) + 0.05

    def scale(value: float) -> float:
        return 100 * (math.log10(value) - low) / (high - low)

    ticks = _log_ticks(10**low, 10**high)
    lines = []
    for title, rows in groups:
        lines.append(tag("tr", tag("th", title, colspan=3, scope="rowgroup"), class_="group"))
        lines += [_bar(row, scale, ticks, start=1.0) for row in rows]
    return _table(lines, ticks, scale)


def _bar(row: Bar, scale: Scale, ticks: Sequence[float], start: float = 0.0) -> Html:
    grid = [_line(scale(tick), 0, ROW, "grid") for tick in ticks]
    if start:
        grid.append(_line(scale(start), 0, ROW, "one"))
    pieces, at = [], start
    # A bar on a logarithmic axis cannot be made of parts; its one piece goes from 1 to the median.
    ends = [sum(row.parts[: n + 1]) for n in range(len(row.parts))] or [row.spread.median]
    for number, end in enumerate(ends):
        left, right = sorted((scale(at), scale(end)))
        pieces.append(
            tag(
                "rect",
                x=f"{left:.2f}%",
                y=(ROW - BAR) / 2,
                width=f"{max(right - left, 0.2):.2f}%",
                height=BAR,
                class_=f"bar part{number}",
            )
        )
        at = end
    least, most = scale(row.spread.least), scale(row.spread.most)
    middle = f"{ROW / 2:g}"
    whisker = [
        tag("line", x1=f"{least:.2f}%", x2=f"{most:.2f}%", y1=middle, y2=middle, class_="whisker"),
        _line(least, ROW / 2 - 3, ROW / 2 + 3, "whisker"),
        _line(most, ROW / 2 - 3, ROW / 2 + 3, "whisker"),
    ]
    drawing = tag("svg", *grid, *pieces, *whisker, width="100%", height=ROW, aria_hidden="true")
    return tag(
        "tr",
        tag("th", row.label, scope="row"),
        tag("td", drawing, class_="plot"),
        tag("td", spread_html(row.spread), class_="figure"),
        class_=row.kind or None,
    )


def spread_html(spread: Spread) -> Html:
    """Three digits of it, all in the unit of the median."""
    size, letter = next(
        ((size, letter) for size, letter, least in THOUSANDS if spread.median >= least), (1.0, "")
    )
    form = form_of(spread.median / size)
    middle, least, most = (
        f"{value / size:{form}}{letter}" for value in (spread.median, spread.least, spread.most)
    )
    return join(f"{middle} ", tag("small", f"{least}..{most}"))


def _table(lines: Sequence[Html], ticks: Sequence[float], scale: Scale) -> Html:
    marks = [
        tag(
            "span",
            _short(tick),
            style=f"left:{scale(tick):.2f}%",
            # Left out where there is little room.
            class_=None if _is_decade(tick) or len(ticks) < 5 else "minor",
        )
        for tick in ticks
    ]
    axis = tag(
        "tr",
        tag("td"),
        tag("td", tag("div", *marks, class_="axis"), class_="plot"),
        tag("td"),
        aria_hidden="true",
    )
    columns = tag("colgroup", *(tag("col", class_=name) for name in ("label", "plot", "figure")))
    return tag("table", columns, tag("tbody", *lines, axis), class_="bars")


def curves(series: Sequence[Curve]) -> Html:
    """µs over the percentile, whose axis gives each further nine the same room."""
    low = math.log10(min(min(curve.points) for curve in series)) - 0.05
    high = math.log10(max(max(curve.points) for curve in series)) + 0.05

    def height(value: float) -> float:
        place = (math.log10(max(value, 1e-9)) - low) / (high - low)
        return 100 * (1 - min(max(place, 0.0), 1.0))

    levels = _log_ticks(10**low, 10**high)
    grid = [
        tag("line", x1="0%", x2="100%", y1=f"{y:.2f}%", y2=f"{y:.2f}%", class_="grid")
        for y in map(height, levels)
    ]
    marked = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0)
    grid += [
        tag("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1="0%", y2="100%", class_="grid")
        for x in map(_nines, marked)
    ]
    drawn, dots = [], []
    for curve in series:
        if len(series) <= 2 or curve.kind == "ours":
            drawn.append(_band(curve, height))
        drawn.append(tag("polyline", points=_points(curve.points, height), class_=curve.kind))
        dots += [
            tag(
                "circle",
                tag("title", f"{curve.label}: {_percentile(at)} {value:{form_of(value)}} µs"),
                cx=f"{_nines(at):.2f}%",
                cy=f"{height(value):.2f}%",
                r=2.5,
                class_=curve.kind,
            )
            for at, value in zip(PERCENTILES, curve.points, strict=True)
        ]
    stretched = tag("svg", *drawn, viewBox="0 0 100 100", preserveAspectRatio="none")
    ups = [tag("span", _short(level), style=f"top:{height(level):.2f}%") for level in levels]
    alongs = [
        tag(
            "span",
            _percentile(at, short=True),
            style=f"left:{_nines(at):.2f}%",
            class_="minor" if at == 50 else None,
        )
        for at in marked
    ]
    at_p99 = PERCENTILES.index(99.0)
    legend = [
        tag("li", tag("i", class_=curve.kind), curve.label)
        for curve in sorted(series, key=lambda curve: -curve.points[at_p99])
    ]
    return join(
        tag("ul", *legend, class_="legend"),
        tag(
            "div",
            tag("div", *ups, class_="levels", aria_hidden="true"),
            tag("svg", *grid, stretched, *dots, width="100%", height="100%", aria_hidden="true"),
            tag("div", *alongs, class_="axis", aria_hidden="true"),
            class_="curves",
        ),
    )


LAST_NINES = 5.0  # where the most of all is put: one nine after 99.99


def _nines(percentile: float) -> float:
    """In percent of the width."""
    if percentile >= 100:
        return 100.0
    return 100 * -math.log10(1 - percentile / 100) / LAST_NINES


def _percentile(value: float, *, short: bool = False) -> str:
    if value in (0.0, 100.0):
        return "min" if value == 0 else "max"
    return f"{value:g}" if short else f"p{value:g}"


def _points(values: Sequence[float], height: Scale) -> str:
    return " ".join(
        f"{_nines(at):.2f},{height(value):.2f}"
        for at, value in zip(PERCENTILES, values, strict=True)
    )


def _band(curve: Curve, height: Scale) -> Html:
    back = _points(curve.most, height).split()[::-1]
    points = f"{_points(curve.least, height)} {' '.join(back)}"
    return tag("polygon", points=points, class_=f"band {curve.kind}")


def _line(x: float, top: float, bottom: float, kind: str) -> Html:
    return tag("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=top, y2=bottom, class_=kind)


def _linear_ticks(top: float) -> list[float]:
    """From 0, some three or four round steps."""
    step = 10 ** math.floor(math.log10(top / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 4.5)
    return [step * number for number in range(math.floor(top / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    factors = (1, 2, 5) if high / low < 60 else (1, 3) if high / low < 1000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _is_decade(value: float) -> bool:
    return f"{value:.0e}".startswith("1e")


def _short(value: float) -> str:
    for size, letter, _ in THOUSANDS:
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
