"""A bus: every member hears what any member says.

Each peer serves the role and has the destination of the same name, so a broadcast reaches all
others. Not oneself: a peer has no connection to itself.

Look at who dials: the first member dials each of the others, and introduces them to each other;
they dial each other themselves, for they have a destination for the role that they are told of. So
the bus goes on when the first member leaves.

Run it with ``python bus.py``.
"""

import asyncio
from collections.abc import Callable

import roletalk

NAMES = ("ams-1", "ams-2", "fra-1", "lon-1")


class Member:
    """One data centre's cache, which tells the others what has become invalid."""

    def __init__(self, name: str) -> None:
        self.peer = roletalk.Peer(name=name)
        self.bus = self.peer.destination("cache")
        self.heard: list[str] = []

        @self.peer.role("cache").on_message("invalidate")
        def invalidate(ctx: roletalk.Context) -> None:
            self.heard.append(f"{ctx.data} from {ctx.unit.name}")

    def say(self, key: str) -> None:
        reached = self.bus.broadcast("invalidate", key)
        print(f"{self.peer.name} invalidates {key}: {len(reached)} others told")


async def until(condition: Callable[[], bool]) -> None:
    """For this example only: a program reacts to what comes, and does not wait for it."""
    while not condition():
        await asyncio.sleep(0.005)


async def main() -> None:
    members = [Member(name) for name in NAMES]
    first, *others = members
    for member in others:
        listener = await member.peer.listen("127.0.0.1", 0)
        await first.peer.connect(listener.url)
    await asyncio.wait_for(until(lambda: all(len(m.bus.units) == 3 for m in members)), 10)
    print(f"{first.peer.name} dialled {len(others)} others; now all are connected to all")

    first.say("user:1")
    others[0].say("user:2")
    await asyncio.wait_for(until(lambda: all(m.heard for m in members)), 10)
    await asyncio.wait_for(until(lambda: len(members[-1].heard) == 2), 10)
    for member in members:
        print(f"  {member.peer.name} heard: {', '.join(sorted(member.heard))}")

    await first.peer.close()
    await asyncio.wait_for(until(lambda: all(len(m.bus.units) == 2 for m in others)), 10)
    print(f"{first.peer.name} has left")
    others[0].say("user:3")
    await asyncio.wait_for(until(lambda: all(len(m.heard) == 3 for m in others[1:])), 10)
    for member in members:
        await member.peer.close()


if __name__ == "__main__":
    asyncio.run(main())
