"""What many tests need: a loop to run in, peers that know each other, waiting without sleeping."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import roletalk
from roletalk.testing import VirtualTimeLoop
from tools.sanitized import is_sanitized

T = TypeVar("T")

TIMEOUT = 300.0 if is_sanitized() else 120.0  # s, of a whole test: what hangs fails
PATIENCE = 60.0  # s that what is waited for may take, on a busy machine


def loop_factory() -> asyncio.AbstractEventLoop:
    """uvloop where it installs, else the stock loop."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def run(
    main: Coroutine[Any, Any, T],
    *,
    timeout: float = TIMEOUT,
    debug: bool = True,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = loop_factory,
    may_report: str | None = None,
) -> T:
    """Run `main` on a loop of its own, in asyncio's debug mode, and hold it to leave nothing behind.

    Fails on tasks that are left, on exceptions that only the loop got to see (but for those whose
    message is `may_report`), and on coroutines that were never awaited.
    """
    unhandled: list[dict[str, Any]] = []

    async def body() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        result = await asyncio.wait_for(main, timeout)
        for _ in range(3):
            await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, f"tasks left behind: {left}"
        return result

    loop = new_loop()
    try:
        loop.set_debug(debug)
        asyncio.set_event_loop(loop)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            result = loop.run_until_complete(body())
            loop.run_until_complete(loop.shutdown_asyncgens())
            gc.collect()
        reported = [each for each in unhandled if each["message"] != may_report]
        assert not reported, f"unhandled in the loop: {reported}"
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def shown(value: object) -> str:
    """`value` in the name of a test, which has to be the same in every process: no addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def run_virtually(main: Coroutine[Any, Any, T], *, timeout: float = 1e6) -> T:
    """As `run`, in virtual time: for peers on a mesh. `timeout` is in seconds of that."""
    return run(main, new_loop=VirtualTimeLoop, timeout=timeout)


async def eventually(
    condition: Callable[[], T], *, timeout: float = PATIENCE, what: str = "the condition"
) -> T:
    """Wait until `condition` gives something true; fails after `timeout` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        result = condition()
        if result:
            return result
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def peers(
    *names: str, keys: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[tuple[roletalk.Peer, ...]]:
    """Peers that are closed in the end, not connected to each other."""
    made = [roletalk.Peer(name=name, **options) for name in names]
    try:
        for peer in made:
            for key_id, key in (keys or {}).items():
                peer.add_key(key_id, key)
        yield tuple(made)
    finally:
        await asyncio.gather(*(peer.close() for peer in made))


@asynccontextmanager
async def pair(
    *, keys: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[tuple[roletalk.Peer, roletalk.Peer]]:
    """A server and a client that is connected to it: over TCP on loopback, or on a test's mesh."""
    async with peers("server", "client", keys=keys, **options) as (server, client):
        listener = await server.listen("127.0.0.1", 0)
        await client.connect(listener.url)
        await eventually(lambda: server.units, what="the server's unit")
        yield server, client


async def raises_eventually(
    error: type[BaseException], call: Callable[[], Awaitable[Any]], *, timeout: float = PATIENCE
) -> BaseException:
    """Call again and again until it raises `error`; other outcomes do not count."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            await call()
        except error as exc:
            return exc
        assert asyncio.get_running_loop().time() < deadline, f"{error.__name__} was not raised"
        await asyncio.sleep(0.005)


async def ready(client: roletalk.Peer, role: str = "r") -> roletalk.Destination:
    """The destination of that name, once a unit serves it."""
    destination = client.destination(role)
    await destination.wait_ready(10)
    return destination
