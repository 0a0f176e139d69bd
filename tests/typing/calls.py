"""Messages, requests, broadcasts and surveys, and where a call may be passed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from typing_extensions import assert_type

import roletalk


async def awaited(to: roletalk.Destination, unit: roletalk.Unit) -> None:
    reply = await to.request("hello", "Bob", timeout=1.0)
    assert_type(reply, roletalk.Context)
    assert_type(reply.rtt, float | None)
    assert_type(reply.unit.name, str)
    assert_type(await to.request("hello", timeout=None, unit=unit), roletalk.Context)
    assert_type(await to.request("hello", ignore_unit_close=True), roletalk.Context)

    assert_type(await to.send("seen", {"at": 1}), None)
    assert_type(await to.send("seen", unit=unit), None)
    assert_type(to.send_nowait("seen", None, unit=unit), None)
    assert_type(to.broadcast("seen", b"all"), tuple[roletalk.Unit, ...])

    assert_type(to.ready, bool)
    assert_type(to.units, tuple[roletalk.Unit, ...])
    assert_type(await to.wait_ready(timeout=5), None)
    assert_type(to.peer, roletalk.Peer)


async def surveyed(to: roletalk.Destination) -> list[str]:
    heard: list[str] = []
    assert_type(to.survey("hello"), AsyncGenerator[roletalk.Context | roletalk.RoletalkError, None])
    async for answer in to.survey("hello", "all", timeout=2):
        assert_type(answer, roletalk.Context | roletalk.RoletalkError)
        if isinstance(answer, roletalk.RoletalkError):
            assert_type(answer, roletalk.RoletalkError)
            assert_type(answer.unit, roletalk.Unit | None)
        else:
            assert_type(answer, roletalk.Context)
            heard.append(answer.unit.name)
    async with aclosing(to.survey("hello")) as answers:
        assert_type(await anext(answers), roletalk.Context | roletalk.RoletalkError)
    return heard


async def passed_on(to: roletalk.Destination) -> None:
    task = asyncio.create_task(to.request("hello"))
    assert_type(task, asyncio.Task[roletalk.Context])
    assert_type(await task, roletalk.Context)
    assert_type(asyncio.create_task(to.send("seen")), asyncio.Task[None])
    assert_type(
        await asyncio.gather(to.request("one"), to.request("two")),
        tuple[roletalk.Context, roletalk.Context],
    )
    assert_type(await asyncio.wait_for(to.request("hello"), 1), roletalk.Context)
    assert_type(await asyncio.shield(to.request("hello")), roletalk.Context)
    later: Coroutine[Any, Any, roletalk.Context] = to.request("hello")
    assert_type(await later, roletalk.Context)


async def concurrent(to: roletalk.Destination, names: list[str]) -> list[object]:
    replies = await asyncio.gather(*(to.request("hello", name) for name in names))
    assert_type(replies, list[roletalk.Context])
    return [reply.data for reply in replies]


async def wrong(to: roletalk.Destination) -> None:
    await to.request(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await to.request()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await to.request("hello", "Bob", 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await to.request("hello", timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await to.request("hello", unit="name")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await to.send(b"seen")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await to.send_nowait("seen")  # type: ignore[func-returns-value, misc]  # pyright: ignore[reportGeneralTypeIssues]
    to.broadcast("seen", unit=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    print(to.request("hello").data)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
    to.request("forgotten")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    to.send("forgotten")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    for _ in to.survey("hello"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
