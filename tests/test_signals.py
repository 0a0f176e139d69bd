"""SIGTERM: who gets it, who does not, and who gives it back. What it does is in tests/faults."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable

import pytest

import roletalk
from tests.helpers import eventually, loop_factory, peers, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")

LOOPS = pytest.mark.parametrize("new_loop", [loop_factory, asyncio.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


def is_default() -> bool:
    return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@LOOPS
def test_all_peers_that_serve_are_closed_and_the_signal_is_given_back(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with peers("a", "b", "c") as (first, second, third):
            serving = [asyncio.create_task(peer.serve_forever()) for peer in (first, second)]
            await eventually(lambda: not is_default())
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.gather(*serving)
            assert first.closing
            assert second.closing
            assert not third.closing
            # The next one is as deadly as ever.
            assert is_default()

    run(main(), new_loop=new_loop)


@LOOPS
def test_what_was_serving_and_is_not_gives_the_signal_back(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with peers("a", "b") as (first, second):
            serving = [asyncio.create_task(peer.serve_forever()) for peer in (first, second)]
            await eventually(lambda: not is_default())
            await first.close()
            await serving[0]
            assert not is_default()
            serving[1].cancel()
            await asyncio.wait(serving)
            assert is_default()

    run(main(), new_loop=new_loop)


def test_a_handler_of_the_programs_own_stays() -> None:
    async def main() -> None:
        came = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, came.set)
        try:
            async with peers("a") as (peer,):
                serving = asyncio.create_task(peer.serve_forever())
                await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGTERM)
                await came.wait()
                assert not peer.closing
                await peer.close()
                await serving
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    run(main())


def test_it_can_be_left_alone() -> None:
    async def main() -> None:
        async with peers("a") as (peer,):
            serving = asyncio.create_task(peer.serve_forever(handle_sigterm=False))
            await asyncio.sleep(0)
            assert is_default()
            await peer.close()
            await serving

    run(main())


def test_in_another_thread_than_the_main_one_it_is_left_alone() -> None:
    ended = []

    async def main() -> None:
        async with roletalk.Peer() as peer:
            serving = asyncio.create_task(peer.serve_forever())
            await asyncio.sleep(0)
            await peer.close()
            await serving
            ended.append(is_default())

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
    assert ended == [True]
