"""Links that died without a word: a black hole between two peers, found by both of them in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import roletalk
from tests.chaos import Proxy
from tests.helpers import eventually
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "half-open links"

SLACK: Final = 1.0  # s beyond heartbeat_interval + heartbeat_timeout, or beyond handshake_timeout

Load: TypeAlias = Literal["idle", "requests pending", "writes piled up", "replies piled up"]
LOADS: Final[tuple[Load, ...]] = ("idle", "requests pending", "writes piled up", "replies piled up")
PENDING: Final = 100
CHUNK: Final = b"x" * 65_536
# So that a peer's unsent replies pass the limit beyond which it reads no more of the connection.
REPLIES: Final = 40
REPLY: Final = b"x" * 1_000_000

Silence: TypeAlias = Literal["both ways", "towards the target", "from the target"]
SILENCES: Final[tuple[Silence, ...]] = ("both ways", "towards the target", "from the target")


@dataclass(frozen=True)
class Beat:
    """Seconds, of both peers."""

    interval: float = 10.0
    timeout: float = 5.0

    @property
    def bound(self) -> float:
        return self.interval + self.timeout + SLACK


@dataclass
class Found:
    """Seconds from the silence on until each side had given the unit up, and what its calls ended in.

    failed: the errors of the calls that were pending.
    """

    dialling: float = float("inf")
    accepting: float = float("inf")
    failed: list[BaseException] = field(default_factory=list)
    pending: int = 0


@asynccontextmanager
async def linked(beat: Beat) -> AsyncIterator[tuple[roletalk.Peer, roletalk.Peer, Proxy]]:
    """A server, a client that dialled it through a proxy, and the proxy; each serves role "r"."""
    options: dict[str, Any] = {
        "heartbeat_interval": beat.interval,
        "heartbeat_timeout": beat.timeout,
        "request_timeout": None,
    }
    async with (
        roletalk.Peer(name="server", **options) as server,
        roletalk.Peer(name="client", **options) as client,
        Proxy((await server.listen()).port) as proxy,
    ):
        for peer in (server, client):
            peer.role("r").on_request("echo")(lambda ctx: ctx.data)
        await client.connect(proxy.url, reconnect=False)
        for peer in (server, client):
            await peer.destination("r").wait_ready(10)
        yield server, client, proxy


async def silence(load: Load, beat: Beat, *, after: float = 0.0) -> Found:
    """Let a link fall silent `after` seconds from its last request on, under `load` of both sides."""
    async with linked(beat) as (server, client, proxy):
        found = Found()
        never = asyncio.Event()
        hold = asyncio.Event()
        for peer in (server, client):
            _serve_slowly(peer.role("r"), never, hold)
        calls: list[asyncio.Task[Any]] = []
        for peer in (server, client):
            to = peer.destination("r")
            await to.request("echo")
            if load == "requests pending":
                calls += [_task(to.request("never")) for _ in range(PENDING)]
            elif load == "replies piled up":
                calls += [_task(to.request("held")) for _ in range(REPLIES)]
        # All of them have come once this has, for order is kept.
        await asyncio.gather(*(peer.destination("r").request("echo") for peer in (server, client)))
        await asyncio.sleep(after)
        await client.destination("r").request("echo")
        proxy.black_hole = True
        began = time.monotonic()
        lost = [_lost(client.units[0]), _lost(server.units[0])]
        if load == "replies piled up":
            hold.set()
        elif load == "writes piled up":
            calls += [_task(_write_on(peer.destination("r"))) for peer in (server, client)]
        found.pending = len(calls)
        await asyncio.wait(lost, timeout=3 * beat.bound + 60)
        dialling, accepting = (each.result() if each.done() else float("inf") for each in lost)
        found.dialling, found.accepting = dialling - began, accepting - began
        if calls:
            await asyncio.wait(calls, timeout=30)
        found.failed = [error for call in calls if call.done() and (error := call.exception())]
        never.set()
        for call in calls:
            call.cancel()
    return found


def _serve_slowly(role: roletalk.Role, never: asyncio.Event, hold: asyncio.Event) -> None:
    @role.on_request("never")
    async def wait(_ctx: Any) -> None:
        await never.wait()

    @role.on_request("held")
    async def reply_much(_ctx: Any) -> bytes:
        await hold.wait()
        return REPLY


async def _write_on(to: roletalk.Destination) -> None:
    while True:
        await to.send("unheard", CHUNK)


async def _wait(call: Any) -> Any:
    return await call


def _task(call: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(_wait(call))


def _lost(unit: roletalk.Unit) -> asyncio.Future[float]:
    """When `unit` is gone."""
    lost: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    unit.on_close(lambda _: lost.set_result(time.monotonic()))
    return lost


async def silent_handshake(where: Silence, timeout: float) -> Found:
    """Dial through a black hole: seconds until each side had given it up."""
    async with (
        roletalk.Peer(name="server", handshake_timeout=timeout) as server,
        roletalk.Peer(name="client", handshake_timeout=timeout) as client,
        Proxy((await server.listen()).port) as proxy,
    ):
        proxy.up.black_hole = where != "from the target"
        proxy.down.black_hole = where != "towards the target"
        found = Found(pending=1)
        began = time.monotonic()

        async def watch() -> None:
            await eventually(
                lambda: server.stats()["handshake_failures"],
                timeout=timeout + 30,
            )
            found.accepting = time.monotonic() - began

        watching = asyncio.create_task(watch())
        try:
            await client.connect(proxy.url)
        except roletalk.RoletalkError as exc:
            found.failed.append(exc)
        found.dialling = time.monotonic() - began
        await asyncio.wait({watching})
        watching.exception()
    return found


async def run(settings: Settings) -> Sequence[Figure]:
    beat = Beat(0.5, 0.5) if settings.quick else Beat()
    handshake_timeout = 0.5 if settings.quick else 5.0
    # How long before a tick of the heartbeat the silence begins is to be anything.
    phases = [phase / 16 for phase in range(16)]
    heavy = phases[::8]
    trials = [
        (load, after)
        for load in LOADS
        for after in (heavy if load == "replies piled up" else phases)
    ]
    found = await asyncio.gather(*(silence(load, beat, after=after) for load, after in trials))
    figures: list[Figure] = []
    for load in LOADS:
        those = [one for (its, _), one in zip(trials, found, strict=True) if its == load]
        for side in ("dialling", "accepting"):
            slowest = max(getattr(one, side) for one in those)
            what = f"a dead link, {load}: until the {side} side knew, the longest of {len(those)}"
            figures.append(at_most(what, slowest, beat.bound, "s"))
        pending = sum(one.pending for one in those)
        if pending:
            failed = sum(
                isinstance(error, (roletalk.UnitClosedError, roletalk.NoUnitsError))
                for one in those
                for error in one.failed
            )
            what = f"a dead link, {load}: of {pending:,} calls, did not fail once it was known"
            figures.append(at_most(what, pending - failed, 0))
    greetings = await asyncio.gather(
        *(silent_handshake(where, handshake_timeout) for where in SILENCES)
    )
    for where, one in zip(SILENCES, greetings, strict=True):
        for side in ("dialling", "accepting"):
            what = f"a handshake that falls silent {where}: until the {side} side gave it up"
            figures.append(at_most(what, getattr(one, side), handshake_timeout + SLACK, "s"))
        errors = ", ".join(str(error) for error in one.failed)
        if not all(isinstance(error, roletalk.ConnectError) for error in one.failed):
            figures.append(
                Figure("a silent handshake ends with", "ConnectError", errors, met=False)
            )
    figures.append(
        told("heartbeat_interval + heartbeat_timeout there", beat.interval + beat.timeout, "s")
    )
    return figures
