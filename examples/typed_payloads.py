"""Typed payloads: what is sent is a struct, and what is received is checked to be one.

A `msgspec.Struct` (or a dataclass) goes out as JSON. ``ctx.decode(Type)`` parses what came straight
into that type, and checks all of it: fields, ranges, and which of several structs it is. What does
not fit is rejected with a text that says where; the handler's code below it never sees a bad order.

Look at the three rejects, none of which the handler had to write.

Run it with ``python typed_payloads.py``.
"""

import asyncio
from datetime import datetime, timezone
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

import roletalk

Quantity = Annotated[int, msgspec.Meta(gt=0, le=10_000)]


class Limit(msgspec.Struct, tag="limit"):
    price: Decimal


class Market(msgspec.Struct, tag="market"):
    pass


class Order(msgspec.Struct, forbid_unknown_fields=True):
    symbol: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]+\.[A-Z]$")]
    side: Literal["buy", "sell"]
    quantity: Quantity
    kind: Limit | Market = msgspec.field(default_factory=Market)


class Fill(msgspec.Struct):
    order: Order
    price: Decimal
    at: datetime


def serve_exchange(peer: roletalk.Peer) -> None:
    @peer.role("exchange").on_request("place")
    def place(ctx: roletalk.RequestContext) -> Fill:
        order = ctx.decode(Order)
        match order.kind:
            case Limit(price=price):
                return Fill(order, price, datetime.now(timezone.utc))
            case Market():
                return Fill(order, Decimal("71.2"), datetime.now(timezone.utc))


async def main() -> None:
    async with roletalk.Peer(name="exchange") as venue, roletalk.Peer(name="desk") as desk:
        serve_exchange(venue)
        listener = await venue.listen("127.0.0.1", 0)
        await desk.connect(listener.url)
        exchange = desk.destination("exchange")

        limit = Limit(Decimal("488.50"))
        for order in (Order("VOD.L", "buy", 300), Order("BP.L", "sell", 10, limit)):
            fill = (await exchange.request("place", order)).decode(Fill)
            print(f"{fill.order.side} {fill.order.quantity} {fill.order.symbol} at {fill.price}")

        for bad in (
            {"symbol": "VOD.L", "side": "buy", "quantity": 0},
            {"symbol": "VOD.L", "side": "hold", "quantity": 300},
            {"symbol": "VOD.L", "side": "buy", "quantity": 300, "kind": {"type": "stop"}},
        ):
            try:
                await exchange.request("place", bad)
            except roletalk.RemoteError as error:
                print("refused:", error.text)


if __name__ == "__main__":
    asyncio.run(main())
