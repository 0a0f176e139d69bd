"""Closing gracefully under load: each reply that was being computed arrives."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import roletalk
from tests.chaos import Proxy
from tests.helpers import eventually
from trials.faults.history import History
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "graceful closing under load"

# What those end in that were not begun: refused while the roles are being withdrawn, or not sent.
FAIL_WITH: Final = (roletalk.RemoteError, roletalk.UnitClosedError, roletalk.NoUnitsError)

How: TypeAlias = Literal["server.close()", "server.drain()", "client.close()"]
WAYS: Final[tuple[How, ...]] = ("server.close()", "server.drain()", "client.close()")


@dataclass(frozen=True)
class Network:
    """delay, jitter: seconds each way.  rate: bytes a second, from the server.  reply: bytes of one.

    talkative: the client has something to say all the time, its replies too.
    """

    what: str
    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    reply: int = 100
    talkative: bool = False


NETWORKS: Final = (
    Network("loopback"),
    Network("50 to 80 ms each way", delay=0.05, jitter=0.03),
    Network("4 MB of replies at 1 MB/s", rate=1_000_000, reply=10_000),
    Network("the same, and a client that talks on", rate=1_000_000, reply=10_000, talkative=True),
)


@dataclass
class Ending:
    """begun: requests whose handler had begun.  unanswered: those of them that got no reply.

    seconds: that the closing took.
    """

    history: History
    running: int = 0
    begun: int = 0
    unanswered: int = 0
    seconds: float = 0.0


async def end(how: How, network: Network, in_flight: int = 400) -> Ending:
    """Close while `in_flight` callers ask without a pause, and handlers take up to half a second."""
    ending = Ending(History(FAIL_WITH))
    history = ending.history
    async with (
        roletalk.Peer(name="server") as server,
        roletalk.Peer(name="client", request_timeout=30) as client,
        Proxy((await server.listen()).port) as proxy,
    ):
        for way in (proxy.up, proxy.down):
            way.delay, way.jitter = network.delay, network.jitter
        proxy.down.rate = network.rate

        @server.role("r").on_request("compute")
        async def compute(ctx: Any) -> list[Any]:
            history.execute(ctx.data)
            await asyncio.sleep(random.uniform(0, 0.5))
            return [ctx.data, "x" * network.reply]

        await client.connect(proxy.url, reconnect=False)
        to = client.destination("r")
        await to.wait_ready(10)

        async def caller() -> None:
            while True:
                number = history.invoke(
                    time.monotonic(), timeout=30, expected=len(history.operations)
                )
                try:
                    reply = await to.request("compute", number)
                except Exception as exc:
                    history.fail(number, exc, time.monotonic())
                    if not isinstance(exc, roletalk.RemoteError):
                        return
                    # Refused: asks on all the same, for as long as there is a connection.
                    await asyncio.sleep(0.01)
                    continue
                history.acknowledge(number, reply.data[0], time.monotonic())

        talking = asyncio.create_task(_talk(client)) if network.talkative else None
        callers = [asyncio.create_task(caller()) for _ in range(in_flight)]
        await eventually(lambda: server.stats()["running_handlers"] > 0.5 * in_flight)
        ending.running = server.stats()["running_handlers"]
        began = time.monotonic()
        if how == "server.close()":
            await server.close(timeout=20)
        elif how == "server.drain()":
            await server.drain(timeout=20)
        else:
            await client.close(timeout=20)
        ending.seconds = time.monotonic() - began
        await asyncio.gather(*callers)
        if talking is not None:
            talking.cancel()
    ending.begun = len(history.executions)
    ending.unanswered = sum(
        not history.operations[number].acknowledged for number in history.executions
    )
    return ending


async def _talk(peer: roletalk.Peer) -> None:
    """Announce a change of roles, twenty times a second."""
    role = peer.role("fickle")
    while True:
        await asyncio.sleep(0.05)
        if role.active:
            role.disable()
        else:
            role.enable()


async def run(settings: Settings) -> Sequence[Figure]:
    figures: list[Figure] = []
    networks = NETWORKS[:2] if settings.quick else NETWORKS
    for network in networks:
        for how in WAYS:
            endings = [await end(how, network) for _ in range(1 if settings.quick else 3)]
            what = f"{how}, {network.what}"
            begun = sum(ending.begun for ending in endings)
            running = sum(ending.running for ending in endings)
            if how != "client.close()":
                # Whoever closes itself wants its replies no more.
                unanswered = sum(ending.unanswered for ending in endings)
                figures.append(
                    at_most(
                        f"{what}: lost replies, of {begun:,} requests begun, {running:,} of them"
                        " running then",
                        unanswered,
                        0,
                    )
                )
            contradictions = [one for ending in endings for one in ending.history.violations()]
            for violation in contradictions[:10]:
                print(violation)
            figures.append(
                at_most(
                    f"{what}: requests with a wrong, undocumented, late or no end",
                    len(contradictions),
                    0,
                )
            )
            slowest = max(ending.seconds for ending in endings)
            figures.append(told(f"{what}: took", slowest, "s"))
    return figures
