"""With this directory on PYTHONPATH, `import roletalk` finds the debug build, from anywhere.

Or, with ROLETALK_BUILD=NAME, what setup.py has built with the same variable.

Python runs this file at its start.  The path alone would not do: `python -m` looks into the working
directory first, and in the root of the checkout that holds the release build.  The variables are
inherited, so the processes that tests start run on the debug build as well.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAME = os.environ.get("ROLETALK_BUILD") or "debug"
LIBRARY = Path(__file__).resolve().parents[2] / "build" / NAME / "lib"


class DebugBuild:
    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "roletalk":
            return None
        spec = PathFinder.find_spec(name, [str(LIBRARY)], target)
        if spec is None:
            raise ImportError(f"there is no {NAME} build in {LIBRARY}")
        return spec


def send_ubsan_reports(path: str) -> None:
    """Have libubsan write to `path`.PID: beside libasan its own option for that sets libasan's."""
    runtime = next(name for name in os.environ["LD_PRELOAD"].split(":") if "libubsan" in name)
    ctypes.CDLL(runtime).__sanitizer_set_report_path(path.encode())


if REPORT := os.environ.get("ROLETALK_UBSAN_REPORT"):
    send_ubsan_reports(REPORT)
sys.meta_path.insert(0, DebugBuild)
