"""Handlers of each kind: functions, methods, partial functions, callable objects; and what is none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from typing_extensions import assert_type

import roletalk


@dataclass
class Greeting:
    text: str


def functions(role: roletalk.Role) -> None:
    @role.on_message("seen")
    def seen(ctx: roletalk.Context) -> None:
        assert_type(ctx.kind, Literal["message", "request", "readable", "writable", "reply"])
        assert_type(ctx.unit, roletalk.Unit)
        assert_type(ctx.role, str)
        assert_type(ctx.event, str)
        assert_type(ctx.raw, bytes)
        assert_type(ctx.datatype, roletalk.DataType | int)
        assert_type(ctx.rtt, float | None)
        ctx.reply(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    @role.on_message("seen too")
    async def seen_too(ctx: roletalk.Context) -> None:
        ctx.data = 1

    @role.on_request("hello")
    def hello(ctx: roletalk.RequestContext) -> str:
        return f"Hello, {ctx.data}!"

    @role.on_request("hello too")
    async def hello_too(ctx: roletalk.RequestContext) -> Greeting:
        assert_type(ctx.answered, bool)
        if not ctx.data:
            raise roletalk.Reject("nobody to greet")
        return Greeting(f"Hello, {ctx.data}!")

    @role.on_request("early")
    async def early(ctx: roletalk.RequestContext) -> None:
        assert_type(ctx.reply(Greeting("soon")), None)
        assert_type(ctx.reject("no"), None)

    @role.on_readable("upload")
    async def upload(ctx: roletalk.ReadableContext) -> None:
        async with ctx.accept({"ok": True}) as stream:
            assert_type(stream, roletalk.ReadableStream)

    @role.on_readable("refused")
    def refused(ctx: roletalk.ReadableContext) -> None:
        ctx.reject("not today")

    @role.on_writable("download")
    async def download(ctx: roletalk.WritableContext) -> None:
        stream = await ctx.accept()
        assert_type(stream, roletalk.WritableStream)

    async def decorated_they_stay_what_they_were(ctx: roletalk.RequestContext) -> None:
        assert_type(hello(ctx), str)
        assert_type(await hello_too(ctx), Greeting)
        hello(ctx=ctx)
        hello()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def every_other_event(role: roletalk.Role) -> None:
    @role.on_message
    def message(ctx: roletalk.Context) -> None: ...

    @role.on_message()
    async def message_too(ctx: roletalk.Context) -> None: ...

    @role.on_request
    async def request(ctx: roletalk.RequestContext) -> dict[str, object]:
        return {"event": ctx.event}

    @role.on_request()
    def request_too(ctx: roletalk.RequestContext) -> dict[str, object]:
        return {"event": ctx.event}

    @role.on_readable
    async def readable(ctx: roletalk.ReadableContext) -> None: ...

    @role.on_writable
    async def writable(ctx: roletalk.WritableContext) -> None: ...

    async def decorated_they_stay_what_they_were(ctx: roletalk.RequestContext) -> None:
        assert_type(await request(ctx), dict[str, object])
        assert_type(request_too(ctx), dict[str, object])


class Service:
    """A handler that is told less than there is takes the base class."""

    def __init__(self, role: roletalk.Role) -> None:
        role.on_message("seen")(self.seen)
        role.on_request("hello")(self.hello)
        role.on_request("logged")(self.seen)
        role.on_readable("upload")(self.upload)
        role.on_writable("upload")(self.refused)
        role.on_request("greet")(partial(self.greet, "Hello"))
        role.on_request("called")(Called())
        role.on_request("any")(self.anything)

    def seen(self, ctx: roletalk.Context) -> None: ...

    async def hello(self, ctx: roletalk.RequestContext) -> str:
        return "Hello"

    async def upload(self, ctx: roletalk.ReadableContext) -> None: ...

    def refused(self, ctx: roletalk.RequestContext) -> None:
        ctx.reject()

    async def greet(self, word: str, ctx: roletalk.RequestContext) -> str:
        return f"{word}, {ctx.data}"

    def anything(self, *args: object, **options: object) -> None: ...


class Called:
    def __call__(self, ctx: roletalk.RequestContext) -> list[int]:
        return [1]


def wrong(role: roletalk.Role) -> None:
    @role.on_message("m")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def wants_to_reply(ctx: roletalk.RequestContext) -> None: ...

    @role.on_request("r")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def wants_a_stream(ctx: roletalk.ReadableContext) -> None: ...

    @role.on_readable("u")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def wants_to_write(ctx: roletalk.WritableContext) -> None: ...

    @role.on_request("n")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def wants_nothing() -> None: ...

    @role.on_request("t")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def wants_more(ctx: roletalk.RequestContext, data: object) -> None: ...

    @role.on_request  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def wants_less() -> None: ...

    role.on_request(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    role.on_request("s")("not a function")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def replying_to_a_stream_request_raises(ctx: roletalk.ReadableContext) -> int:
    ctx.reply(1)
