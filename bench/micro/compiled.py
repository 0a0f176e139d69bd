"""Compiles ``loops.pyx`` against the extensions as they are, and imports it."""

import sys
from pathlib import Path
from typing import Any

from bench import extension

SOURCE = Path(__file__).resolve().with_name("loops.pyx")
ROOT = SOURCE.parent.parent.parent
BUILT = ROOT / "build" / "micro" / str(sys.implementation.cache_tag)


def load_loops() -> Any:
    """The compiled module, up to date with all of the ``.pxd`` files that it uses."""
    extension.build(
        SOURCE,
        BUILT,
        include_path=(str(ROOT),),
        include_dirs=[str(ROOT / "roletalk")],
        define_macros=[("ROLETALK_DEBUG", "0"), ("CYTHON_WITHOUT_ASSERTIONS", "1")],
        extra_compile_args=["-O3", "-fno-strict-aliasing"],
    )
    return extension.load(SOURCE, BUILT)
