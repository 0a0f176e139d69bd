"""The library against a real roletalk-go peer: streams that fail, and streams that press."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from roletalk import ReadableStream, Reject, RequestTimeout, StreamError, WritableStream

from .gopeer import eventually
from .linking import looped
from .streaming import KIB, MIB, WAYS, Way, paired, read_all, write_all

pytestmark = pytest.mark.slow

WE_READ = [way for way in WAYS if way.writer == "go"]
WE_WRITE = [way for way in WAYS if way.writer == "py"]


async def read_until_failure(stream: ReadableStream) -> StreamError:
    while True:
        try:
            assert await stream.read(1000)
        except StreamError as error:
            return error


async def write_until_failure(stream: WritableStream) -> StreamError:
    while True:
        try:
            await stream.write(bytes(1000))
        except StreamError as error:
            return error


# --- aborts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WE_WRITE, ids=str)
@looped
async def test_our_writer_aborts(program: Path, way: Way) -> None:
    """Go reads what was written before, then the text."""
    async with paired(program, "python") as pair:

        async def ours(stream: WritableStream) -> None:
            await stream.write(bytes(5000))
            await stream.abort("enough, ☃")
            with pytest.raises(StreamError):
                await stream.write(b"more")
            with pytest.raises(StreamError):
                await stream.close()
            await stream.abort("again")
            assert stream.closed

        result, gos, _ = await pair.open(way, ours)
        await result
        passed, end = await gos.read()
        assert (passed.size, end) == (5000, "enough, ☃")
        await pair.still_works()


@pytest.mark.parametrize("way", WE_READ, ids=str)
@looped
async def test_our_reader_aborts(program: Path, way: Way) -> None:
    """Go writes on until the text has come to it; what it wrote by then is for nobody."""
    async with paired(program, "python") as pair:

        async def ours(stream: ReadableStream) -> None:
            assert len(await stream.readexactly(10)) == 10
            await stream.abort("enough, ☃")
            with pytest.raises(StreamError):
                await stream.read(1)
            await stream.abort("again")
            assert stream.closed

        result, gos, _ = await pair.open(way, ours)
        _, end = await gos.write(-1)
        assert end == "enough, ☃"
        await result
        await pair.still_works()
        assert pair.peer.stats()["drops"] == {}


@pytest.mark.parametrize("way", WE_READ, ids=str)
@looped
async def test_gos_writer_aborts(program: Path, way: Way) -> None:
    """We read what was written before, then every read raises."""
    async with paired(program, "python") as pair:

        async def ours(stream: ReadableStream) -> None:
            assert len(await stream.readexactly(5000)) == 5000
            for _ in range(2):
                with pytest.raises(StreamError, match="fed up, ☃") as caught:
                    await stream.read()
            error = caught.value
            assert error.unit is pair.unit
            role = "go" if way.opener == "py" else "py"
            assert (error.role, error.event) == (role, "accept")
            with pytest.raises(StreamError):
                await stream.readexactly(1)
            with pytest.raises(StreamError):
                await read_all(stream)
            assert stream.closed

        result, gos, _ = await pair.open(way, ours)
        await gos.write(5000)
        await gos.abort("fed up, ☃")
        await result
        await pair.still_works()


@pytest.mark.parametrize("way", WE_WRITE, ids=str)
@looped
async def test_gos_reader_aborts(program: Path, way: Way) -> None:
    async with paired(program, "python") as pair:

        async def ours(stream: WritableStream) -> None:
            error = await write_until_failure(stream)
            assert "fed up, ☃" in str(error)
            assert error.unit is pair.unit
            with pytest.raises(StreamError, match="fed up, ☃"):
                await stream.close()
            assert stream.closed

        result, gos, _ = await pair.open(way, ours)
        await gos.read(10)
        await gos.abort("fed up, ☃")
        await result
        await pair.still_works()


# --- how our blocks and handlers end ----------------------------------------------------------


@looped
async def test_errors_in_a_block_abort(program: Path) -> None:
    async with paired(program, "python") as pair:
        destination = pair.peer.destination("go")
        for error, text in (
            (KeyError("what nobody else should read"), "internal error"),
            (Reject("for a reason"), "for a reason"),
            (asyncio.CancelledError(), "cancelled"),
        ):
            with pytest.raises(type(error)):  # noqa: PT012  # the block is what is tested
                async with destination.writable("accept") as writer:
                    await writer.write(b"12345")
                    raise error
            passed, end = await (await pair.go.stream("reader")).read()
            assert (passed.size, end) == (5, text)

            with pytest.raises(type(error)):
                async with destination.readable("accept"):
                    raise error
            _, end = await (await pair.go.stream("writer")).write(-1)
            assert end == text
        await pair.still_works()


@looped
async def test_reader_that_is_left_early(program: Path) -> None:
    async with paired(program, "python") as pair:
        async with pair.peer.destination("go").readable("accept") as reader:
            gos = await pair.go.stream("writer")
            await gos.write(20)
            await reader.readexactly(10)
        _, end = await gos.write(-1)
        assert end
        await pair.still_works()


@pytest.mark.parametrize("kind", ["reader", "writer"])
@looped
async def test_handler_that_raises_has_aborted(program: Path, kind: str) -> None:
    async with paired(program, "python") as pair:
        role = pair.peer.role("py")
        serve = role.on_readable if kind == "writer" else role.on_writable

        async def fail(ctx: Any) -> None:
            await ctx.accept()
            raise KeyError("what nobody else should read")

        async def reject(ctx: Any) -> None:
            await ctx.accept()
            raise Reject("for a reason")

        serve("fail")(fail)
        serve("reject")(reject)
        for event, text in (("fail", "internal error"), ("reject", "for a reason")):
            gos = await pair.go.open_stream(kind, "py", event)
            _, end = await (gos.read() if kind == "reader" else gos.write(-1))
            assert end == text
        await pair.still_works()


@pytest.mark.parametrize("kind", ["reader", "writer"])
@looped
async def test_handler_that_waits_elsewhere_is_cancelled(program: Path, kind: str) -> None:
    async with paired(program, "python") as pair:
        role = pair.peer.role("py")
        cancelled = asyncio.Event()

        async def wait(ctx: Any) -> None:
            await ctx.accept()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        (role.on_readable if kind == "writer" else role.on_writable)("wait")(wait)
        gos = await pair.go.open_stream(kind, "py", "wait")
        await gos.abort("fed up")
        await asyncio.wait_for(cancelled.wait(), 10)
        await pair.still_works()


@pytest.mark.parametrize("kind", ["reader", "writer"])
@looped
async def test_acceptance_that_nobody_waits_for(program: Path, kind: str) -> None:
    """Go's end of a stream that we gave up is aborted when it comes."""
    async with paired(program, "python") as pair:
        destination = pair.peer.destination("go")
        opening = destination.writable if kind == "reader" else destination.readable

        async def open_stream() -> None:
            await opening("hang", timeout=None)

        with pytest.raises(RequestTimeout):
            await opening("hang", timeout=0.2)
        cancelled = asyncio.ensure_future(open_stream())
        for _ in range(2):
            await pair.go.event("hanging")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        for _ in range(2):
            await pair.go.call("release")
            gos = await pair.go.stream(kind)
            _, end = await (gos.read() if kind == "reader" else gos.write(-1))
            assert end not in ("", "EOF")
        assert pair.peer.stats()["streams"] == 0
        await pair.still_works()


