"""Requests that are rejected, on purpose or not."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, ready, run

pytestmark = pytest.mark.usefixtures("on_mesh")

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
    assert ("fail_later" if is_async else "fail") in records[0].getMessage()
    assert "LookupError: the secret" in caplog.text
    assert "Traceback" in caplog.text


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


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


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (roletalk.Reject(404), "404"),
        (roletalk.Reject(ValueError("x")), "x"),
        (roletalk.Reject("a \udcff b"), r"a .* b"),
        (roletalk.Reject("\udcff"), ".+"),
        (FileNotFoundError("a \udcff b"), r"(FileNotFoundError: a .* b|internal error)"),
        (Unprintable(), "(Unprintable.*|internal error)"),
        (roletalk.AuthError("no common key", hint="ours is 'k'"), "AuthError: no common key"),
    ],
    ids=[
        "number",
        "exception",
        "surrogate in text",
        "surrogate",
        "name of a file",
        "unprintable",
        "hint",
    ],
)
def test_whatever_is_raised_has_a_text_that_arrives(
    error: Exception, text: str, is_async: bool
) -> None:
    async def main() -> None:
        async with pair(expose_errors=True) as (server, client):

            def fail(ctx: roletalk.RequestContext) -> None:
                raise error

            async def fail_later(ctx: roletalk.RequestContext) -> None:
                await asyncio.sleep(0)
                raise error

            server.role("r").on_request("no")(fail_later if is_async else fail)
            server.role("r").on_request("ok")(lambda ctx: 1)
            destination = await ready(client)
            unit = destination.units[0]
            with pytest.raises(roletalk.RemoteError) as caught:
                await destination.request("no", timeout=5)
            assert re.fullmatch(text, caught.value.text)
            assert (await destination.request("ok", unit=unit)).data == 1

    run(main())
    error.__traceback__ = None  # it is the parameter, which outlives the frames in it


@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError])
def test_a_sync_handler_that_raises_what_ends_coroutines(error: type[BaseException]) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            def fail(ctx: roletalk.RequestContext) -> None:
                raise error

            server.role("r").on_request("no")(fail)
            server.role("r").on_message("no")(fail)
            server.role("r").on_request("ok")(lambda ctx: 1)
            destination = await ready(client)
            unit = destination.units[0]
            await destination.send("no")
            with pytest.raises(roletalk.RemoteError):
                await destination.request("no", timeout=5)
            assert (await destination.request("ok", unit=unit)).data == 1

    run(main())
