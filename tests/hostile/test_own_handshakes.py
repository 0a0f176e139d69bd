"""Hostile input in the handshake (docs/protocol.md, sections 4 and 8)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from tests import rawclient as raw

from .harness import VictimProcess, assert_closed, assert_usable, fresh_id, ids, until
from .victim import KEY_ID, KEYS, OTHER_KEY_ID

pytestmark = pytest.mark.slow

HANDSHAKE_LIMIT = 64 << 10


def challenge(text: object = "ab" * 32, key_ids: object = (KEY_ID,), **more: object) -> bytes:
    """Message 1."""
    return raw.json_message(raw.CHALLENGE, {"challenge": text, "ids": key_ids, **more})


def proof(text: object, key_id: object = KEY_ID) -> bytes:
    """Message 2."""
    return raw.json_message(raw.PROOF, {"proof": text, "id": key_id})


def confirmed(**changed: Any) -> bytes:
    """Message 3."""
    return raw.json_message(raw.CONFIRMED, {**raw.peer_data(), **changed})


def rt2(extension: object) -> bytes:
    """Message 1 with an extension."""
    return challenge(rt2=extension)


PEER = "p" * 20
RT2 = {"v": 2, "side": "C", "peer": PEER, "ids": [KEY_ID], "cb": []}

REFUSED: list[tuple[str, list[bytes]]] = [
    ("two-challenges", [challenge("ab" * 32), challenge("cd" * 32)]),
    ("one-challenge-twice", [challenge("ab" * 32)] * 2),
    ("challenge-15", [challenge("c" * 15)]),
    ("challenge-257", [challenge("c" * 257)]),
    ("challenge-not-ascii", [challenge("é" * 32)]),
    ("challenge-number", [challenge(12345678901234567890)]),
    ("challenge-list", [challenge(["ab" * 32])]),
    ("challenge-missing", [raw.json_message(raw.CHALLENGE, {"ids": [KEY_ID]})]),
    ("ids-missing", [raw.json_message(raw.CHALLENGE, {"challenge": "ab" * 32})]),
    ("ids-text", [challenge(key_ids=KEY_ID)]),
    ("ids-numbers", [challenge(key_ids=[1, 2])]),
    ("ids-null", [challenge(key_ids=None)]),
    ("ids-none-common", [challenge(key_ids=["another"])]),
    ("ids-empty", [challenge(key_ids=[])]),
    ("ids-65", [challenge(key_ids=[KEY_ID, *(f"key-{n}" for n in range(64))])]),
    ("ids-long", [challenge(key_ids=[KEY_ID, "é" * 129])]),
    ("ids-by-case", [challenge(key_ids=[KEY_ID.upper()])]),
    ("nesting", [b"\x01" + b"[" * 60_000]),
    ("nesting-in-a-key", [b'\x01{"x":' + b"[" * 60_000]),
    ("not-utf8", [b'\x01{"challenge":"\xff\xfe"}']),
    ("trailing", [challenge() + b"}"]),
    ("over-64-KiB", [challenge(padding="p" * HANDSHAKE_LIMIT)]),
    ("proof-wrong", [proof("00" * 32)]),
    ("proof-empty", [proof("")]),
    ("proof-null", [proof(None)]),
    ("proof-not-ascii", [proof("é" * 64)]),
    ("proof-of-unknown-id", [proof("00" * 32, "another")]),
    ("proof-id-list", [proof("00" * 32, [KEY_ID])]),
    ("proof-id-missing", [raw.json_message(raw.PROOF, {"proof": "00" * 32})]),
    ("confirmed-unproved", [confirmed()]),
    ("confirmed-after-a-challenge", [challenge(), confirmed()]),
    ("refusal", [raw.json_message(raw.ERROR, "no")]),
    ("refusal-not-json", [b"\x00\xff"]),
    ("refusal-empty", [b"\x00"]),
    ("empty", [b""]),
    *((f"early-{kind}", [bytes([kind]) + b"\0\0\0\0"]) for kind in (7, 99, *range(100, 109), 202)),
    ("early-request", [raw.request("svc", "ping", 7)]),
    ("early-roles", [raw.roles_message(1, ["loot"])]),
    ("early-acquaint", [raw.acquaint("x", "ws://127.0.0.1:9/", ["loot"])]),
]

REFUSED_EXTENSIONS: list[tuple[str, object]] = [
    ("number", 5),
    ("null", None),
    ("list", []),
    ("empty", {}),
    ("version-1", {**RT2, "v": 1}),
    ("version-text", {**RT2, "v": "2"}),
    ("version-true", {**RT2, "v": True}),
    ("version-fraction", {**RT2, "v": 2.5}),
    ("side-of-the-other", {**RT2, "side": "S"}),
    ("side-unknown", {**RT2, "side": "X"}),
    ("peer-number", {**RT2, "peer": 1}),
    ("ids-text", {**RT2, "ids": KEY_ID}),
    ("ids-none-common", {**RT2, "ids": ["another"]}),
]


@pytest.mark.parametrize("messages", ids(REFUSED))
def test_refused(victim: VictimProcess, messages: list[bytes]) -> None:
    with victim.watched(), victim.dial() as connection:
        with contextlib.suppress(raw.PeerGone):
            for each in messages:
                connection.send(each)
        assert_closed(connection, (4001, 4006, 4002, 1009))


@pytest.mark.parametrize("extension", ids(REFUSED_EXTENSIONS))
def test_refused_extension(victim: VictimProcess, extension: object) -> None:
    """An "rt2" that is not what section 9 says is refused, not taken for a legacy peer's."""
    with victim.watched(), victim.dial() as connection:
        connection.send(rt2(extension))
        assert_closed(connection, (4001,))


