"""Values to payloads and back (docs/protocol.md, section 2)."""

from typing import Any

import pytest

from roletalk._codec import encode_value

from .conftest import Measure
from .rig import loops

OBJECT = {"id": 17, "name": "Bob", "tags": ["a", "b"], "at": 1.5, "ok": True, "none": None}
VALUES: dict[str, Any] = {
    "null": None,
    "bool": True,
    "bytes of 32": bytes(32),
    "bytes of 64 KiB": bytes(65536),
    "bytearray of 32": bytearray(32),
    "str of 32": "x" * 32,
    "str of 32, not ASCII": "ä" * 32,
    "int": 123_456,
    "int beyond 64 bits": 1 << 70,
    "float": 1234.5,
    "object": OBJECT,
    "object of 100 floats": [n / 7 for n in range(100)],
}

each_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())


@each_value
def test_encode(measure: Measure, value: object) -> None:
    measure(loops.encode_values, value)


@each_value
def test_decode(measure: Measure, value: object) -> None:
    payload = encode_value(value)
    measure(loops.decode_values, payload[0], payload[1:])
