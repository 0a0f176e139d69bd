"""SIGTERM under load: the process drains, loses nothing that it was computing, and ends with status 0."""

from __future__ import annotations

import signal
import time
from typing import Final

from tools.ports import quiet_port
from trials.faults.processes import Process
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "SIGTERM"

ROUNDS: Final = 5
CALLERS: Final = 200
COMPUTES: Final = 0.5  # s, each request
LOADED: Final = 1.2  # s of load before the signal
# Less than they compute, for the last one may have begun just before; twice that for a busy machine.
ENDS_WITHIN: Final = 2 * COMPUTES + 1.0  # s
ALLOWED: Final = {"NoUnitsError", "UnitClosedError", "RemoteError"}
DEADLY_WITHIN: Final = 1.0  # s, of a second one


def run(settings: Settings) -> list[Figure]:
    rounds = 1 if settings.quick else ROUNDS
    begun = answered = lost = others = 0
    took: list[float] = []
    statuses: set[int] = set()
    for _ in range(rounds):
        port = quiet_port()
        with (
            Process({"listen": [["127.0.0.1", port]]}) as server,
            Process(
                {
                    "connect": [f"ws://127.0.0.1:{port}"],
                    "callers": CALLERS,
                    "event": "sleep",
                    "data": COMPUTES,
                }
            ) as client,
        ):
            client.wait_for(lambda event: event.get("well"))
            time.sleep(LOADED)
            asked_at = server.signal(signal.SIGTERM)
            statuses.add(server.wait())
            took.append(time.monotonic() - asked_at)
            server_said, client_said = server.events[-1], client.end()
            begun += server_said["begun"]
            answered += client_said["answered"]
            lost += server_said["begun"] - client_said["answered"]
            others += sum(n for error, n in client_said["failed"].items() if error not in ALLOWED)
    return [
        at_most("SIGTERM under load: exit status", max(map(abs, statuses)), 0),
        at_most("  requests that were begun and not answered", lost, 0),
        at_most("  errors that are not the documented ones", others, 0),
        at_most("  from the signal to the end of the process", max(took), ENDS_WITHIN, "s"),
        told("  requests begun and answered", f"{begun:,} and {answered:,}"),
        at_most("  a second one ends it within", twice(), DEADLY_WITHIN, "s"),
    ]


def twice() -> float:
    """Seconds from a second SIGTERM to the death that it is, while a handler takes its time."""
    port = quiet_port()
    with (
        Process({"listen": [["127.0.0.1", port]]}) as server,
        Process(
            {
                "connect": [f"ws://127.0.0.1:{port}"],
                "callers": 1,
                "event": "sleep",
                "data": 60.0,
            }
        ) as client,
    ):
        began = server.wait_for(lambda event: "began" in event)
        server.signal(signal.SIGTERM)
        client.wait_for(lambda event: event.get("units_ready") == 0, after=began["at"])
        second_at = server.signal(signal.SIGTERM)
        status = server.wait()
        if status != -signal.SIGTERM:
            raise RuntimeError(f"it ended with {status}, not by the second signal")
        return time.monotonic() - second_at
