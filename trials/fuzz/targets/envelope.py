"""Envelopes: any bytes taken apart, and what was taken apart built again (docs/protocol.md, section 3)."""

from __future__ import annotations

from roletalk import _codec
from roletalk.errors import BadPayload, ProtocolError
from trials.fuzz.reference import Message, Refused, parse_message


def test_one(data: bytes) -> None:
    try:
        expected = parse_message(data)
    except Refused as refused:
        try:
            parsed = _codec.parse_envelope(data)
        except ProtocolError as error:
            assert error.close_code == refused.code, (error.close_code, refused.code)
            return
        raise AssertionError(f"{parsed} was to be refused with {refused.code}") from None
    parsed = _codec.parse_envelope(data)
    assert tuple(parsed) == tuple(expected), (parsed, expected)
    again = _built(expected)
    if again is not None:
        assert parse_message(again)[:6] == expected[:6]
        assert tuple(_codec.parse_envelope(again)) == tuple(parse_message(again))


def _built(message: Message) -> bytes | None:
    """The same message as this package writes it; None where it never writes one like it."""
    kind, correlation, channel = message.kind, message.correlation or 0, message.channel or 0
    if kind == 106:
        return _codec.build_stream_data(channel, message.flag or 0, message.body)
    try:
        role, event = message.role.decode(), message.event.decode()
        value = _codec.decode_value(message.body)
    except (UnicodeDecodeError, BadPayload):
        return None
    if kind == 100:
        return _codec.build_message(role, event, value)
    if kind == 101:
        return _codec.build_request(role, event, correlation, value)
    if kind in (102, 105):
        return _codec.build_answer(kind, correlation, value)
    if kind in (103, 104):
        return _codec.build_open(kind, role, event, correlation, channel, value)
    if kind in (107, 108):
        return _codec.build_stream_answer(kind, correlation, channel, value)
    return None
