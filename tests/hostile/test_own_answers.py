"""Hostile answers to what the victim asks, and hostile ends of the streams that it opens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests import rawclient as raw

from .harness import VictimProcess, assert_closed, assert_usable, fresh_id, ids, until
from .victim import KEY_ID, KEYS

pytestmark = pytest.mark.slow

frame = raw.encode_frame
MOST = (16 << 20) - 64  # bytes of a payload that still fits a message


@contextlib.contextmanager
def asked(
    victim: VictimProcess, how: str = "request", **data: object
) -> Iterator[tuple[raw.Connection, int, raw.Message]]:
    """A connection that the victim asks something on, the order, and what it asks."""
    kind = {
        "request": raw.REQUEST,
        "readable": raw.OPEN_READABLE,
        "writable": raw.OPEN_WRITABLE,
    }[how]
    with victim.connect(roles=["loot"], **data) as connection:
        order = victim.start("ask", peer="keyed", id=connection.peer_id, how=how)
        yield connection, order, raw.decode(connection.read_kind(kind))


def filled(begin: bytes, middle: bytes, end: bytes) -> bytes:
    """JSON of nearly the greatest size."""
    room = MOST - len(begin) - len(end)
    return begin + middle * (room // len(middle)) + end


BOMBS = [
    ("lists", filled(b"[", b"[],", b"1]")),
    ("strings", filled(b"[", b'"ab",', b"1]")),
    ("objects", filled(b"[", b"{},", b"1]")),
    ("digits", filled(b"", b"1", b"")),
    ("fraction", filled(b"0.", b"0", b"1")),
    ("text", filled(b'"', "é".encode(), b'"')),
    ("depth", b"[" * 990 + b"]" * 990),
    ("depth-of-objects", b'{"a":' * 990 + b"1" + b"}" * 990),
    ("depth-beyond", b"[" * 1_000_000),
]


@pytest.mark.parametrize("how", ["request", "readable", "writable"])
@pytest.mark.parametrize("bomb", ids(BOMBS))
def test_a_reject_that_is_not_worth_its_reading(
    victim: VictimProcess, how: str, bomb: bytes
) -> None:
    """Its text is short, whatever it is made of; nobody has asked for the rest."""
    with victim.watched(), asked(victim, how) as (connection, order, question):
        if how == "request":
            answer = raw.answer(raw.REJECT, question.correlation, b"\x05" + bomb)
        else:
            answer = raw.stream_answer(raw.STREAM_REJECT, question.correlation, 0, b"\x05" + bomb)
        connection.send(answer)
        outcome = victim.result(order)
        assert outcome["error"] == "RemoteError"
        assert len(outcome["text"]) < 5000
        assert_usable(connection)


TEXTS = [
    ("long", "é" * 1_000_000),
    ("json-too-deep", '{"x":' + "[" * 4000),
    ("json-without-data", '{"data":1}'),
    ("json-empty", '{"data":""}'),
    ("nul", "\0"),
]


@pytest.mark.parametrize("how", ["request", "readable"])
@pytest.mark.parametrize("text", ids(TEXTS))
def test_a_reject_with_an_odd_text(victim: VictimProcess, how: str, text: str) -> None:
    with victim.watched(), asked(victim, how) as (connection, order, question):
        payload = raw.value(text)
        connection.send(
            raw.answer(raw.REJECT, question.correlation, payload)
            if how == "request"
            else raw.stream_answer(raw.STREAM_REJECT, question.correlation, 0, payload)
        )
        assert victim.result(order)["error"] == "RemoteError"
        assert_usable(connection)


def test_another_unit_cannot_answer(victim: VictimProcess) -> None:
    """Not even one that knows the correlation: what is asked of a unit is answered by it."""
    with (
        victim.watched(),
        asked(victim) as (connection, order, question),
        victim.connect(roles=["loot"]) as thief,
    ):
        for kind in (raw.RESOLVE, raw.REJECT):
            for correlation in range(question.correlation + 100):
                thief.send(raw.answer(kind, correlation, raw.value("forged")))
        assert_usable(thief)
        connection.send(raw.answer(raw.RESOLVE, question.correlation, raw.value("true")))
        assert victim.result(order) == {"n": order, "error": None, "data": "true"}


def test_of_two_answers_the_first_counts(victim: VictimProcess) -> None:
    with victim.watched(), asked(victim) as (connection, order, question):
        answers = [
            raw.answer(raw.RESOLVE, question.correlation, raw.value("first")),
            raw.answer(raw.RESOLVE, question.correlation, raw.value("second")),
            raw.answer(raw.REJECT, question.correlation, raw.value("third")),
        ]
        connection.send_raw(b"".join(frame(raw.BINARY, each) for each in answers))
        assert victim.result(order)["data"] == "first"
        assert_usable(connection)


WRONG_KINDS = [
    ("request", lambda n: raw.stream_answer(raw.STREAM_RESOLVE, n, 9)),
    ("readable", lambda n: raw.answer(raw.RESOLVE, n)),
    ("writable", lambda n: raw.answer(raw.RESOLVE, n)),
]


@pytest.mark.parametrize(("how", "answer"), [pytest.param(*each) for each in WRONG_KINDS])
def test_an_answer_of_the_wrong_kind(victim: VictimProcess, how: str, answer: object) -> None:
    assert callable(answer)
    with victim.watched(), asked(victim, how) as (connection, order, question):
        connection.send(answer(question.correlation))
        assert victim.result(order)["error"] == "ProtocolError"
        assert_usable(connection)


QUOTAS = [
    ("nothing", b"\0"),
    ("2^53-1", raw.number((1 << 53) - 1)),
    ("2^63", raw.number(1 << 63)),
    ("2^64-1", raw.number((1 << 64) - 1)),
]


@pytest.mark.parametrize("quota", ids(QUOTAS))
def test_quotas_without_end_and_nothing_is_read(victim: VictimProcess, quota: bytes) -> None:
    """Credit for all there is, many times over: what is written waits for the socket all the same."""
    with victim.watched(), asked(victim, "writable") as (connection, order, question):
        connection.send(raw.stream_answer(raw.STREAM_RESOLVE, question.correlation, 9))
        # The victim's own end is known by what it asked with.
        grant = frame(raw.BINARY, raw.stream_data(question.channel, raw.QUOTA, quota))
        connection.send_raw(grant * 10_000)
        for _ in range(20):
            victim.state()
        connection.drop()
        assert victim.result(order)["error"] == "StreamError"


@pytest.mark.parametrize("runtime", ["GO", "nodejs v22.1.0", "other"])
def test_a_writer_without_measure(victim: VictimProcess, runtime: str) -> None:
    """A reader that does not read, and a writer that was granted a fraction of what it sends."""
    meta = {**raw.peer_data()["meta"], "runtime": runtime}
    with victim.watched(), victim.connect(meta=meta) as connection:
        channel = 77
        connection.send(raw.open_stream(raw.OPEN_WRITABLE, "svc", "up", 7, channel))
        answer = raw.decode(connection.read_kind(raw.STREAM_RESOLVE))
        chunk = frame(raw.BINARY, raw.stream_data(answer.channel, raw.CHUNK, bytes(1 << 20)))
        with contextlib.suppress(TimeoutError, raw.PeerGone):
            for _ in range(200):
                connection.send_raw(chunk, timeout=2.0)


@pytest.mark.parametrize("runtime", ["GO", "other"])
def test_streams_without_number(victim: VictimProcess, runtime: str) -> None:
    """Those beyond the limit are refused, and all go with their connection."""
    meta = {**raw.peer_data()["meta"], "runtime": runtime}
    with victim.watched(), victim.connect(meta=meta) as connection:
        for n in range(1, 6001):
            # Numbers of which the low bits are all the same.
            connection.send(raw.open_stream(raw.OPEN_WRITABLE, "svc", "up", n, n << 12))
        kinds = [raw.STREAM_RESOLVE, raw.STREAM_REJECT]
        found = dict.fromkeys(kinds, 0)
        while sum(found.values()) < 6000:
            kind = connection.read_message()[0]
            if kind in found:
                found[kind] += 1
        assert found == {raw.STREAM_RESOLVE: 4096, raw.STREAM_REJECT: 1904}
        connection.drop()
        until(lambda: victim.state()["stats"]["keyed"]["streams"] == 0)


ENDS = [
    ("twice-finished", [(raw.FINISH, b""), (raw.FINISH, b"")]),
    ("error-after-finish", [(raw.FINISH, b""), (raw.STREAM_ERROR, b"late")]),
    ("chunk-after-error", [(raw.STREAM_ERROR, b"x"), (raw.CHUNK, b"late")]),
    ("empty-chunks", [(raw.CHUNK, b"")] * 1000 + [(raw.FINISH, b"")]),
    ("quota-to-a-reader", [(raw.QUOTA, b"\1"), (raw.FINISH, b"")]),
    ("unknown-flags", [(flag, b"x") for flag in range(4, 256)] + [(raw.FINISH, b"")]),
    ("long-error", [(raw.STREAM_ERROR, b"\xff" * 1_000_000)]),
]


@pytest.mark.parametrize("frames", ids(ENDS))
def test_odd_ends_of_a_stream(victim: VictimProcess, frames: list[tuple[int, bytes]]) -> None:
    with victim.watched(), asked(victim, "readable") as (connection, order, question):
        messages = [raw.stream_answer(raw.STREAM_RESOLVE, question.correlation, 9)]
        messages += [raw.stream_data(question.channel, flag, data) for flag, data in frames]
        connection.send_raw(b"".join(frame(raw.BINARY, each) for each in messages))
        outcome = victim.result(order)
        assert outcome["error"] in (None, "StreamError")
        assert len(outcome.get("text", "")) < 5000
        assert_usable(connection)


# -- messages whose JSON is worth more than it weighs ------------------------------------------------

LISTS = [
    ("strings", filled(b'{"i":1,"id":"x","address":"ws://x","roles":[', b'"ab",', b'"a"]}')),
    ("empty-strings", filled(b'{"i":1,"id":"x","address":"ws://x","roles":[', b'"",', b'""]}')),
    ("backslashes", filled(b'{"i":1,"id":"x","address":"ws://x","roles":[', b'"\\\\",', b'""]}')),
    ("numbers", filled(b'{"i":1,"id":"x","address":"ws://x","roles":[', b"1,", b"1]}")),
    ("lists", filled(b'{"i":1,"id":"x","address":"ws://x","roles":[', b"[],", b"1]}")),
]


@pytest.mark.parametrize("kind", [raw.ROLES, raw.ACQUAINT], ids=["roles", "acquaint"])
@pytest.mark.parametrize("text", ids(LISTS))
def test_millions_of_roles(victim: VictimProcess, kind: int, text: bytes) -> None:
    with victim.watched(), victim.connect() as connection:
        connection.send(bytes([kind]) + text)
        assert_closed(connection, (4006,))


def test_role_names_full_of_quotes_are_roles(victim: VictimProcess) -> None:
    names = [f'"{n}\\"' * 4 for n in range(65_536)]
    with victim.watched(), victim.connect() as connection:
        connection.send(raw.roles_message(1, names))
        assert_usable(connection)
        assert victim.units(connection.peer_id)[0]["role_count"] == 65_536


def test_the_same_id_on_64_connections_and_no_more(victim: VictimProcess) -> None:
    peer_id = fresh_id()
    with victim.watched(), contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(victim.connect(id=peer_id))
        until(lambda: victim.units(peer_id)[0]["connections"] == 64)
        with victim.dial() as one_more, contextlib.suppress(raw.PeerGone, raw.HandshakeRefused):
            victim.honest.add(peer_id)
            raw.authenticate(one_more, KEYS[KEY_ID], KEY_ID, data=raw.peer_data(peer_id))
            assert_closed(one_more, (4001,))
        assert victim.units(peer_id)[0]["connections"] == 64
