"""The handshake against messages out of turn, of a wrong shape, and of no sense at all."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roletalk.auth import Challenges, HandshakeError, State
from tests.handshakes import (
    WELCOME,
    Rt2,
    body,
    message,
    peer_data,
    ready,
    refused,
    ring,
    side,
    started,
)

# -- order and shape -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(WELCOME), ids=lambda state: state.name)
def test_what_is_out_of_turn_is_refused(state: State) -> None:
    valid = {
        1: message(1, {"challenge": "d" * 32, "ids": ["k1"]}),
        2: message(2, {"id": "k1", "proof": "0" * 64}),
        3: message(3, peer_data("eager")),
    }
    for kind in (*range(1, 256),):
        if kind in WELCOME[state]:
            continue
        handshake, _ = ready(state)
        with pytest.raises(HandshakeError) as caught:
            handshake.receive(valid.get(kind, bytes([kind]) + b"{}"))
        assert caught.value.close_code == 4001
        assert (caught.value.send is None) == (state is State.DONE)
        assert handshake.state is (State.DONE if state is State.DONE else State.FAILED)
    if state is State.PROVED:
        handshake, forger = ready(state)
        refused(handshake, forger.challenge(), text="after a legacy proof")
    if state in (State.OFFERED, State.CHALLENGED):
        handshake, forger = ready(state)
        forger.challenge()
        refused(handshake, forger.proof("k1"), text="without an rt2 challenge")


@pytest.mark.parametrize("state", list(WELCOME), ids=lambda state: state.name)
def test_messages_without_sense(state: State) -> None:
    if state is State.DONE:
        return
    (kind, *_) = WELCOME[state]
    deep = b"[" * 60_000
    for junk in (b"", b"{", b"zzz", b"\xff", b"\xef\xbb\xbf{}", b'{"v":NaN}', b'{"v":1e999}', deep):
        handshake, _ = ready(state)
        error = refused(handshake, bytes([kind]) + junk, code=4006, text="not JSON")
        assert (error.send is None) == (kind == 3)
    for junk in (b"null", b"[]", b'"x"', b"{}", b"1"):
        handshake, _ = ready(state)
        code = {b"{}": 4007}.get(junk, 4006) if kind == 3 else 4001
        refused(handshake, bytes([kind]) + junk, code=code)
    handshake, _ = ready(state)
    refused(handshake, b"", code=4006)
    handshake, _ = ready(state)
    padding = b" " * (65_536 - 3)
    refused(handshake, bytes([kind]) + b"{}" + padding, code=4007 if kind == 3 else 4001)
    handshake, _ = ready(state)
    refused(handshake, bytes([kind]) + b"{}" + padding + b" ", code=1009)


BAD_CHALLENGES = ["c" * 15, "c" * 257, "é" * 32, "", None, 5, ["c" * 32]]
BAD_IDS = ["k1", None, [1], [None], ["k1"] * 65, ["k1", "é" * 129], {"k1": 1}]
BAD_OFFERS: list[tuple[str, list[Any]]] = [
    ("v", [1, 0, -2, 2.0, "2", True, None]),
    ("side", ["C", "s", "", None, 1]),
    ("peer", ["", None, 1, "x" * 257]),
    ("ids", BAD_IDS),
    ("cb", ["end-point", None, [1]]),
]


@pytest.mark.parametrize("challenge", BAD_CHALLENGES)
def test_bad_challenges(challenge: object) -> None:
    handshake, _, _ = started(ring("k1"), dialer=True)
    refused(handshake, message(1, {"challenge": challenge, "ids": ["k1"]}))


@pytest.mark.parametrize("ids", BAD_IDS)
def test_bad_id_lists(ids: object) -> None:
    handshake, _, _ = started(ring("k1"), dialer=True)
    refused(handshake, message(1, {"challenge": "c" * 32, "ids": ids}))


@pytest.mark.parametrize(("name", "values"), BAD_OFFERS)
def test_bad_offers(name: str, values: list[Any]) -> None:
    for value in values:
        handshake, _, _ = started(ring("k1"), dialer=True)
        refused(handshake, Rt2({"k1": "secret-k1"}, dialer=False).challenge(**{name: value}))


@pytest.mark.parametrize("offer", [None, [], 2, "rt2", {}, {"v": 2}])
def test_offers_of_another_shape(offer: object) -> None:
    handshake, _, _ = started(ring("k1"), dialer=True)
    refused(handshake, message(1, {"challenge": "c" * 32, "ids": ["k1"], "rt2": offer}))


def test_the_edges_that_are_still_good() -> None:
    for challenge in ("c" * 16, "c" * 256):
        handshake, _, _ = started(ring("k1"), dialer=True)
        ids = [*(f"x{i}" for i in range(62)), "é" * 128, "k1"]
        assert handshake.receive(message(1, {"challenge": challenge, "ids": ids})) == []


# -- peer data -------------------------------------------------------------------------------------


TOO_MANY_TAGS = {str(index): "" for index in range(257)}
BAD_VERSIONS = ["3.0.0", "1.9", "", "x", "2x", "22.0", "\u0662.0", 2, None, "9" * 5000]
BAD_PEER_DATA: list[tuple[str, list[Any], int]] = [
    ("id", ["", None, 1, "x" * 257], 4006),
    ("name", [1, "x" * 1025], 4006),
    ("roles", ["loot", None, [1], {"a": 1}], 4006),
    ("friendly", [1, "yes"], 4006),
    ("tags", [[], {"a": 1}, TOO_MANY_TAGS], 4006),
    ("rt2", [None, {}, {"v": 1, "features": []}, {"v": 2}, {"v": 2, "features": [1]}], 4006),
    ("meta", [None, [], "2.0.0", {}, *({"protocol": x} for x in BAD_VERSIONS)], 4007),
]


@pytest.mark.parametrize(("name", "values", "code"), BAD_PEER_DATA)
def test_bad_peer_data(name: str, values: list[Any], code: int) -> None:
    for value in values:
        handshake = side(dialer=True)
        handshake.start()
        bad = message(3, {**peer_data("unit"), name: value})
        error = refused(handshake, bad, code=code)
        # The other side may be connected by now, and a legacy peer dies of a late 0.
        assert error.send is None


def test_peer_data_that_leaves_things_out() -> None:
    handshake = side(dialer=True)
    handshake.start()
    meta = {"protocol": "2.7.1-beta", "n": 1, "f": 0.5, "b": True, "no": None, "list": [1]}
    data = {"id": "\n" * 256, "roles": ["a", "b", "a", ""], "meta": meta, "else": {"x": [1]}}
    handshake.receive(message(3, data))
    peer = handshake.result.peer
    assert (peer.name, peer.friendly, peer.tags) == ("", False, {})
    assert peer.id == "\n" * 256
    assert peer.roles == ("a", "b", "")
    assert peer.meta == {"protocol": "2.7.1-beta", "n": 1, "f": 0.5, "b": True}


# -- errors from the other side, and the end -------------------------------------------------------


@pytest.mark.parametrize("state", [s for s in WELCOME if s is not State.DONE])
def test_an_error_message_ends_it(state: State) -> None:
    for raw, shown in (
        (message(0, "no such key"), "'no such key'"),
        (message(0, "evil\x1b[2J\n\u202e" + "x" * 1000), r"'evil\x1b[2J\n\u202exxx"),
        (b"\x00plain \xff", "'plain \ufffd'"),
        (b"\x00", "''"),
        (b'\x00{"a":1}', """'{"a":1}'"""),
        (b"\x00" + b"[" * 60_000, "'[[["),
    ):
        handshake, _ = ready(state)
        with pytest.raises(HandshakeError, match=re.escape(shown)) as caught:
            handshake.receive(raw)
        error = caught.value
        assert error.remote
        assert error.send is None
        assert error.close_code == 4001
        assert len(error.text) < 240
        assert error.text.isprintable()
        assert handshake.state is State.FAILED


def test_closing_forgets_the_challenge_and_may_be_repeated() -> None:
    challenges = Challenges()
    handshake, challenge, _ = started(ring("k1"), dialer=True, challenges=challenges)
    assert challenge in challenges
    assert re.fullmatch("[0-9a-f]{64}", challenge)
    for _ in range(2):
        handshake.close()
        assert challenge not in challenges
        assert handshake.state is State.FAILED
    with pytest.raises(RuntimeError, match="not done"):
        _ = handshake.result
    with pytest.raises(RuntimeError, match="cannot go"):
        handshake.start()
    finished, _ = ready(State.DONE)
    finished.close()
    assert finished.done
    assert finished.result.peer.id == "legacy"


# -- anything at all -------------------------------------------------------------------------------

STATES = st.sampled_from([state for state in WELCOME if state is not State.DONE])


@settings(max_examples=200, deadline=None)
@given(STATES, st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_any_bytes_in_any_state_raise_only_handshake_errors(
    state: State, raws: list[bytes]
) -> None:
    handshake, _ = ready(state)
    for raw in raws:
        try:
            handshake.receive(bytes([raw[0] % 4]) + raw[1:] if raw else raw)
        except HandshakeError:
            assert handshake.state is State.FAILED
    assert handshake.done is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
WORDS = st.sampled_from(["k1", "k2", "C", "S", "dialer", "acceptor", "none", "end-point", "c" * 32])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_without_the_key_nothing_leads_to_done(data: st.DataObject) -> None:
    """An attacker who knows every field, may reflect what it saw, and has no key."""
    state = data.draw(STATES.filter(lambda s: s not in (State.OPEN, State.PROVED, State.CONFIRMED)))
    handshake, forger = ready(state)
    own = body(forger.theirs, 1)
    seen = st.sampled_from([own["challenge"], own["rt2"], own["ids"], "5a" * 32, 2, ""])
    value = WORDS | seen | JSON
    names = ["challenge", "ids", "id", "proof", "rt2", "roles", "meta", "v", "side", "peer", "cb"]
    flat = st.dictionaries(st.sampled_from(names), value, max_size=6)
    for _ in range(data.draw(st.integers(1, 4))):
        fields = data.draw(flat)
        if data.draw(st.booleans()):
            fields["rt2"] = data.draw(flat)
        base = data.draw(
            st.sampled_from([own, peer_data("x"), {"id": "k1", "proof": "0" * 64}, {}])
        )
        try:
            handshake.receive(message(data.draw(st.integers(0, 3)), {**base, **fields}))
        except HandshakeError:
            break
    assert not handshake.done
    assert handshake.state is not State.CONFIRMED


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1), st.integers(0, 400), st.integers(1, 255), st.sampled_from("xcd"))
def test_a_changed_challenge_or_proof_connects_nobody(
    which: int, at: int, flip: int, how: str
) -> None:
    """One byte of what an honest rt2 dialer sends is changed, cut off or doubled on the way."""
    acceptor, forger = side(ring("k1"), dialer=False), Rt2({"k1": "secret-k1"}, dialer=True)
    (forger.theirs,) = acceptor.start()
    sent = [forger.challenge(), forger.proof("k1"), forger.confirmation()]
    raw = sent[which]
    at %= len(raw)
    middle = {"x": bytes([raw[at] ^ flip]) + raw[at + 1 :], "c": b"", "d": raw[at:]}[how]
    sent[which] = raw[:at] + (raw[at : at + 1] if how == "d" else b"") + middle
    try:
        for each in sent:
            acceptor.receive(each)
    except HandshakeError:
        pass
    assert acceptor.state is State.FAILED
