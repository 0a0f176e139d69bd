"""The measured process: ``python -m bench.guard.child counts|instructions``.

Goes each path three times, `COUNT`, `COUNT` and twice `COUNT` operations.  The first time warms up;
the difference of the other two is `COUNT` operations and nothing of what a run costs by itself.
"""

import asyncio
import ctypes
import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Callable

from roletalk._debug import is_debug_build

from . import compiled, paths

COUNT = 256  # a multiple of paths.IN_FLIGHT

Counts = dict[str, float]


class Meters:
    """What has been counted in this process since its start."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(str(compiled.compiled("meters")))
        library.guard_count_allocations()
        self._allocations = ctypes.c_ulonglong.in_dll(library, "guard_allocations")
        self._syscalls: list[tuple[str, ctypes.c_ulonglong]] = []
        if os.environ.get("LD_PRELOAD"):
            preloaded = ctypes.CDLL(os.environ["LD_PRELOAD"])
            names = read_names(preloaded)
            numbers = (ctypes.c_ulonglong * len(names)).in_dll(preloaded, "guard_syscalls")
            at = ctypes.addressof(numbers)
            size = ctypes.sizeof(ctypes.c_ulonglong)
            self._syscalls = [
                (name, ctypes.c_ulonglong.from_address(at + size * index))
                for index, name in enumerate(names)
            ]

    def read(self) -> Counter[str]:
        counts = Counter({f"syscall {name}": number.value for name, number in self._syscalls})
        counts["allocations"] = self._allocations.value
        return counts


def read_names(library: ctypes.CDLL) -> list[str]:
    """The NULL-terminated array of C strings."""
    names: list[str] = []
    at = ctypes.addressof(ctypes.c_char_p.in_dll(library, "guard_syscall_names"))
    while name := ctypes.c_char_p.from_address(at).value:
        names.append(name.decode())
        at += ctypes.sizeof(ctypes.c_char_p)
    return names


def of_one(before: Counter[str], between: Counter[str], after: Counter[str]) -> Counts:
    """What one operation counts, of `COUNT` until `between` and twice that until `after`."""
    return {
        name: round((after[name] - 2 * between[name] + before[name]) / COUNT, 4)
        for name in after
        if after[name] != before[name]
    }


async def count_paths() -> dict[str, Counts]:
    """Allocations and, with the library preloaded, system calls of one operation of each path."""
    meters = Meters()
    found: dict[str, Counts] = {}
    async with paths.scene() as scene:
        for name, path in paths.PATHS.items():
            await path(scene, COUNT)
            before = meters.read()
            await path(scene, COUNT)
            between = meters.read()
            await path(scene, 2 * COUNT)
            found[name] = of_one(before, between, meters.read())
    return found


async def mark_paths() -> dict[str, Counts]:
    """The same runs under callgrind, which notes its count when a run ends: three for each path."""
    library = ctypes.PyDLL(str(compiled.compiled("meters")))
    mark: Callable[[], object] = library.guard_mark_instructions
    async with paths.scene() as scene:
        library.guard_start_instructions()
        for path in paths.PATHS.values():
            for times in (1, 1, 2):
                await path(scene, times * COUNT)
                mark()
    return {}


def main() -> None:
    if is_debug_build():
        sys.exit("the guard counts on the release build: run `make build` first")
    # Here: what imports this for its constants need not have it.
    import uvloop

    # When the collector runs depends on all that was imported.
    gc.disable()
    gc.freeze()
    run = {"counts": count_paths, "instructions": mark_paths}[sys.argv[1]]
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    json.dump(loop.run_until_complete(run()), sys.stdout)


if __name__ == "__main__":
    main()
