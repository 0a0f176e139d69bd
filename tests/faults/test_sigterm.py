"""SIGTERM ends a process that serves, and nothing that it was computing is lost."""

from __future__ import annotations

import signal
import sys

import pytest

from tools.ports import quiet_port
from trials.faults.processes import Process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle"),
]


def test_what_was_begun_is_answered_first() -> None:
    port = quiet_port()
    asking = {
        "connect": [f"ws://127.0.0.1:{port}"],
        "callers": 50,
        "event": "sleep",
        "data": 0.3,
    }
    with Process({"listen": [["127.0.0.1", port]]}) as server, Process(asking) as client:
        client.wait_for(lambda event: event.get("well"))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        last = client.end()
    assert server.events[-1]["begun"] == server.events[-1]["finished"] == last["answered"]
    assert set(last["failed"]) <= {"NoUnitsError", "UnitClosedError", "RemoteError"}


def test_the_second_one_is_deadly() -> None:
    port = quiet_port()
    asking = {
        "connect": [f"ws://127.0.0.1:{port}"],
        "callers": 1,
        "event": "sleep",
        "data": 60.0,
    }
    with Process({"listen": [["127.0.0.1", port]]}) as server, Process(asking) as client:
        began = server.wait_for(lambda event: "began" in event)
        server.signal(signal.SIGTERM)
        # The roles are withdrawn while the handler is waited for.
        client.wait_for(lambda event: event.get("units_ready") == 0, after=began["at"])
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM
