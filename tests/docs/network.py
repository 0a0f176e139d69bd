"""Network namespaces, so that the ports which a page names are free and are nobody else's."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

CLONE_NEWNET: Final = 0x40000000
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1


def can_be_made() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


@contextmanager
def private_network() -> Iterator[bool]:
    """This thread, and what it starts, in a network of its own with nothing but loopback.

    Where that cannot be had (not Linux, not root, forbidden) the network is the machine's; yields
    which of the two it is.
    """
    if not can_be_made():
        yield False
        return
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            yield False
            return
        try:
            _raise_loopback()
            yield True
        finally:
            if libc.setns(outside, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "could not come back from the private network")
    finally:
        os.close(outside)


def _raise_loopback() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))
