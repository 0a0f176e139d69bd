"""Telling growth from noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

WARM_UP: Final = 0.2  # of a process's life, which is left out
LEAST: Final = 8  # samples after the warm-up; of fewer nothing can be told
_MOST: Final = 240  # points of which slopes are taken, medians of neighbours if there are more


@dataclass(frozen=True)
class Growth:
    """How something grew after the warm-up, over `hours`.

    by: the median of the last quarter less that of the first.  an_hour: the Theil-Sen slope, the median
    of the slopes between all pairs of samples.
    """

    by: float
    an_hour: float
    hours: float


def growth(times: Sequence[float], values: Sequence[float]) -> Growth | None:
    """The growth of `values`, sampled at `times` (s, rising); None of too few samples."""
    if not times:
        return None
    start = times[0] + (times[-1] - times[0]) * WARM_UP
    first = next(i for i, time in enumerate(times) if time >= start)
    times, values = times[first:], values[first:]
    if len(times) < LEAST:
        return None
    quarter = max(len(values) // 4, 1)
    return Growth(
        median(values[-quarter:]) - median(values[:quarter]),
        _slope(times, values) * 3600,
        (times[-1] - times[0]) / 3600,
    )


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    step = -(-len(times) // _MOST)
    points = [
        (median(times[i : i + step]), median(values[i : i + step]))
        for i in range(0, len(times), step)
    ]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(points)
        for later in points[i + 1 :]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else 0.0
