"""The only connection to a unit is lost: whoever waits for it learns so at once, and what it means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import roletalk
from tests.chaos import Proxy
from tests.helpers import eventually
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most

NAME = "a single connection that is lost"

PENDING: Final = 500
BOUND: Final = 0.1  # s until the last of them has failed

How: TypeAlias = Literal["a reset", "an end without a close frame", "the remote process gone"]
WAYS: Final[tuple[How, ...]] = (
    "a reset",
    "an end without a close frame",
    "the remote process gone",
)


@dataclass
class Loss:
    """slowest: seconds from the loss on until the last call had failed.  silent: the calls whose error
    does not say all that its caller has to know.
    """

    slowest: float = 0.0
    silent: list[object] = field(default_factory=list)
    pending: int = 0


def says_it_all(error: object, event: str) -> bool:
    """Whether `error` names the unit, role and event, and says that the request may have been executed."""
    text = str(error)
    return (
        isinstance(error, roletalk.UnitClosedError)
        and "may have been executed" in text
        and all(repr(name) in text for name in ("server", "r", event))
        and error.unit is not None
        and (error.unit.name, error.role, error.event) == ("server", "r", event)
    )


async def lose(how: How, pending: int = PENDING) -> Loss:
    """Lose a connection that `pending` requests wait on, half of which are being executed."""
    never = asyncio.Event()
    async with (
        roletalk.Peer(name="server") as server,
        roletalk.Peer(name="client", request_timeout=None) as client,
        Proxy((await server.listen()).port) as proxy,
    ):

        @server.role("r").on_request("wait")
        async def wait(_ctx: Any) -> None:
            await never.wait()

        unit = await client.connect(proxy.url, reconnect=False)
        destination = client.destination("r")
        await destination.wait_ready(10)
        calls = [_timed(destination.request("wait")) for _ in range(pending // 2)]
        await eventually(lambda: server.stats()["running_handlers"] == len(calls))
        # Nobody will know whether these have come.
        proxy.up.black_hole = True
        calls += [_timed(destination.request("wait")) for _ in range(pending - len(calls))]
        # Two turns: they are written in the first.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        began = time.monotonic()
        if how == "a reset":
            await proxy.reset()
        elif how == "an end without a close frame":
            proxy.connections[0].half_close(up=False)
        else:
            server.units[0].connections[0].abort()
        outcomes = await asyncio.gather(*calls)
        loss = Loss(max(at for at, _ in outcomes) - began, pending=len(calls))
        loss.silent = [error for _, error in outcomes if not says_it_all(error, "wait")]
        assert not unit.connected
        never.set()
    return loss


def _timed(call: Any) -> asyncio.Task[tuple[float, object]]:
    """When `call` ended, and in what."""

    async def timed() -> tuple[float, object]:
        try:
            outcome = await call
        except Exception as exc:
            return time.monotonic(), exc
        return time.monotonic(), outcome

    return asyncio.ensure_future(timed())


async def run(settings: Settings) -> Sequence[Figure]:
    figures: list[Figure] = []
    for how in WAYS:
        losses = [await lose(how) for _ in range(3 if settings.quick else 30)]
        pending = sum(loss.pending for loss in losses)
        slowest = max(loss.slowest for loss in losses)
        silent = sum(len(loss.silent) for loss in losses)
        figures += [
            at_most(
                f"{how}: until the last of {PENDING} pending requests had failed, the longest of"
                f" {len(losses)}",
                slowest,
                BOUND,
                "s",
            ),
            at_most(
                f"{how}: of {pending:,} errors, do not name unit, role and event, or that the"
                " request may have been executed",
                silent,
                0,
            ),
        ]
    return figures
