"""A peer that closes under load answers every request that it had begun."""

from __future__ import annotations

import pytest

from tests.helpers import run
from trials.faults.graceful import NETWORKS, WAYS, How, Network, end


def check(how: How, network: Network, in_flight: int) -> None:
    ending = run(end(how, network, in_flight), timeout=60, debug=False)
    assert ending.history.violations() == []
    assert ending.running > 0
    if how != "client.close()":
        assert ending.unanswered == 0


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("network", NETWORKS[:2], ids=lambda network: network.what)
def test_what_was_begun_is_answered(how: How, network: Network) -> None:
    check(how, network, 100)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS[2:], ids=lambda network: network.what)
def test_what_was_begun_is_answered_over_a_slow_link(network: Network) -> None:
    check("server.close()", network, 400)
