"""Compiles the two C parts of the guard into ``build/guard/``; a C compiler is all they need."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = ROOT / "build" / "guard" / str(sys.implementation.cache_tag)


class NoCompilerError(Exception):
    """There is no C compiler, or it cannot compile the guard."""


def compiler() -> list[str]:
    """The command of the C compiler.  Raises `NoCompilerError`."""
    for candidate in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(candidate or "")
        if words and shutil.which(words[0]):
            return words
    raise NoCompilerError("no C compiler was found; CC may name one")


def compiler_version() -> str:
    """The first line that the compiler says of itself.  Raises `NoCompilerError`."""
    said = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False)
    return said.stdout.partition("\n")[0].strip()


def compiled(name: str) -> Path:
    """The shared library of ``name.c``, up to date.  Raises `NoCompilerError`."""
    source, library = HERE / f"{name}.c", BUILT / f"{name}.so"
    if library.exists() and library.stat().st_mtime > source.stat().st_mtime:
        return library
    BUILT.mkdir(parents=True, exist_ok=True)
    # Beside it and then in its place: another process may be running with the old one.
    fresh = library.with_suffix(f".{os.getpid()}")
    command = [*compiler(), "-O2", "-fPIC", "-shared", "-Wall", "-Wextra"]
    # On macOS what an extension takes from Python is found when it is loaded.
    command += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    command += [f"-I{sysconfig.get_path('include')}", "-o", str(fresh), str(source)]
    command += ["-ldl"] if sys.platform == "linux" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoCompilerError(done.stderr.strip())
    fresh.replace(library)
    return library
