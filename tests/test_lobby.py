"""Connections whose handshake is under way, and how many of them there may be."""

from __future__ import annotations

from typing import cast

import pytest

from roletalk.errors import AuthError, RoletalkError
from roletalk.gate import Admission
from roletalk.lobby import (
    MAX_ARRIVALS,
    MAX_ARRIVALS_PER_ADDRESS,
    MAX_STRANGERS,
    MAX_STRANGERS_PER_ADDRESS,
    Lobby,
)


class FakeAdmission:
    """What a lobby uses of an admission, which leaves the lobby as soon as it fails."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self.error: RoletalkError | None = None
        self.aborted = False

    def fail(self, error: RoletalkError) -> None:
        self.error = error
        self._lobby.leave(admission(self))

    def abort(self) -> None:
        self.aborted = True


def admission(fake: FakeAdmission) -> Admission:
    return cast("Admission", fake)


def stranger(lobby: Lobby, host: str) -> tuple[Admission, bool]:
    """One that comes, and whether it may stay."""
    made = admission(FakeAdmission(lobby))
    if lobby.full:
        return made, False
    lobby.enter(made, stranger=True)
    return made, lobby.let_in(made, host)


def test_the_limits_are_those_of_the_protocol() -> None:
    assert (MAX_STRANGERS, MAX_STRANGERS_PER_ADDRESS) == (1024, 64)


def test_64_strangers_from_one_address() -> None:
    lobby = Lobby()
    first = [stranger(lobby, "192.0.2.1") for _ in range(64)]
    assert all(let_in for _, let_in in first)
    refused, let_in = stranger(lobby, "192.0.2.1")
    assert not let_in
    lobby.leave(refused)
    assert stranger(lobby, "192.0.2.2")[1]
    assert not stranger(lobby, "192.0.2.1")[1]
    lobby.leave(first[0][0])
    assert stranger(lobby, "192.0.2.1")[1]
    assert not stranger(lobby, "192.0.2.1")[1]


def test_leaving_twice_makes_room_once() -> None:
    lobby = Lobby()
    first = [stranger(lobby, "192.0.2.1")[0] for _ in range(64)]
    lobby.leave(first[0])
    lobby.leave(first[0])
    assert stranger(lobby, "192.0.2.1")[1]
    assert not stranger(lobby, "192.0.2.1")[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", ""])
def test_1024_strangers_from_this_machine(host: str) -> None:
    lobby = Lobby()
    first = [stranger(lobby, host) for _ in range(1024)]
    assert all(let_in for _, let_in in first)
    assert not stranger(lobby, host)[1]
    assert not stranger(lobby, "192.0.2.1")[1]
    lobby.leave(first[-1][0])
    assert stranger(lobby, "192.0.2.1")[1]


def test_a_host_that_only_looks_local_is_limited() -> None:
    for host in ("128.0.0.1", "::2", "::ffff:127.0.0.1", "12.7.0.0"):
        lobby = Lobby()
        assert [stranger(lobby, host)[1] for _ in range(65)] == [True] * 64 + [False]


def test_strangers_count_before_their_address_is_known() -> None:
    lobby = Lobby()
    first = admission(FakeAdmission(lobby))
    lobby.enter(first, stranger=True)
    for _ in range(MAX_STRANGERS - 1):
        lobby.enter(admission(FakeAdmission(lobby)), stranger=True)
    assert lobby.full
    lobby.leave(first)
    assert not lobby.full


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def arrive(lobby: Lobby, host: str) -> bool:
    """One comes from `host`, and leaves at once if it may stay."""
    made, let_in = stranger(lobby, host)
    lobby.leave(made)
    return let_in


def test_how_fast_one_address_may_come() -> None:
    clock = Clock()
    lobby = Lobby(clock)
    came = [arrive(lobby, "192.0.2.1") for _ in range(2 * MAX_ARRIVALS_PER_ADDRESS)]
    assert came == [True] * MAX_ARRIVALS_PER_ADDRESS + [False] * MAX_ARRIVALS_PER_ADDRESS
    assert arrive(lobby, "192.0.2.2")
    clock.now += 0.999
    assert not arrive(lobby, "192.0.2.1")
    clock.now += 0.001
    assert arrive(lobby, "192.0.2.1")


def test_how_fast_all_may_come() -> None:
    clock = Clock()
    lobby = Lobby(clock)
    # Those that one address has too many of are not taken from the others.
    assert sum(arrive(lobby, "192.0.2.1") for _ in range(10_000)) == MAX_ARRIVALS_PER_ADDRESS
    left = MAX_ARRIVALS - MAX_ARRIVALS_PER_ADDRESS
    assert sum(arrive(lobby, f"2001:db8::{number:x}") for number in range(10_000)) == left
    assert not arrive(lobby, "192.0.2.9")
    assert arrive(lobby, "127.0.0.1")
    clock.now += 1.0
    assert arrive(lobby, "192.0.2.9")
    assert len(lobby._arrivals) == 1


def test_our_own_dials_are_not_limited() -> None:
    lobby = Lobby()
    for _ in range(2000):
        lobby.enter(admission(FakeAdmission(lobby)), stranger=False)
    assert len(lobby) == 2000
    assert stranger(lobby, "192.0.2.1")[1]


def test_everybody_is_turned_away_in_the_end() -> None:
    lobby = Lobby()
    fakes = [FakeAdmission(lobby) for _ in range(3)]
    for fake in fakes:
        lobby.enter(admission(fake), stranger=True)
    lobby.let_in(admission(fakes[0]), "192.0.2.1")
    reason = AuthError("closed")
    lobby.clear(reason)
    assert len(lobby) == 0
    assert all(fake.error is reason and fake.aborted for fake in fakes)
    assert [stranger(lobby, "192.0.2.1")[1] for _ in range(65)] == [True] * 64 + [False]
