"""A WebSocket connection without a network: the remote end is the test, byte by byte and turn by turn.

`FakeTransport` stands in for asyncio's; `Remote` is the other side of one connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from roletalk._buffer import Account
from roletalk._frame import Connection
from roletalk._inbound import FrameLimits
from roletalk.gate import Gate
from tests.rawclient import Frame, accept_key, apply_mask, encode_frame, upgrade_request


class _Socket:
    """What picows wants of a socket: a descriptor, which it asks for and leaves alone, and options to set."""

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *args: object) -> None:
        pass

    def getsockopt(self, *args: object) -> int:
        return 0


class FakeTransport:
    """Keeps what is written; while `stalled`, it counts as unsent until `take`."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.stalled = False
        self.backlog = 0
        self.reading = True
        self.closing = False
        self.aborted = False
        self.half_closed = False
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._high, self._low = 65536, 16384
        self._over = False
        self._inbox = bytearray()
        protocol.connection_made(self)

    # -- what a connection calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Socket() if name == "socket" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self._loop.call_soon(self._deliver)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def write(self, data: bytes) -> None:
        assert not self.lost, "written after the connection was lost"
        assert not self.half_closed, "written after this direction was ended"
        self.writes.append(bytes(data))
        if self.stalled:
            self.backlog += len(data)
            if self.backlog > self._high and not self._over:
                self._over = True
                self.protocol.pause_writing()

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.backlog:
                self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = self.closing = True
        self.backlog = 0
        self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            protocol, self.protocol = self.protocol, None
            protocol.connection_lost(None)

    # -- what the remote end does

    def written(self) -> bytes:
        """All that was written since the last call."""
        data = b"".join(self.writes)
        self.writes.clear()
        return data

    def take(self, size: int | None = None) -> None:
        """The operating system took `size` of the unsent bytes, or all."""
        self.backlog = 0 if size is None else self.backlog - size
        if self._over and self.backlog <= self._low:
            self._over = False
            self.protocol.resume_writing()
        if self.closing and not self.backlog:
            self._loop.call_soon(self._lose)

    def feed(self, data: bytes) -> None:
        """`data` came in; one read takes as much as the protocol has room for."""
        self._inbox += data
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and self.reading and not self.closing:
            if isinstance(self.protocol, asyncio.Protocol):
                data = bytes(self._inbox)
                self._inbox.clear()
                self.protocol.data_received(data)
                continue
            room = self.protocol.get_buffer(-1)
            size = min(len(room), len(self._inbox))
            room[:size] = self._inbox[:size]
            del self._inbox[:size]
            self.protocol.buffer_updated(size)


class Recorder(Connection):
    """A connection that keeps what it receives."""

    def __init__(
        self,
        limits: FrameLimits,
        *,
        is_client: bool,
        account: Account | None = None,
        takes_text: bool = False,
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            limits,
            is_client=is_client,
            account=account,
            takes_text=takes_text,
        )
        self.messages: list[bytes] = []
        self.closings = 0

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)

    def on_closed(self) -> None:
        self.closings += 1


class Remote:
    """The other side of a connection, which is a server or a client; the upgrade is done.

    `protocol` is what the transport talks to at first, if that is no `Gate` of its own.
    """

    def __init__(self, connection: Connection, protocol: Any = None) -> None:
        self.is_client = connection.is_client
        self.transport = FakeTransport(
            protocol
            or Gate(
                connection,
                host="remote" if self.is_client else None,
                target="/" if self.is_client else None,
                budget=-1,
            )
        )
        if self.is_client:
            found = re.search(rb"Sec-WebSocket-Key: (\S+)", self.transport.writes[0])
            assert found
            self.transport.feed(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept_key(found[1]) + b"\r\n\r\n"
            )
        else:
            self.transport.feed(upgrade_request())
        self.transport.writes.clear()
        assert connection.is_open

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        """A frame as this side has to write it."""
        mask = None if self.is_client else b"\x1d\xe0\x5a\x93"
        return encode_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask)

    def feed(self, *frames: bytes) -> None:
        self.transport.feed(b"".join(frames))

    def sent(self) -> list[Frame]:
        """The frames that the connection wrote since the last call, unmasked."""
        return list(parse_frames(self.transport.written()))


def parse_frames(data: bytes) -> Iterator[Frame]:
    """The frames that `data` consists of, whole ones and nothing else."""
    while data:
        size, masked, at = data[1] & 127, bool(data[1] & 128), 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
        mask = data[at : at + 4] if masked else None
        at += 4 if masked else 0
        payload = data[at : at + size]
        assert len(payload) == size, "a frame was cut short"
        yield Frame(
            bool(data[0] & 128),
            data[0] >> 4 & 7,
            data[0] & 15,
            mask,
            payload if mask is None else apply_mask(payload, mask),
        )
        data = data[at + size :]


@contextmanager
def connected(
    *, client: bool = False, limits: FrameLimits | None = None
) -> Iterator[tuple[Recorder, Remote]]:
    """A connection that is open, and its remote end; dropped in the end."""
    connection = Recorder(limits or FrameLimits(), is_client=client)
    remote = Remote(connection)
    try:
        yield connection, remote
    finally:
        connection.abort()
        # What abort() put off must not outlive the loop.
        remote.transport._lose()


async def turns(count: int = 3) -> None:
    """Let everything happen that is ready to."""
    for _ in range(count):
        await asyncio.sleep(0)
