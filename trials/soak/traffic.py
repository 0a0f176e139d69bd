"""What a peer asks of the others: every way of talking, at a pace, and each answer is checked."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from roletalk import (
    Context,
    Destination,
    NoUnitsError,
    RemoteError,
    RequestTimeout,
    RoletalkError,
    StreamError,
    Unit,
    UnitClosedError,
    WouldBlock,
)

from .service import KIB, MOST, Report, Tally, judge, receive, transmit
from .watched import WatchedPeer

AT_ONCE: Final = 48  # operations of one peer under way, beyond which none is begun
ANSWER: Final = 20.0  # s that an answer may take
RECONNECTING: Final = 90.0  # s that a unit may be away after its connection was lost
_SIZES: Final = (0, 1, 100, 1000, 5000, 20_000, 70_000)
_CUT: Final = ("writer", "reader", "handler")


class Pace:
    """Operations a second of each peer; set while it runs."""

    def __init__(self, rate: float) -> None:
        self.rate = rate


class Traffic:
    """The operations of one peer, begun at random moments."""

    def __init__(self, peer: WatchedPeer, tally: Tally, report: Report, pace: Pace) -> None:
        self._peer = peer
        self._tally = tally
        self._report = report
        self._pace = pace
        self._random = random.Random()
        self._under_way: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        # Of this run of this process: messages are numbered anew when it is started again.
        self._sender = f"{peer.name} {uuid.uuid4().hex[:8]}"
        self._number = 0
        self._work = peer.destination("work")
        self._seasonal = peer.destination("seasonal")
        self._go = peer.destination("go")
        weighted: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.echo),
            (20, self.later),
            (5, self.refused),
            (3, self.failing),
            (3, self.timed_out),
            (3, self.cancelled),
            (15, self.note),
            (4, self.broadcast),
            (4, self.survey),
            (4, self.upload),
            (4, self.download),
            (3, self.seasonal),
            (6, self.ask_go),
            (1, self.tell_go),
        ]
        self._weights = [weight for weight, _ in weighted]
        self._operations = [operation for _, operation in weighted]

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    async def start(self) -> None:
        """Begin, once there is somebody to ask."""
        await self._work.wait_ready(RECONNECTING)
        self._runner = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(self._pace.rate))
            if len(self._under_way) >= AT_ONCE:
                self._tally["put off"] += 1
                continue
            operation = self._random.choices(self._operations, self._weights)[0]
            task = asyncio.create_task(self._one(operation))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _one(self, operation: Callable[[], Awaitable[None]]) -> None:
        began = time.monotonic()
        name = getattr(operation, "__name__", "an operation")
        try:
            await operation()
        except NoUnitsError as error:
            judge(self._peer, self._report, self._tally, name, error, None, began - RECONNECTING)
        except WouldBlock:
            self._tally["would have blocked"] += 1
        except (RequestTimeout, UnitClosedError) as error:
            # An answer may have gone the way of a connection that was lost, while its unit lives.
            judge(self._peer, self._report, self._tally, name, error, None, began)
        except RoletalkError as error:
            judge(self._peer, self._report, self._tally, name, error, error.unit, began)
        except Exception as error:
            self._unexpected(name, error)

    def _unexpected(self, what: str, error: BaseException) -> None:
        self._report("unexpected", f"{self._peer.name}, {what}: {type(error).__name__}: {error}")

    def _wrong(self, text: str) -> None:
        self._report("wrong", f"{self._peer.name} {text}")

    def _one_unit(self, destination: Destination) -> Unit | None:
        """Now and then a unit by name, mostly whose turn it is."""
        units = destination.units
        return self._random.choice(units) if units and self._random.random() < 0.3 else None

    def _value(self) -> Any:
        size = self._random.choice(_SIZES)
        return self._random.choice(
            (
                lambda: self._random.randbytes(size),
                lambda: "ü" * size,
                lambda: self._random.randrange(-(1 << 40), 1 << 40),
                lambda: self._random.random() < 0.5,
                lambda: None,
                lambda: {"n": self._random.randrange(1000), "of": ["a"] * (size // 100)},
            )
        )()

    # -- operations

    async def echo(self) -> None:
        value = self._value()
        answer = await self._work.request(
            "echo", value, timeout=ANSWER, unit=self._one_unit(self._work)
        )
        self._check("an echo", answer.data, value)

    async def later(self) -> None:
        value = self._random.randrange(1 << 30)
        after = self._random.choice((0, 0, 0.001, 0.02))
        answer = await self._work.request("later", {"after": after, "value": value}, timeout=ANSWER)
        self._check("a late echo", answer.data, value)

    async def refused(self) -> None:
        text = f"not {self._random.randrange(1 << 30)}"
        await self._rejected("refuse", text, text)

    async def failing(self) -> None:
        await self._rejected("fail", None, "internal error")

    async def _rejected(self, event: str, data: Any, text: str) -> None:
        try:
            await self._work.request(event, data, timeout=ANSWER)
        except RemoteError as error:
            self._check("a reject", error.text, text)
        else:
            self._wrong(f"was answered where {event!r} was to be rejected")

    async def timed_out(self) -> None:
        try:
            await self._work.request("hang", timeout=0.05)
        except RequestTimeout:
            self._tally["timed out"] += 1
        else:
            self._wrong("was answered by whoever was to hang")

    async def cancelled(self) -> None:
        task = asyncio.ensure_future(self._work.request("hang", timeout=ANSWER))
        await asyncio.sleep(self._random.choice((0, 0.01)))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
            self._wrong("was answered where it had cancelled")
        self._tally["cancelled"] += 1

    async def note(self) -> None:
        if self._random.random() < 0.5:
            await self._work.send("note", self._numbered(), unit=self._one_unit(self._work))
        else:
            self._work.send_nowait("note", self._numbered())
        self._tally["messages"] += 1

    async def broadcast(self) -> None:
        self._tally["messages"] += len(self._work.broadcast("note", self._numbered()))
        self._tally["broadcasts"] += 1

    def _numbered(self) -> dict[str, Any]:
        self._number += 1
        return {"from": self._sender, "n": self._number}

    async def survey(self) -> None:
        began = time.monotonic()
        asked = {unit.id for unit in self._work.units}
        answered: list[str] = []
        async for answer in self._work.survey("who", timeout=ANSWER):
            unit = answer.unit
            assert unit is not None
            answered.append(unit.id)
            if isinstance(answer, Context):
                self._check("the answer to a survey", answer.data, unit.name)
            else:
                judge(self._peer, self._report, self._tally, "survey", answer, None, began)
        # It asks those of the moment in which it is begun to be read: the same loop turn.
        if len(answered) != len(asked) or set(answered) != asked:
            self._wrong(f"asked {len(asked)} units in a survey and heard of {len(answered)}")
        self._tally["surveys"] += 1

    async def upload(self) -> None:
        began = time.monotonic()
        terms = self._terms()
        try:
            async with self._work.writable("upload", terms, timeout=ANSWER) as stream:
                await transmit(self._peer, self._report, stream, terms, began, ours=False)
        except StreamError:
            # Leaving the block finishes the stream, which then cannot be finished any more.
            if terms["end"] == "finish":
                raise

    async def download(self) -> None:
        began = time.monotonic()
        terms = self._terms()
        async with self._work.readable("download", terms, timeout=ANSWER) as stream:
            await receive(self._peer, self._report, self._tally, stream, terms, began, ours=False)

    def _terms(self) -> dict[str, Any]:
        """What the two ends of a stream agree on: its bytes, and how it ends."""
        return {
            "seed": self._random.randrange(1 << 30),
            "size": min(int(self._random.paretovariate(0.6) * 2 * KIB), MOST),
            "piece": self._random.choice((1000, 16 * KIB, 64 * KIB, 300 * KIB)),
            "end": self._random.choice(_CUT) if self._random.random() < 0.2 else "finish",
        }

    async def seasonal(self) -> None:
        """A role that comes and goes: it may just have gone."""
        value = self._random.randrange(1000)
        try:
            answer = await self._seasonal.request("echo", value, timeout=ANSWER)
        except (NoUnitsError, RemoteError):
            self._tally["out of season"] += 1
        else:
            self._check("an echo in season", answer.data, value)

    async def ask_go(self) -> None:
        if not self._go.ready:
            return
        if self._random.random() < 0.2:
            try:
                await self._go.request("fail", timeout=ANSWER)
            except RemoteError:
                self._tally["requests of Go"] += 1
            else:
                self._wrong("was answered by Go where it was to be rejected")
            return
        size = self._random.choice((0, 100, 20_000))
        value = self._random.choice(("g" * size, b"g" * size, {"n": size}, None, size % 2 == 0))
        answer = await self._go.request("echo", value, timeout=ANSWER)
        self._check("an echo of Go", answer.data, value)
        self._tally["requests of Go"] += 1

    async def tell_go(self) -> None:
        if self._go.ready:
            await self._go.send("note", "psst")

    def _check(self, what: str, got: Any, expected: Any) -> None:
        self._tally["requests"] += 1
        if type(got) is not type(expected) or got != expected:
            self._wrong(f"got {what} that is {got!r:.100}, not {expected!r:.100}")
