"""Hostile messages from a peer that is let in (docs/protocol.md, sections 2, 3, 5 and 8)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests import rawclient as raw

from .harness import (
    MAX_DIALS_AT_ONCE,
    VictimProcess,
    assert_closed,
    assert_rejected,
    assert_usable,
    count_dials,
    ids,
    place_of,
    until,
)

pytestmark = pytest.mark.slow

MAX_MESSAGE = 16 << 20
MAX_ROLES = 65_536


# -- envelopes ---------------------------------------------------------------------------------------

CLOSED: list[tuple[str, bytes, tuple[int, ...]]] = [
    ("empty", b"", (4006,)),
    *((f"type-{kind}", bytes([kind]), (4002,)) for kind in (0, 1, 2, 3, 4, 99, 109, 202, 255)),
    ("request-correlation-none", raw.request("svc", "ping", b""), (4004,)),
    ("request-correlation-9-bytes", raw.request("svc", "ping", b"\0" * 8 + b"\7"), (4004,)),
    ("request-correlation-2^53", raw.request("svc", "ping", 1 << 53), (4004,)),
    ("request-correlation-2^64-1", raw.request("svc", "ping", (1 << 64) - 1), (4004,)),
    ("resolve-correlation-none", raw.answer(raw.RESOLVE, b""), (4004,)),
    ("reject-correlation-9-bytes", raw.answer(raw.REJECT, b"\0" * 9), (4004,)),
    ("reject-correlation-2^53", raw.answer(raw.REJECT, 1 << 53), (4004,)),
    ("stream-resolve-channel-none", raw.stream_answer(raw.STREAM_RESOLVE, 7, b""), (4004,)),
    ("stream-reject-channel-2^53", raw.stream_answer(raw.STREAM_REJECT, 7, 1 << 53), (4004,)),
    ("open-channel-none", raw.open_stream(raw.OPEN_READABLE, "svc", "no", 7, b""), (4004,)),
    ("open-channel-2^53", raw.open_stream(raw.OPEN_WRITABLE, "svc", "no", 7, 1 << 53), (4004,)),
    ("open-correlation-none", raw.open_stream(raw.OPEN_WRITABLE, "svc", "no", b"", 7), (4004,)),
    ("stream-data-channel-none", raw.stream_data(b"", raw.CHUNK, b"x"), (4004,)),
    ("stream-data-channel-9-bytes", raw.stream_data(b"\1" * 9, raw.CHUNK, b"x"), (4004,)),
    ("role-longer-than-all", b"\x65\xff\xff\x00\x04\x01svcping\x07\x01", (4006,)),
    ("event-longer-than-all", b"\x65\x00\x03\xff\xff\x01svcping\x07\x01", (4006,)),
    ("both-longer-than-all", b"\x64\xff\xff\xff\xff\x01", (4006,)),
    ("correlation-longer-than-all", b"\x65\x00\x03\x00\x04\x08svcping\x07\x01", (4006,)),
]


@pytest.mark.parametrize(("message", "codes"), ids(CLOSED))
def test_closed(victim: VictimProcess, message: bytes, codes: tuple[int, ...]) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(message)
        assert_closed(connection, codes)


HEADS = [
    ("message", raw.message("svc", "note", b"")),
    ("request", raw.request("svc", "ping", 7, b"")),
    ("resolve", raw.answer(raw.RESOLVE, 7, b"")),
    ("reject", raw.answer(raw.REJECT, 0x0102, b"")),
    ("open-readable", raw.open_stream(raw.OPEN_READABLE, "svc", "no", 7, 8, b"")),
    ("open-writable", raw.open_stream(raw.OPEN_WRITABLE, "svc", "no", 7, 8, b"")),
    ("stream-resolve", raw.stream_answer(raw.STREAM_RESOLVE, 7, 8, b"")),
    ("stream-reject", raw.stream_answer(raw.STREAM_REJECT, 7, 8, b"")),
    ("stream-data", raw.stream_data(0x0708, raw.CHUNK)[:-1]),
]


@pytest.mark.parametrize("head", ids(HEADS))
def test_cut_short_anywhere(victim: VictimProcess, head: bytes) -> None:
    """The whole head lacks its last byte still: the data type, or the stream's flag."""
    with victim.watched():
        for size in range(1, len(head) + 1):
            with victim.connect() as connection:
                connection.send(head[:size])
                assert_closed(connection, (4006,))


