"""Streams of ours: what the server's role serves, and what the client is told to do."""

import asyncio
from time import perf_counter, perf_counter_ns
from typing import Any

import roletalk

from .commands import Command
from .measured import Result, payload_of, result


async def write_for(stream: roletalk.WritableStream, chunk: bytes, seconds: float) -> int:
    """Write `chunk` again and again for so many seconds.  Returns the number of bytes."""
    sent = 0
    until = perf_counter() + seconds
    while perf_counter() < until:
        await stream.write(chunk)
        sent += len(chunk)
    return sent


async def read_all(stream: roletalk.ReadableStream) -> int:
    """Read to the end.  Returns the number of bytes."""
    received = 0
    async for chunk in stream:
        received += len(chunk)
    return received


def serve_streams(role: roletalk.Role) -> None:
    """Both directions of "bulk", and the request "bulk count": the bytes of the one that ended."""
    counts: asyncio.Queue[int] = asyncio.Queue()

    @role.on_readable("bulk")
    async def take(ctx: roletalk.ReadableContext) -> None:
        async with ctx.accept() as stream:
            counts.put_nowait(await read_all(stream))

    @role.on_writable("bulk")
    async def give(ctx: roletalk.WritableContext) -> None:
        chunk, seconds = bytes(ctx.data["chunk"]), ctx.data["seconds"]
        async with ctx.accept() as stream:
            counts.put_nowait(await write_for(stream, chunk, seconds))

    @role.on_request("bulk count")
    async def count(_: roletalk.RequestContext) -> int:
        return await counts.get()


def stream_commands(destination: roletalk.Destination) -> dict[str, Command]:
    """The client's commands: a bulk stream alone, and one with small requests beside it."""

    async def check(count: int) -> None:
        """Raises `RuntimeError` unless the server's end has seen as many bytes."""
        there = (await destination.request("bulk count", None)).data
        if there != count:
            raise RuntimeError(f"a stream of {count} bytes here had {there} there")

    async def up(chunk: int, seconds: float) -> tuple[int, float]:
        async with destination.writable("bulk") as stream:
            began = perf_counter()
            count = await write_for(stream, bytes(chunk), seconds)
        await check(count)
        return count, perf_counter() - began

    async def down(chunk: int, seconds: float) -> tuple[int, float]:
        asked = {"chunk": chunk, "seconds": seconds}
        async with destination.readable("bulk", asked) as stream:
            began = perf_counter()
            count = await read_all(stream)
            took = perf_counter() - began
        await check(count)
        return count, took

    directions = {"up": up, "down": down}

    async def stream(direction: str, chunk: int, seconds: float) -> Result:
        count, took = await directions[direction](chunk, seconds)
        return result(count / 1e6, took)

    async def beside(event: str, size: int, direction: str, chunk: int, seconds: float) -> Result:
        """One small request after the other for as long as the stream goes."""
        payload = payload_of(size)
        latencies: list[int] = []
        began = perf_counter()
        bulk = asyncio.create_task(directions[direction](chunk, seconds))
        while not bulk.done():
            sent_at = perf_counter_ns()
            await destination.request(event, payload)
            latencies.append(perf_counter_ns() - sent_at)
        answer: dict[str, Any] = result(len(latencies), perf_counter() - began, latencies)
        count, took = await bulk
        return answer | {"bulk_per_second": count / 1e6 / took}

    return {"stream": stream, "beside": beside}
