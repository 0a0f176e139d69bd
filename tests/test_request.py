"""Requests between two peers of ours: values, replies, and what a handler gets."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import msgspec
import pytest

import roletalk
from tests.helpers import pair, peers, ready, run, shown

pytestmark = pytest.mark.usefixtures("on_mesh")


class Point(msgspec.Struct):
    x: int
    y: int


@dataclass
class Size:
    width: int
    height: int


# -- handlers and their replies


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_handler_returns_is_the_reply(is_async: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            if is_async:

                @server.role("r").on_request("hello")
                async def hello(ctx: roletalk.RequestContext) -> str:
                    await asyncio.sleep(0)
                    return f"Hello, {ctx.data}!"
            else:

                @server.role("r").on_request("hello")
                def hello(ctx: roletalk.RequestContext) -> str:
                    return f"Hello, {ctx.data}!"

            destination = await ready(client)
            reply = await destination.request("hello", "Bob")
            assert reply.data == "Hello, Bob!"
            assert reply.kind == "reply"
            assert (reply.role, reply.event) == ("r", "hello")
            assert reply.unit is client.unit(server.id)
            assert reply.rtt is not None
            assert 0 <= reply.rtt < 30
            assert reply.datatype is roletalk.DataType.STRING
            assert reply.raw == b"Hello, Bob!"

    run(main())


VALUES: list[Any] = [
    b"",
    b"\x00\xff",
    None,
    True,
    False,
    "",
    "grüß dich \U0001f600",
    0,
    -17,
    2**63,
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    {},
    [],
    {"a": [1, None, {"b": "c"}]},
]


@pytest.mark.parametrize("value", VALUES, ids=shown)
def test_values_come_back_as_they_went(value: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            reply = await (await ready(client)).request("echo", value)
            assert reply.data == value
            assert type(reply.data) is type(value)
            assert math.copysign(1, reply.data) == math.copysign(1, value) if value == 0.0 else True

    run(main())


CONVERTED: list[tuple[Any, Any]] = [
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"abc")[1:], b"bc"),
    ((1, 2), [1, 2]),
    (Point(1, 2), {"x": 1, "y": 2}),
    (Size(3, 4), {"width": 3, "height": 4}),
    (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    (datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc), "2024-05-06T07:08:09Z"),
]


@pytest.mark.parametrize(("value", "arrives"), CONVERTED, ids=[shown(v) for v, _ in CONVERTED])
def test_values_that_arrive_as_another_type(value: Any, arrives: Any) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[Any] = []

            @server.role("r").on_request("echo")
            def echo(ctx: roletalk.RequestContext) -> Any:
                seen.append(ctx.data)
                return value

            reply = await (await ready(client)).request("echo", value)
            assert seen == [arrives]
            assert reply.data == arrives

    run(main())


def test_nan_arrives_as_nan() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            reply = await (await ready(client)).request("echo", math.nan)
            assert math.isnan(reply.data)

    run(main())


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        ({1, 2}, TypeError),
        ({"a": object()}, TypeError),
        (10**400, ValueError),
        ("\ud800", ValueError),
    ],
    ids=shown,
)
def test_what_cannot_be_encoded_is_raised_before_a_byte_is_written(
    value: Any, error: type[Exception]
) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            destination = await ready(client)
            before = client.stats()
            call = destination.request("echo", value)
            with pytest.raises(error):
                await call
            with pytest.raises(error):
                await destination.send("echo", value)
            with pytest.raises(error):
                destination.send_nowait("echo", value)
            with pytest.raises(error):
                destination.broadcast("echo", value)
            after = client.stats()
            assert after["bytes_sent"] == before["bytes_sent"]
            assert after["unsent_bytes"] == 0
            assert after["pending_requests"] == 0
            assert (await destination.request("echo", 1)).data == 1

    run(main())


def test_bad_arguments_are_raised_by_the_await() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            destination = await ready(client)
            calls: list[tuple[type[Exception], Callable[[], Awaitable[Any]]]] = [
                (TypeError, lambda: destination.request(5)),  # type: ignore[arg-type]
                (ValueError, lambda: destination.request("e" * 65_536)),
                (ValueError, lambda: destination.request("echo", timeout=-1)),
                (ValueError, lambda: destination.request("echo", timeout=math.nan)),
                (TypeError, lambda: destination.request("echo", timeout="1")),  # type: ignore[arg-type]
                (TypeError, lambda: destination.request("echo", unit="me")),  # type: ignore[arg-type]
                (TypeError, lambda: destination.send(5)),  # type: ignore[arg-type]
                (ValueError, lambda: destination.send("e" * 65_536)),
                (TypeError, lambda: destination.send("echo", unit=object())),
                (roletalk.NoUnitsError, lambda: client.destination("none").request("echo")),
                (roletalk.NoUnitsError, lambda: client.destination("none").send("echo")),
            ]
            for error, make in calls:
                awaitable = make()  # nothing is raised yet
                with pytest.raises(error):
                    await awaitable
            with pytest.raises(TypeError, match=r"timeout= is in seconds, a number, .*, not str$"):
                await destination.request("echo", timeout="1")  # type: ignore[arg-type]

    run(main())


def test_a_name_of_the_greatest_length() -> None:
    async def main() -> None:
        role, event = "ü" * 32_767 + "r", "e" * 65_535
        async with peers("server", "client") as (server, client):
            server.role(role).on_request(event)(lambda ctx: (len(ctx.role), len(ctx.event)))
            await client.connect((await server.listen()).url)
            reply = await client.destination(role).request(event)
            assert reply.data == [32_768, 65_535]
            with pytest.raises(ValueError):
                server.role("r" * 65_536)
            with pytest.raises(ValueError):
                client.destination("r" * 65_536)

    run(main())


# -- early replies


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_early_reply_lets_the_handler_work_on(is_async: bool) -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        done = asyncio.Event()
        async with pair() as (server, client):
            if is_async:

                @server.role("r").on_request("job")
                async def job(ctx: roletalk.RequestContext) -> str:
                    ctx.reply("accepted")
                    await go_on.wait()
                    done.set()
                    return "ignored"
            else:

                @server.role("r").on_request("job")
                def job(ctx: roletalk.RequestContext) -> str:
                    ctx.reply("accepted")
                    done.set()
                    return "ignored"

            destination = await ready(client)
            assert (await destination.request("job")).data == "accepted"
            assert done.is_set() is not is_async
            go_on.set()
            await asyncio.wait_for(done.wait(), 10)
            assert server.stats()["replies_sent"] == 1
            await asyncio.sleep(0)
            assert client.stats()["late_replies"] == 0

    run(main())


def test_a_second_answer_is_a_runtime_error() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            errors: list[BaseException] = []

            @server.role("r").on_request("twice")
            def twice(ctx: roletalk.RequestContext) -> None:
                ctx.reply(1)
                for again in (ctx.reply, ctx.reject):
                    try:
                        again()
                    except RuntimeError as error:
                        errors.append(error)

            @server.role("r").on_request("rejected")
            def rejected(ctx: roletalk.RequestContext) -> None:
                ctx.reject("no")
                try:
                    ctx.reply(1)
                except RuntimeError as error:
                    errors.append(error)

            destination = await ready(client)
            assert (await destination.request("twice")).data == 1
            with pytest.raises(roletalk.RemoteError) as caught:
                await destination.request("rejected")
            assert caught.value.text == "no"
            assert len(errors) == 3
            assert client.stats()["late_replies"] == 0

    run(main())


def test_an_error_after_an_early_reply_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("job")
            def job(ctx: roletalk.RequestContext) -> None:
                ctx.reply("accepted")
                raise LookupError("afterwards")

            destination = await ready(client)
            assert (await destination.request("job")).data == "accepted"
            assert (await asyncio.gather(destination.request("job")))[0].data == "accepted"

    run(main())
    assert "LookupError: afterwards" in caplog.text


# -- what a handler gets


def test_the_fields_of_a_handlers_context() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[roletalk.RequestContext] = []

            @server.role("r").on_request("e")
            def handler(ctx: roletalk.RequestContext) -> None:
                seen.append(ctx)

            reply = await (await ready(client)).request("e", {"a": [1]})
            (ctx,) = seen
            assert (ctx.kind, ctx.role, ctx.event) == ("request", "r", "e")
            assert ctx.unit is server.unit(client.id)
            assert ctx.rtt is None
            assert ctx.datatype is roletalk.DataType.OBJECT
            assert msgspec.json.decode(ctx.raw) == {"a": [1]}
            assert ctx.data == {"a": [1]}
            assert ctx.data is ctx.data
            assert reply.data is None
            assert reply.datatype is roletalk.DataType.NULL
            assert not hasattr(reply, "reply")

    run(main())


def test_typed_decoding() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")

            @role.on_request("point")
            def point(ctx: roletalk.RequestContext) -> Point:
                given = ctx.decode(Point)
                assert type(given) is Point
                return Point(given.y, given.x)

            @role.on_request("size")
            async def size(ctx: roletalk.RequestContext) -> int:
                given = ctx.decode(Size)
                assert type(given) is Size
                return given.width * given.height

            role.on_request("number")(lambda ctx: ctx.decode(int) + 1)
            role.on_request("bytes")(lambda ctx: ctx.decode(bytes))
            role.on_request("when")(lambda ctx: ctx.decode(datetime).year)
            destination = await ready(client)
            assert (await destination.request("point", {"x": 1, "y": 2})).decode(Point) == Point(
                2, 1
            )
            assert (await destination.request("size", Size(3, 4))).decode(int) == 12
            assert (await destination.request("number", 41)).data == 42
            assert (await destination.request("bytes", b"raw")).decode(bytes) == b"raw"
            when = datetime(2024, 1, 2, tzinfo=timezone.utc)
            assert (await destination.request("when", when)).data == 2024
            with pytest.raises(roletalk.RemoteError, match="does not fit"):
                await destination.request("point", {"x": "one", "y": 2})
            with pytest.raises(roletalk.RemoteError, match="does not fit"):
                await destination.request("number", "41")
            reply = await destination.request("number", 1)
            with pytest.raises(roletalk.ProtocolError):
                reply.decode(str)

    run(main())


class Name(str, Enum):
    ROLE = "r"
    EVENT = "e"
    REST = "rest"


def test_names_may_be_of_a_class_of_their_own() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[roletalk.RequestContext] = []

            def handler(ctx: roletalk.RequestContext) -> str:
                seen.append(ctx)
                return ctx.event

            @server.role(Name.ROLE).on_request
            def rest(ctx: roletalk.RequestContext) -> None:
                seen.append(ctx)
                raise roletalk.Reject("no")

            role = server.role("r")
            assert role is server.role(Name.ROLE)
            role.on_request(Name.EVENT)(handler)
            destination = client.destination(Name.ROLE)
            assert destination is client.destination("r")
            await destination.wait_ready(10)
            for event in (Name.EVENT, "e"):
                reply = await destination.request(event)
                assert reply.data == "e"
                assert (reply.role, reply.event) == ("r", "e")
                assert type(reply.event) is type(reply.role) is str
            with pytest.raises(roletalk.RemoteError) as caught:
                await destination.request(Name.REST)
            assert (caught.value.role, caught.value.event) == ("r", "rest")
            assert [ctx.event for ctx in seen] == ["e", "e", "rest"]
            assert {type(ctx.event) for ctx in seen} == {str}
            assert {type(ctx.role) for ctx in seen} == {str}
            assert type(role.name) is type(destination.name) is str
            assert (role.name, destination.name) == ("r", "r")

    run(main())


# -- contexts


@pytest.mark.parametrize("kind", [roletalk.Context, roletalk.RequestContext])
def test_contexts_are_made_by_the_library_alone(kind: type[roletalk.Context]) -> None:
    with pytest.raises(TypeError, match="made by the library"):
        kind()


def test_contexts_cannot_be_copied() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            def handler(ctx: roletalk.RequestContext) -> int:
                for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                    with pytest.raises(TypeError):
                        copied(ctx)
                return 1

            reply = await (await ready(client)).request("e", [1])
            assert reply.data == 1
            with pytest.raises(TypeError):
                copy.copy(reply)

    run(main())


@pytest.mark.parametrize("how", ["reply", "reject"])
def test_another_thread_cannot_answer(how: str) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> str:
                with pytest.raises(RuntimeError, match="thread"):
                    await asyncio.to_thread(getattr(ctx, how), "from a thread")
                assert not ctx.answered
                return "from the loop"

            assert (await (await ready(client)).request("e")).data == "from the loop"

    run(main())
