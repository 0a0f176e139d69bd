"""Random programs run alike in a handler's task and in asyncio's."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest

import roletalk
from tests.helpers import loop_factory, pair, ready, run

LOOPS = {"uvloop": loop_factory, "asyncio": asyncio.new_event_loop}
PROGRAMS = 300
HAS_GROUPS = sys.version_info >= (3, 11)
UNCANCEL_RESETS = sys.version_info >= (3, 13)

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

Trace = list[tuple[Any, ...]]
Step = tuple[Any, ...]


def program(chosen: random.Random, depth: int = 0) -> list[Step]:
    """Some steps for `play`; times are counted in turns of the loop, so that nothing depends on clocks."""
    kinds = ["sleep", "future", "future", "set", "cancel", "wait_for", "gather", "shield"]
    if HAS_GROUPS:
        kinds += ["uncancel"]
    if depth < 3:
        kinds += ["swallow", "finally", "child"]
        if HAS_GROUPS:
            kinds += ["timeout", "group"]
    if chosen.random() < 0.1:
        kinds += ["raise", "own cancelled", "bad yield"]
    steps: list[Step] = []
    for _ in range(chosen.randint(1, 4)):
        kind = chosen.choice(kinds)
        turns = chosen.randint(0, 4)
        inner = program(chosen, depth + 1) if kind in INNER else None
        how = chosen.choice(("result", "error", "cancel")) if kind == "future" else None
        steps.append((kind, turns, how, inner))
    return steps


INNER = {"swallow", "finally", "child", "timeout", "group"}


def outside(chosen: random.Random) -> list[tuple[int, str]]:
    """What others do to the task, and after how many turns."""
    return [
        (chosen.randint(1, 12), chosen.choice(("cancel", "cancel", "callback", "look")))
        for _ in range(chosen.randint(0, 4))
    ]


def after(turns: int, call: Callable[[], object]) -> None:
    if turns <= 0:
        call()
    else:
        asyncio.get_running_loop().call_soon(after, turns - 1, call)


class BadYield:
    def __await__(self) -> Any:
        yield 5


def settle(future: asyncio.Future[Any], how: str) -> None:
    if future.done():
        return
    if how == "result":
        future.set_result("result")
    elif how == "error":
        future.set_exception(KeyError("error"))
    else:
        future.cancel("by the future")


class Player:
    """Plays a program and writes down what it saw."""

    def __init__(self) -> None:
        self.trace: Trace = []
        self.task: Any = None

    def note(self, *what: Any) -> None:
        task: Any = asyncio.current_task()
        cancelling = task.cancelling() if HAS_GROUPS and task is not None else 0
        self.trace.append(
            (
                *what,
                variable.get(),
                task is self.task,
                cancelling,
                getattr(task, "_must_cancel", None),
            )
        )

    async def begin(self, steps: list[Step], plan: list[tuple[int, str]]) -> str:
        self.task = asyncio.current_task()
        for turns, action in plan:
            after(turns, lambda action=action: self.act(action))  # type: ignore[misc]
        try:
            await self.play(steps)
        except BaseException as exc:
            self.note("ended with", type(exc).__name__, exc.args)
            raise
        return "returned"

    def act(self, action: str) -> None:
        task = self.task
        if action == "cancel":
            self.trace.append(("cancel", task.cancel("from outside")))
        elif action == "callback":
            task.add_done_callback(lambda done: self.trace.append(("done", done is task)))
        else:
            waits = task._fut_waiter is not None
            self.trace.append(("look", task.done(), task.cancelled(), task._must_cancel, waits))

    async def play(self, steps: list[Step]) -> str:
        for kind, turns, how, inner in steps:
            self.note(kind)
            task: Any = asyncio.current_task()
            try:
                result = await self.one(kind, turns, how, inner, task)
            except Exception as exc:
                self.note(kind, "raised", type(exc).__name__)
                if kind == "raise":
                    raise
            else:
                self.note(kind, "gave", result)
        return "played"

    async def one(self, kind: str, turns: int, how: Any, inner: Any, task: Any) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if kind == "sleep":
            for _ in range(turns):
                await asyncio.sleep(0)
        elif kind == "future":
            after(turns, lambda: settle(future, how))
            return await future
        elif kind == "set":
            variable.set(turns)
        elif kind == "cancel":
            return task.cancel("by itself")
        elif kind == "uncancel":
            if UNCANCEL_RESETS or not task._must_cancel:
                return task.uncancel()
        elif kind == "wait_for":
            after(turns, lambda: settle(future, "result"))
            return await asyncio.wait_for(future, 0 if turns == 4 else 1000)
        elif kind == "gather":
            after(turns, lambda: settle(future, "result"))
            return await asyncio.gather(future, asyncio.sleep(0, "slept"))
        elif kind == "shield":
            after(turns, lambda: settle(future, "result"))
            return await asyncio.shield(future)
        elif kind == "raise":
            raise ValueError("of the program")
        elif kind == "own cancelled":
            raise asyncio.CancelledError("of its own")
        elif kind == "bad yield":
            await BadYield()
        elif kind == "swallow":
            try:
                return await self.play(inner)
            except asyncio.CancelledError as exc:
                self.note("swallowed", exc.args)
        elif kind == "finally":
            try:
                return await self.play(inner)
            finally:
                await asyncio.sleep(0)
                self.note("finally")
        elif kind == "child":
            return await asyncio.create_task(self.play(inner))
        elif kind == "timeout" and sys.version_info >= (3, 11):
            async with asyncio.timeout(None) as limit:
                after(turns, lambda: None if limit.expired() else _expire(limit))
                return await self.play(inner)
        elif kind == "group" and sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.play(inner))
                group.create_task(asyncio.sleep(0))
                await asyncio.sleep(0)
        return None


def _expire(limit: Any) -> None:
    try:
        limit.reschedule(asyncio.get_running_loop().time() - 1)
    except RuntimeError:
        # It is over already.
        return


def outcome(task: Any) -> tuple[Any, ...]:
    if task.cancelled():
        return ("cancelled",)
    if task.exception() is not None:
        return ("raised", type(task.exception()).__name__)
    return ("returned", task.result())


async def settled() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("loop", "debug"), list(itertools.product(LOOPS, (False, True))), ids=str)
def test_programs_run_alike(loop: str, debug: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            ours: Player
            todo: tuple[Any, Any]

            @server.role("r").on_request("play")
            async def handler(ctx: roletalk.RequestContext) -> str:
                return await ours.begin(*todo)

            destination = await ready(client)
            for seed in range(PROGRAMS):
                chosen = random.Random(seed)
                todo = program(chosen), outside(chosen)
                ours, theirs = Player(), Player()
                await asyncio.gather(destination.request("play"), return_exceptions=True)
                await settled()
                reference = contextvars.Context().run(asyncio.create_task, theirs.begin(*todo))
                await asyncio.wait({reference})
                await settled()
                assert ours.trace == theirs.trace, f"seed {seed}: {todo}"
                assert outcome(ours.task) == outcome(theirs.task), f"seed {seed}: {todo}"

    run(main(), debug=debug, new_loop=LOOPS[loop], timeout=120)
