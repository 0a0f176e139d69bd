"""The gateway: starts the workers, dials them, and shows one thing after the other."""

import argparse
import asyncio
import platform
import signal
import sys
import time
from pathlib import Path

import uvloop

import roletalk

from .corpus import read_texts
from .failover import show_failover
from .patterns import show_broadcast, show_event, show_survey
from .pipeline import show_pipeline
from .processes import REPOSITORY, Worker, Workers
from .report import Report
from .streams import show_streams
from .worker import KEY_ID

INTERRUPTED = 128 + signal.SIGINT  # the status that shells give


async def run(folder: Path, number: int) -> int:
    """The whole demonstration.  Returns the exit status."""
    report = Report()
    texts = read_texts(folder)
    key = roletalk.generate_key()
    began = time.perf_counter()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGINT, task.cancel)  # quiet on every version of Python
    print(f"roletalk demo: a gateway and {number} workers on Python {platform.python_version()}")
    try:
        async with Workers(number, key) as workers, roletalk.Peer(name="gateway") as peer:
            peer.add_key(KEY_ID, key)
            await show_start(report, peer, workers)
            await show_pipeline(report, peer, texts)
            await show_event(report, peer)
            await show_broadcast(report, peer)
            await show_survey(report, peer)
            await show_streams(report, peer)
            await show_failover(report, peer, workers)
    except (roletalk.RoletalkError, asyncio.TimeoutError, RuntimeError) as error:
        report.check(False, f"it ended early: {type(error).__name__}: {error}")
    report.section("result")
    verdict = "as it should be" if report.status == 0 else "NOT as it should be"
    report.line(f"{verdict}, in {time.perf_counter() - began:.1f} s")
    return report.status


async def show_start(report: Report, peer: roletalk.Peer, workers: list[Worker]) -> None:
    """Dial the workers.  From here on their addresses do not matter, only their roles do."""
    began = time.perf_counter()
    await asyncio.gather(*(peer.connect(worker.url) for worker in workers))
    seconds = time.perf_counter() - began

    report.section("start")
    for worker in workers:
        report.line(f"{worker.name}  pid {worker.pid:<8} {worker.url}")
    units = peer.destination("tokenise").units
    report.check(
        len(units) == len(workers), f"{len(units)} authenticated in {1000 * seconds:.0f} ms"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=REPOSITORY, help="whose text files are counted"
    )
    parser.add_argument("--workers", type=int, default=3, help="at least 2 (default: 3)")
    options = parser.parse_args()
    if options.workers < 2:
        parser.error("one worker is killed and another must go on: give it at least 2")
    if not options.folder.is_dir():
        parser.error(f"no folder {options.folder}")
    try:
        return uvloop.run(run(options.folder, options.workers))
    except asyncio.CancelledError:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
