"""Many idle connections, each of a peer of its own that has proved a key, held by one process.

``python -m trials.idle --connections 10000``: what one costs in memory, what all of them cost while nothing
is said but pings, and whether all of it is given back.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

import uvloop

import roletalk
from trials import figures, vitals
from trials.figures import Figure

PER_ADDRESS: Final = 20_000  # connections to one of the server's addresses: ports are scarce
PER_PROCESS: Final = 5_000  # of the clients
AT_ONCE: Final = 50  # that one client process opens or closes
SPARE: Final = 100  # descriptors that a process needs for other things
PATIENCE: Final = 600.0  # s, of a step
LAG_STEP: Final = 0.02  # s
KEY: Final = ("idle", "of no secrecy at all, for it never leaves this machine")

MEMORY: Final = 20.0  # KB a connection
DESCRIPTORS: Final = 2
GROWTH: Final = 0.02  # of the memory of all, that the second filling may take on top of the first
NOISE: Final = 1.0  # MB that it may in any case


@dataclass(frozen=True)
class State:
    """Of the server's process, in bytes and seconds."""

    at: float
    rss: int
    uss: int
    descriptors: int
    tasks: int
    cpu: float
    units: int
    lag: float  # the most since the last time

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


class Server:
    """The one process that is measured."""

    def __init__(self) -> None:
        self._peer = roletalk.Peer(name="server", max_units=1 << 20, handshake_timeout=60.0)
        self._peer.add_key(*KEY)
        self._peer.role("r").on_request("echo")(lambda ctx: ctx.data)
        self._lag = 0.0
        self._watch: asyncio.Task[None] | None = None

    async def listen(self, addresses: int) -> list[str]:
        self._watch = asyncio.create_task(self._measure_lag())
        return [
            (await self._peer.listen(f"127.0.0.{n + 1}", 0, backlog=4096)).url
            for n in range(addresses)
        ]

    async def state(self, units: int | None = None) -> State:
        """How it is, once it has that many units."""
        deadline = time.monotonic() + PATIENCE
        while units is not None and len(self._peer.units) != units:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._peer.units)} units, not {units}")
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)  # what is about to be let go of
        lag = self._lag
        gc.collect()
        await asyncio.sleep(2 * LAG_STEP)
        self._lag = 0.0
        return State(
            time.monotonic(),
            vitals.rss(),
            vitals.uss(),
            vitals.descriptors(),
            len(asyncio.all_tasks()),
            vitals.cpu_seconds(),
            len(self._peer.units),
            lag,
        )

    async def close(self) -> None:
        await self._peer.close()
        if self._watch is not None:
            self._watch.cancel()

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + LAG_STEP
            await asyncio.sleep(LAG_STEP)
            self._lag = max(self._lag, time.monotonic() - due)


