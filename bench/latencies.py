"""Percentiles of latencies, from an HDR histogram that is filled when the measuring is over."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .results import PERCENTILES

LONGEST_NS = 60_000_000_000
DIGITS = 3  # that are significant


class Latencies:
    """A histogram of latencies, which come in nanoseconds."""

    def __init__(self, latencies_ns: Sequence[int]) -> None:
        hdrh: Any = import_module("hdrh.histogram")  # it comes without types
        self._histogram = hdrh.HdrHistogram(1, LONGEST_NS, DIGITS)
        for latency in latencies_ns:
            self._histogram.record_value(min(latency, LONGEST_NS))

    def at_us(self, percent: float) -> float:
        """What so many of them are at most, in microseconds."""
        return float(self._histogram.get_value_at_percentile(percent)) / 1000

    def curve_us(self) -> tuple[float, ...]:
        """`at_us` all of `PERCENTILES`."""
        return tuple(map(self.at_us, PERCENTILES))
