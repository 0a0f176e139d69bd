"""The codec: values, numbers as each peer writes them, envelopes whole and cut short."""

from __future__ import annotations

import array
import ctypes
import dataclasses
import datetime as dt
import enum
import math
import re
import string
import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roletalk._codec import (
    ParsedEnvelope,
    build_answer,
    build_message,
    build_open,
    build_request,
    build_stream_answer,
    build_stream_data,
    decode_value,
    encode_value,
    parse_envelope,
)
from roletalk._wire import CloseCode, DataType, MessageType
from roletalk.errors import BadPayload, ProtocolError

MAX_NUMBER = 2**53 - 1


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 7


class Word(str, enum.Enum):
    YES = "yes"


class LoudInt(int):
    def __str__(self) -> str:
        return "LOUD"

    __repr__ = __str__


class LoudFloat(float):
    def __repr__(self) -> str:
        return "LOUD"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Tagged(msgspec.Struct):
    name: str


class Pair(NamedTuple):
    a: int
    b: int


def payload(datatype: int, raw: bytes) -> bytes:
    return bytes([datatype]) + raw


# ---- values to payloads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "datatype", "raw"),
    [
        (None, DataType.NULL, b""),
        (True, DataType.BOOL, b"\x01"),
        (False, DataType.BOOL, b"\x00"),
        ("", DataType.STRING, b""),
        ("é€😀\x00", DataType.STRING, "é€😀\x00".encode()),
        (Word.YES, DataType.STRING, b"yes"),
        (0, DataType.NUMBER, b"0"),
        (-1, DataType.NUMBER, b"-1"),
        (2**63 - 1, DataType.NUMBER, b"9223372036854775807"),
        (-(2**63), DataType.NUMBER, b"-9223372036854775808"),
        (2**63, DataType.NUMBER, b"9223372036854775808"),
        (-(2**63) - 1, DataType.NUMBER, b"-9223372036854775809"),
        (10**308, DataType.NUMBER, b"1" + b"0" * 308),
        (Level.HIGH, DataType.NUMBER, b"7"),
        (LoudInt(5), DataType.NUMBER, b"5"),
        (LoudInt(10**30), DataType.NUMBER, b"1" + b"0" * 30),
        (1.0, DataType.NUMBER, b"1.0"),
        (-0.0, DataType.NUMBER, b"-0.0"),
        (0.1, DataType.NUMBER, b"0.1"),
        (1e21, DataType.NUMBER, b"1e+21"),
        (1e-11, DataType.NUMBER, b"1e-11"),
        (5e-324, DataType.NUMBER, b"5e-324"),
        (-2.2250738585072014e-308, DataType.NUMBER, b"-2.2250738585072014e-308"),
        (sys.float_info.max, DataType.NUMBER, b"1.7976931348623157e+308"),
        (LoudFloat(2.5), DataType.NUMBER, b"2.5"),
        (math.nan, DataType.NUMBER, b"NaN"),
        (math.inf, DataType.NUMBER, b"Infinity"),
        (-math.inf, DataType.NUMBER, b"-Infinity"),
        (b"", DataType.BINARY, b""),
        (b"\x00\xff", DataType.BINARY, b"\x00\xff"),
        (bytearray(b"abc"), DataType.BINARY, b"abc"),
        (bytearray(), DataType.BINARY, b""),
        (memoryview(b"abc"), DataType.BINARY, b"abc"),
        (memoryview(b""), DataType.BINARY, b""),
        (memoryview(b"abcdef")[1:4], DataType.BINARY, b"bcd"),
        (memoryview(b"abcdef")[::2], DataType.BINARY, b"ace"),
        (memoryview(b"abcdef")[::-1], DataType.BINARY, b"fedcba"),
        (memoryview(b"abcdef").cast("B", (2, 3)), DataType.BINARY, b"abcdef"),
        (memoryview(ctypes.c_uint8(9)), DataType.BINARY, b"\x09"),
        (array.array("B", [1, 2, 3]), DataType.BINARY, b"\x01\x02\x03"),
        (array.array("B"), DataType.BINARY, b""),
        ((ctypes.c_char * 3)(b"x", b"y", b"z"), DataType.BINARY, b"xyz"),
        ({}, DataType.OBJECT, b"{}"),
        ([], DataType.OBJECT, b"[]"),
        ((), DataType.OBJECT, b"[]"),
        ({"a": [1, None, "ü"]}, DataType.OBJECT, '{"a":[1,null,"ü"]}'.encode()),
        (OrderedDict(b=1, a=2), DataType.OBJECT, b'{"b":1,"a":2}'),
        (Pair(1, 2), DataType.OBJECT, b"[1,2]"),
        (Point(1, 2), DataType.OBJECT, b'{"x":1,"y":2}'),
        (Tagged("t"), DataType.OBJECT, b'{"name":"t"}'),
        (dt.date(2024, 2, 29), DataType.OBJECT, b'"2024-02-29"'),
        (
            dt.datetime(2024, 2, 29, 1, tzinfo=dt.timezone.utc),
            DataType.OBJECT,
            b'"2024-02-29T01:00:00Z"',
        ),
        (dt.time(1, 2, 3), DataType.OBJECT, b'"01:02:03"'),
        (dt.timedelta(seconds=90), DataType.OBJECT, b'"PT90S"'),
        (uuid.UUID(int=1), DataType.OBJECT, b'"00000000-0000-0000-0000-000000000001"'),
        ([Colour.RED], DataType.OBJECT, b"[1]"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_encode(value: object, datatype: DataType, raw: bytes) -> None:
    assert encode_value(value) == payload(datatype, raw)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        frozenset(),
        Decimal(1),
        Fraction(1, 2),
        1j,
        Colour.RED,
        int,
        Point,
        Tagged,
        range(3),
        iter([]),
        len,
        ctypes.c_uint8(9),
    ],
    ids=repr,
)
def test_what_cannot_be_sent_is_named_in_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        encode_value(value)


