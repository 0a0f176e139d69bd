"""The only connection to a unit is lost: all that was pending on it fails, and says what that means."""

from __future__ import annotations

import pytest

import roletalk
from tests.helpers import run
from trials.faults.lost import WAYS, How, lose, says_it_all


@pytest.mark.parametrize("how", WAYS)
def test_what_is_pending_fails_and_says_what_that_means(how: How) -> None:
    async def main() -> None:
        loss = await lose(how, pending=50)
        assert loss.pending == 50
        assert loss.silent == []

    run(main())


def test_an_error_that_says_less_would_be_found() -> None:
    assert not says_it_all(roletalk.UnitClosedError("it went away"), "e")
    assert not says_it_all(roletalk.RequestTimeout("'server' 'r' 'e' may have been executed"), "e")
    assert not says_it_all("'server' 'r' 'e' may have been executed", "e")
