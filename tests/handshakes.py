"""What the tests of the handshake are made of: honest peers, legacy ones, and a forger."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import deque
from typing import Any, Protocol

import pytest

from roletalk.auth import Challenges, Handshake, HandshakeError, KeyRing, State


class Side(Protocol):
    @property
    def done(self) -> bool: ...
    def start(self) -> list[bytes]: ...
    def receive(self, message: bytes) -> list[bytes]: ...


def ring(*ids: str, key: str = "secret", legacy: bool = True) -> KeyRing:
    keys = KeyRing()
    for key_id in ids:
        keys.add(key_id, f"{key}-{key_id}", legacy=legacy)
    return keys


def peer_data(peer_id: str, **changes: Any) -> dict[str, Any]:
    meta = {"os": "linux", "runtime": "python", "time": 1, "uptime": 1, "protocol": "2.0.0"}
    data = {"id": peer_id, "name": f"name of {peer_id}", "roles": ["r"], "friendly": True}
    return {**data, "meta": meta, "tags": {"a": "b"}, **changes}


def side(keys: KeyRing | None = None, *, dialer: bool, **options: Any) -> Handshake:
    peer_id = options.setdefault("peer_id", "dialer" if dialer else "acceptor")
    options.setdefault("make_peer_data", lambda: peer_data(peer_id))
    options.setdefault("challenges", Challenges())
    options.setdefault("require_rt2", lambda _: False)
    return Handshake(keys=KeyRing() if keys is None else keys, dialer=dialer, **options)


def message(kind: int, data: object) -> bytes:
    return bytes([kind]) + json.dumps(data, separators=(",", ":")).encode()


def body(raw: bytes, kind: int) -> Any:
    assert raw[0] == kind
    return json.loads(raw[1:])


def legacy_proof(key: str, challenge: str) -> str:
    return hmac.new(key.encode(), challenge.encode(), hashlib.sha256).hexdigest()


def exchange(a: Side, b: Side, *, eager: int = 0) -> list[HandshakeError | None]:
    """Run both sides against each other; `eager` is the one whose messages travel first."""
    sides = (a, b)
    errors: list[HandshakeError | None] = [None, None]
    queues = (deque(a.start()), deque(b.start()))
    while queues[0] or queues[1]:
        sender = eager if queues[eager] else 1 - eager
        receiver = 1 - sender
        raw = queues[sender].popleft()
        if errors[receiver] is not None:
            continue
        try:
            queues[receiver].extend(sides[receiver].receive(raw))
        except HandshakeError as error:
            errors[receiver] = error
            queues[receiver].extend([error.send] if error.send else [])
    return errors


class Legacy:
    """What the Go and the JS peer do: answer at once, sign anything, check no order."""

    def __init__(self, keys: dict[str, str], peer_id: str = "legacy") -> None:
        self.keys, self.peer_id = keys, peer_id
        self.challenge = "c0" * 16
        self.proved = self.confirmed = False

    @property
    def done(self) -> bool:
        return self.proved and self.confirmed

    def start(self) -> list[bytes]:
        if self.keys:
            return [message(1, {"challenge": self.challenge, "ids": list(self.keys)})]
        return [self._confirm()]

    def _confirm(self) -> bytes:
        self.proved = True
        data = peer_data(self.peer_id, friendly=False)
        del data["tags"]
        return message(3, data)

    def receive(self, raw: bytes) -> list[bytes]:
        data = json.loads(raw[1:])
        if raw[0] == 1:
            for key_id in data["ids"]:
                if key_id in self.keys:
                    proof = legacy_proof(self.keys[key_id], data["challenge"])
                    return [message(2, {"proof": proof, "id": key_id})]
            raise HandshakeError("no proofs", 4001, message(0, "no such proofs"))
        if raw[0] == 2:
            if legacy_proof(self.keys[data["id"]], self.challenge) == data["proof"]:
                return [self._confirm()]
            raise HandshakeError("mismatch", 4001, message(0, "key mismatch"))
        if raw[0] == 3:
            assert isinstance(data["roles"], list)
            assert data["meta"]["protocol"]
            self.confirmed = True
            return []
        raise HandshakeError(str(data), 4001, remote=True)


class Rt2:
    """Section 9 written down a second time, with every field open to be forged."""

    def __init__(self, keys: dict[str, str], *, dialer: bool, tls: bytes | None = None) -> None:
        self.keys, self.tls = keys, tls
        self.mine, self.other = "CS" if dialer else "SC"
        self.ours = self.theirs = b""

    def challenge(self, *, challenge: object = "5a" * 32, **forged: Any) -> bytes:
        cb = ["end-point"] if self.tls else []
        offer = {"v": 2, "side": self.mine, "peer": "forger", "ids": list(self.keys), "cb": cb}
        data = {"challenge": challenge, "ids": list(self.keys), "rt2": {**offer, **forged}}
        self.ours = message(1, data)
        return self.ours

    def mac(self, kid: str, who: str) -> str:
        first, second = (self.ours, self.theirs) if self.mine == "C" else (self.theirs, self.ours)
        k2 = hmac.new(self.keys[kid].encode(), b"\xffroletalk/2 key", hashlib.sha512).digest()
        cb = b"\x01" + hashlib.sha256(self.tls).digest() if self.tls else b"\x00"
        text = b"\xff" + b"roletalk/2 proof" + b"\x00" + who.encode()
        text += hashlib.sha256(first).digest() + hashlib.sha256(second).digest()
        text += len(kid.encode()).to_bytes(2, "big") + kid.encode() + cb
        return hmac.new(k2, text, hashlib.sha256).hexdigest()

    def proof(self, kid: str, **forged: Any) -> bytes:
        cb = "end-point" if self.tls else "none"
        bound = {"proof": self.mac(kid, self.mine), "cb": cb, **forged}
        return message(2, {"id": kid, "proof": "", "rt2": bound})

    def confirmation(self, **forged: Any) -> bytes:
        rt2 = {"v": 2, "features": ["f"]}
        return message(3, {**peer_data("forger"), "rt2": rt2, **forged})


def refused(
    handshake: Handshake, raw: bytes, *, code: int = 4001, text: str = ""
) -> HandshakeError:
    """`raw` is refused with a 0 and `code`; nothing is outstanding or accepted afterwards."""
    with pytest.raises(HandshakeError) as caught:
        handshake.receive(raw)
    error = caught.value
    assert text in error.text
    assert (error.close_code, handshake.state) == (code, State.FAILED)
    assert error.remote is False
    if error.send is not None:
        assert body(error.send, 0) == error.text
    with pytest.raises(HandshakeError):
        handshake.receive(message(3, peer_data("late")))
    return error


def started(keys: KeyRing, *, dialer: bool, **options: Any) -> tuple[Handshake, str, bytes]:
    """A handshake with its challenge and its message 1."""
    handshake = side(keys, dialer=dialer, **options)
    (first,) = handshake.start()
    return handshake, body(first, 1)["challenge"], first


def rt2_accepting(keys: dict[str, str] | None = None) -> tuple[Handshake, Rt2]:
    """Our acceptor that waits for the 2 of an rt2 dialer in the test's hand."""
    forger = Rt2(keys or {"k1": "secret-k1"}, dialer=True)
    handshake, _, forger.theirs = started(ring("k1"), dialer=False)
    assert handshake.receive(forger.challenge()) == []
    return handshake, forger


