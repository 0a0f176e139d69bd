"""The other side is killed under load, and comes back on its port after outages of all lengths."""

from __future__ import annotations

import time
from typing import Any, Final

from tools.ports import quiet_port
from trials.faults.processes import Process
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "kill and restart"

OUTAGES: Final = (0.0, 0.2, 0.2, 0.5, 1.0, 1.5, 3.0, 3.0, 8.0, 20.0)  # s
CALLERS: Final = 8
LOADED: Final = 0.5  # s of requests before each kill
FAILED_WITHIN: Final = 0.25  # s after the kill
BACK_WITHIN: Final = 1.0  # s after somebody listens there again
DOCUMENTED: Final = {"UnitClosedError", "NoUnitsError"}


def serving(port: int, **more: Any) -> Process:
    process = Process({"listen": [["127.0.0.1", port]], **more})
    process.wait_for(lambda event: "listening" in event)
    return process


def run(settings: Settings) -> list[Figure]:
    outages = OUTAGES[:4] if settings.quick else OUTAGES
    port = quiet_port()
    backs: list[float] = []
    fails: list[float] = []
    server = serving(port)
    try:
        with Process({"connect": [f"ws://127.0.0.1:{port}"], "callers": CALLERS}) as client:
            client.wait_for(lambda event: event.get("well"))
            for outage in outages:
                time.sleep(LOADED)
                killed_at = server.kill()
                client.wait_for(lambda event: event.get("well") is False, after=killed_at)
                time.sleep(outage)
                server.__exit__(None, None, None)
                server = serving(port)
                listening_at = server.events[0]["at"]
                back = client.wait_for(lambda event: event.get("well"), after=killed_at)
                backs.append(back["at"] - listening_at)
                failures = client.said(
                    lambda event: event.get("error") == "UnitClosedError", after=killed_at
                )
                fails += [event["at"] - killed_at for event in failures]
            last = client.end()
    finally:
        server.__exit__(None, None, None)
    others = {error: n for error, n in last["failed"].items() if error not in DOCUMENTED}
    pairs = ", ".join(f"{out:g} s: {back:.2f}" for out, back in zip(outages, backs, strict=True))
    return [
        at_most(
            "killed under load: the last pending request has failed", max(fails), FAILED_WITHIN, "s"
        ),
        at_most(
            "  a request while nobody is there has failed",
            last["slowest_failure"].get("NoUnitsError", 0.0),
            FAILED_WITHIN,
            "s",
        ),
        at_most("  errors that are not the documented ones", sum(others.values()), 0),
        at_most(
            f"restarted {len(outages)} times: answered again after listening",
            max(backs),
            BACK_WITHIN,
            "s",
        ),
        told("  by length of the outage", pairs),
        told("  requests answered", last["answered"]),
    ]
