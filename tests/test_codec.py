"""Envelopes whole and cut short."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roletalk._codec import (
    ParsedEnvelope,
    build_answer,
    build_message,
    build_open,
    build_request,
    build_stream_answer,
    build_stream_data,
    encode_value,
    parse_envelope,
)
from roletalk._wire import CloseCode, MessageType
from roletalk.errors import ProtocolError

MAX_NUMBER = 2**53 - 1


def payload(datatype: int, raw: bytes) -> bytes:
    return bytes([datatype]) + raw


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


# ---- for all envelopes ----------------------------------------------------------------------------

numbers = st.integers(0, MAX_NUMBER)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | names | st.binary()


@given(st.binary(max_size=64), st.sampled_from(sorted(KNOWN)))
def test_no_bytes_make_parsing_raise_anything_but_protocol_error(raw: bytes, kind: int) -> None:
    for message in (raw, bytes([kind]) + raw):
        code = 4006
        try:
            parse_envelope(message)
        except ProtocolError as error:
            code = error.close_code
        assert code in (4002, 4004, 4006)


@given(names, names, numbers, numbers, values, st.integers(0, 255), st.binary())
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