# --- the connection goes ----------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["cut", "closed here", "closed there"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_both_ends_learn_of_a_lost_connection(program: Path, way: Way, cause: str) -> None:
    async with paired(program, "python") as pair:

        async def ours(stream: Any) -> None:
            fails = write_until_failure if way.writer == "py" else read_until_failure
            assert (await fails(stream)).unit is pair.unit
            assert stream.closed

        result, gos, _ = await pair.open(way, ours)
        if way.writer == "go":
            await gos.write(10)
        else:
            await gos.read(10)
        if cause == "cut":
            assert await pair.go.call("cut", which="accepted") == 1
        elif cause == "closed here":
            await pair.unit.close()
        else:
            await pair.go.call("close_unit", unit=pair.peer.id)
        await result
        # Each of Go's ends says it in words of its own.
        _, end = await (gos.write(-1) if way.writer == "go" else gos.read())
        assert end not in ("", "EOF")
        await eventually(lambda: pair.peer.units == (), "the unit to be gone")
        assert pair.peer.stats()["streams"] == 0


@pytest.mark.parametrize("cause", ["aborted here", "cut", "closed here", "closed there"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_streams_in_full_swing_end(program: Path, way: Way, cause: str) -> None:
    """No end waits for anything but for its turn, and learns of it as it would otherwise."""
    async with paired(program, "python") as pair:
        streams: list[Any] = []

        async def ours(stream: Any) -> None:
            streams.append(stream)
            fails = write_until_failure if way.writer == "py" else read_until_failure
            assert (await fails(stream)).unit is pair.unit
            assert stream.closed

        ends = [await pair.open(way, ours, f"stream {index}") for index in range(16)]
        moving = [gos.write(-1) if way.writer == "go" else gos.read() for _, gos, _ in ends]
        gos_ends = asyncio.gather(*moving)
        stats = pair.peer.stats
        passed = "stream_bytes_received" if way.writer == "go" else "stream_bytes_sent"
        await eventually(lambda: stats()[passed] >= 4 * MIB, "the streams to be under way")
        if cause == "aborted here":
            for stream in streams:
                await stream.abort("enough")
        elif cause == "cut":
            assert await pair.go.call("cut", which="accepted") == 1
        elif cause == "closed here":
            await pair.unit.close()
        else:
            await pair.go.call("close_unit", unit=pair.peer.id)
        for result, _, _ in ends:
            await result
        for _, end in await gos_ends:
            assert end == "enough" if cause == "aborted here" else end not in ("", "EOF")
        assert stats()["streams"] == 0


@looped
async def test_streams_over_redundant_connections(program: Path) -> None:
    async with paired(program, "python") as pair:
        listener = await pair.peer.listen("127.0.0.1", 0)
        await pair.go.connect(listener.url)
        await eventually(lambda: len(pair.unit.connections) == 2, "a second connection")
        for _ in range(5):
            for way in WAYS:
                await pair.transfer(way, 200 * KIB)
        assert len(pair.unit.connections) == 2
        await pair.still_works()


# --- many at once, and too much ---------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 32, 200])
@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_parallel_streams(program: Path, way: Way, count: int) -> None:
    async with paired(program, "python") as pair:
        await asyncio.gather(*(pair.transfer(way, 256 * KIB) for _ in range(count)))
        await pair.still_works()
        assert pair.peer.stats()["streams"] == 0


@looped
async def test_parallel_streams_in_all_ways(program: Path) -> None:
    async with paired(program, "python") as pair:
        both = [pair.transfer(way, 256 * KIB) for way in WAYS * 4]
        both += [pair.make_requests(opener, 100) for opener in ("py", "go")]
        await asyncio.gather(*both)
        await pair.still_works()


@pytest.mark.parametrize("way", WE_READ, ids=str)
@looped
async def test_go_overruns_a_reader_that_sleeps(program: Path, way: Way) -> None:
    """Go does not keep to its quota: we take a window beyond it and then nothing more."""
    size = 128 * MIB  # far more than all sockets hold
    async with paired(program, "python", stream_window=MIB) as pair:
        wake = asyncio.Event()

        async def ours(stream: ReadableStream) -> Any:
            await wake.wait()
            return await read_all(stream)

        result, gos, _ = await pair.open(way, ours)
        writing = asyncio.ensure_future(gos.write(size, chunk=64 * KIB))

        def received() -> int:
            count: int = pair.peer.stats()["stream_bytes_received"]
            return count

        await eventually(lambda: received() >= MIB, "Go to overrun its quota")
        # Time for it to go wrong; where it does not, none of this is needed.
        await asyncio.sleep(1)
        assert received() < 3 * MIB
        assert await gos.progress() < size // 2
        # Its answer comes behind what we do not read yet.
        request = asyncio.ensure_future(pair.peer.destination("go").request("echo", "late"))

        wake.set()
        sent, end = await writing
        assert (sent.size, end) == (size, "")
        await gos.close()
        assert await result == sent
        assert (await request).data == "late"
        await pair.still_works()


@pytest.mark.parametrize("way", WE_READ, ids=str)
@looped
async def test_a_reader_that_was_overrun_aborts(program: Path, way: Way) -> None:
    """The connection is read from again, although nobody takes what had come."""
    async with paired(program, "python", stream_window=MIB) as pair:
        wake = asyncio.Event()

        async def ours(stream: ReadableStream) -> None:
            await wake.wait()
            await stream.abort("enough")

        result, gos, _ = await pair.open(way, ours)
        writing = asyncio.ensure_future(gos.write(-1, chunk=64 * KIB))
        stats = pair.peer.stats
        await eventually(lambda: stats()["stream_bytes_received"] >= MIB, "Go to overrun its quota")
        wake.set()
        await result
        assert (await writing)[1] == "enough"
        await pair.still_works()


@pytest.mark.parametrize("way", WE_READ, ids=str)
@looped
async def test_a_connection_that_we_do_not_read_is_not_given_up(program: Path, way: Way) -> None:
    """Nothing is heard of the other side then, through no fault of its own."""
    interval, timeout = 0.1, 1.0
    async with paired(
        program, "python", heartbeat_interval=interval, heartbeat_timeout=timeout
    ) as pair:
        wake = asyncio.Event()

        async def ours(stream: ReadableStream) -> Any:
            await wake.wait()
            return await read_all(stream)

        result, gos, _ = await pair.open(way, ours)
        size = 64 * MIB
        writing = asyncio.ensure_future(gos.write(size, chunk=64 * KIB))
        stats = pair.peer.stats
        await eventually(lambda: stats()["stream_bytes_received"] >= MIB, "Go to overrun its quota")
        await asyncio.sleep(3 * (interval + timeout))
        assert stats()["stream_bytes_received"] < 3 * MIB
        assert pair.unit.connected
        wake.set()
        sent, _ = await writing
        await gos.close()
        assert await result == sent
        await pair.still_works()


@pytest.mark.parametrize("way", WE_WRITE, ids=str)
@looped
async def test_a_go_reader_that_sleeps_holds_us_back(program: Path, way: Way) -> None:
    """We keep to the credit that it gives, 16 KiB, and its other traffic goes on."""
    size = 256 * KIB
    async with paired(program, "python") as pair:
        result, gos, _ = await pair.open(way, lambda stream: write_all(stream, size, 1000))
        stats = pair.peer.stats
        await eventually(lambda: stats()["stream_bytes_sent"] >= 16 * KIB, "its credit to be spent")
        for other in WAYS:
            await pair.transfer(other, 0)
        await pair.make_requests("py", 100)
        assert stats()["stream_bytes_sent"] == 16 * KIB
        received, end = await gos.read()
        assert end == "EOF"
        assert await result == received
        await pair.still_works()
