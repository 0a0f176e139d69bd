"""The guard with another Python than this one: a copy of the sources, built for it.

The copy is brought up to date each time, so only what changed is compiled again, and neither
disturbs nor is disturbed by a build of the checkout itself.
"""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .compiled import ROOT

NEEDED = "import Cython, aiofastnet, msgspec, setuptools, uvloop"
# What building and counting take.
FILES = ("LICENSE", "README.md", "pyproject.toml", "setup.py")
DIRECTORIES = ("bench", "roletalk")
BUILT = ("*.so", "*.pyd", "__pycache__")


class BuildError(Exception):
    """The extensions cannot be built for that Python."""


def run_with(python: str, arguments: list[str]) -> int:
    """Build for `python`, then run the guard there.  Returns its exit status; raises `BuildError`."""
    place = ROOT / "build" / "guard" / cache_tag(python)
    able = able_python(python, place / "venv")
    tree = place / "tree"
    copy_sources(ROOT, tree)
    quiet_run(
        [able, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        environment={**os.environ, "ROLETALK_DEBUG": "0"},
    )
    return subprocess.run([able, "-m", "bench.guard", *arguments], cwd=tree, check=False).returncode


def cache_tag(python: str) -> str:
    command = [python, "-c", "import sys; print(sys.implementation.cache_tag + sys.abiflags)"]
    try:
        return quiet_run(command).strip()
    except OSError as error:
        raise BuildError(f"{python}: {error}") from error


def able_python(python: str, venv: Path) -> str:
    """`python` itself where it has all that is needed, otherwise that of a venv made from it."""
    if subprocess.run([python, "-c", NEEDED], capture_output=True, check=False).returncode == 0:
        # Not resolved: in a venv it is a link to the Python outside.
        return os.path.abspath(shutil.which(python) or python)
    there = str(venv / "bin" / "python")
    if not Path(there).exists():
        quiet_run([python, "-m", "venv", str(venv)])
    quiet_run([there, "-m", "pip", "install", "-q", *requirements()])
    return there


def requirements() -> list[str]:
    """What building and running take, as pyproject.toml has it."""
    tomllib: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "pip._vendor.tomli")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [*project["build-system"]["requires"], *project["project"]["dependencies"]]


def copy_sources(root: Path, tree: Path) -> None:
    """Have `tree` hold the sources of `root` as they are, and what was built from them before."""
    tree.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy2(root / name, tree / name)
    for name in DIRECTORIES:
        for old in (tree / name).rglob("*"):
            gone = not (root / old.relative_to(tree)).exists()
            if gone and old.is_file() and not any(old.match(pattern) for pattern in BUILT):
                old.unlink()
        # The times of the files go with them: they say what has to be compiled again.
        shutil.copytree(
            root / name, tree / name, ignore=shutil.ignore_patterns(*BUILT), dirs_exist_ok=True
        )


def quiet_run(
    command: list[str], *, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> str:
    """What it printed.  Raises `BuildError`, with all that it said, when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
