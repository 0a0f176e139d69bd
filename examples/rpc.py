"""Remote procedure calls: a gateway asks, three workers answer in turn.

A request names a role and an event, never a machine. It goes to the next unit that serves the role,
and what the handler returns is the reply. A handler says no with `Reject`; the caller gets its text
as a `RemoteError`. Every request has a timeout.

Look at the shares: nobody balances, turns do. And at the two errors, which tell whether the other
side acted: docs/topics/delivery.md has all of them.

Run it with ``python rpc.py``.
"""

import asyncio
from collections import Counter

import roletalk

WORKERS = 3


async def worker(number: int) -> roletalk.Peer:
    peer = roletalk.Peer(name=f"worker-{number}")
    prices = peer.role("pricing")

    @prices.on_request("total")
    async def total(ctx: roletalk.RequestContext) -> float:
        quantity, price = ctx.data
        if quantity <= 0:
            raise roletalk.Reject(f"a quantity is above 0, not {quantity}")
        return float(quantity * price)

    @prices.on_request("slow")
    async def slow(ctx: roletalk.RequestContext) -> None:
        await asyncio.sleep(0.5)

    await peer.listen("127.0.0.1", 0)
    return peer


async def main() -> None:
    workers = [await worker(number + 1) for number in range(WORKERS)]
    async with roletalk.Peer(name="gateway", request_timeout=10.0) as gateway:
        for each in workers:
            await gateway.connect(each.listeners[0].url)
        pricing = gateway.destination("pricing")

        reply = await pricing.request("total", [3, 71.2])
        assert reply.rtt is not None  # a reply has one
        print(f"3 x 71.2 = {reply.data:.2f}, says {reply.unit.name} in {reply.rtt * 1e6:.0f} µs")

        # As many at once as you like: they share connections, system calls and one timer.
        replies: list[roletalk.Context] = await asyncio.gather(
            *(pricing.request("total", [quantity, 10.0]) for quantity in range(1, 301))
        )
        shares = Counter(reply.unit.name for reply in replies)
        print(f"{len(replies)} more, in turn: {dict(sorted(shares.items()))}")

        try:
            await pricing.request("total", [0, 71.2])
        except roletalk.RemoteError as error:
            print(f"refused by {error.unit.name if error.unit else '?'}: {error.text}")
        try:
            await pricing.request("slow", timeout=0.05)
        except roletalk.RequestTimeout as error:
            print(f"unknown whether it ran: {error}")

    for each in workers:
        await each.close()


if __name__ == "__main__":
    asyncio.run(main())
