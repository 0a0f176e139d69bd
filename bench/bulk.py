"""The floor under streams: bytes on a bare uvloop connection, with nothing of ours or of picows's.

A second connection carries what is to come and how much came: the bytes themselves need no framing,
and theirs stays warm from one round to the next.
"""

import asyncio
import json
from time import perf_counter
from typing import Any, cast

# Tried from 64 KiB (16 KiB) to 1 MiB: little differs.  A plain asyncio.Protocol costs the reader some
# 10% of CPU more than one with a buffer of its own.
READ_BUFFER = 256 * 1024
WRITE_HIGH_WATER = 1024 * 1024


class Bulk(asyncio.BufferedProtocol):
    """One end of the connection that carries the bytes: counts what comes, writes what is asked."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(READ_BUFFER))
        self._received = 0
        self._expected = -1
        self._arrived: asyncio.Future[None] | None = None
        self._paused = False
        self._chunk = b""
        self._until = 0.0
        self._sent = 0
        self._finished: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        if self._received == self._expected and self._arrived is not None:
            self._arrived.set_result(None)

    async def read(self, expected: int) -> None:
        """Wait until `expected` bytes have come since the last call."""
        self._expected = expected
        if self._received != expected:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        self._received, self._expected, self._arrived = 0, -1, None

    async def write(self, chunk: bytes, seconds: float) -> int:
        """Write `chunk` again and again for so many seconds.  Returns the number of bytes."""
        self._chunk, self._until, self._sent = chunk, perf_counter() + seconds, 0
        finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._finished = finished
        if not self._paused:
            self._pump()
        return await finished

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._finished is not None:
            self._pump()

    def _pump(self) -> None:
        write, chunk = self._transport.write, self._chunk
        while not self._paused:
            if perf_counter() >= self._until:
                assert self._finished is not None
                self._finished.set_result(self._sent)
                self._finished = None
                return
            write(chunk)
            self._sent += len(chunk)


async def serve_bulk() -> asyncio.Server:
    """The server's side; what listens here is the control connection."""
    return await asyncio.start_server(_obey, "127.0.0.1", 0)


async def _obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[Bulk] = loop.create_future()

    def accept() -> Bulk:
        connected.set_result(Bulk())
        return connected.result()

    def answer(value: int) -> None:
        writer.write(json.dumps(value).encode() + b"\n")

    server = await loop.create_server(accept, "127.0.0.1", 0)
    answer(server.sockets[0].getsockname()[1])
    bulk = await connected
    server.close()
    while line := await reader.readline():
        asked = json.loads(line)
        if "expect" in asked:
            await bulk.read(asked["expect"])
            answer(asked["expect"])
        else:
            answer(await bulk.write(bytes(asked["chunk"]), asked["seconds"]))
    writer.close()


class BulkClient:
    """The client's side of both connections."""

    def __init__(
        self, bulk: Bulk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._bulk = bulk
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> "BulkClient":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        bulk_port = int(await reader.readline())
        loop = asyncio.get_running_loop()
        _, bulk = await loop.create_connection(Bulk, "127.0.0.1", bulk_port)
        return cls(bulk, reader, writer)

    async def stream(self, direction: str, chunk: int, seconds: float) -> tuple[int, float]:
        """Bytes that arrived at the reading end, and the seconds until the last of them."""
        began = perf_counter()
        if direction == "up":
            count = await self._bulk.write(bytes(chunk), seconds)
            await self._ask({"expect": count})
        else:
            count = await self._ask({"chunk": chunk, "seconds": seconds})
            await self._bulk.read(count)
        return count, perf_counter() - began

    async def _ask(self, command: dict[str, Any]) -> int:
        self._writer.write(json.dumps(command).encode() + b"\n")
        return int(await self._reader.readline())
