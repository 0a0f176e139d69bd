"""Whether this process has the runtime of a sanitizer in it."""

import ctypes
import sys


def is_sanitized() -> bool:
    """Whether AddressSanitizer was loaded, as it must be for what `trials.sanitize` builds."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "__asan_init")
