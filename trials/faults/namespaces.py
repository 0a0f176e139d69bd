"""Network namespaces of a scenario's own, joined by links that it can cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Final

TIMEOUT: Final = 30.0  # s, of one command
NOBODY: Final = "02:00:00:00:00:01"  # an Ethernet address that no end of a link has


def why_not() -> str:
    """Why there can be none here; empty where there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "there is no `ip` (the package iproute2)"
    name = f"roletalk{os.getpid()}try"
    found = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if found.returncode:
        return f"no network namespace can be made: {found.stderr.strip()} (needs root)"
    _ip("netns", "del", name)
    return ""


class TwoHosts:
    """Two namespaces, ``left`` and ``right``, and `links` pairs of virtual interfaces between them.

    Link `n` has the addresses 10.99.n.1 and 10.99.n.2.  All of it is gone when the block is left.
    """

    def __init__(self, links: int = 1) -> None:
        self._links = links
        self._names = [f"roletalk{os.getpid()}{side}" for side in "lr"]
        self._cleaning = ExitStack()

    def __enter__(self) -> TwoHosts:
        with ExitStack() as cleaning:
            for name in self._names:
                _ip("netns", "add", name)
                cleaning.callback(_ip, "netns", "del", name)
                _ip("-n", name, "link", "set", "lo", "up")
            left, right = self._names
            for link in range(self._links):
                ends = [f"link{link}", "netns", left], [f"link{link}", "netns", right]
                _ip("link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
                for side, name in enumerate(self._names, 1):
                    address = f"10.99.{link}.{side}/24"
                    _ip("-n", name, "address", "add", address, "dev", f"link{link}")
                    _ip("-n", name, "link", "set", f"link{link}", "up")
            self._cleaning = cleaning.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleaning.close()

    def within(self, side: int) -> list[str]:
        """What a command begins with that runs on that side: 0 is left, 1 right."""
        return ["ip", "netns", "exec", self._names[side]]

    def set_link(self, link: int, *, up: bool) -> None:
        """Take a link down at its left end, which takes the carrier from the other, or bring it up."""
        _ip("-n", self._names[0], "link", "set", f"link{link}", "up" if up else "down")

    def lose_all(self, link: int) -> None:
        """Have all packets of a link go to nobody, with nothing that tells either side."""
        for side, name in enumerate(self._names, 1):
            other = f"10.99.{link}.{3 - side}"
            entry = [other, "lladdr", NOBODY, "dev", f"link{link}", "nud", "permanent"]
            _ip("-n", name, "neighbour", "replace", *entry)

    def lose_none(self, link: int) -> None:
        """Undo `lose_all`."""
        for side, name in enumerate(self._names, 1):
            other = f"10.99.{link}.{3 - side}"
            _ip("-n", name, "neighbour", "del", other, "dev", f"link{link}")

    def add_local(self, side: int, address: str) -> None:
        """Give a side an address that it reaches by itself, and that is no loopback address."""
        _ip("-n", self._names[side], "address", "add", f"{address}/32", "dev", "lo")

    def has_netem(self) -> bool:
        """Whether the kernel can be told to lose or delay some packets of a link."""
        if shutil.which("tc") is None:
            return False
        command = ["tc", "-n", self._names[0], "qdisc", "add", "dev", "link0", "root", "netem"]
        if subprocess.run([*command, "delay", "1ms"], capture_output=True).returncode:
            return False
        self.calm(0)
        return True

    def trouble(self, link: int, *netem: str) -> None:
        """Have a link lose or delay what the left side sends, in the words of ``tc ... netem``."""
        device = ["-n", self._names[0], "qdisc", "replace", "dev", f"link{link}", "root", "netem"]
        subprocess.run(["tc", *device, *netem], check=True, timeout=TIMEOUT)

    def calm(self, link: int) -> None:
        device = ["-n", self._names[0], "qdisc", "del", "dev", f"link{link}", "root"]
        subprocess.run(["tc", *device], check=True, timeout=TIMEOUT)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=TIMEOUT)
