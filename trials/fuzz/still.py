"""A loop and a transport in which nothing happens by itself, and no time passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast


class _Timer:
    def cancel(self) -> None:
        pass


class StillLoop:
    """What a connection uses of a loop.  `run` calls what was put off; timers never fire."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self._ready.append((callback, args))

    def call_later(self, delay: float, callback: object, *args: object) -> _Timer:
        return _Timer()

    def run(self) -> None:
        while self._ready:
            callback, args = self._ready.popleft()
            callback(*args)


class StillTransport:
    """Keeps what is written, until the test takes it.

    loop: a `StillLoop`, or a real one; calls back as a transport of that loop does.
    While `stalled`, what is written counts as unsent.
    """

    def __init__(self, loop: Any, protocol: Any) -> None:
        self._loop = loop
        self._protocol: Any = protocol
        self._written: list[bytes] = []
        self._inbox = bytearray()
        self._high, self._low = 65_536, 16_384
        self._is_over = False
        self._is_reading = True
        self.backlog = 0
        self.stalled = False
        self.closing = False
        self.lost = False

    # -- what a connection calls

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def set_protocol(self, protocol: object) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._loop.call_soon(self._deliver)

    def write(self, data: bytes) -> None:
        assert not self.lost, "written after the connection was lost"
        self._written.append(bytes(data))
        if self.stalled:
            self.backlog += len(data)
            if self.backlog > self._high and not self._is_over:
                self._is_over = True
                self._protocol.pause_writing()

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.lost, "ended after the connection was lost"

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.backlog:
                self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.closing = True
        self.backlog = 0
        self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            protocol, self._protocol = self._protocol, None
            protocol.connection_lost(None)

    # -- what the other end does

    def written(self) -> bytes:
        """All that was written since the last call."""
        data = b"".join(self._written)
        self._written.clear()
        return data

    def take(self) -> None:
        """The system took all that is unsent."""
        self.backlog = 0
        if self._is_over:
            self._is_over = False
            self._protocol.resume_writing()
        if self.closing:
            self._loop.call_soon(self._lose)

    def feed(self, data: bytes) -> None:
        self._inbox += data
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and self._is_reading and not self.closing:
            room = cast(memoryview, self._protocol.get_buffer(-1))
            size = min(len(room), len(self._inbox))
            room[:size] = self._inbox[:size]
            del self._inbox[:size]
            self._protocol.buffer_updated(size)
