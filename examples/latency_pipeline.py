"""From a tick to an order: the latency of a small trading pipeline, told as a histogram.

Three peers: the feed sends ticks, the strategy decides on each, the exchange takes orders. Ticks
are messages, orders are requests; both are a few packed bytes, and the handlers on the way are
sync, for they wait for nothing.

Look at `serve_strategy`: it is called where the tick is read, and its order leaves in the same turn
of the loop. And at the distance from p50 to p99.9: on a machine that does other things as well it
is the machine's. All three peers share one loop here, so a figure is the sum of what three
processes would do beside each other.

Run it with ``python latency_pipeline.py [--seconds 1] [--rate 2000]``. It pins nothing and warms
nothing up but itself.
"""

import argparse
import asyncio
import math
import struct
import time
from collections.abc import Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any

import roletalk

TICK = struct.Struct("<qid")  # ns when it was sent, number, price
ORDER = struct.Struct("<qidi")  # the tick's time and number, price, quantity
WARM_UP = 200  # ticks that are not counted


class Latencies:
    """Durations in ns; in an HdrHistogram where the package `hdrhistogram` is installed."""

    def __init__(self) -> None:
        self._all: list[int] = []
        self._hdr: Any = None
        with suppress(ImportError):
            self._hdr = import_module("hdrh.histogram").HdrHistogram(100, 60_000_000_000, 3)

    def add(self, ns: int) -> None:
        self._all.append(ns)

    def percentiles(self, *wanted: float) -> list[float]:
        """In µs."""
        if self._hdr is not None:
            for ns in self._all:
                self._hdr.record_value(ns)
            return [self._hdr.get_value_at_percentile(each) / 1e3 for each in wanted]
        ordered = sorted(self._all)
        ranks = [math.ceil(each / 100 * len(ordered)) for each in wanted]
        return [ordered[max(rank, 1) - 1] / 1e3 for rank in ranks]

    def show(self, title: str) -> None:
        p50, p99, p999, most = self.percentiles(50, 99, 99.9, 100)
        print(f"{title}: {len(self._all):,} samples")
        print(f"  p50 {p50:,.0f}   p99 {p99:,.0f}   p99.9 {p999:,.0f}   max {most:,.0f} µs")
        buckets: dict[int, int] = {}
        for ns in self._all:
            power = max(ns // 1000, 1).bit_length() - 1
            buckets[power] = buckets.get(power, 0) + 1
        for power in range(min(buckets), max(buckets) + 1):
            count = buckets.get(power, 0)
            bar = "#" * math.ceil(50 * count / len(self._all))
            print(f"  {1 << power:>7,} to {2 << power:>7,} µs {count:>7,} {bar}".rstrip())


def serve_exchange(peer: roletalk.Peer, tick_to_order: Latencies) -> None:
    @peer.role("exchange").on_request("order")
    def order(ctx: roletalk.RequestContext) -> int:
        at, number, _price, _quantity = ORDER.unpack(ctx.raw)
        if number >= WARM_UP:
            tick_to_order.add(time.perf_counter_ns() - at)
        return int(number)


def serve_strategy(peer: roletalk.Peer, round_trip: Latencies) -> None:
    strategy = peer.role("strategy")
    exchange = peer.destination("exchange")
    waiting: set[asyncio.Task[None]] = set()

    async def acknowledged(answer: Coroutine[Any, Any, roletalk.Context], number: int) -> None:
        reply = await answer
        if number >= WARM_UP and reply.rtt is not None:
            round_trip.add(int(reply.rtt * 1e9))

    @strategy.on_message("tick")
    def tick(ctx: roletalk.Context) -> None:
        at, number, price = TICK.unpack(ctx.raw)
        quantity = 100 if price < 71.0 else 50
        # The request is written at the call; only its answer is waited for, elsewhere.
        answer = exchange.request("order", ORDER.pack(at, number, price, quantity), timeout=5.0)
        task = asyncio.get_running_loop().create_task(acknowledged(answer, number))
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    @strategy.on_request("finish")
    async def finish(ctx: roletalk.RequestContext) -> None:
        await asyncio.gather(*waiting)


async def feed_ticks(peer: roletalk.Peer, seconds: float, rate: float) -> float:
    """Send at that rate, whatever becomes of the ticks; returns how late one was at most, in s."""
    strategy = peer.destination("strategy")
    await strategy.wait_ready(timeout=5)
    latest = 0.0
    began = time.perf_counter()
    for number in range(WARM_UP + round(seconds * rate)):
        due = began + number / rate
        while (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        latest = max(latest, -left)
        tick = TICK.pack(time.perf_counter_ns(), number, 71.0 + math.sin(number))
        strategy.send_nowait("tick", tick)
    return latest


async def main(seconds: float, rate: float) -> None:
    tick_to_order, round_trip = Latencies(), Latencies()
    names = ("exchange", "strategy", "feed")
    exchange, strategy, feed = (roletalk.Peer(name=name) for name in names)
    async with exchange, strategy, feed:
        serve_exchange(exchange, tick_to_order)
        serve_strategy(strategy, round_trip)
        orders = await exchange.listen("127.0.0.1", 0)
        ticks = await strategy.listen("127.0.0.1", 0)
        await strategy.connect(orders.url)
        await feed.connect(ticks.url)

        latest = await feed_ticks(feed, seconds, rate)
        # Behind the last tick, and answered when the last order is.
        await feed.destination("strategy").request("finish", timeout=10.0)

    tick_to_order.show("tick to order, at the exchange")
    round_trip.show("order to acknowledgement, at the strategy")
    print(f"{rate:,.0f} ticks a second; the feed was late by {latest * 1e3:.1f} ms at most")


def start() -> None:
    parser = argparse.ArgumentParser(description="Measure a pipeline of three peers.")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="ticks a second")
    arguments = parser.parse_args()
    program = main(arguments.seconds, arguments.rate)
    try:
        import uvloop
    except ImportError:
        asyncio.run(program)
    else:
        uvloop.run(program)


if __name__ == "__main__":
    start()
