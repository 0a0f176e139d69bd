"""Preshared keys, challenges, and the proofs made of them (docs/protocol.md, sections 4, 8, 9)."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ._text import quoted

__all__ = ["Challenges", "Key", "KeyRing", "generate_key"]

MAX_KEYS: Final = 64
MAX_KEY_ID_BYTES: Final = 256  # of UTF-8
# Message 1 lists the ids twice and has to stay below 64 KiB, also where they consist of characters
# that JSON escapes.
MAX_KEY_IDS_JSON_BYTES: Final = 30_000


def generate_key() -> str:
    """A new random key of 256 bits, as 43 URL-safe ASCII characters."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Key:
    """A preshared secret and whether it may be used with legacy peers."""

    secret: bytes = field(repr=False)
    legacy: bool

    def legacy_proof(self, challenge: str) -> bytes:
        """Lower hex of the proof that Go and JS know (section 4)."""
        return hmac.digest(self.secret, challenge.encode("ascii"), "sha256").hex().encode()

    def rt2_proof(self, side: str, transcript: bytes, key_id: str, binding: bytes) -> bytes:
        """Lower hex of P_X (section 9); `transcript` is hC || hS and `binding` is CB."""
        # No legacy peer can be made to sign these: it signs UTF-8 only, which never holds FF.
        derived = hmac.digest(self.secret, b"\xffroletalk/2 key", "sha512")
        kid = key_id.encode()
        signed = b"\xffroletalk/2 proof\x00" + side.encode() + transcript
        signed += len(kid).to_bytes(2, "big") + kid + binding
        return hmac.digest(derived, signed, "sha256").hex().encode()


class KeyRing:
    """A peer's preshared keys by id, in the order in which they were added."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    def add(self, key_id: str, key: str, *, legacy: bool = True) -> None:
        """Add `key` under `key_id`, or replace that id's key in place.

        With ``legacy=False`` the key is neither used for nor accepted as a legacy proof.
        Raises ValueError if either is empty, if `key_id` is longer than 256 bytes of UTF-8,
        or if there would be more than 64 keys.
        """
        if not isinstance(key_id, str) or not isinstance(key, str):
            raise TypeError(
                f"a key and its id are str, not {type(key).__name__} and {type(key_id).__name__}:"
                " add_key(id, key)"
            )
        if not key_id or not key:
            what = f"the key of {quoted(key_id)}" if key_id else "the id of a key"
            raise ValueError(f"{what} is empty: generate_key() makes a key")
        if len(key_id.encode()) > MAX_KEY_ID_BYTES:
            # Not quoted: it may be the key, given in the wrong place.
            raise ValueError(
                f"a key id has at most {MAX_KEY_ID_BYTES} bytes of UTF-8; is it the key? add_key(id, key)"
            )
        ids = dict.fromkeys((*self._keys, key_id))
        if len(ids) > MAX_KEYS:
            raise ValueError(f"a peer has at most {MAX_KEYS} keys: remove_key() those not in use")
        if len(msgspec.json.encode(list(ids))) > MAX_KEY_IDS_JSON_BYTES:
            raise ValueError("the key ids are too long to be sent together")
        self._keys[key_id] = Key(key.encode(), bool(legacy))

    def remove(self, key_id: str) -> None:
        """Forget the key; raises KeyError if there is none of that id."""
        if key_id not in self._keys:
            raise KeyError(f"no key {key_id!r} to remove")
        del self._keys[key_id]

    def get(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def legacy_ids(self) -> tuple[str, ...]:
        """The ids of the keys that may be used with legacy peers."""
        return tuple(kid for kid, key in self._keys.items() if key.legacy)

    def __bool__(self) -> bool:
        return bool(self._keys)


class Challenges:
    """The challenges that a process has outstanding, on whichever connection of whichever peer.

    One that comes back is an attacker's attempt to have this process answer its own question
    (section 8).  The one honest way back is through another peer of the same process, in the very
    message that this peer sent; that message offers rt2, so no legacy proof ever answers it.

    One instance may be shared by peers of several threads.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes | None] = {}

    def new(self) -> str:
        """A new outstanding challenge: 32 random bytes as 64 hex characters."""
        challenge = secrets.token_hex(32)
        self._digests[challenge] = None
        return challenge

    def sent(self, challenge: str, digest: bytes) -> None:
        """Note the SHA-256 of the message 1 that carries an outstanding challenge."""
        self._digests[challenge] = digest

    def reflects(self, challenge: str, digest: bytes) -> bool:
        """Whether a received `challenge` is one of ours in another message than our own."""
        return self._digests.get(challenge, digest) != digest

    def discard(self, challenge: str) -> None:
        self._digests.pop(challenge, None)

    def __contains__(self, challenge: object) -> bool:
        return challenge in self._digests

    def __len__(self) -> int:
        return len(self._digests)
