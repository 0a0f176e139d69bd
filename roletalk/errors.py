"""The tree of errors.  This module imports nothing of the package but `_text`.

::

    RoletalkError
    ├── ConnectError           dialling failed (also OSError's ConnectionError)
    ├── AuthError              the handshake was refused by either side
    ├── ProtocolError          the remote peer broke the wire protocol
    ├── NoUnitsError           no connected unit serves the role
    ├── RemoteError            a request was rejected by the unit that got it
    ├── RequestTimeout         no answer in time (also TimeoutError)
    ├── UnitClosedError        the unit went away (also ConnectionError)
    ├── StreamError            a stream failed, or the connection that it was asked for on
    └── WouldBlock             sending now would pass the high-water mark or a limit
    Reject                     raised *in handlers*: answer with a reject
    BadPayload                 a payload that does not decode (a Reject, a ProtocolError, a ValueError)

Whose fault it is stands in the type: `ProtocolError`, `RemoteError` and
`BadPayload` are the remote side's; `TypeError` and `ValueError` are the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._text import ERROR_CHARS, SHOWN_CHARS, named, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .unit import Unit

__all__ = [
    "AuthError",
    "BadPayload",
    "ConnectError",
    "NoUnitsError",
    "ProtocolError",
    "Reject",
    "RemoteError",
    "RequestTimeout",
    "RoletalkError",
    "StreamError",
    "UnitClosedError",
    "WouldBlock",
]


class RoletalkError(Exception):
    """Base of every error that the library raises for what happens at run time.

    `unit`, `role` and `event` say what was being done and with whom, where
    that is known, and are ``None`` otherwise.  `str` gives what happened, and in parentheses the `hint`.
    Whatever text of a remote peer it has is escaped, so that it may be logged as it is; it has at most
    4,096 characters.
    """

    unit: Unit | None = None
    role: str | None = None
    event: str | None = None
    _hint: str | Callable[[], str] = ""

    def __init__(self, text: object = "", *, hint: str | Callable[[], str] = "") -> None:
        super().__init__(printable(str(text), ERROR_CHARS))
        self._hint = hint

    @property
    def hint(self) -> str:
        """What to do about it, or what else is known; may be empty."""
        # What takes time to find out is found out when somebody reads it.
        return self._hint if isinstance(self._hint, str) else self._hint()

    def __str__(self) -> str:
        text, hint = self.what, self.hint
        if not hint:
            return text
        return f"{printable(text, max(ERROR_CHARS - len(hint) - 3, SHOWN_CHARS))} ({hint})"

    @property
    def what(self) -> str:
        """What happened, without the hint."""
        return super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        # The unit stays in its process, and a hint goes to another one in words only.
        return type(self), self.args, {**self.__dict__, "unit": None, "_hint": self.hint}


class ConnectError(RoletalkError, ConnectionError):
    """A connection could not be made: refused, unreachable, no WebSocket there, or timed out."""


class AuthError(RoletalkError):
    """The handshake failed: no common key, a wrong proof, a refused downgrade, the peer itself."""


class ProtocolError(RoletalkError):
    """The remote peer sent what the protocol does not allow.

    `close_code` is the WebSocket close code that the connection was closed with
    (docs/protocol.md, section 1).
    """

    def __init__(
        self, text: str, close_code: int = 4006, *, hint: str | Callable[[], str] = ""
    ) -> None:
        super().__init__(text, hint=hint)
        self.close_code: int = close_code


class NoUnitsError(RoletalkError):
    """No connected unit serves the destination's role."""


class RemoteError(RoletalkError):
    """A request or a stream request was rejected; `text` is the unit's reason, never empty.

    `text` is as the unit wrote it, cut at 4,096 characters; not escaped, as `str` of the error is, which
    names the unit, the role and the event as well.
    """

    def __init__(
        self,
        text: str,
        unit: Unit | None = None,
        role: str | None = None,
        event: str | None = None,
    ) -> None:
        super().__init__(text)
        self.text: str = text
        self.unit = unit
        self.role = role
        self.event = event

    @property
    def hint(self) -> str:
        """What to do about it; may be empty."""
        # Handlers fail with this text, and tell the reason to their own log only.
        if self.text == "internal error" and self.unit is not None:
            return "its log has the traceback; Peer(expose_errors=True) there sends it"
        return ""

    @property
    def what(self) -> str:
        """Who rejected what, and the reason."""
        if self.unit is None:
            return super().what
        what = (
            "" if self.event is None else f" {quoted(self.event)} of role {quoted(self.role or '')}"
        )
        return printable(f"{named(self.unit)} rejected{what}: {super().what}", ERROR_CHARS)


class RequestTimeout(RoletalkError, TimeoutError):
    """No answer came within the request's timeout; the unit may or may not have run it."""


class UnitClosedError(RoletalkError, ConnectionError):
    """The unit's last connection went while something was pending; it may have been executed."""


class StreamError(RoletalkError):
    """A stream failed after it had been accepted; or, while it was being opened, its connection was
    lost and the unit has others."""


class WouldBlock(RoletalkError):
    """`send_nowait` above the high-water mark, or a limit of pending work was reached."""


class Reject(Exception):
    """Raise it in a handler to reject the request with `text` (empty becomes ``"rejected"``)."""

    def __init__(self, text: object = "rejected") -> None:
        super().__init__(text)
        self.text: str = str(text) or "rejected"


class BadPayload(Reject, ProtocolError, ValueError):
    """A received payload does not decode (docs/protocol.md, section 2).

    A `Reject`, so that a handler which reads such a payload answers with its text, and a
    `ProtocolError`, so that a caller who reads such a reply catches it as any `RoletalkError`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.close_code = 4003
