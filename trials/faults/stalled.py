"""A remote peer that stops reading holds memory up to the documented limits, and nobody else up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import roletalk
from tests import rawclient as raw
from tools.ports import quiet_port
from trials.faults.processes import Process, rss
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "stalled remotes"

MIB: Final = 1024 * 1024
HIGH_WATER: Final = MIB  # the default
MESSAGE: Final = 64 * 1024
MAX_MESSAGE: Final = 16 * MIB
UNSENT: Final = HIGH_WATER + MESSAGE  # sends wait above it; the last one may go over it
# Then nothing more is read; the last reply may go over it, and what was read before is rejected.
REPLIES: Final = 4 * HIGH_WATER + MAX_MESSAGE + MESSAGE + MIB // 2
STREAM: Final = 4 * MIB  # the widest window
# What the process may grow by beyond what is counted: buffers grow by doubling, and keep their size.
SLACK: Final = 16 * MIB
SECONDS: Final = 5.0
OTHERS_WITHIN: Final = 0.5  # s, for the answer to another one
# Nobody is found dead meanwhile: what is held is held for as long as it can be.
OPTIONS: Final[dict[str, Any]] = {"heartbeat_interval": None}


class Neighbour:
    """Another connection of the peer that the stalled one is on; its slowest answer."""

    def __init__(self, peer: roletalk.Peer) -> None:
        self.peer = peer
        self.client = roletalk.Peer(name="neighbour", **OPTIONS)
        self.slowest = 0.0
        self.was_answered = asyncio.Event()

    async def ask(self) -> None:
        await self.client.connect(self.peer.listeners[0].url)
        destination = self.client.destination("r")
        await destination.wait_ready(10)
        while True:
            began = time.monotonic()
            await destination.request("echo", b"x", timeout=30.0)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.was_answered.set()
            await asyncio.sleep(0.01)


async def measured(
    what: str, peer: roletalk.Peer, bound: int, load: Callable[[], Awaitable[None]]
) -> list[Figure]:
    """What `load` costs while it runs for `SECONDS`; `bound` of bytes unsent."""
    neighbour = Neighbour(peer)
    asking = asyncio.create_task(neighbour.ask())
    await neighbour.was_answered.wait()
    before, unsent, grown = rss(), 0, 0
    loading = asyncio.create_task(_forever(load))
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        unsent = max(unsent, peer.stats()["unsent_bytes"])
        grown = max(grown, rss() - before)
        await asyncio.sleep(0.01)
    for task in (loading, asking):
        task.cancel()
    results = await asyncio.gather(loading, asking, return_exceptions=True)
    await neighbour.client.close()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [
        at_most(f"{what}: bytes unsent", unsent / MIB, bound / MIB, "MiB"),
        at_most("  growth of the process", grown / MIB, (bound + SLACK) / MIB, "MiB"),
        at_most("  slowest answer to another one meanwhile", neighbour.slowest, OTHERS_WITHIN, "s"),
    ]


async def _forever(load: Callable[[], Awaitable[None]]) -> None:
    await load()
    await asyncio.Event().wait()


async def run(settings: Settings) -> list[Figure]:
    loads = [sends, broadcasts, replies, streams]
    figures = []
    for load in loads[:1] if settings.quick else loads:
        figures += await load()
    return figures


async def with_stopped(
    what: str, load: Callable[[roletalk.Destination], Awaitable[None]], bound: int
) -> list[Figure]:
    """`load` on a process that was stopped."""
    port = quiet_port()
    async with roletalk.Peer(name="server", **OPTIONS) as server:
        server.role("r").on_request("echo")(lambda ctx: ctx.data)
        await server.listen()
        with Process({"listen": [["127.0.0.1", port]], "options": OPTIONS}) as remote:
            await asyncio.to_thread(remote.wait_for, lambda event: "listening" in event)
            await server.connect(f"ws://127.0.0.1:{port}")
            destination = server.destination("work")
            await destination.wait_ready(10)
            remote.signal(signal.SIGSTOP)
            try:
                return await measured(what, server, bound, lambda: load(destination))
            finally:
                remote.signal(signal.SIGCONT)


async def sends() -> list[Figure]:
    turned_down = 0

    async def load(destination: roletalk.Destination) -> None:
        nonlocal turned_down
        data = bytes(MESSAGE)
        waiting = [asyncio.create_task(_send_on(destination, data)) for _ in range(100)]
        try:
            while True:
                try:
                    destination.send_nowait("unknown", data)
                except roletalk.WouldBlock:
                    turned_down += 1
                    await asyncio.sleep(0.001)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    figures = await with_stopped("sending to a stopped process", load, UNSENT)
    return [*figures, told("  times that sending raised WouldBlock", turned_down)]


async def _send_on(destination: roletalk.Destination, data: bytes) -> None:
    while True:
        await destination.send("unknown", data)


async def broadcasts() -> list[Figure]:
    async def load(destination: roletalk.Destination) -> None:
        while True:
            with suppress(roletalk.WouldBlock):
                destination.broadcast("unknown", bytes(MESSAGE))
            await asyncio.sleep(0.0001)

    return await with_stopped("broadcasts to a stopped process", load, UNSENT)


async def replies() -> list[Figure]:
    """A remote that asks for much and reads nothing."""
    async with roletalk.Peer(name="server", **OPTIONS) as server:
        role = server.role("r")
        role.on_request("echo")(lambda ctx: ctx.data)
        role.on_request("much")(lambda ctx: bytes(MESSAGE))
        listener = await server.listen()

        def meet() -> raw.Connection:
            connection = raw.dial(listener.port)
            raw.authenticate(connection)
            return connection

        connection = await asyncio.to_thread(meet)
        asked = 0

        def ask() -> None:
            nonlocal asked
            until = time.monotonic() + SECONDS
            with suppress(OSError):
                connection.sock.settimeout(SECONDS)
                while time.monotonic() < until:
                    connection.send(raw.request("r", "much", asked, raw.NULL))
                    asked += 1

        async def load() -> None:
            await asyncio.to_thread(ask)

        with connection:
            figures = await measured("asked by one who never reads", server, REPLIES, load)
    return [*figures, told("  requests that it got out", asked)]


async def streams() -> list[Figure]:
    async def load(destination: roletalk.Destination) -> None:
        data = bytes(MESSAGE)
        async with destination.writable("pour") as stream:
            while True:
                await stream.write(data)

    # The reader is a peer of this process that never reads its stream: its window is what is held.
    async with roletalk.Peer(name="reader", **OPTIONS) as reader:

        async def pour(ctx: roletalk.ReadableContext) -> None:
            async with ctx.accept():
                await asyncio.Event().wait()

        reader.role("sink").on_readable("pour")(pour)
        async with roletalk.Peer(name="server", **OPTIONS) as server:
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            await server.listen()
            await server.connect((await reader.listen()).url)
            sink = server.destination("sink")
            await sink.wait_ready(10)
            return await measured("a stream that is never read", server, STREAM, lambda: load(sink))
