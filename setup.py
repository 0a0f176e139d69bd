"""Builds every roletalk/*.pyx as an extension module of the same dotted name.

Environment:
    ROLETALK_DEBUG=1   checks and assertions kept, -O1 -g, the C macro ROLETALK_DEBUG is 1
    ROLETALK_WERROR=1  warnings of the C compiler are errors
    ROLETALK_CFLAGS    more options for the C compiler, given to its linking too, apart by blanks
    ROLETALK_BUILD     builds into build/NAME, instead of build/release or build/debug

With ROLETALK_CFLAGS set, ROLETALK_BUILD should be too: what was compiled otherwise would be built
over.
"""

import os
import sys
from pathlib import Path

import aiofastnet
import Cython
import picows
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("ROLETALK_DEBUG", "0") == "1"
WERROR = os.environ.get("ROLETALK_WERROR", "0") == "1"

MORE_ARGS = os.environ.get("ROLETALK_CFLAGS", "").split()

# Everything a variant builds lives under its own directory, so that no object file or C source of
# one can end up in the other.
VARIANT = Path("build", os.environ.get("ROLETALK_BUILD") or ("debug" if DEBUG else "release"))

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "cdivision": True,
    "auto_pickle": False,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
}

MACROS: list[tuple[str, str | None]] = [
    ("ROLETALK_DEBUG", "1" if DEBUG else "0"),
    ("ROLETALK_BUILT_AIOFASTNET", f'"{aiofastnet.__version__}"'),
    ("ROLETALK_BUILT_PICOWS", f'"{picows.__version__}"'),
]
if not DEBUG:
    MACROS.append(("CYTHON_WITHOUT_ASSERTIONS", "1"))


def compile_args() -> list[str]:
    if sys.platform == "win32":
        return (["/Od", "/Zi"] if DEBUG else ["/O2"]) + (["/WX"] if WERROR else []) + MORE_ARGS
    # Frames are masked and read a machine word at a time, out of char buffers.
    args = ["-fno-strict-aliasing", "-fvisibility=hidden", "-Wall", "-Wextra"]
    # For clang: every module has the inline functions of the .pxd files that it cimports.
    args.append("-Wno-unused-function")
    # A Python that was built with -g asks for it here too: half of a wheel, with paths of this machine.
    args += ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
    if WERROR:
        args.append("-Werror")
    return args + MORE_ARGS


def extensions() -> list[Extension]:
    package = ROOT / "roletalk"
    headers = [f"roletalk/{header.name}" for header in sorted(package.glob("*.h"))]
    return [
        Extension(
            f"roletalk.{source.stem}",
            [f"roletalk/{source.name}"],
            depends=headers,
            include_dirs=["roletalk"],
            define_macros=MACROS,
            extra_compile_args=compile_args(),
            extra_link_args=MORE_ARGS,
        )
        for source in sorted(package.glob("*.pyx"))
    ]


# Timestamps tell when a source changed, not when an option or a tool did: what the last whole build
# of this variant was made with is recorded beside it.
SETTINGS = repr((Cython.__version__, DIRECTIVES, MACROS, compile_args()))
RECORD = ROOT / VARIANT / f"settings-{sys.implementation.cache_tag}"
FORCE = not RECORD.exists() or RECORD.read_text() != SETTINGS


class BuildExt(build_ext):
    """build_ext that runs Cython, and that keeps what it compiled for an editable install as well.

    An editable install would otherwise compile into a temporary directory, and the next build in
    place would compile everything once more.
    """

    def finalize_options(self) -> None:
        self.distribution.ext_modules = cythonize(
            self.distribution.ext_modules,
            build_dir=str(VARIANT / "c"),
            compiler_directives=DIRECTIVES,
            force=FORCE,
        )
        super().finalize_options()
        self.force = self.force or FORCE
        self.parallel = self.parallel or os.cpu_count()
        if self.inplace or getattr(self, "editable_mode", False):
            tag = f"{sys.platform}-{sys.implementation.cache_tag}"
            self.build_lib = str(VARIANT / f"inplace-{tag}")
            self.build_temp = str(VARIANT / f"temp-{tag}")

    def run(self) -> None:
        super().run()
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(SETTINGS)


setup(
    ext_modules=extensions(),
    options={"build": {"build_base": str(VARIANT)}},
    cmdclass={"build_ext": BuildExt},
)
