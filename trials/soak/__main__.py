"""``python -m trials.soak --minutes 60``"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from trials import figures, vitals
from trials.figures import Figure

from . import account, golang
from .account import MIB, Account
from .disturbances import Disturbances
from .golang import Gopher, NoGo
from .ledger import Loss
from .mesh import Mesh, NodeDied, Samples

PROGRESS: Final = figures.RESULTS / "soak-progress.json"
TELL_EVERY: Final = 10.0  # s
FIRST_RATE: Final = 20.0  # operations a second of each peer, until the load is known
RATES: Final = (0.5, 200.0)
QUIET: Final = 60.0  # s


class Soak:
    """One run, from the first process started to the last one ended."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._options = options
        self._account = Account()
        self._mesh = Mesh(scratch, self._told)
        self._gopher: Gopher | None = None
        self._why_no_go = ""
        self._disturbances: Disturbances | None = None
        self._over = asyncio.Event()
        self._rate = FIRST_RATE
        self._used: dict[int, float] = {}  # s of processor time at the last look, by process
        self._load = 0.0  # of a core, since then
        self._go_rss: list[int] = []
        self._left: dict[str, int] = {}
        self._began = time.monotonic()
        self._seconds = 0.0

    def stop(self) -> None:
        """End the run early, in good order."""
        self._over.set()

    async def run(self) -> None:
        options = self._options
        os.environ["SSL_CERT_FILE"] = str(self._mesh.authority)
        try:
            await self._mesh.start(options.interval, self._rate)
            await self._start_go()
            await self._mesh.all("begin")
            self._disturbances = Disturbances(
                self._mesh, self._account.ledger, self._gopher, options.pause
            )
            self._disturbances.begin()
            if self._gopher is not None:
                self._gopher.begin(options.pause / 4)
            self._began = time.monotonic()
            await self._watch(self._began + options.minutes * 60)
            self._seconds = time.monotonic() - self._began
            print("coming to an end", flush=True)
            await self._disturbances.end()
            if self._gopher is not None:
                await self._gopher.quiet()
            await asyncio.wait_for(self._mesh.all("quiet"), QUIET)
            for left in await asyncio.wait_for(self._mesh.all("left"), QUIET):
                for name, count in left.items():
                    self._left[name] = self._left.get(name, 0) + count
        except Exception as error:
            self._account.fault("unexpected", f"the run broke off: {type(error).__name__}: {error}")
        finally:
            # From here on connections are lost because the peers are closed.
            self._account.ledger.settle(float("inf"))
            if self._gopher is not None:
                await self._gopher.close()
            for status in await self._mesh.close():
                if status:
                    self._account.fault("unexpected", f"a process ended with status {status}")

    async def _start_go(self) -> None:
        if self._options.without_go:
            self._why_no_go = "left out, as was asked"
        else:
            try:
                program = await asyncio.to_thread(golang.build_program)
            except NoGo as error:
                self._why_no_go = str(error)
        if self._why_no_go:
            print(f"without a Go peer: {self._why_no_go}", flush=True)
            return
        self._gopher = Gopher(program, self._mesh, self._account.ledger)
        await self._gopher.start()

    async def _watch(self, until: float) -> None:
        """Tell how it goes, and keep the load where it shall be, until the time is over."""
        self._measure(TELL_EVERY)
        while (left := until - time.monotonic()) > 0 and not self._over.is_set():
            step = min(TELL_EVERY, left)
            began = time.monotonic()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), step)
            self._account.ledger.settle(time.monotonic())
            self._measure(time.monotonic() - began)
            await self._adapt()
            self._progress()

    def _measure(self, seconds: float) -> None:
        pids = {node.pid for node in self._mesh.nodes.values()} | {os.getpid()}
        if self._gopher is not None:
            pids.add(self._gopher.pid)
            with suppress(OSError):
                self._go_rss.append(vitals.rss(self._gopher.pid))
        used = {}
        for pid in pids:
            with suppress(OSError):  # it has just been killed
                used[pid] = vitals.cpu_seconds(pid)
        spent = sum(now - self._used.get(pid, 0.0) for pid, now in used.items())
        self._load, self._used = spent / max(seconds, 0.1), used

    async def _adapt(self) -> None:
        """A bit more of it, or less: all processes together shall use `--load` of a core."""
        change = min(max(self._options.load / max(self._load, 0.01), 0.5), 2.0)
        self._rate = min(max(self._rate * change, RATES[0]), RATES[1])
        for node in self._mesh.nodes.values():
            node.rate = self._rate
            with suppress(NodeDied, RuntimeError):
                # One that is being killed cannot be told, and starts with the new rate.
                await node.call("pace", rate=self._rate)

    @property
    def _runs(self) -> list[Samples]:
        return [run for node in self._mesh.nodes.values() for run in node.samples]

    def _progress(self) -> None:
        total = account.tallied(self._runs)
        faults, ledger = self._faults(), self._account.ledger
        minutes = (time.monotonic() - self._began) / 60
        memory = [
            f"{name} {node.samples[-1].last['rss'] / MIB:.1f}"
            for name, node in self._mesh.nodes.items()
            if node.samples[-1].last is not None
        ]
        print(
            f"{minutes:6.1f} min  load {self._load:.2f}  {total['requests']:,} requests,"
            f" {total['streams done']:,} streams, {ledger.explained} connections broken,"
            f" {len(ledger.unexplained)} lost unexplained, {faults['wrong']} wrong,"
            f" {faults['unexpected']} unexpected; MiB: {', '.join(memory)}",
            flush=True,
        )
        account.write_progress(
            PROGRESS,
            {
                "minutes": round(minutes, 2),
                "load": round(self._load, 3),
                "rate": round(self._rate, 2),
                "tally": dict(sorted(total.items())),
                "go": dict(sorted(self._gopher.tally.items())) if self._gopher else {},
                "go_deaths": self._gopher.deaths if self._gopher else [],
                "disturbances": dict(self._disturbances.tally) if self._disturbances else {},
                "faults": dict(faults),
                "texts": self._texts(),
                "warnings": dict(self._account.warnings),
                "explained": ledger.explained,
                "unexplained": [vars(loss) for loss in ledger.unexplained],
                "figures": [vars(figure) for figure in account.flatness(self._runs)],
                "memory": {
                    f"{run.process} {run.number}": {
                        name: [round(value / scale, 2) for value in run.series(name)[1]]
                        for name, scale in (("rss", MIB), ("allocated", MIB), ("blocks", 1))
                    }
                    for run in self._runs
                },
            },
        )

    # -- what processes tell

    def _told(self, process: str, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "lost":
            self._account.ledger.lost(Loss(line["peer"], line["unit"], line["at"], line["how"]))
        elif event == "fault":
            self._account.fault(line["kind"], line["text"])
        elif event == "warning":
            self._account.warned(line["text"])
        elif event == "digest":
            if self._gopher is not None:
                self._gopher.digest(line)
        elif event == "died":
            self._account.fault("unexpected", line["text"])

    def _others(self) -> list[tuple[str, str]]:
        """The faults that were found in this process."""
        found = [] if self._disturbances is None else self._disturbances.faults
        return [*found, *(self._gopher.faults if self._gopher else ())]

    def _faults(self) -> dict[str, int]:
        others = [kind for kind, _ in self._others()]
        return {
            kind: self._account.faults[kind] + others.count(kind)
            for kind in ("wrong", "unexpected")
        }

    def _texts(self) -> list[str]:
        return self._account.texts + [f"{kind}: {text}" for kind, text in self._others()]

    # -- the end

    def figures(self) -> list[Figure]:
        total, ledger, faults = account.tallied(self._runs), self._account.ledger, self._faults()
        broken = self._disturbances.tally if self._disturbances else {}
        go = self._gopher.tally if self._gopher else {}
        found = [
            figures.told("lasted", self._seconds / 60, "min"),
            figures.told("peers", f"{len(self._mesh.peers)} in {len(self._mesh.nodes)} processes"),
            figures.told("requests answered", total["requests"]),
            figures.told("requests timed out on purpose", total["timed out"]),
            figures.told("requests cancelled", total["cancelled"]),
            figures.told("messages sent", total["messages"]),
            figures.told("surveys", total["surveys"]),
            figures.told("streams done, every byte compared", total["streams done"]),
            figures.told("streams aborted on purpose", total["streams aborted"]),
            figures.told("bytes of frames sent", total["bytes_sent"] / MIB, "MiB"),
        ]
        found += [figures.told(what, count) for what, count in sorted(broken.items())]
        if self._gopher is None:
            found.append(figures.told("Go peer", f"none: {self._why_no_go.splitlines()[0]}"))
        else:
            found += [
                figures.told(
                    "requests of the Go peer and by it",
                    go["requests by Go"] + total["requests of Go"],
                ),
                figures.told("streams with the Go peer, digests equal", go["streams with Go"]),
                figures.told("connections cut by the Go peer", go["connections cut"]),
                figures.told("Go peer died of itself", len(self._gopher.deaths)),
                figures.told(
                    "RSS of the Go peer, first and last",
                    " and ".join(
                        f"{rss / MIB:.1f} MiB" for rss in self._go_rss[:1] + self._go_rss[-1:]
                    ),
                ),
            ]
        found += [
            figures.told("connections made again by dialling", total["reconnects"]),
            figures.told("connections lost, explained", ledger.explained),
            figures.told("failed by a lost connection", total["failed by a lost connection"]),
            figures.at_most("connections lost, unexplained", len(ledger.unexplained), 0),
            figures.at_most("wrong answers and bytes", faults["wrong"], 0),
            figures.at_most("unexpected errors", faults["unexpected"], 0),
        ]
        for name, count in self._left.items():
            what = name.replace("_", " ")
            found.append(figures.at_most(f"left in the end: {what}", count, 0))
        found += account.flatness(self._runs)
        found.append(
            figures.told("loop lag, at most", account.peak(self._runs, "lag") * 1000, "ms")
        )
        return found

    def complaints(self) -> list[str]:
        """What went wrong, in words."""
        lost = [f"lost unexplained: {loss}" for loss in self._account.ledger.unexplained]
        return self._texts() + lost


async def soak(options: argparse.Namespace) -> Soak:
    with tempfile.TemporaryDirectory(prefix="roletalk-soak-") as scratch:
        run = Soak(options, Path(scratch))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, run.stop)
        await run.run()
        return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--load", type=float, default=0.4, help="of a core, of all processes")
    parser.add_argument("--pause", type=float, default=6.0, help="s between disturbances")
    parser.add_argument("--interval", type=float, default=5.0, help="s between samples")
    parser.add_argument("--without-go", action="store_true", help="leave the Go peer out")
    options = parser.parse_args()
    if reason := vitals.missing():
        print(reason, file=sys.stderr)
        return 2
    run = asyncio.run(soak(options))
    for complaint in run.complaints():
        print(f"! {complaint}", file=sys.stderr)
    return figures.report("soak", f"make soak MINUTES={options.minutes:g}", run.figures())


if __name__ == "__main__":
    sys.exit(main())
