"""A peer whose units are at the other end of nothing: bytes are fed to it, what it writes vanishes."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import uvloop

import roletalk
from roletalk._inbound import FrameLimits
from roletalk._session import Link, UnitCore
from tests.faketransport import Remote

from .compiled import load_loops

loops = load_loops()

# Of each round, so that neither reading the clock nor the call from Python is what is measured.
BATCH = 1000


def clock() -> float:
    """Time as if a round were one operation."""
    return perf_counter() / BATCH


class Owner:
    """What a connection tells of itself, unheard."""

    def opened(self, link: Link) -> None: ...

    def lost(self, link: Link) -> None: ...

    def writable(self, link: Link) -> None: ...


class Rig:
    """A peer on a loop of its own, which runs only inside `run`."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.peer = roletalk.Peer(heartbeat_interval=None, max_pending=1 << 20)
        self._remotes: list[Remote] = []
        self.in_loop(self.peer.bind)

    def close(self) -> None:
        for remote in self._remotes:
            self.in_loop(remote.transport._lose)
        self.loop.run_until_complete(self.peer.close())
        self.loop.close()

    def in_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it inside the loop, in a task."""

        async def call() -> Any:
            return function(*arguments)

        return self.loop.run_until_complete(call())

    def run(self, start: Callable[[], object], is_done: Callable[[], bool]) -> None:
        """Run the loop from `start`, which no task calls, until `is_done` at the end of a turn."""

        def poll() -> None:
            if is_done():
                self.loop.stop()
            else:
                self.loop.call_soon(poll)

        self.loop.call_soon(start)
        self.loop.call_soon(poll)
        self.loop.run_forever()

    def connection(self, *, is_client: bool) -> tuple[Any, Remote]:
        """A connection that counts messages, and its remote end."""
        sink = loops.Sink(self.loop, FrameLimits(), is_client=is_client)
        return sink, self._connected(sink)

    def unit(self, links: int = 1, *, is_client: bool = True) -> UnitCore:
        unit = UnitCore(self.peer)
        for _ in range(links):
            owner: Any = Owner()
            link = Link(self.peer, owner, is_client=is_client)
            self._connected(link)
            link.admit(unit)
        return unit

    def destination(self, units: int) -> roletalk.Destination:
        """Served by so many units of one connection each."""
        destination = self.peer.destination(f"role of {units}")
        for _ in range(units):
            destination.add_unit(self.unit())
        return destination

    def _connected(self, connection: Any) -> Remote:
        remote: Remote = self.in_loop(Remote, connection)
        loops.write_nowhere(connection)
        self._remotes.append(remote)
        return remote


def running(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Call it while `loop` runs and no task is current."""
    loop.call_soon(function)
    loop.call_soon(loop.stop)
    loop.run_forever()
