"""A worker is killed in the middle of traffic and comes back: what is lost, and how it heals."""

import asyncio
import itertools
import time
from collections import Counter

import roletalk

from .patterns import survey
from .processes import Worker
from .report import Report, rate

CLIENTS = 300  # requests in flight at any time
REQUEST_SECONDS = 10.0
BEFORE_SECONDS = 1.5  # of traffic with all workers
DOWN_SECONDS = 1.0  # from the kill to the restart
AFTER_SECONDS = 2.0  # of traffic in which the shares are counted
HEAL_SECONDS = 30.0  # the reconnecting must not take longer
SHARE_TOLERANCE = 0.2  # of an even share: answers to both ends of the counted time are in flight


class Traffic:
    """Many clients that ask all the time, each request with a number of its own."""

    def __init__(self, square: roletalk.Destination) -> None:
        self.sent = 0
        self.wrong = 0
        self.answered: Counter[roletalk.Unit] = Counter()
        self.failed: Counter[str] = Counter()
        self._square = square
        self._numbers = itertools.count(1)
        self._began = time.perf_counter()
        self._running = True
        self._clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]

    async def _client(self) -> None:
        while self._running:
            number = next(self._numbers)
            self.sent += 1
            try:
                reply = await self._square.request("of", number, timeout=REQUEST_SECONDS)
            except roletalk.RoletalkError as error:
                self.failed[type(error).__name__] += 1
                await asyncio.sleep(0.01)  # a destination without units fails without waiting
            else:
                self.answered[reply.unit] += 1
                self.wrong += reply.data != number * number

    async def stop(self) -> float:
        """Let the requests in flight end.  Returns the seconds since the start."""
        self._running = False
        await asyncio.gather(*self._clients)
        return time.perf_counter() - self._began


async def show_failover(report: Report, peer: roletalk.Peer, workers: list[Worker]) -> None:
    """Kill the last worker under load, start it again, and account for every request."""
    victim = workers[-1]
    square = peer.destination("square")
    before_units = square.units
    returned: asyncio.Future[roletalk.Unit] = asyncio.get_running_loop().create_future()

    @square.on_unit
    def unit_came(unit: roletalk.Unit) -> None:
        if unit.name == victim.name and not returned.done():
            returned.set_result(unit)

    report.section("failover")
    traffic = Traffic(square)
    await asyncio.sleep(BEFORE_SECONDS)

    report.line(f"SIGKILL to {victim.name}, pid {victim.pid}, with {CLIENTS} requests in flight")
    killed_at = time.perf_counter()
    await victim.kill()
    await asyncio.sleep(DOWN_SECONDS)
    await victim.start()
    started_at = time.perf_counter()
    report.line(f"started again on the same port, pid {victim.pid}")

    unit = await asyncio.wait_for(returned, HEAL_SECONDS)
    healed_at = time.perf_counter()
    at_return = traffic.answered.copy()
    await asyncio.sleep(AFTER_SECONDS)
    after = traffic.answered - at_return
    seconds = await traffic.stop()

    answered = traffic.answered.total()
    failed = traffic.failed.total()
    names = ", ".join(f"{name} {number}" for name, number in traffic.failed.items()) or "none"
    report.line(
        f"{traffic.sent:,} requests in {seconds:.1f} s: {rate(traffic.sent, seconds, 'req')}"
    )
    report.line(f"answered {answered:,}, failed {failed:,} ({names})")
    report.line(
        f"healed {healed_at - killed_at:.2f} s after the kill, "
        f"{healed_at - started_at:.2f} s after the worker listened again"
    )
    report.check(answered > 0 and not traffic.wrong, "every answer is the right one")
    report.check(traffic.sent == answered + failed, "none lost: each was answered or failed")
    report.check(
        traffic.failed.keys() <= {"UnitClosedError"}, "the failed ones say why: UnitClosedError"
    )
    await _check_handled(report, peer, traffic)

    share = after[unit] / after.total() * len(workers) if after else 0.0
    for one in sorted(after, key=lambda one: one.name):
        report.line(f"{one.name}  {after[one]:>9,} answers in {AFTER_SECONDS:.0f} s after healing")
    report.check(
        unit not in before_units and abs(share - 1) <= SHARE_TOLERANCE,
        f"round robin healed: {victim.name} gets {share:.0%} of an even share",
    )


async def _check_handled(report: Report, peer: roletalk.Peer, traffic: Traffic) -> None:
    """Every living worker handled as many requests as it answered: none ran twice."""
    answers = await survey(peer)
    even = all(
        answer.served.get("square", 0) == traffic.answered[unit] for unit, answer in answers.items()
    )
    report.check(even, "none doubled: workers handled as many as they answered")
