"""python -m trials.conformance: the Autobahn test suite, in both directions, in three minutes.

Exit status 77, as for a test that is skipped, where the suite cannot be had: it needs a Python 2.7.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from trials.figures import Figure, report, told

from .suite import AGENT, UnavailableError, fuzz_client, fuzz_server, prepare
from .verdicts import figures, load_cases, remarks

SKIPPED: Final = 77
EVERYTHING: Final = "*"
LONGEST: Final = 1800.0  # s for one direction


async def run(wstest: Path, cases: list[str]) -> list[Figure]:
    """Both directions.  Raises RuntimeError or asyncio.TimeoutError when the suite itself breaks."""
    found: list[Figure] = []
    complete = cases == [EVERYTHING]
    for side, test in (("server", fuzz_server), ("client", fuzz_client)):
        print(f"testing the {side}", flush=True)
        began = time.monotonic()
        reports = await asyncio.wait_for(test(wstest, cases), LONGEST)
        took = time.monotonic() - began
        results = load_cases(reports, AGENT)
        for line in remarks(side, results):
            print(line)
        found += figures(side, results, complete=complete)
        found.append(told(f"as a {side}: it took", took, "s"))
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="trials.conformance", description=__doc__)
    parser.add_argument("cases", nargs="*", default=[EVERYTHING], help="such as 5.* or 9.1.1")
    cases: list[str] = parser.parse_args(arguments).cases
    try:
        wstest = prepare()
    except UnavailableError as missing:
        print(f"trials.conformance: {missing}", file=sys.stderr)
        return SKIPPED
    found = uvloop.run(run(wstest, cases))
    command = "make conformance"
    if arguments:
        command += f" TRIAL_ARGS={shlex.quote(shlex.join(arguments))}"
    return report("conformance", command, found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
