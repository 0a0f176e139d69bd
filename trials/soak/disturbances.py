"""What the soak breaks, changes and kills, and noting of it whatever can cost a connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from roletalk import generate_key

from .golang import Gopher
from .ledger import Ledger
from .mesh import DIALS, PROCESSES, VICTIMS, Mesh

KILL_EVERY: Final = 8  # disturbances of other kinds to one that is killed


class Disturbances:
    """One at a time, about `pause` seconds apart."""

    def __init__(self, mesh: Mesh, ledger: Ledger, gopher: Gopher | None, pause: float) -> None:
        self.tally: Counter[str] = Counter()
        self.faults: list[tuple[str, str]] = []
        self._mesh = mesh
        self._ledger = ledger
        self._gopher = gopher
        self._pause = pause
        self._guests = 0
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """Begin no further one; that which is under way is done first."""
        self._over.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.close_unit,
            self.break_link,
            self.break_link,
            self.toggle,
            self.toggle,
            self.change_keys,
        ]
        if self._gopher is not None:
            kinds.append(self._gopher.cut)
        count = 0
        while not await self._is_over(random.uniform(0.5, 1.5) * self._pause):
            count += 1
            action = self.kill if count % KILL_EVERY == 0 else random.choice(kinds)
            try:
                await action()
            except Exception as error:
                name = getattr(action, "__name__", str(action))
                text = f"{name}: {type(error).__name__}: {error}"
                self.faults.append(("unexpected", text))

    async def _is_over(self, pause: float) -> bool:
        """Wait, and tell whether it is over."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._over.wait(), pause)
        return self._over.is_set()

    async def close_unit(self) -> None:
        """A unit is closed on purpose, at either end, and dialled anew."""
        peer, unit = random.choice(DIALS)
        if random.random() < 0.5:
            peer, unit = unit, peer
        closed = await self._mesh.node_of(peer).call("close_unit", peer=peer, unit=unit)
        self._ledger.broke(peer, unit, closed["at"], closed["links"])
        self.tally["connections closed"] += closed["links"]

    async def break_link(self) -> None:
        """A connection is reset, or shut down under the hands of its peers."""
        names = (*self._mesh.peers, "go") if self._gopher else self._mesh.peers
        peer, unit = random.choice(self._mesh.peers), random.choice(names)
        how = random.choice(("reset", "shut"))
        if "go" in (peer, unit) and self._gopher is not None:
            async with self._gopher.breaking:
                await self._break_link(peer, unit, how)
        else:
            await self._break_link(peer, unit, how)

    async def _break_link(self, peer: str, unit: str, how: str) -> None:
        broken = await self._mesh.node_of(peer).call("break_link", peer=peer, unit=unit, how=how)
        if broken["links"]:
            self._ledger.broke(peer, unit, broken["at"], broken["links"])
            self.tally[f"connections {how}"] += 1

    async def toggle(self) -> None:
        """A role is disabled, or enabled again."""
        peer = random.choice(self._mesh.peers)
        await self._mesh.node_of(peer).call("toggle", peer=peer)
        self.tally["roles disabled or enabled"] += 1

    async def change_keys(self) -> None:
        """A key is added, with which a guest comes in, and removed, with which none does."""
        peer, other = random.sample(self._mesh.peers, 2)
        node = self._mesh.node_of(peer)
        self._guests += 1
        key = {"key_id": f"guest {self._guests}", "key": generate_key()}
        await node.call("add_key", peer=peer, **key)
        url = self._mesh.url(peer)
        self._ledger.broke(peer, "guest", time.monotonic())
        admitted = await self._mesh.node_of(other).call("visit", url=url, **key)
        await node.call("remove_key", peer=peer, key_id=key["key_id"])
        refused = not await self._mesh.node_of(other).call("visit", url=url, **key)
        if not (admitted and refused):
            text = f"{peer}: a guest was {admitted=} with its key, and {refused=} without"
            self.faults.append(("wrong", text))
        self.tally["keys added and removed"] += 1

    async def kill(self) -> None:
        """A process is killed and started again on the same ports."""
        name = random.choice(VICTIMS)
        if self._gopher is not None:
            async with self._gopher.breaking:
                await self._kill(name)
        else:
            await self._kill(name)

    async def _kill(self, name: str) -> None:
        node = self._mesh.nodes[name]
        for peer in PROCESSES[name]:
            self._ledger.broke(peer, None, time.monotonic())
        await node.kill()
        await node.start()
        await self._mesh.dial_from(node)
        await node.call("begin")
        self.tally["processes killed and started"] += 1
