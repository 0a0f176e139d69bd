"""A TCP proxy that does to connections what networks do: late, slow, cut, reset, in pieces, silent.

It runs in the loop of its user. What it does to each of the two ways is a `Way`, which may be changed
at any time::

    async with Proxy(listener.port) as proxy:
        unit = await client.connect(proxy.url)
        proxy.up.delay = 0.02          # s, of what the dialling side sends
        proxy.black_hole = True        # both ways
        await proxy.reset()
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final

READ_SIZE: Final = 65_536
# Chunks that are on their way in one direction: what is delayed takes memory.
IN_FLIGHT: Final = 256
# Of what a throttled way lets through in a second, the part that goes in one write.
SLICE: Final = 0.02

# l_onoff and l_linger of SO_LINGER: to close is to reset.
RESETS: Final = struct.pack("ii", 1, 0)


class Way:
    """What happens to the bytes of one direction, of every connection of the proxy.

    delay, jitter: seconds until they go on, and up to how many more at random; their order stays.
    piece: the most bytes of one write.  rate: bytes a second, of each connection.  cut_after: of the
    bytes of a connection, how many go through before it is reset.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.jitter = 0.0
        self.piece: int | None = None
        self.rate: float | None = None
        self.cut_after: int | None = None
        self._clear = asyncio.Event()
        self._clear.set()

    @property
    def black_hole(self) -> bool:
        """Whether nothing goes through. What was sent meanwhile does once this is False again."""
        return not self._clear.is_set()

    @black_hole.setter
    def black_hole(self, value: bool) -> None:
        if value:
            self._clear.clear()
        else:
            self._clear.set()

    async def clear(self) -> None:
        """Wait until it is no black hole."""
        await self._clear.wait()

    def lateness(self) -> float:
        return self.delay + random.random() * self.jitter

    def size_of_write(self, sent: int, left: int) -> int:
        """How many of the `left` bytes go in the next write, when `sent` have gone before."""
        if self.piece is not None:
            left = min(left, self.piece)
        if self.rate is not None:
            left = min(left, max(int(self.rate * SLICE), 1))
        if self.cut_after is not None:
            left = min(left, max(self.cut_after - sent, 0))
        return left


class Connection:
    """One connection through the proxy, from its being accepted on."""

    def __init__(self, proxy: Proxy, dialler: socket.socket) -> None:
        self._proxy = proxy
        self._dialler = dialler
        self._target = _new_socket()
        self._ends_by_reset = False
        self._task = asyncio.get_running_loop().create_task(self._run())
        # Not in the task, which may be cancelled before it begins.
        self._task.add_done_callback(self._close)

    async def reset(self) -> None:
        """Send RST to both sides; returns when it is sent."""
        self._ends_by_reset = True
        self._task.cancel()
        await asyncio.wait({self._task})

    def half_close(self, *, up: bool) -> None:
        """Send FIN to the target (`up`) or to the dialling side; the other direction goes on."""
        (self._target if up else self._dialler).shutdown(socket.SHUT_WR)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        proxy = self._proxy
        ways: list[asyncio.Task[None]] = []
        try:
            await loop.sock_connect(self._target, proxy.target)
            for source, sink, way in (
                (self._dialler, self._target, proxy.up),
                (self._target, self._dialler, proxy.down),
            ):
                chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
                ways.append(loop.create_task(self._read(source, way, chunks)))
                ways.append(loop.create_task(self._write(sink, way, chunks)))
            await asyncio.gather(*ways)
        except OSError:
            # One side has reset it, or is not there: the other one learns of it likewise.
            self._ends_by_reset = True
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _close(self, done: asyncio.Task[None]) -> None:
        self._proxy.connections.remove(self)
        for end in (self._dialler, self._target):
            if self._ends_by_reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
            end.close()
        if not done.cancelled():
            done.result()

    async def _read(
        self, source: socket.socket, way: Way, chunks: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await way.clear()
            data = await loop.sock_recv(source, READ_SIZE)
            await chunks.put((loop.time() + way.lateness(), data))
            if not data:
                return

    async def _write(
        self, sink: socket.socket, way: Way, chunks: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        sent = 0
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(max(due - loop.time(), 0))
            if not data:
                await way.clear()
                sink.shutdown(socket.SHUT_WR)
                return
            at = 0
            while at < len(data):
                await way.clear()
                size = way.size_of_write(sent, len(data) - at)
                await loop.sock_sendall(sink, data[at : at + size])
                at += size
                sent += size
                if way.cut_after is not None and sent >= way.cut_after:
                    raise ConnectionResetError("cut")
                # The reader gets its turn, so that it sees the piece by itself.
                await asyncio.sleep(size / way.rate if way.rate is not None else 0)


class Proxy:
    """Forwards what dials its port to the port `target` of 127.0.0.1. An async context manager."""

    def __init__(self, target: int) -> None:
        self.target: Final = ("127.0.0.1", target)
        self.up: Final = Way()  # from the dialling side to the target
        self.down: Final = Way()
        self.connections: Final[list[Connection]] = []
        self._server = _new_socket()
        self._accepting: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        port: int = self._server.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def black_hole(self) -> bool:
        """Whether nothing goes through either way; new connections are accepted and stay silent."""
        return self.up.black_hole and self.down.black_hole

    @black_hole.setter
    def black_hole(self, value: bool) -> None:
        self.up.black_hole = self.down.black_hole = value

    async def reset(self) -> None:
        """Reset every connection that there is now."""
        await asyncio.gather(*(connection.reset() for connection in tuple(self.connections)))

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            dialler, _ = await loop.sock_accept(self._server)
            _prepare(dialler)
            self.connections.append(Connection(self, dialler))

    async def __aenter__(self) -> Proxy:
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(1024)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._accepting is not None
        self._accepting.cancel()
        with suppress(asyncio.CancelledError):
            await self._accepting
        self._server.close()
        await self.reset()


def _new_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    _prepare(made)
    return made


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    # A piece leaves by itself, however small.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
