"""The task of an async handler is to everybody what asyncio's would be."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import io
import itertools
import logging
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import roletalk
from roletalk._task import HandlerTask
from tests.helpers import eventually, loop_factory, pair, ready, run

LOOPS = {"uvloop": loop_factory, "asyncio": asyncio.new_event_loop}
SINCE_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")

Body = Callable[[], Coroutine[Any, Any, Any]]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(
    params=list(itertools.product(LOOPS, (False, True))), ids=lambda p: f"{p[0]}-{p[1]}"
)
def run_here(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`run` on either loop, with asyncio's debug mode and without."""
    name, debug = request.param
    return lambda main, **options: run(main, debug=debug, new_loop=LOOPS[name], **options)


class Handlers:
    """Runs coroutines as async handlers of a server, one after the other or at once."""

    def __init__(self, server: roletalk.Peer, destination: roletalk.Destination) -> None:
        self.server = server
        self.destination = destination
        self.task: Any = None  # of the latest
        self._bodies: list[Body] = []
        server.role("r").on_request("run")(self._handler)

    async def _handler(self, ctx: roletalk.RequestContext) -> Any:
        self.task = asyncio.current_task()
        return await self._bodies.pop(0)()

    async def ask(self, body: Body) -> Any:
        self._bodies.append(body)
        return (await self.destination.request("run")).data

    async def start(self, body: Body) -> asyncio.Task[Any]:
        """Ask in a task of its own; returns once the handler waits."""
        before = self.task
        asking = asyncio.create_task(self.ask(body))
        await eventually(lambda: self.task is not before)
        return asking


@asynccontextmanager
async def handlers(**options: Any) -> AsyncIterator[Handlers]:
    async with pair(**options) as (server, client):
        made = Handlers(server, client.destination("r"))
        await ready(client)
        try:
            yield made
        finally:
            # Of a test that failed: the peer would wait for them.
            for unit in server.units:
                for task in tuple(unit.tasks):
                    task.cancel()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


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


# -- what cannot be awaited --------------------------------------------------------------------------


class Yields:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.value)


