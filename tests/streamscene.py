"""A stage on which streams end: one that has carried something, held by an opener and a handler."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import roletalk
from tests.helpers import eventually, peers, ready
from tests.streams import Opener, pattern

BOUND = 60.0  # s for what follows from an ending

DATA = pattern(1000)
READ = 400  # bytes of it that the reader has read before the ending


class Scene:
    """A stream that has carried something, an opener and a handler that hold it."""

    reader: roletalk.ReadableStream
    writer: roletalk.WritableStream
    handled: Any
    opened: Any
    handler: asyncio.Task[Any]
    opening: asyncio.Task[Any]

    def __init__(self, server: roletalk.Peer, client: roletalk.Peer, opener: Opener) -> None:
        self.server, self.client, self.opener = server, client, opener
        # What the handler and the opener do when they are told to leave.
        self.handler_leaves: asyncio.Future[None] = new_future()
        self.opener_leaves: asyncio.Future[None] = new_future()
        self.handler_end: BaseException | str | None = None

    async def handle(self, ctx: Any) -> None:
        self.handler = current_task()
        try:
            self.handled = await ctx.accept()
            await self.handler_leaves
            self.handler_end = "returned"
        except BaseException as error:
            self.handler_end = error
            raise

    async def open(self) -> None:
        destination = await ready(self.client)
        opening = destination.readable if self.opener == "reads" else destination.writable
        async with opening("e") as self.opened:
            await self.opener_leaves

    def of(self, who: str) -> str:
        """The end, ``"reader"`` or ``"writer"``, of the opener or handler, client or server."""
        if who in ("reader", "writer"):
            return who
        is_opener = who in ("opener", "client")
        return "reader" if is_opener is (self.opener == "reads") else "writer"


def new_future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def current_task() -> asyncio.Task[Any]:
    found = asyncio.current_task()
    assert found is not None
    return found


@asynccontextmanager
async def scene(opener: Opener, **options: Any) -> AsyncIterator[Scene]:
    """All of `DATA` has come, `READ` bytes of it were read; both sides hold the stream."""
    async with peers("server", "client", **options) as (server, client):
        listener = await server.listen()
        await client.connect(listener.url, reconnect=False)
        it = Scene(server, client, opener)
        role = server.role("r")
        role.on_request("ping")(lambda ctx: None)
        (role.on_writable if opener == "reads" else role.on_readable)("e")(it.handle)
        it.opening = asyncio.create_task(it.open())
        await eventually(lambda: hasattr(it, "opened") and hasattr(it, "handled"))
        it.reader, it.writer = (it.opened, it.handled)[:: 1 if opener == "reads" else -1]
        await it.writer.write(DATA)
        receiver = client if opener == "reads" else server
        await eventually(lambda: receiver.stats()["stream_bytes_received"] == len(DATA))
        assert await it.reader.readexactly(READ) == DATA[:READ]
        try:
            yield it
        finally:
            for leaving in (it.handler_leaves, it.opener_leaves):
                if not leaving.done():
                    leaving.set_result(None)
            await asyncio.gather(it.opening, return_exceptions=True)


def started(result: Any) -> asyncio.Future[Any] | None:
    """What is awaitable, under way; None for anything else."""
    return asyncio.ensure_future(result) if inspect.isawaitable(result) else None


def cut(peer: roletalk.Peer) -> None:
    """End a connection of `peer`, without a word."""
    peer.units[0].connections[0].abort()
