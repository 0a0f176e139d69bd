"""Headers of frames, and masks (RFC 6455, sections 5.2 and 5.3)."""

from __future__ import annotations

from roletalk import _framing
from roletalk.errors import ProtocolError
from trials.fuzz import reference
from trials.fuzz.source import Source


def test_one(data: bytes) -> None:
    source = Source(data)
    from_client = source.flag()
    rest = source.rest()
    try:
        expected = reference.parse_header(rest, from_client=from_client)
    except reference.Refused:
        try:
            parsed = _framing.parse_frame_header(rest, from_client=from_client)
        except ProtocolError as error:
            assert error.close_code == 1002
            return
        raise AssertionError(f"{parsed} was to be refused") from None
    parsed = _framing.parse_frame_header(rest, from_client=from_client)
    if parsed is None or expected is None:
        assert parsed is None
        assert expected is None
        return
    assert tuple(parsed) == tuple(expected), (parsed, expected)
    built = _framing.build_header(parsed.opcode, parsed.size, parsed.mask)
    assert built[0] & 0x7F == rest[0] & 0x7F
    assert built[1:] == rest[1 : parsed.header_size]
    payload = rest[parsed.header_size :]
    if parsed.mask is not None:
        masked = _framing.apply_mask(payload, parsed.mask)
        assert masked == reference.apply_mask(payload, parsed.mask)
        assert _framing.apply_mask(masked, parsed.mask) == payload
