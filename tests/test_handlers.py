"""What handlers run in: tasks, context variables, cancelling, the loop that they may block."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from typing import Any

import pytest

import roletalk
from tests import rawclient as raw
from tests.helpers import eventually, pair, peers, ready, run

# -- inside handlers


def test_async_handlers_run_in_a_task_of_their_own() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            tasks: list[asyncio.Task[Any] | None] = []

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                tasks.append(asyncio.current_task())
                await asyncio.sleep(0)
                assert asyncio.current_task() is tasks[-1]

            destination = await ready(client)
            await destination.request("e")
            await destination.request("e")
            assert None not in tasks
            assert len(set(tasks)) == 2
            assert asyncio.current_task() not in tasks

    run(main())


def test_sync_handlers_cost_no_task() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            made: list[Any] = []
            tasks: list[Any] = []

            @server.role("r").on_request("e")
            def handler(ctx: roletalk.RequestContext) -> None:
                tasks.append(asyncio.all_tasks())

            destination = await ready(client)
            loop = asyncio.get_running_loop()
            before = asyncio.all_tasks()
            create_task = loop.create_task

            def counting(*args: Any, **kwargs: Any) -> asyncio.Task[Any]:
                made.append(args)
                return create_task(*args, **kwargs)

            loop.create_task = counting  # type: ignore[method-assign]
            try:
                for _ in range(5):
                    await destination.request("e")
            finally:
                del loop.create_task
            assert made == []
            assert all(found <= before for found in tasks)

    # The stock loop: uvloop's cannot be looked at like this.
    run(main(), new_loop=asyncio.new_event_loop)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_context_variables_are_each_handlers_own(is_async: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[str] = []

            def handler(ctx: roletalk.RequestContext) -> None:
                seen.append(variable.get())
                variable.set(ctx.data)
                assert variable.get() == ctx.data

            async def slow_handler(ctx: roletalk.RequestContext) -> None:
                handler(ctx)
                await asyncio.sleep(0)
                assert variable.get() == ctx.data

            server.role("r").on_request("e")(slow_handler if is_async else handler)
            destination = await ready(client)
            variable.set("the caller's")
            await asyncio.gather(*(destination.request("e", str(i)) for i in range(20)))
            assert len(set(seen)) == 1
            assert variable.get() == "the caller's"

    run(main())


def test_a_callers_context_variables_survive_the_await() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: variable.set("handler's") and None)
            destination = await ready(client)

            async def ask(own: str) -> None:
                variable.set(own)
                for _ in range(20):
                    await destination.request("e")
                    assert variable.get() == own

            await asyncio.gather(*(ask(str(i)) for i in range(20)))

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
def test_asyncio_timeout_works_inside_a_handler() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> str:
                try:
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
                except TimeoutError:
                    return "timed out"
                return "?"

            @server.role("r").on_request("at once")
            async def at_once(ctx: roletalk.RequestContext) -> str:
                async with asyncio.timeout(10):  # noqa: ASYNC100  # entering it needs a task
                    return "in time"

            destination = await ready(client)
            assert (await destination.request("e")).data == "timed out"
            assert (await destination.request("at once")).data == "in time"

    run(main())


def test_a_handler_that_is_cancelled_rejects() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)

            with pytest.raises(roletalk.RemoteError):
                await (await ready(client)).request("e")

    run(main())


def test_a_handler_may_ask_in_turn() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            client.role("back").on_request("name")(lambda ctx: "client's answer")
            back = server.destination("back")

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> str:
                return str((await back.request("name", unit=ctx.unit)).data)

            await back.wait_ready(10)
            assert (await (await ready(client)).request("e")).data == "client's answer"

    run(main())


@pytest.mark.lag
@pytest.mark.parametrize("how", ["sync", "async", "async, later"])
def test_a_handler_that_blocks_the_loop_is_named(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pair(slow_handler=0.05) as (server, client):

            def blocking_sync(ctx: roletalk.RequestContext) -> None:
                time.sleep(0.1)

            async def blocking_async(ctx: roletalk.RequestContext) -> None:
                time.sleep(0.1)  # noqa: ASYNC251  # what the test is about

            async def blocking_later(ctx: roletalk.RequestContext) -> None:
                await asyncio.sleep(0)
                time.sleep(0.1)  # noqa: ASYNC251

            handler = {"sync": blocking_sync, "async": blocking_async}.get(how, blocking_later)
            server.role("r").on_request("e")(handler)
            await (await ready(client)).request("e")

    run(main(), debug=False)
    assert "blocking_" in caplog.text


# -- what remote peers may make of them


ANSWER = bytes(100_000)
UNREAD = b"too many answers are unread"
LIMITS: dict[str, Any] = {
    "high_water": 64 * 1024,
    "low_water": 32 * 1024,
    "max_message_size": 1 << 20,
}
BOUND = 4 * LIMITS["high_water"] + LIMITS["max_message_size"] + len(ANSWER)


async def flooded(count: int) -> tuple[int, list[bytes]]:
    """The most bytes ever unsent to a remote that asks `count` times before it reads, and the first
    bytes of all that it reads then."""
    peak = 0
    async with peers("server", **LIMITS) as (server,):
        server.role("r").on_request("e")(lambda ctx: ANSWER)
        listener = await server.listen()

        def stats() -> dict[str, Any]:
            nonlocal peak
            found = server.stats()
            peak = max(peak, found["unsent_bytes"])
            return found

        def meet() -> raw.Connection:
            connection = raw.dial(listener.port)
            raw.authenticate(connection)
            # It makes the server's buffer grow, which then takes many requests at a time.
            connection.send(raw.message("r", "none", raw.value(bytes(1_000_000))))
            return connection

        def ask() -> None:
            request = raw.request("r", "e", 1, raw.NULL)
            connection.send_raw(raw.encode_frame(raw.BINARY, request, mask=bytes(4)) * count)

        def read() -> list[bytes]:
            return [connection.read_message()[:100] for _ in range(count)]

        with await asyncio.to_thread(meet) as connection:
            await eventually(lambda: stats()["messages_received"] == 1)
            asking = asyncio.create_task(asyncio.to_thread(ask))
            await eventually(lambda: stats()["rejects_sent"], what="a reject")
            await asking
            reading = asyncio.create_task(asyncio.to_thread(read))
            await eventually(lambda: stats() and reading.done())
            answers = await reading
            assert (await asyncio.to_thread(connection.ask, "r", "e")).kind == raw.RESOLVE
    return peak, answers


def test_answers_that_nobody_reads_are_bounded() -> None:
    count = 5000
    peak, answers = run(flooded(count), debug=False)
    rejects = [each for each in answers if each[0] == raw.REJECT]
    assert 0 < len(rejects) < count
    assert all(UNREAD in each for each in rejects)
    assert all(each[0] in (raw.REJECT, raw.RESOLVE) for each in answers)
    # The rejects come on top: each is the message read here and a frame header of 2 bytes.
    assert peak < BOUND + sum(len(each) + 2 for each in rejects)


def test_what_waiting_handlers_keep_is_bounded() -> None:
    async def main() -> None:
        async with pair(max_handler_bytes=100_000) as (server, client):
            go_on = asyncio.Event()
            role = server.role("r")

            @role.on_message("e")
            async def keep(ctx: roletalk.Context) -> None:
                await go_on.wait()

            @role.on_request("e")
            async def answer(ctx: roletalk.RequestContext) -> int:
                return len(ctx.raw)

            destination = await ready(client)
            reason = "messages while too many handlers run for their unit"
            # The second time shows that the first one's bytes are free again.
            for dropped in (16, 32):
                for _ in range(20):
                    await destination.send("e", bytes(30_000))
                await eventually(lambda n=dropped: server.stats()["drops"] == {reason: n})
                assert server.stats()["running_handlers"] == 4
                with pytest.raises(roletalk.RemoteError, match="too many requests at once"):
                    await destination.request("e", 1)
                go_on.set()
                await eventually(lambda: server.stats()["running_handlers"] == 0)
                go_on.clear()
                for _ in range(5):
                    assert (await destination.request("e", bytes(30_000))).data == 30_000
            assert client.units[0].connected

    run(main())
