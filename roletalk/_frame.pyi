import asyncio
import enum
from typing import Any, Final

from typing_extensions import disjoint_base

from ._inbound import FrameLimits, Inbound

STOOD_STILL: Final[float]

class ConnectionState(enum.IntFlag):
    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3

@disjoint_base
class Connection(Inbound):
    """One WebSocket connection: whole messages in, coalesced frames out, busy or not."""

    @property
    def close_code(self) -> int: ...
    @property
    def close_reason(self) -> str: ...
    @property
    def closed_by_us(self) -> bool: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_lost(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def unsent_bytes(self) -> int:
        """Bytes written here that the operating system has not taken yet."""
    @property
    def busy(self) -> bool:
        """Whether the unsent bytes are above the low-water mark."""
    @property
    def transport(self) -> Any: ...
    def on_open(self) -> None:
        """The upgrade is done."""
    def on_message(self, message: bytes) -> None:
        """A whole message came in, as bytes; `is_text` says of which kind."""
    def on_closed(self) -> None:
        """The connection is gone; `close_code` and `close_reason` say how."""
    def upgraded(self, transport: Any, rest: bytes = b"", budget: int = -1) -> None:
        """The upgrade is done: from now on this is the protocol of `transport`.

        `rest` was read already.  At most `budget` bytes may come until `lift_budget`; -1: any number.
        """
    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def set_limits(self, limits: FrameLimits) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def send_message(self, message: bytes, text: bool = False) -> None:
        """Queue one message, of bytes or of UTF-8 text. Raises ConnectionError when it is not open."""
    def check_alive(self, at: float, interval: float, timeout: float, lag: float = 0.0) -> None:
        """Ping when nothing came for `interval` seconds; close with 4005 `timeout` seconds after a ping
        that nothing followed.  Any received byte counts as life.

        `lag` is what this look is late by, in seconds: it counts against nobody, the remote may stand
        still with us.
        """
    def probe(self) -> asyncio.Future[None]:
        """Ping; returns a future that is done when the remote has read what was sent before, and what it had
        sent until then is read here, or when the connection closes.
        """
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake; what is queued is sent first.  Does nothing when not open."""
    def abort(self) -> None:
        """Drop the connection at once."""
