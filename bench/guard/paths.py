"""The paths that are counted: two peers in one process and one event loop, over loopback TCP.

With one loop for both ends what happens in which order is settled by the code, not by a scheduler.
Each path does an operation so many times; a count of it is of both ends together.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import roletalk

PAYLOAD = bytes(range(32))
CHUNK = bytes(16 * 1024)
IN_FLIGHT = 64
# Nothing follows the clock: no pings, and no window that the rate widens.  Slow things may be slow.
OPTIONS: dict[str, Any] = {
    "heartbeat_interval": None,
    "stream_window": 4 * len(CHUNK),
    "handshake_timeout": 60.0,
    "slow_handler": 60.0,
}


class Scene:
    """A server with its handlers, and a client that is connected to it."""

    def __init__(self, client: roletalk.Peer, server: roletalk.Peer) -> None:
        self.destination = client.destination("guard")
        self.finished: asyncio.Queue[int] = asyncio.Queue()
        self.messages = 0
        role = server.role("guard")
        role.on_request("sync")(echo)
        role.on_request("async")(echo_async)
        role.on_request("waiting")(echo_after_a_turn)
        role.on_message("message")(self.count)
        role.on_readable("up")(self.take)
        role.on_writable("down")(self.give)

    def count(self, ctx: roletalk.Context) -> None:
        self.messages -= 1
        if self.messages == 0:
            self.finished.put_nowait(0)

    async def take(self, ctx: roletalk.ReadableContext) -> None:
        async with ctx.accept() as stream:
            self.finished.put_nowait(await read_all(stream))

    async def give(self, ctx: roletalk.WritableContext) -> None:
        async with ctx.accept() as stream:
            for _ in range(ctx.data):
                await stream.write(CHUNK)


def echo(ctx: roletalk.RequestContext) -> object:
    return ctx.data


async def echo_async(ctx: roletalk.RequestContext) -> object:
    return ctx.data


async def echo_after_a_turn(ctx: roletalk.RequestContext) -> object:
    await asyncio.sleep(0)
    return ctx.data


async def read_all(stream: roletalk.ReadableStream) -> int:
    received = 0
    async for piece in stream:
        received += len(piece)
    return received


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Both peers, connected."""
    async with (
        roletalk.Peer(name="server", **OPTIONS) as server,
        roletalk.Peer(name="client", **OPTIONS) as client,
    ):
        made = Scene(client, server)
        listener = await server.listen("127.0.0.1", 0)
        await client.connect(listener.url)
        await made.destination.wait_ready(timeout=30)
        yield made


Path = Callable[[Scene, int], Awaitable[None]]


def requests(event: str, in_flight: int) -> Path:
    """So many requests, `in_flight` of them at a time."""

    async def run(scene: Scene, count: int) -> None:
        async def call() -> None:
            for _ in range(count // in_flight):
                await scene.destination.request(event, PAYLOAD)

        await asyncio.gather(*[call() for _ in range(in_flight)])

    return run


async def messages(scene: Scene, count: int) -> None:
    scene.messages = count
    for _ in range(count // IN_FLIGHT):
        for _ in range(IN_FLIGHT):
            await scene.destination.send("message", PAYLOAD)
        await asyncio.sleep(0)
    await scene.finished.get()


async def stream_up(scene: Scene, count: int) -> None:
    async with scene.destination.writable("up") as stream:
        for _ in range(count):
            await stream.write(CHUNK)
    check_size(await scene.finished.get(), count)


async def stream_down(scene: Scene, count: int) -> None:
    async with scene.destination.readable("down", count) as stream:
        check_size(await read_all(stream), count)


def check_size(received: int, count: int) -> None:
    """Raises `RuntimeError` unless all chunks arrived."""
    if received != count * len(CHUNK):
        raise RuntimeError(f"a stream of {count} chunks arrived as {received} bytes")


PATHS: dict[str, Path] = {
    "request, sync handler": requests("sync", IN_FLIGHT),
    "request, async handler": requests("async", IN_FLIGHT),
    "request, async handler that waits": requests("waiting", IN_FLIGHT),
    "request, one at a time": requests("sync", 1),
    "message": messages,
    "stream chunk, client to server": stream_up,
    "stream chunk, server to client": stream_down,
}
