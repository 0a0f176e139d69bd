"""The tables of docs/limits.md say what the code does, and name tests that there are."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import roletalk

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parent.parent
LIMITS = (ROOT / "docs/limits.md").read_text()
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}


class Row(NamedTuple):
    what: str
    default: str
    set_by: str
    beyond: str
    test: str


def table_rows() -> list[Row]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in LIMITS.splitlines()
        if line.startswith("|")
    ]
    return [Row(*row) for row in cells if row[0] != "what" and set(row[0]) != {"-"}]


ROWS = table_rows()
TESTS = re.findall(r"`(tests/[^`]+)::([^`]+)`", LIMITS)


def in_code(name: str) -> Any:
    """What `name` of the column "set by" is in the code."""
    option = re.fullmatch(r"Peer\((\w+)\)", name)
    if option:
        return inspect.signature(roletalk.Peer).parameters[option[1]].default
    module_name, constant, *attribute = name.split(".")
    module = importlib.import_module(f"roletalk.{module_name}")
    if attribute:
        return getattr(getattr(module, constant)(), attribute[0])
    found = getattr(module, constant, None)
    if found is not None:
        return found
    # Constants of compiled modules are known to their sources only.
    for suffix in ("pyx", "pxd"):
        source = ROOT / f"roletalk/{module_name}.{suffix}"
        match = re.search(rf"^ *{constant} = (\d+)\b", source.read_text(), re.MULTILINE)
        if match:
            return int(match[1])
    raise AssertionError(f"there is no {name}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what[:40])
def test_the_default_is_the_codes(row: Row) -> None:
    said = re.fullmatch(r"([\d,.]+) ?([A-Za-z]*)", row.default)
    assert said
    value = float(said[1].replace(",", "")) * UNITS[said[2]]
    assert in_code(row.set_by.strip("`")) == value


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_the_test_is_there(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_row_is_whole() -> None:
    assert len(ROWS) > 50
    assert all(all(row) for row in ROWS)
    assert all(re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", row.test) for row in ROWS)


def test_every_option_that_limits_something_is_there() -> None:
    options = {
        name
        for name in inspect.signature(roletalk.Peer).parameters
        if name.startswith(("max_", "stream_", "high_", "low_"))
    }
    assert options <= set(re.findall(r"`Peer\((\w+)\)`", LIMITS))


def test_every_constant_of_python_modules_that_limits_something_is_there() -> None:
    said = {row.set_by.strip("`") for row in ROWS}
    for path in sorted((ROOT / "roletalk").glob("*.py")):
        for name in re.findall(r"^(MAX_\w+)(?:: Final)? = ", path.read_text(), re.MULTILINE):
            if f"{path.stem}.{name}" not in {*said, *ELSEWHERE}:
                pytest.fail(f"{path.stem}.{name} is not in docs/limits.md")


# The same limit by another name, or one that only our own side can reach.
ELSEWHERE = {"peer.MAX_TAGS", "keys.MAX_KEY_IDS_JSON_BYTES"}
