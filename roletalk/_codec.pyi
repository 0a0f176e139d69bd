from typing import NamedTuple

from ._wire import MessageType

__all__ = [
    "ParsedEnvelope",
    "build_answer",
    "build_message",
    "build_open",
    "build_request",
    "build_stream_answer",
    "build_stream_data",
    "decode_value",
    "encode_value",
    "parse_envelope",
]

class ParsedEnvelope(NamedTuple):
    kind: MessageType
    role: bytes
    event: bytes
    correlation: int | None
    channel: int | None
    flag: int | None
    body: bytes

def encode_value(value: object) -> bytes: ...
def decode_value(payload: bytes) -> object: ...
def parse_envelope(message: bytes) -> ParsedEnvelope: ...
def build_message(role: str, event: str, value: object) -> bytes: ...
def build_request(role: str, event: str, correlation: int, value: object) -> bytes: ...
def build_answer(
    kind: int, correlation: int, value: object, correlation_size: int = 0
) -> bytes: ...
def build_open(
    kind: int, role: str, event: str, correlation: int, channel: int, value: object
) -> bytes: ...
def build_stream_answer(kind: int, correlation: int, channel: int, value: object) -> bytes: ...
def build_stream_data(channel: int, flag: int, data: bytes) -> bytes: ...
