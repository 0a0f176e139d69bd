"""Payloads: any bytes decoded, and any value encoded (docs/protocol.md, section 2)."""

from __future__ import annotations

import math
from typing import Final

from roletalk._codec import decode_value, encode_value
from roletalk.errors import BadPayload
from trials.fuzz.reference import read_number, same
from trials.fuzz.source import Source

DICTIONARY: Final = (b"NaN", b"Infinity", b"-Inf", b"e+", b"\\ud800", b"\\u0000", b"null", b"true")
MAX_TEXT: Final = 400  # characters of the text that a bad payload is rejected with
MAX_DEPTH: Final = 5


def test_one(data: bytes) -> None:
    if data[:1] == b"\xff":
        _encode(_value(Source(data[1:]), MAX_DEPTH))
    else:
        _decode(data)


def _decode(payload: bytes) -> None:
    kind, raw = payload[:1], payload[1:]
    try:
        value = decode_value(payload)
    except BadPayload as error:
        assert len(error.text) <= MAX_TEXT
        assert error.text.isascii()
        assert error.text.isprintable()
        good = kind in (b"\0", b"\1", b"\3") or (kind == b"\2" and raw)
        assert not good
        assert kind != b"\4" or read_number(raw) is None
        return
    if kind == b"\0":
        assert value == raw
    elif kind == b"\1":
        assert value is None
    elif kind == b"\2":
        assert value is (raw[0] != 0)
    elif kind == b"\3":
        assert value == raw.decode("utf-8", "replace")
    elif kind == b"\4":
        assert same(value, read_number(raw))
    else:
        assert kind == b"\5"
    _round_trip(value)


def _round_trip(value: object) -> None:
    again = decode_value(encode_value(value))
    assert same(again, value), (again, value)


# -- values ----------------------------------------------------------------------------------------


def _value(source: Source, depth: int) -> object:
    kind = source.byte() % (10 if depth else 8)
    if kind == 0:
        return source.some()
    if kind == 1:
        return source.pick((None, True, False))
    if kind == 2:
        return source.text()
    if kind == 3:
        units = source.some()
        return units[: len(units) & ~1].decode("utf-16-le", "surrogatepass")
    if kind == 4:
        return int.from_bytes(source.some(140), "little", signed=True)
    if kind == 5:
        return float(source.number(8)) * 10.0 ** (source.byte() - 128)
    if kind == 6:
        return source.pick(
            (math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308)
        )
    if kind == 7:
        buffer = memoryview(source.some())
        return source.pick((buffer, buffer[::2], buffer[::-1], bytearray(buffer)))
    items = [_value(source, depth - 1) for _ in range(source.byte() % 6)]
    if kind == 8:
        return items if source.flag() else tuple(items)
    return {source.text(): item for item in items}


def _encode(value: object) -> None:
    try:
        payload = encode_value(value)
    except ValueError:
        assert _is_beyond(value)
        return
    got = decode_value(payload)
    if isinstance(value, (bytearray, memoryview)):
        assert got == bytes(value)
    elif isinstance(value, (list, tuple, dict)):
        # What JSON has no type for comes back as a text or as null, and does so for good.
        _round_trip(got)
    else:
        assert same(got, value)


def _is_beyond(value: object) -> bool:
    """Whether `value` is or holds something that cannot be sent."""
    if isinstance(value, str):
        return any(0xD800 <= ord(character) < 0xE000 for character in value)
    if isinstance(value, int):
        return abs(value) >= 2**63
    if isinstance(value, (list, tuple)):
        return any(map(_is_beyond, value))
    if isinstance(value, dict):
        return any(map(_is_beyond, value.values()))
    return isinstance(value, memoryview) and not value.contiguous
