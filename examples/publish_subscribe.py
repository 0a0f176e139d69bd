"""Publish and subscribe: one feed of prices, and whoever is interested in a market.

A topic is a role. Who wants it serves it, and a handler gets what is published; who wants it no
more disables the role. The publisher keeps no list: it broadcasts to the destination of that name,
which knows who serves it now.

Look at `subscriber`, which subscribes by making a role, and at the last quote: the dashboard has
left by then, and nobody had to tell the feed.

Run it with ``python publish_subscribe.py``.
"""

import asyncio

import roletalk

QUOTES = [("VOD.L", 71.2), ("BP.L", 488.5), ("VOD.L", 71.3)]


async def subscriber(name: str, topic: str, feed_url: str) -> tuple[roletalk.Peer, roletalk.Role]:
    """A peer of its own, connected to the feed; in life it is a process of its own."""
    peer = roletalk.Peer(name=name)
    role = peer.role(topic)

    @role.on_message("quote")
    def quote(ctx: roletalk.Context) -> None:
        symbol, price = ctx.data
        print(f"  {name:<9} {symbol:<6} {price}")

    await peer.connect(feed_url)
    return peer, role


async def main() -> None:
    async with roletalk.Peer(name="feed") as feed, feed.listen("127.0.0.1", 0) as listener:
        london = feed.destination("prices.london")
        dashboard, prices = await subscriber("dashboard", "prices.london", listener.url)
        risk, _ = await subscriber("risk", "prices.london", listener.url)
        tokyo, _ = await subscriber("tokyo", "prices.tokyo", listener.url)
        async with dashboard, risk, tokyo:
            while len(feed.units) < 3:
                await asyncio.sleep(0.01)

            for number, quote in enumerate(QUOTES, 1):
                if number == len(QUOTES):
                    prices.disable()  # the dashboard unsubscribes
                    while len(london.units) > 1:
                        await asyncio.sleep(0.01)
                reached = london.broadcast("quote", quote)
                print(f"quote {number} to", ", ".join(sorted(unit.name for unit in reached)))
                await asyncio.sleep(0.05)  # only so that the lines below stand where they belong


if __name__ == "__main__":
    asyncio.run(main())
