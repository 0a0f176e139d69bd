"""The floor: bare uvloop connections, with neither frames nor roles.

The first line on a connection says what it is for: messages of `size` bytes that are echoed, each by a
write of its own unless they are `batched`; or, with none, the control connection of `bulk`.
"""

import asyncio
import json
from time import perf_counter, perf_counter_ns
from typing import cast

from bench.bulk import BulkClient, serve_bulk
from bench.commands import Command, serve_commands
from bench.measured import Result, checked, payload_of, result

BATCH = 64  # messages in a write, where they are one-way


class Echo(asyncio.Protocol):
    """Server side: messages of a size that the first line tells."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            head, newline, data = (self._head + data).partition(b"\n")
            if not newline:
                self._head = head
                return
            self._head = None
            told = json.loads(head)
            self._size, self._batched = told["size"], told["batched"]
        if self._batched:
            self._transport.write(data)
            return
        data = self._rest + data if self._rest else data
        whole = len(data) - len(data) % self._size
        for start in range(0, whole, self._size):
            self._transport.write(data[start : start + self._size])
        self._rest = data[whole:]


class EchoClient(asyncio.Protocol):
    """Client side: keeps messages in flight."""

    def __init__(self, payload: bytes, batched: bool) -> None:
        self._payload = payload
        self._batched = batched

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        told = {"size": len(self._payload), "batched": self._batched}
        self._transport.write(json.dumps(told).encode() + b"\n")

    async def run(self, in_flight: int, seconds: float, *, timed: bool) -> Result:
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = loop.create_future()
        self._echoes, self._in_flight, self._running, self._timed = 0, in_flight, True, timed
        self._received = bytearray()
        self._latencies: list[int] = []
        loop.call_later(seconds, self._stop)
        began = perf_counter()
        self._sent_at = perf_counter_ns()
        self._write(in_flight)
        await self._finished
        self._transport.close()
        return result(self._echoes, perf_counter() - began, self._latencies)

    def _stop(self) -> None:
        self._running = False

    def _write(self, count: int) -> None:
        if self._batched:
            self._transport.write(self._payload * count)
        else:
            for _ in range(count):
                self._transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        received, size = self._received, len(self._payload)
        received += data
        if not (count := len(received) // size):
            return
        last = received[(count - 1) * size : count * size]
        del received[: count * size]
        self._echoes += count
        if self._timed:
            now = perf_counter_ns()
            self._latencies.append(now - self._sent_at)
            self._sent_at = now
        if self._running:
            self._write(count)
            return
        self._in_flight -= count
        if self._in_flight == 0:
            if last == self._payload:
                self._finished.set_result(None)
            else:
                self._finished.set_exception(RuntimeError("the echo is not what was sent"))


async def serve() -> None:
    bulk = await serve_bulk()
    echo = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (bulk, echo)]
    await serve_commands({}, ports)
    bulk.close()
    echo.close()


async def drive(ports: list[int]) -> None:
    bulk_port, echo_port = ports
    client = await BulkClient.connect(bulk_port)

    async def stream(direction: str, chunk: int, seconds: float) -> Result:
        count, took = await client.stream(direction, chunk, seconds)
        return result(count / 1e6, took)

    async def requests(
        event: str, size: int, in_flight: int, seconds: float, timed: bool, batched: bool = False
    ) -> Result:
        del event  # it has no handlers to choose from
        loop = asyncio.get_running_loop()
        _, echo = await loop.create_connection(
            lambda: EchoClient(payload_of(size), batched), "127.0.0.1", echo_port
        )
        return await echo.run(in_flight, seconds, timed=timed)

    async def messages(size: int, seconds: float) -> Result:
        count, took = await client.stream("up", size * BATCH, seconds)
        return checked(count // size, count / size, took)

    commands: dict[str, Command] = {"stream": stream, "requests": requests, "messages": messages}
    await serve_commands(commands)
