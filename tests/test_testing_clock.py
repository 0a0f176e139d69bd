"""Loops whose time passes at once."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
import warnings

import pytest

import roletalk
from roletalk._peer import clock
from roletalk.testing import Mesh, VirtualTimeLoop, run_in_virtual_time
from tests.helpers import eventually, ready, run_virtually


def test_time_stands_still_and_jumps() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert began == clock() == 1000
        time.sleep(0.01)  # noqa: ASYNC251  # that is what does not count
        assert loop.time() == began
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await asyncio.wait_for(asyncio.Event().wait(), 3600)
        assert loop.time() == clock() == began + 3600
        return "done"

    began = time.monotonic()
    assert run_in_virtual_time(main()) == "done"
    assert time.monotonic() - began < 60
    assert clock() == pytest.approx(time.monotonic(), abs=60)


def test_timeouts_and_heartbeats_of_peers_follow() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Mesh() as mesh:
            client, server = mesh.peer(), mesh.peer()
            never = asyncio.Event()

            @server.role("r").on_request("never")
            async def wait(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            await mesh.connect(client, server)
            r = await ready(client)
            began = loop.time()
            with pytest.raises(roletalk.RequestTimeout):
                await r.request("never", timeout=600)
            # Ten minutes in which nobody was lost.
            assert loop.time() - began == pytest.approx(600, abs=0.1)
            assert client.stats()["reconnects"] == 0
            assert client.stats()["loop_lag_max"] == pytest.approx(0, abs=1e-6)
            never.set()

    run_virtually(main())


def test_a_thread_and_a_socket_are_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = threading.Event()
        timer = loop.call_later(3600, done.set)
        # Set by the timer it would be at once, had time jumped.
        assert await asyncio.to_thread(done.wait, 0.02) is False
        assert loop.time() < 1060
        timer.cancel()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            threading.Timer(0.02, theirs.send, [b"x"]).start()
            assert await asyncio.wait_for(loop.sock_recv(ours, 1), 60) == b"x"
        assert 1000 < loop.time() < 1060

    run_virtually(main())


def test_a_process_is_waited_for() -> None:
    async def main() -> None:
        began = asyncio.get_running_loop().time()
        process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "")
        assert await asyncio.wait_for(process.wait(), 3600) == 0
        assert asyncio.get_running_loop().time() < began + 3600
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/no such program")
        # Time jumps again.
        await asyncio.sleep(3600)

    run_virtually(main())


def test_threads_that_are_left_are_waited_for() -> None:
    loop = VirtualTimeLoop()

    async def main() -> None:
        loop.run_in_executor(None, time.sleep, 0.02).cancel()

    loop.run_until_complete(main())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limit = (3600,) if sys.version_info >= (3, 12) else ()
        loop.run_until_complete(loop.shutdown_default_executor(*limit))
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_lives_by_the_wall() -> None:
    async def main() -> None:
        child = os.fork()
        if child == 0:
            os._exit(clock() == 1000)
        children.append(child)

    children: list[int] = []
    run_in_virtual_time(main())
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_what_main_leaves_is_cancelled() -> None:
    ends: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ends.append("cancelled")

    async def main() -> None:
        tasks.append(asyncio.create_task(left()))
        await asyncio.sleep(1)
        raise ZeroDivisionError

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(ZeroDivisionError):
        run_in_virtual_time(main())
    assert ends == ["cancelled"]
    assert clock() == pytest.approx(time.monotonic(), abs=60)


def test_one_loop_at_a_time() -> None:
    other = VirtualTimeLoop()

    async def nothing() -> None: ...

    def elsewhere() -> str:
        coroutine = nothing()
        try:
            other.run_until_complete(coroutine)
        except RuntimeError as error:
            return str(error)
        finally:
            coroutine.close()
        return ""

    async def main() -> None:
        assert "another loop" in await asyncio.to_thread(elsewhere)
        with pytest.raises(RuntimeError, match="running event loop"):
            run_in_virtual_time(nothing())

    run_in_virtual_time(main())
    other.run_until_complete(nothing())
    other.close()


def test_peers_on_sockets_live_by_the_wall() -> None:
    async def main() -> None:
        async with roletalk.Peer() as server, roletalk.Peer() as client:
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            await client.connect((await server.listen()).url)
            await eventually(lambda: server.units, timeout=1e6)
            r = await ready(client)
            assert (await r.request("echo", 1)).data == 1

    run_virtually(main())
