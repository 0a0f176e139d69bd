"""What tests of streams need: both ends of one, and bytes to send."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import roletalk
from tests.helpers import pair, ready

KIB = 1024
MIB = 1024 * 1024
WINDOW = 16 * KIB  # the least that a stream's window can be

Opener: TypeAlias = Literal["reads", "writes"]
OPENERS: tuple[Opener, ...] = ("reads", "writes")


class Ends(NamedTuple):
    """Both ends of one stream, and what each peer got of the other's words."""

    reader: roletalk.ReadableStream
    writer: roletalk.WritableStream
    context: roletalk.ReadableContext | roletalk.WritableContext
    reply: roletalk.Context


@asynccontextmanager
async def ends(
    opener: Opener = "reads", data: object = None, reply: object = None, **options: Any
) -> AsyncIterator[Ends]:
    """A stream between two new peers, held open by its handler until the block is left."""
    async with (
        pair(**options) as (server, client),
        opened(server, client, opener, data, reply) as both,
    ):
        yield both


@asynccontextmanager
async def opened(
    server: roletalk.Peer,
    client: roletalk.Peer,
    opener: Opener = "reads",
    data: object = None,
    reply: object = None,
) -> AsyncIterator[Ends]:
    """A stream that `client` opened, held open by its handler until the block is left."""
    accepted: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
    leave, ended = asyncio.Event(), asyncio.Event()

    async def handler(ctx: Any) -> None:
        try:
            accepted.set_result((ctx, await ctx.accept(reply)))
            await leave.wait()
        finally:
            ended.set()

    role = server.role("r")
    destination = await ready(client)
    stream: Any
    if opener == "reads":
        role.on_writable("held")(handler)
        stream = await destination.readable("held", data)
    else:
        role.on_readable("held")(handler)
        stream = await destination.writable("held", data)
    context, handled = await accepted
    try:
        if opener == "reads":
            yield Ends(stream, handled, context, stream.reply)
        else:
            yield Ends(handled, stream, context, stream.reply)
    finally:
        leave.set()
        await stream.abort("the test is over")
        await ended.wait()


def open_streams(*peers: roletalk.Peer) -> int:
    """The streams that are open on all of `peers`."""
    return sum(peer.stats()["streams"] for peer in peers)


def pattern(size: int, seed: int = 0) -> bytes:
    """The same bytes for the same seed; a shorter one is the start of a longer one."""
    return random.Random(seed).randbytes((size + 3) // 4 * 4)[:size]


async def write_all(writer: roletalk.WritableStream, data: Any) -> None:
    """Write all of `data` and finish."""
    await writer.write(data)
    await writer.close()


async def read_all(reader: roletalk.ReadableStream, chunks: list[bytes]) -> None:
    """Add to `chunks` what comes, up to the end; a failure is raised after what came before it."""
    async for chunk in reader:
        chunks.append(chunk)  # noqa: PERF401  # what came before a failure counts
