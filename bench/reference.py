"""Compiles the reference echo, ``cyecho.pyx``, into ``build/bench/`` and imports it from there."""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
# Its own place for everything that the binary depends on: picows's structs change with its releases.
VARIANT = f"{sys.implementation.cache_tag}-picows{version('picows')}"
BUILT = HERE.parent / "build" / "bench" / VARIANT


@cache
def build_cyecho() -> None:
    """Compile it unless it is up to date."""
    # By name: neither comes with types, and only who builds needs them.
    setuptools: Any = import_module("setuptools")
    cython: Any = import_module("Cython.Build")
    modules = cython.cythonize(
        [setuptools.Extension("cyecho", [str(HERE / "cyecho.pyx")], extra_compile_args=["-O3"])],
        build_dir=str(BUILT / "c"),
        quiet=True,
    )
    distribution = setuptools.Distribution({"name": "cyecho", "ext_modules": modules})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(BUILT), str(BUILT / "temp")
    command.ensure_finalized()
    command.run()


def load_cyecho() -> ModuleType:
    """The compiled module; `build_cyecho` has run before, in this process or another."""
    sys.path.insert(0, str(BUILT))
    try:
        return import_module("cyecho")
    finally:
        sys.path.remove(str(BUILT))
