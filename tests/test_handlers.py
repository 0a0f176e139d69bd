"""What handlers run in: tasks, context variables, cancelling, the loop that they may block."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from typing import Any

import pytest

import roletalk
from tests.helpers import pair, ready, run

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
