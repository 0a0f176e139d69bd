"""Frame headers and masks, as pure functions of bytes.

Written against RFC 6455, sections 5.2 and 5.3.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roletalk._framing import apply_mask, build_header, parse_frame_header
from roletalk.errors import ProtocolError
from tests import rawclient as raw

OPCODES = (raw.CONTINUATION, raw.TEXT, raw.BINARY, raw.CLOSE, raw.PING, raw.PONG)
CONTROL = (raw.CLOSE, raw.PING, raw.PONG)
KEY = b"\x1d\xe0\x5a\x93"
# At each end of each form of the length.
EDGES = (0, 1, 125, 126, 127, 65535, 65536, 65537, 2**31 - 1, 2**31, 2**32, 2**63 - 1)

masks = st.none() | st.binary(min_size=4, max_size=4)
sizes = st.sampled_from(EDGES) | st.integers(0, 2**63 - 1)
from_both = pytest.mark.parametrize("from_client", [False, True], ids=["server", "client"])


def bad(header: bytes, *, from_client: bool = True) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_frame_header(header, from_client=from_client)
    assert caught.value.close_code == 1002


# -- what is right -----------------------------------------------------------------------------------


@given(st.sampled_from(OPCODES), sizes, masks, st.booleans())
def test_what_another_implementation_wrote_is_read(
    opcode: int, size: int, mask: bytes | None, fin: bool
) -> None:
    if opcode in CONTROL:
        size, fin = size % 126, True
    header = raw.frame_header(opcode, size, fin=fin, mask=mask)
    parsed = parse_frame_header(header + b"payload", from_client=mask is not None)
    assert parsed == (opcode, fin, mask, len(header), size)


@given(st.sampled_from(OPCODES), sizes, masks)
def test_what_is_built_is_what_another_implementation_writes(
    opcode: int, size: int, mask: bytes | None
) -> None:
    assert build_header(opcode, size, mask) == raw.frame_header(opcode, size, mask=mask)


@given(st.sampled_from(OPCODES), st.binary(max_size=300), masks)
def test_a_whole_frame_there_and_back(opcode: int, payload: bytes, mask: bytes | None) -> None:
    if opcode in CONTROL:
        payload = payload[:125]
    frame = raw.encode_frame(opcode, payload, mask=mask)
    parsed = parse_frame_header(frame, from_client=mask is not None)
    assert parsed is not None
    assert parsed.header_size + parsed.size == len(frame)
    body = frame[parsed.header_size :]
    assert (body if mask is None else apply_mask(body, mask)) == payload


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("mask", [None, KEY], ids=["plain", "masked"])
def test_a_header_that_is_cut_short_is_not_decided_on(size: int, mask: bytes | None) -> None:
    header = raw.frame_header(raw.BINARY, size, mask=mask)
    for end in range(len(header)):
        assert parse_frame_header(header[:end], from_client=mask is not None) is None
    assert parse_frame_header(header, from_client=mask is not None) is not None


def test_a_header_in_any_kind_of_memory() -> None:
    header = raw.frame_header(raw.BINARY, 5, mask=None)
    kinds: list[Any] = [bytes, bytearray, memoryview]
    for kind in kinds:
        assert parse_frame_header(kind(header), from_client=False) is not None


# -- what is not allowed -----------------------------------------------------------------------------


@from_both
@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", OPCODES)
def test_reserved_bits(from_client: bool, rsv: int, opcode: int) -> None:
    mask = KEY if from_client else None
    bad(raw.frame_header(opcode, 1, rsv=rsv, mask=mask), from_client=from_client)


@from_both
@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
def test_reserved_opcodes(from_client: bool, opcode: int) -> None:
    mask = KEY if from_client else None
    bad(raw.frame_header(opcode, 0, mask=mask), from_client=from_client)


@from_both
@pytest.mark.parametrize("opcode", CONTROL)
def test_control_frames_are_short_and_whole(from_client: bool, opcode: int) -> None:
    mask = KEY if from_client else None
    bad(raw.frame_header(opcode, 1, fin=False, mask=mask), from_client=from_client)
    for size in (126, 65536):
        bad(raw.frame_header(opcode, size, mask=mask), from_client=from_client)
    for length_bytes in (2, 8):
        forced = raw.frame_header(opcode, 5, mask=mask, length_bytes=length_bytes)
        bad(forced, from_client=from_client)


@pytest.mark.parametrize("opcode", OPCODES)
def test_a_client_masks_and_a_server_does_not(opcode: int) -> None:
    bad(raw.frame_header(opcode, 1, mask=None), from_client=True)
    bad(raw.frame_header(opcode, 1, mask=KEY), from_client=False)
    bad(raw.frame_header(opcode, 1, mask=raw.ZERO_MASK), from_client=False)


@from_both
@pytest.mark.parametrize(
    ("size", "length_bytes"), [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)]
)
def test_a_length_has_its_shortest_form(from_client: bool, size: int, length_bytes: int) -> None:
    mask = KEY if from_client else None
    header = raw.frame_header(raw.BINARY, size, mask=mask, length_bytes=length_bytes)
    bad(header, from_client=from_client)


@from_both
@pytest.mark.parametrize("size", [2**63, 2**63 + 126, 2**64 - 1])
def test_a_length_has_no_sign_bit(from_client: bool, size: int) -> None:
    mask = KEY if from_client else None
    bad(raw.frame_header(raw.BINARY, size, mask=mask), from_client=from_client)


@from_both
@pytest.mark.parametrize(
    "size",
    [*range(2**63 - 15, 2**63), 2**32 - 1, 2**32, 2**32 + 5, 2**33 - 14, 2**40 + 126, 2**62],
)
def test_a_length_is_neither_narrowed_nor_added_to(from_client: bool, size: int) -> None:
    mask = KEY if from_client else None
    header = raw.frame_header(raw.BINARY, size, mask=mask, length_bytes=8)
    parsed = parse_frame_header(header, from_client=from_client)
    assert parsed == (raw.BINARY, True, mask, len(header), size)


@given(st.binary(max_size=20), st.booleans())
def test_any_bytes_are_a_header_a_violation_or_too_few(data: bytes, from_client: bool) -> None:
    try:
        parsed = parse_frame_header(data, from_client=from_client)
    except ProtocolError as error:
        assert error.close_code == 1002  # not raised is as good
        return
    if parsed is None:
        assert len(data) < 14
        return
    assert (parsed.mask is not None) == from_client
    built = build_header(parsed.opcode, parsed.size, parsed.mask)
    assert built[1:] == data[1 : parsed.header_size]
    assert built[0] & 0x7F == data[0] & 0x7F
    assert parsed.fin == bool(data[0] & 0x80)


@given(st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_what_is_decided_does_not_change_with_what_follows(
    data: bytes, more: bytes, from_client: bool
) -> None:
    def parse(data: bytes) -> object:
        try:
            return parse_frame_header(data, from_client=from_client)
        except ProtocolError as error:
            return str(error)

    first = parse(data)
    if first is not None:
        assert parse(data + more) == first


# -- masks -------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
def test_a_mask_is_applied_as_by_another_implementation(data: bytes, mask: bytes) -> None:
    masked = apply_mask(data, mask)
    assert masked == raw.apply_mask(data, mask)
    assert apply_mask(masked, mask) == data


@pytest.mark.parametrize("mask", [b"", b"abc", b"abcde"])
def test_a_mask_has_four_bytes(mask: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        apply_mask(b"data", mask)
    with pytest.raises(ValueError, match="4 bytes"):
        build_header(raw.BINARY, 4, mask)
