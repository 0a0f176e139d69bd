"""What a process takes of the machine, as Linux tells it in /proc."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")  # bytes
_TICK: Final = os.sysconf("SC_CLK_TCK")  # a second


def rss(pid: int | str = "self") -> int:
    """Bytes of memory that the process has resident.  Raises `OSError` when it is gone."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE


def uss(pid: int | str = "self") -> int:
    """Bytes of memory that would be freed if the process ended: what it shares with nobody."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int | str = "self") -> int:
    """The file descriptors that the process has open."""
    # Of ourselves, the one that lists them is among them, always.
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int | str = "self") -> float:
    """The processor time that the process has used, in user space and in the kernel."""
    # The name, which may hold anything, ends with the last parenthesis.
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def missing() -> str:
    """What of the above this machine does not offer, as a sentence; empty when all is there."""
    for part in ("statm", "smaps_rollup", "stat", "fd"):
        if not Path("/proc/self", part).exists():
            return f"this trial needs Linux: there is no /proc/self/{part} here"
    return ""


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def allocated() -> int | None:
    """Bytes that this process has from malloc, free ones left out; None where the C library cannot tell.

    They tell a leak from memory that is merely in pieces, and therefore not given back.  What Python
    itself makes of memory for small objects is not among them: see `sys.getallocatedblocks`.
    """
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks) + int(info.hblkhd)
