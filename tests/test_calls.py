"""What `Destination.request` returns: good wherever a coroutine is."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

import roletalk
from tests.helpers import eventually, loop_factory, pair, run

LOOPS = {"best": loop_factory, "stock": asyncio.new_event_loop}
both_loops = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)


class Service(NamedTuple):
    client: roletalk.Peer
    server: roletalk.Peer
    asked: roletalk.Destination
    release: asyncio.Event  # lets the handlers of "hold" answer

    @property
    def pending(self) -> int:
        return int(self.client.stats()["pending_requests"])

    @property
    def held(self) -> int:
        return int(self.server.stats()["running_handlers"])


@asynccontextmanager
async def service(**options: Any) -> AsyncIterator[Service]:
    """A client of a role whose event "echo" answers at once, "hold" when told to, "no" with a reject."""
    async with pair(**options) as (server, client):
        release = asyncio.Event()
        role = server.role("service")

        @role.on_request("echo")
        def echo(ctx: roletalk.RequestContext) -> Any:
            return ctx.data

        @role.on_request("hold")
        async def hold(ctx: roletalk.RequestContext) -> Any:
            await release.wait()
            return ctx.data

        @role.on_request("no")
        def no(ctx: roletalk.RequestContext) -> None:
            raise roletalk.Reject("no")

        @role.on_message("note")
        def note(ctx: roletalk.Context) -> None:
            pass

        asked = client.destination("service")
        await asked.wait_ready(5)
        try:
            yield Service(client, server, asked, release)
        finally:
            release.set()


def task_type(written_in_python: bool) -> Any:
    """asyncio's task, or the one in Python that it falls back to."""
    return asyncio.tasks._PyTask if written_in_python else asyncio.Task  # type: ignore[attr-defined]


# -- wherever a coroutine is -------------------------------------------------------------------------