def test_an_extension_that_names_the_victim_itself(victim: VictimProcess) -> None:
    with victim.watched(), victim.dial() as connection:
        connection.send(rt2({**RT2, "peer": victim.hello["keyed_id"]}))
        assert_closed(connection, (4001,))


def test_over_64_kib_in_fragments(victim: VictimProcess) -> None:
    pieces = [b'\x01{"padding":"', *[b"p" * 1024] * 65, b'"}']
    with victim.watched(), victim.dial() as connection:
        with contextlib.suppress(raw.PeerGone):
            connection.send_fragments(pieces)
        assert_closed(connection, (1009, 4001))


def test_a_message_without_end(victim: VictimProcess) -> None:
    """It is cut off before a megabyte of it came."""
    with victim.watched(), victim.dial() as connection:
        with contextlib.suppress(raw.PeerGone):
            connection.send_frame(raw.BINARY, b'\x01{"padding":"', fin=False)
            for _ in range(1024):
                connection.send_frame(raw.CONTINUATION, b"p" * 1024, fin=False)
        assert_closed(connection)


@pytest.mark.parametrize("length", [16, 256])
def test_challenges_of_allowed_lengths(victim: VictimProcess, length: int) -> None:
    """Not refused: the victim waits for the proof, as its answer to a ping shows."""
    with victim.watched(), victim.dial() as connection:
        connection.send(challenge("c" * length))
        assert raw.PROOF not in kinds_before_the_pong(connection)


def kinds_before_the_pong(connection: raw.Connection) -> list[int]:
    """The types of all messages that came before the answer to a ping sent now."""
    connection.send_frame(raw.PING, b"now")
    kinds = []
    while (got := connection.read_frame()).opcode != raw.PONG:
        assert got.opcode == raw.BINARY
        kinds.append(got.payload[0])
    return kinds


def test_it_never_proves_first(victim: VictimProcess) -> None:
    """A legacy peer is given no proof before it gave one, so there is nothing to reflect."""
    with victim.watched(), victim.dial() as connection:
        connection.send(challenge(raw.new_challenge()))
        assert kinds_before_the_pong(connection) == [raw.CHALLENGE]


def read_challenge(connection: raw.Connection) -> str:
    text = json.loads(connection.read_kind(raw.CHALLENGE)[1:])["challenge"]
    assert isinstance(text, str)
    return text


def test_its_own_challenge_back(victim: VictimProcess) -> None:
    with victim.watched(), victim.dial() as connection:
        connection.send(challenge(read_challenge(connection)))
        assert connection.read_message()[0] == raw.ERROR
        assert_closed(connection, (4001,))


@pytest.mark.parametrize("other", ["keyed", "keyless"])
def test_the_challenge_of_another_connection(victim: VictimProcess, other: str) -> None:
    """The second one is of this peer or of another in the same process."""
    with victim.watched(), victim.dial() as first, victim.dial(other) as second:
        second.send(challenge(read_challenge(first)))
        assert second.read_kind(raw.ERROR)
        assert_closed(second, (4001,))


