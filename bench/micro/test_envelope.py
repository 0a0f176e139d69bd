"""Envelopes to bytes and back (docs/protocol.md, section 3)."""

from collections.abc import Callable
from typing import Any

import pytest

from roletalk import _codec
from roletalk._wire import MessageType

from .conftest import Measure
from .rig import loops

PAYLOAD = bytes(32)
CORRELATION = 70_000
CHANNEL = 300

WRITERS: dict[str, Callable[[Any, int], None]] = {
    "message": lambda writer, count: writer.write_messages(count),
    "request": lambda writer, count: writer.write_requests(CORRELATION, count),
    "resolve": lambda writer, count: writer.write_answers(False, CORRELATION, count),
    "reject": lambda writer, count: writer.write_answers(True, CORRELATION, count),
    "open": lambda writer, count: writer.write_opens(CORRELATION, CHANNEL, count),
    "stream resolve": lambda writer, count: writer.write_stream_answers(
        CORRELATION, CHANNEL, count
    ),
}

MESSAGES = {
    "message": _codec.build_message("greeter", "hello", PAYLOAD),
    "request": _codec.build_request("greeter", "hello", CORRELATION, PAYLOAD),
    "resolve": _codec.build_answer(MessageType.RESOLVE, CORRELATION, PAYLOAD),
    "reject": _codec.build_answer(MessageType.REJECT, CORRELATION, "no"),
    "open": _codec.build_open(
        MessageType.OPEN_WRITABLE, "greeter", "hello", CORRELATION, CHANNEL, PAYLOAD
    ),
    "stream resolve": _codec.build_stream_answer(
        MessageType.STREAM_RESOLVE, CORRELATION, CHANNEL, PAYLOAD
    ),
    "stream data": _codec.build_stream_data(CHANNEL, 0, PAYLOAD),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_write(measure: Measure, kind: str) -> None:
    measure(WRITERS[kind], loops.Writer(b"greeter", b"hello", PAYLOAD))


@pytest.mark.parametrize("kind", MESSAGES)
def test_parse(measure: Measure, kind: str) -> None:
    measure(loops.parse_messages, MESSAGES[kind])
