"""trials.soak: what it makes of samples and losses, and a short one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.gopeer import build
from trials.soak.flatness import growth
from trials.soak.ledger import DELAY, PATIENCE, Ledger, Loss

ROOT = Path(__file__).resolve().parent.parent
END_SECONDS = 150.0  # of patience with a busy machine

# A short one whose result does not take the place of a long one's.
SHORT = """
import sys
from pathlib import Path
from trials import figures
figures.RESULTS = Path(sys.argv.pop(1))
from trials.soak import __main__ as soak
sys.exit(soak.main())
"""


def test_noise_is_no_growth() -> None:
    noise = random.Random(1)
    times = [float(t) for t in range(0, 3600, 5)]
    flat = growth(times, [100 + noise.gauss(0, 3) for _ in times])
    assert flat is not None
    assert abs(flat.by) < 1
    assert abs(flat.an_hour) < 2


def test_growth_is_found_in_noise_and_the_warm_up_is_left_out() -> None:
    noise = random.Random(2)
    times = [float(t) for t in range(0, 3600, 5)]
    leak = growth(times, [10 * t / 3600 + noise.gauss(0, 3) for t in times])
    assert leak is not None
    assert leak.an_hour == pytest.approx(10, abs=1.5)
    # From the middle of the first quarter of what is looked at to that of the last.
    assert leak.by == pytest.approx(6, abs=1.5)
    warm = growth(times, [min(t, 600.0) for t in times])
    assert warm is not None
    assert (warm.by, warm.an_hour) == (0, 0)


def test_a_spike_is_no_growth_and_a_step_is() -> None:
    times = [float(t) for t in range(100)]
    spike = growth(times, [1000.0 if t == 95 else 1.0 for t in times])
    assert spike is not None
    assert spike.by == 0
    step = growth(times, [5.0 if t >= 60 else 1.0 for t in times])
    assert step is not None
    assert step.by == 4


def test_of_too_few_samples_nothing_is_told() -> None:
    assert growth([], []) is None
    assert growth([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]) is None


def lost(ledger: Ledger, peer: str, unit: str, at: float) -> None:
    ledger.lost(Loss(peer, unit, at, "1006"))


def test_a_broken_connection_explains_one_loss_at_each_end() -> None:
    ledger = Ledger()
    lost(ledger, "a", "b", 100.0)
    lost(ledger, "b", "a", 100.1)
    ledger.broke("b", "a", 100.05)  # what is told of other processes comes in any order
    lost(ledger, "a", "b", 101.0)  # a second one, that nobody broke
    ledger.settle(102.0)
    assert ledger.unexplained == []  # its explanation might still come
    ledger.settle(102.0 + DELAY)
    assert ledger.explained == 2
    assert ledger.unexplained == [Loss("a", "b", 101.0, "1006")]


def test_an_explanation_is_of_one_pair_and_of_one_time() -> None:
    ledger = Ledger()
    ledger.broke("a", "b", 100.0, links=5)
    lost(ledger, "a", "c", 100.0)
    lost(ledger, "a", "b", 90.0)
    lost(ledger, "a", "b", 100.0 + PATIENCE + 1)
    ledger.settle(float("inf"))
    assert len(ledger.unexplained) == 3


def test_a_killed_process_explains_all_losses_of_its_peers() -> None:
    ledger = Ledger()
    ledger.broke("a", None, 100.0)
    for other in "bcb":
        lost(ledger, other, "a", 100.2)
    lost(ledger, "b", "c", 100.2)
    ledger.settle(float("inf"))
    assert ledger.explained == 3
    assert [loss.peer for loss in ledger.unexplained] == ["b"]
    assert ledger.touched("a", 99.0) is False  # what is that old is forgotten


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def start(results: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SHORT, str(results), "--pause", "0.5", "--interval", "0.2",
         *arguments],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "") + os.pathsep + str(ROOT)},
    )  # fmt: skip


def got(results: Path) -> dict[str, str]:
    kept = json.loads((results / "soak.json").read_text("utf-8"))
    return {figure["what"]: figure["got"] for figure in kept["figures"]}


# Growth is not looked at: in so short a time all that is in a process is still being loaded.
NOTHING = (
    "connections lost, unexplained",
    "wrong answers and bytes",
    "unexpected errors",
    "left in the end: pending requests",
    "left in the end: running handlers",
    "left in the end: streams",
    "left in the end: unsent bytes",
)


@pytest.mark.slow
@needs_proc
def test_a_short_soak(tmp_path: Path) -> None:
    build()  # skips where there is no Go toolchain
    with start(tmp_path, "--minutes", "0.15") as process:
        output, errors = process.communicate(timeout=END_SECONDS)
    found = got(tmp_path)
    assert {what: found[what] for what in NOTHING} == dict.fromkeys(NOTHING, "0"), output + errors
    assert int(found["requests answered"].replace(",", "")) > 0
    assert int(found["requests of the Go peer and by it"].replace(",", "")) > 0
    assert int(found["streams done, every byte compared"]) > 0


@pytest.mark.slow
@needs_proc
def test_a_soak_that_is_interrupted_ends_in_good_order_and_says_that_go_was_left_out(
    tmp_path: Path,
) -> None:
    with start(tmp_path, "--minutes", "60", "--without-go") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " requests, " in line:
                break
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=END_SECONDS)
    found = got(tmp_path)
    assert {what: found[what] for what in NOTHING} == dict.fromkeys(NOTHING, "0"), output + errors
    assert found["Go peer"] == "none: left out, as was asked"
    assert float(found["lasted"].split()[0]) < 5
    progress = json.loads((tmp_path / "soak-progress.json").read_text("utf-8"))
    assert progress["tally"]["requests"] > 0
