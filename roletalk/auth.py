"""The handshake as a state machine over bytes, without I/O and without a clock.

The caller opens the connection, sends what `Handshake.start` gives, hands every message that comes
to `Handshake.receive` and sends what that gives, until `Handshake.done`.  The time limit is the
caller's.  Whatever the other side sends, nothing but a `HandshakeError` comes out.

Sections are those of docs/protocol.md; this is about 4, 8 and 9.
"""

from __future__ import annotations

import enum
import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from . import refusals
from ._text import printable, quoted
from ._wire import CloseCode, MessageType
from .keys import MAX_KEY_ID_BYTES, MAX_KEYS, Challenges, Key, KeyRing, generate_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "Challenges",
    "Handshake",
    "HandshakeError",
    "HandshakeResult",
    "KeyRing",
    "PeerInfo",
    "ReachedItselfError",
    "generate_key",
]

MAX_MESSAGE_BYTES: Final = 65_536  # of one handshake message, its type byte included
MAX_TAGS: Final = 256
MAX_ID_CHARS: Final = 256  # of a peer
PROTOCOL_MAJOR: Final = 2
RT2_VERSION: Final = 2
END_POINT: Final = "end-point"
NO_BINDING: Final = "none"


# -- what a handshake ends with --------------------------------------------------------------------


