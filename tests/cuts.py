"""Bytes that are cut anywhere, and a unit that gets its frames so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import roletalk
from roletalk._session import Link
from roletalk.gate import Admission
from tests import rawclient as raw
from tests.faketransport import Remote, turns
from tests.helpers import peers


def cut(data: bytes, rng: random.Random, most: int) -> Iterator[bytes]:
    """`data` in pieces of 1 to `most` bytes, small ones as likely as large ones."""
    at = 0
    while at < len(data):
        size = rng.randint(1, max(1, int(most ** rng.random())))
        yield data[at : at + size]
        at += size


class Cut(NamedTuple):
    """A unit of `peer`, which masks; its remote end is the test."""

    peer: roletalk.Peer
    unit: roletalk.Unit
    link: Link
    remote: Remote

    def feed(self, messages: list[bytes], rng: random.Random, most: int) -> None:
        data = b"".join(self.remote.frame(raw.BINARY, message) for message in messages)
        for piece in cut(data, rng, most):
            self.remote.feed(piece)

    def heard(self) -> list[raw.Message]:
        """The messages of a unit that were sent to the remote end since the last call."""
        frames = [frame for frame in self.remote.sent() if frame.opcode == raw.BINARY]
        return [raw.decode(frame.payload) for frame in frames]


@asynccontextmanager
async def cut_unit(*roles: str, **options: Any) -> AsyncIterator[Cut]:
    async with peers("server", **options) as (server,):
        server.bind()
        admission = Admission(server)
        remote = Remote(admission.link, admission.gate)
        confirmed = raw.json_message(raw.CONFIRMED, raw.peer_data("remote", roles=roles))
        remote.feed(remote.frame(raw.BINARY, confirmed))
        unit = await admission.result
        await turns()
        remote.sent()
        try:
            yield Cut(server, unit, admission.link, remote)
        finally:
            admission.link.abort()
            await unit._lost.wait()


@asynccontextmanager
async def read_from(on: Cut) -> AsyncIterator[tuple[roletalk.ReadableStream, int]]:
    """A stream that the remote end writes to, and the channel that it does that on."""
    accepted: asyncio.Future[roletalk.ReadableStream] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def handler(ctx: roletalk.ReadableContext) -> None:
        accepted.set_result(await ctx.accept())
        await leave.wait()

    on.peer.role("r").on_readable("e")(handler)
    on.feed([raw.open_stream(raw.OPEN_WRITABLE, "r", "e", 1, 77)], random.Random(1), 1000)
    stream = await accepted
    await turns()
    (answer,) = [each for each in on.heard() if each.kind == raw.STREAM_RESOLVE]
    try:
        yield stream, answer.channel
    finally:
        leave.set()
        await turns(5)