CORRELATIONS = [
    ("zero", b"\0"),
    ("leading-zeros", b"\0\0\7"),
    ("8-bytes-with-leading-zeros", b"\0" * 7 + b"\7"),
    ("2^39", raw.number(1 << 39)),
    ("2^53-1", raw.number((1 << 53) - 1)),
]


@pytest.mark.parametrize("correlation", ids(CORRELATIONS))
def test_correlations_that_are_right(victim: VictimProcess, correlation: bytes) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.request("svc", "ping", correlation, raw.value("x")))
        answer = connection.read_answer(int.from_bytes(correlation, "big"))
        assert answer.kind == raw.RESOLVE
        assert answer.data == "x"


def test_one_correlation_asked_with_many_times(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect() as connection:
        for _ in range(1000):
            connection.send(raw.request("svc", "echo", 7, raw.value("x")))
        assert connection.read_answer(7).data == "x"
        assert_usable(connection)


def test_a_message_of_the_greatest_size_and_one_above(victim: VictimProcess) -> None:
    head = raw.message("svc", "note", b"\0")
    with victim.watched(), victim.connect() as connection:
        connection.send(head + bytes(MAX_MESSAGE - len(head)))
        assert_usable(connection)
        with contextlib.suppress(raw.PeerGone):
            connection.send(head + bytes(MAX_MESSAGE - len(head) + 1))
        assert_closed(connection, (1009,))


def leaves(found: object) -> Iterator[tuple[str, int]]:
    """All numbers in what JSON holds, by their path."""
    if isinstance(found, dict):
        for name, inner in found.items():
            for path, number in leaves(inner):
                yield f"{name}.{path}", number
    elif isinstance(found, int) and not isinstance(found, bool):
        yield "", found


IGNORED = [
    ("resolve", raw.answer(raw.RESOLVE, 0x0BAD)),
    ("reject", raw.answer(raw.REJECT, 0x0BAD, raw.value("no"))),
    ("resolve-bad-payload", raw.answer(raw.RESOLVE, 0x0BAD, b"\xff")),
    ("stream-resolve", raw.stream_answer(raw.STREAM_RESOLVE, 0x0BAD, 9)),
    ("stream-reject", raw.stream_answer(raw.STREAM_REJECT, 0x0BAD, 9, raw.value("no"))),
    ("stream-chunk", raw.stream_data(0x0BAD, raw.CHUNK, b"x")),
    ("stream-finish", raw.stream_data(0x0BAD, raw.FINISH)),
    ("stream-error", raw.stream_data(0x0BAD, raw.STREAM_ERROR, b"\xff")),
]


@pytest.mark.parametrize("message", ids(IGNORED))
def test_what_nobody_waits_for_is_ignored_and_counted(
    victim: VictimProcess, message: bytes
) -> None:
    times = 997  # unlike any number that something else counts
    with victim.watched(), victim.connect() as connection:
        before = dict(leaves(victim.state()["stats"]["keyed"]))
        connection.send_raw(raw.encode_frame(raw.BINARY, message) * times)
        assert_usable(connection)
        after = dict(leaves(victim.state()["stats"]["keyed"]))
        counted = [path for path in after if after[path] - before.get(path, 0) == times]
        assert counted, after


# -- payloads: a bad one never closes ----------------------------------------------------------------

ARABIC_ONE, FULLWIDTH_ONE = "\u0661", "\uff11"
BAD_NUMBERS = ["", "1_000", " 1", "1 ", "\n1", "0x10", "1e999", "--1", "1,5", "9" * 401]
BAD_NUMBERS += [ARABIC_ONE, FULLWIDTH_ONE]
BAD_PAYLOADS = [
    ("type-6", b"\x06"),
    ("type-255", b"\xff1"),
    ("bool-empty", b"\x02"),
    *((f"number-{text!a:.12}", b"\x04" + text.encode()) for text in BAD_NUMBERS),
    ("json-blank", b"\x05 "),
    ("json-trailing", b"\x05{}{}"),
    ("json-trailing-comma", b"\x05[1,]"),
    ("json-nan", b"\x05NaN"),
    ("json-deep-lists", b"\x05" + b"[" * 1_000_000),
    ("json-deep-and-closed", b"\x05" + b"[" * 100_000 + b"]" * 100_000),
    ("json-not-utf8", b'\x05"\xff"'),
]


@pytest.mark.parametrize("payload", ids(BAD_PAYLOADS))
@pytest.mark.parametrize("event", ["ping", "echo"])
def test_bad_payload_in_a_request(victim: VictimProcess, payload: bytes, event: str) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.request("svc", event, 7, payload))
        assert_rejected(connection.read_answer(7))
        assert_usable(connection)


