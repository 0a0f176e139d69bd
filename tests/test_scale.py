"""The cost of a message grows neither with units nor with roles nor with destinations."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, peers, ready, run

MANY_UNITS = 1_000
MANY_NAMES = 10_000
ROUNDS = 15
BATCH = 200
BOUND = 3.0  # times the cost with one: generous, as linear growth would be hundreds of times

Batch = Callable[[], Awaitable[None]]


async def ratio(few: Batch, many: Batch) -> float:
    """How many times as long `many` takes as `few`: medians of batches that take turns."""
    took: tuple[list[float], list[float]] = ([], [])
    await few()
    await many()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for batch, times in zip((few, many), took, strict=True):
                began = time.perf_counter()
                await batch()
                times.append(time.perf_counter() - began)
    finally:
        gc.enable()
    return median(took[1]) / median(took[0])


async def python_calls(batch: Batch) -> int:
    """The Python functions that are called meanwhile: what a loop over all units would add to.

    It is the least of some times: a heartbeat may tick in one of them.
    """
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    counts = []
    for _ in range(5):
        calls = 0
        sys.setprofile(count)
        try:
            await batch()
        finally:
            sys.setprofile(None)
        counts.append(calls)
    return min(counts)


def requests(destination: roletalk.Destination, unit: roletalk.Unit | None = None) -> Batch:
    async def batch() -> None:
        for _ in range(BATCH):
            await destination.request("e", 1, unit=unit)

    return batch


def messages(destination: roletalk.Destination, unit: roletalk.Unit | None = None) -> Batch:
    async def batch() -> None:
        for _ in range(BATCH):
            destination.send_nowait("m", 1, unit=unit)
        await destination.request("e", unit=unit)

    return batch


def serve(peer: roletalk.Peer, name: str) -> None:
    role = peer.role(name)
    role.on_request("e")(lambda ctx: ctx.data)
    role.on_message("m")(lambda ctx: None)


@pytest.mark.slow
def test_a_thousand_units() -> None:
    async def main() -> None:
        names = [str(i) for i in range(MANY_UNITS)]
        # A heartbeat of so many peers in one process would be measured as well.
        quiet = {"heartbeat_interval": None, "handshake_timeout": 60.0}
        async with (
            peers("one", "many", "single", **quiet) as (one, many, single),
            peers(*names, **quiet) as crowd,
        ):
            for server in (one, many):
                serve(server, "r")
            url = (await many.listen()).url
            await single.connect((await one.listen()).url)
            for client in crowd:
                serve(client, "s")
            serve(single, "s")
            for start in range(0, MANY_UNITS, 50):
                await asyncio.gather(*(c.connect(url) for c in crowd[start : start + 50]))
            await eventually(lambda: len(many.units) == MANY_UNITS)
            assert len({unit.id for unit in many.units}) == MANY_UNITS
            assert many.stats()["connections"] == MANY_UNITS

            alone, among = await ready(single), await ready(crowd[-1])
            assert await ratio(requests(alone), requests(among)) < BOUND
            to_one, to_many = await ready(one, "s"), await ready(many, "s")
            assert len(to_many.units) == MANY_UNITS
            last = to_many.units[-1]
            assert await ratio(messages(to_one), messages(to_many, last)) < BOUND
            assert await ratio(requests(to_one), requests(to_many, last)) < BOUND
            few = await python_calls(requests(to_one))
            assert await python_calls(requests(to_many, last)) < few * 1.5

            # All of them are reached, and each once in a round.
            got: list[str] = []
            for client in crowd:
                client.role("s").on_message("all")(lambda ctx, name=client.name: got.append(name))
            assert len(to_many.broadcast("all")) == MANY_UNITS
            await eventually(lambda: len(got) == MANY_UNITS)
            assert sorted(got) == sorted(names)
            asked = [to_many.request("e", i) for i in range(MANY_UNITS)]
            assert len({(await reply).unit.id for reply in asked}) == MANY_UNITS
            assert len([answer async for answer in to_many.survey("e")]) == MANY_UNITS

            many.role("new")
            await eventually(lambda: all("new" in c.units[0].roles for c in crowd))

    run(main(), timeout=120, debug=False)


def test_a_unit_that_comes_costs_the_same_however_many_there_are() -> None:
    async def main() -> None:
        names = [str(i) for i in range(30)]
        # Of those who dialled there is nothing to tell, and so nothing to look for.
        async with peers("hub") as (hub,), peers(*names, heartbeat_interval=None) as crowd:
            url = (await hub.listen()).url
            looked_at = 0

            def count(frame: Any, event: str, arg: Any) -> None:
                nonlocal looked_at
                looked_at += event == "call" and frame.f_code.co_name == "_tell"

            for client in crowd[:-1]:
                await client.connect(url)
            sys.setprofile(count)
            try:
                await crowd[-1].connect(url)
                await eventually(lambda: len(hub.units) == len(crowd))
            finally:
                sys.setprofile(None)
            assert looked_at == 0

    run(main())


@pytest.mark.slow
def test_ten_thousand_roles_and_destinations() -> None:
    async def main() -> None:
        async with peers("one", "single", "many", "client") as (one, single, many, client):
            names = [f"role {i}" for i in range(MANY_NAMES)]
            serve(one, "r")
            for name in names:
                serve(many, name)
                client.destination(name)
            await single.connect((await one.listen()).url)
            await client.connect((await many.listen()).url)
            assert len(client.units[0].roles) == MANY_NAMES
            assert all(destination.ready for destination in client.destinations)

            alone = await ready(single)
            first, last = client.destination(names[0]), client.destination(names[-1])
            for among in (first, last):
                assert await ratio(requests(alone), requests(among)) < BOUND
                assert await ratio(messages(alone), messages(among)) < BOUND

            async def each_once() -> None:
                for name in names[:: MANY_NAMES // BATCH]:
                    await client.destination(name).request("e", 1)

            assert await ratio(requests(alone), each_once) < BOUND
            few = await python_calls(requests(alone))
            assert await python_calls(requests(last)) < few * 1.5

            # The names that are never asked for cost nothing either.
            before = many.stats()["rejects_sent"]
            many.role(names[5]).disable()
            await eventually(lambda: not client.destination(names[5]).ready)
            assert client.destination(names[6]).ready
            assert many.stats()["rejects_sent"] == before

    run(main(), timeout=120, debug=False)


def test_names_come_and_go_without_a_trace_on_others() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            await client.connect((await server.listen()).url)
            opened: list[str] = []
            for i in range(100):
                client.destination(str(i)).on_open(lambda d: opened.append(d.name))
            for i in range(0, 100, 10):
                server.role(str(i))
            await eventually(lambda: len(opened) == 10)
            assert sorted(opened, key=int) == [str(i) for i in range(0, 100, 10)]
            assert [d.name for d in client.destinations if d.ready] == sorted(opened, key=int)

    run(main())
