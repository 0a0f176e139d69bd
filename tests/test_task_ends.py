"""What the task of an async handler may not await, what leaves it for the loop, and its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Generator
from typing import Any

import pytest

import roletalk
from tests.handlerscene import (
    LOOPS,
    forever,
    handlers,
    variable,
)
from tests.helpers import loop_factory, pair, ready, run

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
