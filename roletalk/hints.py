"""Why there is no unit for a role, as far as this peer can tell."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from ._text import printable, quoted

if TYPE_CHECKING:
    from .peer import Peer

LOOKED_AT: Final = 64  # units, roles of them, and dials
NAMED: Final = 5  # of roles, or of dials that fail
LIKENED: Final = 64  # characters of a role that others are compared with: longer ones take too long
DIAL_CHARS: Final = 300  # of what a dial failed with


def why_nobody(peer: Peer, role: str) -> Callable[[], str]:
    """What is known at this time of why no unit serves `role`; put into words when it is called.

    A program may run into the same lack thousands of times a second, and look at none of the errors.
    """
    closing, serves_it, count = peer.closing, peer.serves(role), len(peer._units)
    roles = tuple(unit.roles for unit in islice(peer._units, LOOKED_AT))
    failing = tuple(dialer.failure for dialer in islice(peer._dialers, LOOKED_AT))
    is_alone = not (peer._units or peer._dialers or peer._listeners)

    def words() -> str:
        if closing:
            return "this peer is closed or closing"
        if is_alone:
            said = ["no units are connected: neither connect() nor listen() is in effect"]
        elif count:
            served = tuple(islice(_distinct(roles), LOOKED_AT))
            said = [f"{count} unit{'' if count == 1 else 's'} connected, with {_named(served)}"]
            near = difflib.get_close_matches(role, served, n=1) if len(role) <= LIKENED else []
            if near:
                said.append(f"did you mean {quoted(near[0])}?")
        else:
            said = ["no units are connected"]
        if serves_it:
            said.append("this peer serves the role itself, and is no unit of its own")
        failed = [each for each in failing if each]
        said += [printable(each, DIAL_CHARS) for each in failed[:NAMED]]
        if len(failed) > NAMED:
            said.append(f"{len(failed) - NAMED} more dials fail")
        return "; ".join(said)

    return words


def _distinct(roles: Iterable[frozenset[str]]) -> Iterable[str]:
    seen: set[str] = set()
    for each in roles:
        for name in sorted(islice(each, LOOKED_AT)):
            if name not in seen:
                seen.add(name)
                yield name


def _named(roles: tuple[str, ...]) -> str:
    if not roles:
        return "no roles"
    shown = ", ".join(map(quoted, roles[:NAMED]))
    more = f" and {len(roles) - NAMED} more" if len(roles) > NAMED else ""
    return f"{'role' if len(roles) == 1 else 'roles'} {shown}{more}"
