"""Streams with a Go peer in the four ways there are: either peer opens, either peer writes."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from roletalk import Peer, ReadableContext, ReadableStream, Unit, WritableContext, WritableStream

from .gopeer import GoPeer, GoStream, Passed
from .linking import link

Side: TypeAlias = Literal["py", "go"]

KIB = 1024
MIB = 1024 * 1024


class Way(NamedTuple):
    """Which peer opens the stream, and which one writes to it; the other reads."""

    opener: Side
    writer: Side

    @property
    def gos(self) -> str:
        """The end that Go has."""
        return "writer" if self.writer == "go" else "reader"

    def __str__(self) -> str:
        return f"{self.opener}-opens-{self.writer}-writes"


WAYS = [Way(opener, writer) for opener in ("py", "go") for writer in ("py", "go")]

# What a test does with our end: a ReadableStream or a WritableStream, as the way has it.
Body: TypeAlias = Callable[[Any], Awaitable[Any]]


@dataclass
class Served:
    """What our handler got with a request."""

    body: Body
    data: asyncio.Future[Any] = field(default_factory=asyncio.Future)
    result: asyncio.Future[Any] = field(default_factory=asyncio.Future)


@dataclass
class Pair:
    """A peer of ours and a Go one, connected, that stream to each other."""

    peer: Peer
    go: GoPeer
    unit: Unit
    _served: dict[str | None, Served] = field(default_factory=dict)
    _names: itertools.count[int] = field(default_factory=itertools.count)

    async def handle(self, ctx: ReadableContext | WritableContext) -> None:
        served = self._served.pop(_name(ctx.data))
        served.data.set_result(ctx.data)
        stream = await ctx.accept(ctx.data)
        try:
            served.result.set_result(await served.body(stream))
        except BaseException as error:
            served.result.set_exception(error)
            raise

    async def open(
        self, way: Way, ours: Body, data: Any = None
    ) -> tuple[asyncio.Future[Any], GoStream, Any]:
        """Open a stream whose handler sends `data` back as it accepts.

        Gives the result of `ours`, which is called with our end; Go's end; and `data` as it came
        to us.  Streams that are opened at once need a string each to be told apart by.
        """
        if way.opener == "go":
            served = Served(ours)
            self._served[_name(data)] = served
            gos = await self.go.open_stream(way.gos, "py", "accept", data)
            return served.result, gos, await served.data
        destination = self.peer.destination("go")
        opening = destination.readable if way.writer == "go" else destination.writable
        stream = await opening("accept", data, timeout=15)
        result = asyncio.ensure_future(ours(stream))
        return result, await self.go.stream(way.gos, _name(data)), stream.reply.data

    async def transfer(self, way: Way, size: int, chunk: int = 64 * KIB) -> None:
        """Send `size` bytes through a new stream, written `chunk` at a time; all must arrive."""

        async def ours(stream: Any) -> Passed:
            if way.writer == "py":
                return await write_all(stream, size, chunk)
            return await read_all(stream)

        result, gos, _ = await self.open(way, ours, f"transfer {next(self._names)}")
        if way.writer == "go":
            sent, end = await gos.write(size, chunk=chunk)
            assert end == ""
            assert (await gos.close())[1] == ""
            received = await result
        else:
            received, end = await gos.read()
            assert end == "EOF"
            sent = await result
        assert sent.size == size
        assert received == sent

    async def make_requests(self, opener: Side, count: int) -> None:
        """`count` requests from that side; those of streams are numbered along with them."""
        if opener == "go":
            burst = self.go.call("burst", role="py", event="echo", count=count, concurrency=20)
            assert await burst == count
            return
        destination = self.peer.destination("go")
        for index in range(count):
            assert (await destination.request("echo", index, timeout=15)).data == index

    async def still_works(self) -> None:
        """The connection has survived and carries requests and streams."""
        assert self.peer.units == (self.unit,)
        for opener in ("py", "go"):
            await self.make_requests(opener, 3)
        for way in WAYS:
            await self.transfer(way, 100)
        assert self.peer.units == (self.unit,)


@asynccontextmanager
async def paired(program: Path, dialler: str, **options: Any) -> AsyncIterator[Pair]:
    """Two new peers, dialled by ``"python"`` or ``"go"``; `options` are those of ours."""
    async with await GoPeer.start(program) as go, Peer(name="py", **options) as peer:
        role = peer.role("py")
        role.on_request("echo")(lambda ctx: ctx.data)
        unit = await link(peer, go, dialler)
        pair = Pair(peer, go, unit)
        role.on_readable("accept")(pair.handle)
        role.on_writable("accept")(pair.handle)
        yield pair


def _name(data: Any) -> str | None:
    return data if isinstance(data, str) else None


async def write_all(stream: WritableStream, size: int, chunk: int) -> Passed:
    """Write `size` bytes, `chunk` at a time, and finish."""
    sha256 = hashlib.sha256()
    block = random.Random(size).randbytes(chunk + 251)
    for start in range(0, size, chunk):
        offset = start % 251  # a lost or doubled chunk changes what is read
        piece = block[offset : offset + min(chunk, size - start)]
        await stream.write(piece)
        sha256.update(piece)
    await stream.close()
    return Passed(size, sha256.hexdigest())


async def read_all(stream: ReadableStream) -> Passed:
    """Read to the end."""
    sha256 = hashlib.sha256()
    size = 0
    async for piece in stream:
        assert piece
        sha256.update(piece)
        size += len(piece)
    return Passed(size, sha256.hexdigest())
