"""Hostile input beyond hostile.json: the upgrade, too slow, too many, and bad frames.

What a hostile peer says in the handshake is in test_own_handshakes.py, after it in
test_own_messages.py, and what a hostile listener says to our dialer in test_own_dialer.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests import rawclient as raw

from .harness import (
    VictimProcess,
    assert_closed,
    ids,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

frame = raw.encode_frame
MAX_MESSAGE = 16 << 20
HEAD_LIMIT = 16 << 10


def pour(connection: raw.Connection, data: bytes, times: int) -> None:
    """Send `data` over and over until the victim no longer takes it."""
    with contextlib.suppress(TimeoutError, raw.PeerGone):
        for _ in range(times):
            connection.send_raw(data, timeout=3.0)


# -- the upgrade -------------------------------------------------------------------------------------

REFUSED_UPGRADES = [
    ("post", raw.upgrade_request(method="POST")),
    ("head", raw.upgrade_request(method="HEAD")),
    ("options", raw.upgrade_request(method="OPTIONS")),
    ("http-1.0", raw.upgrade_request(version="HTTP/1.0")),
    ("http-2.0", raw.upgrade_request(version="HTTP/2.0")),
    ("no-http-version", b"GET /\r\n\r\n"),
    ("no-upgrade", raw.upgrade_request(drop=["Upgrade"])),
    ("no-connection", raw.upgrade_request(drop=["Connection"])),
    ("no-key", raw.upgrade_request(drop=["Sec-WebSocket-Key"])),
    ("no-version", raw.upgrade_request(drop=["Sec-WebSocket-Version"])),
    (
        "version-8",
        raw.upgrade_request(drop=["Sec-WebSocket-Version"], sec_websocket_version="8"),
    ),
    ("versions-13-and-8", raw.upgrade_request(sec_websocket_version="8")),
    ("upgrade-h2c", raw.upgrade_request(upgrade="h2c")),
    ("connection-close", raw.upgrade_request(connection="close")),
    ("key-short", raw.upgrade_request(sec_websocket_key="c2hvcnQ=")),
    ("key-not-base64", raw.upgrade_request(sec_websocket_key="!" * 24)),
    ("header-without-colon", raw.upgrade_request(extra=["nothing here"])),
    ("garbage", b"\x00\xff\x80" * 20 + b"\r\n\r\n"),
    ("blank", b"\r\n\r\n"),
    ("one-long-header", raw.upgrade_request(extra=["X-Long: " + "x" * (HEAD_LIMIT + 1)])),
    ("many-headers", raw.upgrade_request(extra=[f"X-{n}: {'y' * 60}" for n in range(400)])),
    ("long-path", raw.upgrade_request(path="/" + "p" * (HEAD_LIMIT + 1))),
    ("endless-line", b"GET /" + b"p" * (1 << 20)),
    ("endless-headers", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200_000),
]


def assert_no_upgrade(connection: raw.Connection) -> None:
    """Whatever it answers, it is no 101, and then it closes."""
    got = b""
    while data := connection.read_raw():
        got += data
    assert b" 101" not in got.partition(b"\r\n")[0]


@pytest.mark.parametrize("head", ids(REFUSED_UPGRADES))
def test_refused_upgrade(victim: VictimProcess, head: bytes) -> None:
    with victim.watched(), raw.connect(victim.hello["keyed"]) as connection:
        with contextlib.suppress(raw.PeerGone):
            connection.send_raw(head)
        assert_no_upgrade(connection)


def test_upgrade_in_single_bytes(victim: VictimProcess) -> None:
    with victim.watched(), raw.connect(victim.hello["keyed"]) as connection:
        for byte in raw.upgrade_request():
            connection.send_raw(bytes([byte]))
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert connection.read_message()[0] == raw.CHALLENGE


def test_no_extension_is_accepted(victim: VictimProcess) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    with victim.watched(), raw.connect(victim.hello["keyed"]) as connection:
        connection.send_raw(raw.upgrade_request(extra=[offer, "Sec-WebSocket-Protocol: chat"]))
        head = connection.read_until(b"\r\n\r\n").lower()
        assert b"sec-websocket-extensions" not in head
        assert b"sec-websocket-protocol" not in head


# -- slow ones: the handshake, the upgrade included, has its time and no more ------------------------


def drip(connection: raw.Connection, pieces: Iterator[bytes]) -> None:
    """Send one piece after the other, with a pause after each, until the victim closes."""
    with contextlib.suppress(raw.PeerGone):
        for piece in pieces:
            connection.send_raw(piece)
            with contextlib.suppress(TimeoutError):
                while connection.read_raw(timeout=0.05):
                    pass
                return
    with contextlib.suppress(TimeoutError):
        assert connection.read_raw(timeout=1.0) == b""


def endless_head() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\n"
    for _ in range(300):
        yield b"A"


def endless_message() -> Iterator[bytes]:
    yield raw.frame_header(raw.BINARY, 60_000)
    for _ in range(300):
        yield b"\x01"


def endless_fragments() -> Iterator[bytes]:
    yield frame(raw.BINARY, b"\x01", fin=False)
    for _ in range(300):
        yield frame(raw.CONTINUATION, b" ", fin=False)


def endless_pings() -> Iterator[bytes]:
    for _ in range(300):
        yield frame(raw.PING)


def test_slow_upgrade(hasty_victim: VictimProcess) -> None:
    with hasty_victim.watched(), raw.connect(hasty_victim.hello["keyed"]) as connection:
        drip(connection, endless_head())


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_silence_before_the_upgrade(hasty_victim: VictimProcess, hello: bytes) -> None:
    """Nothing at all, and the beginning of TLS."""
    with hasty_victim.watched(), raw.connect(hasty_victim.hello["keyed"]) as connection:
        connection.send_raw(hello)
        assert_no_upgrade(connection)


@pytest.mark.parametrize("peer", ["keyed", "keyless"])
@pytest.mark.parametrize("pieces", [endless_message, endless_fragments, endless_pings])
def test_slow_handshake(
    hasty_victim: VictimProcess, peer: str, pieces: Callable[[], Iterator[bytes]]
) -> None:
    with hasty_victim.watched(), hasty_victim.dial(peer) as connection:
        drip(connection, pieces())


@pytest.mark.parametrize("peer", ["keyed", "keyless"])
@pytest.mark.parametrize("answer_close", [True, False])
def test_silence_in_the_handshake(
    hasty_victim: VictimProcess, peer: str, answer_close: bool
) -> None:
    with hasty_victim.watched(), hasty_victim.dial(peer) as connection:
        connection.wait_closed(answer_close=answer_close, timeout=20)


def test_a_handshake_left_half_way(hasty_victim: VictimProcess) -> None:
    challenge = {"challenge": raw.new_challenge(), "ids": ["k1"]}
    with hasty_victim.watched(), hasty_victim.dial() as connection:
        connection.send(raw.json_message(raw.CHALLENGE, challenge))
        assert_closed(connection)


# -- many ones ---------------------------------------------------------------------------------------


def test_a_hundred_unauthenticated_connections_from_loopback(victim: VictimProcess) -> None:
    """The limit of 64 from one address excepts loopback (docs/protocol.md, section 8)."""
    with victim.watched(), contextlib.ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(victim.dial())
            assert connection.read_message()[0] == raw.CHALLENGE


def test_unauthenticated_connections_are_limited() -> None:
    """Past 1024 of them a further one is not served until others are gone."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("too few file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        crowded = VictimProcess()
        with crowded.watched():
            with contextlib.ExitStack() as stack:
                served = 0
                with contextlib.suppress(raw.PeerGone, TimeoutError):
                    for _ in range(1100):
                        # One that is not served waits for that long.
                        patience = 3.0 if served > 64 else raw.WAIT
                        connection = stack.enter_context(
                            raw.dial(crowded.hello["keyed"], timeout=patience)
                        )
                        assert connection.read_message(timeout=patience)[0] == raw.CHALLENGE
                        served += 1
                assert 64 < served <= 1024
            until(lambda: served_again(crowded))
        crowded.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def served_again(victim: VictimProcess) -> bool:
    """Whether an honest connection is let in."""
    try:
        victim.connect().drop()
    except (OSError, raw.HandshakeRefused):
        return False
    return True


