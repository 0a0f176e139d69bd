"""Keeping requests in flight: the same loop for every contender whose requests can be awaited."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, perf_counter_ns
from typing import Any

from .measured import Result, result

ARRIVAL_SECONDS = 15.0

Call = Callable[[bytes], Awaitable[Any]]


async def keep_calling(
    calls: Sequence[Call], payload: bytes, seconds: float, *, timed: bool = False
) -> Result:
    """One request after the other with each of `calls`, for so many seconds.

    Their replies have been checked once before.  With `timed`, notes how long each took.
    """
    running = True
    latencies: list[int] = []

    def stop() -> None:
        nonlocal running
        running = False

    async def repeat(call: Call) -> int:
        count = 0
        while running:
            await call(payload)
            count += 1
        return count

    async def repeat_timed(call: Call) -> int:
        count = 0
        while running:
            sent_at = perf_counter_ns()
            await call(payload)
            latencies.append(perf_counter_ns() - sent_at)
            count += 1
        return count

    began = perf_counter()
    asyncio.get_running_loop().call_later(seconds, stop)
    counts = await asyncio.gather(*map(repeat_timed if timed else repeat, calls))
    return result(sum(counts), perf_counter() - began, latencies)


async def check_echo(call: Call, payload: bytes) -> None:
    """Raises `RuntimeError` unless the reply is what was sent."""
    if bytes(await call(payload)) != payload:
        raise RuntimeError("the echo is not what was sent")


async def counted(count: Callable[[], Awaitable[int]], expected: int) -> int:
    """The count that comes, as soon as it is `expected` or after a time in which it should be."""
    until = perf_counter() + ARRIVAL_SECONDS
    while True:
        number = await count()
        if number >= expected or perf_counter() > until:
            return number
        await asyncio.sleep(0.001)


async def gathered(number: Callable[[], int], expected: int) -> None:
    """Wait until so many have come.  Raises `RuntimeError` when it takes too long."""
    until = perf_counter() + ARRIVAL_SECONDS
    while number() < expected:
        if perf_counter() > until:
            raise RuntimeError(f"{number()} came, and not {expected}")
        await asyncio.sleep(0.01)
