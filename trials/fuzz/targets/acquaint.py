"""Introductions: whatever comes, only allowed addresses are dialled (docs/protocol.md, sections 5, 8)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Coroutine
from typing import Any, Final

from roletalk.acquaintance import MAX_DIALS, MAX_WAITING, Acquaintances
from roletalk.errors import ProtocolError
from roletalk.remote_log import RemoteLog
from trials.fuzz.source import Source
from trials.fuzz.targets import address

DICTIONARY: Final = (*address.DICTIONARY, b'{"id":"', b'","address":"', b'","roles":["r"]}')
HOST: Final = "10.1.2.3"


class _Loop:
    def time(self) -> float:
        return 0.0

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> object:
        coroutine.close()
        return object()


class _Link:
    class owner:  # noqa: N801  # a link's attribute of that name
        host = HOST


class _Unit:
    id = "introducer"
    connections = (_Link,)
    _dialers = ()


class _Peer:
    """What `Acquaintances` uses of a peer."""

    id = "ours"
    friendly = True
    closing = False
    loop = _Loop()
    _destinations: Final = {"r": None}
    _dialers: Final = ()

    def __init__(self) -> None:
        self.drops = 0
        self.remote_log = RemoteLog(1, 1)

    def unit(self, unit_id: str) -> object | None:
        return self if unit_id == "known" else None

    def count_drop(self, reason: str) -> None:
        self.drops += 1


def test_one(data: bytes) -> None:
    source = Source(data)
    peer: Any = _Peer()
    unit: Any = _Unit()
    acquaintances = Acquaintances(peer, None)
    while not source.is_empty:
        text = source.rest() if source.flag() else _introduction(source)
        try:
            acquaintances.received(unit, text)
        except ProtocolError as error:
            assert error.close_code == 4006
    dialled = [*acquaintances._dialling, *(each.address.place for each in acquaintances._waiting)]
    assert len(set(dialled)) == len(dialled)
    assert len(acquaintances._dialling) <= MAX_DIALS
    assert len(acquaintances._waiting) <= MAX_WAITING
    for place in dialled:
        host, _, port = place.rpartition(":")
        assert 0 < int(port) < 65_536
        assert host == HOST or ipaddress.ip_address(host) in ipaddress.ip_network("10.0.0.0/8")


def _introduction(source: Source) -> bytes:
    roles = source.pick((["r"], ["r", "s"], ["s"], []))
    unit_id = source.pick(("a", "b", "ours", "known", ""))
    url = source.pick(("ws://10.1.2.3:", "ws://10.0.0.", "wss://[", "ws://", "")) + source.text()
    return json.dumps({"id": unit_id, "address": url, "roles": roles}).encode()