@pytest.mark.parametrize("fin", [True, False], ids=["one-frame", "fragments"])
def test_strangers_cannot_have_megabytes_kept(victim: VictimProcess, fin: bool) -> None:
    """Eight of them announce a message of the greatest size, and send nearly all of it."""
    piece = bytes(1 << 20)
    with victim.watched(), contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(victim.dial())
            data = frame(raw.BINARY, piece, fin=False)
            data += frame(raw.CONTINUATION, piece, fin=False) * 14
            if fin:
                data = raw.frame_header(raw.BINARY, MAX_MESSAGE) + piece * 15
            with contextlib.suppress(raw.PeerGone, TimeoutError):
                connection.send_raw(data, timeout=0.5)


def test_a_storm_of_resets(victim: VictimProcess) -> None:
    """Connections reset at every stage, in the middle of a frame included."""
    with victim.watched():
        for stage in range(200):
            connection = raw.connect(victim.hello["keyed"])
            if stage % 4 > 0:
                connection.send_raw(raw.upgrade_request())
            if stage % 4 > 1:
                connection.read_until(b"\r\n\r\n")
                connection.send_raw(raw.frame_header(raw.BINARY, 1000) + b"\x01{")
            if stage % 4 > 2:
                connection.send_raw(os.urandom(100))
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.drop()