def test_a_type_error_inside_an_object_passes() -> None:
    with pytest.raises(TypeError):
        encode_value({"a": object()})


def test_a_buffer_of_object_pointers_is_refused() -> None:
    with pytest.raises(TypeError, match="objects"):
        encode_value((ctypes.py_object * 2)())


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: 10**309, "too large"),
        (lambda: -(10**309), "too large"),
        (lambda: 1 << 1024, "too large"),
        (lambda: LoudInt(10**5000), "too large"),
        (lambda: "\ud800", "surrogates"),
        (lambda: ["\ud800"], "surrogates"),
        (lambda: nested(100_000), "JSON cannot hold"),
        (circular, "JSON cannot hold"),
        (released, "released"),
    ],
)
def test_what_is_out_of_range_is_a_value_error(make: Callable[[], object], reason: str) -> None:
    value = make()
    with pytest.raises(ValueError, match=reason):
        encode_value(value)


def test_the_largest_int_is_where_its_float_overflows() -> None:
    # Half a unit above the largest float rounds up, out of range; one less rounds down to it.
    limit = (2**54 - 1) << 970
    assert decode_value(encode_value(limit - 1)) == limit - 1
    with pytest.raises(ValueError, match="too large"):
        encode_value(limit)
    with pytest.raises(BadPayload):
        decode_value(payload(DataType.NUMBER, b"%d" % limit))


def test_the_digit_limit_of_the_interpreter_does_not_matter() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("no digit limit")
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert decode_value(encode_value(10**300)) == 10**300
        with pytest.raises(ValueError, match="too large"):
            encode_value(10**1000)
    finally:
        sys.set_int_max_str_digits(before)


def test_a_buffer_is_let_go_after_encoding() -> None:
    value = bytearray(b"abc")
    encode_value(value)
    value.extend(b"more")  # BufferError while a view of it lives
    assert encode_value(value) == payload(DataType.BINARY, b"abcmore")


def test_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    grid = numpy.arange(6, dtype="u1").reshape(2, 3)
    assert encode_value(grid) == payload(DataType.BINARY, bytes(range(6)))
    assert encode_value(grid.T) == payload(DataType.BINARY, bytes([0, 3, 1, 4, 2, 5]))
    assert encode_value(numpy.float64(1.5)) == payload(DataType.NUMBER, b"1.5")
    for refused in (numpy.int64(5), numpy.bool_(True), numpy.array([object()])):
        with pytest.raises(TypeError):
            encode_value(refused)