@pytest.mark.parametrize("payload", ids(BAD_PAYLOADS))
def test_bad_payload_in_a_message(victim: VictimProcess, payload: bytes) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.message("svc", "note", payload))
        assert_usable(connection)


GOOD_PAYLOADS: list[tuple[str, bytes, object]] = [
    ("null-with-more", b"\x01 and more", None),
    ("bool-with-more", b"\x02\x00\x01", False),
    ("string-empty", b"\x03", ""),
    ("string-not-utf8", b"\x03a\xffb", "a\ufffdb"),
    ("binary-empty", b"\x00", b""),
    ("number-go-zero", b"\x040.", 0.0),
    ("json-number", b"\x05 12 ", 12),
    ("json-dunder", b'\x05{"__class__":"x","__dict__":{}}', {"__class__": "x", "__dict__": {}}),
]


@pytest.mark.parametrize(("payload", "value"), ids(GOOD_PAYLOADS))
def test_odd_payload_that_is_right(victim: VictimProcess, payload: bytes, value: object) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.request("svc", "ping", 7, payload))
        answer = connection.read_answer(7)
        assert answer.kind == raw.RESOLVE
        assert answer.data == value


NAMES = [
    ("role-not-utf8", b"\xff\xfe", b"ping"),
    ("event-not-utf8", b"svc", b"\xc3\x28"),
    ("both-empty", b"", b""),
    ("role-unknown", b"nobody", b"ping"),
    ("event-unknown", b"svc", b"ping2"),
    ("event-of-another-kind", b"svc", b"note"),
    ("event-dunder", b"svc", b"__class__"),
    ("event-64-KiB", b"svc", b"e" * 65_535),
    ("both-64-KiB", b"r" * 65_535, b"e" * 65_535),
    ("role-with-more", b"svc\0", b"ping"),
]


@pytest.mark.parametrize(("role", "event"), ids(NAMES))
def test_unknown_names(victim: VictimProcess, role: bytes, event: bytes) -> None:
    """A message is dropped; a request is rejected, and so is a stream."""
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.request(role, event, 7))
        assert_rejected(connection.read_answer(7))
        for kind in (raw.OPEN_READABLE, raw.OPEN_WRITABLE):
            connection.send(raw.open_stream(kind, role, event, 8, 9))
            assert_rejected(connection.read_answer(8))
        if event != b"note":
            connection.send(raw.message(role, event))
        assert_usable(connection)


def test_ever_new_names_are_not_kept(victim: VictimProcess) -> None:
    """A thousand names of 64 KiB each, none of them to be held on to."""
    with victim.watched(), victim.connect() as connection:
        for n in range(1000):
            role = b"%05d" % n + b"r" * 65_530
            connection.send(raw.request(role, b"e", n))
            assert_rejected(connection.read_answer(n))


# -- roles -------------------------------------------------------------------------------------------


def test_too_many_roles(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.roles_message(1, [f"r{n}" for n in range(MAX_ROLES + 1)]))
        assert_closed(connection, (4006,))


def test_as_many_roles_as_may_be(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.roles_message(1, [f"r{n}" for n in range(MAX_ROLES)]))
        assert_usable(connection)
        assert victim.units(connection.peer_id)[0]["role_count"] == MAX_ROLES


