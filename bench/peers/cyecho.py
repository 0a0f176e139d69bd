"""The reference, `cyecho.pyx`: picows with Cython listeners and nothing of ours."""

import asyncio
import ssl
from time import monotonic, monotonic_ns, perf_counter
from typing import Any

import picows

from bench.callers import counted, gathered
from bench.commands import Command, serve_commands
from bench.measured import Result, checked, payload_of, result
from bench.reference import load_cyecho
from bench.tls import certified, trusting

OPENING = 16  # connections at a time


async def serve(*, tls: bool = False) -> None:
    context, authority = certified() if tls else (None, None)
    cyecho = load_cyecho()
    audience: list[Any] = []

    def listener(request: picows.WSUpgradeRequest) -> picows.WSListener:
        if request.path == b"/listen":
            return cyecho.Subscriber(audience)  # type: ignore[no-any-return]
        kind = cyecho.Counter if request.path == b"/count" else cyecho.Echo
        return kind()  # type: ignore[no-any-return]

    async def fan_out(units: int, size: int, seconds: float) -> dict[str, float]:
        await gathered(lambda: len(audience), units)
        payload = payload_of(size)
        sent = 0
        began = monotonic()
        while monotonic() < began + seconds:
            sent += cyecho.tell(audience, payload)
            await asyncio.sleep(0)
        return {"sent": sent, "began": began}

    server = await picows.ws_create_server(listener, "127.0.0.1", 0, ssl=context)
    scheme = "ws" if context is None else "wss"
    url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await serve_commands({"fan_out": fan_out}, {"url": url, "authority": authority})
    server.close()


async def drive(address: Any) -> None:
    url = address["url"]
    context = trusting(address["authority"]) if address["authority"] else None
    cyecho = load_cyecho()

    async def connect(kind: Any, path: str) -> Any:
        _, listener = await picows.ws_connect(kind, url + path, ssl_context=context)
        return listener

    client = await connect(cyecho.EchoClient, "/echo")
    sender = await connect(cyecho.CounterClient, "/count")
    many = Many(url, context)

    async def requests(
        event: str, size: int, in_flight: int, seconds: float, timed: bool
    ) -> Result:
        del event  # it has no handlers to choose from
        return await _echo([client], payload_of(size), in_flight, seconds, timed=timed)

    async def each(event: str, size: int, seconds: float) -> Result:
        del event
        return await _echo(many.listeners, payload_of(size), 1, seconds)

    async def messages(size: int, seconds: float) -> Result:
        payload = payload_of(size)
        sent = 0
        room = asyncio.Event()
        began = perf_counter()
        until = monotonic_ns() + int(seconds * 1e9)
        while monotonic_ns() < until:
            room.clear()
            sent += sender.send_until(payload, until, room.set)
            if sender.is_paused:
                await room.wait()
        arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        sender.ask_count(arrived.set_result)
        return checked(sent, await arrived, perf_counter() - began)

    commands: dict[str, Command] = {
        "requests": requests,
        "messages": messages,
        "open": many.open,
        "each": each,
        "arrived": many.arrived,
    }
    await serve_commands(commands)


async def _echo(
    clients: list[Any], payload: bytes, in_flight: int, seconds: float, *, timed: bool = False
) -> Result:
    """Keep so many frames in flight on each of `clients`."""
    loop = asyncio.get_running_loop()
    finished = [loop.create_future() for _ in clients]

    def stop() -> None:
        for client in clients:
            client.stop()

    began = perf_counter()
    loop.call_later(seconds, stop)
    for client, future in zip(clients, finished, strict=True):
        client.start(payload, in_flight, timed, lambda future=future: future.set_result(None))
    await asyncio.gather(*finished)
    took = perf_counter() - began
    for client in clients:
        if client.last != payload:
            raise RuntimeError("the echo is not what was sent")
    latencies = [latency for client in clients for latency in client.latencies]
    return result(sum(client.echoes for client in clients), took, latencies)


class Many:
    """More connections to the same server."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self._url = url
        self._context = context
        self._cyecho = load_cyecho()
        self._tally = self._cyecho.Tally()
        self._transports: list[picows.WSTransport] = []
        self.listeners: list[Any] = []

    async def open(self, count: int, listening: bool = False) -> None:
        while len(self._transports) > count:
            transport = self._transports.pop()
            self.listeners.pop()
            transport.disconnect()
            await transport.wait_disconnected()
        while len(self._transports) < count:
            some = min(OPENING, count - len(self._transports))
            opened = await asyncio.gather(*[self._connect(listening) for _ in range(some)])
            for transport, listener in opened:
                self._transports.append(transport)
                self.listeners.append(listener)

    async def _connect(self, listening: bool) -> Any:
        def subscribed() -> Any:
            return self._cyecho.Subscribed(self._tally)

        kind = subscribed if listening else self._cyecho.EchoClient
        path = "/listen" if listening else "/echo"
        return await picows.ws_connect(kind, self._url + path, ssl_context=self._context)

    async def arrived(self, count: int) -> float:
        async def received() -> int:
            return int(self._tally.frames)

        checked(count, await counted(received, count), 0)
        self._tally.frames = 0
        return monotonic()
