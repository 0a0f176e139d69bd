"""Network namespaces, so that the ports which a page names are free and are nobody else's.

A page of two machines has one of them in a further namespace, with a cable in between.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

CLONE_NEWNET: Final = 0x40000000
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1

ADDRESS: Final = {"A": "10.0.0.1", "B": "10.0.0.2"}  # of the machines, as pages write them


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


@contextmanager
def machine_a() -> Iterator[list[str]]:
    """Machine A, joined to the private network that this thread is in, which is machine B's.

    Yields what a command that is to run on it begins with.
    """
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        on_a = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        # Until it has its own network it has ours.
        ours = os.readlink("/proc/thread-self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{holder.pid}/ns/net") == ours:
            assert time.monotonic() < deadline, "no second network"
            time.sleep(0.001)
        for command in (
            f"ip link add cable type veth peer name cable netns {holder.pid}",
            f"ip address add {ADDRESS['B']}/24 dev cable",
            "ip link set cable up",
        ):
            subprocess.run(command.split(), check=True)
        for command in (
            "ip link set lo up",
            f"ip address add {ADDRESS['A']}/24 dev cable",
            "ip link set cable up",
        ):
            subprocess.run([*on_a, *command.split()], check=True)
        yield on_a
    finally:
        holder.kill()
        holder.wait()


def has_tools() -> bool:
    return all(map(shutil.which, ("ip", "nsenter", "unshare")))
