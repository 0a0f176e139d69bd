"""The wire, written down a second time: plainly, slowly, and sharing no code with the package.

Sections are those of docs/protocol.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

NAMED = {100, 101, 103, 104}
CORRELATED = {101, 102, 103, 104, 105, 107, 108}
CHANNELLED = {103, 104, 106, 107, 108}
BODY_ONLY = {200, 201}
STREAM_DATA, QUOTA = 106, 3
LARGEST = 2**53 - 1


class Refused(Exception):
    """What is not allowed, with the close code that it costs."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


# -- payloads (section 2) --------------------------------------------------------------------------

_NUMBER = re.compile(rb"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS = {
    b"NaN": math.nan,
    b"Inf": math.inf,
    b"+Inf": math.inf,
    b"-Inf": -math.inf,
    b"Infinity": math.inf,
    b"+Infinity": math.inf,
    b"-Infinity": -math.inf,
}


def read_number(raw: bytes) -> int | float | None:
    """The number; None for what is none."""
    if raw in _WORDS:
        return _WORDS[raw]
    if len(raw) > 400 or not _NUMBER.fullmatch(raw):
        return None
    number = float(raw)
    if math.isinf(number):
        return None
    return int(raw) if raw.removeprefix(b"-").isdigit() else number


def same(one: object, other: object) -> bool:
    """Equal and of equal types, all the way down; NaN equals NaN, 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one):
            return math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


# -- messages (section 3) --------------------------------------------------------------------------


class Message(NamedTuple):
    kind: int
    role: bytes
    event: bytes
    correlation: int | None
    channel: int | None
    flag: int | None
    body: bytes


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, size: int) -> bytes:
        if size > len(self.left):
            raise Refused(4006)
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def _wire_number(raw: bytes) -> int:
    if not 1 <= len(raw) <= 8 or int.from_bytes(raw, "big") > LARGEST:
        raise Refused(4004)
    return int.from_bytes(raw, "big")


def parse_message(data: bytes) -> Message:
    """Take a message that follows the handshake apart; raises `Refused`."""
    reader = _Reader(data)
    kind = reader.number(1)
    if kind not in NAMED | CORRELATED | CHANNELLED | BODY_ONLY:
        raise Refused(4002)
    widths = [2, 2] if kind in NAMED else [0, 0]
    widths += [int(kind in CORRELATED), int(kind in CHANNELLED)]
    sizes = [reader.number(width) for width in widths]
    role, event, correlation, channel = [reader.take(size) for size in sizes]
    # What is cut short is that, whatever its numbers are.
    if kind not in BODY_ONLY and not reader.left:
        raise Refused(4006)
    numbers = [
        _wire_number(raw) if kind in kinds else None
        for raw, kinds in ((correlation, CORRELATED), (channel, CHANNELLED))
    ]
    flag = reader.number(1) if kind == STREAM_DATA else None
    if flag == QUOTA and not 1 <= len(reader.left) <= 8:
        raise Refused(4004)
    return Message(kind, role, event, numbers[0], numbers[1], flag, reader.left)


# -- frames (RFC 6455, sections 5 and 7) -----------------------------------------------------------


class Header(NamedTuple):
    opcode: int
    fin: bool
    mask: bytes | None
    header_size: int
    size: int


def parse_header(data: bytes, *, from_client: bool) -> Header | None:
    """The header that `data` begins with, None while it is not whole; raises `Refused`."""
    if len(data) < 2:
        return None
    fin, opcode, masked, short = data[0] >= 128, data[0] & 15, data[1] >= 128, data[1] & 127
    if data[0] & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Refused(1002)
    if opcode >= 8 and (not fin or short > 125):
        raise Refused(1002)
    if masked != from_client:
        raise Refused(1002)
    at = 2 + {126: 2, 127: 8}.get(short, 0)
    if len(data) < at:
        return None
    size = int.from_bytes(data[2:at], "big") if at > 2 else short
    if size < {126: 126, 127: 65536}.get(short, 0) or size >= 2**63:
        raise Refused(1002)
    mask = None
    if masked:
        mask, at = data[at : at + 4], at + 4
        if len(data) < at:
            return None
    return Header(opcode, fin, mask, at, size)


def apply_mask(data: bytes, mask: bytes | None) -> bytes:
    if not mask or not data:
        return data
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bytes | None = None
) -> bytes:
    size = len(payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    head += size.to_bytes({126: 2, 127: 8}[short], "big") if short > 125 else b""
    return head + (mask or b"") + apply_mask(payload, mask)


def frames(data: bytes, *, from_client: bool) -> list[tuple[int, bytes]]:
    """Opcode and payload of whole, final frames, which `data` consists of."""
    found = []
    while data:
        header = parse_header(data, from_client=from_client)
        assert header is not None
        assert header.fin
        end = header.header_size + header.size
        assert len(data) >= end, "a frame was cut short"
        found.append((header.opcode, apply_mask(data[header.header_size : end], header.mask)))
        data = data[end:]
    return found


@dataclass
class Reading:
    """What reading a connection comes to.

    answers: opcode and payload of the control frames to be sent; of a close frame the code alone.
    """

    messages: list[bytes] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    close_code: int = 0
    dropped: bool = False  # the transport is closed

    def close(self, code: int) -> None:
        if not self.close_code:
            self.close_code = code
            self.answers.append((CLOSE, code.to_bytes(2, "big")))


def _close_code(payload: bytes) -> int:
    """What a close frame is answered with."""
    if not payload:
        return 1000
    code = int.from_bytes(payload[:2], "big")
    sendable = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if len(payload) == 1 or not sendable:
        return 1002
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return 1007
    return code


def read(data: bytes, *, from_client: bool, most: int, fragments: int, budget: int) -> Reading:
    """What a connection makes of `data`, however that is cut.

    most: bytes of a message.  fragments: of a message, at most.  budget: bytes that may come; -1: any.
    """
    reading = Reading()
    is_over = 0 <= budget < len(data)
    if is_over:
        data = data[: budget + 1]
    try:
        _read(data, reading, from_client, most, fragments)
    except Refused as refused:
        reading.close(refused.code)
        return reading
    if is_over and not reading.dropped:
        reading.close(1009)
    return reading


def _read(data: bytes, reading: Reading, from_client: bool, most: int, fragments: int) -> None:
    parts: list[bytes] | None = None
    while True:
        header = parse_header(data, from_client=from_client)
        if header is None:
            return
        if header.opcode < 8 and header.size > most:
            raise Refused(1009)
        end = header.header_size + header.size
        if len(data) < end:
            return
        payload = apply_mask(data[header.header_size : end], header.mask)
        data = data[end:]
        if header.opcode == CLOSE:
            reading.close(_close_code(payload))
            reading.dropped = True
            return
        if reading.close_code:
            # Only its close frame is waited for.
            continue
        if header.opcode == PING:
            reading.answers.append((PONG, payload))
        elif header.opcode == TEXT:
            reading.close(4002)
        elif header.opcode in (BINARY, CONTINUATION):
            if (header.opcode == BINARY) != (parts is None):
                reading.close(1002)
                continue
            parts = [*(parts or ()), payload]
            if len(parts) > fragments or sum(map(len, parts)) > most:
                reading.close(1009)
            elif header.fin:
                reading.messages.append(b"".join(parts))
                parts = None
