"""Refuses a picows that the extension modules were not compiled for.

They use the C structs and method tables of picows's classes, whose layout changes between its minor
versions without anything else noticing: a call would go to the wrong function.  So this runs before
the first of them is imported.
"""

import re

from picows.version import __version__ as INSTALLED_PICOWS  # noqa: N812

from ._build_info import PICOWS as BUILT_PICOWS

OLDEST = "2.3.1"
"""Older releases can be crashed by the 64-bit length of a frame."""


def check_picows(installed: str, built: str) -> None:
    """Raises ImportError unless an extension built against picows `built` can use `installed`.

    Both are version strings.  They fit when their major and minor numbers are the same and the
    installed one is at least `OLDEST`.
    """
    if _numbers(installed)[:2] == _numbers(built)[:2] and _numbers(installed) >= _numbers(OLDEST):
        return
    major, minor = _numbers(built)[:2]
    raise ImportError(
        f"roletalk was built against picows {built} and cannot use the installed picows"
        f" {installed}: it needs at least {OLDEST}, of {major}.{minor}.x."
        f" Install one that fits: pip install 'picows>={OLDEST},<{major}.{minor + 1}'"
    )


def _numbers(version: str) -> tuple[int, int, int]:
    """The major, minor and patch number of `version`; what follows them does not count."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        raise ImportError(f"cannot tell which picows this is: version {version!r}")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


check_picows(INSTALLED_PICOWS, BUILT_PICOWS)
