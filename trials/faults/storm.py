"""Two connections to one unit, each through a proxy, one of them reset every now and then, under load."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import roletalk
from tests.chaos import Proxy
from tests.helpers import eventually
from trials.faults.history import History

# What the documentation of `request` and `send` says that they may fail with on a bad network, and
# what it says of streams.
CALLS_FAIL_WITH: Final = (
    roletalk.RequestTimeout,
    roletalk.UnitClosedError,
    roletalk.NoUnitsError,
    roletalk.WouldBlock,
)
STREAMS_FAIL_WITH: Final = (*CALLS_FAIL_WITH, roletalk.StreamError)
STREAM_TIMEOUT: Final = 30.0  # s, for all of one
SENDS_AT_ONCE: Final = 20  # messages that a sender writes before it lets the loop go on


@dataclass(frozen=True)
class Plan:
    """How many of each, how many callers at once, and what the proxies do.

    timeout: seconds, of a request.  reset_every: seconds.  at_random: which connection is reset; else
    they take turns.  delay, jitter: seconds, each way.  piece: the most bytes of a write.
    """

    requests: int = 0
    messages: int = 0
    streams: int = 0
    stream_size: int = 2_000_000
    in_flight: int = 200
    timeout: float = 1.0
    reset_every: float = 1.0
    at_random: bool = False
    delay: float = 0.0
    jitter: float = 0.0
    piece: int | None = None


@dataclass
class Outcome:
    """resets: of connections that were there.  gap: the longest time, in seconds, without a reply.

    unit_lost: how often none of the connections was there.
    """

    requests: History
    messages: History
    streams: History
    resets: int = 0
    reconnects: int = 0
    unit_lost: int = 0
    seconds: float = 0.0
    gap: float = 0.0
    replied_at: float = field(default_factory=time.monotonic)

    def replied(self, at: float) -> None:
        self.gap = max(self.gap, at - self.replied_at)
        self.replied_at = at

    def lost(self) -> None:
        self.unit_lost += 1


async def storm(plan: Plan) -> Outcome:
    """Do all of it; returns once both peers are closed, so that nothing can be executed any more."""
    outcome = Outcome(
        History(CALLS_FAIL_WITH), History(CALLS_FAIL_WITH), History(STREAMS_FAIL_WITH)
    )
    started = time.monotonic()
    async with roletalk.Peer(name="server") as server, roletalk.Peer(name="client") as client:
        _serve(server.role("r"), outcome)
        port = (await server.listen()).port
        async with Proxy(port) as first, Proxy(port) as second:
            proxies = (first, second)
            for way in (first.up, first.down, second.up, second.down):
                way.delay, way.jitter, way.piece = plan.delay, plan.jitter, plan.piece
            for proxy in proxies:
                await client.connect(proxy.url)
            destination = client.destination("r")
            destination.on_close(lambda _: outcome.lost())
            resetting = asyncio.create_task(_reset(proxies, plan, outcome))
            outcome.replied_at = time.monotonic()
            try:
                await asyncio.gather(
                    _each(plan.requests, plan.in_flight, _request, destination, plan, outcome),
                    _each(plan.messages, 4, _send, destination, plan, outcome),
                    _each(plan.streams, 8, _stream, destination, plan, outcome),
                )
            finally:
                resetting.cancel()
                await asyncio.wait({resetting})
            outcome.reconnects = client.stats()["reconnects"]
            lost = outcome.unit_lost
            await client.close()
            outcome.unit_lost = lost
    outcome.seconds = time.monotonic() - started
    return outcome


Caller = Callable[[roletalk.Destination, int, Plan, Outcome], Awaitable[None]]


async def _each(
    count: int, at_once: int, call: Caller, to: roletalk.Destination, plan: Plan, outcome: Outcome
) -> None:
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(to, number, plan, outcome)
            if not to.ready:
                await to.wait_ready()

    await asyncio.gather(*(caller() for _ in range(at_once)))


async def _reset(proxies: tuple[Proxy, Proxy], plan: Plan, outcome: Outcome) -> None:
    turn = 0
    while True:
        await asyncio.sleep(plan.reset_every)
        turn = random.randrange(2) if plan.at_random else 1 - turn
        outcome.resets += len(proxies[turn].connections)
        await proxies[turn].reset()


# -- the client's side


async def _request(to: roletalk.Destination, number: int, plan: Plan, outcome: Outcome) -> None:
    history = outcome.requests
    history.invoke(
        time.monotonic(), number=number, timeout=plan.timeout, expected=f"reply {number}"
    )
    try:
        reply = await to.request("count", number, timeout=plan.timeout)
    except Exception as exc:
        history.fail(number, exc, time.monotonic())
    else:
        at = time.monotonic()
        history.acknowledge(number, reply.data, at)
        outcome.replied(at)


async def _send(to: roletalk.Destination, number: int, _plan: Plan, outcome: Outcome) -> None:
    history = outcome.messages
    history.invoke(time.monotonic(), number=number)
    try:
        await to.send("note", number)
    except Exception as exc:
        history.fail(number, exc, time.monotonic())
    else:
        history.acknowledge(number, None, time.monotonic())
    if number % SENDS_AT_ONCE == 0:
        await asyncio.sleep(0.001)


async def _stream(to: roletalk.Destination, number: int, plan: Plan, outcome: Outcome) -> None:
    """Odd ones are read here; the even ones by the server, which then says how they ended."""
    history = outcome.streams
    data = stream_bytes(number, plan.stream_size)
    history.invoke(
        time.monotonic(), number=number, timeout=STREAM_TIMEOUT, expected=summary(len(data), data)
    )
    asked = [number, plan.stream_size]
    try:
        if number % 2:
            answer = await asyncio.wait_for(_read(to.readable("download", asked)), STREAM_TIMEOUT)
            history.acknowledge(number, answer, time.monotonic())
        else:
            await asyncio.wait_for(_write(to.writable("upload", asked), data), STREAM_TIMEOUT)
            await _ended(history, number)
    except Exception as exc:
        if number not in history.executions or number % 2:
            history.fail(number, exc, time.monotonic())
        else:
            await _ended(history, number)


async def _ended(history: History, number: int) -> None:
    """Wait until the server has said how the stream that it reads ended."""
    await eventually(lambda: history.operations[number].endings, timeout=STREAM_TIMEOUT)


async def _read(opening: Any) -> str:
    async with opening as stream:
        return await _summary_of(stream)


async def _write(opening: Any, data: bytes) -> None:
    async with opening as stream:
        await stream.write(data)


# -- the server's side


def _serve(role: roletalk.Role, outcome: Outcome) -> None:
    @role.on_request("count")
    async def count(ctx: Any) -> str:
        number = ctx.data
        outcome.requests.execute(number)
        if number % 2:
            # So that its connection may go while it runs.
            await asyncio.sleep(0.002)
        return f"reply {number}"

    @role.on_message("note")
    def note(ctx: Any) -> None:
        outcome.messages.execute(ctx.data)

    @role.on_writable("download")
    async def download(ctx: Any) -> None:
        number, size = ctx.data
        outcome.streams.execute(number)
        async with ctx.accept() as stream:
            await stream.write(stream_bytes(number, size))

    @role.on_readable("upload")
    async def upload(ctx: Any) -> None:
        number, _ = ctx.data
        history = outcome.streams
        history.execute(number)
        try:
            async with ctx.accept() as stream:
                history.acknowledge(number, await _summary_of(stream), time.monotonic())
        except asyncio.CancelledError:
            # It is how the handler of a stream whose connection was lost ends.
            if not history.operations[number].endings:
                history.fail(number, roletalk.StreamError("cancelled"), time.monotonic())
            raise
        except Exception as exc:
            history.fail(number, exc, time.monotonic())
            raise


# -- the bytes of a stream


def stream_bytes(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def summary(size: int, *chunks: bytes) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return f"{size} bytes, sha256 {digest.hexdigest()}"


async def _summary_of(stream: Any) -> str:
    chunks = [chunk async for chunk in stream]
    return summary(sum(map(len, chunks)), *chunks)
