"""`Context.decode`: what is asked for is what is got."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
from typing_extensions import assert_type

import roletalk


class Order(msgspec.Struct):
    id: int


@dataclass
class Point:
    x: float
    y: float


class Record(TypedDict):
    name: str


class Pair(NamedTuple):
    left: int
    right: int


Answer = int | str


def classes(ctx: roletalk.Context) -> None:
    assert_type(ctx.data, Any)
    assert_type(ctx.decode(Order), Order)
    assert_type(ctx.decode(Point), Point)
    assert_type(ctx.decode(Record), Record)
    assert_type(ctx.decode(Pair), Pair)
    assert_type(ctx.decode(int), int)
    assert_type(ctx.decode(bytes), bytes)
    assert_type(ctx.decode(datetime.datetime), datetime.datetime)
    assert_type(ctx.decode(UUID), UUID)


def generics(ctx: roletalk.Context) -> None:
    assert_type(ctx.decode(list[int]), list[int])
    assert_type(ctx.decode(dict[str, Order]), dict[str, Order])
    assert_type(ctx.decode(tuple[int, ...]), tuple[int, ...])
    assert_type(ctx.decode(set[str]), set[str])
    assert_type(ctx.decode(list[Record | None]), list[Record | None])


def other_forms(ctx: roletalk.Context) -> None:
    assert_type(ctx.decode(None), None)
    assert_type(ctx.decode(int | str), int | str)
    assert_type(ctx.decode(Order | None), Order | None)
    assert_type(ctx.decode(Answer), int | str)
    assert_type(ctx.decode(Literal["a", "b"]), Literal["a", "b"])
    assert_type(ctx.decode(Annotated[int, msgspec.Meta(gt=0)]), int)


async def replies(to: roletalk.Destination) -> float:
    point = (await to.request("where")).decode(Point)
    assert_type(point, Point)
    async with to.readable("download") as stream:
        assert_type(stream.reply.decode(Order), Order)
    return point.x


def anything_can_be_sent(to: roletalk.Destination, data: object, rows: Mapping[str, Any]) -> None:
    """What msgspec encodes cannot be told by types: the await says what could not be sent."""
    to.send_nowait("a", data)
    to.send_nowait("a", rows)
    to.send_nowait("a", Point(1, 2))
    to.send_nowait("a", [Order(1)])
    to.send_nowait("a", Pair(1, 2))


def wrong(ctx: roletalk.Context) -> None:
    ctx.decode(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.decode(Order(1))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.decode()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    text: str = ctx.decode(list[int])  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
