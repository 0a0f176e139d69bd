"""Roles that are announced (docs/protocol.md, section 5)."""

from __future__ import annotations

import json
from typing import Any, Final

from roletalk.announcer import MAX_ROLES, Announcer
from roletalk.errors import ProtocolError

DICTIONARY: Final = (b'{"i":', b',"roles":[', b'"r"', b"9223372036854775807", b"1e3", b"\\ud800")
LAST: Final = 5


class _Unit:
    _roles_at = LAST


def test_one(data: bytes) -> None:
    unit: Any = _Unit()
    try:
        heard = Announcer.heard(unit, data)
    except ProtocolError as error:
        assert error.close_code == 4006
        assert unit._roles_at == LAST
        return
    # What is not UTF-8 in a field that nobody reads is no fault.
    told = json.loads(data.decode("utf-8", "replace"))
    assert unit._roles_at == max(LAST, told["i"])
    assert (heard is None) == (told["i"] <= LAST)
    if heard is not None:
        assert heard == frozenset(told["roles"])
        assert len(told["roles"]) <= MAX_ROLES
