"""What the peers of a node serve, and the bytes that both ends of a stream know."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from roletalk import (
    Context,
    Peer,
    ReadableContext,
    ReadableStream,
    Reject,
    RequestContext,
    RoletalkError,
    Unit,
    WritableContext,
    WritableStream,
)

from .watched import WatchedPeer

KIB: Final = 1024
_PATTERN: Final = memoryview(random.Random(1).randbytes(2 * KIB * KIB))
MOST: Final = KIB * KIB  # bytes of a stream
HANGING: Final = 2.0  # s that the handler takes which nobody waits for
CLOSING: Final = 4.0  # s that a connection takes at most to close
_SENDERS: Final = 8  # whose messages are looked through for doubled ones
_NUMBERS: Final = 512  # of a sender's messages, the last ones

Report = Callable[[str, str], None]
"""Reports ``"wrong"`` or ``"unexpected"``, with what it was."""


class Intended(Exception):
    """What a handler raises on purpose."""


def pattern(seed: int, size: int) -> memoryview:
    """The bytes of a stream, at most `MOST`: the same in all processes."""
    offset = seed % (len(_PATTERN) - MOST)
    return _PATTERN[offset : offset + size]


class Tally(Counter[str]):
    """What a node has done, by name."""


class Service:
    """The handlers of one peer."""

    def __init__(self, peer: WatchedPeer, tally: Tally, report: Report) -> None:
        self._peer = peer
        self._tally = tally
        self._report = report
        self._seen: OrderedDict[str, tuple[set[int], deque[int]]] = OrderedDict()
        for name in ("work", f"work-{peer.name}", "seasonal"):
            role = peer.role(name)
            role.on_request("echo")(lambda ctx: ctx.data)
            role.on_request("later")(self.later)
            role.on_request("refuse")(self.refuse)
            role.on_request("fail")(self.fail)
            role.on_request("hang")(self.hang)
            role.on_request("who")(lambda ctx: peer.name)
            role.on_message("note")(self.note)
            role.on_readable("upload")(self.upload)
            role.on_writable("download")(self.download)

    async def later(self, ctx: RequestContext) -> Any:
        await asyncio.sleep(ctx.data["after"])
        return ctx.data["value"]

    def refuse(self, ctx: RequestContext) -> None:
        raise Reject(ctx.data)

    async def fail(self, ctx: RequestContext) -> None:
        raise Intended

    async def hang(self, ctx: RequestContext) -> None:
        await asyncio.sleep(HANGING)

    def note(self, ctx: Context) -> None:
        """A numbered message: each of a sender's may come once."""
        self._tally["messages received"] += 1
        sender, number = ctx.data["from"], ctx.data["n"]
        if sender in self._seen:
            self._seen.move_to_end(sender)
        else:
            self._seen[sender] = (set(), deque())
            if len(self._seen) > _SENDERS:
                self._seen.popitem(last=False)
        numbers, order = self._seen[sender]
        if number in numbers:
            self._report("wrong", f"{self._peer.name} got message {number} of {sender} twice")
            return
        numbers.add(number)
        order.append(number)
        if len(order) > _NUMBERS:
            numbers.discard(order.popleft())

    async def upload(self, ctx: ReadableContext) -> None:
        began = time.monotonic()
        async with ctx.accept() as stream:
            await receive(self._peer, self._report, self._tally, stream, ctx.data, began, ours=True)

    async def download(self, ctx: WritableContext) -> None:
        began = time.monotonic()
        async with ctx.accept() as stream:
            await transmit(self._peer, self._report, stream, ctx.data, began, ours=True)


