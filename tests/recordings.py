"""Recordings of the Go and the Node.js peer talking to each other, and what was meant by them.

``vectors/<scenario>.<dialer>-<listener>.json`` holds every frame of one connection between two of the
existing peers, as a wire tap saw it.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from roletalk._codec import ParsedEnvelope, encode_value, parse_envelope

VECTORS = Path(__file__).resolve().parent / "vectors"
PAIRS = ("go-go", "go-js", "js-go", "js-js")  # dialer, listener

each_pair = pytest.mark.parametrize("pair", PAIRS)

OBJECT = {"a": 1, "b": [None, True, "x<>&"], "c": "ü"}

# What the dialers were told to send, in their order, as a receiver can know it.
MEANT: dict[str, list[object]] = {
    "go": [
        b"\x00\x01\x02\xff",
        None,
        True,
        False,
        "héllo ✓",
        "",
        5,
        -7,
        9007199254740993,  # 2^53 + 1: an int64, which no float holds
        5.0,
        -2.5,
        0.1,
        0.3333333333,  # 1/3 in ten decimals
        0.0,  # 1e-11 in ten decimals
        1e21,
        1e300,
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        0.1000000015,  # a float32 0.1
        OBJECT,
        [1, 2],
        {"k": 1},
    ],
    "js": [
        b"\x00\x01\x02\xff",
        None,
        None,  # undefined
        True,
        False,
        "héllo ✓",
        "",
        5,
        -7,
        9007199254740992,
        -2.5,
        0.1,
        0.3333333333333333,
        1e-11,
        1e21,
        1e300,
        math.nan,
        math.inf,
        -math.inf,
        0,  # -0
        OBJECT,
        [1, 2],
        {"0": 1, "1": 2},
        None,  # a BigInt
    ],
}

# What the listeners' echo handlers made of it: the index, and the value that came back instead.  Go
# holds each number as a float64 and writes ten decimals; JS has no integers beyond 2^53, reads "+Inf"
# as NaN, and writes 5.0 as "5" and -0 as "0".
CHANGED: dict[str, dict[int, object]] = {
    "go-go": {6: 5.0, 7: -7.0, 8: 9007199254740992.0},
    "go-js": {8: 9007199254740992, 9: 5, 13: 0, 17: math.nan, 18: math.nan, 19: 0},
    "js-go": {7: 5.0, 8: -7.0, 9: 9007199254740992.0, 12: 0.3333333333, 13: 0.0, 19: 0.0},
    "js-js": {},
}


# -- reading recordings ------------------------------------------------------------------------------


@dataclass
class Recording:
    """One connection.  A frame is a dict with `dir`, `opcode`, `fin` and `payload`."""

    scenario: str
    pair: str
    content: dict[str, Any]
    frames: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.dialer, self.listener = self.pair.split("-")
        self.frames = [
            {**frame, "payload": bytes.fromhex(frame["payload_hex"])}
            for frame in self.content["frames"]
        ]

    def messages(self, side: str) -> list[bytes]:
        """The whole data messages that `side` ("dialer", "listener") sent."""
        whole: list[bytes] = []
        for frame in self.frames:
            if not frame["dir"].startswith(side) or frame["opcode"] not in (0, 2):
                continue
            if frame["opcode"] == 2:
                whole.append(b"")
            whole[-1] += frame["payload"]
        return whole

    def envelopes(self, side: str) -> list[ParsedEnvelope]:
        """The same, parsed, without the handshake's message 3, which is no envelope."""
        return [parse_envelope(message) for message in self.messages(side) if message[0] != 3]

    def peer_data(self, side: str) -> dict[str, Any]:
        (confirmed,) = (message for message in self.messages(side) if message[0] == 3)
        return dict(json.loads(confirmed[1:]))


def load(scenario: str, pair: str) -> Recording:
    text = (VECTORS / f"{scenario}.{pair}.json").read_text("utf-8")
    return Recording(scenario, pair, json.loads(text))


def same(one: object, other: object) -> bool:
    """Equal and of one type; NaN equals NaN, 0.0 is not -0.0."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and one == other


def echoed(pair: str) -> list[object]:
    """The values that the listener of `pair` answered with."""
    values = list(MEANT[pair.split("-")[0]])
    for index, value in CHANGED[pair].items():
        values[index] = value
    return values


def spelled_by(peer: str, value: object) -> bytes:
    """`value` as a payload in the spelling of `peer`.

    JS spells everything as ours does.  Go writes a float in ten decimals with the trailing zeros cut
    and the point left, infinity with a sign and short, and escapes ``<>&`` in JSON: all of it reads
    back to the same value (docs/protocol.md, section 2).
    """
    if peer == "go" and isinstance(value, float):
        if math.isinf(value):
            return b"\x04+Inf" if value > 0 else b"\x04-Inf"
        if not math.isnan(value):
            return b"\x04" + f"{value:.10f}".rstrip("0").encode()
    ours = encode_value(value)
    if peer == "go" and isinstance(value, dict):
        for character in b"<>&":
            ours = ours.replace(bytes([character]), b"\\u%04x" % character)
    return ours


def respelled(ours: bytes, value: object, peer: str) -> bytes:
    """The message `ours`, which ends with `value`, as `peer` would have written it."""
    payload = encode_value(value)
    assert ours.endswith(payload)
    return ours[: -len(payload)] + spelled_by(peer, value)
