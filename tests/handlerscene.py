"""Coroutines that run as async handlers of a server, on either loop."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, loop_factory, pair, ready

LOOPS = {"uvloop": loop_factory, "asyncio": asyncio.new_event_loop}
SINCE_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")

Body = Callable[[], Coroutine[Any, Any, Any]]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


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
