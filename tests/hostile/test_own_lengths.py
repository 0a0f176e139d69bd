"""Frames whose header names a length that no memory holds, or that wraps where it is narrowed or added to.

They end that one connection with the right code, from the header alone; `VictimProcess.watched` holds
the victim to take no memory for them.
"""

from __future__ import annotations

import contextlib

import pytest

from tests import rawclient as raw

from .harness import VictimProcess, assert_closed, fresh_id, until
from .victim import KEY_ID, KEYS

pytestmark = pytest.mark.slow

TOO_BIG, NOT_ALLOWED = 1009, 1002

LENGTHS = {
    "2^64-1": ((1 << 64) - 1, NOT_ALLOWED),
    "2^64-14": ((1 << 64) - 14, NOT_ALLOWED),
    "2^63+1": ((1 << 63) + 1, NOT_ALLOWED),
    "2^63": (1 << 63, NOT_ALLOWED),
    "2^63-1": ((1 << 63) - 1, TOO_BIG),
    # The header's own 10 or 14 bytes bring these to the sign.
    "2^63-10": ((1 << 63) - 10, TOO_BIG),
    "2^63-14": ((1 << 63) - 14, TOO_BIG),
    "2^62": (1 << 62, TOO_BIG),
    # What is left of these in 32 bits looks harmless.
    "2^32": (1 << 32, TOO_BIG),
    "2^32+5": ((1 << 32) + 5, TOO_BIG),
    "2^40+70000": ((1 << 40) + 70_000, TOO_BIG),
    "2^32-1": ((1 << 32) - 1, TOO_BIG),
    "2^31": (1 << 31, TOO_BIG),
    "2^31-1": ((1 << 31) - 1, TOO_BIG),
}
BODY = b"\x65" + bytes(40_000)

# A side that masks as it must not is refused for that, whatever the length: one of them stands for all.
CASES = {
    **{name: (length, code, False) for name, (length, code) in LENGTHS.items()},
    "wrongly masked": (1 << 40, NOT_ALLOWED, True),
}
# A dialer waits for its listener to end TCP, two seconds each: so fewer of them.
AT_A_DIALER = ("2^64-1", "2^63", "2^63-1", "2^63-10", "2^32+5", "2^31", "wrongly masked")


def lengths(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("length", "code", "is_wrongly_masked"), [CASES[name] for name in names], ids=names
    )


fragment = pytest.mark.parametrize("is_fragment", [False, True], ids=["message", "continuation"])


def frame(length: int, *, is_masked: bool, is_fragment: bool) -> bytes:
    """Such a header, the first bytes of a body, and before it what a continuation continues."""
    mask = b"mask" if is_masked else None
    before = raw.encode_frame(raw.BINARY, b"\x65", fin=False, mask=mask) if is_fragment else b""
    opcode = raw.CONTINUATION if is_fragment else raw.BINARY
    return before + raw.frame_header(opcode, length, mask=mask, length_bytes=8) + BODY


def attack(connection: raw.Connection, data: bytes, code: int) -> None:
    with contextlib.suppress(raw.PeerGone):
        connection.send_raw(data)
    assert_closed(connection, (code,))


@fragment
@lengths(*CASES)
@pytest.mark.parametrize("is_in", [False, True], ids=["before", "after"])
def test_a_listener(
    victim: VictimProcess,
    length: int,
    code: int,
    is_wrongly_masked: bool,
    is_fragment: bool,
    is_in: bool,
) -> None:
    data = frame(length, is_masked=not is_wrongly_masked, is_fragment=is_fragment)
    with victim.watched(), victim.connect() if is_in else victim.dial() as connection:
        attack(connection, data, code)


@lengths(*AT_A_DIALER)
@pytest.mark.parametrize("is_in", [False, True], ids=["before", "after"])
def test_a_dialer(
    victim: VictimProcess,
    length: int,
    code: int,
    is_wrongly_masked: bool,
    is_in: bool,
) -> None:
    data = frame(length, is_masked=is_wrongly_masked, is_fragment=False)
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url, reconnect=False)
        with listener.accept_upgraded() as connection:
            if is_in:
                peer_data = raw.peer_data(fresh_id())
                victim.honest.add(peer_data["id"])
                raw.authenticate(connection, KEYS[KEY_ID], KEY_ID, data=peer_data)
                assert victim.result(order)["error"] is None
            attack(connection, data, code)
            if is_in:
                until(lambda: not victim.units(connection.peer_id))
            else:
                assert victim.result(order)["error"] in ("ConnectError", "ProtocolError")


@pytest.mark.parametrize("opcode", [raw.CLOSE, raw.PING, raw.PONG])
@pytest.mark.parametrize("length", [(1 << 64) - 1, 1 << 63, (1 << 63) - 1, (1 << 32) + 5])
def test_control_frames(victim: VictimProcess, opcode: int, length: int) -> None:
    with victim.watched(), victim.connect() as connection:
        attack(connection, raw.frame_header(opcode, length, length_bytes=8), NOT_ALLOWED)