class Clients:
    """A process with some of the peers at the other end."""

    def __init__(self) -> None:
        self._peers: list[roletalk.Peer] = []

    async def connect(self, urls: list[str]) -> None:
        """A new peer for each of these."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(url: str) -> None:
            peer = roletalk.Peer(friendly=False, heartbeat_interval=None, handshake_timeout=60.0)
            peer.add_key(*KEY)
            peer.destination("r")
            self._peers.append(peer)
            async with room:
                await peer.connect(url, reconnect=False)
            # The timers of thousands of peers would keep busy the machine on which one is measured.
            peer._heartbeat.stop()

        await asyncio.gather(*(one(url) for url in urls))

    async def ask(self, count: int) -> list[float]:
        """Requests of one of the peers, one after the other; the seconds that each took."""
        destination = self._peers[0].destination("r")
        took = []
        for number in range(count):
            began = time.perf_counter()
            answer = await destination.request("echo", number, timeout=60)
            took.append(time.perf_counter() - began)
            assert answer.data == number
            await asyncio.sleep(0.002)
        return took

    async def connected(self) -> int:
        return sum(len(peer.units) for peer in self._peers)

    async def close(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(peer: roletalk.Peer) -> None:
            async with room:
                await peer.close()

        await asyncio.gather(*(one(peer) for peer in self._peers))
        self._peers.clear()


class Process:
    """A process that has a `Server` or `Clients`, and calls methods of it when told."""

    def __init__(self, what: Callable[[], Any], descriptors: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(what, theirs, descriptors), daemon=True
        )
        self._process.start()
        theirs.close()

    def begin(self, method: str, *args: object) -> None:
        """Have a method called; `end` gives what it returns."""
        self._pipe.send((method, args))

    def end(self) -> Any:
        """Raises `RuntimeError` where the method raised, or took too long."""
        if not self._pipe.poll(PATIENCE):
            raise RuntimeError(f"no answer within {PATIENCE:g} s")
        try:
            succeeded, result = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process is gone") from None
        if not succeeded:
            raise RuntimeError(result)
        return result

    def call(self, method: str, *args: object) -> Any:
        self.begin(method, *args)
        return self.end()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(what: Callable[[], Any], pipe: Pipe, descriptors: int) -> None:
    uvloop.install()
    raise_limit(descriptors)
    asyncio.run(_obey(what(), pipe))


async def _obey(thing: Any, pipe: Pipe) -> None:
    while True:
        try:
            method, args = await asyncio.to_thread(pipe.recv)
        except (EOFError, OSError):
            return
        function: Callable[..., Awaitable[Any]] = getattr(thing, method)
        try:
            answer = (True, await function(*args))
        except Exception as error:
            answer = (False, f"{method}: {type(error).__name__}: {error}")
        pipe.send(answer)


def raise_limit(descriptors: int) -> str:
    """Let this process open so many; what is missing if it may not, as a sentence."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < descriptors:
        if hard != resource.RLIM_INFINITY and hard < descriptors:
            return (
                f"{descriptors:,} descriptors are needed in one process and {hard:,} are allowed:"
                f" raise the hard limit (ulimit -Hn), or ask for fewer --connections"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    return ""


@dataclass(frozen=True)
class Found:
    """What one trial measured."""

    connections: int
    before: State
    connecting: float  # s
    full: State
    idle: State
    latencies: list[float]  # s, rising
    empty: State
    full_again: State
    empty_again: State


def measure(connections: int, seconds: float, requests: int) -> Found:
    """Fill the server, leave it alone for `seconds`, empty it; then once more."""
    descriptors = connections + SPARE
    with ExitStack() as stack:
        server = stack.enter_context(Process(Server, descriptors))
        count = -(-connections // PER_PROCESS)
        clients = [stack.enter_context(Process(Clients, descriptors)) for _ in range(count)]
        urls = server.call("listen", -(-connections // PER_ADDRESS))
        shares = [[urls[i % len(urls)] for i in range(n, connections, count)] for n in range(count)]

        def connect(shares: list[list[str]]) -> None:
            for client, share in zip(clients, shares, strict=True):
                client.begin("connect", share)
            for client in clients:
                client.end()

        def close() -> None:
            for client in clients:
                client.begin("close")
            for client in clients:
                client.end()

        # Whatever is loaded with the first connection is no connection's.
        connect([share[:1] for share in shares])
        close()
        before: State = server.call("state", 0)
        began = time.monotonic()
        connect(shares)
        full: State = server.call("state", connections)
        connecting = full.at - began
        print(f"{connections:,} connected", flush=True)
        time.sleep(seconds)
        idle: State = server.call("state", connections)
        latencies: list[float] = clients[0].call("ask", requests)
        if sum(client.call("connected") for client in clients) != connections:
            raise RuntimeError("connections were lost while they were idle")
        close()
        empty: State = server.call("state", 0)
        print("closed; and once more", flush=True)
        connect(shares)
        full_again: State = server.call("state", connections)
        close()
        empty_again: State = server.call("state", 0)
        server.call("close")
    return Found(
        connections,
        before,
        connecting,
        full,
        idle,
        sorted(latencies),
        empty,
        full_again,
        empty_again,
    )


def figures_of(found: Found) -> list[Figure]:
    """The rows of the scorecard."""
    n, before, full, idle = found.connections, found.before, found.full, found.idle
    latencies = [latency * 1000 for latency in found.latencies]
    of_all = (full.uss - before.uss) / 1e6
    return [
        figures.told("connections, each of a unit of its own", n),
        figures.at_most("memory of a connection", (full.uss - before.uss) / n / 1000, MEMORY, "KB"),
        figures.told("  of it as RSS", (full.rss - before.rss) / n / 1000, "KB"),
        figures.told("RSS of the server, with them", full.rss / 1e6, "MB"),
        figures.told("time to connect all", found.connecting, "s"),
        figures.told("  a second", n / found.connecting),
        figures.told("loop lag while they connect, at most", full.lag * 1000, "ms"),
        figures.told(
            "processor of the server, idle but for pings each 10 s",
            (idle.cpu - full.cpu) / (idle.at - full.at) * 100,
            "% of a core",
        ),
        figures.told("loop lag while idle, at most", idle.lag * 1000, "ms"),
        figures.told("a request meanwhile, p50", latencies[len(latencies) // 2], "ms"),
        figures.told("a request meanwhile, p99", latencies[len(latencies) * 99 // 100], "ms"),
        figures.told(
            "RSS before and after", f"{before.rss / 1e6:.1f} and {found.empty.rss / 1e6:.1f} MB"
        ),
        figures.at_most(
            "descriptors left over", found.empty.descriptors - before.descriptors, DESCRIPTORS
        ),
        figures.at_most("tasks left over", found.empty.tasks - before.tasks, 0),
        figures.at_most(
            "memory that a second filling takes more than the first",
            (found.full_again.uss - full.uss) / 1e6,
            max(of_all * GROWTH, NOISE),
            "MB",
        ),
        figures.told("RSS after the second", found.empty_again.rss / 1e6, "MB"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trials.idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of idleness")
    parser.add_argument("--requests", type=int, default=2_000)
    options = parser.parse_args()
    if reason := vitals.missing() or raise_limit(options.connections + SPARE):
        print(reason, file=sys.stderr)
        return 2
    found = measure(options.connections, options.seconds, options.requests)
    command = f"make idle CONNECTIONS={options.connections}"
    return figures.report("idle", command, figures_of(found))


if __name__ == "__main__":
    sys.exit(main())
