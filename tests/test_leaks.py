"""Nothing grows with what is over: each script runs in a process of its own, which measures itself."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

import roletalk
from tests.helpers import eventually, run
from trials.leaks.__main__ import faults
from trials.leaks.__main__ import run as run_action
from trials.leaks.actions import ACTIONS

ROOT = Path(__file__).parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
KEYS = {"k": "a preshared secret"}

MEMORY = 3 * 1024 * 1024  # bytes of noise: arenas and caches that fill up once
OBJECTS = 500


class Footprint(NamedTuple):
    memory: int  # bytes
    files: int
    tasks: int
    objects: int


async def footprint() -> Footprint:
    for _ in range(5):
        await asyncio.sleep(0.01)
        gc.collect()
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    files = len(os.listdir("/proc/self/fd"))
    return Footprint(memory, files, len(asyncio.all_tasks()), len(gc.get_objects()))


async def flat(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Work `count` times after as many rounds of warming up as show what stays for good."""
    await work(count // 2)
    before = await footprint()
    await work(count)
    after = await footprint()
    print(before, after, sep="\n")
    assert after.files == before.files
    assert after.tasks == before.tasks
    assert after.objects - before.objects < OBJECTS
    assert after.memory - before.memory < MEMORY


def keyed(name: str) -> roletalk.Peer:
    peer = roletalk.Peer(name=name)
    for key_id, key in KEYS.items():
        peer.add_key(key_id, key)
    return peer


async def cycles() -> None:
    async with keyed("server") as server, keyed("client") as client:
        server.role("r").on_request("e")(lambda ctx: ctx.data)
        destination = client.destination("r")
        url = (await server.listen()).url

        async def work(count: int) -> None:
            for _ in range(count):
                async with client.connect(url):
                    await destination.request("e", 1)
            while server.units:
                await asyncio.sleep(0.01)

        await flat(work, 2_000)


async def new_peers() -> None:
    async with keyed("server") as server:
        url = (await server.listen()).url

        async def work(count: int) -> None:
            for _ in range(count):
                async with keyed("client") as client:
                    await client.connect(url)

        # An id that has spoken rt2 is remembered, which is some hundred bytes each.
        await flat(work, 1_000)


async def refused() -> None:
    async with keyed("server") as server, roletalk.Peer() as client:
        client.add_key("k", "another secret")
        url = (await server.listen()).url

        async def work(count: int) -> None:
            for _ in range(count):
                try:
                    await client.connect(url)
                except roletalk.AuthError:
                    continue
                raise AssertionError("it was let in")

        await flat(work, 1_000)


async def requests() -> None:
    async with keyed("server") as server, keyed("client") as client:
        role = server.role("r")
        role.on_request("sync")(lambda ctx: ctx.data)
        role.on_message("m")(lambda ctx: None)

        @role.on_request("async")
        async def later(ctx: roletalk.RequestContext) -> object:
            await asyncio.sleep(0)
            return ctx.data

        @role.on_request("reject")
        def reject(ctx: roletalk.RequestContext) -> None:
            raise roletalk.Reject("no")

        await client.connect((await server.listen()).url)
        destination = client.destination("r")

        async def work(count: int) -> None:
            for i in range(count // 20):
                data = {"i": i, "text": "x" * (i % 1000)}
                asked = [destination.request(("sync", "async")[j % 2], data) for j in range(18)]
                refused = [destination.request("reject") for _ in range(2)]
                await destination.send("m", data)
                await asyncio.gather(*asked)
                await asyncio.gather(*refused, return_exceptions=True)

        await flat(work, 20_000)


async def given_up() -> None:
    async with keyed("server") as server, keyed("client") as client:

        @server.role("r").on_request("slow")
        async def slow(ctx: roletalk.RequestContext) -> None:
            await asyncio.sleep(0.001)

        await client.connect((await server.listen()).url)
        destination = client.destination("r")

        async def work(count: int) -> None:
            for _ in range(count // 40):
                tasks = [asyncio.ensure_future(destination.request("slow")) for _ in range(20)]
                for _ in range(20):
                    destination.request("slow")  # nobody awaits it
                await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                late = [destination.request("slow", timeout=0.0001) for _ in range(5)]
                await asyncio.gather(*late, return_exceptions=True)
            while server.stats()["running_handlers"]:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            pending = client.stats()["pending_requests"]
            assert pending == 0, f"{pending} requests are still pending"

        await flat(work, 8_000)


async def open_transports(*, secure: bool) -> int:
    """The transports that a connection leaves to the garbage collector when it is closed."""
    server_tls = client_tls = None
    if secure:
        authority = trustme.CA()
        server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server_tls)
        client_tls = ssl.create_default_context()
        authority.configure_trust(client_tls)

    def transports() -> int:
        return sum("Transport_" in name or name.endswith("SocketTransport") for name in types())

    def types() -> list[str]:
        return [type(each).__name__ for each in gc.get_objects()]

    async with keyed("server") as server, keyed("client") as client:
        url = (await server.listen(ssl=server_tls)).url
        before = transports()
        gc.disable()
        try:
            async with client.connect(url, ssl=client_tls, reconnect=False):
                assert transports() == before + 2
            await eventually(lambda: not server.units)
            # The loop lets go of them in its next turns.
            for _ in range(10):
                await asyncio.sleep(0)
            return transports() - before
        finally:
            gc.enable()


@pytest.mark.parametrize("secure", [False, True])
def test_a_closed_connection_leaves_no_transport_to_the_garbage_collector(secure: bool) -> None:
    gc.collect()
    assert run(open_transports(secure=secure)) == 0


SCRIPTS = {script.__name__: script for script in (cycles, new_peers, refused, requests, given_up)}


@pytest.mark.slow
@pytest.mark.footprint
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("script", SCRIPTS)
def test_nothing_grows(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_leaks", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.footprint
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_left_of_what_is_over(action: str) -> None:
    left = run_action(action, 800, debug=False)
    assert not faults(left), left


if __name__ == "__main__":
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(SCRIPTS[sys.argv[1]]())
