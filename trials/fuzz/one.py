"""One target under atheris: ``python -m trials.fuzz.one TARGET [libFuzzer's options and corpora]``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from trials.fuzz import INSTRUMENTED


def main() -> None:
    name, *options = sys.argv[1:]
    atheris: Any = import_module("atheris")
    if INSTRUMENTED.is_dir():
        # Before the checkout, which holds the build without instruments.
        sys.path.insert(0, str(INSTRUMENTED))
    logging.getLogger("roletalk").propagate = False
    logging.getLogger("roletalk").addHandler(logging.NullHandler())
    with atheris.instrument_imports(include=["roletalk"]):
        import_module("roletalk")
    target = import_module(f"trials.fuzz.targets.{name}")
    test_one: Callable[[bytes], None] = target.test_one

    def checked(data: bytes) -> None:
        test_one(data)

    atheris.Setup([sys.argv[0], *options], checked)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
