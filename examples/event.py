"""Events: something happened, and one of those who keep track should know.

A message wants no answer, so it costs no waiting: thousands of them leave in one write. ``await
send()`` waits only while the connection is full, which makes a fast producer as fast as its
consumer. `send_nowait` never waits, and raises `WouldBlock` instead: for what may be dropped, as
the samples of a gauge.

Look at the end of `main`: messages are not acknowledged, and a request behind them tells that all
have been handled, for order is kept on one connection.

Run it with ``python event.py``.
"""

import asyncio
import time
from collections import Counter

import roletalk

EVENTS = 20_000


def serve_audit(peer: roletalk.Peer) -> None:
    """Count what happened to orders; answer how often."""
    audit = peer.role("audit")
    seen: Counter[str] = Counter()
    gauges: list[float] = []

    @audit.on_message("order")
    def order(ctx: roletalk.Context) -> None:  # sync: nothing is awaited, so nothing is scheduled
        seen[ctx.data["what"]] += 1

    @audit.on_message("load")
    def load(ctx: roletalk.Context) -> None:
        gauges.append(ctx.data)

    @audit.on_request("summary")
    def summary(ctx: roletalk.RequestContext) -> dict[str, int]:
        return {**seen, "samples of the load": len(gauges)}


async def main() -> None:
    async with roletalk.Peer(name="audit") as keeper, roletalk.Peer(name="shop") as shop:
        serve_audit(keeper)
        listener = await keeper.listen("127.0.0.1", 0)
        await shop.connect(listener.url)
        audit = shop.destination("audit")

        began = time.perf_counter()
        for number in range(EVENTS):
            what = "cancelled" if number % 10 == 0 else "placed"
            await audit.send("order", {"number": number, "what": what})
        sent = time.perf_counter() - began

        dropped = 0
        for sample in range(1000):
            try:
                audit.send_nowait("load", sample / 1000)
            except roletalk.WouldBlock:
                dropped += 1  # the next sample is as good

        answer = await audit.request("summary", timeout=10.0)
        took = time.perf_counter() - began
        print(f"{EVENTS:,} events sent in {sent:.2f} s, all of them handled after {took:.2f} s")
        for what, count in answer.decode(dict[str, int]).items():
            print(f"  {what:<20} {count:>6,}")
        print(f"samples dropped: {dropped}")


if __name__ == "__main__":
    asyncio.run(main())
