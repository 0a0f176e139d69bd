"""``python -m trials.sanitize``: build with the sanitizers, see that they are awake, run the tests.

Two runs: the fast tests, and those of the slow ones that talk over sockets to what they do not trust.
The second one also reports any single allocation of more than `LARGEST_BLOCK` MiB: the lengths that
hostile input names must not become memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from trials import figures

from . import build

COMMAND = "make sanitize"
LARGEST_BLOCK = 512  # MiB
JOBS = "2"  # processes that share the tests out

FAST = ("-m", "not slow", "tests")
NETWORK = (
    "-m",
    "slow",
    "tests/hostile",
    "tests/interop",
    "tests/test_peer_calls.py",
    "tests/test_stream_deaths.py",
    "tests/test_stream_load.py",
)


class Tests(Counter[str]):
    """How many tests ran, failed and were skipped."""

    def add(self, report: Path) -> None:
        if not report.exists():
            return
        for suite in ElementTree.parse(report).iter("testsuite"):
            number = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors")}
            skipped = int(suite.get("skipped", 0))
            self["run"] += number["tests"] - skipped
            self["failed"] += number["failures"] + number["errors"]
            self["skipped"] += skipped


def run_tests(name: str, arguments: Sequence[str], *, asan: str, tests: Tests) -> int:
    """Run pytest on the build; what it exits with, 0 where all tests passed."""
    report = build.BUILT / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600"]
    command += ["-p", "tools.pytest_built", "--built=sanitize", f"--junitxml={report}"]
    command += ["-n", JOBS, "--dist=worksteal", *arguments]
    done = subprocess.run(
        command, cwd=build.ROOT, env=build.run_environment(asan=asan), check=False
    )
    tests.add(report)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.sanitize", description=__doc__)
    parser.add_argument("tests", nargs="*", help="arguments of pytest; then these run, and no more")
    chosen = parser.parse_args().tests
    try:
        build.runtimes()
    except build.NoSanitizerError as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 2
    began = time.monotonic()
    build.build()
    build.build_faulty()
    built = time.monotonic() - began

    reported = {call: build.is_reported(call) for call in build.faults()}
    for call, found in reported.items():
        if not found:
            print(f"sanitize: {call} was not reported", file=sys.stderr)
    with_both, modules = build.instrumented()

    tests = Tests()
    build.clear_reports()
    lenient = "allocator_may_return_null=1"
    strict = f"max_allocation_size_mb={LARGEST_BLOCK}"
    if chosen:
        statuses = [run_tests("chosen", chosen, asan=lenient, tests=tests)]
    else:
        statuses = [
            run_tests("fast", FAST, asan=lenient, tests=tests),
            run_tests("network", NETWORK, asan=strict, tests=tests),
        ]
    reports = build.count_reports()
    return figures.report(
        "sanitize",
        COMMAND,
        [
            figures.at_least(
                "self-test: faults made on purpose that are reported",
                sum(reported.values()),
                len(reported),
            ),
            figures.at_least("modules compiled with both sanitizers", with_both, modules),
            figures.at_least("tests run", tests["run"], 1),
            figures.at_most("tests failed", tests["failed"], 0),
            figures.at_most("runs of pytest that did not end well", sum(map(bool, statuses)), 0),
            figures.told("tests skipped", tests["skipped"]),
            figures.at_most("reports of AddressSanitizer", reports[build.ASAN], 0),
            figures.at_most("reports of UndefinedBehaviorSanitizer", reports[build.UBSAN], 0),
            figures.told("time to build", built, "s"),
            figures.told("time in all", time.monotonic() - began, "s"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