# ---- payloads to values --------------------------------------------------------------------------


def same(left: object, right: object) -> bool:
    """Equal, of one type, NaN to itself and -0.0 not to 0.0."""
    return type(left) is type(right) and repr(left) == repr(right)


@pytest.mark.parametrize(
    ("datatype", "raw", "value"),
    [
        (DataType.BINARY, b"", b""),
        (DataType.BINARY, b"\x00\xff", b"\x00\xff"),
        (DataType.NULL, b"", None),
        (DataType.NULL, b"extra", None),
        (DataType.BOOL, b"\x00", False),
        (DataType.BOOL, b"\x01", True),
        (DataType.BOOL, b"\xff", True),
        (DataType.BOOL, b"\x00\x01", False),
        (DataType.STRING, b"", ""),
        (DataType.STRING, "é€😀\x00".encode(), "é€😀\x00"),
        (DataType.STRING, b"a\xffb", "a\ufffdb"),
        (DataType.STRING, b"\xe2\x82", "\ufffd"),
        (DataType.STRING, b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (DataType.OBJECT, b'{"a":[1,2.5,null,true,"x"]}', {"a": [1, 2.5, None, True, "x"]}),
        (DataType.OBJECT, b" [ ] ", []),
        (DataType.OBJECT, b'"\\u003c"', "<"),
        (DataType.OBJECT, b"5", 5),
        (DataType.OBJECT, b"null", None),
    ],
)
def test_decode(datatype: DataType, raw: bytes, value: object) -> None:
    assert same(decode_value(payload(datatype, raw)), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # as JS writes them
        ("5", 5),
        ("-10", -10),
        ("0", 0),
        ("123.567", 123.567),
        ("1e-11", 1e-11),
        ("1e+21", 1e21),
        ("1.7976931348623157e+308", sys.float_info.max),
        ("5e-324", 5e-324),
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        # as Go writes them
        ("123.1122", 123.1122),
        ("+Inf", math.inf),
        ("-Inf", -math.inf),
        ("5.", 5.0),
        ("0.", 0.0),
        ("-0.", -0.0),
        ("18446744073709551615", 2**64 - 1),
        ("1" + "0" * 308 + ".", 1e308),
        # the rest of the grammar
        ("Inf", math.inf),
        ("+Infinity", math.inf),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.e3", 5000.0),
        ("1E5", 1e5),
        ("-0", 0),
        ("007", 7),
        ("-007", -7),
        ("0" * 400, 0),
        ("0" * 399 + ".", 0.0),
        ("-" + "9" * 17, -(10**17 - 1)),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, 10**19 - 1),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -(2**63) - 1),
        ("1" + "0" * 308, 10**308),
        ("1e-999", 0.0),
    ],
)
def test_number(text: str, value: float) -> None:
    assert same(decode_value(payload(DataType.NUMBER, text.encode())), value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"+5",
        b"+1.5",
        b"+",
        b"-",
        b".",
        b"-.",
        b"e5",
        b".e5",
        b"1e",
        b"1e+",
        b"1e5.5",
        b"1.2.3",
        b"--1",
        b"1-",
        b"1_000",
        b"1,5",
        b" 1",
        b"1 ",
        b"1\n",
        b"1\x00",
        b"1\x002",
        b"1" * 19 + b"\x002",
        b"1.5\x00",
        b"\x00",
        b"0x10",
        b"0b1",
        b"1n",
        b"1.0f",
        b"inf",
        b"nan",
        b"NAN",
        b"-NaN",
        b"+NaN",
        b"infinity",
        b"-inf",
        b"Infinit",
        b"Infinityx",
        b"True",
        "٣".encode(),
        "1٣".encode(),
        b"\xff",
        b"1e999",
        b"-1e999",
        b"1e" + b"9" * 300,
        b"1.8e308",
        b"1" + b"0" * 309,
        b"-1" + b"0" * 309,
        b"9" * 400,
        b"0" * 401,
        b"0." + b"0" * 399,
        b"x" * 10_000,
    ],
    ids=lambda raw: repr(raw)[:30],
)
def test_bad_number(raw: bytes) -> None:
    with pytest.raises(BadPayload):
        decode_value(payload(DataType.NUMBER, raw))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "data type"),
        (payload(DataType.BOOL, b""), "bool"),
        (payload(6, b"x"), "data type 6"),
        (payload(255, b""), "data type 255"),
        (payload(DataType.OBJECT, b""), "object"),
        (payload(DataType.OBJECT, b"{"), "object"),
        (payload(DataType.OBJECT, b"{} x"), "object"),
        (payload(DataType.OBJECT, b"NaN"), "object"),
        (payload(DataType.OBJECT, b'"\xff"'), "object"),
        (payload(DataType.OBJECT, b"1e999"), "object"),
        (payload(DataType.OBJECT, b'{"a":\x1b[31m'), "object"),
        (payload(DataType.NUMBER, b"\x1b[31m\xff\n"), "number"),
        (payload(DataType.NUMBER, b"\x00" * 400), "number"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_text_of_a_bad_payload_is_short_plain_and_to_the_point(bad: bytes, reason: str) -> None:
    with pytest.raises(BadPayload) as caught:
        decode_value(bad)
    text = caught.value.text
    assert reason in text
    assert set(text) <= set(string.printable) - set("\r\n\t\v\f")
    assert len(text) <= 200


@pytest.mark.parametrize("depth", [50_000, 1_000_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("closed", [False, True])
def test_deep_nesting_is_a_bad_payload(depth: int, opening: bytes, closed: bool) -> None:
    closing = b"]" if opening == b"[" else b"}"
    text = opening * depth + (b"1" + closing * depth if closed else b"")
    with pytest.raises(BadPayload):
        decode_value(payload(DataType.OBJECT, text))


def test_received_binary_is_bytes_of_its_own() -> None:
    assert type(decode_value(payload(DataType.BINARY, b"abc"))) is bytes


# ---- envelopes -----------------------------------------------------------------------------------

K = MessageType


@pytest.mark.parametrize(
    ("message", "envelope"),
    [
        (
            b"\x64\x00\x02\x00\x03roeve\x01",
            ParsedEnvelope(K.MESSAGE, b"ro", b"eve", None, None, None, b"\x01"),
        ),
        (
            b"\x64\x00\x00\x00\x00\x01",
            ParsedEnvelope(K.MESSAGE, b"", b"", None, None, None, b"\x01"),
        ),
        (
            b"\x64\x00\x01\x00\x01\xff\xfe\x03hi",
            ParsedEnvelope(K.MESSAGE, b"\xff", b"\xfe", None, None, None, b"\x03hi"),
        ),
        (
            b"\x65\x00\x01\x00\x01\x02re\x01\x00\x00data",
            ParsedEnvelope(K.REQUEST, b"r", b"e", 256, None, None, b"\x00data"),
        ),
        (b"\x66\x01\x00\x01", ParsedEnvelope(K.RESOLVE, b"", b"", 0, None, None, b"\x01")),
        (
            b"\x66\x08\x00\x1f\xff\xff\xff\xff\xff\xff\x01",
            ParsedEnvelope(K.RESOLVE, b"", b"", MAX_NUMBER, None, None, b"\x01"),
        ),
        (b"\x69\x02\x00\x05\x03no", ParsedEnvelope(K.REJECT, b"", b"", 5, None, None, b"\x03no")),
        (
            b"\x67\x00\x01\x00\x01\x01\x02re\x07\x01\x02\x01",
            ParsedEnvelope(K.OPEN_READABLE, b"r", b"e", 7, 258, None, b"\x01"),
        ),
        (
            b"\x68\x00\x01\x00\x01\x01\x01re\x07\x09\x01",
            ParsedEnvelope(K.OPEN_WRITABLE, b"r", b"e", 7, 9, None, b"\x01"),
        ),
        (b"\x6a\x01\x09\x00abc", ParsedEnvelope(K.STREAM_DATA, b"", b"", None, 9, 0, b"abc")),
        (b"\x6a\x01\x09\x01", ParsedEnvelope(K.STREAM_DATA, b"", b"", None, 9, 1, b"")),
        (b"\x6a\x01\x09\xc8x", ParsedEnvelope(K.STREAM_DATA, b"", b"", None, 9, 200, b"x")),
        (
            b"\x6a\x01\x09\x03\xff\xff\xff\xff\xff\xff\xff\xff",
            ParsedEnvelope(K.STREAM_DATA, b"", b"", None, 9, 3, b"\xff" * 8),
        ),
        (
            b"\x6b\x02\x02\x00\x07\x01\x02\x01",
            ParsedEnvelope(K.STREAM_RESOLVE, b"", b"", 7, 258, None, b"\x01"),
        ),
        (
            b"\x6c\x01\x01\x07\x00\x03no",
            ParsedEnvelope(K.STREAM_REJECT, b"", b"", 7, 0, None, b"\x03no"),
        ),
        (b"\xc8{}", ParsedEnvelope(K.ACQUAINT, b"", b"", None, None, None, b"{}")),
        (b"\xc9", ParsedEnvelope(K.ROLES, b"", b"", None, None, None, b"")),
    ],
    ids=lambda value: value.hex()[:24] if isinstance(value, bytes) else "",
)
def test_parse(message: bytes, envelope: ParsedEnvelope) -> None:
    assert parse_envelope(message) == envelope


def fault(message: bytes) -> int:
    with pytest.raises(ProtocolError) as caught:
        parse_envelope(message)
    return caught.value.close_code


def test_an_empty_message_is_malformed() -> None:
    assert fault(b"") == CloseCode.BAD_STRUCTURE


KNOWN = {100, 101, 102, 103, 104, 105, 106, 107, 108, 200, 201}


@pytest.mark.parametrize("kind", sorted(set(range(256)) - KNOWN))
def test_unknown_message_types(kind: int) -> None:
    # Those of the handshake are unknown here, too.
    assert fault(bytes([kind])) == CloseCode.WRONG_MESSAGE_TYPE
    assert fault(bytes([kind]) + b"\x00" * 50) == CloseCode.WRONG_MESSAGE_TYPE


WHOLE = [
    build_message("role", "event", "text"),
    build_request("role", "event", 2**38, [1]),
    build_answer(K.RESOLVE, 300, None),
    build_answer(K.REJECT, 300, "no"),
    build_open(K.OPEN_READABLE, "role", "event", 300, 70_000, True),
    build_open(K.OPEN_WRITABLE, "role", "event", 300, 5, b"x"),
    build_stream_answer(K.STREAM_RESOLVE, 300, 70_000, {}),
    build_stream_answer(K.STREAM_REJECT, 300, 0, "no"),
    build_stream_data(70_000, 0, b"chunk"),
    build_stream_data(70_000, 3, b"\x01\x00"),
]


@pytest.mark.parametrize("message", WHOLE, ids=lambda message: str(message[0]))
def test_every_truncation_of_an_envelope_is_malformed(message: bytes) -> None:
    body_size = len(parse_envelope(message).body)
    # One byte of the body belongs to the envelope: a payload's data type.  A stream's body may be
    # empty, but for a quota, whose missing bytes make a wrong number.
    needed = len(message) - body_size + (message[0] != K.STREAM_DATA)
    for size in range(needed):
        assert fault(message[:size]) == CloseCode.BAD_STRUCTURE
    for size in range(needed, len(message)):
        if message[0] == K.STREAM_DATA and message[4 + 1] == 3 and size == needed:
            assert fault(message[:size]) == CloseCode.WRONG_CORRELATION
        else:
            parse_envelope(message[:size])


@pytest.mark.parametrize(
    "message",
    [
        b"\x64\xff\xff\xff\xff" + b"x" * 1000,
        b"\x64\x00\x05\xff\xffabcde",
        b"\x65\xff\xff\xff\xff\xff",
        b"\x66\xff\x01\x01",
        b"\x67\xff\xff\xff\xff\xff\xff",
        b"\x6a\xff\x01\x00",
        b"\x6b\xff\xff\x01\x01\x01",
        b"\x6b\x01\xff\x01\x01\x01",
    ],
    ids=lambda message: message.hex()[:16],
)
def test_lengths_beyond_the_message(message: bytes) -> None:
    assert fault(message) == CloseCode.BAD_STRUCTURE


BAD_NUMBERS = [b"", b"\x00" * 9, b"\x00\x20\x00\x00\x00\x00\x00\x00", b"\xff" * 8, b"\x00" * 255]


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: number.hex()[:20])
def test_correlations_and_channels_out_of_range(number: bytes) -> None:
    size = bytes([len(number)])
    for message in (
        b"\x65\x00\x01\x00\x01" + size + b"re" + number + b"\x01",
        b"\x66" + size + number + b"\x01",
        b"\x69" + size + number + b"\x01",
        b"\x67\x00\x00\x00\x00" + size + b"\x01" + number + b"\x01\x01",
        b"\x67\x00\x00\x00\x00\x01" + size + b"\x01" + number + b"\x01",
        b"\x6a" + size + number + b"\x00",
        b"\x6b" + size + b"\x01" + number + b"\x01\x01",
        b"\x6c\x01" + size + b"\x01" + number + b"\x01",
    ):
        assert fault(message) == CloseCode.WRONG_CORRELATION


@pytest.mark.parametrize("quota", [b"", b"\x00" * 9, b"\x01" * 100])
def test_a_quota_has_one_to_eight_bytes(quota: bytes) -> None:
    assert fault(build_stream_data(9, 3, quota)) == CloseCode.WRONG_CORRELATION


@pytest.mark.parametrize("quota", [b"\x00", b"\x00" * 8, b"\xff" * 8])
def test_a_quota_above_the_largest_number_is_well_formed(quota: bytes) -> None:
    assert parse_envelope(build_stream_data(9, 3, quota)).body == quota


# ---- writing messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "raw"),
    [
        (0, "00"),
        (1, "01"),
        (255, "ff"),
        (256, "0100"),
        (65_535, "ffff"),
        (65_536, "010000"),
        (2**32 - 1, "ffffffff"),
        (2**32, "0100000000"),
        (2**39 - 1, "7fffffffff"),
        (MAX_NUMBER, "1fffffffffffff"),
    ],
)
def test_numbers_are_minimal_and_big_endian(number: int, raw: str) -> None:
    bare = bytes.fromhex(raw)
    sized = bytes([len(bare)]) + bare
    assert build_answer(K.RESOLVE, number, None) == b"\x66" + sized + b"\x01"
    assert build_stream_data(number, 1, b"") == b"\x6a" + sized + b"\x01"


def test_an_answer_keeps_the_length_that_it_is_given() -> None:
    assert build_answer(K.RESOLVE, 5, None, 3) == b"\x66\x03\x00\x00\x05\x01"
    assert build_answer(K.REJECT, 5, "no", 8) == b"\x69\x08" + b"\x00" * 7 + b"\x05\x03no"


def test_a_stream_answer_pads_the_shorter_number() -> None:
    expected = b"\x6b\x03\x03\x00\x00\x05\x01\x11\x70\x01"
    assert build_stream_answer(K.STREAM_RESOLVE, 5, 70_000, None) == expected
    expected = b"\x6c\x02\x02\x01\x2c\x00\x00\x03no"
    assert build_stream_answer(K.STREAM_REJECT, 300, 0, "no") == expected


def test_names_at_their_limit() -> None:
    longest = "é" * 32_767 + "x"
    found = parse_envelope(build_request(longest, longest, 1, None))
    assert found.role == found.event == longest.encode()
    found = parse_envelope(build_message(longest, "", None))
    assert (found.role, found.event) == (longest.encode(), b"")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: build_message("x" * 65_536, "e", None), "65535 bytes"),
        (lambda: build_message("r", "é" * 32_768, None), "65535 bytes"),
        (lambda: build_request("x" * 65_536, "e", 1, None), "65535 bytes"),
        (lambda: build_message("\ud800", "e", None), "surrogates"),
        (lambda: build_request("r", "e", -1, None), "2^53-1"),
        (lambda: build_request("r", "e", 2**53, None), "2^53-1"),
        (lambda: build_answer(K.RESOLVE, 2**64, None), "2^53-1"),
        (lambda: build_answer(K.REQUEST, 1, None), "RESOLVE or a REJECT"),
        (lambda: build_answer(K.RESOLVE, 256, None, 1), "does not fit"),
        (lambda: build_answer(K.RESOLVE, 1, None, 9), "does not fit"),
        (lambda: build_answer(K.RESOLVE, 1, None, -1), "does not fit"),
        (lambda: build_open(K.REQUEST, "r", "e", 1, 1, None), "OPEN_READABLE or OPEN_WRITABLE"),
        (lambda: build_stream_answer(K.RESOLVE, 1, 1, None), "STREAM_RESOLVE or a STREAM_REJECT"),
        (lambda: build_stream_data(2**53, 0, b""), "2^53-1"),
        (lambda: build_stream_data(1, 256, b""), "range"),
    ],
)
def test_what_no_message_can_carry_is_a_value_error(
    build: Callable[[], bytes], reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        build()


# ---- for all values ------------------------------------------------------------------------------

# Integers within 64 bits: inside an object larger ones are the JSON parser's affair.
json_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
json_values = st.recursive(
    json_leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
    max_leaves=20,
)
numbers = st.integers(0, MAX_NUMBER)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(json_values)
def test_json_values_round_trip(value: object) -> None:
    assert same(decode_value(encode_value(value)), value)


@given(st.integers(-(10**308), 10**308))
def test_integers_round_trip(value: int) -> None:
    assert encode_value(value) == payload(DataType.NUMBER, b"%d" % value)
    assert same(decode_value(encode_value(value)), value)


@given(st.floats())
def test_floats_round_trip(value: float) -> None:
    assert same(decode_value(encode_value(value)), value)


@given(st.binary())
def test_binary_round_trips(value: bytes) -> None:
    assert decode_value(encode_value(value)) == value
    assert decode_value(encode_value(memoryview(value)[::-1])) == value[::-1]


@given(st.binary(max_size=200))
@example(payload(DataType.OBJECT, b'{"a":1,"a":[]}'))
def test_no_bytes_make_decoding_raise_anything_but_bad_payload(raw: bytes) -> None:
    for message in (raw, *(payload(datatype, raw) for datatype in range(7))):
        text = ""
        try:
            decode_value(message)
        except BadPayload as error:
            text = error.text
        assert len(text) <= 200
        assert text.isascii()
        assert text.isprintable()


@given(st.text("0123456789+-.eE_ xInfatyN", max_size=12))
def test_a_number_that_is_taken_is_the_number_that_python_reads(text: str) -> None:
    try:
        value = decode_value(payload(DataType.NUMBER, text.encode()))
    except BadPayload:
        return
    assert same(value, int(text) if text.lstrip("-").isdigit() else float(text))


@given(st.binary(max_size=64), st.sampled_from(sorted(KNOWN)))
def test_no_bytes_make_parsing_raise_anything_but_protocol_error(raw: bytes, kind: int) -> None:
    for message in (raw, bytes([kind]) + raw):
        code = 4006
        try:
            parse_envelope(message)
        except ProtocolError as error:
            code = error.close_code
        assert code in (4002, 4004, 4006)


@given(names, names, numbers, numbers, json_values, st.integers(0, 255), st.binary())
def test_envelopes_round_trip(
    role: str, event: str, correlation: int, channel: int, value: object, flag: int, data: bytes
) -> None:
    r, e, body = role.encode(), event.encode(), encode_value(value)
    assert parse_envelope(build_message(role, event, value)) == (
        K.MESSAGE, r, e, None, None, None, body,
    )  # fmt: skip
    assert parse_envelope(build_request(role, event, correlation, value)) == (
        K.REQUEST, r, e, correlation, None, None, body,
    )  # fmt: skip
    for kind in (K.RESOLVE, K.REJECT):
        assert parse_envelope(build_answer(kind, correlation, value)) == (
            kind, b"", b"", correlation, None, None, body,
        )  # fmt: skip
    for kind in (K.OPEN_READABLE, K.OPEN_WRITABLE):
        assert parse_envelope(build_open(kind, role, event, correlation, channel, value)) == (
            kind, r, e, correlation, channel, None, body,
        )  # fmt: skip
    for kind in (K.STREAM_RESOLVE, K.STREAM_REJECT):
        assert parse_envelope(build_stream_answer(kind, correlation, channel, value)) == (
            kind, b"", b"", correlation, channel, None, body,
        )  # fmt: skip
    if flag != 3:
        assert parse_envelope(build_stream_data(channel, flag, data)) == (
            K.STREAM_DATA, b"", b"", None, channel, flag, data,
        )  # fmt: skip
