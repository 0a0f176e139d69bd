"""With this directory on PYTHONPATH, `import roletalk` finds the debug build, from anywhere.

Python runs this file at its start.  The path alone would not do: `python -m` looks into the working
directory first, and in the root of the checkout that holds the release build.  The variable is
inherited, so the processes that tests start run on the debug build as well.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "debug" / "lib"


class DebugBuild:
    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "roletalk":
            return None
        spec = PathFinder.find_spec(name, [str(LIBRARY)], target)
        if spec is None:
            raise ImportError(f"there is no debug build in {LIBRARY}")
        return spec


sys.meta_path.insert(0, DebugBuild)
