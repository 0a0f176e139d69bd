"""Whoever blocks the event loop is named in the log, while it does and when it is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import roletalk
from trials.faults.scenario import Settings
from trials.figures import Figure, at_least, at_most

NAME = "blocked loops"

BLOCKS: Final = 4.0  # s
NAMED_WITHIN: Final = 3.0  # s from the beginning, while it still blocks
CULPRIT: Final = "culprit_of_it_all"

Prepare = Callable[[roletalk.Peer, roletalk.Role], None]


class Log(logging.Handler):
    """When the culprit was named, and in which words."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if CULPRIT in text:
            self.named.append((time.monotonic(), text))


def kinds(began: list[float]) -> dict[str, Prepare]:
    def block() -> None:
        began.append(time.monotonic())
        time.sleep(BLOCKS)

    def culprit_of_it_all(_: object) -> None:
        block()

    async def first_step(_: object, _call_next: Any = None) -> None:
        block()

    async def later_step(_: object) -> None:
        await asyncio.sleep(0.01)
        block()

    first_step.__qualname__ = later_step.__qualname__ = CULPRIT

    def handler(function: Any) -> Prepare:
        return lambda peer, role: role.on_request("e")(function) and None

    def stream(_: roletalk.Peer, role: roletalk.Role) -> None:
        role.on_readable("e")(later_step)

    def middleware(peer: roletalk.Peer, role: roletalk.Role) -> None:
        role.on_request("e")(lambda ctx: None)
        peer.middleware(first_step)

    def callback(_: roletalk.Peer, role: roletalk.Role) -> None:
        role.on_request("e")(lambda ctx: role.disable())
        role.on_status_change(culprit_of_it_all)

    return {
        "a sync handler": handler(culprit_of_it_all),
        "an async handler's first step": handler(first_step),
        "an async handler's later step": handler(later_step),
        "a stream's handler": stream,
        "a middleware": middleware,
        "a callback": callback,
    }


async def run(settings: Settings) -> list[Figure]:
    log = Log()
    logger = logging.getLogger("roletalk")
    logger.addHandler(log)
    began: list[float] = []
    figures: list[Figure] = []
    try:
        for what, prepare in kinds(began).items():
            log.named.clear()
            await one(prepare)
            while_blocked = [at - began[-1] for at, text in log.named if "and is still" in text]
            afterwards = [text for _, text in log.named if "and is still" not in text]
            first = min(while_blocked, default=float("inf"))
            figures += [
                at_most(f"{what} blocks the loop: named after", first, NAMED_WITHIN, "s"),
                at_least("  and when it is over, how many times", len(afterwards), 1),
            ]
            if settings.quick:
                break
    finally:
        logger.removeHandler(log)
    return figures


async def one(prepare: Prepare) -> None:
    async with (
        roletalk.Peer(name="server") as server,
        roletalk.Peer(name="client") as client,
    ):
        role = server.role("r")
        prepare(server, role)
        listener = await server.listen()
        await client.connect(listener.url)
        destination = client.destination("r")
        await destination.wait_ready(10)
        calls: list[Awaitable[Any]] = [destination.request("e"), destination.writable("e")]
        for call in calls:
            try:
                await call
            except roletalk.RoletalkError:
                continue
        # The heartbeat has looked at the clock again.
        await asyncio.sleep(1)
