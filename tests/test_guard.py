"""The guard of bench/guard: what it takes for worse, and that it sees what is added to a request."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.guard import __main__ as command
from bench.guard import baseline as kept
from bench.guard import counting, elsewhere, paths
from bench.guard.baseline import Counts, Measured, Row, compare
from bench.guard.child import COUNT, of_one
from bench.guard.compiled import ROOT, NoCompilerError, compiled, compiler
from roletalk._debug import is_debug_build

PATH = "request, sync handler"
VERSION = counting.python_version()


def measured(*, python: str = "3.x", **counts: float) -> Measured:
    """One path; the counts are named with _ for a space."""
    named = {name.replace("_", " "): count for name, count in counts.items()}
    return {"environment": {"Python": python}, "counts": {PATH: named}}


def row(what: str, baseline: float | None, now: float) -> Row:
    return Row(PATH, what, baseline, now)


# -- what is worse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "baseline", "same", "more"),
    [
        ("allocations", 6.0, 6.11, 6.13),
        ("allocations", 1.0, 1.04, 1.06),
        ("allocations", 0.0, 0.04, 0.06),
        ("system calls", 0.14, 0.18, 0.20),
        ("system calls", 6.0, 6.11, 6.13),
        ("instructions", 10_000, 10_999, 11_001),
    ],
)
def test_a_count_is_worse_beyond_its_tolerance(
    what: str, baseline: float, same: float, more: float
) -> None:
    assert not row(what, baseline, same).is_worse
    assert row(what, baseline, more).is_worse
    assert not row(what, baseline, more).is_better


@pytest.mark.parametrize(
    ("what", "same", "less"),
    [("allocations", 5.89, 5.87), ("system calls", 5.89, 5.87), ("instructions", 5.41, 5.39)],
)
def test_and_better_beyond_it_the_other_way(what: str, same: float, less: float) -> None:
    assert not row(what, 6.0, same).is_better
    assert row(what, 6.0, less).is_better
    assert not row(what, 6.0, less).is_worse


def test_nothing_is_worse_than_no_baseline() -> None:
    rows = compare(None, measured(allocations=1e9))
    assert [(each.baseline, each.is_worse, each.is_better) for each in rows] == [
        (None, False, False)
    ]


def test_each_count_is_compared_with_its_own() -> None:
    before = measured(allocations=6.0, system_calls=0.14, instructions=10_000.0)
    after = measured(allocations=7.0, system_calls=0.14, instructions=9_900.0)
    assert [(each.what, each.baseline, each.is_worse) for each in compare(before, after)] == [
        ("allocations", 6.0, True),
        ("system calls", 0.14, False),
        ("instructions", 10_000.0, False),
    ]


def test_instructions_are_compared_within_one_environment_only() -> None:
    before = measured(python="3.x.1", allocations=6.0, instructions=10_000.0)
    after = measured(python="3.x.2", allocations=7.0, instructions=20_000.0)
    assert [(each.baseline, each.is_worse) for each in compare(before, after)] == [
        (6.0, True),
        (None, False),
    ]
    assert kept.differences(before, after) == ["Python was 3.x.1, is 3.x.2"]


def test_a_count_that_the_baseline_lacks_is_shown() -> None:
    (_, added) = compare(measured(allocations=6.0), measured(allocations=6.0, system_calls=9.0))
    assert added.baseline is None


# -- from runs to one operation -----------------------------------------------------------------------


def test_what_a_run_costs_by_itself_does_not_count() -> None:
    runs = [{"allocations": at} for at in (1000, 1000 + 77 + 6 * COUNT, 1000 + 154 + 18 * COUNT)]
    before, between, after = (Counter(run) for run in runs)
    assert of_one(before, between, after) == {"allocations": 6.0}


def test_system_calls_of_all_names_make_one_count() -> None:
    found = {PATH: {"allocations": 6.0, "syscall send": 1.0, "syscall recv": 0.5}}
    assert counting.summed(found, with_syscalls=True) == {
        PATH: {"allocations": 6.0, "system calls": 1.5}
    }
    assert counting.summed(found, with_syscalls=False) == {PATH: {"allocations": 6.0}}


def test_instructions_are_read_from_the_profiles() -> None:
    assert counting.read_total("part: 2\nsummary: 12\n\ntotals: 12\n") == 12
    with pytest.raises(counting.MeasurementError):
        counting.read_total("part: 2\n")
    # Each path: warming up, once and twice.
    totals = [each for n in range(len(paths.PATHS)) for each in (9, 5 + COUNT, 5 + (n + 2) * COUNT)]
    assert list(counting.instructions_of_one(totals).values()) == [
        float(n + 1) for n in range(len(paths.PATHS))
    ]


# -- the command ---------------------------------------------------------------------------------------


class Command:
    """The guard with a baseline of its own, and counts that are given in place of measured ones."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        self._patch = monkeypatch

    def run(self, *found: Measured, update: bool = False) -> int:
        """Each measurement that is made takes one of `found`; all have to be taken."""
        left = list(found)
        self._patch.setattr(command, "measure", lambda notes: left.pop(0))
        status = command.guard(self.file, update=update)
        assert not left, "fewer measurements were made"
        return status


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path / "baseline.json", monkeypatch)


