"""What a hostile listener says to our dialer: each dial fails in good time, and harms nobody else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import rawclient as raw

from .harness import (
    VictimProcess,
    assert_closed,
    assert_usable,
    fresh_id,
    ids,
    until,
)
from .victim import KEY_ID, KEYS

pytestmark = pytest.mark.slow

frame = raw.encode_frame

FAILURES = {"ConnectError", "AuthError", "ProtocolError"}


def refused(victim: VictimProcess, order: int) -> str:
    """The name of the exception that the dial ended with, one that callers may expect."""
    outcome = victim.result(order, timeout=20)
    assert outcome["error"] in FAILURES, outcome
    return str(outcome["error"])


# -- the upgrade -------------------------------------------------------------------------------------


def upgraded(**options: Any) -> Callable[[bytes], bytes]:
    return lambda key: raw.upgrade_response(key, **options)


def plain(answer: bytes) -> Callable[[bytes], bytes]:
    return lambda _key: answer


BAD_ANSWERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("200", plain(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")),
    ("404", plain(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
    ("500-without-end", plain(b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * 100_000)),
    ("302", plain(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:9/\r\n\r\n")),
    ("100", plain(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("401", plain(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n")),
    ("status-huge", plain(b"HTTP/1.1 " + b"1" * 5000 + b" X\r\n\r\n")),
    ("status-text", plain(b"HTTP/1.1 abc X\r\n\r\n")),
    ("status-only", plain(b"\r\n\r\n")),
    ("not-http", plain(b"SSH-2.0-OpenSSH_9.0\r\n\r\n")),
    ("binary", plain(b"\xff\x00\xfe" * 100 + b"\r\n\r\n")),
    ("nothing", plain(b"")),
    ("cut", plain(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")),
    ("accept-wrong", upgraded(accept=b"d3JvbmcgYWNjZXB0IGtleSE=")),
    ("accept-of-another-key", upgraded(accept=raw.accept_key(b"AAAAAAAAAAAAAAAAAAAAAA=="))),
    ("accept-not-ascii", upgraded(accept=b"\xe9" * 28)),
    ("accept-missing", upgraded(drop=["Sec-WebSocket-Accept"])),
    ("upgrade-missing", upgraded(drop=["Upgrade"])),
    ("connection-missing", upgraded(drop=["Connection"])),
    ("deflate", upgraded(extra=["Sec-WebSocket-Extensions: permessage-deflate"])),
    ("subprotocol", upgraded(extra=["Sec-WebSocket-Protocol: chat"])),
    ("long-header", upgraded(extra=["X-Long: " + "x" * 100_000])),
    ("many-headers", upgraded(extra=["X: y"] * 20_000)),
]


@pytest.mark.parametrize("answer", ids(BAD_ANSWERS))
def test_bad_answer_to_the_upgrade(victim: VictimProcess, answer: Callable[[bytes], bytes]) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept() as connection, contextlib.suppress(raw.PeerGone):
            connection.send_raw(answer(raw.read_upgrade(connection)))
            connection.finish_sending()
            connection.wait_closed()
        assert refused(victim, order) == "ConnectError"
        assert listener.pending() == 0


ENDLESS = [
    ("line", b"HTTP/1.1 101 ", b"S" * 65536),
    ("headers", b"HTTP/1.1 101 Switching Protocols\r\n", b"A: b\r\n" * 10_000),
    ("body", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
]


def assert_cuts_off(connection: raw.Connection, first: bytes, more: bytes) -> None:
    """However much there is to come, the victim ends it."""
    with pytest.raises(raw.PeerGone):
        connection.send_raw(first + more * 1000)


@pytest.mark.parametrize(("first", "more"), ids(ENDLESS))
def test_endless_answer_to_the_upgrade(victim: VictimProcess, first: bytes, more: bytes) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept() as connection:
            raw.read_upgrade(connection)
            assert_cuts_off(connection, first, more)
        assert refused(victim, order) == "ConnectError"


def test_a_listener_that_never_answers(hasty_victim: VictimProcess) -> None:
    with hasty_victim.watched(), raw.RawListener() as listener:
        order = hasty_victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept() as connection:
            raw.read_upgrade(connection)
            assert connection.read_raw() == b""
        assert refused(hasty_victim, order) == "ConnectError"


@pytest.mark.parametrize("peer", ["keyed", "keyless"])
def test_a_listener_that_stops_after_the_upgrade(hasty_victim: VictimProcess, peer: str) -> None:
    with hasty_victim.watched(), raw.RawListener() as listener:
        order = hasty_victim.start("dial", peer=peer, url=listener.url)
        with listener.accept_upgraded() as connection:
            connection.wait_closed(answer_close=False)
        refused(hasty_victim, order)


def test_nobody_there(victim: VictimProcess) -> None:
    with raw.RawListener() as listener:
        url = listener.url
    with victim.watched():
        assert refused(victim, victim.start("dial", peer="keyed", url=url)) == "ConnectError"


# -- frames and messages after the upgrade -----------------------------------------------------------


def message(kind: int, data: object) -> bytes:
    return frame(raw.BINARY, raw.json_message(kind, data), mask=None)


def challenge(text: str = "ab" * 32, key_ids: tuple[str, ...] = (KEY_ID,)) -> bytes:
    return message(raw.CHALLENGE, {"challenge": text, "ids": key_ids})


CONFIRMED = message(raw.CONFIRMED, raw.peer_data("unproved"))

BAD_BYTES: list[tuple[str, bytes]] = [
    ("masked", frame(raw.BINARY, b"\x01{}", mask=b"abcd")),
    ("masked-ping", frame(raw.PING, b"x", mask=b"abcd")),
    ("rsv1", frame(raw.BINARY, b"\x01{}", rsv=4, mask=None)),
    ("opcode-5", frame(5, b"x", mask=None)),
    ("text", frame(raw.TEXT, b"hello", mask=None)),
    ("continuation-first", frame(raw.CONTINUATION, b"x", mask=None)),
    ("ping-126", frame(raw.PING, b"x" * 126, mask=None)),
    ("close-code-0", frame(raw.CLOSE, b"\0\0", mask=None)),
    ("close", frame(raw.CLOSE, raw.close_payload(4001, "no"), mask=None)),
    ("length-top-bit", raw.frame_header(raw.BINARY, 1 << 63, mask=None)),
    ("length-2^62", raw.frame_header(raw.BINARY, 1 << 62, mask=None)),
    ("length-4-GiB", raw.frame_header(raw.BINARY, 1 << 32, mask=None)),
    ("over-64-KiB", frame(raw.BINARY, b"\x01{" + b" " * (64 << 10) + b"}", mask=None)),
    ("endless", raw.frame_header(raw.BINARY, 16 << 20, mask=None) + bytes(15 << 20)),
    ("empty-message", frame(raw.BINARY, mask=None)),
    ("challenge-null", message(raw.CHALLENGE, None)),
    ("challenge-nesting", frame(raw.BINARY, b"\x01" + b"[" * 60_000, mask=None)),
    ("challenge-short", challenge("c" * 15)),
    ("challenge-no-common-id", challenge(key_ids=("another",))),
    ("challenge-twice", challenge("ab" * 32) + challenge("cd" * 32)),
    ("confirmed-unproved", CONFIRMED),
    ("confirmed-after-a-challenge", challenge() + CONFIRMED),
    ("proof-wrong", message(raw.PROOF, {"id": KEY_ID, "proof": "00" * 32})),
    ("refusal", message(raw.ERROR, "no")),
    ("refusal-null", message(raw.ERROR, None)),
    ("early-request", frame(raw.BINARY, raw.request("svc", "ping", 7), mask=None)),
    ("early-roles", frame(raw.BINARY, raw.roles_message(1, ["loot"]), mask=None)),
    ("garbage", bytes(range(256)) * 16),
]


@pytest.mark.parametrize("data", ids(BAD_BYTES))
def test_bad_bytes_after_the_upgrade(victim: VictimProcess, data: bytes) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            with contextlib.suppress(raw.PeerGone):
                connection.send_raw(data)
            connection.wait_closed()
        refused(victim, order)
        assert listener.pending() == 0


def test_endless_fragments_after_the_upgrade(victim: VictimProcess) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            first = frame(raw.BINARY, b"\x01", fin=False, mask=None)
            assert_cuts_off(connection, first, frame(0, b" ", fin=False, mask=None) * 10_000)
        refused(victim, order)


# -- proofs ------------------------------------------------------------------------------------------


def test_the_dialer_never_proves_first(victim: VictimProcess) -> None:
    """Nor to a listener, so that one has nothing to reflect to it."""
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            connection.send_raw(challenge(raw.new_challenge()))
            connection.send_frame(raw.PING, b"now")
            kinds = []
            while (got := connection.read_frame()).opcode != raw.PONG:
                kinds.append(got.payload[0])
            assert kinds == [raw.CHALLENGE]
        refused(victim, order)


def test_a_listener_that_reflects_the_challenge(victim: VictimProcess) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            theirs = json.loads(connection.read_kind(raw.CHALLENGE)[1:])["challenge"]
            connection.send_raw(challenge(theirs))
            assert raw.PROOF not in (connection.read_message()[0], *kinds_until_closed(connection))
        assert refused(victim, order) == "AuthError"


def kinds_until_closed(connection: raw.Connection) -> list[int]:
    kinds = []
    with contextlib.suppress(raw.PeerGone):
        while True:
            kinds.append(connection.read_message()[0])
    return kinds


def test_a_listener_that_reflects_through_the_victims_own(victim: VictimProcess) -> None:
    """It asks the victim's listener to sign what the victim's dialer challenges it with."""
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection, victim.dial() as oracle:
            theirs = json.loads(connection.read_kind(raw.CHALLENGE)[1:])["challenge"]
            oracle.send(raw.json_message(raw.CHALLENGE, {"challenge": theirs, "ids": [KEY_ID]}))
            assert raw.PROOF not in kinds_until_closed(oracle)
        refused(victim, order)


def test_masks_differ(victim: VictimProcess) -> None:
    """A dialer masks each frame with a key that cannot be foretold."""
    with victim.watched(), raw.RawListener() as listener:
        victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            raw.authenticate(connection, KEYS[KEY_ID], data=honest_data(victim))
            masks = set()
            for n in range(64):
                connection.send_frame(raw.PING, b"%d" % n)
                masks.add(connection.read_frame().mask)
        assert None not in masks
        assert len(masks) == 64


# -- a listener that is let in, and then misbehaves --------------------------------------------------


def honest_data(victim: VictimProcess, **changed: Any) -> dict[str, Any]:
    data = raw.peer_data(fresh_id(), **changed)
    victim.honest.add(data["id"])
    return data


@pytest.mark.parametrize("peer", ["keyed", "keyless"])
def test_an_honest_listener(victim: VictimProcess, peer: str) -> None:
    """That the dials above fail for what the listener said, and for nothing else."""
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer=peer, url=listener.url)
        with listener.accept_upgraded() as connection:
            key = KEYS[KEY_ID] if peer == "keyed" else None
            raw.authenticate(connection, key, data=honest_data(victim))
            outcome = victim.result(order)
            assert outcome["error"] is None
            assert outcome["id"] == connection.peer_id
            assert_usable(connection)


def test_a_listener_with_the_victims_own_id(victim: VictimProcess) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            with contextlib.suppress(raw.PeerGone):
                data = raw.peer_data(victim.hello["keyed_id"])
                raw.authenticate(connection, KEYS[KEY_ID], data=data)
            assert_closed(connection)
        refused(victim, order)


def test_a_listener_of_another_major_version(victim: VictimProcess) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url)
        with listener.accept_upgraded() as connection:
            with contextlib.suppress(raw.PeerGone):
                data = raw.peer_data(meta={**raw.peer_data()["meta"], "protocol": "3.0.0"})
                raw.authenticate(connection, KEYS[KEY_ID], data=data)
            assert_closed(connection, (4007,))
        refused(victim, order)


LATE = [
    ("empty", frame(raw.BINARY, mask=None)),
    ("cut-short", frame(raw.BINARY, b"\x65\x00\x03", mask=None)),
    ("masked", frame(raw.BINARY, raw.message("svc", "note"), mask=b"abcd")),
    ("text", frame(raw.TEXT, b"x", mask=None)),
    ("late-challenge", challenge()),
    ("length-2^62", raw.frame_header(raw.BINARY, 1 << 62, mask=None)),
    ("roles-null", message(raw.ROLES, None)),
]


@pytest.mark.parametrize("data", ids(LATE))
def test_a_listener_that_turns_hostile(victim: VictimProcess, data: bytes) -> None:
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url, reconnect=False)
        with listener.accept_upgraded() as connection:
            raw.authenticate(connection, KEYS[KEY_ID], data=honest_data(victim))
            assert victim.result(order)["error"] is None
            connection.send_raw(data)
            assert_closed(connection)
            until(lambda: not victim.units(connection.peer_id))


def test_a_listener_that_always_hangs_up_is_not_dialled_in_a_storm(victim: VictimProcess) -> None:
    """After a first success the dialer comes back, each time later; closing the unit ends it."""
    data = honest_data(victim)
    with victim.watched(), raw.RawListener() as listener:
        order = victim.start("dial", peer="keyed", url=listener.url, reconnect=True)
        with listener.accept_upgraded() as connection:
            raw.authenticate(connection, KEYS[KEY_ID], data=data)
            assert victim.result(order)["error"] is None
        for _ in range(2):
            listener.accept().drop()
        with listener.accept_upgraded() as connection:
            raw.authenticate(connection, KEYS[KEY_ID], data=data)
            until(lambda: victim.units(data["id"]))
            victim.result(victim.start("leave", peer="keyed", id=data["id"]))
        assert listener.pending() == 0
