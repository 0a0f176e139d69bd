"""Transports in memory: one loop, two ends, and a wire each way between them.

They keep asyncio's contract as transports of TCP do: bytes stay in order, what is on its way is bounded,
and an end learns what became of the other one only by what comes over the wire.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Final

HIGH_WATER: Final = 64 * 1024  # bytes unsent, above which a protocol is told to pause
READ: Final = 256 * 1024  # bytes given to a protocol at a time that brings no buffer of its own

Data = bytes | bytearray | memoryview


class Wire:
    """One direction of a connection: at most `capacity` bytes on their way, the end after them.

    `delay` is asked at each write for the seconds until it arrives.  What is on a wire that
    `is_blocked` stays where it is, until `wake`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        capacity: int,
        delay: Callable[[], float],
        is_blocked: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._room = capacity
        self._delay = delay
        self._is_blocked = is_blocked
        # When each arrives, in order; None stands for the end of it.
        self._parts: deque[tuple[float, memoryview | None]] = deque()
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # s on the loop's clock, of the timer
        self._is_reset = False
        self.is_dead = False
        """Whether it swallows whatever it is given, for ever."""
        self.sender: MemoryTransport
        self.receiver: MemoryTransport

    @property
    def is_blocked(self) -> bool:
        return self.is_dead or self._is_blocked()

    # -- the sender's end

    def send(self, data: memoryview) -> int:
        """Take as many bytes as there is room for, and say how many those are."""
        size = min(len(data), self._room)
        if size:
            self._room -= size
            self._put(memoryview(bytes(data[:size])))
        return size

    def end(self, *, reset: bool) -> None:
        """No more bytes will come; with `reset` the receiver is told that something went wrong."""
        self._is_reset = reset
        self._put(None)

    def _put(self, part: memoryview | None) -> None:
        arrives = self._loop.time() + self._delay()
        if self._parts:
            # Nothing overtakes what was written before it.
            arrives = max(arrives, self._parts[-1][0])
        self._parts.append((arrives, part))
        self.wake()

    # -- the receiver's end

    def wake(self) -> None:
        """See to it that the receiver is called when there is something that it takes."""
        if self._timer is not None or not self._parts or self.is_blocked:
            return
        if self.receiver.is_lost:
            self.clear()
        elif self.receiver.takes:
            self._due, context = self._parts[0][0], self.receiver.context
            if self._due <= self._loop.time():
                self._timer = self._loop.call_soon(self._arrived, context=context)
            else:
                self._timer = self._loop.call_at(self._due, self._arrived, context=context)

    def hurry(self) -> None:
        """Let what is on it arrive now."""
        now = self._loop.time()
        self._parts = deque((min(arrives, now), part) for arrives, part in self._parts)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()

    def _arrived(self) -> None:
        self._timer = None
        if not self._parts or self.is_blocked or not self.receiver.takes:
            return
        if self._parts[0][1] is not None:
            self.receiver.read()
        else:
            self._parts.clear()
            self.receiver.ended(ConnectionResetError("reset by peer") if self._is_reset else None)
        self.wake()

    def take(self, into: memoryview) -> int:
        """Move what has arrived to `into`, as much as fits."""
        # A loop may call back a little before the time.
        now, filled = max(self._loop.time(), self._due), 0
        while self._parts and filled < len(into):
            arrives, part = self._parts[0]
            if part is None or arrives > now:
                break
            size = min(len(part), len(into) - filled)
            into[filled : filled + size] = part[:size]
            filled += size
            if size == len(part):
                self._parts.popleft()
            else:
                self._parts[0] = arrives, part[size:]
        self._room += filled
        self.sender.room_is_there()
        return filled

    @property
    def has_unread(self) -> bool:
        """Whether bytes are on it, rather than nothing or just its end."""
        return any(part is not None for _, part in self._parts)

    def clear(self) -> None:
        """Forget what is on it: nobody will take that."""
        self._room += sum(len(part) for _, part in self._parts if part is not None)
        self._parts.clear()
        self.sender.room_is_there()


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        context: Context,
        out: Wire,
        into: Wire,
        extra: dict[str, Any],
        lost: Callable[[], None],
    ) -> None:
        super().__init__(extra)
        self._loop = loop
        self._out = out
        self._into = into
        self._on_lost = lost
        self._unsent: bytearray = bytearray()
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._is_over = False
        self._is_paused = False
        self._is_closing = False
        self._is_losing = False
        self._has_ended = False  # write_eof() was called
        self._is_at_end = False  # the other end will send no more
        self.context = context
        self.is_lost = False
        self.set_protocol(protocol)
        out.sender = self
        into.receiver = self

    def start(self) -> None:
        """Tell the protocol of its transport; reading begins."""
        try:
            self._protocol.connection_made(self)
        except Exception as error:
            self._broke(error, "protocol.connection_made() failed")
        self._into.wake()

    # -- the protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _broke(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._lose(error if isinstance(error, Exception) else None)

    # -- reading

    @property
    def takes(self) -> bool:
        """Whether it is read from; what comes waits on the wire otherwise."""
        return not (self._is_paused or self._is_closing or self._is_at_end)

    def is_reading(self) -> bool:
        return not (self._is_paused or self._is_closing)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        if self._is_paused and not self._is_closing:
            self._is_paused = False
            self._into.wake()

    def read(self) -> None:
        """Give the protocol one read's worth of what has arrived."""
        try:
            if hasattr(self._protocol, "get_buffer"):
                buffer = memoryview(self._protocol.get_buffer(-1)).cast("B")
                if not len(buffer):
                    raise RuntimeError("get_buffer() returned an empty buffer")
                self._protocol.buffer_updated(self._into.take(buffer))
            else:
                room = memoryview(bytearray(READ))
                self._protocol.data_received(bytes(room[: self._into.take(room)]))
        except Exception as error:
            self._broke(error, "a protocol failed to take what was read")

    def ended(self, error: OSError | None) -> None:
        """The other end sends no more: it has ended its direction, or with `error` is gone."""
        self._is_at_end = True
        if error is not None:
            self._lose(error)
            return
        try:
            keeps_open = self._protocol.eof_received()
        except Exception as raised:
            self._broke(raised, "protocol.eof_received() failed")
            return
        if not keeps_open:
            self.close()

    # -- writing

    def write(self, data: Data) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._has_ended:
            raise RuntimeError("cannot write after write_eof()")
        if self._is_closing:
            return
        view = memoryview(data).cast("B")
        sent = 0 if self._unsent else self._send(view)
        if sent < len(view):
            self._unsent += view[sent:]
            if len(self._unsent) > self._high and not self._is_over:
                self._is_over = True
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        self.write(b"".join(list_of_data))

    def _send(self, view: memoryview) -> int:
        if self._out.receiver.is_lost and not self._out.is_blocked:
            # The end of what that one has sent tells so, unless nobody is going to read it.
            if not self.takes:
                self._lose(ConnectionResetError("reset by peer"))
            return len(view)
        return self._out.send(view)

    def room_is_there(self) -> None:
        """The wire has room again: write what waits, though not from here."""
        if self._unsent:
            self._soon(self._write_more)

    def _write_more(self) -> None:
        if self._is_losing or not self._unsent:
            return
        with memoryview(self._unsent) as view:
            sent = self._send(view)
        del self._unsent[:sent]
        if self._is_over and len(self._unsent) <= self._low:
            self._is_over = False
            self._protocol.resume_writing()
        if not self._unsent:
            self._all_written()

    def _all_written(self) -> None:
        if self._is_closing:
            self._lose(None)
        elif self._has_ended:
            self._out.end(reset=False)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._has_ended and not self._is_closing:
            self._has_ended = True
            if not self._unsent:
                self._all_written()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        if len(self._unsent) > high and not self._is_over:
            self._is_over = True
            self._protocol.pause_writing()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    # -- the end

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def cut(self) -> None:
        """The connection is lost, and this end is told."""
        self._into.clear()
        self._lose(ConnectionResetError("the connection was cut"))

    def _lose(self, error: Exception | None) -> None:
        self._is_closing = True
        if not self._is_losing:
            self._is_losing = True
            self._unsent.clear()
            self._soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        self.is_lost = True
        # As a socket that is closed with bytes unread: that is a reset.
        reset = self._into.has_unread
        if not self._into.is_blocked:
            self._into.clear()
        self._out.end(reset=reset)
        self._on_lost()
        protocol, self._protocol = self._protocol, None
        protocol.connection_lost(error)

    def _soon(self, callback: Callable[..., object], *args: object) -> None:
        self._loop.call_soon(callback, *args, context=self.context)

    def __repr__(self) -> str:
        state = "lost" if self.is_lost else "closing" if self._is_closing else "open"
        sockname, peername = (self.get_extra_info(each) for each in ("sockname", "peername"))
        return f"<MemoryTransport {sockname} to {peername} {state}>"
