"""Middleware around handlers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import roletalk
from roletalk.middleware import KINDS, CallNext, Middleware, wrap
from tests.helpers import eventually, pair, run

pytestmark = pytest.mark.usefixtures("on_mesh")


def noting(seen: list[str], name: str) -> Any:
    async def middleware(ctx: roletalk.Context, call_next: CallNext) -> Any:
        seen.append(f"{name} in")
        result = await call_next()
        seen.append(f"{name} out")
        return result

    return middleware


# -- alone


def test_none_leaves_the_function_itself() -> None:
    def handler(ctx: object) -> None: ...

    assert wrap(handler, [], "request") is handler
    narrow = Middleware.make(noting([], "m"), ["message"])
    assert wrap(handler, [narrow], "request") is handler
    assert wrap(handler, [narrow], "message") is not handler


def test_what_can_be_a_middleware() -> None:
    assert Middleware.make(noting([], "m"), None).kinds == KINDS
    with pytest.raises(TypeError):
        Middleware.make("no function", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stream"):
        Middleware.make(noting([], "m"), ["stream"])  # type: ignore[list-item]


# -- around handlers


def test_without_any_the_handler_itself_is_called() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            here: list[Any] = []

            @server.role("r").on_request("e")
            def handler(ctx: roletalk.RequestContext) -> None:
                here.append(asyncio.current_task())

            assert server.role("r").handlers[0].function is handler
            await client.destination("r").wait_ready(10)
            await client.destination("r").request("e")
            assert here == [None]  # no task, so nothing async stands around it

    run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_order(is_async: bool) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[str] = []
            role = server.role("r")
            server.middleware(noting(seen, "peer 1"))
            role.middleware(noting(seen, "role 1"))

            def handler(ctx: roletalk.RequestContext) -> str:
                seen.append("handler")
                return "done"

            async def async_handler(ctx: roletalk.RequestContext) -> str:
                await asyncio.sleep(0)
                return handler(ctx)

            role.on_request("e")(async_handler if is_async else handler)
            # Those that are added later count for the handlers that are there, too.
            server.middleware(noting(seen, "peer 2"))
            role.middleware(noting(seen, "role 2"))
            destination = client.destination("r")
            await destination.wait_ready(10)
            assert (await destination.request("e")).data == "done"
            names = ["peer 1", "peer 2", "role 1", "role 2"]
            ins, outs = [f"{n} in" for n in names], [f"{n} out" for n in reversed(names)]
            assert seen == [*ins, "handler", *outs]

    run(main())


def test_data_and_reply_can_be_replaced() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            got: list[Any] = []

            @role.middleware
            async def change(ctx: Any, call_next: CallNext) -> Any:
                ctx.data = {"was": ctx.data}
                return {"reply": await call_next()}

            @role.on_request("e")
            def handler(ctx: roletalk.RequestContext) -> Any:
                got.append(ctx.data)
                return [ctx.data, 1]

            role.on_message("m")(lambda ctx: got.append(ctx.data))
            destination = client.destination("r")
            await destination.wait_ready(10)
            reply = await destination.request("e", "x")
            assert reply.data == {"reply": [{"was": "x"}, 1]}
            await destination.send("m", 5)
            await eventually(lambda: len(got) == 2)
            assert got == [{"was": "x"}, {"was": 5}]

    run(main())


def test_kinds() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[str] = []
            role = server.role("r")
            server.middleware(noting(seen, "request"), kinds=("request",))
            role.middleware(kinds=["message"])(noting(seen, "message"))
            role.middleware(noting(seen, "none"), kinds=())
            role.on_request("e")(lambda ctx: None)
            role.on_message("e")(lambda ctx: seen.append("handled"))
            destination = client.destination("r")
            await destination.wait_ready(10)
            await destination.request("e")
            assert seen == ["request in", "request out"]
            seen.clear()
            await destination.send("e")
            await eventually(lambda: len(seen) == 3)
            assert seen == ["message in", "handled", "message out"]

    run(main())


def test_bad_arguments() -> None:
    async def main() -> None:
        async with pair() as (server, _):
            for owner in (server, server.role("r")):
                with pytest.raises(TypeError):
                    owner.middleware("no function")  # type: ignore[call-overload]
                with pytest.raises(ValueError):
                    owner.middleware(noting([], "m"), kinds=["reply"])  # type: ignore[list-item]

    run(main())


def test_a_middleware_answers_in_place_of_the_handler() -> None:
    async def main() -> None:
        async with pair(expose_errors=True) as (server, client):
            handled: list[object] = []
            role = server.role("r")

            @role.middleware
            async def gate(ctx: roletalk.Context, call_next: CallNext) -> Any:
                if ctx.data == "cached":
                    return "from the cache"
                if ctx.data == "forbidden":
                    raise roletalk.Reject("not you")
                if ctx.data == "broken":
                    raise KeyError("middleware")
                try:
                    return await call_next()
                except LookupError as error:
                    return f"caught {error!r}"

            @role.on_request("e")
            def handler(ctx: roletalk.RequestContext) -> Any:
                handled.append(ctx.data)
                if ctx.data == "fail":
                    raise LookupError("handler")
                return "handled"

            destination = client.destination("r")
            await destination.wait_ready(10)
            assert (await destination.request("e", "cached")).data == "from the cache"
            with pytest.raises(roletalk.RemoteError, match=r": not you$"):
                await destination.request("e", "forbidden")
            with pytest.raises(roletalk.RemoteError, match="KeyError"):
                await destination.request("e", "broken")
            assert handled == []
            assert (await destination.request("e", "fail")).data == "caught LookupError('handler')"
            assert (await destination.request("e", 1)).data == "handled"
            assert handled == ["fail", 1]

    run(main())


def test_an_early_reply_passes_middlewares_by() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")
            after: list[object] = []

            @role.middleware
            async def change(ctx: roletalk.Context, call_next: CallNext) -> Any:
                after.append(await call_next())
                return "replaced"

            @role.on_request("e")
            async def handler(ctx: roletalk.RequestContext) -> str:
                ctx.reply("early")
                await asyncio.sleep(0)
                return "ignored"

            destination = client.destination("r")
            await destination.wait_ready(10)
            assert (await destination.request("e")).data == "early"
            await eventually(lambda: after)
            assert after == ["ignored"]

    run(main())


def test_middlewares_are_around_default_handlers_and_of_their_role_only() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            seen: list[str] = []
            server.role("a").middleware(noting(seen, "a"))
            for name in ("a", "b"):
                server.role(name).on_request(lambda ctx: ctx.event)
                await client.destination(name).wait_ready(10)
            assert (await client.destination("b").request("x")).data == "x"
            assert seen == []
            assert (await client.destination("a").request("y")).data == "y"
            assert seen == ["a in", "a out"]

    run(main())
