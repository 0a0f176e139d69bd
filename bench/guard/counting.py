"""Runs the measured processes and takes from each what one operation of each path counts."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .baseline import Counts, Measured
from .child import COUNT
from .compiled import ROOT, NoCompilerError, compiled, compiler_version
from .paths import PATHS

LIBRARIES = ("aiofastnet", "msgspec", "picows", "uvloop")
RUNS = 3  # of each path, see child.py
TIMEOUT = 300  # s


class MeasurementError(Exception):
    """A measured process failed."""


def python_version() -> str:
    """What counts are kept under: the minor version, and whether threads are free."""
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{sys.version_info.major}.{sys.version_info.minor}{threads}"


def environment() -> dict[str, str]:
    """What the counts depend on besides the code."""
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "Python": " ".join(sys.version.split()),
        "compiler": compiler_version(),
        **{library: installed(library) for library in LIBRARIES},
    }


def installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def measure(notes: list[str]) -> Measured:
    """Count all that can be counted here; what cannot is explained in `notes`.

    Raises `MeasurementError`, and `NoCompilerError` where nothing can be counted.
    """
    counts = _allocations_and_syscalls(notes)
    for path, instructions in _instructions(notes).items():
        counts[path]["instructions"] = instructions
    return {"environment": environment(), "counts": counts}


def clean_environment(**more: str) -> dict[str, str]:
    """Nothing of the caller's that changes what Python or libuv do."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # Whether the kernel has io_uring must not decide how often libuv calls it.
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "UV_USE_IO_URING": "0", **more}


def _allocations_and_syscalls(notes: list[str]) -> Counts:
    more: dict[str, str] = {}
    compiled("meters")
    if sys.platform != "linux":
        notes.append("system calls are counted on Linux only")
    else:
        try:
            more["LD_PRELOAD"] = str(compiled("syscalls"))
        except NoCompilerError as error:
            notes.append(f"system calls are not counted: {error}")
    return summed(json.loads(_run([], "counts", more)), with_syscalls=bool(more))


def summed(found: Mapping[str, Mapping[str, float]], *, with_syscalls: bool) -> Counts:
    """The allocations, and the system calls of all names together."""
    counts: Counts = {}
    for path, numbers in found.items():
        counts[path] = {"allocations": numbers["allocations"]}
        if with_syscalls:
            calls = (number for name, number in numbers.items() if name.startswith("syscall "))
            counts[path]["system calls"] = sum(calls)
    return counts


def _instructions(notes: list[str]) -> dict[str, float]:
    if shutil.which("valgrind") is None:
        notes.append("instructions are not counted: there is no valgrind")
        return {}
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "counted")
        # Off while all is imported and connected: the child starts it.
        options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        try:
            _run(["valgrind", "-q", *options], "instructions", {})
        except MeasurementError as error:
            # It knows fewer instructions than the CPU.  A fault of ours has shown without it.
            notes.append(f"instructions are not counted: {error}")
            return {}
        marks = [out.with_suffix(f".{number + 1}") for number in range(RUNS * len(PATHS))]
        if not all(mark.exists() for mark in marks):
            notes.append("instructions are not counted: valgrind's header files are not there")
            return {}
        totals = [read_total(mark.read_text()) for mark in marks]
    return instructions_of_one(totals)


def instructions_of_one(totals: list[int]) -> dict[str, float]:
    """From what callgrind counted in each run, as child.py goes the paths."""
    return {
        path: round((totals[RUNS * index + 2] - totals[RUNS * index + 1]) / COUNT, 1)
        for index, path in enumerate(PATHS)
    }


def read_total(profile: str) -> int:
    """The instructions of one of callgrind's profiles.  Raises `MeasurementError`."""
    found = re.search(r"^totals: (\d+)", profile, re.MULTILINE)
    if found is None:
        raise MeasurementError("callgrind's profile has no total")
    return int(found[1])


def _run(wrapper: list[str], what: str, more: Mapping[str, str]) -> str:
    command = [*wrapper, sys.executable, "-m", "bench.guard.child", what]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=clean_environment(**more),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{what}: the measured process hangs") from error
    if done.returncode != 0:
        raise MeasurementError(f"{what}: the measured process failed\n{done.stderr.strip()}")
    return done.stdout
