"""Bytes one by one, a throttled way, and half a close: everything is right, or fails as documented."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import roletalk
from tests.chaos import Proxy
from tests.helpers import eventually
from trials.faults.history import History
from trials.faults.scenario import Settings
from trials.faults.storm import stream_bytes
from trials.figures import Figure, at_least, at_most, told

NAME = "connections in pieces, throttled and half-closed"

# Values of every type of payload, and some sizes about which frames change their headers.
VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -10,
    123.567,
    "ü" * 70,
    b"x" * 125,
    b"x" * 126,
    b"x" * 3000,
    {"a": [1, {"b": None}]},
)


Shape: TypeAlias = Callable[[Proxy], None]


@dataclass
class Trickle:
    """history: of the requests of both sides.  streams: how many were complete, of all four kinds."""

    history: History
    streams: int = 0
    seconds: float = 0.0


@asynccontextmanager
async def linked(shape: Shape) -> AsyncIterator[tuple[roletalk.Peer, roletalk.Peer, Proxy]]:
    """A server, a client that dialled it through a proxy of that shape, with keys, and the proxy."""
    # A ping waits behind all that is on its way already: seconds of it, byte by byte.
    options: dict[str, Any] = {
        "handshake_timeout": 20,
        "request_timeout": 60,
        "heartbeat_timeout": 60,
    }
    async with (
        roletalk.Peer(name="server", **options) as server,
        roletalk.Peer(name="client", **options) as client,
        Proxy((await server.listen()).port) as proxy,
    ):
        for peer in (server, client):
            peer.add_key("cluster", "preshared secret")
            peer.role("r")
        shape(proxy)
        await client.connect(proxy.url, reconnect=False)
        for peer in (server, client):
            await peer.destination("r").wait_ready(20)
        yield server, client, proxy


async def trickle(shape: Shape, *, rounds: int = 10, stream_size: int = 20_000) -> Trickle:
    """Handshake, requests and streams, from both sides, over a connection of that shape."""
    result = Trickle(History(()))
    data = stream_bytes(0, stream_size)
    uploads: asyncio.Queue[bytes] = asyncio.Queue()
    started = time.monotonic()
    async with linked(shape) as (server, client, _):
        for peer in (server, client):
            _serve(peer.role("r"), result.history, data, uploads)
        await asyncio.gather(
            *(
                _ask(peer.destination("r"), value, result.history)
                for peer in (server, client)
                for value in VALUES * rounds
            )
        )
        for peer in (server, client):
            to = peer.destination("r")
            async with to.readable("download") as reader:
                result.streams += b"".join([chunk async for chunk in reader]) == data
            async with to.writable("upload") as writer:
                await writer.write(data)
            result.streams += await asyncio.wait_for(uploads.get(), 60) == data
    result.seconds = time.monotonic() - started
    return result


async def _ask(to: roletalk.Destination, value: object, history: History) -> None:
    number = len(history.operations)
    history.invoke(time.monotonic(), timeout=60, expected=(value,))
    try:
        reply = await to.request(str(number), value)
    except Exception as exc:
        history.fail(number, exc, time.monotonic())
    else:
        history.acknowledge(number, (reply.data,), time.monotonic())


def _serve(
    role: roletalk.Role, history: History, data: bytes, uploads: asyncio.Queue[bytes]
) -> None:
    @role.on_request
    def echo(ctx: Any) -> Any:
        history.execute(int(ctx.event))
        return ctx.data

    @role.on_writable("download")
    async def download(ctx: Any) -> None:
        async with ctx.accept() as stream:
            await stream.write(data)

    @role.on_readable("upload")
    async def upload(ctx: Any) -> None:
        async with ctx.accept() as stream:
            uploads.put_nowait(b"".join([chunk async for chunk in stream]))


async def half_close(*, up: bool, pending: int = 100) -> History:
    """One side gets an end of file once half of the requests are answered; the others are running."""
    history = History((roletalk.UnitClosedError, roletalk.NoUnitsError))
    over = asyncio.Event()
    async with linked(lambda _: None) as (server, client, proxy):

        @server.role("r").on_request
        async def compute(ctx: Any) -> object:
            history.execute(int(ctx.event))
            if int(ctx.event) % 2:
                await over.wait()
            return ctx.data

        calls = [_ask(client.destination("r"), n, history) for n in range(pending)]
        asking = asyncio.gather(*calls)
        await eventually(lambda: history.acknowledged == pending // 2)
        proxy.connections[0].half_close(up=up)
        await asking
        await eventually(lambda: not client.units and not server.units)
        over.set()
    return history


def _one_by_one(proxy: Proxy) -> None:
    proxy.up.piece = proxy.down.piece = 1


def _throttled(proxy: Proxy) -> None:
    proxy.up.rate = proxy.down.rate = 100_000


def _all_of_it(proxy: Proxy) -> None:
    for way in (proxy.up, proxy.down):
        way.piece, way.delay, way.jitter, way.rate = 7, 0.01, 0.01, 100_000


SHAPES: Final[dict[str, Shape]] = {
    "bytes one by one": _one_by_one,
    "100 kB/s": _throttled,
    "seven bytes at a time, 10 to 20 ms late, 100 kB/s": _all_of_it,
}
STREAMS: Final = 4  # that one trickle opens


async def run(settings: Settings) -> Sequence[Figure]:
    figures: list[Figure] = []
    rounds = 2 if settings.quick else 10
    for what, shape in SHAPES.items():
        result = await trickle(shape, rounds=rounds)
        requests = len(result.history.operations)
        figures += [
            at_least(f"{what}: right replies", result.history.acknowledged, requests),
            at_most(f"{what}: contradictions", len(result.history.violations()), 0),
            at_least(f"{what}: complete streams", result.streams, STREAMS),
            told(f"{what}: took", result.seconds, "s"),
        ]
    for up in (True, False):
        history = await half_close(up=up)
        what = f"an end of file at the {'accepting' if up else 'dialling'} side"
        figures += [
            told(f"{what}: requests, right replies", f"100, {history.acknowledged}"),
            at_most(f"{what}: contradictions", len(history.violations()), 0),
        ]
    return figures
