"""The client process of one contender: ``python -m bench.client roletalk|cyecho|uvloop PORT``.

Each answers to those of these commands that it knows:

- ``requests``: keep `in_flight` of them going for `seconds`; with `timed`, note how long each took
- ``messages``: send one-way for `seconds`, then wait until the server has said how many came
- ``stream``: chunks of so many bytes for `seconds`, to the server ("up") or from it ("down")
- ``beside``: such a stream, and beside it on the same connection one timed request after the other
"""

import asyncio
import sys
from time import monotonic_ns, perf_counter, perf_counter_ns
from typing import Any

import picows
import uvloop

import roletalk

from .bulk import BulkClient
from .commands import serve_commands
from .measured import KEY, PAYLOAD, Result, checked, result
from .reference import load_cyecho
from .streams import stream_commands


async def drive_roletalk(port: int) -> None:
    loop = asyncio.get_running_loop()

    async def requests(event: str, in_flight: int, seconds: float, timed: bool) -> Result:
        running = True
        latencies: list[int] = []

        def stop() -> None:
            nonlocal running
            running = False

        async def call() -> int:
            count = 0
            while running:
                await destination.request(event, PAYLOAD)
                count += 1
            return count

        async def call_timed() -> int:
            while running:
                sent_at = perf_counter_ns()
                await destination.request(event, PAYLOAD)
                latencies.append(perf_counter_ns() - sent_at)
            return len(latencies)

        reply = await destination.request(event, PAYLOAD)
        if reply.data != PAYLOAD:
            raise RuntimeError("the echo is not what was sent")
        began = perf_counter()
        loop.call_later(seconds, stop)
        counts = await asyncio.gather(
            *[(call_timed if timed else call)() for _ in range(in_flight)]
        )
        return result(sum(counts), perf_counter() - began, latencies)

    async def messages(seconds: float) -> Result:
        sent = 0
        began = perf_counter()
        while perf_counter() < began + seconds:
            for _ in range(64):
                await destination.send("count", PAYLOAD)
            sent += 64
        arrived = (await destination.request("counted", None)).data
        return checked(sent, arrived, perf_counter() - began)

    async with roletalk.Peer(name="client") as peer:
        peer.add_key(*KEY)
        await peer.connect(f"ws://127.0.0.1:{port}")
        destination = peer.destination("bench")
        await destination.wait_ready(timeout=5)
        await serve_commands(
            {"requests": requests, "messages": messages, **stream_commands(destination)}
        )


async def drive_cyecho(port: int) -> None:
    loop = asyncio.get_running_loop()
    cyecho = load_cyecho()
    _, echo = await picows.ws_connect(cyecho.EchoClient, f"ws://127.0.0.1:{port}/echo")
    _, counter = await picows.ws_connect(cyecho.CounterClient, f"ws://127.0.0.1:{port}/count")
    client: Any = echo
    sender: Any = counter

    async def requests(event: str, in_flight: int, seconds: float, timed: bool) -> Result:
        del event  # it has no handlers to choose from
        done = asyncio.Event()
        began = perf_counter()
        loop.call_later(seconds, client.stop)
        client.start(PAYLOAD, in_flight, timed, done.set)
        await done.wait()
        return result(client.echoes, perf_counter() - began, client.latencies)

    async def messages(seconds: float) -> Result:
        sent = 0
        room = asyncio.Event()
        began = perf_counter()
        until = monotonic_ns() + int(seconds * 1e9)
        while monotonic_ns() < until:
            room.clear()
            sent += sender.send_until(PAYLOAD, until, room.set)
            if sender.is_paused:
                await room.wait()
        counted: asyncio.Future[int] = loop.create_future()
        sender.ask_count(counted.set_result)
        arrived = await counted
        return checked(sent, arrived, perf_counter() - began)

    await serve_commands({"requests": requests, "messages": messages})


async def drive_uvloop(port: int) -> None:
    client = await BulkClient.connect(port)

    async def stream(direction: str, chunk: int, seconds: float) -> Result:
        count, took = await client.stream(direction, chunk, seconds)
        return result(count / 1e6, took, [])

    await serve_commands({"stream": stream})


if __name__ == "__main__":
    drivers = {"roletalk": drive_roletalk, "cyecho": drive_cyecho, "uvloop": drive_uvloop}
    uvloop.run(drivers[sys.argv[1]](int(sys.argv[2])))
