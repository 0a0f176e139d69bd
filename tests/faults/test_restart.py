"""The other side is killed and comes back, in processes of their own."""

from __future__ import annotations

import pytest

from tools.ports import quiet_port
from trials.faults.processes import Process

pytestmark = pytest.mark.slow


def test_requests_fail_at_once_and_are_answered_again() -> None:
    port = quiet_port()
    serving = {"listen": [["127.0.0.1", port]]}
    with Process({"connect": [f"ws://127.0.0.1:{port}"], "callers": 4}) as client:
        for _ in range(3):
            with Process(serving) as server:
                up = server.wait_for(lambda event: "listening" in event)
                client.wait_for(lambda event: event.get("well"), after=up["at"])
                killed_at = server.kill()
                client.wait_for(lambda event: event.get("well") is False, after=killed_at)
        last = client.end()
    assert set(last["failed"]) <= {"UnitClosedError", "NoUnitsError"}
