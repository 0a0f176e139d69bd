"""Streams: opened, accepted, read, written, ended."""

from __future__ import annotations

import array
import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager

from typing_extensions import assert_type

import roletalk


async def written(to: roletalk.Destination, unit: roletalk.Unit) -> None:
    async with to.writable("upload", {"name": "a"}, timeout=1, unit=unit) as stream:
        assert_type(stream, roletalk.WritableStream)
        assert_type(await stream.write(b"x"), None)
        await stream.write(bytearray(1))
        await stream.write(memoryview(b"x"))
        await stream.write(array.array("d", [1.0]))
        await asyncio.create_task(stream.write(b"x"))
        assert_type(stream.reply, roletalk.Context)
        assert_type(stream.unit, roletalk.Unit)
        assert_type(stream.closed, bool)
        await stream.close()
    opened = await to.writable("upload")
    assert_type(opened, roletalk.WritableStream)
    async with opened as entered:
        assert_type(entered, roletalk.WritableStream)
    await opened.abort("no more")


async def read(to: roletalk.Destination) -> bytes:
    async with to.readable("download") as stream:
        assert_type(stream, roletalk.ReadableStream)
        async for chunk in stream:
            assert_type(chunk, bytes)
    opened = await to.readable("download")
    assert_type(opened, roletalk.ReadableStream)
    assert_type(await opened.read(), bytes)
    assert_type(await opened.read(100), bytes)
    assert_type(await opened.readexactly(4), bytes)
    assert_type(await opened.readinto(bytearray(4)), int)
    assert_type(await anext(opened), bytes)
    await opened.abort()
    return b"".join([chunk async for chunk in await to.readable("download")])


async def copied(ctx: roletalk.WritableContext, source: roletalk.Destination) -> None:
    async with source.readable("download") as read, ctx.accept(read.reply.data) as write:
        async for chunk in read:
            await write.write(chunk)


def passed_on(to: roletalk.Destination) -> AbstractAsyncContextManager[roletalk.ReadableStream]:
    return to.readable("download")


async def entered_later(to: roletalk.Destination, ctx: roletalk.ReadableContext) -> None:
    async with AsyncExitStack() as stack:
        assert_type(await stack.enter_async_context(to.writable("upload")), roletalk.WritableStream)
        assert_type(await stack.enter_async_context(ctx.accept()), roletalk.ReadableStream)
    assert_type(
        await asyncio.gather(to.readable("download"), to.writable("upload")),
        tuple[roletalk.ReadableStream, roletalk.WritableStream],
    )


@asynccontextmanager
async def upload(to: roletalk.Destination, name: str) -> AsyncGenerator[roletalk.WritableStream]:
    async with to.writable("upload", name) as stream:
        yield stream


async def lines(stream: roletalk.ReadableStream) -> AsyncGenerator[bytes]:
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


async def counted(to: roletalk.Destination) -> int:
    async with to.readable("download") as stream, aclosing(lines(stream)) as each:
        return sum([1 async for _ in each])


async def wrong(to: roletalk.Destination) -> None:
    async with to.writable("upload") as stream:
        await stream.write("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await stream.write([1, 2])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await stream.read()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        async for _ in stream:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
            pass
    async with to.readable("download") as stream2:
        await stream2.write(b"x")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        for _ in stream2:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
            pass
    with to.readable("download"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    to.readable("download").read()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
