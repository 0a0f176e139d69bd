"""What units are told of our roles, and what we take of theirs."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

import roletalk
from roletalk.announcer import MAX_ROLES, Announcer
from roletalk.errors import ProtocolError
from tests.helpers import eventually, peers, run
from tests.rawclient import ROLES, Connection, authenticate, dial


class FakeUnit:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self._roles_at = -1

    def send_control(self, message: bytes) -> bool:
        assert message[0] == ROLES
        self.told.append(json.loads(message[1:]))
        return True


class FakePeer:
    """What an announcer uses of a peer."""

    def __init__(self, *units: FakeUnit) -> None:
        self.units = units
        self.roles: list[str] = []
        self.loop = asyncio.get_running_loop()

    def active_roles(self) -> list[str]:
        return self.roles


def announcer(peer: FakePeer) -> Announcer:
    return Announcer(cast("roletalk.Peer", peer))


def heard(unit: FakeUnit, message: object) -> frozenset[str] | None:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return Announcer.heard(cast("roletalk.Unit", unit), text)


# -- telling


def test_the_changes_of_a_turn_go_out_in_one_message() -> None:
    async def main() -> None:
        units = FakeUnit(), FakeUnit()
        peer = FakePeer(*units)
        ours = announcer(peer)
        for name in ("a", "b", "c"):
            peer.roles.append(name)
            ours.changed()
        peer.roles.remove("b")
        ours.changed()
        assert ours.counter == 4
        assert units[0].told == []
        await asyncio.sleep(0)
        for unit in units:
            assert unit.told == [{"i": 4, "roles": ["a", "c"]}]
        ours.changed()
        await asyncio.sleep(0)
        assert [told["i"] for told in units[0].told] == [4, 5]

    run(main())


def test_changes_are_counted_while_there_is_nobody_to_tell() -> None:
    async def main() -> None:
        peer = FakePeer()
        ours = announcer(peer)
        for _ in range(3):
            ours.changed()
        unit = FakeUnit()
        peer.units = (unit,)
        await asyncio.sleep(0)
        assert unit.told == []
        ours.tell(cast("roletalk.Unit", unit))
        assert unit.told == [{"i": 3, "roles": []}]

    run(main())


def test_what_is_said_again_counts_as_new() -> None:
    async def main() -> None:
        unit = FakeUnit()
        ours = announcer(FakePeer(unit))
        ours.tell(cast("roletalk.Unit", unit))
        ours.tell_again(cast("roletalk.Unit", unit))
        assert [told["i"] for told in unit.told] == [0, 1]

    run(main())


# -- hearing


def test_only_later_roles_are_taken() -> None:
    unit = FakeUnit()
    assert heard(unit, {"i": 0, "roles": ["a"]}) == frozenset({"a"})
    assert heard(unit, {"i": 0, "roles": ["b"]}) is None
    assert heard(unit, {"i": 5, "roles": ["b", "b", "ä"], "x": None}) == frozenset({"b", "ä"})
    assert heard(unit, {"i": 4, "roles": ["c"]}) is None
    assert heard(unit, {"i": 6, "roles": []}) == frozenset()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"i": 9}',
        b'{"roles": []}',
        b'{"i": "9", "roles": []}',
        b'{"i": 9.5, "roles": []}',
        b'{"i": true, "roles": []}',
        b'{"i": null, "roles": []}',
        b'{"i": 9, "roles": null}',
        b'{"i": 9, "roles": {}}',
        b'{"i": 9, "roles": ["a", 5]}',
        b'{"i": 9, "roles": ["a", null]}',
        b'{"i": 9, "roles": ["\xff"]}',
        b'{"i": 9, "roles": ' + b"[" * 100_000,
        {"i": 9, "roles": ["r"] * (MAX_ROLES + 1)},
    ],
    ids=lambda message: repr(message)[:30],
)
def test_what_is_no_roles_message(message: object) -> None:
    unit = FakeUnit()
    with pytest.raises(ProtocolError) as caught:
        heard(unit, message)
    assert caught.value.close_code == 4006
    assert unit._roles_at == -1
    assert heard(unit, {"i": 1, "roles": ["a"]}) == frozenset({"a"})


def test_as_many_roles_as_allowed() -> None:
    roles = [str(i) for i in range(MAX_ROLES)]
    assert heard(FakeUnit(), {"i": 1, "roles": roles}) == frozenset(roles)


# -- on the wire


def raw_unit(port: int) -> tuple[Connection, dict[str, Any]]:
    connection = dial(port)
    return connection, authenticate(connection)


def read_roles(connection: Connection) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(connection.read_kind(ROLES)[1:])
    return told


def test_a_unit_hears_of_several_changes_at_once() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()
            role = server.role("a")
            connection, data = await asyncio.to_thread(raw_unit, listener.port)
            with connection:
                assert data["roles"] == ["a"]
                await eventually(lambda: server.units)
                before = server._announcer.counter
                server.role("b")
                server.role("silent", active=False)
                role.disable()
                role.enable()
                role.disable()
                role.disable()  # no change
                told = await asyncio.to_thread(read_roles, connection)
                assert told == {"i": before + 4, "roles": ["b"]}
                role.enable()
                told = await asyncio.to_thread(read_roles, connection)
                assert told == {"i": before + 5, "roles": ["a", "b"]}

    run(main())


def test_roles_are_said_again_when_one_of_two_connections_is_lost() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()
            server.role("a")
            first, _ = await asyncio.to_thread(raw_unit, listener.port)
            with first:

                def again() -> Connection:
                    connection = dial(listener.port)
                    data = {
                        "id": first.peer_id,
                        "name": "raw",
                        "roles": [],
                        "friendly": True,
                        "meta": {"protocol": "2.0.0", "runtime": "x", "time": 1, "uptime": 1},
                    }
                    authenticate(connection, data=data)
                    return connection

                second = await asyncio.to_thread(again)
                with second:
                    await eventually(lambda: server.units and len(server.units[0].connections) == 2)
                    before = server._announcer.counter
                    first.drop()
                    told = await asyncio.to_thread(read_roles, second)
                    assert told["roles"] == ["a"]
                    assert told["i"] > before
                    assert len(server.units) == 1

    run(main())
