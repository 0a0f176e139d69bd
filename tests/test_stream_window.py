"""The window of a stream follows what the way to its writer holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import roletalk
from tests.helpers import eventually, peers, ready, run

DELAY = 0.02  # s, each way
MIB = 1 << 20


@asynccontextmanager
async def far(port: int) -> AsyncIterator[str]:
    """The URL of a relay to `port` that delivers everything `DELAY` later, and nothing slower."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(MIB):
            loop.call_later(DELAY, writer.write, data)
        loop.call_later(DELAY, writer.close)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(carry(reader, to[1])))
        tasks.add(asyncio.create_task(carry(to[0], writer)))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, limit=4 * MIB)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks)
        await asyncio.sleep(2 * DELAY)


def spare(peer: roletalk.Peer) -> int:
    """Bytes of `stream_buffer` that windows of the one unit have not taken."""
    return peer.units[0].streams.spare


def uploads(stream_window: int) -> list[int]:
    """What is spare on the reading side: before, while and after 12 MiB came from far away."""
    seen: list[int] = []

    async def main() -> None:
        async with peers("server", "client", stream_window=stream_window) as (server, client):

            @server.role("r").on_readable("up")
            async def up(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept() as stream:
                    while await stream.read(MIB):
                        seen.append(spare(server))

            listener = await server.listen("127.0.0.1", 0)
            async with far(listener.port) as url, client.connect(url):
                destination = await ready(client)
                await eventually(lambda: server.units)
                seen.append(spare(server))
                async with destination.writable("up") as stream:
                    await stream.write(bytes(12 * MIB))
                await eventually(lambda: server.stats()["streams"] == 0)
                seen.append(spare(server))

    run(main())
    return seen


def test_a_window_grows_while_credit_is_what_holds_the_writer_up() -> None:
    before, first, *_, last, after = uploads(4 * MIB)
    assert before - first < 256 * 1024
    assert before - last >= 2 * (before - first)
    assert after == before


def test_a_window_does_not_grow_beyond_stream_window() -> None:
    before, *taken, after = uploads(300 * 1024)
    assert max(before - each for each in taken) == (300 - 16) * 1024
    assert after == before
