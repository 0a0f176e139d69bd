"""Ports that the system gives to nobody else."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import count
from pathlib import Path

LOWEST = 10_000
APART = 100  # between where one process and the next one begin

_ports = count(LOWEST + os.getpid() * APART % 20_000)


def quiet_port() -> int:
    """A free port of 127.0.0.1, another one each time.

    It is below those that are given out for port 0 and to who dials: it stays free while nobody listens
    there, and is there for who listens again.  On a system that gives out all of them it is any.
    """
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    except OSError:
        first = 32768
    for port in _ports:
        if port >= first:
            break
        with suppress(OSError):
            return _bound(port)
    return _bound(0)


def _bound(port: int) -> int:
    """The port that was bound for a moment; raises `OSError` where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        bound: int = probe.getsockname()[1]
        return bound
