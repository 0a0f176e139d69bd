"""The task of an async handler is to everybody what asyncio's would be."""

from __future__ import annotations

import asyncio
import inspect
import io
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

import roletalk
from roletalk._task import HandlerTask
from tests.handlerscene import (
    forever,
    handlers,
    variable,
)
from tests.helpers import eventually, pair, ready

# -- the current task --------------------------------------------------------------------------------


def test_it_is_the_current_task_in_each_of_its_steps(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            loop = asyncio.get_running_loop()
            mine = asyncio.current_task()
            seen: list[Any] = []

            async def child() -> Any:
                await asyncio.sleep(0)
                return asyncio.current_task()

            async def body() -> None:
                task = asyncio.current_task()
                assert isinstance(task, asyncio.Task)
                assert type(task) is HandlerTask
                loop.call_soon(lambda: seen.append(asyncio.current_task()))
                future = loop.create_future()
                loop.call_soon(future.set_result, None)
                for waiting in (asyncio.sleep(0), asyncio.sleep(0.001), future, _plain_yield()):
                    await waiting
                    assert asyncio.current_task() is task
                made = asyncio.ensure_future(child())
                assert await made is made
                assert asyncio.current_task() is task

            await h.ask(body)
            assert seen == [None]
            assert asyncio.current_task() is mine

    run_here(main())


class _plain_yield:  # noqa: N801  # stands where a function would
    def __await__(self) -> Generator[None, None, None]:
        yield


def test_the_current_task_is_given_back_to_the_one_that_was_interrupted(run_here: Any) -> None:
    """Whoever steps the loop's callbacks inside a task finds it current again afterwards."""

    async def main() -> None:
        async with pair() as (server, client):
            seen: list[Any] = []

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                seen.append(asyncio.current_task())

            link = server.units[0].connections[0]
            # What the transport does when bytes come, done by hand in the middle of this task.
            destination = await ready(client)
            mine = asyncio.current_task()
            received: list[bytes] = []
            protocol = link.transport.get_protocol()
            get_buffer, updated = protocol.get_buffer, protocol.buffer_updated

            class Held(asyncio.BufferedProtocol):
                def get_buffer(self, sizehint: int) -> bytearray:
                    self.memory = bytearray(65536)
                    return self.memory

                def buffer_updated(self, nbytes: int) -> None:
                    received.append(bytes(self.memory[:nbytes]))

                def eof_received(self) -> bool | None:
                    return None

                def pause_writing(self) -> None:
                    protocol.pause_writing()

                def resume_writing(self) -> None:
                    protocol.resume_writing()

                def connection_lost(self, exc: Exception | None) -> None:
                    protocol.connection_lost(exc)

            link.transport.set_protocol(Held())
            asking = asyncio.ensure_future(destination.request("e"))
            await eventually(lambda: received)
            link.transport.set_protocol(protocol)
            for data in received:
                memoryview(get_buffer(len(data)))[: len(data)] = data
                updated(len(data))
            assert len(seen) == 1
            assert type(seen[0]) is HandlerTask
            assert asyncio.current_task() is mine
            await asking

    run_here(main())


def test_all_tasks_lists_it_while_it_waits(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            asking = await h.start(forever)
            assert h.task in asyncio.all_tasks()
            h.task.cancel()
            with pytest.raises(roletalk.RemoteError):
                await asking
            assert h.task not in asyncio.all_tasks()

    run_here(main())


# -- context variables -------------------------------------------------------------------------------


def test_each_has_a_context_of_its_own(run_here: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            callbacks: list[str] = []

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                task: Any = asyncio.current_task()
                assert variable.get() == "unset"
                variable.set(ctx.data)
                if isinstance(task, HandlerTask):
                    assert task.get_context()[variable] == ctx.data
                task.add_done_callback(lambda _: callbacks.append(variable.get()))
                for delay in (0, 0.001, 0):
                    await asyncio.sleep(delay)
                    assert variable.get() == ctx.data

            destination = await ready(client)
            await asyncio.gather(*(destination.request("e", str(i)) for i in range(10)))
            await eventually(lambda: len(callbacks) == 10)
            assert sorted(callbacks) == [str(i) for i in range(10)]
            assert variable.get() == "unset"

    run_here(main())


def test_the_call_and_the_coroutine_share_a_context(run_here: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            def handler(ctx: roletalk.RequestContext) -> Any:
                variable.set("in the call")

                async def rest() -> str:
                    await asyncio.sleep(0)
                    return variable.get()

                return rest()

            assert (await (await ready(client)).request("e")).data == "in the call"

    run_here(main())


# -- to others it is a future ------------------------------------------------------------------------


def test_others_wait_for_it(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            for value in range(6):
                gate = asyncio.get_running_loop().create_future()

                async def body(gate: Any = gate, value: int = value) -> int:
                    await gate
                    return value

                asking = await h.start(body)
                task = h.task
                assert asyncio.isfuture(task)
                assert inspect.isawaitable(task)
                with pytest.raises(asyncio.InvalidStateError):
                    task.result()
                with pytest.raises(asyncio.InvalidStateError):
                    task.exception()

                async def awaited(task: Any) -> Any:
                    return await task

                ways: list[Callable[..., Any]] = [
                    awaited,
                    asyncio.gather,
                    lambda task: asyncio.wait_for(task, 10),
                    asyncio.shield,
                    lambda task: asyncio.wait({task}),
                    asyncio.ensure_future,
                ]
                waiting = asyncio.ensure_future(ways[value](task))
                called: list[Any] = []
                task.add_done_callback(called.append)
                task.add_done_callback(called.append)
                assert task.remove_done_callback(called.append) == 2
                task.add_done_callback(called.append)
                await asyncio.sleep(0)
                gate.set_result(None)
                result = await waiting
                assert result == {1: [value], 4: ({task}, set())}.get(value, value)
                await asyncio.sleep(0)
                assert called == [task]
                assert task.done()
                assert not task.cancelled()
                assert (task.result(), task.exception()) == (value, None)
                task.add_done_callback(called.append)
                await asyncio.sleep(0)
                assert called == [task, task]
                assert await task == value
                assert await asking == value

    run_here(main())


def test_another_handler_waits_for_it(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            first = await h.start(lambda: asyncio.sleep(0.01, "slept"))
            task = h.task

            async def body() -> Any:
                return await task

            assert await h.ask(body) == "slept"
            await first

    run_here(main())


def test_a_shield_keeps_it_from_a_cancel_and_an_await_does_not(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            asking = await h.start(forever)
            for make, reaches in ((asyncio.shield, False), (lambda task: task, True)):

                async def wait(waited: Any) -> None:
                    await waited

                waiting = asyncio.create_task(wait(make(h.task)))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert h.task.cancelled() is reaches
            with pytest.raises(roletalk.RemoteError, match="cancelled"):
                await asking

    run_here(main())


def test_what_it_raises_is_kept_for_whoever_asks(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def body() -> None:
                await asyncio.sleep(0)
                raise KeyError("gone")

            with pytest.raises(roletalk.RemoteError):
                await h.ask(body)
            assert isinstance(h.task.exception(), KeyError)
            for _ in range(2):
                with pytest.raises(KeyError, match="gone"):
                    await h.task
            h.task = None

    # Nobody is told that it was never retrieved: it was logged as the handler's error.
    run_here(main())


def test_what_asyncio_shows_of_a_task(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            loop = asyncio.get_running_loop()
            asking = await h.start(forever)
            task = h.task
            assert task.get_loop() is task._loop is loop
            assert task.get_coro() is task._coro
            assert inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_SUSPENDED
            assert (task._state, task._must_cancel, task.done()) == ("PENDING", False, False)
            assert isinstance(task._fut_waiter, asyncio.Future)
            assert task.get_name() == "roletalk handler"
            task.set_name(7)
            assert task.get_name() == "7"
            assert "pending" in repr(task)
            assert "_handler" in repr(task)
            frames = task.get_stack()
            assert frames[-1].f_code.co_name == "_handler"
            printed = io.StringIO()
            task.print_stack(file=printed)
            assert "_handler" in printed.getvalue()
            for forbidden in (task.set_result, task.set_exception):
                with pytest.raises(RuntimeError, match="does not support"):
                    forbidden(None)
            kept = weakref.WeakKeyDictionary({task: "state"})
            task.mark = "mine"
            assert (kept[task], task.mark) == ("state", "mine")
            del task.mark
            with pytest.raises(AttributeError):
                _ = task.mark
            task.cancel()
            with pytest.raises(roletalk.RemoteError):
                await asking
            assert "cancelled" in repr(task)
            assert task._state == "CANCELLED"

    run_here(main())


def test_it_has_whatever_asyncios_has(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            assert await h.ask(lambda: asyncio.sleep(0, "slept")) == "slept"
            for name in dir(asyncio.Task):
                # The latter is what repr() asks for, in 3.10.
                if not name.startswith("__") and name != "_repr_info":
                    getattr(h.task, name)
            h.task._log_destroy_pending = h.task._log_traceback = False

    run_here(main())


def test_nobody_makes_one() -> None:
    with pytest.raises(TypeError):
        HandlerTask()