def test_it_fails_on_what_got_worse(guard: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.run(measured(allocations=6.0, instructions=10_000.0), update=True) == 0
    assert guard.run(measured(allocations=6.0, instructions=10_000.0)) == 0
    capsys.readouterr()
    worse = measured(allocations=7.0, instructions=12_000.0)
    assert guard.run(worse, worse) == 1
    said = capsys.readouterr().out
    assert said.count("WORSE") == 2
    assert "+1.00 +16.7%" in said
    assert "make guard-update" in said


def test_what_was_worse_once_is_counted_again(guard: Command) -> None:
    guard.run(measured(allocations=6.0, system_calls=1.0), update=True)
    once = measured(allocations=7.0, system_calls=1.0)
    assert guard.run(once, measured(allocations=6.0, system_calls=3.0)) == 0
    assert guard.run(once, measured(allocations=6.5, system_calls=3.0)) == 1


def test_it_says_when_something_got_better(
    guard: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    guard.run(measured(allocations=6.0), update=True)
    capsys.readouterr()
    assert guard.run(measured(allocations=5.0)) == 0
    assert "have it guarded: make guard-update" in capsys.readouterr().out


def test_it_passes_with_a_note_without_a_baseline(
    guard: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.save(guard.file, "2.7", measured(allocations=1.0))
    assert guard.run(measured(allocations=6.0)) == 0
    assert f"no baseline for Python {VERSION}" in capsys.readouterr().out


def test_a_path_may_not_go_unseen(guard: Command) -> None:
    guard.run(measured(allocations=6.0), update=True)
    assert guard.run({"environment": {}, "counts": {"another": {"allocations": 1.0}}}) == 1


def test_an_update_keeps_the_other_versions(guard: Command) -> None:
    for version in ("3.13", "3.9", "3.13t"):
        kept.save(guard.file, version, measured(allocations=1.0))
    kept.save(guard.file, "3.13", measured(allocations=2.0))
    found = kept.load(guard.file)
    assert list(found) == ["3.9", "3.13", "3.13t"]
    assert [each["counts"][PATH]["allocations"] for each in found.values()] == [1.0, 2.0, 1.0]


def test_the_committed_baseline_has_every_path() -> None:
    found = json.loads(kept.FILE.read_text())
    assert found
    for measurement in found.values():
        assert list(measurement["counts"]) == list(paths.PATHS)
        for counts in measurement["counts"].values():
            assert counts.keys() <= kept.TOLERANCES.keys()


# -- the real thing ------------------------------------------------------------------------------------

# A child with a handler that does something more.
CHILD = """
from bench.guard import child, paths

frugal = paths.echo

def echo(ctx):
    {more}
    return frugal(ctx)

paths.echo = echo
paths.PATHS = {{name: paths.PATHS[name] for name in {names}}}
child.main()
"""


def has_compiler() -> bool:
    try:
        return bool(compiler())
    except NoCompilerError:
        return False


def count_with(more: str) -> Measured:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(more=more, names=(PATH, "message")), "counts"],
        cwd=ROOT,
        env=counting.clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts: Counts = counting.summed(json.loads(done.stdout), with_syscalls=False)
    return {"environment": {}, "counts": counts}


@pytest.mark.slow
@pytest.mark.skipif(is_debug_build(), reason="the guard counts on the release build")
@pytest.mark.skipif(not has_compiler(), reason="needs a C compiler")
def test_one_more_allocation_a_request_is_seen() -> None:
    frugal, again, wasteful = (count_with(more) for more in ("pass", "pass", "object()"))
    assert not any(each.is_worse or each.is_better for each in compare(frugal, again))
    of_request, of_message = compare(frugal, wasteful)
    assert of_request.is_worse
    assert of_request.change == pytest.approx(1.0, abs=0.05)
    assert not of_message.is_worse


@pytest.mark.slow
@pytest.mark.skipif(is_debug_build(), reason="the guard counts on the release build")
@pytest.mark.skipif(sys.platform != "linux" or not has_compiler(), reason="needs Linux and cc")
def test_system_calls_are_counted_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.guard.child", "counts"],
        cwd=ROOT,
        env=counting.clean_environment(LD_PRELOAD=str(compiled("syscalls"))),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["request, one at a time"]
    # The request and its reply: both are sent once and received once.
    sent = sum(found.get(f"syscall {name}", 0.0) for name in ("send", "sendmsg", "write", "writev"))
    received = sum(found.get(f"syscall {name}", 0.0) for name in ("recv", "recvmsg", "read"))
    assert (sent, received) == (2.0, 2.0)


# -- other Pythons -------------------------------------------------------------------------------------


def test_a_copy_of_the_sources_follows_them(tmp_path: Path) -> None:
    root, tree = tmp_path / "root", tmp_path / "tree"
    for name in ("roletalk/_a.pyx", "roletalk/_b.pyx", "bench/guard/x.c", *elsewhere.FILES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "roletalk" / "_a.cpython-3x.so").write_text("of the checkout")
    elsewhere.copy_sources(root, tree)
    (tree / "roletalk" / "_a.cpython-3y.so").write_text("of the copy")
    (root / "roletalk" / "_b.pyx").unlink()
    (root / "roletalk" / "_c.pyx").write_text("new")
    elsewhere.copy_sources(root, tree)
    found = {file.name for file in (tree / "roletalk").iterdir()}
    assert found == {"_a.pyx", "_c.pyx", "_a.cpython-3y.so"}
    there, here = tree / "bench" / "guard" / "x.c", root / "bench" / "guard" / "x.c"
    assert there.stat().st_mtime_ns == here.stat().st_mtime_ns


def test_what_another_python_needs_comes_from_the_project() -> None:
    names = " ".join(elsewhere.requirements())
    assert all(name in names for name in ("Cython", "msgspec", "uvloop"))
