"""roletalk, as its users would write it."""

import asyncio
import ssl
from functools import partial
from time import monotonic, perf_counter
from typing import Any

import roletalk
from bench.callers import check_echo, counted, gathered, keep_calling
from bench.commands import Command, serve_commands
from bench.measured import KEY, Result, checked, payload_of
from bench.streams import serve_streams, stream_commands
from bench.tls import certified, trusting

OPENING = 16  # connections at a time


async def serve(*, tls: bool = False) -> None:
    context, authority = certified() if tls else (None, None)
    received = 0

    async with roletalk.Peer(name="server") as peer:
        peer.add_key(*KEY)
        role = peer.role("bench")
        listeners = peer.destination("listener")

        @role.on_request("echo")
        def echo(ctx: roletalk.RequestContext) -> object:
            return ctx.data

        @role.on_request("echo_async")
        async def echo_async(ctx: roletalk.RequestContext) -> object:
            return ctx.data

        @role.on_message("count")
        def count(_: roletalk.Context) -> None:
            nonlocal received
            received += 1

        @role.on_request("counted")
        def tell_count(_: roletalk.RequestContext) -> int:
            return received

        async def fan_out(units: int, size: int, seconds: float) -> dict[str, float]:
            await gathered(lambda: len(listeners.units), units)
            payload = payload_of(size)
            sent = 0
            began = monotonic()
            while monotonic() < began + seconds:
                sent += len(listeners.broadcast("news", payload))
                await asyncio.sleep(0)
            return {"sent": sent, "began": began}

        serve_streams(role)
        listener = await peer.listen("127.0.0.1", 0, ssl=context)
        address = {"url": listener.url, "authority": authority}
        await serve_commands({"fan_out": fan_out}, address)


async def drive(address: Any) -> None:
    """`address` is what our server says, or the port at which another one is."""
    if isinstance(address, int):
        address = {"url": f"ws://127.0.0.1:{address}", "authority": None}
    context = trusting(address["authority"]) if address["authority"] else None

    async with roletalk.Peer(name="client") as peer:
        peer.add_key(*KEY)
        await peer.connect(address["url"], ssl=context)
        destination = peer.destination("bench")
        await destination.wait_ready(timeout=5)
        many = Many(address["url"], context)

        async def requests(
            event: str, size: int, in_flight: int, seconds: float, timed: bool
        ) -> Result:
            payload = payload_of(size)
            await check_echo(partial(_reply, destination, event), payload)
            calls = [partial(destination.request, event)] * in_flight
            return await keep_calling(calls, payload, seconds, timed=timed)

        async def messages(size: int, seconds: float) -> Result:
            async def count() -> int:
                return int((await destination.request("counted", None)).data)

            payload = payload_of(size)
            before = await count()
            sent = 0
            began = perf_counter()
            while perf_counter() < began + seconds:
                for _ in range(64):
                    await destination.send("count", payload)
                sent += 64
            arrived = await counted(count, before + sent) - before
            return checked(sent, arrived, perf_counter() - began)

        commands: dict[str, Command] = {
            "requests": requests,
            "messages": messages,
            "open": many.open,
            "each": many.each,
            "arrived": many.arrived,
            **stream_commands(destination),
        }
        await serve_commands(commands)
        await many.open(0)


async def _reply(destination: roletalk.Destination, event: str, payload: bytes) -> Any:
    return (await destination.request(event, payload)).data


class Many:
    """More connections to the same server, each of a peer of its own."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self._url = url
        self._context = context
        self._peers: list[roletalk.Peer] = []
        self._received = 0

    async def open(self, count: int, listening: bool = False) -> None:
        while len(self._peers) > count:
            leaving = [self._peers.pop() for _ in range(min(OPENING, len(self._peers) - count))]
            await asyncio.gather(*[peer.close() for peer in leaving])
        while len(self._peers) < count:
            some = min(OPENING, count - len(self._peers))
            self._peers += await asyncio.gather(*[self._connect(listening) for _ in range(some)])

    async def _connect(self, listening: bool) -> roletalk.Peer:
        peer = roletalk.Peer(name="one of many")
        peer.add_key(*KEY)
        if listening:

            @peer.role("listener").on_message("news")
            def news(_: roletalk.Context) -> None:
                self._received += 1

        await peer.connect(self._url, ssl=self._context)
        await peer.destination("bench").wait_ready(timeout=5)
        return peer

    async def each(self, event: str, size: int, seconds: float) -> Result:
        payload = payload_of(size)
        destinations = [peer.destination("bench") for peer in self._peers]
        await check_echo(partial(_reply, destinations[0], event), payload)
        calls = [partial(destination.request, event) for destination in destinations]
        return await keep_calling(calls, payload, seconds)

    async def arrived(self, count: int) -> float:
        async def received() -> int:
            return self._received

        checked(count, await counted(received, count), 0)
        self._received = 0
        return monotonic()