async def by_await(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    return (await call).data


async def by_create_task(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    task = asyncio.create_task(call, name="asking")
    assert "request" in repr(task)
    return (await task).data


async def by_python_task(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    return (await task_type(True)(call, loop=asyncio.get_running_loop())).data


async def by_ensure_future(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    return (await asyncio.ensure_future(call)).data


async def by_gather(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    answer, _ = await asyncio.gather(call, asyncio.sleep(0))
    return answer.data


async def by_wait_for(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    return (await asyncio.wait_for(call, 20)).data


async def by_shield(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    return (await asyncio.shield(call)).data


async def by_wait(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    done, left = await asyncio.wait({asyncio.create_task(call)}, timeout=20)
    assert not left
    return (await done.pop()).data


async def by_as_completed(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    (each,) = asyncio.as_completed([call])
    return (await each).data


async def by_wrapper(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
    def wrapped() -> Any:
        return (yield from call.__await__())

    class Wrapper:
        def __await__(self) -> Any:
            return wrapped()

    return (await Wrapper()).data


WAYS: list[Callable[[Coroutine[Any, Any, roletalk.Context]], Coroutine[Any, Any, Any]]] = [
    by_await,
    by_create_task,
    by_python_task,
    by_ensure_future,
    by_gather,
    by_wait_for,
    by_shield,
    by_wait,
    by_as_completed,
    by_wrapper,
]

if sys.version_info >= (3, 11):

    async def by_task_group(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call)
        return task.result().data

    async def by_timeout(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
        async with asyncio.timeout(20):
            return (await call).data

    WAYS += [by_task_group, by_timeout]

if sys.version_info >= (3, 12):

    async def by_eager_task(call: Coroutine[Any, Any, roletalk.Context]) -> Any:
        loop = asyncio.get_running_loop()
        return (await asyncio.Task(call, loop=loop, eager_start=True)).data

    WAYS.append(by_eager_task)

each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@both_loops
@each_way
def test_an_answer(way: Any, new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            assert await way(s.asked.request("echo", [1, "two"])) == [1, "two"]
            # Answered before it is waited for.
            call = s.asked.request("echo", 2)
            await eventually(lambda: s.pending == 0)
            assert await way(call) == 2

    run(main(), new_loop=new_loop)


@both_loops
@each_way
def test_a_reject(way: Any, new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            with pytest.raises(roletalk.RemoteError, match=r": no$") as caught:
                await _only(way(s.asked.request("no")))
            assert (caught.value.role, caught.value.event) == ("service", "no")
            assert caught.value.unit is s.client.units[0]

    run(main(), new_loop=new_loop)


async def _only(waiting: Coroutine[Any, Any, Any]) -> Any:
    """Its result, or the one error that a TaskGroup wrapped."""
    try:
        return await waiting
    except Exception as error:
        inner = getattr(error, "exceptions", None)
        if inner is None:
            raise
        raise inner[0] from None


@both_loops
@each_way
def test_many_at_once(way: Any, new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            calls = [way(s.asked.request("echo", number)) for number in range(200)]
            assert await asyncio.gather(*calls) == list(range(200))
            assert s.pending == 0

    run(main(), new_loop=new_loop)


def test_it_is_a_coroutine_to_who_asks() -> None:
    async def main() -> None:
        async with service() as s:
            bad: Any = 5
            for made in (s.asked.request("echo"), s.asked.send("note"), s.asked.request(bad)):
                assert asyncio.iscoroutine(made)
                assert inspect.isawaitable(made)
                made.close()
            assert s.pending == 0

    run(main())


@both_loops
def test_send_is_good_wherever_a_coroutine_is(new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            await s.asked.send("note")
            await asyncio.create_task(s.asked.send("note"))
            await asyncio.gather(s.asked.send("note"), s.asked.send("note"))
            await asyncio.wait_for(s.asked.send("note"), 5)
            dropped = s.asked.send("note")
            del dropped
            await eventually(lambda: s.server.stats()["messages_received"] == 6)

    run(main(), new_loop=new_loop)


# -- awaited once ------------------------------------------------------------------------------------


def test_awaiting_twice() -> None:
    async def main() -> None:
        async with service() as s:
            call = s.asked.request("echo", 1)
            assert (await call).data == 1
            with pytest.raises(RuntimeError, match="already"):
                await call
            failed = s.asked.request("echo", object())
            with pytest.raises(TypeError):
                await failed
            with pytest.raises(RuntimeError, match="already"):
                await failed

    run(main())


@both_loops
@pytest.mark.parametrize("python_task", [False, True])
def test_two_tasks_cannot_wait_on_one_call(python_task: bool, new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            make = task_type(python_task)
            call = s.asked.request("hold", "mine")
            first = asyncio.create_task(call)
            await asyncio.sleep(0)
            second = make(call, loop=asyncio.get_running_loop())
            with pytest.raises(RuntimeError, match="one task"):
                await asyncio.wait_for(second, 5)
            s.release.set()
            assert (await first).data == "mine"

    run(main(), new_loop=new_loop)


def test_never_awaited_leaks_nothing() -> None:
    async def main() -> None:
        async with service() as s:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for event in ("echo", "hold", "no"):
                    s.asked.request(event, "fine", timeout=None)
                gc.collect()
            # What was not even sent is told.
            with pytest.warns(RuntimeWarning, match="which nobody saw"):
                s.asked.request("echo", object(), timeout=None)
            assert s.pending == 0
            # What they were answered is nobody's.
            s.release.set()
            await eventually(lambda: s.client.stats()["late_replies"] == 3)

    run(main())


# -- failures come from the await --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("echo", object()), {}, TypeError),
        (("echo", {1, 2}), {}, TypeError),
        ((5,), {}, TypeError),
        (("echo",), {"unit": "a name"}, TypeError),
        (("echo",), {"timeout": "soon"}, TypeError),
        (("echo",), {"timeout": -1.0}, ValueError),
        (("echo",), {"timeout": float("nan")}, ValueError),
        (("e" * 65_536,), {}, ValueError),
        (("echo", bytes(17 << 20)), {}, ValueError),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], options: Any, error: type[Exception]) -> None:
    async def main() -> None:
        async with service() as s:
            before = s.client.stats()["requests_sent"]
            call = s.asked.request(*arguments, **options)
            with pytest.raises(error):
                await call
            assert s.client.stats()["requests_sent"] == before
            assert s.pending == 0
            assert (await s.asked.request("echo", 1)).data == 1

    run(main())


def test_no_units() -> None:
    async def main() -> None:
        async with service() as s:
            call = s.client.destination("nobody's").request("echo")
            with pytest.raises(roletalk.NoUnitsError, match="nobody's"):
                await call
            sending = s.client.destination("nobody's").send("note")
            with pytest.raises(roletalk.NoUnitsError):
                await asyncio.create_task(sending)

    run(main())


def test_a_unit_that_goes_away_fails_what_is_pending() -> None:
    async def main() -> None:
        async with service() as s:
            tasks = [asyncio.create_task(s.asked.request("hold")) for _ in range(3)]
            ignoring = asyncio.create_task(
                s.asked.request("hold", timeout=0.2, ignore_unit_close=True)
            )
            await eventually(lambda: s.held == 4)
            unit = s.client.units[0]
            await unit.close()
            for task in tasks:
                with pytest.raises(roletalk.UnitClosedError) as caught:
                    await task
                assert isinstance(caught.value, ConnectionError)
                assert (caught.value.unit, caught.value.event) == (unit, "hold")
            with pytest.raises(roletalk.RequestTimeout):
                await ignoring

    run(main())


# -- cancelling --------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("python_task", [False, True])
def test_cancelling_forgets_the_correlation_at_once(python_task: bool, new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            make = task_type(python_task)
            task = make(s.asked.request("hold"), loop=asyncio.get_running_loop())
            await eventually(lambda: s.held == 1)
            assert s.pending == 1
            task.cancel()
            assert s.pending == 0
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            s.release.set()
            await eventually(lambda: s.client.stats()["late_replies"] == 1)

    run(main(), new_loop=new_loop)


@both_loops
def test_a_time_limit_of_asyncios_forgets_it_too(new_loop: Any) -> None:
    async def main() -> None:
        async with service() as s:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(s.asked.request("hold"), 0.01)
            assert s.pending == 0
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await s.asked.request("hold")
                assert s.pending == 0

    run(main(), new_loop=new_loop)


def test_cancelling_what_was_answered_already() -> None:
    async def main() -> None:
        async with service() as s:
            call = s.asked.request("echo")
            await eventually(lambda: s.pending == 0)
            task = asyncio.create_task(call)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert s.client.stats()["late_replies"] == 0

    run(main())


# -- who is woken, and in what -----------------------------------------------------------------------

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


@both_loops
@pytest.mark.parametrize("python_task", [False, True])
def test_a_woken_task_is_the_current_one_in_its_own_context(
    python_task: bool, new_loop: Any
) -> None:
    async def ask(s: Service, mine: int) -> None:
        number.set(mine)
        task = asyncio.current_task()
        for event in ("echo", "echo", "no", "hold"):
            try:
                answer = await s.asked.request(event, mine)
                assert answer.data == mine
            except roletalk.RemoteError:
                pass
            assert number.get() == mine
            assert asyncio.current_task() is task

    async def main() -> None:
        async with service() as s:
            make = task_type(python_task)
            loop = asyncio.get_running_loop()
            tasks = [make(ask(s, mine), loop=loop) for mine in range(1, 30)]
            await eventually(lambda: s.held == 29)
            s.release.set()
            await asyncio.gather(*tasks)
            assert number.get() == 0

    run(main(), new_loop=new_loop)


@both_loops
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_goes_through_the_loop(
    new_loop: Any, error: type[BaseException]
) -> None:
    async def ask(s: Service) -> None:
        await s.asked.request("echo")
        raise error

    async def main() -> None:
        async with service() as s:
            asyncio.ensure_future(ask(s)).add_done_callback(lambda done: done.exception())
            await asyncio.sleep(30)

    loop = new_loop()
    task = loop.create_task(main())
    try:
        with pytest.raises(error):
            loop.run_until_complete(task)
        assert not task.done()
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}, timeout=20))
        assert task.cancelled()
    finally:
        loop.close()
