"""What is said of the package in several places is the same everywhere."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import roletalk
from roletalk._abi import OLDEST
from tools.release import UNRELEASED, changes, refusal, version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings along

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = SETTINGS["project"]
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def named(requirements: list[str]) -> dict[str, str]:
    """Their version ranges, by name."""
    parts = (re.match(r"([\w-]+)([^;]*)", each) for each in requirements)
    return {part[1].lower(): part[2].strip() for part in parts if part is not None}


def test_one_version() -> None:
    assert roletalk.__version__ == version()
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version())


def test_the_changelog_begins_with_it() -> None:
    versions = [tuple(map(int, each.split("."))) for each in changes()]
    assert versions == sorted(versions, reverse=True)
    assert next(iter(changes())) == version()
    assert all(
        re.fullmatch(rf"\d{{4}}-\d\d-\d\d|{UNRELEASED}", each) for each in changes().values()
    )
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(changes())
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= SECTIONS


@pytest.mark.parametrize(
    ("tag", "dates", "said"),
    [
        ("v1.2.3", {"1.2.3": "2026-01-31", "1.2.2": "2026-01-01"}, ""),
        ("v1.2.4", {"1.2.3": "2026-01-31"}, "the tag is v1.2.4"),
        ("1.2.3", {"1.2.3": "2026-01-31"}, "the tag is 1.2.3"),
        ("v1.2.3", {"1.2.3": UNRELEASED}, "not with its date"),
        ("v1.2.3", {"1.3.0": "2026-01-31", "1.2.3": "2026-01-01"}, "does not begin with 1.2.3"),
        ("v1.2.3", {}, "does not begin with 1.2.3"),
    ],
)
def test_what_may_be_released(tag: str, dates: dict[str, str], said: str) -> None:
    refused = refusal(tag, "1.2.3", dates)
    assert said in refused
    assert bool(said) == bool(refused)


@pytest.mark.parametrize("name", sorted(OLDEST))
def test_built_and_run_with_the_same(name: str) -> None:
    built, run = named(SETTINGS["build-system"]["requires"]), named(PROJECT["dependencies"])
    assert built[name] == run[name]
    oldest, next_minor = re.fullmatch(r">=([\d.]+),<([\d.]+)", run[name]).groups()  # type: ignore[union-attr]
    major, minor, *_ = map(int, OLDEST[name].split("."))
    assert OLDEST[name] in (oldest, f"{oldest}.0")
    assert next_minor == f"{major}.{minor + 1}"


def test_the_pythons_that_wheels_are_built_for() -> None:
    named_so = {
        each.rsplit(" ", 1)[1]
        for each in PROJECT["classifiers"]
        if re.search(r":: 3\.\d+$", each) is not None
    }
    built = {
        each.split("-")[0].removeprefix("cp3") for each in SETTINGS["tool"]["cibuildwheel"]["build"]
    }
    assert {f"3.{each}" for each in built if not each.endswith("t")} == named_so
    assert PROJECT["requires-python"] == f">={min(named_so, key=lambda each: int(each[2:]))}"


def test_what_a_wheel_is_tested_with_is_there() -> None:
    settings = SETTINGS["tool"]["cibuildwheel"]
    files = [each for each in shlex.split(settings["test-command"]) if each.startswith("tests/")]
    assert files
    for name in (*files, *settings["test-sources"]):
        assert (ROOT / name).exists(), name
