"""Roles: announced live, enabled and disabled, their callbacks."""

from __future__ import annotations

import asyncio

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, ready, run

pytestmark = pytest.mark.usefixtures("on_mesh")


def test_a_role_is_made_once() -> None:
    async def main() -> None:
        async with peers("p") as (peer,):
            made: list[roletalk.Role] = []
            peer.on_role(made.append)
            role = peer.role("r")
            assert peer.role("r", active=False) is role
            assert role.active  # `active` counted only at the first call
            silent = peer.role("silent", active=False)
            assert not silent.active
            assert made == [role, silent]
            assert peer.roles == (role, silent)
            assert (role.name, role.peer) == ("r", peer)
            assert "'r'" in repr(role)

    run(main())


@pytest.mark.parametrize("name", [5, None, b"r"])
def test_a_name_is_a_str(name: object) -> None:
    async def main() -> None:
        async with peers("p") as (peer,):
            with pytest.raises(TypeError):
                peer.role(name)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                peer.role("r").on_request(name if name is not None else 5)  # type: ignore[call-overload]

    run(main())


def test_names_have_a_greatest_length() -> None:
    async def main() -> None:
        async with peers("p") as (peer,):
            assert peer.role("é" * 32_767).active
            with pytest.raises(ValueError):
                peer.role("é" * 32_768)
            with pytest.raises(ValueError):
                peer.role("\ud800")
            assert len(peer.roles) == 1

    run(main())


def test_units_learn_at_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            unit = client.units[0]
            assert unit.roles == frozenset()
            role = server.role("a")
            await eventually(lambda: unit.roles == {"a"})
            server.role("b", active=False)
            server.role("c")
            await eventually(lambda: unit.roles == {"a", "c"})
            role.disable()
            await eventually(lambda: unit.roles == {"c"})
            server.role("b").enable()
            role.enable()
            await eventually(lambda: unit.roles == {"a", "b", "c"})
            # Both ways: the one who dialled announces as well.
            client.role("d")
            await eventually(lambda: server.units[0].roles == {"d"})

    run(main())


def test_roles_from_before_the_connection_are_known_with_it() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            server.role("a")
            server.role("b", active=False)
            client.role("c")
            destination = client.destination("a")
            unit = await client.connect((await server.listen()).url)
            assert unit.roles == {"a"}
            assert destination.ready
            await eventually(lambda: server.units)
            assert server.units[0].roles == {"c"}

    run(main())


def test_a_role_that_changes_during_the_handshake_is_told_afterwards() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            described = server._describe

            def describe() -> dict[str, object]:
                data = described()
                asyncio.get_running_loop().call_soon(server.role, "late")
                return data

            server._describe = describe  # type: ignore[method-assign]
            unit = await client.connect((await server.listen()).url)
            await eventually(lambda: unit.roles == {"late"})

    run(main())


def test_a_disabled_role_takes_nothing() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            seen: list[object] = []
            role.on_request("e")(lambda ctx: "done")
            role.on_message("m")(seen.append)
            destination = await ready(client)
            role.disable()
            # It was sent before the news came.
            waiting = destination.request("e")
            await destination.send("m")
            with pytest.raises(roletalk.RemoteError) as caught:
                await waiting
            assert caught.value.text
            await eventually(lambda: server.stats()["drops"])
            assert seen == []
            await eventually(lambda: not destination.ready)
            with pytest.raises(roletalk.NoUnitsError):
                await destination.request("e")
            role.enable()
            await destination.wait_ready(10)
            assert (await destination.request("e")).data == "done"

    run(main())


def test_a_role_without_handlers_is_announced() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            destination = await ready(client)
            with pytest.raises(roletalk.RemoteError):
                await destination.request("e")

    run(main())


def test_on_status_change() -> None:
    async def main() -> None:
        async with peers("p") as (peer,):
            seen: list[tuple[str, roletalk.Role, bool]] = []
            role = peer.role("r")

            @role.on_status_change
            def sync(role: roletalk.Role) -> None:
                seen.append(("sync", role, role.active))

            @role.on_status_change
            async def later(role: roletalk.Role) -> None:
                await asyncio.sleep(0)
                seen.append(("async", role, role.active))

            role.enable()  # no change
            role.disable()
            role.disable()
            assert seen == [("sync", role, False)]
            await eventually(lambda: len(seen) == 2)
            assert seen[1] == ("async", role, False)
            role.enable()
            assert seen[2] == ("sync", role, True)
            await eventually(lambda: len(seen) == 4)

    run(main())


def test_names_beyond_ascii() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            name, event = "rôle 🎭\n", "évènement \0"

            @server.role(name).on_request(event)
            def handler(ctx: roletalk.RequestContext) -> list[str]:
                return [ctx.role, ctx.event]

            destination = await ready(client, name)
            assert (await destination.request(event)).data == [name, event]

    run(main())


def test_a_role_has_many_names_alike() -> None:
    # The wire has no separator between role and event: only the lengths tell "ab" + "c" from "a" + "bc".
    async def main() -> None:
        async with pair() as (server, client):
            for role, event in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")):
                answer = f"{role}/{event}"
                server.role(role).on_request(event)(lambda ctx, answer=answer: answer)
            for role, event in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")):
                destination = await ready(client, role)
                assert (await destination.request(event)).data == f"{role}/{event}"

    run(main())
