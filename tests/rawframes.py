"""WebSocket frames by hand (RFC 6455, section 5): right ones, and any kind of wrong ones."""

from __future__ import annotations

from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

ZERO_MASK = b"\0\0\0\0"


class Frame(NamedTuple):
    """One WebSocket frame as it was read, its payload unmasked; `mask` is its key, if it had one."""

    fin: bool
    rsv: int
    opcode: int
    mask: bytes | None
    payload: bytes


def apply_mask(payload: bytes, key: bytes) -> bytes:
    """`payload` XORed with the four bytes of `key`, over and over."""
    if key == ZERO_MASK or not payload:
        return payload
    size = len(payload)
    stream = key * (size // 4 + 1)
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream[:size], "big")
    return mixed.to_bytes(size, "big")


def frame_header(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = ZERO_MASK,
    length_bytes: int | None = None,
) -> bytes:
    """The bytes before a payload of `length` bytes, the mask key included.

    `length_bytes` (0, 2 or 8) forces a form of the length that may be longer than it needs to be;
    `mask` None leaves the frame unmasked.
    """
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[length_bytes]
    head = bytes([(0x80 if fin else 0) | (rsv & 7) << 4 | (opcode & 15)])
    head += bytes([(0 if mask is None else 0x80) | short])
    if length_bytes:
        head += length.to_bytes(length_bytes, "big")
    return head + (mask or b"")


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = ZERO_MASK,
    length_bytes: int | None = None,
) -> bytes:
    """One whole frame.  See `frame_header` for the options."""
    head = frame_header(
        opcode, len(payload), fin=fin, rsv=rsv, mask=mask, length_bytes=length_bytes
    )
    return head + (payload if mask is None else apply_mask(payload, mask))


def close_payload(code: int, text: str = "") -> bytes:
    """What a close frame carries."""
    return code.to_bytes(2, "big") + text.encode()
