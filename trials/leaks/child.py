"""The measured process: ``python -m trials.leaks.child ACTION COUNT`` prints what is left, as JSON.

COUNT actions in `ROUNDS` rounds.  After each, everything that can be counted is counted.  What grows
is told from the second half: the first one fills what stays for good.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression
from typing import ClassVar, Final

from roletalk._debug import is_debug_build, live_objects

from .actions import ACTIONS

ROUNDS: Final = 20


@dataclass(frozen=True)
class Footprint:
    """What the process holds.  blocks: of Python's allocator.  memory: `memory_in_use`, in bytes.

    references: of all objects together; 0 but on a Python that counts them (--with-pydebug).
    """

    files: int
    tasks: int
    objects: int
    blocks: int
    references: int
    memory: int


@dataclass(frozen=True)
class Left:
    """What is left of `count` actions.

    growth: from half of them on, but of its memory what a straight line through all footprints since
    then grows.  cycles: objects that only the garbage collector found, of all actions.  alive: of the
    compiled kinds, when all peers were closed; always 0 on the release build.
    """

    action: str
    count: int
    seconds: float
    growth: Footprint
    cycles: int
    alive: int
    debug: bool


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo2 is not None:
    _mallinfo2.restype = _MallInfo


def memory_in_use() -> int:
    """Bytes that malloc has handed out; resident ones where it does not say.

    An unknown part of what is resident is free: the heap's pieces between what is in use, some
    megabytes more or less of them each time.  Small objects of Python are in neither: they are `blocks`.
    """
    if _mallinfo2 is None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    info = _mallinfo2()
    return int(info.uordblks + info.hblkhd)


async def settled() -> Footprint:
    """The footprint, when what has just ended is gone."""
    for _ in range(4):
        await asyncio.sleep(0.01)
        gc.collect()
    references = getattr(sys, "gettotalrefcount", int)()
    return Footprint(
        files=len(os.listdir("/proc/self/fd")),
        tasks=len(asyncio.all_tasks()),
        objects=len(gc.get_objects()),
        blocks=sys.getallocatedblocks(),
        references=references,
        memory=memory_in_use(),
    )


async def measure(name: str, count: int) -> Left:
    """Do it.  The garbage collector runs as it does for users, and is counted.

    Without it what is in cycles piles up between two rounds, and memory of many sizes is freed at
    once: the heap is then cut to pieces, which looks like a leak.
    """
    each = count // ROUNDS
    footprints: list[Footprint] = []
    cycles = 0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal cycles
        cycles += info["collected"] if phase == "stop" else 0

    before = sum(live_objects().values())
    began = time.monotonic()
    async with ACTIONS[name]() as work:
        gc.collect()
        gc.callbacks.append(collected)
        for _ in range(ROUNDS):
            await work(each)
            footprints.append(await settled())
        gc.callbacks.remove(collected)
    seconds = time.monotonic() - began
    await settled()
    alive = sum(live_objects().values()) - before
    return Left(name, each * ROUNDS, seconds, growth(footprints), cycles, alive, is_debug_build())


def growth(footprints: list[Footprint]) -> Footprint:
    """From the middle one to the last."""
    half = footprints[len(footprints) // 2 - 1 :]
    first, last = asdict(half[0]), asdict(half[-1])
    slope = linear_regression(range(len(half)), [each.memory for each in half]).slope
    grown = {name: last[name] - first[name] for name in first}
    return Footprint(**{**grown, "memory": round(slope * (len(half) - 1))})


def main() -> None:
    import uvloop

    name, count = sys.argv[1:]
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    left = loop.run_until_complete(measure(name, int(count)))
    print(json.dumps(asdict(left)))


if __name__ == "__main__":
    main()