class HandshakeError(Exception):
    """The handshake is over without success, and the connection has to be closed.

    `close_code` is the WebSocket close code to close it with.  `send` is the error message to send
    before, or None.  `remote` says that it was the other side that refused.  `hint` is for this side
    alone: what it is likely to be, and what to do.
    """

    def __init__(
        self,
        text: str,
        close_code: int,
        send: bytes | None = None,
        remote: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(text)
        self.text = text
        self.close_code = close_code
        self.send = send
        self.remote = remote
        self.hint = hint


class ReachedItselfError(HandshakeError):
    """The connection leads back to the peer that it came from."""


@dataclass(frozen=True)
class PeerInfo:
    """What the remote peer says of itself in message 3."""

    id: str
    name: str
    roles: tuple[str, ...]
    friendly: bool
    meta: Mapping[str, str | int | float | bool]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class HandshakeResult:
    """A finished handshake.

    `key_id` is the id of the key that the remote side proved, None where this side has no keys.
    `rt2` says that the proofs were those of section 9, and `binding` that they covered the TLS
    certificate.  `features` are those that the remote side lists.  `roles_withheld`: this side's
    roles did not fit into message 3, which listed none; they have to be sent as a message 201.
    """

    peer: PeerInfo
    key_id: str | None
    rt2: bool
    features: frozenset[str]
    binding: bool
    roles_withheld: bool


# -- the shapes of the messages --------------------------------------------------------------------


class _Offer(Struct):
    v: Annotated[int, Meta(ge=RT2_VERSION)]
    side: str
    peer: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
    ids: Annotated[list[str], Meta(max_length=MAX_KEYS)]
    cb: list[str]


class _Challenge(Struct):
    challenge: Annotated[str, Meta(min_length=16, max_length=256)]
    ids: Annotated[list[str], Meta(max_length=MAX_KEYS)]
    rt2: _Offer | UnsetType = UNSET


class _BoundProof(Struct):
    proof: str
    cb: str


class _Proof(Struct):
    id: str
    proof: str
    rt2: _BoundProof | UnsetType = UNSET


class _Features(Struct):
    v: Annotated[int, Meta(ge=RT2_VERSION)]
    features: list[str]


# Section 5 bounds the roles by number and length; MAX_MESSAGE_BYTES is tighter than both.
class _PeerData(Struct):
    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
    roles: list[str]
    name: Annotated[str, Meta(max_length=1024)] | None = None
    friendly: bool | None = None
    meta: Any = None
    tags: Annotated[dict[str, str], Meta(max_length=MAX_TAGS)] | None = None
    rt2: _Features | UnsetType = UNSET


_Shape = TypeVar("_Shape", bound=Struct)


def _encode(kind: MessageType, data: object) -> bytes:
    return bytes([kind]) + msgspec.json.encode(data)


def _remote_error(body: bytes) -> str:
    """The text of a message 0: a JSON string if the sender kept to the protocol."""
    try:
        text = msgspec.json.decode(body, type=str)
    except ValueError:
        text = body.decode(errors="replace")
    return f"the remote peer refused: '{printable(text)}'"


def _speaks_our_protocol(meta: object) -> bool:
    version = meta.get("protocol") if isinstance(meta, dict) else None
    major = re.match(r"([0-9]{1,9})(?:[.+-]|\Z)", version) if isinstance(version, str) else None
    return major is not None and int(major[1]) == PROTOCOL_MAJOR


def _peer_info(data: _PeerData) -> PeerInfo:
    meta = {k: v for k, v in data.meta.items() if isinstance(v, (str, int, float))}
    return PeerInfo(
        id=data.id,
        name=data.name or "",
        roles=tuple(dict.fromkeys(data.roles)),
        friendly=bool(data.friendly),
        meta=MappingProxyType(meta),
        tags=MappingProxyType(data.tags or {}),
    )


# -- the state machine -----------------------------------------------------------------------------


class State(enum.Enum):
    """Where a handshake stands.  Arrows name the message received, and what is sent for it.

    ::

        NEW ─┬─ no keys: send 3 ──> OPEN ───────────────────────────────────────────┐
             │                                                                      3
             └─ keys: send 1                                                        │
                  v                                                                 v
               OFFERED ─┬─ 1 ─────────────> CHALLENGED ──── 2: send 2, 3 ─┐        DONE
                        ├─ 2 ─────────────> PROVED ──────── 1: send 2, 3 ─┤         ^
                        ├─ 1 rt2 ─────────> RT2_ACCEPTING ─ 2: send 2, 3 ─┤         3
                        └─ 1 rt2: send 2 ─> RT2_DIALING ─── 2: send 3 ────┤         │
                                                                          └─> CONFIRMED

        Anything else that comes, and `close`, lead to FAILED from every state but DONE.

    Every path takes at most three messages, so nothing has to count them.
    """

    NEW = enum.auto()
    OPEN = enum.auto()
    OFFERED = enum.auto()
    CHALLENGED = enum.auto()
    PROVED = enum.auto()
    RT2_ACCEPTING = enum.auto()
    RT2_DIALING = enum.auto()
    CONFIRMED = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


_MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.NEW: frozenset({State.OPEN, State.OFFERED, State.FAILED}),
    State.OPEN: frozenset({State.DONE, State.FAILED}),
    State.OFFERED: frozenset(
        {State.CHALLENGED, State.PROVED, State.RT2_ACCEPTING, State.RT2_DIALING, State.FAILED}
    ),
    State.CHALLENGED: frozenset({State.CONFIRMED, State.FAILED}),
    State.PROVED: frozenset({State.CONFIRMED, State.FAILED}),
    State.RT2_ACCEPTING: frozenset({State.CONFIRMED, State.FAILED}),
    State.RT2_DIALING: frozenset({State.CONFIRMED, State.FAILED}),
    State.CONFIRMED: frozenset({State.DONE, State.FAILED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
}

_DOWNGRADE: Final = "a legacy proof where rt2 was spoken before"

# Refusals that a user can mend, and therefore has to understand.
_UNWELCOME: Final[Mapping[tuple[State, int], str]] = {
    (State.OPEN, MessageType.CHALLENGE): "a proof is asked of a peer that has no keys",
    (State.OFFERED, MessageType.CONFIRMED): "a proof is required, and the other side gave none",
}


class Handshake:
    """One side of one handshake.

    keys: of this peer; looked up when they are needed, so a key removed meanwhile is not accepted.
    dialer: whether this side opened the connection.
    peer_id: the id that this peer goes by; message 3 carries it whatever `make_peer_data` says.
    make_peer_data: makes the peer data of section 4 at the time when it is sent.
    challenges: shared by all peers of the process.
    tls: the DER of the acceptor's certificate where both sides speak TLS directly, else None.
    require_rt2: whether a legacy proof is refused because rt2 was spoken before: asked with None
        about the address that was dialled, and with a unit's id once that is known.
    features: what this side lists in message 3.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        dialer: bool,
        peer_id: str,
        make_peer_data: Callable[[], dict[str, Any]],
        challenges: Challenges,
        tls: bytes | None = None,
        require_rt2: Callable[[str | None], bool],
        features: Sequence[str] = (),
    ) -> None:
        self._state = State.NEW
        self._keys = keys
        self._dialer = dialer
        self._peer_id = peer_id
        self._make_peer_data = make_peer_data
        self._challenges = challenges
        self._tls = tls
        self._require_rt2 = require_rt2
        self._features = list(features)
        self._ids: tuple[str, ...] = ()
        self._legacy_ids: tuple[str, ...] = ()
        self._challenge = ""
        self._digest = b""  # of our message 1
        self._theirs = _Challenge(challenge="", ids=[])  # until one is received
        self._their_digest = b""
        self._key_id: str | None = None
        self._roles_withheld = False
        self._result: HandshakeResult | None = None

    @property
    def done(self) -> bool:
        return self._state is State.DONE

    @property
    def state(self) -> State:
        return self._state

    @property
    def result(self) -> HandshakeResult:
        """What the handshake ended with; RuntimeError before it is done."""
        if self._result is None:
            raise RuntimeError("the handshake is not done")
        return self._result

    def start(self) -> list[bytes]:
        """The messages to send at once; to be called once."""
        if not self._keys:
            self._move(State.OPEN)
            return [self._confirmation()]
        self._move(State.OFFERED)
        self._ids, self._legacy_ids = self._keys.ids(), self._keys.legacy_ids()
        self._challenge = self._challenges.new()
        offer = {
            "v": RT2_VERSION,
            "side": self._side,
            "peer": self._peer_id,
            "ids": self._ids,
            "cb": [] if self._tls is None else [END_POINT],
        }
        message = _encode(
            MessageType.CHALLENGE,
            {"challenge": self._challenge, "ids": self._legacy_ids, "rt2": offer},
        )
        self._digest = sha256(message).digest()
        self._challenges.sent(self._challenge, self._digest)
        return [message]

    def receive(self, message: bytes) -> list[bytes]:
        """Take one message of the other side; gives the messages to answer with.

        Raises HandshakeError, after which nothing more is accepted.
        """
        try:
            return self._receive(message)
        except HandshakeError:
            self.close()
            raise

    def close(self) -> None:
        """Give up what is outstanding.  To be called in any case; more than once does no harm."""
        self._challenges.discard(self._challenge)
        if self._state not in (State.DONE, State.FAILED):
            self._move(State.FAILED)

    # -- receiving

    def _receive(self, message: bytes) -> list[bytes]:
        if self._state in (State.DONE, State.FAILED):
            raise HandshakeError("a message after the handshake", CloseCode.AUTH_REJECTED)
        if not message:
            raise self._refusal("an empty message", CloseCode.BAD_STRUCTURE)
        if len(message) > MAX_MESSAGE_BYTES:
            raise self._refusal("a handshake message is too long", CloseCode.TOO_BIG)
        kind = message[0]
        if kind == MessageType.ERROR:
            raise HandshakeError(
                _remote_error(message[1:]), CloseCode.AUTH_REJECTED, remote=True, hint=self.hint()
            )
        handler = self._HANDLERS.get((self._state, kind))
        if handler is None:
            text = _UNWELCOME.get((self._state, kind), f"message {kind} out of turn")
            raise self._refusal(text, hint=self._unwelcome(kind, message))
        return handler(self, message)

    def _on_challenge(self, message: bytes) -> list[bytes]:
        theirs = self._convert(self._parse(message), _Challenge, CloseCode.AUTH_REJECTED)
        digest = sha256(message).digest()
        offer = theirs.rt2
        if not theirs.challenge.isascii():
            raise self._refusal("the challenge is not ASCII")
        ids = theirs.ids if offer is UNSET else (*theirs.ids, *offer.ids)
        if any(len(kid.encode()) > MAX_KEY_ID_BYTES for kid in ids):
            raise self._refusal("a key id is too long")
        if offer is not UNSET and offer.peer == self._peer_id:
            raise self._refusal("reached itself", error=ReachedItselfError)
        if self._challenges.reflects(theirs.challenge, digest):
            raise self._refusal("the challenge is one of our own")
        self._theirs, self._their_digest = theirs, digest
        if offer is UNSET:
            return self._on_legacy_challenge()
        return self._on_offer(offer)

    def _on_legacy_challenge(self) -> list[bytes]:
        if self._state is State.PROVED:
            return self._prove_legacy()
        self._refuse_downgrade()
        self._choose()
        # Both legacy peers sign whatever they are sent.  Not to be an oracle for an attacker in the
        # middle, this side proves nothing before the other side has.
        self._move(State.CHALLENGED)
        return []

    def _on_legacy_proof(self, message: bytes) -> list[bytes]:
        proof = self._convert(self._parse(message), _Proof, CloseCode.AUTH_REJECTED)
        if proof.rt2 is not UNSET:
            raise self._refusal("an rt2 proof without an rt2 challenge")
        self._refuse_downgrade()
        key = self._usable(proof.id)
        expected = None if key is None else key.legacy_proof(self._challenge)
        self._verify(proof.id, proof.proof, expected)
        if self._state is State.CHALLENGED:
            return self._prove_legacy()
        self._move(State.PROVED)
        return []

    def _prove_legacy(self) -> list[bytes]:
        kid, key = self._choose()
        proof = key.legacy_proof(self._theirs.challenge).decode()
        self._move(State.CONFIRMED)
        return [_encode(MessageType.PROOF, {"proof": proof, "id": kid}), self._confirmation()]

    def _on_offer(self, offer: _Offer) -> list[bytes]:
        if self._state is State.PROVED:
            raise self._refusal("an rt2 challenge after a legacy proof")
        if offer.side != self._other_side:
            raise self._refusal("the rt2 challenge is of the wrong side")
        self._choose()
        if not self._dialer:
            self._move(State.RT2_ACCEPTING)
            return []
        self._move(State.RT2_DIALING)
        return [self._rt2_proof()]

    def _on_rt2_proof(self, message: bytes) -> list[bytes]:
        proof = self._convert(self._parse(message), _Proof, CloseCode.AUTH_REJECTED)
        if proof.rt2 is UNSET or proof.proof:
            raise self._refusal("a legacy proof where both sides speak rt2")
        if proof.rt2.cb != self._binding_name:
            raise self._refusal("the TLS channel binding differs", hint=refusals.BINDING)
        key = self._usable(proof.id)
        expected = None if key is None else self._bound_proof(key, proof.id, self._other_side)
        self._verify(proof.id, proof.rt2.proof, expected)
        answer = [] if self._dialer else [self._rt2_proof()]
        self._move(State.CONFIRMED)
        return [*answer, self._confirmation()]

    def _on_confirmed(self, message: bytes) -> list[bytes]:
        # Keys that were added while the connection was being made hold for it, too.
        if self._keys and self._key_id is None:
            raise self._refusal("no proof was given", last=True)
        raw = self._parse(message, last=True)
        if isinstance(raw, dict) and not _speaks_our_protocol(raw.get("meta")):
            text = "the remote peer speaks another version of the protocol"
            hint = f"this one speaks {PROTOCOL_MAJOR}.x: update the older of the two"
            raise self._refusal(text, CloseCode.WRONG_VERSION, last=True, hint=hint)
        data = self._convert(raw, _PeerData, CloseCode.BAD_STRUCTURE, last=True)
        if data.id == self._peer_id:
            raise self._refusal("reached itself", error=ReachedItselfError, last=True)
        offer = self._their_offer
        if offer is not UNSET:
            if data.rt2 is UNSET:
                raise self._refusal("the confirmation lacks rt2", last=True)
            if data.id != offer.peer:
                raise self._refusal("the peer's id is not the one that it proved for", last=True)
        elif self._key_id is not None and self._require_rt2(data.id):
            raise self._refusal(_DOWNGRADE, last=True, hint=refusals.DOWNGRADE)
        self._result = HandshakeResult(
            peer=_peer_info(data),
            key_id=self._key_id,
            rt2=offer is not UNSET,
            features=frozenset(() if data.rt2 is UNSET else data.rt2.features),
            binding=self._binding_name == END_POINT,
            roles_withheld=self._roles_withheld,
        )
        self._move(State.DONE)
        self.close()
        return []

    # -- the parts of it

    @property
    def _side(self) -> str:
        return "C" if self._dialer else "S"

    @property
    def _other_side(self) -> str:
        return "S" if self._dialer else "C"

    @property
    def _their_offer(self) -> _Offer | UnsetType:
        return self._theirs.rt2

    @property
    def _binding_name(self) -> str:
        offer = self._their_offer
        both = self._tls is not None and offer is not UNSET and END_POINT in offer.cb
        return END_POINT if both else NO_BINDING

    @property
    def _their_ids(self) -> frozenset[str]:
        offer = self._theirs.rt2
        return frozenset(self._theirs.ids if offer is UNSET else offer.ids)

    def hint(self) -> str:
        """What it is likely to be when the other side refuses now."""
        tried = None
        if self._state in (State.RT2_DIALING, State.CONFIRMED):
            common = (kid for kid in self._ids if kid in self._their_ids and self._usable(kid))
            tried = next(common, None)
        return refusals.refused(self._ids, tried, bound=self._binding_name == END_POINT)

    def _unwelcome(self, kind: int, message: bytes) -> str:
        if (self._state, kind) == (State.OFFERED, MessageType.CONFIRMED):
            return refusals.keys_here_only(self._ids)
        if (self._state, kind) == (State.OPEN, MessageType.CHALLENGE):
            try:
                theirs = msgspec.json.decode(message[1:], type=_Challenge)
            except (ValueError, RecursionError):
                return refusals.keys_there_only(())
            offer = theirs.rt2
            return refusals.keys_there_only(theirs.ids if offer is UNSET else offer.ids)
        return "is that a roletalk peer?"

    def _move(self, state: State) -> None:
        """The only place that changes the state."""
        if state not in _MOVES[self._state]:
            raise RuntimeError(f"a handshake cannot go from {self._state.name} to {state.name}")
        self._state = state

    def _usable(self, kid: str) -> Key | None:
        """The key of an id that this side offered for the kind of proof that is being made."""
        rt2 = self._their_offer is not UNSET
        key = self._keys.get(kid) if kid in (self._ids if rt2 else self._legacy_ids) else None
        return key if key is not None and (rt2 or key.legacy) else None

    def _choose(self) -> tuple[str, Key]:
        """The first of this side's keys that the other side has, too."""
        theirs = self._their_ids
        for kid in self._ids:
            key = self._usable(kid)
            if key is not None and kid in theirs:
                return kid, key
        unfit = (kid for kid in self._ids if kid in theirs)
        hint = refusals.no_common_id(self._ids, sorted(theirs), unfit)
        raise self._refusal("no key id in common", hint=hint)

    def _verify(self, kid: str, proof: str, expected: bytes | None) -> None:
        if expected is None:
            raise self._refusal(f"a proof with a key that was not offered: {quoted(kid)}")
        if not hmac.compare_digest(proof.encode(), expected):
            hint = refusals.wrong_proof(kid, bound=self._binding_name == END_POINT)
            raise self._refusal(f"a wrong proof for the key {quoted(kid)}", hint=hint)
        self._key_id = kid

    def _bound_proof(self, key: Key, kid: str, side: str) -> bytes:
        hashes = [self._digest, self._their_digest]
        transcript = b"".join(hashes if self._dialer else reversed(hashes))
        binding = b"\x00"
        if self._tls is not None and self._binding_name == END_POINT:
            binding = b"\x01" + sha256(self._tls).digest()
        return key.rt2_proof(side, transcript, kid, binding)

    def _rt2_proof(self) -> bytes:
        kid, key = self._choose()
        proof = self._bound_proof(key, kid, self._side).decode()
        bound = {"proof": proof, "cb": self._binding_name}
        return _encode(MessageType.PROOF, {"id": kid, "proof": "", "rt2": bound})

    def _confirmation(self) -> bytes:
        data = {**self._make_peer_data(), "id": self._peer_id}
        if not self._ids or self._their_offer is not UNSET:
            data["rt2"] = {"v": RT2_VERSION, "features": self._features}
        message = _encode(MessageType.CONFIRMED, data)
        if len(message) > MAX_MESSAGE_BYTES:
            self._roles_withheld = True
            message = _encode(MessageType.CONFIRMED, {**data, "roles": []})
        if len(message) > MAX_MESSAGE_BYTES:
            hint = "fewer or shorter tags= of the Peer, or a shorter name="
            text = "this peer's own name and tags are too long"
            raise HandshakeError(text, CloseCode.TOO_BIG, hint=hint)
        return message

    def _refuse_downgrade(self) -> None:
        if self._dialer and self._require_rt2(None):
            raise self._refusal(_DOWNGRADE, hint=refusals.DOWNGRADE)

    def _parse(self, message: bytes, last: bool = False) -> object:
        try:
            return msgspec.json.decode(message[1:])
        except (ValueError, RecursionError):
            text = f"message {message[0]} is not JSON"
            raise self._refusal(text, CloseCode.BAD_STRUCTURE, last=last) from None

    def _convert(
        self, raw: object, shape: type[_Shape], code: CloseCode, last: bool = False
    ) -> _Shape:
        try:
            return msgspec.convert(raw, shape)
        except msgspec.ValidationError as error:
            text = f"a malformed handshake message: {printable(str(error))}"
            raise self._refusal(text, code, last=last) from None

    def _refusal(
        self,
        text: str,
        code: CloseCode = CloseCode.AUTH_REJECTED,
        *,
        error: type[HandshakeError] = HandshakeError,
        last: bool = False,
        hint: str = "",
    ) -> HandshakeError:
        """The error to raise; it tells the other side why unless that is connected by now.

        A side that has sent its 3 (`last`) and got ours takes a 0 for a message of an unknown type,
        and a legacy peer may die of one.
        """
        return error(text, code, None if last else _encode(MessageType.ERROR, text), hint=hint)

    # Every message that is in its turn.  Whatever does not stand here is refused.
    _HANDLERS: ClassVar[Mapping[tuple[State, int], Callable[[Handshake, bytes], list[bytes]]]] = {
        (State.OPEN, MessageType.CONFIRMED): _on_confirmed,
        (State.OFFERED, MessageType.CHALLENGE): _on_challenge,
        (State.OFFERED, MessageType.PROOF): _on_legacy_proof,
        (State.CHALLENGED, MessageType.PROOF): _on_legacy_proof,
        (State.PROVED, MessageType.CHALLENGE): _on_challenge,
        (State.RT2_ACCEPTING, MessageType.PROOF): _on_rt2_proof,
        (State.RT2_DIALING, MessageType.PROOF): _on_rt2_proof,
        (State.CONFIRMED, MessageType.CONFIRMED): _on_confirmed,
    }