def test_a_right_proof_twice(victim: VictimProcess) -> None:
    with victim.watched(), victim.dial() as connection:
        answer = proof(raw.prove(KEYS[KEY_ID], read_challenge(connection)))
        with contextlib.suppress(raw.PeerGone):
            connection.send(answer)
            connection.send(answer)
        assert_closed(connection, (4001,))


@pytest.mark.parametrize(
    ("key_id", "signed_with", "named"),
    [(KEY_ID, OTHER_KEY_ID, KEY_ID), (OTHER_KEY_ID, KEY_ID, OTHER_KEY_ID)],
)
def test_a_proof_with_the_key_of_another_id(
    victim: VictimProcess, key_id: str, signed_with: str, named: str
) -> None:
    with victim.watched(), victim.dial() as connection:
        connection.send(challenge(raw.new_challenge(), [key_id]))
        connection.send(proof(raw.prove(KEYS[signed_with], read_challenge(connection)), named))
        assert connection.read_message()[0] == raw.ERROR
        assert_closed(connection, (4001,))


@pytest.mark.parametrize(
    "messages", ids([("ids", [challenge(key_ids=["zz"])]), ("proof", [proof("00" * 32)])])
)
def test_a_refusal_is_said(victim: VictimProcess, messages: list[bytes]) -> None:
    with victim.watched(), victim.dial() as connection:
        assert connection.read_message()[0] == raw.CHALLENGE
        for each in messages:
            connection.send(each)
        refusal = connection.read_message()
        assert refusal[0] == raw.ERROR
        assert isinstance(json.loads(refusal[1:]), str)
        assert_closed(connection, (4001,))


# -- peer data of one that has the key ---------------------------------------------------------------

META = raw.peer_data()["meta"]
BAD_PEER_DATA: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("protocol-3", {"meta": {**META, "protocol": "3.0.0"}}, (4007,)),
    ("protocol-1", {"meta": {**META, "protocol": "1.9.9"}}, (4007,)),
    ("protocol-text", {"meta": {**META, "protocol": "new"}}, (4007,)),
    ("protocol-empty", {"meta": {**META, "protocol": ""}}, (4007,)),
    ("protocol-number", {"meta": {**META, "protocol": 2}}, (4007, 4001, 4006)),
    ("protocol-digits", {"meta": {**META, "protocol": "9" * 5000}}, (4007,)),
    ("protocol-missing", {"meta": {"os": "x"}}, (4007,)),
    ("meta-null", {"meta": None}, (4007, 4001, 4006)),
    ("meta-list", {"meta": []}, (4007, 4001, 4006)),
    ("roles-null", {"roles": None}, (4001, 4006)),
    ("roles-text", {"roles": "loot"}, (4001, 4006)),
    ("roles-numbers", {"roles": [1, 2]}, (4001, 4006)),
    ("roles-nested", {"roles": [["loot"]]}, (4001, 4006)),
    ("id-empty", {"id": ""}, (4001, 4006)),
    ("id-null", {"id": None}, (4001, 4006)),
    ("id-number", {"id": 5}, (4001, 4006)),
    ("id-list", {"id": ["a"]}, (4001, 4006)),
    ("id-257", {"id": "i" * 257}, (4001, 4006)),
    ("tags-257", {"tags": {str(n): "" for n in range(257)}}, (4001, 4006)),
]


@pytest.mark.parametrize(("changed", "codes"), ids(BAD_PEER_DATA))
def test_bad_peer_data(
    victim: VictimProcess, changed: dict[str, Any], codes: tuple[int, ...]
) -> None:
    """It proved its key, and still becomes no unit."""
    data = {**raw.peer_data(), **changed}
    with victim.watched(), victim.dial() as connection:
        with contextlib.suppress(raw.PeerGone):
            raw.authenticate(connection, KEYS[KEY_ID], KEY_ID, data=data)
        assert_closed(connection, codes)


def test_peer_data_with_the_victims_own_id(victim: VictimProcess) -> None:
    data = raw.peer_data(victim.hello["keyed_id"])
    with victim.watched(), victim.dial() as connection:
        with contextlib.suppress(raw.PeerGone):
            raw.authenticate(connection, KEYS[KEY_ID], KEY_ID, data=data)
        assert_closed(connection)


