"""Hints to what a handshake failed for, for the own side's errors and log only.

Nothing of them goes to the other side.  What it told is in them only where it is quoted and cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from ._text import quoted

NAMED: Final = 5  # of key ids

DOWNGRADE: Final = (
    "an older implementation in its place, or an attack; restart this process to accept it again"
)
BINDING: Final = (
    "TLS is ended in between, by a proxy with another certificate, or for one side only; see"
    " docs/security.md"
)


def keys_there_only(ids: Iterable[str]) -> str:
    """This side has no keys."""
    return f"this peer has no keys, the other side has {_ids(ids)}: peer.add_key(id, key) here"


def keys_here_only(ids: Iterable[str]) -> str:
    """The other side has no keys."""
    return f"the other side has no keys, this peer has {_ids(ids)}: peer.add_key(id, key) there"


def no_common_id(ours: Iterable[str], theirs: Iterable[str], unfit: Iterable[str]) -> str:
    """`unfit` are ids in common whose keys may not be used with this other side."""
    not_legacy = tuple(unfit)
    if not_legacy:
        return (
            f"key {_ids(not_legacy)} was added with legacy=False, and the other side proves keys the"
            " legacy way only: add_key(..., legacy=True) one for it"
        )
    return (
        f"this peer has {_ids(ours)}, the other side {_ids(theirs)}: peer.add_key() the same id and"
        " key on both sides"
    )


def wrong_proof(key_id: str, *, bound: bool) -> str:
    """A proof with a key that both sides have an id for; `bound`: to the TLS certificate."""
    certificate = ", or TLS is ended by a proxy in between" if bound else ""
    return (
        f"most likely the key {quoted(key_id)} has another secret on the other side{certificate}:"
        " peer.add_key() the same one on both"
    )


def refused(ids: Iterable[str], tried: str | None, *, bound: bool) -> str:
    """The other side refused this one, which has keys `ids`, and proved `tried` if it came that far."""
    if tried is not None:
        return wrong_proof(tried, bound=bound)
    known = tuple(ids)
    if known:
        return f"this peer has {_ids(known)}: has the other side the same id and key?"
    return "this peer has no keys: peer.add_key(id, key) here if the other side has some"


def _ids(ids: Iterable[str]) -> str:
    known = tuple(islice(ids, NAMED + 1))
    shown = ", ".join(quoted(each, 40) for each in known[:NAMED])
    return (shown or "none") + (", ..." if len(known) > NAMED else "")
