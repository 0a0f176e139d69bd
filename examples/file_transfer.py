"""A file goes from one process to another, with progress and a checksum.

A stream carries any number of bytes one way; memory stays bounded on both sides, for a writer waits
while its reader is behind. Leaving the writer's block finishes the stream, an exception in it
aborts it, and the reader never takes the one for the other: what it gets is all of the file, or an
error.

Look at `receive`, which writes to a temporary name and renames it at the end of the stream, not
before; and at the second transfer, which breaks off in the middle and leaves nothing behind.

Run it with ``python file_transfer.py [FILE]``; without a file it makes one of 33 MB.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import roletalk

BLOCK = 1 << 20  # bytes that are read and written at once


def serve_store(peer: roletalk.Peer, folder: Path) -> None:
    store = peer.role("store")
    checksums: dict[str, asyncio.Future[int]] = defaultdict(
        asyncio.get_running_loop().create_future
    )

    @store.on_readable("file")
    async def receive(ctx: roletalk.ReadableContext) -> None:
        name = Path(ctx.data["name"]).name  # a name and no path: it comes from elsewhere
        part = folder / f"{name}.part"
        checksum = 0
        checksums.pop(name, None)  # that of an earlier transfer
        try:
            with part.open("wb") as file:
                async with ctx.accept() as stream:
                    async for chunk in stream:
                        file.write(chunk)
                        checksum = zlib.crc32(chunk, checksum)
        except roletalk.StreamError as error:
            part.unlink()
            print(f"receiver: {name} is dropped: {error}", flush=True)
        else:
            part.rename(folder / name)
            checksums[name].set_result(checksum)
            print(f"receiver: {name} is complete", flush=True)

    @store.on_request("checksum")
    async def checksum_of(ctx: roletalk.RequestContext) -> int:
        # The last block may not be written yet when the sender has finished.
        return await asyncio.wait_for(asyncio.shield(checksums[ctx.data]), 10)


def say(text: str) -> None:
    print(f"sender:   {text}", flush=True)


async def send(store: roletalk.Destination, path: Path, break_off: bool = False) -> int:
    """Returns the checksum of what was sent.  With `break_off` it fails half-way."""
    sent, told, began = 0, 0, time.perf_counter()
    checksum = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        async with store.writable("file", {"name": path.name}) as stream:
            while block := file.read(BLOCK):
                await stream.write(block)  # waits for the receiver
                checksum = zlib.crc32(block, checksum)
                sent += len(block)
                if sent * 4 // size > told:
                    told = sent * 4 // size
                    rate = sent / (time.perf_counter() - began)
                    say(f"{told * 25:>3} % of {size / 1e6:.0f} MB, {rate / 1e6:,.0f} MB/s")
                if break_off and told == 2:
                    raise KeyError("the sender had a bug")
    return checksum


async def receiver(folder: Path) -> None:
    async with roletalk.Peer(name="receiver") as peer:
        serve_store(peer, folder)
        listener = await peer.listen("127.0.0.1", 0)
        print(listener.url, flush=True)  # the sender reads it
        await peer.serve_forever()


async def sender(path: Path, url: str) -> None:
    async with roletalk.Peer(name="sender") as peer:
        await peer.connect(url)
        store = peer.destination("store")
        sent = await send(store, path)
        received = (await store.request("checksum", path.name)).data
        say(f"the checksums are {'the same' if sent == received else 'DIFFERENT'}")
        with suppress(KeyError):
            await send(store, path, break_off=True)


async def main(path: Path, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--receive", str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        await sender(path, url)
    finally:
        process.terminate()  # serve_forever() drains and closes on SIGTERM
        print((await process.stdout.read()).decode(), end="")
        await process.wait()


def start() -> None:
    parser = argparse.ArgumentParser(description="Send a file to another process.")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--receive", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        asyncio.run(receiver(arguments.receive))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = arguments.file or folder / "prices.bin"
        if not arguments.file:
            path.write_bytes(os.urandom(BLOCK) * 31)
        store = folder / "received"
        store.mkdir()
        asyncio.run(main(path, store))
        print("received:", ", ".join(each.name for each in store.iterdir()))


if __name__ == "__main__":
    start()
