"""Installs what an extra in pyproject.toml lists: ``install_extra.py [--optional] EXTRA``.

Optional ones are installed one by one and only from wheels: what cannot be had for this Python is
named and left out, and does not keep the others from being installed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def install(*arguments: str, capture: bool = False) -> bool:
    """Whether pip did it; with `capture`, without a word."""
    command = [sys.executable, "-m", "pip", "install", "-q", *arguments]
    done = subprocess.run(command, check=False, capture_output=capture)  # noqa: S603
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="install_extra.py", description=__doc__)
    parser.add_argument("--optional", action="store_true")
    parser.add_argument("extra")
    options = parser.parse_args()
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    requirements: list[str] = extras[options.extra]
    if not options.optional:
        return 0 if install(*requirements) else 1
    for requirement in requirements:
        if not install("--only-binary=:all:", requirement, capture=True):
            print(f"{requirement} cannot be had here and is left out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