BAD_ROLES = [
    ("null", b"\xc9null"),
    ("empty", b"\xc9"),
    ("not-json", b"\xc9{"),
    ("not-utf8", b'\xc9{"i":1,"roles":["\xff"]}'),
    ("trailing", b'\xc9{"i":1,"roles":[]}x'),
    ("nesting", b"\xc9" + b"[" * 1_000_000),
    ("roles-missing", b'\xc9{"i":1}'),
    ("roles-text", raw.roles_message(1, "loot")),
    ("roles-object", raw.roles_message(1, {"loot": 1})),
    ("roles-nested", raw.roles_message(1, [["loot"]])),
    ("roles-mixed", raw.roles_message(1, ["loot", 1])),
    ("counter-missing", b'\xc9{"roles":[]}'),
    ("counter-null", raw.roles_message(None, ["loot"])),
    ("counter-text", raw.roles_message("1", ["loot"])),
    ("counter-fraction", raw.roles_message(1.5, ["loot"])),
    ("counter-true", raw.roles_message(True, ["loot"])),
    ("counter-list", raw.roles_message([1], ["loot"])),
]


@pytest.mark.parametrize("message", ids(BAD_ROLES))
def test_bad_roles(victim: VictimProcess, message: bytes) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(message)
        assert_closed(connection, (4006,))


def test_an_old_counter_is_ignored(victim: VictimProcess) -> None:
    with victim.watched(), victim.connect(roles=["at-first"]) as connection:
        for counter, name, expected in (
            (5, "five", "five"),
            (5, "again", "five"),
            (4, "before", "five"),
            (-1, "below", "five"),
            (6, "six", "six"),
        ):
            connection.send(raw.roles_message(counter, [name]))
            assert_usable(connection)
            assert roles_of(victim, connection) == expected


def roles_of(victim: VictimProcess, connection: raw.Connection) -> str:
    return " ".join(victim.units(connection.peer_id)[0]["roles"])


@pytest.mark.parametrize("counter", [2**53, 2**63, 2**64, 10**400])
def test_a_huge_counter(victim: VictimProcess, counter: int) -> None:
    """Taken or refused; it must not wrap around."""
    with victim.watched(), victim.connect() as connection, contextlib.suppress(raw.PeerGone):
        connection.send(raw.roles_message(counter, ["high"]))
        assert_usable(connection)
        connection.send(raw.roles_message(1, ["low"]))
        assert_usable(connection)
        assert roles_of(victim, connection) == "high"


def test_roles_that_flip(victim: VictimProcess) -> None:
    """The destination opens and closes thousands of times."""
    with victim.watched(), victim.connect() as connection:
        flips = [raw.roles_message(n, ["loot"] if n % 2 else []) for n in range(1, 5002)]
        connection.send_raw(b"".join(raw.encode_frame(raw.BINARY, each) for each in flips))
        assert_usable(connection)
        # Too many in a second: the last of them takes effect when the second is over.
        until(lambda: roles_of(victim, connection) == "loot")


# -- acquaint: dials for strangers -------------------------------------------------------------------

REFUSED_ADDRESSES = [
    ("user", "ws://user@127.0.0.1:{port}/"),
    ("user-and-password", "ws://user:pass@127.0.0.1:{port}/"),
    ("empty-user", "ws://@127.0.0.1:{port}/"),
    ("crlf", "ws://127.0.0.1:{port}/\r\nX-Injected: 1"),
    ("newline-in-the-host", "ws://127.0.0.1\n:{port}/"),
    ("tab", "ws://127.0.0.1:{port}/\t"),
    ("nul", "ws://127.0.0.1:{port}/\0"),
    ("delete", "ws://127.0.0.1:{port}/\x7f"),
    ("mapped", "ws://[::ffff:127.0.0.1]:{port}/"),
    ("mapped-in-hex", "ws://[::ffff:7f00:1]:{port}/"),
    ("any-host", "ws://0.0.0.0:{port}/"),
    ("any-host-6", "ws://[::]:{port}/"),
    ("http", "http://127.0.0.1:{port}/"),
    ("ftp", "ftp://127.0.0.1:{port}/"),
    ("no-scheme", "//127.0.0.1:{port}/"),
    ("bare", "127.0.0.1:{port}"),
    ("unix", "ws+unix:///tmp/{port}.sock"),
    ("oversized", "ws://127.0.0.1:{port}/" + "a" * 100_000),
]


