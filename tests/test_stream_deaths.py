"""What waits, and who, when a stream, its unit or its process goes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, peers, raises_eventually, ready, run
from tests.streams import MIB, OPENERS, WINDOW, Opener, open_streams, read_all, write_all
from tests.streamscene import BOUND, DATA, READ, Scene, cut, scene, started

ROOT = Path(__file__).parent.parent

# -- operations that wait when it happens


DEATHS: dict[str, Callable[[Scene, str], Awaitable[object] | None]] = {
    "aborted by the other end": lambda it, end: (it.reader if end == "writer" else it.writer).abort(
        "no more"
    ),
    "cut": lambda it, end: cut(it.server),
    "unit closed by the server": lambda it, end: it.server.units[0].close(),
    "unit closed by the client": lambda it, end: it.client.units[0].close(),
    "client closed": lambda it, end: it.client.close(),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("end", ["reader", "writer"])
@pytest.mark.parametrize("death", DEATHS)
def test_an_operation_that_waits_fails_with_its_stream(
    death: str, end: str, opener: Opener
) -> None:
    async def main() -> None:
        async with scene(opener, stream_window=WINDOW, stream_buffer=WINDOW) as it:
            if end == "reader":
                assert await it.reader.readexactly(len(DATA) - READ) == DATA[READ:]
                waiting = asyncio.create_task(it.reader.readexactly(10))
            else:
                waiting = asyncio.create_task(it.writer.write(bytes(20 * WINDOW)))  # type: ignore[arg-type]
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            result = started(DEATHS[death](it, end))
            with pytest.raises(roletalk.StreamError) as caught:
                await asyncio.wait_for(waiting, BOUND)
            assert not isinstance(caught.value, asyncio.IncompleteReadError)
            if "abort" in death:
                assert "no more" in str(caught.value)
            if result is not None:
                await result

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("death", DEATHS)
def test_a_handler_in_an_operation_gets_the_error_there(death: str, opener: Opener) -> None:
    async def main() -> None:
        async with peers("server", "client", stream_window=WINDOW) as (server, client):
            await client.connect((await server.listen()).url, reconnect=False)
            it = Scene(server, client, opener)
            outcomes: list[str] = []

            async def handle(ctx: Any) -> None:
                it.handled = await ctx.accept()
                try:
                    if ctx.kind == "readable":
                        await it.handled.read()
                    else:
                        await it.handled.write(bytes(20 * WINDOW))
                except roletalk.StreamError:
                    outcomes.append("StreamError")
                except asyncio.CancelledError:
                    outcomes.append("CancelledError")
                    raise
                # It may clean up in its own time.
                await asyncio.sleep(0.01)
                outcomes.append("cleaned up")

            role = server.role("r")
            (role.on_writable if opener == "reads" else role.on_readable)("e")(handle)
            destination = await ready(client)
            it.opened = await (
                destination.readable("e") if opener == "reads" else destination.writable("e")
            )
            await eventually(lambda: hasattr(it, "handled"))
            it.reader, it.writer = (it.opened, it.handled)[:: 1 if opener == "reads" else -1]
            for _ in range(5):
                await asyncio.sleep(0)
            result = DEATHS[death](it, it.of("handler"))
            if result is not None:
                await result
            await eventually(lambda: "cleaned up" in outcomes)
            assert outcomes == ["StreamError", "cleaned up"]
            await eventually(lambda: open_streams(server, client) == 0)

    run(main())


@pytest.mark.parametrize("death", [name for name in DEATHS if "abort" not in name])
def test_hundreds_die_together(death: str) -> None:
    """Some wait to read, some to write, some are being opened, and some have just begun."""

    async def main() -> None:
        async with peers("server", "client", stream_window=WINDOW) as (server, client):
            await client.connect((await server.listen()).url, reconnect=False)
            count, ended = 300, 0

            async def use(stream: Any) -> None:
                nonlocal ended
                try:
                    if isinstance(stream, roletalk.ReadableStream):
                        await stream.readexactly(100 * WINDOW)
                    else:
                        await stream.write(bytes(50 * WINDOW))
                        await asyncio.Event().wait()
                finally:
                    ended += 1

            async def handler(ctx: Any) -> None:
                if ctx.data % 4:
                    await use(await ctx.accept())
                else:
                    await asyncio.Event().wait()

            role = server.role("r")
            role.on_readable("e")(handler)
            role.on_writable("e")(handler)
            destination = await ready(client)

            async def open_one(number: int) -> None:
                opening: Any = destination.readable if number % 2 else destination.writable
                async with opening("e", number) as stream:
                    if number % 3:
                        await use(stream)
                    else:
                        await stream.abort()

            openers = [asyncio.create_task(open_one(i)) for i in range(count)]
            await eventually(lambda: ended > count // 8)
            it = Scene(server, client, "reads")
            result = started(DEATHS[death](it, "reader"))
            writers = [task for i, task in enumerate(openers) if i % 2 == 0 and i % 4 and i % 3]
            # A writer's block that waits for something else than its stream waits on.
            done, _ = await asyncio.wait(set(openers) - set(writers), timeout=BOUND)
            assert len(done) == count - len(writers)
            for task in writers:
                task.cancel()
            results = await asyncio.gather(*openers, return_exceptions=True)
            assert {type(each) for each in results} <= {
                type(None),
                asyncio.CancelledError,
                roletalk.StreamError,
                roletalk.UnitClosedError,
            }
            if result is not None:
                await result
            for each in (server, client):
                await eventually(lambda each=each: each.stats()["running_handlers"] == 0)  # type: ignore[misc]
                assert each.stats()["pending_requests"] == open_streams(each) == 0

    run(main())


# -- openings that are not answered when it happens


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("death", [name for name in DEATHS if "abort" not in name])
def test_an_opening_fails_with_its_unit(death: str, opener: Opener) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            await client.connect((await server.listen()).url, reconnect=False)
            it = Scene(server, client, opener)
            go_on = asyncio.Event()
            outcomes: list[str] = []

            async def handle(ctx: Any) -> None:
                try:
                    await go_on.wait()
                    await ctx.accept()
                except (roletalk.StreamError, roletalk.UnitClosedError):
                    outcomes.append("accept failed")
                except asyncio.CancelledError:
                    outcomes.append("cancelled")
                    raise
                else:
                    outcomes.append("accepted")

            role = server.role("r")
            (role.on_writable if opener == "reads" else role.on_readable)("e")(handle)
            destination = await ready(client)
            opening: Any = destination.readable if opener == "reads" else destination.writable
            waiting = asyncio.ensure_future(opening("e"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            result = started(DEATHS[death](it, "reader"))
            with pytest.raises(roletalk.UnitClosedError) as caught:
                await asyncio.wait_for(waiting, BOUND)
            assert (caught.value.role, caught.value.event) == ("r", "e")
            go_on.set()
            await eventually(lambda: outcomes)
            assert outcomes in (["accept failed"], ["cancelled"])
            if result is not None:
                await result
            assert open_streams(server, client) == 0

    run(main())


# -- closing gives handlers their time


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("how", ["close", "drain"])
def test_handlers_of_streams_may_finish_while_their_peer_ends(how: str, opener: Opener) -> None:
    async def main() -> None:
        async with scene(opener) as it:
            ending = asyncio.create_task(
                it.server.close() if how == "close" else it.server.drain(10)
            )
            await eventually(lambda: it.server.closing)
            if opener == "reads":
                await it.writer.write(b"the rest")
                it.handler_leaves.set_result(None)
                assert await it.reader.read() == DATA[READ:] + b"the rest"
            else:
                await write_all(it.writer, b"the rest")
                assert await it.reader.read() == DATA[READ:] + b"the rest"
                it.handler_leaves.set_result(None)
            await ending
            assert it.handler_end == "returned"

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_a_drain_cancels_what_lasts_longer(opener: Opener) -> None:
    async def main() -> None:
        async with scene(opener) as it:
            await it.server.drain(0.01)
            assert isinstance(it.handler_end, asyncio.CancelledError)
            if opener == "reads":
                with pytest.raises(roletalk.StreamError):
                    await it.reader.read()
            else:
                await raises_eventually(roletalk.StreamError, lambda: it.writer.write(b"x"))
            assert it.client.units  # the connection stays

    run(main())


# -- a process that is killed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("opener", OPENERS)
def test_the_other_process_is_killed(opener: Opener) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.test_stream_deaths",
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
            async with peers("client") as (client,):
                await client.connect(url, reconnect=False)
                destination = client.destination("r")
                rest: list[bytes] = []
                if opener == "reads":
                    reader = await destination.readable("download")
                    assert await reader.readexactly(READ) == DATA[:READ]
                    await eventually(lambda: client.stats()["stream_bytes_received"] == len(DATA))
                    process.send_signal(signal.SIGKILL)
                    with pytest.raises(roletalk.StreamError):
                        await asyncio.wait_for(read_all(reader, rest), BOUND)
                    assert b"".join(rest) == DATA[READ:]
                else:
                    writer = await destination.writable("upload")
                    process.send_signal(signal.SIGKILL)
                    with pytest.raises(roletalk.StreamError):
                        # More than all windows and buffers hold.
                        await asyncio.wait_for(writer.write(bytes(64 * MIB)), BOUND)
                    with pytest.raises(roletalk.StreamError):
                        await writer.close()
                await eventually(lambda: not client.units)
                assert open_streams(client) == 0
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # The stock loop, whose child watcher leaves no handler behind.
    run(main())


async def serve() -> None:
    async with roletalk.Peer(name="killed") as peer:
        role = peer.role("r")
        forever = asyncio.Event()

        @role.on_writable("download")
        async def download(ctx: roletalk.WritableContext) -> None:
            async with ctx.accept() as stream:
                await stream.write(DATA)
                await forever.wait()

        @role.on_readable("upload")
        async def upload(ctx: roletalk.ReadableContext) -> None:
            async with ctx.accept():
                await forever.wait()

        print((await peer.listen()).url, flush=True)
        await peer.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
