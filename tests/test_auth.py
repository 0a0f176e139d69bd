"""The handshake between honest peers, and what the attacks on it come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roletalk.auth import Challenges, HandshakeError, KeyRing, ReachedItselfError, State
from tests.handshakes import (
    Legacy,
    Rt2,
    Side,
    body,
    exchange,
    legacy_proof,
    message,
    peer_data,
    refused,
    ring,
    rt2_accepting,
    side,
    started,
)

VECTORS = sorted((Path(__file__).parent / "vectors").glob("handshake_*.json"))
CERT, OTHER_CERT = b"the acceptor's certificate", b"the certificate of a man in the middle"


# -- honest peers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [0, 1])
def test_two_peers_without_keys_accept_each_other_and_exchange_features(eager: int) -> None:
    a, b = side(dialer=True, features=["x", "y"]), side(dialer=False)
    assert exchange(a, b, eager=eager) == [None, None]
    assert a.done
    assert b.done
    assert b.result.features == {"x", "y"}
    assert a.result.features == frozenset()
    assert (a.result.key_id, a.result.rt2, a.result.binding) == (None, False, False)
    peer = b.result.peer
    assert (peer.id, peer.name, peer.roles) == ("dialer", "name of dialer", ("r",))
    assert peer.friendly is True
    assert peer.tags == {"a": "b"}
    assert peer.meta["protocol"] == "2.0.0"
    with pytest.raises(TypeError):
        peer.tags["a"] = "c"  # type: ignore[index]


@pytest.mark.parametrize("eager", [0, 1])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_two_peers_with_a_key_prove_by_rt2(eager: int, shared: bool, legacy: bool) -> None:
    # Shared challenges: two peers of one process may connect to each other.
    ours, theirs = Challenges(), Challenges()
    a = side(ring("k1", legacy=legacy), dialer=True, challenges=ours)
    b = side(ring("k1", legacy=legacy), dialer=False, challenges=ours if shared else theirs)
    assert exchange(a, b, eager=eager) == [None, None]
    for handshake in (a, b):
        assert handshake.done
        assert handshake.result.rt2
        assert handshake.result.key_id == "k1"
    assert len(ours) == len(theirs) == 0


def test_each_side_proves_with_the_first_common_key_of_its_own_list() -> None:
    a, b = side(ring("k0", "k1", "k2"), dialer=True), side(ring("k2", "k1", "k9"), dialer=False)
    assert exchange(a, b) == [None, None]
    assert (b.result.key_id, a.result.key_id) == ("k1", "k2")


@pytest.mark.parametrize("eager", [0, 1])
@pytest.mark.parametrize("dialer", [True, False])
def test_a_legacy_peer_with_the_same_key(eager: int, dialer: bool) -> None:
    ours, theirs = side(ring("k1", "k2"), dialer=dialer), Legacy({"k2": "secret-k2", "k3": "x"})
    assert exchange(ours, theirs, eager=eager) == [None, None]
    assert ours.done
    assert theirs.done
    assert (ours.result.rt2, ours.result.key_id) == (False, "k2")
    assert ours.result.peer.tags == {}
    assert ours.result.features == frozenset()


def test_a_legacy_peer_gets_no_byte_of_proof_before_its_own() -> None:
    handshake, challenge, _ = started(ring("k1"), dialer=True)
    assert handshake.receive(message(1, {"challenge": "c" * 32, "ids": ["k1"]})) == []
    proof = message(2, {"id": "k1", "proof": legacy_proof("secret-k1", challenge)})
    second, third = handshake.receive(proof)
    assert body(second, 2) == {"id": "k1", "proof": legacy_proof("secret-k1", "c" * 32)}
    assert "rt2" not in body(third, 3)


def test_a_legacy_proof_may_come_before_the_legacy_challenge() -> None:
    handshake, challenge, _ = started(ring("k1"), dialer=True)
    proof = message(2, {"id": "k1", "proof": legacy_proof("secret-k1", challenge)})
    assert handshake.receive(proof) == []
    answer = handshake.receive(message(1, {"challenge": "c" * 32, "ids": ["k1"]}))
    assert [raw[0] for raw in answer] == [2, 3]
    assert handshake.receive(message(3, peer_data("legacy"))) == []
    assert handshake.done


@pytest.mark.parametrize("eager", [0, 1])
def test_keys_on_one_side_only_connect_nobody(eager: int) -> None:
    pairs: list[tuple[Side, Side]] = [
        (side(ring("k1"), dialer=True), side(dialer=False)),
        (side(ring("k1"), dialer=True), Legacy({})),
        (side(dialer=True), Legacy({"k1": "secret-k1"})),
        (side(ring("k1"), dialer=True), side(ring("k2"), dialer=False)),
        (side(ring("k1"), dialer=True), Legacy({"k2": "secret-k2"})),
        (side(ring("k1"), dialer=True), Legacy({"k1": "wrong"})),
        (side(ring("k1"), dialer=True), side(ring("k1", key="wrong"), dialer=False)),
    ]
    for a, b in pairs:
        errors = exchange(a, b, eager=eager)
        assert all(error is None or error.close_code == 4001 for error in errors)
        assert any(errors)
        assert not a.done
        assert not b.done


def test_rt2_as_the_protocol_writes_it() -> None:
    acceptor, forger = rt2_accepting()
    second, third = acceptor.receive(forger.proof("k1"))
    bound = {"proof": forger.mac("k1", "S"), "cb": "none"}
    assert body(second, 2) == {"id": "k1", "proof": "", "rt2": bound}
    assert body(third, 3)["rt2"] == {"v": 2, "features": []}
    assert body(third, 3)["id"] == "acceptor"
    acceptor.receive(forger.confirmation())
    assert acceptor.done
    assert acceptor.result.features == {"f"}

    forger = Rt2({"k1": "secret-k1"}, dialer=False, tls=CERT)
    dialer, _, forger.theirs = started(ring("k1"), dialer=True, tls=CERT)
    offer = body(forger.theirs, 1)["rt2"]
    assert offer == {"v": 2, "side": "C", "peer": "dialer", "ids": ["k1"], "cb": ["end-point"]}
    (proof,) = dialer.receive(forger.challenge(v=3))  # both use the lower version
    assert body(proof, 2)["rt2"] == {"proof": forger.mac("k1", "C"), "cb": "end-point"}
    assert [raw[0] for raw in dialer.receive(forger.proof("k1"))] == [3]
    dialer.receive(forger.confirmation())
    assert dialer.done
    assert dialer.result.binding


def test_message_3_carries_the_id_that_the_proof_was_about() -> None:
    a = side(ring("k1"), dialer=True, make_peer_data=lambda: peer_data("mistaken"))
    b = side(ring("k1"), dialer=False)
    assert exchange(a, b) == [None, None]
    assert b.result.peer.id == "dialer"


def test_roles_that_do_not_fit_are_withheld_and_reported() -> None:
    many = [f"role {i}" for i in range(10_000)]
    a = side(dialer=True, make_peer_data=lambda: peer_data("dialer", roles=many))
    b = side(dialer=False)
    assert exchange(a, b) == [None, None]
    assert a.result.roles_withheld
    assert b.result.peer.roles == ()
    assert not b.result.roles_withheld
    hopeless = side(dialer=True, make_peer_data=lambda: peer_data("dialer", name="x" * 70_000))
    with pytest.raises(HandshakeError, match="too long"):
        hopeless.start()


# -- reflection and oracles ------------------------------------------------------------------------


@pytest.mark.parametrize("dialer", [True, False])
@pytest.mark.parametrize("connections", ["same", "another", "another peer's"])
def test_a_reflected_challenge_is_refused(dialer: bool, connections: str) -> None:
    shared = Challenges()
    victim, challenge, _ = started(ring("k1"), dialer=dialer, challenges=shared)
    asked = victim
    if connections != "same":
        peer_id = "other" if connections == "another peer's" else victim._peer_id
        asked, _, _ = started(ring("k1"), dialer=True, challenges=shared, peer_id=peer_id)
    forger = Rt2({"k1": "?"}, dialer=False)
    asked_again, _, _ = started(ring("k1"), dialer=True, challenges=shared, peer_id="third")
    refused(asked, message(1, {"challenge": challenge, "ids": ["k1"]}), text="one of our own")
    # Nor does dressing it up as an offer of rt2 help, once there is anything outstanding.
    if asked is not victim:
        refused(asked_again, forger.challenge(challenge=challenge), text="one of our own")
    # Once the victim is gone its challenge is worth nothing.
    victim.close()
    assert challenge not in shared


def test_a_relayed_message_of_another_peer_is_never_answered_with_a_legacy_proof() -> None:
    shared = Challenges()
    _, challenge, first = started(ring("k1"), dialer=True, challenges=shared, peer_id="a")
    stripped = body(first, 1)
    del stripped["rt2"]
    b, _, _ = started(ring("k1"), dialer=False, challenges=shared, peer_id="b")
    refused(b, message(1, stripped), text="one of our own")
    c, _, _ = started(ring("k1"), dialer=True, challenges=shared, peer_id="c")
    refused(c, first, text="wrong side")
    d, _, _ = started(ring("k1"), dialer=False, challenges=shared, peer_id="d")
    assert d.receive(first) == []
    assert d.state is State.RT2_ACCEPTING
    refused(d, message(2, {"id": "k1", "proof": legacy_proof("secret-k1", challenge)}))


def test_a_legacy_signer_is_no_oracle_against_rt2() -> None:
    acceptor, forger = rt2_accepting()
    signer = Legacy({"k1": "secret-k1"})
    (signed,) = signer.receive(message(1, {"challenge": "roletalk/2 proof\0C", "ids": ["k1"]}))
    forged = message(2, {"id": "k1", "proof": "", "rt2": {**body(signed, 2), "cb": "none"}})
    refused(acceptor, forged, text="wrong proof")
    # The oracle's answer to our own challenge is a good legacy proof, and still not taken.
    acceptor, forger = rt2_accepting()
    (signed,) = signer.receive(forger.theirs)
    refused(acceptor, signed, text="legacy proof where both sides speak rt2")
    both = {**body(signed, 2), "rt2": {"proof": body(signed, 2)["proof"], "cb": "none"}}
    acceptor, _ = rt2_accepting()
    refused(acceptor, message(2, both), text="legacy proof where both sides speak rt2")


def test_an_rt2_proof_is_bound_to_side_messages_and_key() -> None:
    acceptor, forger = rt2_accepting()
    refused(acceptor, forger.proof("k1", proof=forger.mac("k1", "S")), text="wrong proof")
    acceptor, _ = rt2_accepting()
    refused(acceptor, forger.proof("k1"), text="wrong proof")  # recorded on another connection
    keys = {"k1": "secret-k1", "k2": "secret-k1"}
    acceptor, forger = rt2_accepting(keys)
    swapped = body(forger.proof("k2"), 2)
    refused(acceptor, message(2, {**swapped, "id": "k1"}), text="wrong proof")
    acceptor, forger = rt2_accepting(keys)
    refused(acceptor, forger.proof("k2"), text="not offered")


def test_a_dialer_that_has_not_proved_gets_no_mac() -> None:
    acceptor, forger = rt2_accepting()
    error = refused(acceptor, forger.proof("k1", proof="0" * 64))
    assert error.send is not None
    assert error.send[0] == 0


@pytest.mark.parametrize("proof", ["", "é" * 32, "0" * 64, "0" * 63, 5, None, ["0" * 64]])
def test_wrong_proofs(proof: object) -> None:
    handshake, _, _ = started(ring("k1"), dialer=True)
    refused(handshake, message(2, {"id": "k1", "proof": proof}))
    acceptor, forger = rt2_accepting()
    refused(acceptor, forger.proof("k1", proof=proof))


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_that_is_not_legacy_is_hidden_from_and_refused_to_legacy_peers() -> None:
    for dialer in (True, False):
        handshake, challenge, first = started(ring("k1", legacy=False), dialer=dialer)
        assert body(first, 1)["ids"] == []
        assert body(first, 1)["rt2"]["ids"] == ["k1"]
        good = legacy_proof("secret-k1", challenge)
        refused(handshake, message(2, {"id": "k1", "proof": good}), text="not offered")
        handshake, _, _ = started(ring("k1", legacy=False), dialer=dialer)
        legacy = message(1, {"challenge": "c" * 32, "ids": ["k1"]})
        refused(handshake, legacy, text="no key id in common")
        ours, theirs = side(ring("k1", legacy=False), dialer=dialer), Legacy({"k1": "secret-k1"})
        assert any(exchange(ours, theirs))
        assert not ours.done
        assert not theirs.done


def test_a_key_beside_one_that_is_not_legacy() -> None:
    keys = ring("new", legacy=False)
    keys.add("old", "secret-old")
    ours, theirs = side(keys, dialer=True), Legacy({"new": "secret-new", "old": "secret-old"})
    assert exchange(ours, theirs) == [None, None]
    assert ours.result.key_id == "old"


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("change", ["removed", "replaced", "no longer legacy"])
def test_a_key_that_changes_meanwhile_is_not_accepted_as_it_was(change: str, legacy: bool) -> None:
    keys, forger = ring("k1"), Rt2({"k1": "secret-k1"}, dialer=True)
    handshake, challenge, forger.theirs = started(keys, dialer=False)
    first = message(1, {"challenge": "c" * 32, "ids": ["k1"]})
    handshake.receive(first if legacy else forger.challenge())
    good = message(2, {"id": "k1", "proof": legacy_proof("secret-k1", challenge)})
    if not legacy:
        good = forger.proof("k1")
    if change == "removed":
        keys.remove("k1")
    elif change == "replaced":
        keys.add("k1", "another")
    else:
        keys.add("k1", "secret-k1", legacy=False)
    if change == "no longer legacy" and not legacy:
        assert [raw[0] for raw in handshake.receive(good)] == [2, 3]
    else:
        refused(handshake, good)


def test_a_key_that_was_not_offered_is_not_accepted() -> None:
    keys, forger = ring("k1"), Rt2({"k1": "secret-k1", "k2": "secret-k2"}, dialer=True)
    acceptor, _, forger.theirs = started(keys, dialer=False)
    acceptor.receive(forger.challenge())
    keys.add("k2", "secret-k2")
    refused(acceptor, forger.proof("k2"), text="not offered")
    # Offered for rt2 alone, and opened to legacy peers only afterwards.
    keys = ring("k1", legacy=False)
    handshake, challenge, _ = started(keys, dialer=True)
    keys.add("k1", "secret-k1", legacy=True)
    good = message(2, {"id": "k1", "proof": legacy_proof("secret-k1", challenge)})
    refused(handshake, good, text="not offered")


def test_an_acceptor_refuses_at_once_where_no_key_is_common() -> None:
    acceptor, _, _ = started(ring("k1"), dialer=False)
    refused(acceptor, Rt2({"k2": "x"}, dialer=True).challenge(), text="no key id in common")


def test_a_key_that_is_added_meanwhile_holds_for_the_connection() -> None:
    keys = KeyRing()
    handshake = side(keys, dialer=True)
    handshake.start()
    keys.add("k1", "secret")
    error = refused(handshake, message(3, peer_data("unproved")), text="no proof")
    assert error.send is None


# -- downgrade, identity, TLS ----------------------------------------------------------------------


def test_a_dialled_address_that_once_spoke_rt2_is_not_accepted_with_a_legacy_proof() -> None:
    asked: list[str | None] = []

    def once(unit_id: str | None) -> bool:
        asked.append(unit_id)
        return unit_id is None

    handshake, challenge, _ = started(ring("k1"), dialer=True, require_rt2=once)
    refused(handshake, message(1, {"challenge": "c" * 32, "ids": ["k1"]}), text="rt2 was spoken")
    handshake, challenge, _ = started(ring("k1"), dialer=True, require_rt2=once)
    proof = message(2, {"id": "k1", "proof": legacy_proof("secret-k1", challenge)})
    refused(handshake, proof, text="rt2 was spoken")
    assert asked == [None, None]
    # An acceptor dialled nothing, and a proof by rt2 is never asked about.
    b = side(ring("k1"), dialer=False, require_rt2=once)
    assert exchange(b, Legacy({"k1": "secret-k1"})) == [None, None]
    assert asked == [None, None, "legacy"]
    a = side(ring("k1"), dialer=True, require_rt2=once)
    assert exchange(a, side(ring("k1"), dialer=False)) == [None, None]
    assert len(asked) == 3


def test_a_unit_that_once_spoke_rt2_is_not_accepted_with_a_legacy_proof() -> None:
    ours = side(ring("k1"), dialer=False, require_rt2=lambda unit_id: unit_id == "legacy")
    error, _ = exchange(ours, Legacy({"k1": "secret-k1"}))
    assert error is not None
    assert "rt2 was spoken" in error.text
    assert not ours.done
    assert (error.close_code, error.send) == (4001, None)
    ours = side(ring("k1"), dialer=False, require_rt2=lambda unit_id: unit_id == "legacy")
    assert exchange(ours, Legacy({"k1": "secret-k1"}, "another")) == [None, None]


def test_a_peer_that_reaches_itself() -> None:
    for keys in (KeyRing(), ring("k1")):
        a = side(keys, dialer=True, peer_id="me")
        b = side(keys, dialer=False, peer_id="me")
        errors = exchange(a, b)
        assert any(isinstance(error, ReachedItselfError) for error in errors)
        assert all(error and "reached itself" in error.text for error in errors)
    handshake, _, _ = started(ring("k1"), dialer=True)
    mirror = Rt2({"k1": "?"}, dialer=False).challenge(peer="dialer")
    assert isinstance(refused(handshake, mirror), ReachedItselfError)
    ours = side(ring("k1"), dialer=True, peer_id="legacy")
    error, _ = exchange(ours, Legacy({"k1": "secret-k1"}))
    assert isinstance(error, ReachedItselfError)
    assert error.send is None


def test_the_peer_of_message_3_is_the_peer_of_message_1() -> None:
    for forged, text in (({"id": "another"}, "not the one"), ({"rt2": 0}, "malformed")):
        acceptor, forger = rt2_accepting()
        acceptor.receive(forger.proof("k1"))
        code = 4001 if "id" in forged else 4006
        refused(acceptor, forger.confirmation(**forged), code=code, text=text)
    acceptor, forger = rt2_accepting()
    acceptor.receive(forger.proof("k1"))
    refused(acceptor, message(3, peer_data("forger")), text="lacks rt2")


@pytest.mark.parametrize(
    ("ours", "theirs", "works", "bound"),
    [
        (CERT, CERT, True, True),
        (CERT, None, True, False),
        (None, CERT, True, False),
        (None, None, True, False),
        (OTHER_CERT, CERT, False, False),
    ],
)
def test_the_tls_certificate_is_bound(
    ours: bytes | None, theirs: bytes | None, works: bool, bound: bool
) -> None:
    a = side(ring("k1"), dialer=True, tls=ours)
    b = side(ring("k1"), dialer=False, tls=theirs)
    errors = exchange(a, b)
    assert a.done == b.done == works == (not any(errors))
    if works:
        assert a.result.binding == b.result.binding == bound


def test_a_binding_other_than_the_one_agreed_on_is_refused() -> None:
    acceptor, forger = rt2_accepting()
    refused(acceptor, forger.proof("k1", cb="end-point"), text="binding differs")


# -- recorded handshakes of the Go and the JS peer -------------------------------------------------


class Recorded(Challenges):
    """Gives out the challenge that the recorded side chose."""

    def __init__(self, challenge: str) -> None:
        super().__init__()
        self.challenge = challenge

    def new(self) -> str:
        return self.challenge


KEYS = {  # by scenario: the ids of the dialer's keys, those of the listener's
    "handshake_keys_match": (["k1", "k2"], ["k2", "k3"]),
    "handshake_keys_no_common_id": (["k1"], ["k2"]),
    "handshake_keys_wrong_key": (["k1"], ["k1"]),
    "handshake_nokeys": ([], []),
    "handshake_only_dialer_has_keys": (["k1"], []),
    "handshake_only_listener_has_keys": ([], ["k1"]),
}


@pytest.mark.parametrize("dialer", [True, False], ids=["as dialer", "as listener"])
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_recorded_handshakes(path: Path, dialer: bool) -> None:
    """Stand in for one recorded side, with its challenge, and be told what the other one said."""
    vector = json.loads(path.read_text())
    mine, theirs = "dialer->listener", "listener->dialer"
    if not dialer:
        mine, theirs = theirs, mine
    frames: dict[str, list[bytes]] = {mine: [], theirs: []}
    for frame in vector["frames"]:
        if frame["opcode"] == 2:
            frames[frame["dir"]].append(bytes.fromhex(frame["payload_hex"]))
    said = {raw[0]: raw for raw in frames[mine]}
    keys = KeyRing()
    for key_id in KEYS[vector["scenario"]][0 if dialer else 1]:
        keys.add(key_id, f"secret{key_id[1:]}")
    challenge = body(said[1], 1)["challenge"] if 1 in said else ""
    handshake = side(keys, dialer=dialer, challenges=Recorded(challenge))

    sent, error = handshake.start(), None
    for raw in frames[theirs]:
        try:
            sent += handshake.receive(raw)
        except HandshakeError as caught:
            error = caught
            break
    if vector["scenario"] in ("handshake_keys_match", "handshake_nokeys"):
        assert error is None
        assert handshake.done
        peer = handshake.result.peer
        remote = vector["to" if dialer else "from"]
        assert peer.name == remote
        assert peer.roles == (("bench",) if dialer else ())
        assert str(peer.meta["runtime"]).lower().startswith("go" if remote == "go" else "node")
    else:
        assert error is not None
        assert error.close_code == 4001
        assert not handshake.done
    # What we said is what the recorded side said, but for what rt2 and the peer data add.
    for raw in sent:
        if raw[0] == 1:
            ours, recorded = body(raw, 1), body(said[1], 1)
            assert {**ours, **recorded} == ours
        elif raw[0] == 2:
            assert body(raw, 2) == body(said[2], 2)
        else:
            assert body(said[3], 3).keys() <= body(raw, 3).keys()