def ready(state: State) -> tuple[Handshake, Rt2]:
    """A handshake in `state`, and the peer that it stands opposite to."""
    forger = Rt2({"k1": "secret-k1"}, dialer=state is not State.RT2_DIALING)
    keys = KeyRing() if state is State.OPEN else ring("k1")
    handshake = side(keys, dialer=state is State.RT2_DIALING)
    (forger.theirs,) = first = handshake.start()
    proof = b""
    if state is not State.OPEN:
        text = legacy_proof("secret-k1", body(first[0], 1)["challenge"])
        proof = message(2, {"id": "k1", "proof": text})
    legacy = message(1, {"challenge": "c" * 32, "ids": ["k1"]})
    for raw in {
        State.CHALLENGED: [legacy],
        State.PROVED: [proof],
        State.RT2_ACCEPTING: [forger.challenge()],
        State.RT2_DIALING: [forger.challenge()],
        State.CONFIRMED: [legacy, proof],
        State.DONE: [legacy, proof, message(3, peer_data("legacy"))],
    }.get(state, []):
        handshake.receive(raw)
    assert handshake.state is state
    return handshake, forger


WELCOME = {
    State.OPEN: {3},
    State.OFFERED: {1, 2},
    State.CHALLENGED: {2},
    State.PROVED: {1},
    State.RT2_ACCEPTING: {2},
    State.RT2_DIALING: {2},
    State.CONFIRMED: {3},
    State.DONE: set(),
}