# -- frames, before and after the handshake ----------------------------------------------------------

BEGUN = frame(raw.BINARY, b"\x64", fin=False)
BAD_FRAMES: list[tuple[str, bytes, tuple[int, ...]]] = [
    ("continuation-first", frame(raw.CONTINUATION, b"x"), (1002,)),
    ("continuation-first-unfinished", frame(raw.CONTINUATION, b"x", fin=False), (1002,)),
    ("binary-inside-fragments", BEGUN + frame(raw.BINARY, b"x"), (1002,)),
    ("fragment-inside-fragments", BEGUN + frame(raw.BINARY, b"x", fin=False), (1002,)),
    ("text-inside-fragments", BEGUN + frame(raw.TEXT, b"x"), (1002, 4002)),
    ("rsv1", frame(raw.BINARY, b"x", rsv=4), (1002,)),
    ("rsv2", frame(raw.BINARY, b"x", rsv=2), (1002,)),
    ("rsv3", frame(raw.BINARY, b"x", rsv=1), (1002,)),
    ("rsv1-on-a-continuation", BEGUN + frame(raw.CONTINUATION, b"x", rsv=4), (1002,)),
    ("rsv1-on-a-ping", frame(raw.PING, b"x", rsv=4), (1002,)),
    ("rsv-on-a-close", frame(raw.CLOSE, raw.close_payload(1000), rsv=1), (1002,)),
    ("opcode-3", frame(3, b"x"), (1002,)),
    ("opcode-7", frame(7, b"x"), (1002,)),
    ("opcode-11", frame(11), (1002,)),
    ("opcode-15", frame(15, b"x"), (1002,)),
    ("ping-126", frame(raw.PING, b"p" * 126), (1002,)),
    ("ping-65536", frame(raw.PING, b"p" * 65536), (1002, 1009)),
    ("ping-unfinished", frame(raw.PING, b"p", fin=False), (1002,)),
    ("pong-unfinished", frame(raw.PONG, b"p", fin=False), (1002,)),
    ("close-unfinished", frame(raw.CLOSE, raw.close_payload(1000), fin=False), (1002,)),
    ("close-126", frame(raw.CLOSE, raw.close_payload(1000, "r" * 124)), (1002,)),
    ("close-one-byte", frame(raw.CLOSE, b"\x03"), (1002,)),
    ("close-bad-utf8", frame(raw.CLOSE, b"\x03\xe8\xc3\x28"), (1002, 1007)),
    *(
        (f"close-code-{code}", frame(raw.CLOSE, raw.close_payload(code)), (1002,))
        for code in (0, 999, 1004, 1005, 1006, 5000, 65535)
    ),
    ("unmasked", frame(raw.BINARY, b"x", mask=None), (1002,)),
    ("unmasked-ping", frame(raw.PING, b"x", mask=None), (1002,)),
    ("16-bit-length-of-5", frame(raw.BINARY, b"12345", length_bytes=2), (1002,)),
    ("64-bit-length-of-5", frame(raw.BINARY, b"12345", length_bytes=8), (1002,)),
    ("64-bit-length-of-300", frame(raw.BINARY, b"x" * 300, length_bytes=8), (1002,)),
    ("length-top-bit", raw.frame_header(raw.BINARY, 1 << 63), (1002, 1009)),
    ("length-all-ones", raw.frame_header(raw.BINARY, (1 << 64) - 1), (1002, 1009)),
    ("length-2^63-1", raw.frame_header(raw.BINARY, (1 << 63) - 1), (1009,)),
    ("length-2^62", raw.frame_header(raw.BINARY, 1 << 62), (1009,)),
    ("length-2^32", raw.frame_header(raw.BINARY, 1 << 32), (1009,)),
    ("length-over-by-one", raw.frame_header(raw.BINARY, MAX_MESSAGE + 1), (1009,)),
    ("over-by-the-fragment", BEGUN + frame(raw.CONTINUATION, bytes(MAX_MESSAGE)), (1009,)),
    ("text", frame(raw.TEXT, b"hello"), (4002,)),
    ("text-empty", frame(raw.TEXT), (4002,)),
    ("text-in-fragments", frame(raw.TEXT, b"a", fin=False) + frame(0, b"b"), (4002,)),
    ("text-bad-utf8", frame(raw.TEXT, b"\xff\xfe"), (4002, 1007)),
]


