"""The Go peer of the mesh: the process, what it asks of ours, and the streams between the two."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.gopeer import GoDied, GoError, GoPeer, Passed, build

from .ledger import Ledger
from .mesh import DIALS_GO, GO_DIALS, Mesh, NodeDied
from .service import KIB

FOREVER: Final = 1e6  # s
DIGEST: Final = 30.0  # s until both ends of a stream have said what passed
RECENT: Final = 30.0  # s in which something broken on purpose explains a failure
# What the Go program tells, and nobody else asks for.
_HEARD: Final = (
    "accepted",
    "destination_closed",
    "destination_unit",
    "message",
    "refused",
    "stream_failed",
    "unit",
    "unit_closed",
)


class NoGo(Exception):
    """There is no Go peer here; the text says why."""


def build_program() -> Path:
    """Raises `NoGo`."""
    try:
        return build()
    except pytest.skip.Exception as skipped:
        raise NoGo(skipped.msg) from None


class Gopher:
    """The Go peer, started anew when it dies of itself, and its part of the traffic."""

    def __init__(self, program: Path, mesh: Mesh, ledger: Ledger) -> None:
        self.tally: Counter[str] = Counter()
        self.faults: list[tuple[str, str]] = []  # ("wrong" or "unexpected", what)
        self.deaths: list[str] = []
        self.peer: GoPeer | None = None
        # Whoever breaks connections of the Go peer waits until none of its streams is under way.
        self.breaking = asyncio.Lock()
        self._program = program
        self._mesh = mesh
        self._ledger = ledger
        self._digests: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._names = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[asyncio.Task[None]] = []
        self._address = "127.0.0.1:0"

    @property
    def pid(self) -> int:
        return 0 if self.peer is None else self.peer.pid

    async def start(self) -> None:
        """Start the process and connect it both ways."""
        self.peer = await GoPeer.start(
            self._program,
            listen=self._address,
            name="go",
            roles=("go",),
            destinations=("py",),
            keys=tuple(self._mesh.keys.items()),
        )
        self._address = self.peer.address
        self._listeners = [asyncio.create_task(self._hear(self.peer, event)) for event in _HEARD]
        await self.peer.connect(self._mesh.url(GO_DIALS), reconnect=True)
        if not self._mesh.go_url:
            self._mesh.go_url = self.peer.url
            node = self._mesh.node_of(DIALS_GO)
            await node.call("dial", peer=DIALS_GO, url=self.peer.url, unit="go")

    def begin(self, pause: float) -> None:
        """Ask and stream, with about `pause` seconds from one to the next."""
        self._tasks = [
            asyncio.create_task(self._repeat(self._ask, pause)),
            asyncio.create_task(self._repeat(self._stream, pause)),
        ]

    async def quiet(self) -> None:
        """Begin nothing more; what is under way ends first."""
        async with self.breaking:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for listener in self._listeners:
            listener.cancel()
        if self.peer is not None:
            await self.peer.kill()

    async def cut(self) -> None:
        """Drop the connections that it accepted, or those it dialled, without a word."""
        async with self.breaking:
            if self.peer is None:
                return
            which = random.choice(("accepted", "dialled"))
            for peer in self._mesh.peers:
                # Go does not say whose they were; of redundant ones all can be among them.
                self._ledger.broke(peer, "go", time.monotonic(), links=8)
            with suppress(GoDied, GoError):
                self.tally["connections cut"] += await self.peer.call("cut", which=which)

    def digest(self, line: dict[str, Any]) -> None:
        """A peer of ours tells what passed through its end of a stream."""
        future = self._digests.get(line["name"])
        if future is not None and not future.done():
            future.set_result(line)

    # -- what it does

    async def _repeat(self, action: Any, pause: float) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            began = time.monotonic()
            async with self.breaking:
                try:
                    await action()
                except GoDied as died:
                    await self._revive(str(died))
                except (
                    AssertionError,
                    GoError,
                    NodeDied,
                    RuntimeError,
                    asyncio.TimeoutError,
                ) as error:
                    if self._ledger.touched("go", began - RECENT) or self._ledger.touched(
                        DIALS_GO, began - RECENT
                    ):
                        self.tally["failed by a lost connection"] += 1
                    else:
                        text = f"go, {action.__name__}: {type(error).__name__}: {error}"
                        self.faults.append(("unexpected", text))

    async def _revive(self, text: str) -> None:
        self.deaths.append(text.strip()[:300])
        for peer in self._mesh.peers:
            self._ledger.broke(peer, "go", time.monotonic(), links=8)
        try:
            await self.close()
            await self.start()
        except (AssertionError, GoDied, GoError, NodeDied, RuntimeError) as error:
            # The next action finds it dead, and tries again.
            self.faults.append(("unexpected", f"go, starting anew: {error}"))

    async def _ask(self) -> None:
        """Requests and a message of Go's to one of the peers that it is connected to."""
        assert self.peer is not None
        unit = await self._unit()
        for _ in range(10):
            value = "é" * random.choice((0, 10, 3000))
            answer = await self.peer.request("py", "echo", value, unit=unit)
            self.tally["requests by Go"] += 1
            if answer.python != value:
                self.faults.append(("wrong", f"Go was answered {answer.v!r:.100}"))
        await self.peer.send("py", "note", "psst", unit=unit)

    async def _unit(self) -> str:
        """One of the units that Go has.

        It has to be named: Go leaves units in its destinations that are gone, and gives them their turn.
        """
        assert self.peer is not None
        units = (await self.peer.call("destinations")).get("py")
        if not units:
            raise GoError("Go has no unit")
        unit: str = random.choice(units)
        return unit

    async def _stream(self) -> None:
        """A stream in one of the four ways: either side opens, either side writes."""
        assert self.peer is not None
        opener, gos = random.choice(("go", "py")), random.choice(("reader", "writer"))
        size = random.choice((0, 1000, 100 * KIB, 600 * KIB))
        self._names += 1
        name = f"{self._names}:{size}"
        future = asyncio.get_running_loop().create_future()
        self._digests[name] = future
        opening: asyncio.Future[Any] | None = None
        try:
            if opener == "go":
                stream = await self.peer.open_stream(
                    gos, "py", "accept", name, unit=await self._unit()
                )
            else:
                call = self._mesh.node_of(DIALS_GO).call(
                    "stream_with_go", peer=DIALS_GO, gos=gos, name=name
                )
                opening = asyncio.ensure_future(call)
                stream = await self.peer.stream(gos, name)
            if gos == "writer":
                passed, end = await stream.write(size, chunk=16 * KIB)
                if not end:
                    await stream.close()
            else:
                passed, end = await stream.read()
            self._compare(name, passed, await asyncio.wait_for(future, DIGEST))
            if opening is not None:
                await opening
        finally:
            del self._digests[name]
            if opening is not None and not opening.done():
                opening.cancel()
            elif opening is not None and not opening.cancelled():
                opening.exception()

    def _compare(self, name: str, passed: Passed, digest: dict[str, Any]) -> None:
        if "error" in digest:
            raise GoError(digest["error"])
        if (passed.size, passed.sha256) != (digest["size"], digest["sha256"]):
            self.faults.append(("wrong", f"stream {name} with Go: {passed} there, {digest} here"))
        self.tally["streams with Go"] += 1
        self.tally["stream bytes with Go"] += passed.size

    async def _hear(self, peer: GoPeer, event: str) -> None:
        """What is told is counted, and not kept."""
        with suppress(GoDied):
            while True:
                await peer.event(event, timeout=FOREVER)
                self.tally[f"{event} told by Go"] += 1