ODD_PEER_DATA: list[tuple[str, dict[str, Any]]] = [
    ("no-tags", {"tags": None}),
    ("tags-of-numbers", {"tags": {"a": 1}}),
    ("name-of-control-characters", {"name": "\x1b[2J\r\n\0"}),
    ("name-long", {"name": "n" * 40_000}),
    ("unknown-keys", {"__class__": {"x": 1}, "rt3": []}),
    ("roles-twice", {"roles": ["loot"] * 3}),
    ("roles-odd", {"roles": ["", "\0", "__init__", "é" * 1000]}),
    ("time-huge", {"meta": {**META, "time": 10**30, "uptime": -1}}),
    ("friendly-text", {"friendly": "yes"}),
]


@pytest.mark.parametrize("changed", ids(ODD_PEER_DATA))
def test_odd_peer_data(victim: VictimProcess, changed: dict[str, Any]) -> None:
    """Accepted or refused, it breaks nothing."""
    data = {**raw.peer_data(), **changed}
    victim.honest.add(data["id"])
    with victim.watched(), victim.dial() as connection, contextlib.suppress(raw.PeerGone):
        raw.authenticate(connection, KEYS[KEY_ID], KEY_ID, data=data)
        assert_usable(connection)


# -- ids that are taken ------------------------------------------------------------------------------


def test_a_further_connection_changes_neither_name_nor_tags(victim: VictimProcess) -> None:
    peer_id = fresh_id()
    with (
        victim.watched(),
        victim.connect(id=peer_id, name="first", tags={"zone": "a"}) as first,
        victim.connect(id=peer_id, name="second", tags={"zone": "b"}) as second,
    ):
        assert_usable(first)
        assert_usable(second)
        (unit,) = victim.units(peer_id)
        assert unit["name"] == "first"
        assert unit["tags"] == {"zone": "a"}
        assert unit["connections"] == 2


def test_an_id_is_not_taken_over_with_another_key(victim: VictimProcess) -> None:
    peer_id = fresh_id()
    with victim.watched(), victim.connect(id=peer_id) as first, victim.dial() as second:
        with contextlib.suppress(raw.PeerGone, raw.HandshakeRefused):
            data = raw.peer_data(peer_id)
            raw.authenticate(second, KEYS[OTHER_KEY_ID], OTHER_KEY_ID, data=data)
        assert_closed(second, (4001,))
        assert_usable(first)
        (unit,) = victim.units(peer_id)
        assert unit["connections"] == 1


def test_the_id_of_one_that_left_is_free(victim: VictimProcess) -> None:
    peer_id = fresh_id()
    with victim.watched():
        victim.connect(id=peer_id, name="first").drop()
        until(lambda: not victim.units(peer_id))
        with victim.connect(id=peer_id, name="second") as second:
            assert_usable(second)
            assert victim.units(peer_id)[0]["name"] == "second"


# -- a victim without keys accepts anybody, but not anything -----------------------------------------

REFUSED_WITHOUT_KEYS: list[tuple[str, list[bytes]]] = [
    ("challenge", [challenge()]),
    ("proof", [proof("00" * 32)]),
    ("early-request", [raw.request("svc", "ping", 7)]),
    ("confirmed-null", [b"\x03null"]),
    ("confirmed-list", [b"\x03[]"]),
    ("confirmed-empty", [b"\x03"]),
    ("confirmed-nesting", [b"\x03" + b"[" * 60_000]),
    ("confirmed-roles-null", [confirmed(roles=None)]),
    ("confirmed-no-id", [b'\x03{"roles":[],"meta":{"protocol":"2.0.0"}}']),
    ("confirmed-protocol-3", [confirmed(meta={**META, "protocol": "3.0.0"})]),
    ("confirmed-65537-roles", [confirmed(roles=["r"] * 65_537)]),
    ("confirmed-over-64-KiB", [confirmed(name="n" * HANDSHAKE_LIMIT)]),
    ("refusal", [raw.json_message(raw.ERROR, "no")]),
    ("empty", [b""]),
]


@pytest.mark.parametrize("messages", ids(REFUSED_WITHOUT_KEYS))
def test_refused_without_keys(victim: VictimProcess, messages: list[bytes]) -> None:
    """The close frame may be lost where the victim did not read all that was sent."""
    with victim.watched(), victim.dial("keyless") as connection:
        with contextlib.suppress(raw.PeerGone):
            for each in messages:
                connection.send(each)
        assert_closed(connection, (4001, 4002, 4006, 4007, 1009, None))


def test_confirmed_twice(victim: VictimProcess) -> None:
    """The second one is a message after the handshake, of a type that there is not."""
    with victim.watched(), victim.connect("keyless") as connection:
        connection.send(confirmed())
        assert_closed(connection, (4002,))
