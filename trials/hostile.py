"""``make hostile``: plays hostile input to peers in processes of their own, and measures what it costs.

The cases are those of ``tests/hostile``, whose expectations hold there as here; what is added is the
bound on how long an honest connection may wait for its answer meanwhile, which no test decides on.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

import pytest

from .figures import at_least, at_most, report, told

CASES: Final = "tests/hostile"
MAX_SILENCE: Final = 0.25  # s
MAX_GROWTH: Final = 64  # MiB


class Outcomes:
    """A pytest plugin that counts cases."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.hostile", description=__doc__)
    parser.add_argument("-k", default="", metavar="NAMES", help="only some cases, as pytest's -k")
    options = parser.parse_args()
    outcomes = Outcomes()
    pytest.main([CASES, "-q", "-k", options.k], plugins=[outcomes])

    # pytest imports it under this name, and with its own assertions: not before.
    from tests.hostile.harness import OBSERVED

    if not OBSERVED:
        print("no case was run", file=sys.stderr)
        return 2
    by_silence = sorted(OBSERVED, key=lambda seen: seen.slowest, reverse=True)
    largest = max(OBSERVED, key=lambda seen: seen.grown)
    for seen in by_silence[:3]:
        print(f"{seen.slowest * 1000:.0f} ms: {seen.case}")
    print(f"{largest.grown >> 20} MiB: {largest.case}")
    return report(
        "hostile",
        "make hostile",
        [
            at_least("cases that passed", outcomes.passed, 400),
            at_most("cases that failed", outcomes.failed, 0),
            at_most(
                "slowest answer to an honest connection meanwhile",
                by_silence[0].slowest,
                MAX_SILENCE,
                "s",
            ),
            told("the same, median of the cases", by_silence[len(by_silence) // 2].slowest, "s"),
            at_most(
                "largest growth of memory in a case",
                largest.grown / (1 << 20),
                MAX_GROWTH,
                "MiB",
            ),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
