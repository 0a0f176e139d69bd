"""The reference echo, ``cyecho.pyx``, compiled into ``build/bench/``."""

import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from . import extension

SOURCE = Path(__file__).resolve().with_name("cyecho.pyx")
# Its own place for everything that the binary depends on: picows's structs change with its releases.
VARIANT = f"{sys.implementation.cache_tag}-picows{version('picows')}"
BUILT = SOURCE.parent.parent / "build" / "bench" / VARIANT


@cache
def build_cyecho() -> None:
    """Compile it unless it is up to date."""
    extension.build(SOURCE, BUILT, extra_compile_args=["-O3"])


def load_cyecho() -> ModuleType:
    """The compiled module; `build_cyecho` has run before, in this process or another."""
    return extension.load(SOURCE, BUILT)
