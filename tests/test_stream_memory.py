"""What streams hold, measured from outside: each script runs in processes of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import roletalk
from tests.streams import KIB, MIB
from tests.test_leaks import ROOT, flat, keyed

SLACK = 12 * MIB  # arenas, socket buffers of the process, what the first use of code imports
WINDOW = 2 * MIB
BUFFER = 16 * MIB
START = 16 * KIB  # what every stream has for itself
OVERHEAD = 12 * KIB  # of an open stream: its two tasks and all objects
READ_AT_ONCE = 16 * MIB  # of what all streams have on their way
TOTAL = 1024 * MIB
PIECE = bytes(256 * KIB)


def memory(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (at its highest) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * KIB
    raise LookupError(field)


class Endpoint:
    """What either process does with the streams it has: write a lot, or read some and then wait."""

    def __init__(self) -> None:
        self.before = memory("VmRSS")
        self.written = 0
        self.read = 0
        self.go_on = asyncio.Event()

    def growth(self) -> int:
        return memory("VmHWM") - self.before

    async def write(self, stream: roletalk.WritableStream, total: int) -> None:
        for _ in range(0, total, len(PIECE)):
            await stream.write(PIECE)
            self.written += len(PIECE)

    async def lag(self, stream: roletalk.ReadableStream) -> None:
        """Read a little, then nothing until it is told to go on."""
        first = await stream.readexactly(1000)
        self.read += len(first)
        await self.go_on.wait()
        async for chunk in stream:
            self.read += len(chunk)


async def serve() -> None:
    async with roletalk.Peer(stream_window=WINDOW, stream_buffer=BUFFER) as peer:
        role = peer.role("r")
        end = Endpoint()

        @role.on_writable("down")
        async def down(ctx: roletalk.WritableContext) -> None:
            async with ctx.accept() as stream:
                await end.write(stream, ctx.data)

        @role.on_readable("up")
        async def up(ctx: roletalk.ReadableContext) -> None:
            async with ctx.accept() as stream:
                await end.lag(stream)

        role.on_request("go on")(lambda ctx: end.go_on.set())

        @role.on_request("state")
        def state(ctx: roletalk.RequestContext) -> dict[str, int]:
            received = peer.stats()["stream_bytes_received"]
            sent = peer.stats()["stream_bytes_sent"]
            return {
                "growth": end.growth(),
                "read": end.read,
                "written": end.written,
                "received": received,
                "sent": sent,
            }

        print((await peer.listen()).url, flush=True)
        await peer.serve_forever()


async def ask(url: str, opener: str, count: int) -> None:
    """Open `count` streams that are written to without end in sight and read by nobody."""
    total = TOTAL // count
    async with roletalk.Peer(stream_window=WINDOW, stream_buffer=BUFFER) as peer:
        await peer.connect(url)
        destination = peer.destination("r")
        await destination.request("state")
        end = Endpoint()

        async def one() -> None:
            if opener == "reads":
                async with destination.readable("down", total) as reader:
                    await end.lag(reader)
            else:
                async with destination.writable("up", total) as writer:
                    await end.write(writer, total)

        async def states() -> tuple[dict[str, int], dict[str, int]]:
            """The writer's process and the reader's."""
            theirs = (await destination.request("state")).data
            stats = peer.stats()
            mine = {
                "growth": end.growth(),
                "read": end.read,
                "written": end.written,
                "received": stats["stream_bytes_received"],
                "sent": stats["stream_bytes_sent"],
            }
            return (theirs, mine) if opener == "reads" else (mine, theirs)

        tasks = [asyncio.create_task(one()) for _ in range(count)]
        last, same = (-1, -1), 0
        while same < 50:
            await asyncio.sleep(0.01)
            writer, reader = await states()
            now = (writer["sent"], reader["received"])
            same = same + 1 if now == last and reader["read"] == count * 1000 else 0
            last = now
        print(writer, reader, sep="\n")
        bound = min(count * WINDOW, BUFFER + count * START)
        assert reader["received"] <= bound + reader["read"]
        assert writer["sent"] == reader["received"]
        assert reader["growth"] < bound + count * OVERHEAD + SLACK
        assert writer["growth"] < min(bound, 4 * MIB) + count * OVERHEAD + SLACK

        end.go_on.set()
        await destination.request("go on")
        await asyncio.gather(*tasks)
        while (await states())[1]["read"] < total * count:
            await asyncio.sleep(0.01)
        writer, reader = await states()
        print(writer, reader, sep="\n")
        assert reader["read"] == writer["written"] == total * count
        assert reader["growth"] < bound + count * OVERHEAD + READ_AT_ONCE + SLACK
        assert writer["growth"] < min(bound, 4 * MIB) + count * OVERHEAD + SLACK


async def comings_and_goings() -> None:
    """Streams of every kind and ending leave nothing."""
    async with keyed("server") as server, keyed("client") as client:
        role = server.role("r")

        @role.on_readable("e")
        async def read(ctx: roletalk.ReadableContext) -> None:
            async with ctx.accept() as stream:
                if ctx.data == "stop":
                    await stream.readexactly(1)
                elif ctx.data == "fail":
                    raise roletalk.Reject("no more")
                else:
                    await stream.read()

        @role.on_writable("e")
        async def write(ctx: roletalk.WritableContext) -> None:
            async with ctx.accept(ctx.data) as stream:
                await stream.write(b"x" * 20_000)
                if ctx.data == "fail":
                    raise roletalk.Reject("no more")

        async def refuse(ctx: Any) -> None:
            raise roletalk.Reject("never")

        async def late(ctx: Any) -> None:
            await asyncio.sleep(0.01)
            await ctx.accept()

        for event, handler in (("never", refuse), ("late", late)):
            role.on_readable(event)(handler)
            role.on_writable(event)(handler)

        await client.connect((await server.listen()).url)
        destination = client.destination("r")

        async def finish_reading() -> None:
            async with destination.readable("e") as stream:
                assert len(await stream.read()) == 20_000

        async def finish_writing() -> None:
            async with destination.writable("e") as stream:
                await stream.write(b"x" * 20_000)

        async def stop_reading() -> None:
            async with destination.readable("e") as stream:
                await stream.read(1)

        async def stop_writing() -> None:
            async with destination.writable("e") as stream:
                await stream.write(b"x" * 20_000)
                await stream.abort()

        async def are_stopped() -> None:
            async with destination.readable("e", "fail") as reader:
                await reader.read()
            raise AssertionError("it ended well")

        async def are_stopped_writing() -> None:
            async with destination.writable("e", "stop") as writer:
                await writer.write(bytes(4 * MIB))

        async def refused() -> None:
            await destination.readable("never")

        async def given_up() -> None:
            await destination.writable("late", timeout=0.0001)

        kinds: list[Callable[[], Awaitable[None]]] = [
            finish_reading,
            finish_writing,
            stop_reading,
            stop_writing,
            are_stopped,
            are_stopped_writing,
            refused,
            given_up,
        ]

        async def work(count: int) -> None:
            for kind in kinds:
                for _ in range(count // 20):
                    await asyncio.gather(*(kind() for _ in range(20)), return_exceptions=True)
            while server.stats()["running_handlers"]:
                await asyncio.sleep(0.01)
            for peer in (server, client):
                stats = peer.stats()
                assert stats["streams"] == 0, stats
                assert stats["pending_requests"] == 0, stats
                assert not any(unit.tasks for unit in peer.units)

        await flat(work, 2_000)


def script(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.test_stream_memory", *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)


@pytest.mark.slow
@pytest.mark.footprint
@needs_proc
@pytest.mark.parametrize("count", [1, 1024])
@pytest.mark.parametrize("opener", ["reads", "writes"])
def test_a_reader_that_sleeps_costs_neither_process_more_than_the_bound(
    opener: str, count: int
) -> None:
    with script("serve") as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            with script("ask", url, opener, str(count)) as client:
                try:
                    output, _ = client.communicate(timeout=120)
                finally:
                    client.kill()
            assert client.returncode == 0, output
        finally:
            server.kill()


@pytest.mark.slow
@pytest.mark.footprint
@needs_proc
def test_nothing_grows_with_streams_that_are_over() -> None:
    with script("comings_and_goings") as process:
        try:
            output, _ = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 0, output


def main() -> None:
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    if sys.argv[1] == "serve":
        loop.run_until_complete(serve())
    elif sys.argv[1] == "ask":
        loop.run_until_complete(ask(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        loop.run_until_complete(comings_and_goings())


if __name__ == "__main__":
    main()
