"""The demo as a user starts it: real processes, its status and what it prints."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from demo.corpus import differences, pieces, plain_counts, read_texts
from demo.processes import REPOSITORY
from demo.report import Report

END_SECONDS = 120.0  # of patience with a busy machine; the demo says itself how long it took

CHECKS = [
    "2 authenticated",
    "counts of 6 words equal those of a plain loop",
    " saw 1,000 of 1,000 one-way messages",
    "seen by 2 of 2 workers, once by each",
    "tokenise: even to",
    "count: even to",
    "the digests are the same",
    "requests were answered meanwhile",
    "every answer is the right one",
    "none lost: each was answered or failed",
    "the failed ones say why: UnitClosedError",
    "none doubled: workers handled as many as they answered",
    "round robin healed: worker-2 gets",
]

# The demo, but with a word too many in the plain loop's result.
ONE_TOO_MANY = """
import sys
from demo import __main__ as gateway, pipeline
right = pipeline.plain_counts
pipeline.plain_counts = lambda texts: right(texts) + right(["surplus"])
sys.exit(gateway.main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one.txt").write_text("To be, or not to be.\n" * 250, "utf-8")
    (tmp_path / "deep" / "two.md").write_text("# Überall\nbe quick\n", "utf-8")
    (tmp_path / "deep" / "bytes.bin").write_bytes(b"not text")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "three.txt").write_text("unseen", "utf-8")
    return tmp_path


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def assert_all_gone(output: str) -> None:
    """No process that the demo named is left."""
    pids = {int(pid) for pid in re.findall(r"pid (\d+)", output)}
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
def test_the_demo_succeeds(folder: Path) -> None:
    with start("-m", "demo", str(folder), "--workers", "2") as process:
        output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    good = re.findall(r"ok    (.*)", output)
    for expected, line in zip(CHECKS, good, strict=True):
        assert expected in line
    assert "FAIL" not in output
    assert "Traceback" not in output
    assert re.search(r"2 files in 4 pieces", output)
    assert re.search(r"8 requests, 1,503 words in .* req/s, .* words/s", output)
    assert len(set(re.findall(r"worker-2 +pid (\d+)|same port, pid (\d+)", output))) >= 2
    assert_all_gone(output)


@pytest.mark.slow
def test_a_wrong_count_gives_status_1(folder: Path) -> None:
    with start("-c", ONE_TOO_MANY, str(folder), "--workers", "2") as process:
        output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 1, output
    assert re.findall(r"FAIL  (.*)", output) == ["counts of 6 words equal those of a plain loop"]
    assert "'surplus': expected 1, found 0" in output


@pytest.mark.slow
def test_an_interrupt_leaves_no_worker_behind(folder: Path) -> None:
    with start("-m", "demo", str(folder), "--workers", "2") as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if "SIGKILL to" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 130, output + rest
    assert "Traceback" not in rest
    assert_all_gone(output + rest)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--workers", "1"], "at least 2"), (["no/such/folder"], "no folder no/such/folder")],
)
def test_bad_arguments(arguments: list[str], text: str) -> None:
    with start("-m", "demo", *arguments) as process:
        output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 2
    assert text in output


def test_differences() -> None:
    right = Counter(a=2, b=1)
    assert differences(right, Counter(a=2, b=1)) == []
    assert differences(right, Counter(a=2, b=1, c=0)) == []
    assert differences(right, Counter(a=3, b=1)) == ["'a': expected 2, found 3"]
    assert differences(right, Counter(a=2)) == ["'b': expected 1, found 0"]
    assert differences(right, Counter(a=2, b=1, c=4)) == ["'c': expected 0, found 4"]


def test_a_check_that_fails_decides_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.check(True, "right")
    assert report.status == 0
    report.check(False, "wrong")
    report.check(True, "right again")
    assert report.status == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "ok",
        "FAIL",
        "ok",
    ]


def test_texts_and_their_pieces(folder: Path) -> None:
    texts = read_texts(folder)
    assert len(texts) == 2
    expected = Counter({"to": 500, "be": 501, "or": 250, "not": 250, "quick": 1, "überall": 1})
    assert plain_counts(texts) == expected
    cut = [piece for text in texts for piece in pieces(text)]
    assert "".join(cut) == "".join(texts)
    assert len(cut) == 4
