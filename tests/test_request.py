"""Requests between two peers of ours: handlers, replies, rejects, timeouts, limits."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest

import roletalk
from tests.helpers import eventually, pair, peers, run

KIB = 1024


class Point(msgspec.Struct):
    x: int
    y: int


@dataclass
class Size:
    width: int
    height: int


async def ready(client: roletalk.Peer, role: str = "r") -> roletalk.Destination:
    destination = client.destination(role)
    await destination.wait_ready(10)
    return destination


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


@pytest.mark.parametrize("value", VALUES, ids=repr)
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


@pytest.mark.parametrize(("value", "arrives"), CONVERTED, ids=[repr(v) for v, _ in CONVERTED])
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
    ids=repr,
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
                (TypeError, lambda: destination.request("echo", timeout="1")),  # type: ignore
                (TypeError, lambda: destination.request("echo", unit="me")),  # type: ignore
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


# -- rejects


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("text", "arrives"), [("not today", "not today"), ("", "rejected"), ("ä\n", "ä\n")]
)
def test_reject(text: str, arrives: str, is_async: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            def refuse(ctx: roletalk.RequestContext) -> None:
                raise roletalk.Reject(text)

            async def refuse_later(ctx: roletalk.RequestContext) -> None:
                await asyncio.sleep(0)
                raise roletalk.Reject(text)

            server.role("r").on_request("no")(refuse_later if is_async else refuse)
            destination = await ready(client)
            with pytest.raises(roletalk.RemoteError) as caught:
                await destination.request("no")
            error = caught.value
            assert (error.text, error.role, error.event) == (arrives, "r", "no")
            assert error.unit is client.unit(server.id)

    run(main())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("expose", [False, True], ids=["hidden", "exposed"])
def test_other_exceptions_are_logged_and_rejected(
    is_async: bool, expose: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pair(expose_errors=expose) as (server, client):

            def fail(ctx: roletalk.RequestContext) -> None:
                raise LookupError("the secret")

            async def fail_later(ctx: roletalk.RequestContext) -> None:
                await asyncio.sleep(0)
                raise LookupError("the secret")

            server.role("r").on_request("no")(fail_later if is_async else fail)
            destination = await ready(client)
            with pytest.raises(roletalk.RemoteError) as caught:
                await destination.request("no")
            if expose:
                assert caught.value.text == "LookupError: the secret"
            else:
                assert caught.value.text == "internal error"

    run(main())
    records = [r for r in caplog.records if r.name == "roletalk" and r.levelno == logging.ERROR]
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert "fail_later" if is_async else "fail" in records[0].getMessage()
    assert "LookupError: the secret" in caplog.text
    assert "Traceback" in caplog.text


class HalfDone:
    def __call__(self, ctx: roletalk.RequestContext) -> object:
        return object()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@dataclass
class Broken:
    value: Any


@pytest.mark.parametrize(
    "reply",
    [object(), {"a": object()}, "\ud800", 10**400, nested(100_000), {1.5: object()}],
    ids=["object", "inner object", "surrogate", "huge int", "nested", "bad key"],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_reply_that_cannot_be_encoded(
    reply: Any, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            def answer(ctx: roletalk.RequestContext) -> Any:
                return reply

            async def answer_later(ctx: roletalk.RequestContext) -> Any:
                await asyncio.sleep(0)
                return reply

            server.role("r").on_request("bad")(answer_later if is_async else answer)
            server.role("r").on_request("ok")(lambda ctx: 1)
            destination = await ready(client)
            unit = destination.units[0]
            with pytest.raises(roletalk.RemoteError) as caught:
                await destination.request("bad", timeout=5)
            assert caught.value.text == "internal error"
            assert (await destination.request("ok", unit=unit)).data == 1

    run(main())
    assert "cannot be encoded" in caplog.text


def test_reply_raises_for_what_cannot_be_encoded_and_may_be_called_again() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("bad")
            def bad(ctx: roletalk.RequestContext) -> None:
                with pytest.raises(TypeError):
                    ctx.reply(object())
                ctx.reply("second thought")

            assert (await (await ready(client)).request("bad")).data == "second thought"

    run(main())


def test_unknown_role_inactive_role_unhandled_event() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            role.on_request("known")(lambda ctx: 1)
            destination = await ready(client)
            with pytest.raises(roletalk.RemoteError, match="not handled"):
                await destination.request("unknown")
            # Before the client hears of it: the request is on its way while the role goes.
            role.disable()
            with pytest.raises(roletalk.RemoteError, match="not active"):
                await destination.request("known")
            await eventually(lambda: not destination.ready, what="the role's going")
            with pytest.raises(roletalk.NoUnitsError):
                await destination.request("known")

    run(main())


def test_default_handlers() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            first, second = server.role("first"), server.role("second")

            @first.on_request
            def rest(ctx: roletalk.RequestContext) -> str:
                return f"default {ctx.event}"

            first.on_request("own")(lambda ctx: "own")

            @second.on_request()
            async def rest_of_second(ctx: roletalk.RequestContext) -> str:
                return f"second {ctx.event}"

            destination = await ready(client, "first")
            assert (await destination.request("own")).data == "own"
            assert (await destination.request("other")).data == "default other"
            assert (await destination.request("")).data == "default "
            destination = await ready(client, "second")
            assert (await destination.request("own")).data == "second own"

    run(main())


def test_a_second_handler_replaces_the_first() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            role.on_request("e")(lambda ctx: 1)
            destination = await ready(client)
            assert (await destination.request("e")).data == 1
            role.on_request("e")(lambda ctx: 2)
            assert (await destination.request("e")).data == 2

    run(main())


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
            assert (await destination.request("point", {"x": 1, "y": 2})).decode(Point) == Point(2, 1)
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


# -- who is asked


async def three_servers(
    client: roletalk.Peer, servers: tuple[roletalk.Peer, ...]
) -> roletalk.Destination:
    for server in servers:
        server.role("r").on_request("who")(lambda ctx, name=server.name: name)
        await client.connect((await server.listen()).url)
    destination = client.destination("r")
    await eventually(lambda: len(destination.units) == len(servers), what="all units")
    return destination


def test_units_take_turns() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            who = [(await destination.request("who")).data for _ in range(9)]
            assert sorted(who[:3]) == ["a", "b", "c"]
            assert who == who[:3] * 3

    run(main())


def test_a_named_unit_is_asked() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            for server in servers:
                unit = client.unit(server.id)
                for _ in range(3):
                    reply = await destination.request("who", unit=unit)
                    assert reply.data == server.name
                    assert reply.unit is unit
            outsider = servers[0].units[0]
            with pytest.raises(TypeError):
                await destination.request("who", unit=outsider)
            with pytest.raises(roletalk.NoUnitsError):
                await client.destination("other").request("who", unit=client.units[0])

    run(main())


def test_survey() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            slow = asyncio.Event()

            @servers[0].role("r").on_request("state")
            async def wait(ctx: roletalk.RequestContext) -> str:
                await slow.wait()
                return "slow"

            @servers[1].role("r").on_request("state")
            def refuse(ctx: roletalk.RequestContext) -> None:
                raise roletalk.Reject("not mine")

            servers[2].role("r").on_request("state")(lambda ctx: "quick")
            answers: dict[str, Any] = {}
            async for answer in destination.survey("state", "all", timeout=20):
                assert answer.unit is not None
                answers[answer.unit.name] = answer
                if len(answers) == 2:
                    assert "a" not in answers  # as they come
                    slow.set()
            assert answers["a"].data == "slow"
            assert isinstance(answers["b"], roletalk.RemoteError)
            assert answers["b"].text == "not mine"
            assert answers["c"].data == "quick"

    run(main())


def test_survey_whose_units_time_out_or_go() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):
            destination = await three_servers(client, (a, b))
            never = asyncio.Event()

            async def wait(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            a.role("r").on_request("state")(wait)
            b.role("r").on_request("state")(wait)
            answers = [answer async for answer in destination.survey("state", timeout=0.05)]
            assert [type(answer) for answer in answers] == [roletalk.RequestTimeout] * 2
            assert {answer.unit for answer in answers} == set(destination.units)
            units = set(destination.units)

            async def leave() -> None:
                await eventually(lambda: client.stats()["pending_requests"] == 2)
                for unit in units:
                    await unit.close()

            leaving = asyncio.create_task(leave())
            answers = [answer async for answer in destination.survey("state", timeout=20)]
            await leaving
            assert [type(answer) for answer in answers] == [roletalk.UnitClosedError] * 2
            assert {answer.unit for answer in answers} == units
            never.set()

    run(main())


def test_survey_without_units_or_with_bad_arguments() -> None:
    async def main() -> None:
        async with peers("a", "b", "client") as (a, b, client):
            with pytest.raises(roletalk.NoUnitsError):
                [answer async for answer in client.destination("nobody").survey("e")]
            destination = await three_servers(client, (a, b))
            with pytest.raises(TypeError):
                [answer async for answer in destination.survey("e", object())]
            with pytest.raises(ValueError):
                [answer async for answer in destination.survey("e" * 65_536)]
            with pytest.raises(ValueError):
                [answer async for answer in destination.survey("who", timeout=-1)]

    run(main())


def test_a_survey_that_is_left_early_forgets_its_requests() -> None:
    async def main() -> None:
        async with peers("a", "b", "c", "client") as (*servers, client):
            destination = await three_servers(client, tuple(servers))
            never = asyncio.Event()

            async def wait(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            for server in servers[:2]:
                server.role("r").on_request("state")(wait)
            servers[2].role("r").on_request("state")(lambda ctx: 1)
            survey = destination.survey("state", timeout=None)
            async for answer in survey:
                assert answer.data == 1
                break
            await survey.aclose()
            assert client.stats()["pending_requests"] == 0
            never.set()

    run(main())


# -- timeouts and cancelling


def test_timeout() -> None:
    async def main() -> None:
        async with pair(request_timeout=0.05) as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "late"

            destination = await ready(client)
            for timeout in ({}, {"timeout": 0.02}, {"timeout": 0}):
                with pytest.raises(roletalk.RequestTimeout) as caught:
                    await destination.request("slow", **timeout)
                assert isinstance(caught.value, TimeoutError)
                assert (caught.value.role, caught.value.event) == ("r", "slow")
            assert client.stats()["pending_requests"] == 0
            assert client.stats()["timeouts"] == 3
            waiting = asyncio.create_task(destination.request("slow", timeout=None))
            await eventually(lambda: server.stats()["running_handlers"] == 4)
            release.set()
            assert (await waiting).data == "late"
            await eventually(lambda: client.stats()["late_replies"] == 3, what="late replies")

    run(main())


def test_deadlines_of_many_requests_are_kept_each() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "late"

            destination = await ready(client)
            ended: list[float] = []

            async def ask(timeout: float) -> None:
                try:
                    await destination.request("slow", timeout=timeout)
                except roletalk.RequestTimeout:
                    ended.append(timeout)

            timeouts = [0.3, 0.1, 25.0, 0.2, 0.05]
            tasks = [asyncio.create_task(ask(timeout)) for timeout in timeouts]
            await eventually(lambda: len(ended) == 4, what="four timeouts")
            assert ended == [0.05, 0.1, 0.2, 0.3]
            release.set()
            await asyncio.gather(*tasks)
            assert len(ended) == 4

    run(main())


def test_cancelling_forgets_the_correlation_at_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "late"

            destination = await ready(client)
            task = asyncio.create_task(destination.request("slow"))
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            assert client.stats()["pending_requests"] == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.stats()["pending_requests"] == 0

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(destination.request("slow"), 0.02)
            assert client.stats()["pending_requests"] == 0
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0.02):
                        await destination.request("slow")
                assert not isinstance(caught.value, roletalk.RequestTimeout)
                assert client.stats()["pending_requests"] == 0
            release.set()
            await eventually(lambda: client.stats()["late_replies"] >= 2, what="late replies")

    run(main())


def test_requests_that_nobody_awaits_leak_nothing() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: 1)
            destination = await ready(client)
            for _ in range(100):
                destination.request("e")
                destination.send("e")
                client.destination("nobody").request("e")
            assert client.stats()["pending_requests"] == 0
            await eventually(lambda: server.stats()["requests_received"] == 100)
            await eventually(lambda: client.stats()["late_replies"] == 100)

    run(main())


def test_requests_work_wherever_a_coroutine_does() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            destination = await ready(client)
            replies = await asyncio.gather(*(destination.request("e", i) for i in range(10)))
            assert [reply.data for reply in replies] == list(range(10))
            assert (await asyncio.wait_for(destination.request("e", 1), 10)).data == 1
            assert (await asyncio.shield(destination.request("e", 2))).data == 2
            assert (await asyncio.create_task(destination.request("e", 3), name="n")).data == 3
            assert (await asyncio.ensure_future(destination.request("e", 4))).data == 4
            await asyncio.create_task(destination.send("e", 5))
            await asyncio.wait_for(destination.send("e", 5), 10)
            if sys.version_info >= (3, 11):
                async with asyncio.TaskGroup() as group:
                    first = group.create_task(destination.request("e", 6))
                    group.create_task(destination.send("e", 7))
                assert first.result().data == 6
            call = destination.request("e", 8)
            assert (await call).data == 8
            with pytest.raises(RuntimeError):
                await call

    run(main())


# -- units that go


def test_a_pending_request_fails_with_its_unit() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            started = asyncio.Event()
            ended: list[str] = []

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                started.set()
                try:
                    await ctx_gone.wait()
                finally:
                    ended.append("end" if ctx_gone.is_set() else "cancelled")
                return "dropped"

            ctx_gone = asyncio.Event()
            destination = await ready(client)
            unit = destination.units[0]
            task = asyncio.create_task(destination.request("slow", timeout=None))
            await started.wait()
            await server.units[0].close()
            with pytest.raises(roletalk.UnitClosedError) as caught:
                await task
            assert isinstance(caught.value, ConnectionError)
            assert caught.value.unit is unit
            assert (caught.value.role, caught.value.event) == ("r", "slow")
            # The handler runs to its end; its reply is dropped and counted.
            assert ended == []
            ctx_gone.set()
            await eventually(lambda: ended == ["end"], what="the handler's end")
            await eventually(lambda: "replies to units that are gone" in server.stats()["drops"])

    run(main())


def test_ignore_unit_close_waits_for_the_timeout() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            destination = await ready(client)
            stays = asyncio.create_task(
                destination.request("slow", timeout=0.5, ignore_unit_close=True)
            )
            goes = asyncio.create_task(destination.request("slow", timeout=0.5))
            await eventually(lambda: server.stats()["running_handlers"] == 2)
            await server.units[0].close()
            with pytest.raises(roletalk.UnitClosedError):
                await goes
            assert not stays.done()
            with pytest.raises(roletalk.RequestTimeout):
                await stays
            never.set()

    run(main())


def test_ignore_unit_close_still_ends_with_the_peer() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            destination = await ready(client)
            stays = asyncio.create_task(
                destination.request("slow", timeout=None, ignore_unit_close=True)
            )
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await client.close()
            with pytest.raises(roletalk.UnitClosedError):
                await stays
            never.set()

    run(main())


def test_ignore_unit_close_ends_with_the_peer_after_the_unit_went() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            never = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> None:
                await never.wait()

            await client.connect((await server.listen()).url, reconnect=False)
            destination = client.destination("r")
            stays = asyncio.create_task(
                destination.request("slow", timeout=None, ignore_unit_close=True)
            )
            await eventually(lambda: server.stats()["running_handlers"] == 1)
            await server.units[0].close()
            await eventually(lambda: not client.units)
            await client.close()
            with pytest.raises(roletalk.UnitClosedError):
                await asyncio.wait_for(stays, 5)
            never.set()

    run(main())


# -- many, and large


def test_a_thousand_at_once() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            running: set[int] = set()
            release = asyncio.Event()

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> int:
                running.add(ctx.data)
                if len(running) == 1000:
                    release.set()
                await release.wait()
                return int(ctx.data) * 2

            destination = await ready(client)
            replies = await asyncio.gather(*(destination.request("e", i) for i in range(1000)))
            assert [reply.data for reply in replies] == [2 * i for i in range(1000)]
            assert client.stats()["pending_requests"] == 0
            assert server.stats()["running_handlers"] == 0

    run(main())


@pytest.mark.parametrize(
    "size", [0, 1, 100, 125, 126, 127, 4095, 4096, 65_535, 65_536, 1_000_000, 5_000_000]
)
def test_payload_sizes(size: int) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            payload = bytes(i * 31 & 255 for i in range(min(size, 1009))) * (size // 1009 + 1)
            payload = payload[:size]
            destination = await ready(client)
            assert (await destination.request("echo", payload)).data == payload
            text = "é" * (size // 2)
            assert (await destination.request("echo", text)).data == text

    run(main())


def test_up_to_and_over_max_message_size() -> None:
    async def main() -> None:
        limit = 64 * KIB
        async with pair(max_message_size=limit) as (server, client):
            role = server.role("r")
            role.on_request("length")(lambda ctx: len(ctx.data))
            role.on_request("make")(lambda ctx: b"x" * ctx.data)
            destination = await ready(client)
            unit = destination.units[0]
            room = limit - 64
            assert (await destination.request("length", b"x" * room)).data == room
            assert len((await destination.request("make", room)).data) == room
            for refused in (limit, limit + 1, 4 * limit):
                with pytest.raises(ValueError, match="max_message_size"):
                    await destination.request("length", b"x" * refused)
                with pytest.raises(ValueError, match="max_message_size"):
                    await destination.send("length", b"x" * refused)
                with pytest.raises(roletalk.RemoteError, match="internal error"):
                    await destination.request("make", refused)
            assert client.units == (unit,)
            assert (await destination.request("length", b"abc")).data == 3

    run(main())


def test_a_larger_message_than_the_receiver_takes_closes_with_1009() -> None:
    async def main() -> None:
        async with peers("server", max_message_size=4 * KIB) as (server,), peers("client") as (
            client,
        ):
            server.role("r").on_request("length")(lambda ctx: len(ctx.data))
            await client.connect((await server.listen()).url, reconnect=False)
            destination = client.destination("r")
            link = client.units[0].connections[0]
            assert (await destination.request("length", b"x" * 4000)).data == 4000
            with pytest.raises(roletalk.UnitClosedError):
                await destination.request("length", b"x" * 4097)
            assert link.close_code == 1009

    run(main())


def test_max_handlers() -> None:
    async def main() -> None:
        async with pair(max_handlers=3) as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "done"

            messages: list[Any] = []
            server.role("r").on_message("m")(lambda ctx: messages.append(ctx.data))
            destination = await ready(client)
            running = [asyncio.create_task(destination.request("slow")) for _ in range(3)]
            await eventually(lambda: server.stats()["running_handlers"] == 3)
            with pytest.raises(roletalk.RemoteError, match="too many"):
                await destination.request("slow")
            await destination.send("m", 1)
            await eventually(lambda: server.stats()["drops"], what="a dropped message")
            release.set()
            assert [(await task).data for task in running] == ["done"] * 3
            assert (await destination.request("slow")).data == "done"
            assert messages == []

    run(main())


def test_max_pending() -> None:
    async def main() -> None:
        async with pair(max_pending=3) as (server, client):
            release = asyncio.Event()

            @server.role("r").on_request("slow")
            async def slow(ctx: roletalk.RequestContext) -> str:
                await release.wait()
                return "done"

            destination = await ready(client)
            waiting = [asyncio.ensure_future(destination.request("slow")) for _ in range(3)]
            with pytest.raises(roletalk.WouldBlock):
                await destination.request("slow")
            release.set()
            await asyncio.gather(*waiting)
            assert (await destination.request("slow")).data == "done"

    run(main())


# -- inside handlers


def test_async_handlers_run_in_a_task_of_their_own() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            tasks: list[asyncio.Task[Any] | None] = []

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                tasks.append(asyncio.current_task())
                await asyncio.sleep(0)
                assert asyncio.current_task() is tasks[-1]

            destination = await ready(client)
            await destination.request("e")
            await destination.request("e")
            assert None not in tasks
            assert len(set(tasks)) == 2
            assert asyncio.current_task() not in tasks

    run(main())


def test_sync_handlers_cost_no_task() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            made: list[Any] = []
            tasks: list[Any] = []

            @server.role("r").on_request("e")
            def handler(ctx: roletalk.RequestContext) -> None:
                tasks.append(asyncio.all_tasks())

            destination = await ready(client)
            loop = asyncio.get_running_loop()
            before = asyncio.all_tasks()
            create_task = loop.create_task

            def counting(*args: Any, **kwargs: Any) -> asyncio.Task[Any]:
                made.append(args)
                return create_task(*args, **kwargs)

            loop.create_task = counting  # type: ignore[method-assign]
            try:
                for _ in range(5):
                    await destination.request("e")
            finally:
                del loop.create_task
            assert made == []
            assert all(found <= before for found in tasks)

    # The stock loop: uvloop's cannot be looked at like this.
    run(main(), new_loop=asyncio.new_event_loop)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_context_variables_are_each_handlers_own(is_async: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[str] = []

            def handler(ctx: roletalk.RequestContext) -> None:
                seen.append(variable.get())
                variable.set(ctx.data)
                assert variable.get() == ctx.data

            async def slow_handler(ctx: roletalk.RequestContext) -> None:
                handler(ctx)
                await asyncio.sleep(0)
                assert variable.get() == ctx.data

            server.role("r").on_request("e")(slow_handler if is_async else handler)
            destination = await ready(client)
            variable.set("the caller's")
            await asyncio.gather(*(destination.request("e", str(i)) for i in range(20)))
            assert len(set(seen)) == 1
            assert variable.get() == "the caller's"

    run(main())


def test_a_callers_context_variables_survive_the_await() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: variable.set("handler's") and None)
            destination = await ready(client)

            async def ask(own: str) -> None:
                variable.set(own)
                for _ in range(20):
                    await destination.request("e")
                    assert variable.get() == own

            await asyncio.gather(*(ask(str(i)) for i in range(20)))

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
def test_asyncio_timeout_works_inside_a_handler() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> str:
                try:
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
                except TimeoutError:
                    return "timed out"
                return "?"

            @server.role("r").on_request("at once")
            async def at_once(ctx: roletalk.RequestContext) -> str:
                async with asyncio.timeout(10):
                    return "in time"

            destination = await ready(client)
            assert (await destination.request("e")).data == "timed out"
            assert (await destination.request("at once")).data == "in time"

    run(main())


def test_a_handler_that_is_cancelled_rejects() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)

            with pytest.raises(roletalk.RemoteError):
                await (await ready(client)).request("e")

    run(main())


def test_a_handler_may_ask_in_turn() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            client.role("back").on_request("name")(lambda ctx: "client's answer")
            back = server.destination("back")

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> str:
                return str((await back.request("name", unit=ctx.unit)).data)

            await back.wait_ready(10)
            assert (await (await ready(client)).request("e")).data == "client's answer"

    run(main())


@pytest.mark.parametrize("how", ["sync", "async", "async, later"])
def test_a_handler_that_blocks_the_loop_is_named(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pair(slow_handler=0.05) as (server, client):

            def blocking_sync(ctx: roletalk.RequestContext) -> None:
                time.sleep(0.1)

            async def blocking_async(ctx: roletalk.RequestContext) -> None:
                time.sleep(0.1)  # noqa: ASYNC251  # what the test is about

            async def blocking_later(ctx: roletalk.RequestContext) -> None:
                await asyncio.sleep(0)
                time.sleep(0.1)  # noqa: ASYNC251

            handler = {"sync": blocking_sync, "async": blocking_async}.get(how, blocking_later)
            server.role("r").on_request("e")(handler)
            await (await ready(client)).request("e")

    run(main(), debug=False)
    assert "blocking_" in caplog.text
