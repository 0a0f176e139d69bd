"""A peer in a process of its own, told by one JSON argument what to do; says what happens to it, a JSON
line each with its time (``at``, s of the system's monotonic clock).

``listen``: ``[host, port]``.  ``connect``: URLs.  ``callers``: how many tasks send requests, one after the
other; ``pause``: s between those of one.  ``every``: s between requests that wait for no other's answer.
``event``, ``data``, ``timeout``: of these requests.
``options``: of the peer.  It ends on SIGTERM, as a peer that serves does, or when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import uvloop

import roletalk

POLL = 0.005  # s between looks at how many connections there are


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps({"at": time.monotonic(), **what}) + "\n")
    sys.stdout.flush()


class Node:
    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.begun = 0
        self.finished = 0
        self.answered = 0
        self.slowest = 0.0  # s, of those that were answered
        self.longest_gap = 0.0  # s between two answers
        self.failed: Counter[str] = Counter()
        self.slowest_failure: dict[str, float] = {}  # s, by error
        self.answered_at = time.monotonic()
        self.well: bool | None = None
        self.callers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        async with roletalk.Peer(name="node", **self.told.get("options", {})) as peer:
            self._serve(peer)
            for host, port in self.told.get("listen", ()):
                listener = await peer.listen(host, port)
                say(listening=listener.port)
            for url in self.told.get("connect", ()):
                await peer.connect(url, retry=True)
            tasks = [asyncio.create_task(self._watch(peer))]
            calling = peer.destination("work")
            self.callers += [
                asyncio.create_task(self._call(calling)) for _ in range(self.told.get("callers", 0))
            ]
            if "every" in self.told:
                self.callers.append(asyncio.create_task(self._call_steadily(calling)))
            tasks.append(asyncio.create_task(self._end_with_stdin(peer)))
            await peer.serve_forever()
            for task in (*tasks, *self.callers):
                task.cancel()
            say(
                begun=self.begun,
                finished=self.finished,
                answered=self.answered,
                slowest=self.slowest,
                longest_gap=self.longest_gap,
                failed=self.failed,
                slowest_failure=self.slowest_failure,
            )

    def _serve(self, peer: roletalk.Peer) -> None:
        if "listen" not in self.told:
            return
        work = peer.role("work")

        @work.on_request("echo")
        def echo(ctx: roletalk.RequestContext) -> Any:
            return ctx.data

        @work.on_request("sleep")
        async def sleep(ctx: roletalk.RequestContext) -> Any:
            self.begun += 1
            if self.begun == 1:
                say(began="sleep")
            await asyncio.sleep(ctx.data)
            self.finished += 1
            return ctx.data

    async def _watch(self, peer: roletalk.Peer) -> None:
        before, ready_before = -1, -1
        while True:
            now = sum(len(unit.connections) for unit in peer.units)
            if now != before:
                say(connections=now)
                before = now
            units = len(peer.destination("work").units)
            if units != ready_before:
                say(units_ready=units)
                ready_before = units
            await asyncio.sleep(POLL)

    async def _call(self, destination: roletalk.Destination) -> None:
        pause = self.told.get("pause", 0.005)
        while True:
            await self._call_once(destination)
            await asyncio.sleep(pause)

    async def _call_steadily(self, destination: roletalk.Destination) -> None:
        calls: set[asyncio.Task[None]] = set()
        try:
            while True:
                calls.add(call := asyncio.create_task(self._call_once(destination)))
                call.add_done_callback(calls.discard)
                await asyncio.sleep(self.told["every"])
        finally:
            for call in calls:
                call.cancel()

    async def _call_once(self, destination: roletalk.Destination) -> None:
        event, data = self.told.get("event", "echo"), self.told.get("data", 0)
        began = time.monotonic()
        try:
            await destination.request(event, data, timeout=self.told.get("timeout", 60.0))
        except roletalk.RoletalkError as error:
            self._has_failed(type(error).__name__, began)
        else:
            self._was_answered(began)

    def _was_answered(self, began: float) -> None:
        now = time.monotonic()
        self.answered += 1
        self.slowest = max(self.slowest, now - began)
        self.longest_gap = max(self.longest_gap, now - self.answered_at)
        self.answered_at = now
        if self.well is not True:
            self.well = True
            say(well=True)

    def _has_failed(self, error: str, began: float) -> None:
        seconds = time.monotonic() - began
        self.failed[error] += 1
        self.slowest_failure[error] = max(self.slowest_failure.get(error, 0.0), seconds)
        # Each of those that were pending; of the rest the first.
        if self.well is not False or error != "NoUnitsError":
            say(well=False, error=error, began=began)
        self.well = False

    async def _end_with_stdin(self, peer: roletalk.Peer) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(sys.stdin.fileno())
        for caller in self.callers:
            caller.cancel()
        await peer.close()


def main() -> None:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(Node(json.loads(sys.argv[1])).run())
    loop.close()


if __name__ == "__main__":
    main()