@pytest.mark.parametrize("when", ["pre-auth", "post-auth"])
@pytest.mark.parametrize(("data", "codes"), ids(BAD_FRAMES))
def test_bad_frame(victim: VictimProcess, data: bytes, codes: tuple[int, ...], when: str) -> None:
    """What is no longer a handshake may also be refused as a handshake is, with 4001."""
    post = when == "post-auth"
    with victim.watched(), victim.connect() if post else victim.dial() as connection:
        with contextlib.suppress(raw.PeerGone):
            connection.send_raw(data)
        assert_closed(connection, codes if post else (*codes, 1009, 4001))


def test_pings_are_answered_in_the_middle_of_a_message(victim: VictimProcess) -> None:
    whole = raw.request("svc", "ping", 7, raw.value("in pieces"))
    with victim.watched(), victim.connect() as connection:
        connection.send_frame(raw.BINARY, fin=False)
        for at in range(len(whole)):
            connection.send_frame(raw.CONTINUATION, whole[at : at + 1], fin=False)
            connection.send_frame(raw.PING, b"%d" % at)
        connection.send_frame(raw.CONTINUATION)
        pongs: list[bytes] = []
        answers: list[bytes] = []
        while len(pongs) < len(whole) or not answers:
            got = connection.read_frame()
            if got.opcode == raw.PONG:
                pongs.append(got.payload)
            elif got.opcode == raw.BINARY and got.payload[0] == raw.RESOLVE:
                answers.append(got.payload)
        assert pongs == [b"%d" % at for at in range(len(whole))]
        assert raw.decode(answers[0]).data == "in pieces"


def test_a_ping_of_125_bytes_comes_back_whole(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect() as connection:
        payload = os.urandom(125)
        connection.send_frame(raw.PING, payload)
        while (got := connection.read_frame()).opcode != raw.PONG:
            pass
        assert got.payload == payload
        assert got.mask is None


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4999])
def test_a_proper_close_is_answered(victim: VictimProcess, code: int) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.shut(code)
        assert connection.wait_closed() is not None


def test_a_close_without_a_code_is_answered(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send_frame(raw.CLOSE)
        assert connection.wait_closed() in (1000, 1005)


def test_data_after_a_close_is_not_read(victim: VictimProcess) -> None:
    late = frame(raw.BINARY, raw.request("svc", "ping", 7))
    with victim.watched(), victim.connect() as connection:
        connection.send_raw(frame(raw.CLOSE, raw.close_payload(1000)) + late * 10)
        assert_closed(connection)
        assert connection.peer_id not in victim.state()["calls"]
        assert all(each[0] != raw.RESOLVE for each in connection.received)


def test_a_close_that_is_never_answered(victim: VictimProcess) -> None:
    """The socket goes all the same."""
    with victim.watched(), victim.connect() as connection:
        connection.send_frame(raw.TEXT, b"x")
        connection.wait_closed(answer_close=False, timeout=20)
        assert connection.close_code == 4002


def test_endless_empty_fragments(victim: VictimProcess) -> None:
    """They never reach a limit of bytes."""
    with victim.watched(), victim.connect() as connection:
        connection.send_raw(BEGUN)
        pour(connection, frame(raw.CONTINUATION, fin=False) * 10_000, 100)


def test_a_million_fragments(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send_raw(BEGUN)
        pour(connection, frame(raw.CONTINUATION, b"x", fin=False) * 10_000, 100)


BLOB = raw.value(b"x" * 65536)
STALLED: list[tuple[str, bytes, int]] = [
    ("rejects", frame(raw.BINARY, raw.request("svc", "nope", 7)) * 1000, 1500),
    ("replies", frame(raw.BINARY, raw.request("svc", "ping", 7, BLOB)) * 4, 750),
    ("late-replies", frame(raw.BINARY, raw.request("svc", "echo", 7, BLOB)) * 4, 750),
]


@pytest.mark.parametrize("unfinished", [b"", BEGUN], ids=["between", "inside-a-message"])
def test_pings_that_nobody_reads_the_answers_of(victim: VictimProcess, unfinished: bytes) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send_raw(unfinished)
        pour(connection, frame(raw.PING, b"p" * 125) * 1000, 700)


@pytest.mark.parametrize(("data", "times"), ids(STALLED))
def test_one_that_asks_and_never_reads(victim: VictimProcess, data: bytes, times: int) -> None:
    """What it is owed does not pile up: the victim stops reading from it, or closes."""
    with victim.watched(), victim.connect() as connection:
        pour(connection, data, times)
