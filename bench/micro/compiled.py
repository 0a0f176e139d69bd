"""Compiles ``loops.pyx`` against the extensions as they are, and imports it."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = ROOT / "build" / "micro" / str(sys.implementation.cache_tag)


def build_loops() -> None:
    """Compile them unless they are up to date with all of the ``.pxd`` files that they use."""
    # By name: neither comes with types, and only who builds needs them.
    setuptools: Any = import_module("setuptools")
    cython: Any = import_module("Cython.Build")
    extension = setuptools.Extension(
        "loops",
        [str(HERE / "loops.pyx")],
        include_dirs=[str(ROOT / "roletalk")],
        define_macros=[("ROLETALK_DEBUG", "0"), ("CYTHON_WITHOUT_ASSERTIONS", "1")],
        extra_compile_args=["-O3", "-fno-strict-aliasing"],
    )
    modules = cython.cythonize(
        [extension], build_dir=str(BUILT / "c"), include_path=[str(ROOT)], quiet=True
    )
    distribution = setuptools.Distribution({"name": "loops", "ext_modules": modules})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(BUILT), str(BUILT / "temp")
    command.ensure_finalized()
    command.run()


def load_loops() -> Any:
    """The compiled module, up to date."""
    build_loops()
    sys.path.insert(0, str(BUILT))
    try:
        return import_module("loops")
    finally:
        sys.path.remove(str(BUILT))