def test_what_cannot_be_awaited(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            other = asyncio.new_event_loop()
            try:
                foreign = other.create_future()

                async def body() -> str:
                    task = asyncio.current_task()
                    mine = asyncio.get_running_loop().create_future()
                    assert await Yields(None) is None  # type: ignore[func-returns-value]
                    for value, text in (
                        (5, "got bad yield: 5"),
                        (mine, "yield was used instead of yield from in task"),
                        ((_ for _ in ()), "yield was used instead of yield from for generator"),
                        (foreign, "attached to a different loop"),
                    ):
                        with pytest.raises(RuntimeError, match=text):
                            await Yields(value)
                    with pytest.raises(RuntimeError, match="attached to a different loop"):
                        await foreign
                    with pytest.raises(RuntimeError, match="cannot await on itself"):
                        await task  # type: ignore[misc]
                    await asyncio.sleep(0)
                    return "through"

                assert await h.ask(body) == "through"
            finally:
                other.close()

    run_here(main())


def test_futures_that_are_not_asyncios_own(run_here: Any) -> None:
    class Like(asyncio.futures._PyFuture):  # type: ignore[name-defined,misc]
        pass

    async def main() -> None:
        async with handlers() as h:

            async def body() -> str:
                loop = asyncio.get_running_loop()
                for kind in (asyncio.Future, Like):
                    future: Any = kind(loop=loop)
                    loop.call_soon(future.set_result, "value")
                    assert await future == "value"
                    future = kind(loop=loop)
                    loop.call_soon(future.set_exception, KeyError("gone"))
                    with pytest.raises(KeyError):
                        await future
                    future = kind(loop=loop)
                    loop.call_soon(future.cancel)
                    with pytest.raises(asyncio.CancelledError):
                        await future
                return "through"

            assert await h.ask(body) == "through"

    run_here(main())


def test_a_future_that_will_not_be_waited_for(run_here: Any) -> None:
    class Rude(asyncio.futures._PyFuture):  # type: ignore[name-defined,misc]
        def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("not by you")

    async def main() -> None:
        async with handlers() as h:

            async def body() -> str:
                with pytest.raises(ValueError, match="not by you"):
                    await Rude(loop=asyncio.get_running_loop())
                return "through"

            assert await h.ask(body) == "through"

    run_here(main())


# -- what goes to the loop ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("later", [False, True], ids=["first step", "later"])
@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_an_interrupt_goes_to_the_loop(new_loop: Any, later: bool, kind: Any) -> None:
    loop = new_loop()
    seen: list[Any] = []

    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                seen.append(asyncio.current_task())
                if later:
                    await asyncio.sleep(0)
                raise kind("now")

            try:
                await (await ready(client)).request("e")
            finally:
                seen.append(server.stats()["running_handlers"])

    task = loop.create_task(main())
    try:
        with pytest.raises(kind, match="now"):
            loop.run_until_complete(task)
        assert isinstance(seen[0].exception(), kind)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        assert seen[1] == 0
    finally:
        seen.clear()
        loop.close()


def test_an_interrupt_after_an_answer_goes_to_the_loop() -> None:
    """The step is taken in the read batch of the answer, where no loop catches it."""
    loop = loop_factory()

    async def main() -> None:
        async with pair() as (server, client):
            client.role("back").on_request("name")(lambda ctx: None)
            back = server.destination("back")

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                await back.request("name")
                raise KeyboardInterrupt("now")

            await back.wait_ready(10)
            await (await ready(client)).request("e")

    task = loop.create_task(main())
    try:
        with pytest.raises(KeyboardInterrupt, match="now"):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    finally:
        loop.close()


# -- where it ends -----------------------------------------------------------------------------------


def test_handlers_ask_handlers_in_turn(run_here: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            there, back = client.destination("down"), server.destination("down")
            seen: list[Any] = []

            def step_down(towards: roletalk.Destination) -> Any:
                async def handler(ctx: roletalk.RequestContext) -> int:
                    task = asyncio.current_task()
                    below = 0
                    if ctx.data > 0:
                        below = int((await towards.request("e", ctx.data - 1)).data)
                    assert asyncio.current_task() is task
                    seen.append(task)
                    return below + 1

                return handler

            server.role("down").on_request("e")(step_down(back))
            client.role("down").on_request("e")(step_down(there))
            await there.wait_ready(10)
            await back.wait_ready(10)
            answers = await asyncio.gather(*(there.request("e", 9) for _ in range(20)))
            assert [answer.data for answer in answers] == [10] * 20
            assert len(set(seen)) == 200
            assert server.stats()["running_handlers"] == client.stats()["running_handlers"] == 0

    run_here(main())


def test_it_is_gone_at_once_when_it_is_done(run_here: Any) -> None:
    async def main() -> None:
        async with handlers() as h:
            loop = asyncio.get_running_loop()

            async def never_waits() -> None:
                pass

            async def waits() -> None:
                future = loop.create_future()
                loop.call_soon(future.set_result, None)
                await future
                await asyncio.sleep(0)

            async def fails() -> None:
                await asyncio.sleep(0)
                raise roletalk.Reject("no")

            gc.collect()
            gc.disable()
            try:
                for body in (never_waits, waits, fails):
                    for _ in range(3):
                        await asyncio.gather(h.ask(body), return_exceptions=True)
                        watched, h.task = weakref.ref(h.task), None
                        await asyncio.sleep(0)
                        assert watched() is None
            finally:
                gc.enable()

    run_here(main())


SCRIPT = """
import asyncio, gc, sys, warnings
import roletalk
warnings.simplefilter("error", RuntimeWarning)

async def main(how):
    server, client = roletalk.Peer(name="server"), roletalk.Peer(name="client")
    started = asyncio.Event()

    @server.role("r").on_request("e")
    async def handler(ctx):
        try:
            started.set()
            await asyncio.get_running_loop().create_future()
        except BaseException as exc:
            print(type(exc).__name__, flush=True)
            raise

    await client.connect((await server.listen()).url)
    destination = client.destination("r")
    await destination.wait_ready(10)
    asking = asyncio.ensure_future(destination.request("e"))
    await started.wait()
    if how == "exit":
        return
    asyncio.get_running_loop().stop()
    await asyncio.get_running_loop().create_future()
"""


@pytest.mark.parametrize("how", ["run", "dropped"])
def test_what_still_waits_when_the_loop_ends(how: str) -> None:
    """asyncio.run() cancels it; with a loop that is closed it is closed, like any coroutine."""
    script = SCRIPT
    if how == "run":
        script += "asyncio.run(main('exit'))\n"
    else:
        script += (
            "loop = asyncio.new_event_loop()\n"
            "task = loop.create_task(main('stop'))\n"
            "loop.run_forever()\n"
            "print('stopped', flush=True)\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == (
        ["CancelledError"] if how == "run" else ["stopped", "GeneratorExit"]
    )
    assert "HandlerTask" not in done.stderr
    assert "never awaited" not in done.stderr


def test_a_task_factory_makes_the_tasks_of_handlers_too(
    run_here: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Mine(asyncio.Task[Any]):
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: Mine(coro, loop=loop, **options))
        try:
            async with handlers() as h:

                async def body() -> str:
                    await asyncio.sleep(0)
                    return variable.get()

                async def fails() -> None:
                    await asyncio.sleep(0)
                    raise KeyError

                assert await h.ask(body) == "unset"
                assert type(h.task) is Mine
                with pytest.raises(roletalk.RemoteError, match="internal error"):
                    await h.ask(fails)
                asking = await h.start(forever)
                assert h.server.stats()["running_handlers"] == 1
                h.task.cancel()
                with pytest.raises(roletalk.RemoteError, match="cancelled"):
                    await asking
                assert h.server.stats()["running_handlers"] == 0
        finally:
            loop.set_task_factory(None)

    run_here(main())


def test_errors_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with handlers() as h:

            async def fails() -> None:
                await asyncio.sleep(0)
                raise KeyError("gone")

            with pytest.raises(roletalk.RemoteError):
                await h.ask(fails)
            h.task = None

    run(main())
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "KeyError" in caplog.text


def test_anyio_inside(run_here: Any) -> None:
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        async with handlers() as h:

            async def body() -> list[Any]:
                seen: list[Any] = []
                with anyio.move_on_after(0.001) as scope:
                    await anyio.sleep_forever()
                seen.append(scope.cancelled_caught)
                with pytest.raises(TimeoutError), anyio.fail_after(0.001):
                    await forever()
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep_forever)
                    await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    seen.append(await anyio.to_thread.run_sync(lambda: 2))
                seen.append(anyio.get_current_task().name)
                await asyncio.sleep(0)
                return seen

            async def waits() -> None:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep_forever)

            assert await h.ask(body) == [True, 2, "roletalk handler"]
            asking = await h.start(waits)
            h.task.cancel()
            with pytest.raises(roletalk.RemoteError, match="cancelled"):
                await asking

    run_here(main())
