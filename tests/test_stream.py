"""Streams between two peers of ours: how they are opened and accepted, and by whom."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

import roletalk
from roletalk.middleware import CallNext
from tests.helpers import eventually, pair, peers, ready, run
from tests.streams import OPENERS, Opener, ends, open_streams

# -- accepting


@pytest.mark.parametrize("opener", OPENERS)
def test_both_sides_may_give_data(opener: Opener) -> None:
    async def main() -> None:
        async with ends(opener, {"name": "a"}, ["welcome", 1]) as both:
            context, reply = both.context, both.reply
            assert context.data == {"name": "a"}
            assert (context.role, context.event) == ("r", "held")
            assert context.kind == ("writable" if opener == "reads" else "readable")
            assert context.rtt is None
            assert isinstance(
                context,
                roletalk.WritableContext if opener == "reads" else roletalk.ReadableContext,
            )
            assert reply.data == ["welcome", 1]
            assert (reply.role, reply.event) == ("r", "held")
            assert type(reply) is roletalk.Context
            assert reply.rtt is not None
            assert 0 <= reply.rtt < 30
            mine, theirs = (both.reader, both.writer)[:: 1 if opener == "reads" else -1]
            assert mine.unit is reply.unit
            assert theirs.unit is context.unit
            assert not mine.closed
            assert not theirs.closed
            assert type(both.reader) is roletalk.ReadableStream
            assert type(both.writer) is roletalk.WritableStream

    run(main())


@pytest.mark.parametrize("value", [b"", b"\xff", None, True, "grüß", 5, -0.5, {}, [None]], ids=repr)
def test_values_of_requests_and_replies(value: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")

            @role.on_writable("e")
            async def handler(ctx: roletalk.WritableContext) -> None:
                async with ctx.accept(ctx.data):
                    pass

            destination = await ready(client)
            async with destination.readable("e", value) as stream:
                assert stream.reply.data == value
                assert type(stream.reply.data) is type(value)
                assert await stream.read() == b""

    run(main())


@pytest.mark.parametrize(
    "how", ["await", "async with", "await, then async with", "task", "timeout"]
)
@pytest.mark.parametrize("opener", OPENERS)
def test_ways_to_open_and_to_accept(opener: Opener, how: str) -> None:
    """One object stands for both the stream to come and the block to have it in."""

    async def use(opening: Any, work: Callable[[Any], Awaitable[None]]) -> None:
        if how == "async with":
            async with opening as stream:
                await work(stream)
        elif how == "await, then async with":
            async with await opening as stream:
                await work(stream)
        else:
            if how == "await":
                stream = await opening
            elif how == "task":
                stream = await asyncio.create_task(opening)
            else:
                stream = await asyncio.wait_for(opening, 10)
            await work(stream)
            if isinstance(stream, roletalk.WritableStream):
                await stream.close()

    async def main() -> None:
        got: list[bytes] = []

        async def read(stream: roletalk.ReadableStream) -> None:
            got.append(await stream.read())

        async def write(stream: roletalk.WritableStream) -> None:
            await stream.write(b"data")

        async with pair() as (server, client):
            role, destination = server.role("r"), await ready(client)
            if opener == "reads":
                role.on_writable("e")(lambda ctx: use(ctx.accept(), write))
                await use(destination.readable("e"), read)
            else:
                role.on_readable("e")(lambda ctx: use(ctx.accept(), read))
                await use(destination.writable("e"), write)
            await eventually(lambda: got == [b"data"])
            await eventually(lambda: open_streams(server, client) == 0)

    run(main())


def test_a_handler_may_be_a_plain_function() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_writable("e")(lambda ctx: ctx.accept(ctx.data))
            async with (await ready(client)).readable("e", 5) as stream:
                assert stream.reply.data == 5
                assert await stream.read() == b""

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("reject", "go away"),
        ("raise", "go away"),
        ("return", "the stream was not accepted"),
        ("sync return", "the stream was not accepted"),
        ("sync reject", "go away"),
        ("error", "internal error"),
        ("unhandled", "not handled"),
    ],
)
def test_rejects(opener: Opener, how: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ctx: Any) -> None:
        if how == "reject":
            ctx.reject("go away")
        elif how == "raise":
            raise roletalk.Reject("go away")
        elif how == "error":
            raise LookupError("secret")

    def sync_handler(ctx: Any) -> None:
        if how == "sync reject":
            ctx.reject("go away")

    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            destination = await ready(client)
            if how != "unhandled":
                chosen = sync_handler if how.startswith("sync") else handler
                (role.on_writable if opener == "reads" else role.on_readable)("held")(chosen)
            opening = destination.readable if opener == "reads" else destination.writable
            for _ in range(2):
                with pytest.raises(roletalk.RemoteError, match=text) as caught:
                    await opening("held")
                assert caught.value.unit is client.units[0]
                assert (caught.value.role, caught.value.event) == ("r", "held")
                with pytest.raises(roletalk.RemoteError, match=text):
                    async with opening("held", unit=caught.value.unit):
                        raise AssertionError("it was entered")
            for peer in (server, client):
                assert peer.stats()["streams"] == peer.stats()["streams_opened"] == 0
                assert peer.stats()["pending_requests"] == 0

    run(main())
    assert ("LookupError: secret" in caplog.text) is (how == "error")


def test_exposed_errors() -> None:
    async def main() -> None:
        async with pair(expose_errors=True) as (server, client):

            @server.role("r").on_writable("e")
            async def handler(ctx: roletalk.WritableContext) -> None:
                raise LookupError("open secret")

            with pytest.raises(roletalk.RemoteError, match="open secret"):
                await (await ready(client)).readable("e")

    run(main())


def test_an_opening_is_answered_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            errors: list[BaseException] = []

            async def attempt(call: Callable[[], Any]) -> None:
                try:
                    result = call()
                    if result is not None:
                        await result
                except RuntimeError as error:
                    errors.append(error)

            @server.role("r").on_writable("accepted")
            async def accepted(ctx: roletalk.WritableContext) -> None:
                async with ctx.accept() as stream:
                    await attempt(ctx.accept)
                    await attempt(lambda: ctx.reject("no"))
                    await stream.write(b"fine")

            @server.role("r").on_writable("rejected")
            async def rejected(ctx: roletalk.WritableContext) -> None:
                ctx.reject("no")
                await attempt(ctx.accept)
                await attempt(lambda: ctx.reject("never"))

            destination = await ready(client)
            async with destination.readable("accepted") as stream:
                assert await stream.read() == b"fine"
            with pytest.raises(roletalk.RemoteError, match=r": no$"):
                await destination.readable("rejected")
            await eventually(lambda: len(errors) == 4)

    run(main())


@pytest.mark.usefixtures("on_mesh")
def test_a_stream_whose_connection_was_lost_is_not_accepted() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            errors: list[BaseException] = []

            @server.role("r").on_readable("e")
            async def handler(ctx: Any) -> None:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                try:
                    await ctx.accept()
                except roletalk.StreamError as error:
                    errors.append(error)

            opening = asyncio.ensure_future((await ready(client)).writable("e"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await client.close()
            with pytest.raises(roletalk.UnitClosedError):
                await opening
            await eventually(lambda: errors)
            (error,) = errors
            assert isinstance(error, roletalk.StreamError)
            assert "the connection that it was asked for on is lost" in str(error)
            assert error.unit is not None
            assert (error.unit.id, error.role, error.event) == (client.id, "r", "e")

    run(main())


def test_a_timeout_of_the_opening() -> None:
    async def main() -> None:
        async with pair(request_timeout=20.0) as (server, client):
            accept = asyncio.Event()
            outcomes: list[BaseException] = []

            async def handler(ctx: Any) -> None:
                await accept.wait()
                try:
                    stream = await ctx.accept()
                    if ctx.kind == "readable":
                        await stream.read()
                    else:
                        while True:
                            await stream.write(b"x" * 1000)
                except roletalk.StreamError as error:
                    outcomes.append(error)

            server.role("r").on_writable("e")(handler)
            server.role("r").on_readable("e")(handler)
            destination = await ready(client)
            for opening in (destination.readable, destination.writable):
                with pytest.raises(roletalk.RequestTimeout) as caught:
                    await opening("e", timeout=0.02)
                assert (caught.value.role, caught.value.event) == ("r", "e")
            # And one whose task gives up.
            task = asyncio.ensure_future(destination.readable("e"))
            await eventually(lambda: server.stats()["running_handlers"] == 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.stats()["pending_requests"] == 0
            assert client.stats()["streams"] == 0
            accept.set()
            # All three ends that were accepted too late are aborted.
            await eventually(lambda: len(outcomes) == 3)
            await eventually(lambda: server.stats()["streams"] == 0)
            assert client.stats()["streams_opened"] == 0

    run(main())


def test_default_handlers_and_event_names() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")

            async def tell(ctx: roletalk.WritableContext, who: str) -> None:
                async with ctx.accept() as stream:
                    await stream.write(f"{who} {len(ctx.event)}".encode())

            role.on_writable("known")(lambda ctx: tell(ctx, "known"))

            @role.on_writable
            async def rest(ctx: roletalk.WritableContext) -> None:
                await tell(ctx, "rest")

            @role.on_readable()
            async def rest_of_readable(ctx: roletalk.ReadableContext) -> None:
                raise roletalk.Reject(f"not {ctx.event}")

            destination = await ready(client)
            for event in ("known", "", "other", "ü" * 32_767 + "e"):
                async with destination.readable(event) as stream:
                    who = "known" if event == "known" else "rest"
                    assert await stream.read() == f"{who} {len(event)}".encode()
            with pytest.raises(roletalk.RemoteError, match="not known"):
                await destination.writable("known")
            # A later handler replaces the first; a kind has its own.
            role.on_writable("known")(lambda ctx: tell(ctx, "new"))
            async with destination.readable("known") as stream:
                assert await stream.read() == b"new 5"
            with pytest.raises(ValueError):
                role.on_readable("e" * 65_536)
            with pytest.raises(TypeError):
                role.on_writable(5)  # type: ignore[call-overload]

    run(main())


def test_units_take_turns_unless_one_is_named() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):

            def serve(server: roletalk.Peer) -> None:
                @server.role("r").on_writable("who")
                async def who(ctx: roletalk.WritableContext) -> None:
                    async with ctx.accept(server.name) as stream:
                        await stream.write(server.name.encode())

            for server in (a, b):
                serve(server)
                await client.connect((await server.listen()).url)
            destination = client.destination("r")
            await eventually(lambda: len(destination.units) == 2)

            async def ask(unit: roletalk.Unit | None = None) -> str:
                async with destination.readable("who", unit=unit) as stream:
                    assert stream.unit is stream.reply.unit
                    assert stream.unit.name == stream.reply.data
                    return (await stream.read()).decode()

            names = [await ask() for _ in range(6)]
            assert names == names[:2] * 3
            assert sorted(names[:2]) == ["a", "b"]
            for _ in range(3):
                assert await ask(client.unit(b.id)) == "b"

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_wrong_arguments_are_raised_by_the_await(opener: Opener) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            destination = await ready(client)
            nobody = client.destination("nobody")
            before = client.stats()["bytes_sent"]
            name = "readable" if opener == "reads" else "writable"
            opening, of_nobody = getattr(destination, name), getattr(nobody, name)
            calls: list[tuple[type[Exception], Callable[[], Awaitable[Any]]]] = [
                (TypeError, lambda: opening(5)),
                (ValueError, lambda: opening("e" * 65_536)),
                (ValueError, lambda: opening("\ud800")),
                (TypeError, lambda: opening("e", object())),
                (ValueError, lambda: opening("e", 10**400)),
                (ValueError, lambda: opening("e", timeout=-1)),
                (ValueError, lambda: opening("e", timeout=math.nan)),
                (TypeError, lambda: opening("e", timeout="1")),
                (TypeError, lambda: opening("e", unit="me")),
                (TypeError, lambda: opening("e", unit=server.units[0])),
                (ValueError, lambda: opening("e", b"x" * (16 << 20))),
                (roletalk.NoUnitsError, lambda: of_nobody("e")),
                (roletalk.NoUnitsError, lambda: of_nobody("e", unit=client.units[0])),
            ]
            for error, make in calls:
                opening_of_it = make()  # nothing is raised yet
                with pytest.raises(error):
                    await opening_of_it
                with pytest.raises(error):
                    async with make():  # type: ignore[attr-defined]
                        raise AssertionError("it was entered")
            assert client.stats()["bytes_sent"] == before
            assert client.stats()["pending_requests"] == client.stats()["streams"] == 0

    run(main())


def test_an_accept_with_wrong_data() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_writable("e")
            async def handler(ctx: roletalk.WritableContext) -> None:
                with pytest.raises(TypeError):
                    await ctx.accept(object())
                async with ctx.accept("better") as stream:
                    await stream.write(b"1")

            async with (await ready(client)).readable("e") as stream:
                assert stream.reply.data == "better"
                assert await stream.read() == b"1"

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_an_opening_that_nobody_awaits_is_none(opener: Opener) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            destination = await ready(client)
            before = client.stats()["bytes_sent"]
            with pytest.warns(RuntimeWarning, match="never awaited"):
                (destination.readable if opener == "reads" else destination.writable)("e")
            await asyncio.sleep(0)
            assert client.stats()["bytes_sent"] == before
            assert client.stats()["pending_requests"] == open_streams(server, client) == 0

    run(main())


# -- middleware


def test_middleware_stands_around_stream_handlers() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[str] = []
            role = server.role("r")

            def noting(name: str) -> Any:
                async def middleware(ctx: roletalk.Context, call_next: CallNext) -> Any:
                    seen.append(f"{name} {ctx.kind}")
                    if ctx.data == "forbidden":
                        raise roletalk.Reject("not you")
                    await call_next()
                    seen.append(f"{name} out")

                return middleware

            server.middleware(noting("all"))
            role.middleware(kinds=("readable",))(noting("readable"))
            role.middleware(kinds=("writable",))(noting("writable"))
            role.middleware(kinds=("request", "message"))(noting("neither"))

            @role.on_readable("e")
            async def read(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept() as stream:
                    seen.append((await stream.read()).decode())

            @role.on_writable("e")
            async def write(ctx: roletalk.WritableContext) -> None:
                async with ctx.accept() as stream:
                    await stream.write(b"written")

            destination = await ready(client)
            async with destination.writable("e") as stream:
                await stream.write(b"read")
            await eventually(lambda: len(seen) == 5)
            assert seen == ["all readable", "readable readable", "read", "readable out", "all out"]
            seen.clear()
            async with destination.readable("e") as reader:
                assert await reader.read() == b"written"
            await eventually(lambda: len(seen) == 4)
            assert seen == ["all writable", "writable writable", "writable out", "all out"]
            for opening in (destination.readable, destination.writable):
                with pytest.raises(roletalk.RemoteError, match=r": not you$"):
                    await opening("e", "forbidden")

    run(main())
