"""Prints what pyproject.toml needs to build, one requirement a line, for pip's -r."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = Path(__file__).resolve().parent.parent / "pyproject.toml"
print(*tomllib.loads(project.read_text())["build-system"]["requires"], sep="\n")
