"""How long a request is waited for, and how many may be waited for at once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any

import pytest

import roletalk
from roletalk._peer import clock
from tests.helpers import eventually, pair, run
from tests.test_calls import both_loops, service

# -- time --------------------------------------------------------------------------------------------


def test_a_request_timeout_is_a_timeout() -> None:
    assert issubclass(roletalk.RequestTimeout, TimeoutError)
    assert issubclass(roletalk.RequestTimeout, roletalk.RoletalkError)


@both_loops
@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9, 0.02])
def test_a_timeout(timeout: float, new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            with pytest.raises(roletalk.RequestTimeout, match="'hold'") as caught:
                await s.asked.request("hold", timeout=timeout)
            assert (caught.value.role, caught.value.event) == ("service", "hold")
            assert s.pending == 0
            assert s.client.stats()["timeouts"] == 1
            s.release.set()
            await eventually(lambda: s.client.stats()["late_replies"] == 1)

    run(main(), new_loop=new_loop)


def test_the_peers_timeout_is_the_default() -> None:
    async def main() -> None:
        async with service(request_timeout=0.01) as s:
            with pytest.raises(roletalk.RequestTimeout):
                await s.asked.request("hold")
            unlimited = asyncio.create_task(s.asked.request("hold", timeout=None))
            infinite = asyncio.create_task(s.asked.request("hold", timeout=float("inf")))
            with pytest.raises(roletalk.RequestTimeout):
                await s.asked.request("hold", timeout=0.05)
            assert not unlimited.done()
            assert not infinite.done()
            s.release.set()
            await asyncio.gather(unlimited, infinite)

    run(main())


class CountingLoop(asyncio.SelectorEventLoop):
    """Knows how many timers were set, and how many wait."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = super().call_later(delay, callback, *args, context=context)
        self.timers.append(handle)
        return handle

    @property
    def waiting(self) -> int:
        return sum(not each.cancelled() and each.when() > self.time() for each in self.timers)


def test_many_timeouts_fire_in_their_order_off_one_timer() -> None:
    due: dict[int, tuple[float, float]] = {}  # not before, not after
    fired: list[int] = []

    async def ask(place: int, call: Coroutine[Any, Any, roletalk.Context]) -> None:
        with pytest.raises(roletalk.RequestTimeout):
            await call
        assert clock() >= due[place][0]
        fired.append(place)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with service(heartbeat_interval=None) as s:
            before = loop.waiting
            places = list(range(300))
            random.Random(5).shuffle(places)
            tasks = []
            for place in places:
                timeout, earliest = 0.2 + place / 1000, clock()
                call = s.asked.request("hold", timeout=timeout)
                due[place] = earliest + timeout, clock() + timeout
                tasks.append(asyncio.create_task(ask(place, call)))
            assert loop.waiting <= before + 1
            await asyncio.gather(*tasks)
            assert s.pending == 0
            assert s.client.stats()["timeouts"] == 300

    run(main(), new_loop=CountingLoop)
    for first, second in itertools.pairwise(fired):
        assert due[first][0] <= due[second][1], f"{first} was due after {second}"


def test_requests_that_go_on_do_not_put_timeouts_off() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with service(heartbeat_interval=None) as s:
            first = asyncio.ensure_future(s.asked.request("hold", timeout=0.1))
            before, end = len(loop.timers), loop.time() + 10
            calls = []
            while not first.done():
                calls.append(s.asked.request("hold", timeout=0.1))
                await asyncio.sleep(0)
                assert loop.time() < end, "later requests keep earlier ones from timing out"
            with pytest.raises(roletalk.RequestTimeout):
                await first
            for call in calls:
                call.close()
            # Sweeps gather what is due within some milliseconds: there is no timer for each request.
            if len(calls) > 50:
                assert len(loop.timers) - before < 50

    run(main(), new_loop=CountingLoop)


# -- number ------------------------------------------------------------------------------------------


def test_pending_requests_are_limited() -> None:
    async def main() -> None:
        async with service(max_pending=10) as s:
            tasks = [asyncio.create_task(s.asked.request("hold", n)) for n in range(10)]
            await asyncio.sleep(0)
            with pytest.raises(roletalk.WouldBlock, match="10"):
                await s.asked.request("hold")
            tasks.pop().cancel()
            tasks.append(asyncio.create_task(s.asked.request("hold", 9)))
            await eventually(lambda: s.held == 11)
            assert s.pending == 10
            s.release.set()
            assert [(await task).data for task in tasks] == list(range(10))
            assert (await s.asked.request("echo", 1)).data == 1

    run(main())


def test_answers_find_their_requests_in_any_order() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            waiting: list[tuple[roletalk.RequestContext, asyncio.Future[None]]] = []
            role = server.role("service")

            @role.on_request("hold")
            async def hold(ctx: roletalk.RequestContext) -> None:
                gate = asyncio.get_running_loop().create_future()
                waiting.append((ctx, gate))
                await gate

            asked = client.destination("service")
            await asked.wait_ready(5)
            chosen = random.Random(7)
            tasks: dict[int, asyncio.Task[roletalk.Context]] = {}
            for made in range(2000):
                tasks[made] = asyncio.create_task(asked.request("hold", made))
                if made % 50 == 49:
                    await eventually(lambda: len(waiting) >= 50)
                    chosen.shuffle(waiting)
                    for ctx, gate in waiting[20:]:
                        ctx.reply(ctx.data)
                        gate.set_result(None)
                    del waiting[20:]
            await eventually(lambda: server.stats()["requests_received"] == 2000)
            for ctx, gate in waiting:
                ctx.reply(ctx.data)
                gate.set_result(None)
            assert [(await task).data for task in tasks.values()] == list(range(2000))

    run(main())


def test_correlations_wrap_below_39_bits_and_pass_over_those_that_wait() -> None:
    async def main() -> None:
        async with service() as s:
            table: Any = s.client.units[0].calls
            table.next = 1
            held = [asyncio.create_task(s.asked.request("hold", n)) for n in range(3)]
            await eventually(lambda: s.held == 3)
            table.next = 2**39 - 4
            answers = [await s.asked.request("echo", n) for n in range(100)]
            assert [answer.data for answer in answers] == list(range(100))
            assert 4 < table.next < 2**10
            s.release.set()
            assert [(await task).data for task in held] == [0, 1, 2]

    run(main())
