"""How the modules of the package import each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import roletalk

pytestmark = pytest.mark.checkout

PACKAGE = Path(__file__).parent.parent / "roletalk"
COMPILED = sorted(path.stem for path in PACKAGE.glob("*.pyx"))
MODULES = sorted(
    {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"} | {*COMPILED}
)

# The package's __init__ is kept from running: it would import every other module first.
ALONE = """
import importlib, sys, types
package = types.ModuleType("roletalk")
package.__path__ = [sys.argv[1]]
sys.modules["roletalk"] = package
importlib.import_module("roletalk." + sys.argv[2])
"""

IMPORT = re.compile(r"^\s*from\s+\.(\w*)\s+c?import\s+(\(?[^#\n(]*)", re.MULTILINE)
ABSOLUTE_IMPORT = re.compile(r"^\s*(?:from|c?import)\s+roletalk\b", re.MULTILINE)


@pytest.mark.slow
def test_every_module_can_be_imported_alone() -> None:
    running = {
        name: subprocess.Popen(
            [sys.executable, "-W", "error", "-c", ALONE, str(PACKAGE), name],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in MODULES
    }
    said = {name: process.communicate()[1] for name, process in running.items()}
    failed = [name for name, process in running.items() if process.returncode]
    assert not failed, "\n".join(f"{name}: {said[name]}" for name in failed)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_modules_import_nothing_above_them(name: str) -> None:
    # A .pxd of its own declares C only.
    allowed = {*COMPILED, *(path.stem for path in PACKAGE.glob("*.pxd")), "_text", "errors"}
    for path in (PACKAGE / f"{name}.pyx", PACKAGE / f"{name}.pxd"):
        if not path.exists():
            continue
        source = path.read_text()
        assert not ABSOLUTE_IMPORT.search(source), f"{path.name} imports the package by its name"
        for module, names in IMPORT.findall(source):
            imported = {module} if module else {each.split()[0] for each in names.split(",")}
            assert imported <= allowed, f"{path.name} imports {imported - allowed}"


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_modules_have_a_stub(name: str) -> None:
    assert (PACKAGE / f"{name}.pyi").exists()


def test_codecs_know_no_asyncio() -> None:
    for name in ("_codec.pyx", "_wire.pyx", "_buffer.pyx", "auth.py", "keys.py", "address.py"):
        assert not re.search(
            r"^\s*(?:from|import)\s+asyncio", (PACKAGE / name).read_text(), re.MULTILINE
        )


def test_errors_imports_nothing_of_the_package() -> None:
    code = (PACKAGE / "errors.py").read_text()
    imports = re.findall(r"^(?:from|import)\s+(\S+)", code, re.MULTILINE)
    assert set(imports) <= {"__future__", "typing", "._text"}


def test_the_public_names() -> None:
    assert list(roletalk.__all__) == sorted(roletalk.__all__)
    for name in roletalk.__all__:
        assert getattr(roletalk, name) is not None
