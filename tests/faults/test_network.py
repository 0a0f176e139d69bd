"""Links between two hosts that are cut without a word, in network namespaces of the test's own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from trials.faults import namespaces
from trials.faults.namespaces import TwoHosts
from trials.faults.network import pair

REASON = namespaces.why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]


def down(hosts: TwoHosts) -> None:
    hosts.set_link(0, up=False)


def up(hosts: TwoHosts) -> None:
    hosts.set_link(0, up=True)


@pytest.mark.parametrize(
    ("cut", "mend"),
    [(down, up), (lambda hosts: hosts.lose_all(0), lambda hosts: hosts.lose_none(0))],
    ids=["down", "losing all"],
)
def test_both_sides_find_a_dead_link_and_it_is_used_again(
    cut: Callable[[TwoHosts], None], mend: Callable[[TwoHosts], None]
) -> None:
    with TwoHosts() as hosts:
        server, client = pair(hosts, 1)
        with server, client:
            cut_at = time.monotonic()
            cut(hosts)
            gone = [
                side.wait_for(lambda event: event.get("connections") == 0, after=cut_at)["at"]
                for side in (server, client)
            ]
            mend(hosts)
            client.wait_for(lambda event: event.get("well"), after=max(gone))
            last = client.end()
    assert set(last["failed"]) <= {"UnitClosedError", "NoUnitsError"}


def test_requests_go_on_over_the_other_link() -> None:
    with TwoHosts(2) as hosts:
        # So that the other link bears a process that stands still.
        patient = {"heartbeat_interval": 1.0, "heartbeat_timeout": 5.0}
        server, client = pair(hosts, 2, callers=0, every=0.02, timeout=30.0, options=patient)
        with server, client:
            hosts.set_link(0, up=False)
            found = client.wait_for(lambda event: event.get("connections") == 1)
            hosts.set_link(0, up=True)
            client.wait_for(lambda event: event.get("connections") == 2, after=found["at"])
            last = client.end()
    failed = client.said(lambda event: event.get("error"))
    assert all(event["began"] < found["at"] for event in failed)
    assert last["answered"]


def test_nothing_is_left_behind_after_a_failure() -> None:
    hosts = TwoHosts(2)
    names = [hosts.within(side)[-1] for side in range(2)]
    with pytest.raises(ZeroDivisionError), hosts:
        raise ZeroDivisionError
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert not any(name in listed.stdout for name in names)
