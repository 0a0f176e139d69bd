"""Roletalk messages by hand (docs/protocol.md, sections 2 and 3), right ones and wrong ones.

It shares no code with the package under test.  A role or event may be given as bytes that are not
UTF-8, a correlation or channel as bytes of any length: they go out as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

ERROR, CHALLENGE, PROOF, CONFIRMED = 0, 1, 2, 3
MESSAGE, REQUEST, RESOLVE, OPEN_READABLE, OPEN_WRITABLE, REJECT = 100, 101, 102, 103, 104, 105
STREAM_DATA, STREAM_RESOLVE, STREAM_REJECT = 106, 107, 108
ACQUAINT, ROLES = 200, 201

CHUNK, FINISH, STREAM_ERROR, QUOTA = 0, 1, 2, 3

NULL = b"\x01"


def number(value: int, size: int | None = None) -> bytes:
    """A correlation or channel: minimal, or padded with leading zeros to `size` bytes."""
    return value.to_bytes(size or max(1, (value.bit_length() + 7) // 8), "big")


def value(data: object) -> bytes:
    """`data` as a payload: its data type byte and its bytes."""
    if data is None:
        return NULL
    if isinstance(data, (bytes, bytearray, memoryview)):
        return b"\x00" + bytes(data)
    if isinstance(data, bool):
        return b"\x02" + bytes([data])
    if isinstance(data, str):
        return b"\x03" + data.encode()
    if isinstance(data, (int, float)):
        return b"\x04" + repr(data).encode()
    return b"\x05" + json.dumps(data).encode()


def read_value(payload: bytes) -> object:
    """The Python value of a payload; raises `ValueError` where it is not strictly right."""
    kind, body = payload[0], payload[1:]
    if kind == 0:
        return body
    if kind == 1:
        return None
    if kind == 2:
        return body != b"\0"
    if kind == 3:
        return body.decode()
    if kind == 4:
        text = body.decode("ascii")
        return int(text) if text.lstrip("-").isdigit() else float(text)
    if kind == 5:
        return json.loads(body.decode())
    raise ValueError(f"data type {kind}")


def _name(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _u16(size: int) -> bytes:
    return size.to_bytes(2, "big")


def _number(given: int | bytes) -> bytes:
    return number(given) if isinstance(given, int) else given


def message(role: str | bytes, event: str | bytes, payload: bytes = NULL) -> bytes:
    """Message 100."""
    r, e = _name(role), _name(event)
    return bytes([MESSAGE]) + _u16(len(r)) + _u16(len(e)) + r + e + payload


def request(
    role: str | bytes, event: str | bytes, correlation: int | bytes, payload: bytes = NULL
) -> bytes:
    """Message 101; a correlation given as bytes goes out as it is."""
    r, e, c = _name(role), _name(event), _number(correlation)
    head = bytes([REQUEST]) + _u16(len(r)) + _u16(len(e)) + bytes([len(c)])
    return head + r + e + c + payload


def open_stream(
    kind: int,
    role: str | bytes,
    event: str | bytes,
    correlation: int | bytes,
    channel: int | bytes,
    payload: bytes = NULL,
) -> bytes:
    """Message 103 (the requester reads) or 104 (the requester writes)."""
    r, e = _name(role), _name(event)
    c, h = _number(correlation), _number(channel)
    head = bytes([kind]) + _u16(len(r)) + _u16(len(e)) + bytes([len(c), len(h)])
    return head + r + e + c + h + payload


def answer(kind: int, correlation: int | bytes, payload: bytes = NULL) -> bytes:
    """Message 102 (resolve) or 105 (reject)."""
    c = _number(correlation)
    return bytes([kind, len(c)]) + c + payload


def stream_answer(
    kind: int, correlation: int | bytes, channel: int | bytes, payload: bytes = NULL
) -> bytes:
    """Message 107 (resolve) or 108 (reject)."""
    c, h = _number(correlation), _number(channel)
    return bytes([kind, len(c), len(h)]) + c + h + payload


def stream_data(channel: int | bytes, flag: int, data: bytes = b"") -> bytes:
    """Message 106."""
    h = _number(channel)
    return bytes([STREAM_DATA, len(h)]) + h + bytes([flag]) + data


def json_message(kind: int, data: object) -> bytes:
    """A message whose body is JSON: the handshake's, 200 and 201."""
    return bytes([kind]) + json.dumps(data).encode()


def acquaint(peer_id: str, address: str, roles: Sequence[str]) -> bytes:
    """Message 200."""
    return json_message(ACQUAINT, {"id": peer_id, "address": address, "roles": list(roles)})


def roles_message(counter: object, roles: object) -> bytes:
    """Message 201."""
    return json_message(ROLES, {"i": counter, "roles": roles})


@dataclass
class Message:
    """A message taken apart.  What its type does not have is empty."""

    kind: int
    role: bytes = b""
    event: bytes = b""
    correlation: int = -1
    channel: int = -1
    flag: int = -1
    payload: bytes = b""
    raw: bytes = field(default=b"", repr=False)

    @property
    def data(self) -> object:
        return read_value(self.payload)


def decode(raw: bytes) -> Message:
    """Take a well-formed message apart; `IndexError` or `ValueError` for one that is not."""
    kind = raw[0]
    found = Message(kind, raw=raw)
    at = 1

    def take(size: int) -> bytes:
        nonlocal at
        if at + size > len(raw):
            raise ValueError("cut short")
        at += size
        return raw[at - size : at]

    has_names = kind in (MESSAGE, REQUEST, OPEN_READABLE, OPEN_WRITABLE)
    has_channel = kind in (OPEN_READABLE, OPEN_WRITABLE, STREAM_RESOLVE, STREAM_REJECT, STREAM_DATA)
    has_correlation = (has_names or has_channel or kind in (RESOLVE, REJECT)) and kind not in (
        MESSAGE,
        STREAM_DATA,
    )
    role_size = int.from_bytes(take(2), "big") if has_names else 0
    event_size = int.from_bytes(take(2), "big") if has_names else 0
    correlation_size = take(1)[0] if has_correlation else 0
    channel_size = take(1)[0] if has_channel else 0
    found.role, found.event = take(role_size), take(event_size)
    if has_correlation:
        found.correlation = int.from_bytes(take(correlation_size), "big")
    if has_channel:
        found.channel = int.from_bytes(take(channel_size), "big")
    if kind == STREAM_DATA:
        found.flag = take(1)[0]
    found.payload = raw[at:]
    return found
