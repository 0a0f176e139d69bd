"""Cancelling the task of an async handler, and asyncio's own tools inside one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import roletalk
from tests.handlerscene import (
    SINCE_311,
    forever,
    handlers,
)
from tests.helpers import eventually, pair, ready

# -- cancelling --------------------------------------------------------------------------------------


def test_cancelling_what_waits(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            texts: list[Any] = []

            async def body() -> None:
                try:
                    await forever()
                except asyncio.CancelledError as exc:
                    texts.append(exc.args)
                    raise

            asking = await h.start(body)
            waited_on = h.task._fut_waiter
            assert h.task.cancel("enough") is True
            assert waited_on.cancelled()
            assert h.task.cancelling() == 1
            with pytest.raises(roletalk.RemoteError, match="cancelled"):
                await asking
            assert h.task.cancelled()
            assert h.task.cancel() is False
            with pytest.raises(asyncio.CancelledError):
                h.task.exception()
            for again in (h.task, asyncio.gather(h.task), asyncio.shield(h.task)):
                with pytest.raises(asyncio.CancelledError):
                    await again
            return texts

    # Before 3.11 a future kept no message for the task.
    assert run_here(main()) == [("enough",)]


def test_cancelling_itself(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def body() -> None:
                task: Any = asyncio.current_task()
                task.cancel("by itself")
                assert task._must_cancel
                with pytest.raises(asyncio.CancelledError, match="by itself"):
                    await asyncio.sleep(0)
                task.cancel()
                future = asyncio.get_running_loop().create_future()
                with pytest.raises(asyncio.CancelledError):
                    await future
                assert future.cancelled()
                assert not task._must_cancel
                task.cancel()
                task.uncancel()
                assert task.cancelling() == 2
                await asyncio.sleep(0)

            with pytest.raises(roletalk.RemoteError, match="cancelled"):
                await h.ask(body)

    run_here(main())


def test_a_cancel_may_be_taken_back(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def body() -> str:
                task: Any = asyncio.current_task()
                task.cancel()
                assert task.uncancel() == 0
                assert task.uncancel() == 0
                await asyncio.sleep(0)
                return "went on"

            assert await h.ask(body) == "went on"

    run_here(main())


def test_a_cancel_may_be_swallowed(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def body() -> str:
                try:
                    await forever()
                except asyncio.CancelledError:
                    await asyncio.sleep(0)
                return "went on"

            asking = await h.start(body)
            h.task.cancel()
            assert await asking == "went on"
            assert not h.task.cancelled()

    run_here(main())


def test_a_cancel_that_comes_too_late_for_the_handler_is_the_tasks(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def body() -> str:
                task: Any = asyncio.current_task()
                task.cancel()
                return "done"

            assert await h.ask(body) == "done"
            assert h.task.cancelled()

    run_here(main())


def test_cancelling_while_a_request_is_awaited(run_here: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()
            tasks: list[Any] = []

            @client.role("back").on_request("hold")
            async def hold(ctx: roletalk.RequestContext) -> None:
                await release.wait()

            back = server.destination("back")

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> Any:
                tasks.append(asyncio.current_task())
                try:
                    return (await back.request("hold")).data
                except asyncio.CancelledError as exc:
                    return exc.args

            await back.wait_ready(10)
            asking = asyncio.ensure_future((await ready(client)).request("e"))
            await eventually(lambda: client.stats()["running_handlers"])
            assert server.stats()["pending_requests"] == 1
            assert not tasks[0]._fut_waiter.done()
            tasks[0].cancel("enough")
            assert server.stats()["pending_requests"] == 0
            assert (await asking).data == ["enough"]
            release.set()
            await eventually(lambda: server.stats()["late_replies"] == 1)

    run_here(main())


# -- asyncio's own tools inside ----------------------------------------------------------------------


def test_asyncios_tools_inside(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def body() -> list[Any]:
                task: Any = asyncio.current_task()
                seen: list[Any] = []
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(forever(), 0.001)
                seen.append(await asyncio.wait_for(asyncio.sleep(0, 1), 10))
                seen += await asyncio.gather(asyncio.sleep(0, 2), asyncio.sleep(0.001, 3))
                seen.append(await asyncio.shield(asyncio.sleep(0, 4)))
                done, _ = await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0, 5))})
                seen.append(done.pop().result())
                seen.append(await asyncio.to_thread(lambda: 6))
                lock, queue = asyncio.Lock(), asyncio.Queue[int]()
                async with lock:
                    queue.put_nowait(7)
                    seen.append(await queue.get())
                assert task.cancelling() == 0
                return seen

            assert await h.ask(body) == [1, 2, 3, 4, 5, 6, 7]

    run_here(main())


@SINCE_311
def test_timeouts_and_groups_inside(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def fail() -> None:
                raise KeyError

            async def body() -> str:
                task: Any = asyncio.current_task()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await forever()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await asyncio.sleep(10)
                async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                    made = [group.create_task(asyncio.sleep(0, i)) for i in range(3)]
                assert [each.result() for each in made] == [0, 1, 2]
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fail())
                        await forever()
                except BaseException as error:  # an ExceptionGroup, unknown to 3.10
                    assert isinstance(error.exceptions[0], KeyError)  # type: ignore[attr-defined]
                assert task.cancelling() == 0
                await asyncio.sleep(0)
                return "through"

            assert await h.ask(body) == "through"

    run_here(main())


@SINCE_311
def test_a_group_is_cancelled_with_the_handler(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            children: list[asyncio.Task[Any]] = []

            async def body() -> None:
                async with asyncio.TaskGroup() as group:
                    children.extend(group.create_task(forever()) for _ in range(2))

            asking = await h.start(body)
            await asyncio.sleep(0)
            h.task.cancel()
            with pytest.raises(roletalk.RemoteError, match="cancelled"):
                await asking
            assert all(child.cancelled() for child in children)

    run_here(main())
