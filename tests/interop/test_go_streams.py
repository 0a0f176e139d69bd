"""The library against a real roletalk-go peer: streams that are opened, carried out and rejected.

How they fail, and what they do to the memory and to each other, is in test_go_streams_hard.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from roletalk import (
    NoUnitsError,
    ReadableContext,
    Reject,
    RemoteError,
    WritableContext,
)

from .gopeer import GoError, Passed, same
from .linking import looped
from .streaming import KIB, MIB, WAYS, Way, paired, read_all, write_all

pytestmark = pytest.mark.slow

# Requests before the stream's, so that its correlation takes two bytes and its channel one.
EARLIER = [0, 300]

SIZES = [
    # bytes, chunks that they are written in
    (0, [64 * KIB]),
    (1, [64 * KIB]),
    (16 * KIB, [1, 16 * KIB, 64 * KIB]),
    (16 * KIB + 1, [1, 16 * KIB, 64 * KIB]),
    (5 * MIB, [16 * KIB, 64 * KIB]),
]


# --- what arrives -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialler", ["python", "go"])
@pytest.mark.parametrize("earlier", EARLIER)
@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_sizes(program: Path, way: Way, earlier: int, dialler: str) -> None:
    async with paired(program, dialler) as pair:
        await pair.make_requests(way.opener, earlier)
        for size, chunks in SIZES:
            for chunk in chunks:
                await pair.transfer(way, size, chunk)
        await pair.still_works()
        stats = pair.peer.stats()
        assert stats["streams"] == 0
        assert stats["drops"] == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_streams_in_turn(program: Path, way: Way) -> None:
    """With requests of either side in between, so that no number follows the one before."""
    async with paired(program, "python") as pair:
        for index in range(20):
            await pair.transfer(way, index * 1000)
            await pair.make_requests("py" if index % 2 else "go", index)
        await pair.still_works()
        stats = pair.peer.stats()
        assert stats["streams_opened"] == 20 + len(WAYS)
        assert stats["streams"] == 0


@looped
async def test_all_ways_in_turn(program: Path) -> None:
    """Channels of streams that Go opened and of those that we opened are of one count in Go."""
    async with paired(program, "go") as pair:
        for _ in range(5):
            for way in WAYS:
                await pair.transfer(way, 100 * KIB)
        await pair.still_works()


@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_channels_of_two_bytes(program: Path, way: Way) -> None:
    """From Go's 256th stream on, while its correlations, or ours, still have one byte.

    Short ones: Go dies of a longer channel that is cut by its 4096-byte buffer, so a writer with
    more to say than that cannot do better.
    """
    async with paired(program, "python") as pair:
        for index in range(270):
            await pair.transfer(way, index)
        await pair.still_works()


VALUES: list[Any] = [
    None,
    True,
    2.5,
    "héllo ☃",
    "",
    b"\0\xff",
    b"",
    bytes(range(256)) * 400,  # longer than any buffer of Go's
    {"a": [1, {"b": None}]},
]


@pytest.mark.parametrize("earlier", EARLIER)
@pytest.mark.parametrize("way", WAYS, ids=str)
@looped
async def test_data_with_request_and_acceptance(program: Path, way: Way, earlier: int) -> None:
    async with paired(program, "python") as pair:
        await pair.make_requests(way.opener, earlier)
        for value in VALUES:

            async def ours(stream: Any) -> Passed:
                assert stream.unit is pair.unit
                if way.writer == "py":
                    return await write_all(stream, 100, 100)
                return await read_all(stream)

            result, gos, came = await pair.open(way, ours, value)
            # One of them came with the request, the other with the acceptance.
            assert same(came, value)
            assert same(gos.value.python, value)
            if way.writer == "py":
                received, end = await gos.read()
                assert end == "EOF"
            else:
                received, _ = await gos.write(100)
                await gos.close()
            assert received.size == 100
            assert await result == received
        await pair.still_works()


# --- as a program would write it --------------------------------------------------------------


@looped
async def test_blocks_of_destinations(program: Path) -> None:
    async with paired(program, "python") as pair:
        destination = pair.peer.destination("go")
        async with destination.writable("accept", {"name": "a"}) as writer:
            gos = await pair.go.stream("reader")
            assert gos.value.python == {"name": "a"}
            assert writer.reply.data == {"name": "a"}
            assert (writer.reply.role, writer.reply.event) == ("go", "accept")
            await writer.write(bytearray(b"one, "))
            await writer.write(memoryview(b"two, "))
            await writer.write(b"")
            await writer.write(b"three")
            assert (await gos.read(5))[0].size == 5
        received, end = await gos.read()
        assert (received.size, end) == (15, "EOF")
        assert received.sha256 == hashlib.sha256(b"one, two, three").hexdigest()
        assert writer.closed

        async with destination.readable("accept") as reader:
            gos = await pair.go.stream("writer")
            assert reader.reply.data is None
            sent, _ = await gos.write(1000)
            content = await reader.readexactly(600)
            buffer = bytearray(300)
            while count := await reader.readinto(buffer):
                content += buffer[:count]
                if len(content) == 1000:
                    await gos.close()
        assert sent == (1000, hashlib.sha256(content).hexdigest())
        assert reader.closed
        await pair.still_works()


@looped
async def test_blocks_of_handlers(program: Path) -> None:
    async with paired(program, "go") as pair:
        role = pair.peer.role("py")
        uploaded: asyncio.Queue[bytes] = asyncio.Queue()

        @role.on_readable("upload")
        async def upload(ctx: ReadableContext) -> None:
            assert (ctx.role, ctx.event, ctx.kind) == ("py", "upload", "readable")
            async with ctx.accept({"ok": True}) as stream:
                uploaded.put_nowait(await stream.read())

        @role.on_writable("download")
        async def download(ctx: WritableContext) -> None:
            assert (ctx.role, ctx.event, ctx.kind) == ("py", "download", "writable")
            async with ctx.accept() as stream:
                await stream.write(ctx.data * 1000)

        @role.on_writable("unfinished")
        async def unfinished(ctx: WritableContext) -> None:
            stream = await ctx.accept()
            await stream.write(b"ends with the handler")

        writer = await pair.go.open_stream("writer", "py", "upload")
        assert writer.value.python == {"ok": True}
        sent, _ = await writer.write(100_000)
        await writer.close()
        content = await asyncio.wait_for(uploaded.get(), 10)
        assert sent == (100_000, hashlib.sha256(content).hexdigest())

        reader = await pair.go.open_stream("reader", "py", "download", b"0123456789")
        received, end = await reader.read()
        assert received == (10_000, hashlib.sha256(b"0123456789" * 1000).hexdigest())
        assert end == "EOF"

        reader = await pair.go.open_stream("reader", "py", "unfinished")
        received, end = await reader.read()
        assert (received.size, end) == (len(b"ends with the handler"), "EOF")
        await pair.still_works()


# --- rejects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("earlier", EARLIER)
@looped
async def test_gos_rejects(program: Path, earlier: int) -> None:
    """By the two messages that Go rejects with; it writes its errors as the object {}."""
    async with paired(program, "python") as pair:
        await pair.make_requests("py", earlier)
        destination = pair.peer.destination("go")
        for event in ("reject", "reply_error", "no such event"):
            for opening in (destination.readable, destination.writable):
                with pytest.raises(RemoteError) as caught:
                    await opening(event, timeout=15)
                error = caught.value
                assert error.text == "rejected"
                assert (error.unit, error.role, error.event) == (pair.unit, "go", event)
                with pytest.raises(RemoteError):
                    async with opening(event, timeout=15):
                        pytest.fail("entered a block that has no stream")
                for way in WAYS:
                    await pair.transfer(way, 1000)
        with pytest.raises(NoUnitsError):
            await pair.peer.destination("no such role").readable("accept", timeout=5)
        assert pair.peer.stats()["streams"] == 0
        await pair.still_works()


@pytest.mark.parametrize("earlier", EARLIER)
@pytest.mark.parametrize("kind", ["reader", "writer"])
@looped
async def test_our_rejects(program: Path, kind: str, earlier: int) -> None:
    async with paired(program, "python") as pair:
        await pair.make_requests("go", earlier)
        role = pair.peer.role("py")
        serve = role.on_readable if kind == "writer" else role.on_writable

        async def reject(_: Any) -> None:
            raise Reject("nö, ☃ <&>")

        def reject_call(ctx: Any) -> None:
            ctx.reject("by call")

        async def fail(_: Any) -> None:
            raise KeyError("what nobody else should read")

        async def neither(_: Any) -> None:
            pass

        for event, handler in (
            ("reject", reject),
            ("reject_call", reject_call),
            ("raise", fail),
            ("neither", neither),
        ):
            serve(event)(handler)
        pair.peer.role("off", active=False)

        async def rejected(role: str, event: str) -> str:
            with pytest.raises(GoError) as caught:
                await pair.go.open_stream(kind, role, event, unit=pair.peer.id)
            for way in WAYS:
                await pair.transfer(way, 1000)
            return str(caught.value)

        # Go's error is the whole message after its type, numbers and data type included.
        assert (await rejected("py", "reject")).endswith("\x03nö, ☃ <&>")
        assert (await rejected("py", "reject_call")).endswith("\x03by call")
        assert (await rejected("py", "raise")).endswith("\x03internal error")
        assert (await rejected("py", "neither")).endswith("\x03the stream was not accepted")
        for unknown in (("py", "no such event"), ("no such role", "accept"), ("off", "accept")):
            assert not (await rejected(*unknown)).startswith("Request timeout")
        await pair.still_works()
