"""A live peer and a scripted legacy peer that stream to each other, and Node.js's account of credit."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import pytest

import roletalk
from tests import rawclient as raw

T = TypeVar("T")

NODE20, NODE22, GO = "nodejs v20.20.2", "nodejs v22.11.0", "GO"
CREDIT = {NODE20: 16384, NODE22: 65536, GO: 16384}

MIB = 1 << 20
WINDOW = 192 * 1024  # that a reader of ours begins with where it has listened

Opener: TypeAlias = Literal["ours", "theirs"]
Way: TypeAlias = Literal["reads", "writes"]  # what ours does

OPENERS: tuple[Opener, ...] = ("ours", "theirs")

each_opener = pytest.mark.parametrize("opener", OPENERS)
each_way = pytest.mark.parametrize("way", ["reads", "writes"])


def data_of(runtime: str) -> dict[str, Any]:
    data = raw.peer_data(roles=["bench"])
    data["meta"]["runtime"] = runtime
    return data


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Ends(NamedTuple):
    """Our end of a stream, the channel that ours receives on, and what ours said to open it."""

    stream: Any
    channel: int
    said: raw.Message


@dataclass
class Stage:
    """A live peer, and the connection of a legacy peer that serves and asks for the role "bench"."""

    peer: roletalk.Peer
    bench: roletalk.Destination
    connection: raw.Connection
    go: bool
    leave: asyncio.Event  # lets the handlers of `open` return
    _correlations: itertools.count[int] = field(default_factory=lambda: itertools.count(0xA000))

    @property
    def stats(self) -> dict[str, Any]:
        return self.peer.stats()

    async def hear(self, *kinds: int) -> raw.Message:
        """The next message that is one of `kinds`."""

        def read() -> raw.Message:
            while True:
                found = raw.decode(self.connection.read_message())
                if found.kind in kinds:
                    return found

        return await asyncio.to_thread(read)

    async def hear_data(self) -> raw.Message:
        return await self.hear(raw.STREAM_DATA)

    def say(self, message: bytes) -> None:
        self.connection.send(message)

    def say_data(self, channel: int, flag: int, data: bytes = b"") -> None:
        self.say(raw.stream_data(channel, flag, data))

    async def settle(self) -> list[raw.Message]:
        """Have all that was said handled; what ours has sent until then."""
        before = len(self.connection.received)
        answer = await asyncio.to_thread(self.connection.ask, "bench", "echo", "settled")
        assert answer.data == "settled"
        return [raw.decode(message) for message in self.connection.received[before:-1]]

    # -- opening streams

    async def open(self, way: Way, opener: Opener, channel: int = 0x1234) -> Ends:
        """A stream whose other end receives on `channel`.  Its handler, if it has one, waits on."""
        if opener == "ours":
            return await self._open_by_ours(way, channel)
        return await self._open_by_theirs(way, channel)

    async def _open_by_ours(self, way: Way, channel: int) -> Ends:
        opening = self.bench.readable("held") if way == "reads" else self.bench.writable("held")
        task = asyncio.ensure_future(within(opening))
        asked = await self.hear(raw.OPEN_READABLE, raw.OPEN_WRITABLE)
        self.say(
            raw.stream_answer(raw.STREAM_RESOLVE, asked.correlation, channel, raw.value("yes"))
        )
        stream = await task
        assert stream.reply.data == "yes"
        return Ends(stream, channel if self.go else asked.channel, asked)

    async def _open_by_theirs(self, way: Way, channel: int) -> Ends:
        accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def held(ctx: Any) -> None:
            stream = await ctx.accept("yes")
            accepted.set_result(stream)
            while not self.leave.is_set():
                # Cancelled when its stream fails: the test goes on using it.
                with suppress(asyncio.CancelledError):
                    await self.leave.wait()

        role = self.peer.role("bench")
        event = f"held {channel} {next(self._correlations)}"
        (role.on_readable if way == "reads" else role.on_writable)(event)(held)
        kind = raw.OPEN_WRITABLE if way == "reads" else raw.OPEN_READABLE
        correlation = next(self._correlations)
        self.say(raw.open_stream(kind, "bench", event, correlation, channel))
        answer = await self.hear(raw.STREAM_RESOLVE, raw.STREAM_REJECT)
        assert (answer.kind, answer.correlation) == (raw.STREAM_RESOLVE, correlation)
        assert answer.data == "yes"
        return Ends(await accepted, answer.channel, answer)


async def within(opening: Awaitable[T]) -> T:
    return await asyncio.wait_for(opening, raw.WAIT)


@asynccontextmanager
async def legacy(runtime: str = NODE20, **options: Any) -> AsyncIterator[Stage]:
    async with roletalk.Peer(name="ours", **options) as peer:
        peer.role("bench").on_request("echo")(lambda ctx: ctx.data)
        listener = await peer.listen("127.0.0.1", 0)
        bench = peer.destination("bench")
        with await asyncio.to_thread(raw.dial, listener.port) as connection:
            await asyncio.to_thread(raw.authenticate, connection, data=data_of(runtime))
            await bench.wait_ready(raw.WAIT)
            leave = asyncio.Event()
            try:
                yield Stage(peer, bench, connection, runtime == GO, leave)
            finally:
                leave.set()


# -- Node.js's account of its credit -----------------------------------------------------------------


@dataclass
class JsWriter:
    """It writes while its credit is above 0, whatever the size; a quota *replaces* its credit."""

    connection: raw.Connection
    channel: int  # that ours receives on
    own: int
    credit: int
    window: int  # of the reader
    sent: int = 0
    granted: int = 0

    def write(self, data: bytes, rng: random.Random) -> None:
        """All of `data` in chunks of every size, and the finish."""
        self.granted = self.credit
        while self.sent < len(data):
            if self.credit <= 0 or (self.connection.has_more() and rng.random() < 0.5):
                self.take_quota()
                continue
            size = rng.randrange(1, rng.choice((2, 2_000, 70_000, 300_000)))
            chunk = data[self.sent : self.sent + size]
            message = raw.stream_data(self.channel, raw.CHUNK, chunk)
            self.connection.send_frame(raw.BINARY, message, mask=raw.ZERO_MASK)
            self.sent += len(chunk)
            self.credit -= len(chunk)
        self.connection.send(raw.stream_data(self.channel, raw.FINISH))

    def take_quota(self) -> None:
        found = raw.decode(self.connection.read_kind(raw.STREAM_DATA))
        assert (found.channel, found.flag) == (self.own, raw.QUOTA)
        assert found.raw == raw.stream_data(self.own, raw.QUOTA, found.payload)
        self.credit = int.from_bytes(found.payload, "big")
        self.granted += self.credit
        assert self.credit >= self.window // 2
        assert self.granted <= max(self.window, CREDIT[NODE22]) + self.sent


@dataclass
class JsReader:
    """It fills the writer's credit up when half of it is gone; and leaves with an empty error."""

    connection: raw.Connection
    channel: int
    own: int
    window: int
    data: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        left = self.window
        while True:
            found = raw.decode(self.connection.read_kind(raw.STREAM_DATA))
            assert found.channel == self.own
            assert found.raw == raw.stream_data(self.own, found.flag, found.payload)
            if found.flag == raw.FINISH:
                break
            assert found.flag == raw.CHUNK
            self.data += found.payload
            left -= len(found.payload)
            assert left >= 0  # ours never sends more than its credit
            if left <= self.window // 2:
                quota = raw.number(self.window - left)
                self.connection.send(raw.stream_data(self.channel, raw.QUOTA, quota))
                left = self.window
        self.connection.send(raw.stream_data(self.channel, raw.STREAM_ERROR))
