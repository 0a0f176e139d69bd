"""Values to payloads and back, numbers as each peer writes them."""

from __future__ import annotations

import array
import ctypes
import dataclasses
import datetime as dt
import enum
import math
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
    decode_value,
    encode_value,
)
from roletalk._wire import DataType
from roletalk.errors import BadPayload
from tests.helpers import shown


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
    ids=lambda value: shown(value)[:40],
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
    ids=shown,
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


def test_a_view_with_gaps_inside_of_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        encode_value([memoryview(b"abcdef")[::2]])


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
    ids=lambda raw: shown(raw)[:30],
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
    ids=lambda value: shown(value)[:30],
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
