"""Links that died without a word are found, whatever is going on."""

from __future__ import annotations

import math

import pytest

import roletalk
from tests.helpers import run
from trials.faults.halfopen import LOADS, SILENCES, Beat, Load, Silence, silence, silent_handshake


@pytest.mark.parametrize("load", LOADS)
def test_both_sides_find_a_black_hole(load: Load) -> None:
    async def main() -> None:
        # How long it takes is a figure of the trial.
        found = await silence(load, Beat(interval=0.3, timeout=0.5))
        assert math.isfinite(found.dialling)
        assert math.isfinite(found.accepting)
        assert len(found.failed) == found.pending
        assert all(
            isinstance(error, (roletalk.UnitClosedError, roletalk.NoUnitsError))
            for error in found.failed
        )

    run(main(), debug=False)


@pytest.mark.parametrize("where", SILENCES)
def test_both_sides_give_up_a_handshake_that_falls_silent(where: Silence) -> None:
    async def main() -> None:
        found = await silent_handshake(where, 0.3)
        assert math.isfinite(found.accepting)
        (error,) = found.failed
        assert isinstance(error, roletalk.ConnectError)

    run(main())
