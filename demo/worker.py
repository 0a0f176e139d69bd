"""A worker: one process, one peer, five roles.

The gateway starts these.  By hand, in a shell whose ``ROLETALK_DEMO_KEY`` holds the key::

    python -m demo.worker --name worker-1 --port 9001

It prints the port that it listens on, and ends when its standard input does, so no worker outlives
its gateway, however that ended.
"""

import argparse
import asyncio
import hashlib
import os
import re
import sys
from collections import Counter

import uvloop

import roletalk

KEY_ID = "demo"
KEY_VARIABLE = "ROLETALK_DEMO_KEY"  # not an argument: those of a process are everybody's to read

WORD = re.compile(r"[^\W\d_]+")


def split_words(text: str) -> list[str]:
    """The words of `text`, in lower case, in their order."""
    return WORD.findall(text.lower())


def add_roles(peer: roletalk.Peer) -> None:
    """Everything that a worker does for others."""
    served: Counter[str] = Counter()

    tokenise = peer.role("tokenise")
    count = peer.role("count")
    square = peer.role("square")
    status = peer.role("status")
    add_store(peer.role("store"))

    @tokenise.on_request("text")
    def to_words(ctx: roletalk.Context) -> list[str]:
        served["tokenise"] += 1
        return split_words(ctx.decode(str))

    @count.on_request("words")
    def to_counts(ctx: roletalk.Context) -> dict[str, int]:
        served["count"] += 1
        return dict(Counter(ctx.decode(list[str])))

    @square.on_request("of")
    def of(ctx: roletalk.Context) -> int:
        served["square"] += 1
        return ctx.decode(int) ** 2

    @status.on_message("note")
    def note(ctx: roletalk.Context) -> None:
        served[ctx.event] += 1

    @status.on_message("announce")
    def announce(ctx: roletalk.Context) -> None:
        served[ctx.event] += 1

    @status.on_request("report")
    def report(_: roletalk.Context) -> dict[str, object]:
        return {"pid": os.getpid(), "served": served}


def add_store(store: roletalk.Role) -> None:
    """Keeps what is streamed to it, by name."""
    kept: dict[str, list[bytes]] = {}

    @store.on_readable("put")
    async def put(ctx: roletalk.ReadableContext) -> None:
        async with ctx.accept() as stream:
            kept[ctx.data["name"]] = [chunk async for chunk in stream]

    @store.on_request("digest")
    def digest(ctx: roletalk.Context) -> str:
        digested = hashlib.blake2b()
        for chunk in kept[ctx.decode(str)]:
            digested.update(chunk)
        return digested.hexdigest()

    @store.on_writable("get")
    async def get(ctx: roletalk.WritableContext) -> None:
        async with ctx.accept() as stream:
            for chunk in kept.pop(ctx.data["name"]):
                await stream.write(chunk)


async def serve(name: str, port: int, key: str) -> None:
    """Listen on `port` (0: any that is free) until standard input ends."""
    loop = asyncio.get_running_loop()
    orphaned = asyncio.Event()

    def read_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            orphaned.set()

    async with roletalk.Peer(name=name) as peer:
        peer.add_key(KEY_ID, key)
        add_roles(peer)
        listener = await peer.listen("127.0.0.1", port)
        loop.add_reader(sys.stdin.fileno(), read_stdin)
        print(listener.port, flush=True)
        await orphaned.wait()
        loop.remove_reader(sys.stdin.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.worker", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    uvloop.run(serve(options.name, options.port, os.environ[KEY_VARIABLE]))


if __name__ == "__main__":
    main()
