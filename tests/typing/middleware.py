"""Middlewares, for every kind of message or for some."""

from __future__ import annotations

import time

from typing_extensions import assert_type

import roletalk


def all_kinds(peer: roletalk.Peer, role: roletalk.Role) -> None:
    @peer.middleware
    async def timed(ctx: roletalk.Context, call_next: roletalk.CallNext) -> object:
        began = time.monotonic()
        reply = await call_next()
        print(ctx.event, time.monotonic() - began)
        return reply

    @role.middleware()
    async def replaced(ctx: roletalk.Context, call_next: roletalk.CallNext) -> dict[str, object]:
        ctx.data = str(ctx.data)
        return {"reply": await call_next()}

    async def decorated_they_stay_what_they_were(
        ctx: roletalk.Context, call_next: roletalk.CallNext
    ) -> None:
        assert_type(await timed(ctx, call_next), object)
        assert_type(await replaced(ctx, call_next), dict[str, object])

    role.middleware(replaced)
    peer.middleware(Logged())


def some_kinds(peer: roletalk.Peer, role: roletalk.Role, kinds: list[roletalk.Kind]) -> None:
    @role.middleware(kinds=("request",))
    async def refused(ctx: roletalk.RequestContext, call_next: roletalk.CallNext) -> object:
        if ctx.unit.tags.get("zone") != "a":
            raise roletalk.Reject("not for this zone")
        return await call_next()

    @role.middleware(kinds=["readable"])
    async def read(ctx: roletalk.ReadableContext, call_next: roletalk.CallNext) -> object:
        return await call_next()

    @peer.middleware(kinds={"writable"})
    async def written(ctx: roletalk.WritableContext, call_next: roletalk.CallNext) -> object:
        return await call_next()

    @peer.middleware(kinds=("request", "readable", "writable"))
    async def answered(ctx: roletalk.RequestContext, call_next: roletalk.CallNext) -> object:
        return await call_next()

    @peer.middleware(kinds=kinds)
    async def chosen(ctx: roletalk.Context, call_next: roletalk.CallNext) -> object:
        return await call_next()

    role.middleware(refused, kinds=("request",))
    role.middleware(read, kinds=("readable",))
    role.middleware(written, kinds=("writable",))
    role.middleware(chosen, kinds=("message", "request"))


class Logged:
    async def __call__(self, ctx: roletalk.Context, call_next: roletalk.CallNext) -> object:
        return await call_next()


def wrong(role: roletalk.Role) -> None:
    @role.middleware  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def not_async(ctx: roletalk.Context, call_next: roletalk.CallNext) -> object: ...

    @role.middleware  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def wants_less(ctx: roletalk.Context) -> object: ...

    @role.middleware  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def only_requests(
        ctx: roletalk.RequestContext, call_next: roletalk.CallNext
    ) -> object: ...

    @role.middleware(kinds=("message", "request"))  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def no_messages(ctx: roletalk.RequestContext, call_next: roletalk.CallNext) -> object: ...

    @role.middleware(kinds=("requests",))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def no_kind(ctx: roletalk.Context, call_next: roletalk.CallNext) -> object: ...
