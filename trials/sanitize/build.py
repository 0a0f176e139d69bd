"""Compiling with the sanitizers, and what a process needs in its environment to run what was compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from bench.guard.compiled import compiler

ROOT: Final = Path(__file__).resolve().parents[2]
NAME: Final = "sanitize"
BUILT: Final = ROOT / "build" / NAME
LIBRARY: Final = BUILT / "lib" / "roletalk"
FAULTY: Final = BUILT / "faulty"
REPORTS: Final = BUILT / "reports"

FLAGS: Final = (
    "-fsanitize=address,undefined,float-cast-overflow",
    # A report ends the process, so that no test can pass over it.
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    # Python's own options define what happens when a signed integer overflows; C does not.
    "-fno-wrapv",
    # An object that waits on a freelist is used after it was freed, and nobody notices.
    "-DCYTHON_USE_FREELISTS=0",
)
RUNTIMES: Final = ("libasan.so", "libubsan.so")

ASAN: Final = "AddressSanitizer"
UBSAN: Final = "UndefinedBehaviorSanitizer"
SIGNS: Final = {ASAN: "ERROR: AddressSanitizer", UBSAN: ": runtime error: "}

# CPython keeps what its modules made until the process ends, and frees little of it then.
LEAKS_OFF: Final = "detect_leaks=0"


class NoSanitizerError(Exception):
    """The C compiler here has no sanitizers whose runtime can be loaded into Python."""


def runtimes() -> list[Path]:
    """The shared libraries that must be loaded before anything else.  Raises `NoSanitizerError`."""
    if sys.platform != "linux":
        raise NoSanitizerError("preloading the sanitizers' runtimes is done on Linux only")
    found = []
    for name in RUNTIMES:
        command = [*compiler(), f"-print-file-name={name}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        # A compiler that does not have it repeats the name.
        if not Path(said).is_absolute() or not Path(said).exists():
            raise NoSanitizerError(
                f"{' '.join(compiler())} has no {name}: install libasan and libubsan of its version"
                " (with Debian's gcc they come along), or name a gcc that has them in CC"
            )
        found.append(Path(said).resolve())
    return found


def build_environment() -> dict[str, str]:
    """What setup.py reads."""
    return os.environ | {
        "ROLETALK_BUILD": NAME,
        "ROLETALK_DEBUG": "1",
        "ROLETALK_CFLAGS": " ".join(FLAGS),
    }


def run_environment(*, asan: str = "allocator_may_return_null=1") -> dict[str, str]:
    """For a process and those that it starts.  asan: more options of AddressSanitizer."""
    report = REPORTS / "report"
    return os.environ | {
        "LD_PRELOAD": ":".join(map(str, runtimes())),
        # Else one block of Python's own allocator holds many objects, without a gap between them.
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT / "tools" / "debug"),
        "ROLETALK_BUILD": NAME,
        "ASAN_OPTIONS": f"{LEAKS_OFF}:detect_stack_use_after_return=1:log_path={report}:{asan}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "ROLETALK_UBSAN_REPORT": str(report),
    }


def build() -> None:
    """Compile the package into build/sanitize/lib.  Raises `CalledProcessError`."""
    for stale in LIBRARY.rglob("*.py*"):
        stale.unlink()
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(LIBRARY.parent)]
    subprocess.run(command, cwd=ROOT, env=build_environment(), check=True)


def build_faulty() -> None:
    """Compile faulty.pyx with the same options.  Raises `CalledProcessError`."""
    script = (
        "import sys\n"
        "from setuptools import Extension, setup\n"
        "from Cython.Build import cythonize\n"
        "source, include, build_dir, *flags = sys.argv[1:]\n"
        "sys.argv[1:] = ['-q', 'build_ext', '--build-lib', build_dir, '--build-temp', build_dir]\n"
        "extension = Extension('faulty', [source], include_dirs=[include],\n"
        "    extra_compile_args=['-fno-strict-aliasing', '-O1', '-g', '-w', *flags],\n"
        "    extra_link_args=flags)\n"
        "setup(name='faulty', ext_modules=cythonize([extension], build_dir=build_dir,\n"
        "    quiet=True, language_level=3))\n"
    )
    source = Path("trials", "sanitize", "faulty.pyx")
    arguments = [str(source), str(ROOT / "roletalk"), str(FAULTY), *FLAGS]
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, check=True)


def faults() -> dict[str, tuple[str, str]]:
    """By the call that is at fault: who must report it, and how the report names it."""
    return {
        "read_beyond_the_end(64)": (ASAN, "heap-buffer-overflow"),
        "read_after_free(64)": (ASAN, "heap-use-after-free"),
        "write_beyond_bytes(b'x' * 100)": (ASAN, "heap-buffer-overflow"),
        "mask_beyond_the_end(63)": (ASAN, "READ of size 32"),
        "read_a_misaligned_word(64)": (UBSAN, "misaligned address"),
        "overflow(1)": (UBSAN, "signed integer overflow"),
        "shift_too_far(40)": (UBSAN, "shift exponent"),
        "cast_too_large(1e300)": (UBSAN, "outside the range of representable values"),
    }


def is_reported(call: str) -> bool:
    """Whether the sanitizer that must report this call of faulty.pyx does, and ends the process."""
    who, name = faults()[call]
    clear_reports()
    script = f"import sys; sys.path.insert(0, {str(FAULTY)!r}); import faulty; faulty.{call}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=run_environment(),
        capture_output=True,
        check=False,
    )
    texts = [report.read_text("utf-8", "replace") for report in reports()]
    clear_reports()
    return done.returncode != 0 and any(SIGNS[who] in text and name in text for text in texts)


def clear_reports() -> None:
    """Forget what was reported."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for report in reports():
        report.unlink()


def reports() -> list[Path]:
    """What the sanitizers of all processes have written, warnings included."""
    return sorted(REPORTS.iterdir()) if REPORTS.exists() else []


def count_reports() -> Counter[str]:
    """How often each sanitizer found a fault."""
    counts: Counter[str] = Counter()
    for report in reports():
        text = report.read_text("utf-8", "replace")
        counts.update({who: text.count(sign) for who, sign in SIGNS.items()})
    return counts


def instrumented() -> tuple[int, int]:
    """How many of the compiled modules both sanitizers are in, and how many there are."""
    modules = [file for file in LIBRARY.iterdir() if file.name.endswith(EXTENSION_SUFFIXES[0])]
    both = [
        file
        for file in modules
        if all(sign in file.read_bytes() for sign in (b"__asan_report_", b"__ubsan_handle_"))
    ]
    return len(both), len(modules)
