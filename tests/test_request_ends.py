"""How requests end without an answer, and the limits that they meet."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, ready, run, run_virtually

pytestmark = pytest.mark.usefixtures("on_mesh")

KIB = 1024


# -- timeouts and cancelling


def test_timeout() -> None:
    async def main() -> None:
        async with pair(request_timeout=0.05) as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "late"

            destination = await ready(client)
            for timeout in ({}, {"timeout": 0.02}, {"timeout": 0}):
                with pytest.raises(roletalk.RequestTimeout) as caught:
                    await destination.request("slow", **timeout)
                assert isinstance(caught.value, TimeoutError)
                assert (caught.value.role, caught.value.event) == ("r", "slow")
            assert client.stats()["pending_requests"] == 0
            assert client.stats()["timeouts"] == 3
            waiting = asyncio.create_task(destination.request("slow", timeout=None))
            await eventually(lambda: server.stats()["running_handlers"] == 4)
            release.set()
            assert (await waiting).data == "late"
            await eventually(lambda: client.stats()["late_replies"] == 3, what="late replies")

    run_virtually(main())


def test_deadlines_of_many_requests_are_kept_each() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "late"

            destination = await ready(client)
            ended: dict[float, float] = {}
            began = asyncio.get_running_loop().time()

            async def ask(timeout: float) -> None:
                try:
                    await destination.request("slow", timeout=timeout)
                except roletalk.RequestTimeout:
                    ended[timeout] = asyncio.get_running_loop().time() - began

            timeouts = [0.3, 0.1, 25.0, 0.2, 0.05]
            tasks = [asyncio.create_task(ask(timeout)) for timeout in timeouts]
            await eventually(lambda: len(ended) == 4, what="four timeouts")
            assert list(ended) == [0.05, 0.1, 0.2, 0.3]
            # At most a sweep's grain too late, never too early.
            assert all(timeout <= at <= timeout + 0.011 for timeout, at in ended.items())
            release.set()
            await asyncio.gather(*tasks)
            assert len(ended) == 4

    run_virtually(main())


def test_cancelling_forgets_the_correlation_at_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "late"

            destination = await ready(client)
            task = asyncio.create_task(destination.request("slow"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            assert client.stats()["pending_requests"] == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.stats()["pending_requests"] == 0

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(destination.request("slow"), 0.02)
            assert client.stats()["pending_requests"] == 0
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0.02):
                        await destination.request("slow")
                assert not isinstance(caught.value, roletalk.RequestTimeout)
                assert client.stats()["pending_requests"] == 0
            release.set()
            await eventually(lambda: client.stats()["late_replies"] >= 2, what="late replies")

    run(main())


def test_requests_that_nobody_awaits_leak_nothing() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: 1)
            destination = await ready(client)
            for _ in range(100):
                destination.request("e")
                destination.send("e")
                with pytest.warns(RuntimeWarning, match="NoUnitsError, which nobody saw"):
                    client.destination("nobody").request("e")
            assert client.stats()["pending_requests"] == 0
            await eventually(lambda: server.stats()["requests_received"] == 100)
            await eventually(lambda: client.stats()["late_replies"] == 100)

    run(main())


def test_requests_work_wherever_a_coroutine_does() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            destination = await ready(client)
            replies = await asyncio.gather(*(destination.request("e", i) for i in range(10)))
            assert [reply.data for reply in replies] == list(range(10))
            assert (await asyncio.wait_for(destination.request("e", 1), 10)).data == 1
            assert (await asyncio.shield(destination.request("e", 2))).data == 2
            assert (await asyncio.create_task(destination.request("e", 3), name="n")).data == 3
            assert (await asyncio.ensure_future(destination.request("e", 4))).data == 4
            await asyncio.create_task(destination.send("e", 5))
            await asyncio.wait_for(destination.send("e", 5), 10)
            if sys.version_info >= (3, 11):
                async with asyncio.TaskGroup() as group:
                    first = group.create_task(destination.request("e", 6))
                    group.create_task(destination.send("e", 7))
                assert first.result().data == 6
            call = destination.request("e", 8)
            assert (await call).data == 8
            with pytest.raises(RuntimeError):
                await call

    run(main())


# -- units that go


def test_a_pending_request_fails_with_its_unit() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            started = asyncio.Event()
            ended: list[str] = []

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                started.set()
                try:
                    await ctx_gone.wait()
                finally:
                    ended.append("end" if ctx_gone.is_set() else "cancelled")
                return "dropped"

            ctx_gone = asyncio.Event()
            destination = await ready(client)
            unit = destination.units[0]
            task = asyncio.create_task(destination.request("slow", timeout=None))
            await started.wait()
            await server.units[0].close()
            with pytest.raises(roletalk.UnitClosedError) as caught:
                await task
            assert isinstance(caught.value, ConnectionError)
            assert caught.value.unit is unit
            assert (caught.value.role, caught.value.event) == ("r", "slow")
            # The handler runs to its end; its reply is dropped and counted.
            assert ended == []
            ctx_gone.set()
            await eventually(lambda: ended == ["end"], what="the handler's end")
            await eventually(lambda: "replies to units that are gone" in server.stats()["drops"])

    run(main())


def test_ignore_unit_close_waits_for_the_timeout() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            destination = await ready(client)
            stays = asyncio.create_task(
                destination.request("slow", timeout=0.5, ignore_unit_close=True)
            )
            goes = asyncio.create_task(destination.request("slow", timeout=0.5))
            await eventually(lambda: server.stats()["running_handlers"] == 2)
            await server.units[0].close()
            with pytest.raises(roletalk.UnitClosedError):
                await goes
            assert not stays.done()
            with pytest.raises(roletalk.RequestTimeout):
                await stays
            never.set()

    run_virtually(main())


def test_ignore_unit_close_still_ends_with_the_peer() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            destination = await ready(client)
            stays = asyncio.create_task(
                destination.request("slow", timeout=None, ignore_unit_close=True)
            )
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await client.close()
            with pytest.raises(roletalk.UnitClosedError):
                await stays
            never.set()

    run(main())


def test_ignore_unit_close_ends_with_the_peer_after_the_unit_went() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            await client.connect((await server.listen()).url, reconnect=False)
            destination = client.destination("r")
            stays = asyncio.create_task(
                destination.request("slow", timeout=None, ignore_unit_close=True)
            )
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await server.units[0].close()
            await eventually(lambda: not client.units)
            await client.close()
            with pytest.raises(roletalk.UnitClosedError):
                await asyncio.wait_for(stays, 5)
            never.set()

    run(main())


# -- many, and large


def test_a_thousand_at_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            running: set[int] = set()
            release = asyncio.Event()

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> int:
                running.add(ctx.data)
                if len(running) == 1000:
                    release.set()
                await release.wait()
                return int(ctx.data) * 2

            destination = await ready(client)
            replies = await asyncio.gather(*(destination.request("e", i) for i in range(1000)))
            assert [reply.data for reply in replies] == [2 * i for i in range(1000)]
            assert client.stats()["pending_requests"] == 0
            assert server.stats()["running_handlers"] == 0

    run(main())


@pytest.mark.parametrize(
    "size", [0, 1, 100, 125, 126, 127, 4095, 4096, 65_535, 65_536, 1_000_000, 5_000_000]
)
def test_payload_sizes(size: int) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            payload = bytes(i * 31 & 255 for i in range(min(size, 1009))) * (size // 1009 + 1)
            payload = payload[:size]
            destination = await ready(client)
            assert (await destination.request("echo", payload)).data == payload
            text = "é" * (size // 2)
            assert (await destination.request("echo", text)).data == text

    run(main())


def test_up_to_and_over_max_message_size() -> None:
    async def main() -> None:
        limit = 64 * KIB
        async with pair(max_message_size=limit) as (server, client):
            role = server.role("r")
            role.on_request("length")(lambda ctx: len(ctx.data))
            role.on_request("make")(lambda ctx: b"x" * ctx.data)
            destination = await ready(client)
            unit = destination.units[0]
            room = limit - 64
            assert (await destination.request("length", b"x" * room)).data == room
            assert len((await destination.request("make", room)).data) == room
            for refused in (limit, limit + 1, 4 * limit):
                with pytest.raises(ValueError, match="max_message_size"):
                    await destination.request("length", b"x" * refused)
                with pytest.raises(ValueError, match="max_message_size"):
                    await destination.send("length", b"x" * refused)
                with pytest.raises(roletalk.RemoteError, match="internal error"):
                    await destination.request("make", refused)
            assert client.units == (unit,)
            assert (await destination.request("length", b"abc")).data == 3

    run(main())


def test_a_larger_message_than_the_receiver_takes_closes_with_1009() -> None:
    async def main() -> None:
        async with (
            peers("server", max_message_size=4 * KIB) as (server,),
            peers("client") as (client,),
        ):
            server.role("r").on_request("length")(lambda ctx: len(ctx.data))
            await client.connect((await server.listen()).url, reconnect=False)
            destination = client.destination("r")
            link = client.units[0].connections[0]
            assert (await destination.request("length", b"x" * 4000)).data == 4000
            with pytest.raises(roletalk.UnitClosedError):
                await destination.request("length", b"x" * 4097)
            assert link.close_code == 1009

    run(main())


def test_max_handlers() -> None:
    async def main() -> None:
        async with pair(max_handlers=3) as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "done"

            messages: list[Any] = []
            server.role("r").on_message("m")(lambda ctx: messages.append(ctx.data))
            destination = await ready(client)
            running = [asyncio.create_task(destination.request("slow")) for _ in range(3)]
            await eventually(lambda: server.stats()["running_handlers"] == 3)
            with pytest.raises(roletalk.RemoteError, match="too many"):
                await destination.request("slow")
            await destination.send("m", 1)
            await eventually(lambda: server.stats()["drops"], what="a dropped message")
            release.set()
            assert [(await task).data for task in running] == ["done"] * 3
            assert (await destination.request("slow")).data == "done"
            assert messages == []

    run(main())


def test_max_pending() -> None:
    async def main() -> None:
        async with pair(max_pending=3) as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "done"

            destination = await ready(client)
            waiting = [asyncio.ensure_future(destination.request("slow")) for _ in range(3)]
            with pytest.raises(roletalk.WouldBlock):
                await destination.request("slow")
            release.set()
            await asyncio.gather(*waiting)
            assert (await destination.request("slow")).data == "done"

    run(main())
