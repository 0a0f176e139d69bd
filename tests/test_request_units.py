"""Which unit is asked, and surveys of all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import roletalk
from tests import rawclient as raw
from tests.helpers import eventually, peers, run

# -- who is asked


async def three_servers(
    client: roletalk.Peer, servers: tuple[roletalk.Peer, ...]
) -> roletalk.Destination:
    for server in servers:
        server.role("r").on_request("who")(lambda ctx, name=server.name: name)
        await client.connect((await server.listen()).url)
    destination = client.destination("r")
    await eventually(lambda: len(destination.units) == len(servers), what="all units")
    return destination


def test_units_take_turns() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            who = [(await destination.request("who")).data for _ in range(9)]
            assert sorted(who[:3]) == ["a", "b", "c"]
            assert who == who[:3] * 3

    run(main())


def test_a_named_unit_is_asked() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            for server in servers:
                unit = client.unit(server.id)
                for _ in range(3):
                    reply = await destination.request("who", unit=unit)
                    assert reply.data == server.name
                    assert reply.unit is unit
            outsider = servers[0].units[0]
            with pytest.raises(TypeError):
                await destination.request("who", unit=outsider)
            with pytest.raises(roletalk.NoUnitsError):
                await client.destination("other").request("who", unit=client.units[0])

    run(main())


def test_survey() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            slow = asyncio.Event()

            @servers[0].role("r").on_request("state")
            async def wait(ctx: roletalk.RequestContext) -> str:
                await slow.wait()
                return "slow"

            @servers[1].role("r").on_request("state")
            def refuse(ctx: roletalk.RequestContext) -> None:
                raise roletalk.Reject("not mine")

            servers[2].role("r").on_request("state")(lambda ctx: "quick")
            answers: dict[str, Any] = {}
            async for answer in destination.survey("state", "all", timeout=20):
                assert answer.unit is not None
                answers[answer.unit.name] = answer
                if len(answers) == 2:
                    assert "a" not in answers  # as they come
                    slow.set()
            assert answers["a"].data == "slow"
            assert isinstance(answers["b"], roletalk.RemoteError)
            assert answers["b"].text == "not mine"
            assert answers["c"].data == "quick"

    run(main())


def test_survey_whose_units_time_out_or_go() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):
            destination = await three_servers(client, (a, b))
            never = asyncio.Event()

            async def wait(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            a.role("r").on_request("state")(wait)
            b.role("r").on_request("state")(wait)
            answers = [answer async for answer in destination.survey("state", timeout=0.05)]
            assert [type(answer) for answer in answers] == [roletalk.RequestTimeout] * 2
            assert {answer.unit for answer in answers} == set(destination.units)
            units = set(destination.units)

            async def leave() -> None:
                await eventually(lambda: client.stats()["pending_requests"] == 2)
                for unit in units:
                    await unit.close()

            leaving = asyncio.create_task(leave())
            answers = [answer async for answer in destination.survey("state", timeout=20)]
            await leaving
            assert [type(answer) for answer in answers] == [roletalk.UnitClosedError] * 2
            assert {answer.unit for answer in answers} == units
            never.set()

    run(main())


def test_survey_without_units_or_with_bad_arguments() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):
            with pytest.raises(roletalk.NoUnitsError):
                [answer async for answer in client.destination("nobody").survey("e")]
            destination = await three_servers(client, (a, b))
            with pytest.raises(TypeError):
                [answer async for answer in destination.survey("e", object())]
            with pytest.raises(ValueError):
                [answer async for answer in destination.survey("e" * 65_536)]
            with pytest.raises(ValueError):
                [answer async for answer in destination.survey("who", timeout=-1)]

    run(main())


def test_a_survey_that_is_left_early_forgets_its_requests() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            never = asyncio.Event()

            async def wait(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            for server in servers[:2]:
                server.role("r").on_request("state")(wait)
            servers[2].role("r").on_request("state")(lambda ctx: 1)
            survey = destination.survey("state", timeout=None)
            async for answer in survey:
                assert answer.data == 1
                break
            await survey.aclose()
            assert client.stats()["pending_requests"] == 0
            never.set()

    run(main())


# -- units without room, and units that go

LOW: dict[str, Any] = {"high_water": 20_000, "low_water": 10_000, "request_timeout": 20.0}


def test_requests_wait_for_room_on_any_of_several_units() -> None:
    async def main() -> None:
        async with peers("a", "b", "client", **LOW) as (a, b, client):
            destination = await three_servers(client, (a, b))
            small_and_big = [bytes(100_000 if i % 2 else 10) for i in range(400)]
            await asyncio.gather(*(destination.request("who", each) for each in small_and_big))
            big = bytes(1_000_000)
            await asyncio.gather(*(destination.request("who", big) for _ in range(40)))
            assert client.stats()["pending_requests"] == 0

    run(main(), debug=False)


def test_calls_wait_for_room_on_any_connection_of_a_unit() -> None:
    # One connection may be busy with room left while the other has none.
    limits = LOW | {"high_water": 1_000_000}

    async def main() -> None:
        async with peers("server", "client", **limits) as (server, client):
            destination = await three_servers(client, (server,))
            unit = await client.connect((await server.listen()).url)
            assert len(unit.connections) == 2
            mixed = [bytes(3_000_000 if i % 3 == 0 else 200_000) for i in range(90)]
            await asyncio.gather(*(destination.request("who", each) for each in mixed))
            await asyncio.gather(*(destination.send("none", each) for each in mixed))
            assert client.stats()["pending_requests"] == 0

    run(main(), debug=False)


def test_no_request_goes_to_a_unit_that_is_closing() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            destination = await three_servers(client, (server,))

            def serve() -> raw.Connection:
                connection = listener.accept_upgraded()
                raw.authenticate(connection, data=raw.peer_data(roles=["r"]))
                return connection

            with raw.RawListener() as listener:
                serving = asyncio.create_task(asyncio.to_thread(serve))
                unit = await client.connect(listener.url, reconnect=False)
                with await serving:
                    await eventually(lambda: len(destination.units) == 2)
                    closing = asyncio.create_task(unit.close())
                    await asyncio.sleep(0)
                    for _ in range(50):
                        # It has not answered the close frame, so it is still there.
                        assert unit.connected
                        assert (await destination.request("who")).data == "server"
                    with pytest.raises(roletalk.UnitClosedError):
                        await destination.request("who", unit=unit)
                await closing
            assert (await destination.request("who")).data == "server"

    run(main())
