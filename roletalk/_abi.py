"""Refuses libraries that this package was not built for.

The extension modules use the C structs and method tables of aiofastnet's protocol class, and the gate
uses picows's protocol class, which is no public name of its.  Both may change between minor versions
without anything else noticing: a call would go to the wrong function.  So this runs before the first of
the extension modules is imported.
"""

import re

from aiofastnet import __version__ as installed_aiofastnet
from picows.version import __version__ as installed_picows

from ._build_info import AIOFASTNET as BUILT_AIOFASTNET
from ._build_info import PICOWS as BUILT_PICOWS

OLDEST = {"aiofastnet": "1.2.0", "picows": "2.3.1"}


def check_library(name: str, installed: str, built: str) -> None:
    """Raises ImportError unless what was built for version `built` of a library can use `installed`.

    They fit when their major and minor numbers are the same and the installed one is at least the
    `OLDEST` of its name.
    """
    oldest = OLDEST[name]
    if _numbers(name, installed)[:2] == _numbers(name, built)[:2] and (
        _numbers(name, installed) >= _numbers(name, oldest)
    ):
        return
    major, minor = _numbers(name, built)[:2]
    raise ImportError(
        f"roletalk was built against {name} {built} and cannot use the installed {name}"
        f" {installed}: it needs at least {oldest}, of {major}.{minor}.x."
        f" Install one that fits: pip install '{name}>={oldest},<{major}.{minor + 1}'"
    )


def _numbers(name: str, version: str) -> tuple[int, int, int]:
    """The major, minor and patch number of `version`; what follows them does not count."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        raise ImportError(f"cannot tell which {name} this is: version {version!r}")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


check_library("aiofastnet", installed_aiofastnet, BUILT_AIOFASTNET)
check_library("picows", installed_picows, BUILT_PICOWS)
