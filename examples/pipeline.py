"""A pipeline: orders are parsed, priced and booked, each by peers of their own.

Every stage is a role, and has the next stage's destination. The slow stage is served twice; whoever
sends to it does not know. Each stage awaits its `send`, so one that is behind holds up those before
it instead of growing a queue: back-pressure goes from stage to stage (docs/topics/backpressure.md).

Look at `pricer`: it takes a message, waits for something, sends on. Add a third one while it runs,
and it gets its share at once.

Run it with ``python pipeline.py``.
"""

import asyncio
from collections import Counter

import roletalk

PRICES = {"VOD.L": 71, "BP.L": 488, "HSBA.L": 921}
LINES = [f"{symbol} {quantity}" for quantity in range(1, 21) for symbol in PRICES]


def serve_parser(peer: roletalk.Peer) -> None:
    priced = peer.destination("price")

    @peer.role("parse").on_message("line")
    async def parse(ctx: roletalk.Context) -> None:
        symbol, quantity = ctx.data.split()
        await priced.send("order", {"symbol": symbol, "quantity": int(quantity)})


def serve_pricer(peer: roletalk.Peer) -> None:
    books = peer.destination("book")

    @peer.role("price").on_message("order")
    async def price(ctx: roletalk.Context) -> None:
        await asyncio.sleep(0.01)  # a database, say; other orders go on meanwhile
        cost = ctx.data["quantity"] * PRICES[ctx.data["symbol"]]
        await books.send("cost", {"by": peer.name, "cost": cost, **ctx.data})


def serve_book(peer: roletalk.Peer, expected: int) -> "asyncio.Future[Counter[str]]":
    """The future has what was booked, by symbol and by pricer, once all `expected` orders are there."""
    booked: Counter[str] = Counter()
    done: asyncio.Future[Counter[str]] = asyncio.get_running_loop().create_future()

    @peer.role("book").on_message("cost")
    def cost(ctx: roletalk.Context) -> None:
        booked[ctx.data["symbol"]] += ctx.data["cost"]
        booked[ctx.data["by"]] += 1
        booked["orders"] += 1
        if booked["orders"] == expected:
            done.set_result(booked)

    return done


async def main() -> None:
    names = ("parser", "pricer-1", "pricer-2", "book")
    stages = {name: roletalk.Peer(name=name) for name in names}
    serve_parser(stages["parser"])
    serve_pricer(stages["pricer-1"])
    serve_pricer(stages["pricer-2"])
    booked = serve_book(stages["book"], expected=len(LINES))

    # Who dials whom does not matter.  Here each stage listens, and the one before dials it.
    urls = {name: (await peer.listen("127.0.0.1", 0)).url for name, peer in stages.items()}
    for pricer in ("pricer-1", "pricer-2"):
        await stages["parser"].connect(urls[pricer])
        await stages[pricer].connect(urls["book"])

    async with roletalk.Peer(name="source") as source:
        await source.connect(urls["parser"])
        lines = source.destination("parse")
        for line in LINES:
            await lines.send("line", line)

        result = await asyncio.wait_for(booked, 10)
        print(f"{result['orders']} orders booked")
        for symbol in PRICES:
            print(f"  {symbol:<7} {result[symbol]:>9,}")
        print(", ".join(f"{name} did {result[name]}" for name in ("pricer-1", "pricer-2")))

    for peer in stages.values():
        await peer.close()


if __name__ == "__main__":
    asyncio.run(main())