async def receive(
    peer: WatchedPeer,
    report: Report,
    tally: Tally,
    stream: ReadableStream,
    terms: dict[str, Any],
    began: float,
    *,
    ours: bool,
) -> None:
    """Read a stream and compare all of it; its `terms` say how it is going to end.

    ours: whether this end was opened by the other side's request, which makes it the handler's.
    """
    expected = pattern(terms["seed"], terms["size"])
    at = 0
    try:
        async for chunk in stream:
            if chunk != expected[at : at + len(chunk)]:
                report("wrong", f"{peer.name} read other bytes than were written, from {at} on")
                return
            at += len(chunk)
            tally["stream bytes"] += len(chunk)
            if terms["end"] == "reader" and at >= len(expected) // 2:
                tally["streams aborted"] += 1
                await stream.abort("enough")
                return
            if terms["end"] == "handler" and ours and at >= len(expected) // 2:
                raise Intended
    except RoletalkError as error:
        if terms["end"] in ("writer", "handler"):
            tally["streams aborted"] += 1
        else:
            judge(peer, report, tally, "reading a stream", error, stream.unit, began)
        return
    if terms["end"] == "writer":
        report("wrong", f"{peer.name} read a stream that was aborted to a regular end")
    elif at != len(expected):
        report("wrong", f"{peer.name} read {at} bytes of {len(expected)}")
    else:
        tally["streams done"] += 1


async def transmit(
    peer: WatchedPeer,
    report: Report,
    stream: WritableStream,
    terms: dict[str, Any],
    began: float,
    *,
    ours: bool,
) -> None:
    """Write a stream and end it by its `terms`; the reader does the counting."""
    data = pattern(terms["seed"], terms["size"])
    piece = terms["piece"]
    is_cut = terms["end"] == "writer" or (terms["end"] == "handler" and ours)
    stop = len(data) // 2 if is_cut else len(data)
    try:
        for at in range(0, stop, piece):
            await stream.write(data[at : min(at + piece, stop)])
        if terms["end"] == "writer":
            await stream.abort("changed my mind")
        elif terms["end"] == "handler" and ours:
            raise Intended
        else:
            await stream.close()
    except RoletalkError as error:
        if terms["end"] not in ("reader", "handler"):
            judge(peer, report, None, "writing a stream", error, stream.unit, began)


def judge(
    peer: WatchedPeer,
    report: Report,
    tally: Tally | None,
    what: str,
    error: BaseException,
    unit: Unit | None,
    began: float,
) -> None:
    """Report a failure, unless a connection is lost at that time: those are explained elsewhere.

    One that is closing fails what needs it at once, and is lost a moment later: it is waited for.
    """
    text = f"{peer.name}, {what}: {type(error).__name__}: {error}"
    name = None if unit is None else unit.name

    def decide() -> None:
        if not peer.lost_since(began - 1, name):
            report("unexpected", text)
        elif tally is not None:
            tally["failed by a lost connection"] += 1

    peer.loop.call_later(CLOSING, decide)


class ForGo:
    """What is served for the Go peer, whose end of a stream tells what passed through it."""

    def __init__(self, peer: Peer, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        role = peer.role("py")
        role.on_request("echo")(lambda ctx: ctx.data)
        role.on_message("note")(lambda ctx: None)
        role.on_readable("accept")(self.read)
        role.on_writable("accept")(self.write)

    async def read(self, ctx: ReadableContext) -> None:
        async with ctx.accept(ctx.data) as stream:
            await self.digest_read(stream, ctx.data)

    async def write(self, ctx: WritableContext) -> None:
        async with ctx.accept(ctx.data) as stream:
            await self.digest_written(stream, ctx.data)

    async def digest_read(self, stream: ReadableStream, name: str) -> None:
        """Read to the end and tell what came."""
        sha256 = hashlib.sha256()
        size = 0
        try:
            async for chunk in stream:
                sha256.update(chunk)
                size += len(chunk)
        except RoletalkError as error:
            self._tell({"event": "digest", "name": name, "error": str(error)})
        else:
            digest = sha256.hexdigest()
            self._tell({"event": "digest", "name": name, "size": size, "sha256": digest})

    async def digest_written(self, stream: WritableStream, name: str) -> None:
        """Write as many bytes as `name` says after its colon, and tell which they were."""
        data = pattern(hash_of(name), int(name.partition(":")[2]))
        try:
            for at in range(0, len(data), 16 * KIB):
                await stream.write(data[at : at + 16 * KIB])
            await stream.close()
        except RoletalkError as error:
            self._tell({"event": "digest", "name": name, "error": str(error)})
        else:
            digest = hashlib.sha256(data).hexdigest()
            self._tell({"event": "digest", "name": name, "size": len(data), "sha256": digest})


def hash_of(name: str) -> int:
    """A number made of a name, the same in all processes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
