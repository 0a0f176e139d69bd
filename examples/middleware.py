"""Middleware: what belongs around every handler is written once.

A middleware is an async function around the rest: it may look at the context, replace its data or
the reply, reject, or not go on at all. A peer's come first, then the role's, in the order in which
they were added. Kinds that none is for cost nothing.

Look at `timed`, around every request of the peer, and at `only_traders`, around one role. It goes
by a tag that the caller's peer has set itself: which is worth as much as the key that the peer had
to prove. Give each group a key of its own where that is not enough (docs/security.md).

Run it with ``python middleware.py``.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import roletalk

CallNext = Callable[[], Awaitable[Any]]


def add_timing(peer: roletalk.Peer) -> dict[str, list[float]]:
    """Seconds of each request, by role and event, rejected ones too."""
    times: dict[str, list[float]] = defaultdict(list)

    @peer.middleware(kinds=["request"])
    async def timed(ctx: roletalk.Context, call_next: CallNext) -> Any:
        began = time.perf_counter()
        try:
            return await call_next()
        finally:
            times[f"{ctx.role}/{ctx.event}"].append(time.perf_counter() - began)

    return times


def serve_orders(peer: roletalk.Peer) -> None:
    orders = peer.role("orders")

    @orders.middleware
    async def only_traders(ctx: roletalk.Context, call_next: CallNext) -> Any:
        if ctx.unit.tags.get("team") != "trading":
            raise roletalk.Reject(f"{ctx.unit.name} is not of the trading team")
        return await call_next()

    @orders.on_request("place")
    async def place(ctx: roletalk.RequestContext) -> str:
        await asyncio.sleep(0.01)
        return f"placed {ctx.data}"

    @peer.role("prices").on_request("last")
    def last(ctx: roletalk.RequestContext) -> float:
        return 71.2


async def main() -> None:
    async with roletalk.Peer(name="exchange") as exchange:
        times = add_timing(exchange)
        serve_orders(exchange)
        listener = await exchange.listen("127.0.0.1", 0)
        for name, team in (("desk-7", "trading"), ("intern-2", "marketing")):
            async with roletalk.Peer(name=name, tags={"team": team}) as peer:
                await peer.connect(listener.url)
                price = (await peer.destination("prices").request("last")).data
                print(f"{name} ({team}) sees {price}")
                try:
                    reply = await peer.destination("orders").request("place", "300 VOD.L")
                    print(f"{name}: {reply.data}")
                except roletalk.RemoteError as error:
                    print(f"refused: {error.text}")

        for what, seconds in sorted(times.items()):
            print(f"  {what:<13} {len(seconds)} requests, {max(seconds) * 1e3:6.2f} ms at most")


if __name__ == "__main__":
    asyncio.run(main())
