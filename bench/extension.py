"""Compiles one ``.pyx`` that is no part of the package, and imports it from where it was built."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


def build(source: Path, into: Path, *, include_path: tuple[str, ...] = (), **options: Any) -> None:
    """Compile `source` into the directory `into`, unless it is up to date.

    include_path: where Cython looks for ``.pxd`` files.  options: of the setuptools extension.
    """
    # By name: neither comes with types, and only who builds needs them.
    setuptools: Any = import_module("setuptools")
    cython: Any = import_module("Cython.Build")
    name = source.stem
    modules = cython.cythonize(
        [setuptools.Extension(name, [str(source)], **options)],
        build_dir=str(into / "c"),
        include_path=list(include_path),
        quiet=True,
    )
    distribution = setuptools.Distribution({"name": name, "ext_modules": modules})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(into), str(into / "temp")
    command.ensure_finalized()
    command.run()


def load(source: Path, built: Path) -> ModuleType:
    """The module that `build` made of `source` in the directory `built`."""
    sys.path.insert(0, str(built))
    try:
        return import_module(source.stem)
    finally:
        sys.path.remove(str(built))
