"""The key ring, and the challenges that are outstanding."""

from __future__ import annotations

import re

import pytest

from roletalk.keys import Challenges, KeyRing, generate_key
from tests.handshakes import side


def test_the_key_ring() -> None:
    keys = KeyRing()
    assert not keys
    assert keys.ids() == ()
    for index in range(64):
        keys.add(f"k{index}", "x", legacy=index % 2 == 0)
    keys.add("k0", "replaced", legacy=False)
    assert keys.ids()[:2] == ("k0", "k1")
    assert keys.legacy_ids()[0] == "k2"
    key = keys.get("k0")
    assert key is not None
    assert key.secret == b"replaced"
    assert "replaced" not in repr(key)
    with pytest.raises(ValueError, match="at most 64"):
        keys.add("one too many", "x")
    keys.remove("k1")
    assert keys
    assert keys.get("k1") is None
    with pytest.raises(KeyError):
        keys.remove("k1")
    keys.add("é" * 128, "x")
    for bad in (("", "x"), ("x", ""), ("é" * 129, "x"), ("\ud800", "x")):
        with pytest.raises(ValueError, match=r"."):
            keys.add(*bad)
    with pytest.raises(TypeError):
        keys.add("x", b"x")  # type: ignore[arg-type]
    clumsy = KeyRing()
    for index in range(19):
        clumsy.add("\x01" * 250 + str(index), "x")
    with pytest.raises(ValueError, match="too long"):
        clumsy.add("\x01" * 250, "x")
    (first,) = side(clumsy, dialer=True).start()
    assert len(first) < 65_536
    assert len(generate_key()) == 43
    assert generate_key() != generate_key()


def test_a_challenge_is_outstanding_until_it_is_discarded() -> None:
    challenges = Challenges()
    one, another = challenges.new(), challenges.new()
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert one != another
    assert len(challenges) == 2
    # Nothing but the message that it was sent in is no reflection of it.
    assert challenges.reflects(one, b"digest")
    assert not challenges.reflects("unknown", b"digest")
    challenges.sent(one, b"digest")
    assert not challenges.reflects(one, b"digest")
    assert challenges.reflects(one, b"another")
    for _ in range(2):
        challenges.discard(one)
        assert one not in challenges
        assert another in challenges
    assert not challenges.reflects(one, b"another")
