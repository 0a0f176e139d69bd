"""Hundreds of peers lose their server at once, and come back to it when it does.

``python -m trials.faults.crowd URL PEERS`` is the crowd itself, in a process of its own: it says on stdout
when all have connected, and once all that were lost are back, what they did meanwhile.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import aiofastnet
import uvloop

import roletalk
from roletalk.backoff import BackOff
from tools.ports import quiet_port
from trials.faults.namespaces import TwoHosts, why_not
from trials.faults.processes import ROOT, Process
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "a crowd that comes back"

CROWD: Final = 500
AWAY: Final = (1.0, 15.0)  # s that the server is away
BURST: Final = 0.1  # s
SHARE: Final = 0.4  # of the crowd, that may dial within a burst
BACK_WITHIN: Final = 10.0  # s
HONEST_WITHIN: Final = 2.0  # s, for an answer to who is connected already
OUTSIDE: Final = "10.99.100.1"  # no loopback address: 64 strangers of it are let in at once
TIMEOUT: Final = 120.0  # s


def run(settings: Settings) -> list[Figure]:
    size = CROWD // 10 if settings.quick else CROWD
    figures = []
    for away in AWAY[:1] if settings.quick else AWAY:
        figures += returning("127.0.0.1", quiet_port(), size, away, [])
    reason = why_not()
    if reason:
        figures.append(
            told("the same from one address that is not loopback", f"left out: {reason}")
        )
    elif not settings.quick:
        with TwoHosts(0) as hosts:
            hosts.add_local(0, OUTSIDE)
            figures += returning(OUTSIDE, 9000, size, AWAY[0], hosts.within(0))
    return figures


def returning(host: str, port: int, size: int, away: float, within: list[str]) -> list[Figure]:
    listen: dict[str, Any] = {"listen": [[host, port]]}
    url = f"ws://{host}:{port}"
    command = [*within, sys.executable, "-m", "trials.faults.crowd", url, str(size)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    with (
        Process(listen, within=within) as first,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        ) as crowd,
    ):
        try:
            first.wait_for(lambda event: "listening" in event)
            assert crowd.stdout is not None
            json.loads(crowd.stdout.readline())
            killed_at = first.kill()
            time.sleep(away)
            with Process(listen, within=within) as second:
                listening = second.wait_for(lambda event: "listening" in event)
                # The honest one is there before most of the crowd, and asks all the time.
                asking = {"connect": [url], "every": 0.02}
                with Process(asking, within=within) as honest:
                    found = json.loads(crowd.stdout.readline())
                    asked = honest.end()
        finally:
            crowd.kill()
    back = sorted(at - listening["at"] for at in found["back"])
    due, dials = ([at for at in found[name] if at >= killed_at] for name in ("due", "dials"))
    what = f"{size} peers at {host}, server away for {away:g} s"
    return [
        at_most(f"{what}: dials due within any 100 ms", busiest(due), int(size * SHARE)),
        told("  dials that one process with all of them got to within any 100 ms", busiest(dials)),
        told("  dials in all", len(dials)),
        told("  half of them back after", back[size // 2], "s"),
        at_most("  all of them back after", back[-1], BACK_WITHIN, "s"),
        told("  came back, in each half second", histogram(back)),
        at_most("  slowest answer to another one meanwhile", asked["slowest"], HONEST_WITHIN, "s"),
        at_most("  its requests that failed", sum(asked["failed"].values()), 0),
    ]


def busiest(times: list[float]) -> int:
    """The most of `times` that lie within any `BURST` seconds."""
    times = sorted(times)
    return max((bisect.bisect_left(times, at + BURST) - i for i, at in enumerate(times)), default=0)


def histogram(times: list[float]) -> str:
    counts = [0] * (int(max(times) / 0.5) + 1)
    for at in times:
        counts[max(int(at / 0.5), 0)] += 1
    return " ".join(map(str, counts))


# -- the crowd


async def crowd(url: str, size: int) -> None:
    dials: list[float] = []
    dial = aiofastnet.create_connection

    async def counted(*arguments: Any, **named: Any) -> Any:
        dials.append(time.monotonic())
        return await dial(*arguments, **named)

    vars(aiofastnet)["create_connection"] = counted
    due: list[float] = []

    def noted(delay: Callable[..., float]) -> Callable[..., float]:
        def note(self: BackOff, *of: Any) -> float:
            seconds = delay(self, *of)
            due.append(time.monotonic() + seconds)
            return seconds

        return note

    for name in ("lost", "found_nobody", "failed", "refused"):
        setattr(BackOff, name, noted(getattr(BackOff, name)))

    back: list[float] = []
    all_back = asyncio.Event()
    peers = [roletalk.Peer(name=f"crowd {number}") for number in range(size)]

    def returned(_: roletalk.Unit) -> None:
        back.append(time.monotonic())
        if len(back) == size:
            all_back.set()

    for peer in peers:
        await peer.connect(url, retry=True)
    for peer in peers:
        peer.on_unit(returned)
    print(json.dumps({"connected": size}), flush=True)
    await asyncio.wait_for(all_back.wait(), TIMEOUT)
    print(json.dumps({"due": due, "dials": dials, "back": back}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.new_event_loop().run_until_complete(crowd(sys.argv[1], int(sys.argv[2])))