def assert_dials(victim: VictimProcess, introducer: raw.Connection) -> None:
    """The victim dials whom it may, on this introducer's word; so what came before had its time."""
    with victim.fresh_listener() as allowed:
        introducer.send(raw.acquaint("somebody", allowed.url, ["loot"]))
        allowed.accept().drop()


@pytest.mark.parametrize("address", ids(REFUSED_ADDRESSES))
def test_refused_address(victim: VictimProcess, address: str) -> None:
    with raw.RawListener() as trap, victim.watched(), victim.connect() as connection:
        url = address.replace("{port}", str(trap.port))
        connection.send(raw.acquaint("stranger", url, ["loot"]))
        assert_usable(connection)
        assert_dials(victim, connection)
        assert trap.pending() == 0


def test_nobody_is_dialled_for_roles_that_nobody_wants(victim: VictimProcess) -> None:
    with raw.RawListener() as trap, victim.watched(), victim.connect() as connection:
        for roles in ([], ["svc"], ["LOOT"], ["loot "]):
            connection.send(raw.acquaint("stranger", trap.url, roles))
        assert_dials(victim, connection)
        assert trap.pending() == 0


def test_nobody_is_dialled_who_is_connected(victim: VictimProcess) -> None:
    with raw.RawListener() as trap, victim.watched(), victim.connect() as connection:
        for peer_id in (
            connection.peer_id,
            victim.bystander.connection.peer_id,
            victim.hello["keyed_id"],
        ):
            connection.send(raw.acquaint(peer_id, trap.url, ["loot"]))
        assert_dials(victim, connection)
        assert trap.pending() == 0


def test_strangers_are_dialled_a_few_at_a_time(fresh_victim: VictimProcess) -> None:
    with contextlib.ExitStack() as stack:
        traps = [stack.enter_context(raw.RawListener()) for _ in range(100)]
        stack.enter_context(fresh_victim.watched())
        connection = stack.enter_context(fresh_victim.connect())
        for n, trap in enumerate(traps):
            fresh_victim.may_be_dialled.add(place_of(trap.url))
            connection.send(raw.acquaint(f"stranger-{n}", trap.url, ["loot"]))
        assert 1 <= count_dials(connection, traps) <= MAX_DIALS_AT_ONCE


def test_a_stranger_who_does_not_shake_hands_is_not_dialled_again(victim: VictimProcess) -> None:
    with victim.fresh_listener() as trap, victim.watched(), victim.connect() as connection:
        connection.send(raw.acquaint("stranger", trap.url, ["loot"]))
        trap.accept().drop()
        for _ in range(10):
            connection.send(raw.acquaint("stranger", trap.url, ["loot"]))
        assert_usable(connection)
        assert_dials(victim, connection)
        assert trap.pending() <= 1


BAD_ACQUAINTS = [
    ("list", b"\xc8[]"),
    ("not-json", b"\xc8{"),
    ("empty", b"\xc8"),
    ("nesting", b"\xc8" + b"[" * 1_000_000),
    ("id-number", b'\xc8{"id":1,"address":"ws://127.0.0.1:9/","roles":["loot"]}'),
    ("roles-text", b'\xc8{"id":"x","address":"ws://127.0.0.1:9/","roles":"loot"}'),
    ("port-99999", raw.acquaint("x", "ws://127.0.0.1:99999/", ["loot"])),
    ("port-negative", raw.acquaint("x", "ws://127.0.0.1:-1/", ["loot"])),
    ("port-text", raw.acquaint("x", "ws://127.0.0.1:http/", ["loot"])),
    ("bracket", raw.acquaint("x", "ws://[::1/", ["loot"])),
    ("no-host", raw.acquaint("x", "ws:///", ["loot"])),
    ("empty-address", raw.acquaint("x", "", ["loot"])),
    ("idna", raw.acquaint("x", "ws://" + "é" * 300 + "/", ["loot"])),
    ("surrogate", b'\xc8{"id":"x","address":"ws://\\ud800/","roles":["loot"]}'),
]


@pytest.mark.parametrize("message", ids(BAD_ACQUAINTS))
def test_bad_acquaint(victim: VictimProcess, message: bytes) -> None:
    """Ignored, or a close of that one connection."""
    with victim.watched(), victim.connect() as connection, contextlib.suppress(raw.PeerGone):
        connection.send(message)
        assert_usable(connection)
