"""A blocked loop is reported while it is blocked, and with who blocks it."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import sys
import threading
import weakref
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, ready, run

WAIT = 30.0  # s


class Reports(logging.Handler):
    """Sets `seen` when a blocked loop is reported; a handler that waits for it knows that it was."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if "and is still" in self.texts[-1]:
            self.seen.set()


@pytest.fixture
def reports() -> Any:
    handler = Reports()
    logger = logging.getLogger("roletalk")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


KINDS = ["sync", "async", "later", "readable", "middleware", "callback", "partial", "object"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_who_blocks_is_named_while_it_blocks(kind: str, reports: Reports) -> None:
    def block() -> None:
        assert reports.seen.wait(WAIT)

    def culprit(*_: object) -> None:
        block()

    async def async_culprit(ctx: object, *_: object) -> None:
        if kind == "later":
            await asyncio.sleep(0)
        block()

    class Culprit:
        def __call__(self, ctx: object) -> None:
            block()

    async def passing(ctx: object, call_next: Any) -> object:
        return await call_next()

    named = {"object": "Culprit object"}.get(kind, "culprit")

    async def main() -> None:
        async with pair(request_timeout=60.0) as (server, client):
            role = server.role("r")
            server.middleware(passing)
            if kind == "middleware":
                server.middleware(async_culprit)
            if kind == "callback":
                role.on_status_change(culprit)
            handlers: dict[str, Any] = {
                "sync": culprit,
                "partial": functools.partial(functools.partial(culprit, 1), 2),
                "object": Culprit(),
                "middleware": lambda ctx: None,
                "callback": lambda ctx: role.disable(),
                "readable": lambda ctx: None,
            }
            role.on_request("e")(handlers.get(kind, async_culprit))
            if kind == "readable":
                role.on_readable("e")(async_culprit)
            destination = await ready(client)
            if kind == "readable":
                with pytest.raises(roletalk.RemoteError):
                    await destination.writable("e")
            else:
                await destination.request("e")
            await eventually(
                lambda: any("was blocked for" in text and named in text for text in reports.texts)
            )

    run(main(), timeout=60, debug=False)
    blocked = [
        text
        for text in reports.texts
        if "event loop " in text and "blocked" in text and named in text
    ]
    what = kind if kind in ("middleware", "callback") else "handler"
    # Once while it lasted, and once by each of the two peers on this loop when it was over.
    assert any(what in text and "and is still" in text for text in blocked), blocked
    assert any(what in text and "was blocked" in text for text in blocked), blocked
    assert all("in block" in text or "in wait" in text for text in blocked), blocked
    assert len(blocked) <= 3


@pytest.mark.slow
def test_a_program_that_blocks_its_own_loop_is_told_where(reports: Reports) -> None:
    async def main() -> None:
        async with pair():
            assert reports.seen.wait(WAIT)

    run(main(), timeout=60, debug=False)
    assert any("none of its handlers" in text and "threading.py" in text for text in reports.texts)


def watching() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "roletalk watchdog"]


def test_there_is_one_thread_while_there_are_peers() -> None:
    async def main() -> None:
        async with peers("a", "b") as (first, second):
            await first.listen()
            await second.listen()
            assert len(watching()) == 1
            await first.close()
            assert len(watching()) == 1
        await eventually(lambda: not watching())
        async with peers("c") as (third,):
            await third.listen()
            assert len(watching()) == 1
        await eventually(lambda: not watching())

    run(main())


def test_a_peer_that_is_dropped_is_not_kept() -> None:
    async def drop() -> weakref.ref[roletalk.Peer]:
        peer = roletalk.Peer()
        await peer.listen()
        await peer.listeners[0].close()
        # What a loop that is closed does to its timers.
        timer = peer._heartbeat._timer
        assert timer is not None
        timer.cancel()
        return weakref.ref(peer)

    async def main() -> None:
        dropped = await drop()
        # It is held for as long as it is looked at.
        await eventually(lambda: gc.collect() >= 0 and dropped() is None)

    run(main())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not bear a fork with threads")
def test_a_forked_child_watches_for_itself() -> None:
    async def parent() -> None:
        async with pair():
            assert len(watching()) == 1
            pid = os.fork()
            if pid == 0:
                # No loop is running in the child's other thread.
                status = 1
                try:
                    thread = threading.Thread(target=child)
                    thread.start()
                    thread.join(WAIT)
                    status = 0 if done else 1
                finally:
                    os._exit(status)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert status == 0

    done: list[bool] = []

    def child() -> None:
        async def main() -> None:
            async with roletalk.Peer() as peer:
                await peer.listen()
                done.append(len(watching()) == 1)

        asyncio.run(main())

    run(parent())
