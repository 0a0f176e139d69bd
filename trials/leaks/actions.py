"""What is done over and over: each action makes its peers, and yields what does it so many times."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final

import roletalk
from roletalk.gate import MAX_RT2_MEMORY, SPOKE_RT2
from tests import rawclient as raw

KEY_ID: Final = "k"
KEY: Final = "a preshared secret"
LANES: Final = 8
IN_FLIGHT: Final = 20
CHUNK: Final = b"x" * 20_000
RESET: Final = struct.pack("ii", 1, 0)  # of SO_LINGER: closing sends RST

Work = Callable[[int], Awaitable[None]]
Action = Callable[[], AbstractAsyncContextManager[Work]]

ACTIONS: Final[dict[str, Action]] = {}


def action(name: str) -> Callable[[Callable[[], AsyncIterator[Work]]], Action]:
    """Register what it decorates under `name`, which says what is done."""

    def register(function: Callable[[], AsyncIterator[Work]]) -> Action:
        ACTIONS[name] = asynccontextmanager(function)
        return ACTIONS[name]

    return register


def keyed(name: str, key: str = KEY, **options: Any) -> roletalk.Peer:
    peer = roletalk.Peer(name=name, **options)
    peer.add_key(KEY_ID, key)
    return peer


async def in_lanes(count: int, once: Callable[[int], Awaitable[None]]) -> None:
    """Await `once` so many times, some at a time; it gets the number of its lane."""

    async def lane(number: int) -> None:
        for _ in range(count // LANES):
            await once(number)

    await asyncio.gather(*(lane(number) for number in range(LANES)))


async def until(true: Callable[[], object]) -> None:
    """Wait for what is under way."""
    while not true():
        await asyncio.sleep(0.001)


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[tuple[roletalk.Peer, str]]:
    """A server, and its URL."""
    async with keyed("server", **options) as server:
        yield server, (await server.listen()).url


@asynccontextmanager
async def clients(key: str = KEY) -> AsyncIterator[list[roletalk.Peer]]:
    """One for each lane: connections of one peer would be one unit's."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(keyed(f"client {n}", key)) for n in range(LANES)]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[roletalk.Peer, roletalk.Peer, roletalk.Destination]]:
    """A server, its client, and the destination of its role, which serves nothing yet."""
    async with listening() as (server, url), keyed("client") as client:
        server.role("r")
        await client.connect(url)
        destination = client.destination("r")
        await destination.wait_ready(30)
        yield server, client, destination


# -- connections -------------------------------------------------------------------------------------


@action("connects and closes")
async def _connects() -> AsyncIterator[Work]:
    async with listening() as (server, url), clients() as dialling:

        async def once(lane: int) -> None:
            async with dialling[lane].connect(url):
                pass

        async def work(count: int) -> None:
            await in_lanes(count, once)
            await until(lambda: not server.units)

        yield work


@action("units closed by the other side")
async def _closed_units() -> AsyncIterator[Work]:
    async with listening() as (server, url), clients() as dialling:

        async def once(lane: int) -> None:
            client = dialling[lane]
            unit = await client.connect(url, reconnect=False)
            gone = asyncio.get_running_loop().create_future()
            unit.on_close(lambda _: gone.set_result(None))
            await until(lambda: server.unit(client.id))
            theirs = server.unit(client.id)
            assert theirs is not None
            await theirs.close()
            await gone

        async def work(count: int) -> None:
            await in_lanes(count, once)
            await until(lambda: not server.units)

        yield work


@action("peers made, connected and closed")
async def _new_peers() -> AsyncIterator[Work]:
    # An id that has spoken rt2 is remembered, up to a limit: that memory is full from the start.
    for _ in range(MAX_RT2_MEMORY):
        SPOKE_RT2.add(("unit", roletalk.generate_key()[:22]))
    async with listening() as (server, url):

        async def once(_: int) -> None:
            async with keyed("client") as client:
                await client.connect(url)

        async def work(count: int) -> None:
            await in_lanes(count, once)
            await until(lambda: not server.units)

        yield work


async def read_frame(reader: asyncio.StreamReader) -> raw.Frame:
    """The next one of a server."""
    first, second = await reader.readexactly(2)
    size = second & 127
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return raw.Frame(bool(first & 128), 0, first & 15, None, await reader.readexactly(size))


class RawDial:
    """A legacy peer, up to any point of its way in; then it resets the connection."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)

    async def go(self, steps: int) -> None:
        reader, writer = await asyncio.open_connection(*self._where)
        try:
            await self._go(steps, reader, writer)
        finally:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _go(
        self, steps: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        def send(*message: Any) -> None:
            writer.write(raw.encode_frame(raw.BINARY, raw.json_message(*message), mask=b"mask"))

        upgrade = raw.upgrade_request()
        if steps > 0:
            writer.write(upgrade[: len(upgrade) // 2])
        if steps > 1:
            writer.write(upgrade[len(upgrade) // 2 :])
            await reader.readuntil(b"\r\n\r\n")
        if steps > 2:
            challenge = json.loads((await read_frame(reader)).payload[1:])["challenge"]
            send(raw.CHALLENGE, {"challenge": raw.new_challenge(), "ids": [KEY_ID]})
        if steps > 3:
            send(raw.PROOF, {"id": KEY_ID, "proof": raw.prove(KEY, challenge)})
            while (await read_frame(reader)).payload[0] != raw.CONFIRMED:
                pass
        if steps > 4:
            send(raw.CONFIRMED, raw.peer_data(f"raw-{random.getrandbits(64):x}"))
        if steps > 5:
            writer.write(raw.encode_frame(raw.PING, b"in?", mask=b"mask"))
            while (await read_frame(reader)).opcode != raw.PONG:
                pass
        if steps > 6:
            writer.write(raw.encode_frame(raw.BINARY, bytes(50_000), mask=b"mask")[:30_000])


LAST_STEP: Final = 7


@action("raw connects, in and reset")
async def _raw_connects() -> AsyncIterator[Work]:
    async with listening() as (server, url):
        dial = RawDial("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))

        async def work(count: int) -> None:
            await in_lanes(count, lambda _: dial.go(LAST_STEP - 1))
            await until(lambda: not server.stats()["connections"])

        yield work


@action("raw connects, reset on their way in")
async def _aborted_connects() -> AsyncIterator[Work]:
    async with listening() as (server, url):
        dial = RawDial("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))
        numbers = random.Random(1)

        async def work(count: int) -> None:
            await in_lanes(count, lambda _: dial.go(numbers.randint(0, LAST_STEP)))
            await until(lambda: not (server.stats()["connections"] or server.stats()["handshakes"]))

        yield work


@action("dials given up at any time")
async def _cancelled_dials() -> AsyncIterator[Work]:
    async with listening() as (server, url), clients() as dialling:
        numbers = random.Random(1)

        async def once(lane: int) -> None:
            dialled = asyncio.ensure_future(dialling[lane].connect(url, reconnect=False))
            for _ in range(numbers.randint(0, 12)):
                await asyncio.sleep(0)
            dialled.cancel()
            with suppress(asyncio.CancelledError, roletalk.ConnectError):
                unit = await dialled
                await unit.close()

        async def work(count: int) -> None:
            await in_lanes(count, once)
            await until(lambda: not (server.stats()["connections"] or server.stats()["handshakes"]))

        yield work


@action("dials to where nobody listens")
async def _failed_dials() -> AsyncIterator[Work]:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unheard.getsockname()[1]}"
        async with clients() as dialling:

            async def once(lane: int) -> None:
                with suppress(roletalk.ConnectError):
                    await dialling[lane].connect(url)
                    raise AssertionError("somebody was there")

            async def work(count: int) -> None:
                await in_lanes(count, once)

            yield work


@action("handshakes that fail")
async def _refused() -> AsyncIterator[Work]:
    async with listening() as (server, url), clients("another secret") as dialling:

        async def once(lane: int) -> None:
            with suppress(roletalk.AuthError):
                await dialling[lane].connect(url)
                raise AssertionError("it was let in")

        async def work(count: int) -> None:
            await in_lanes(count, once)
            await until(lambda: not server.stats()["handshakes"])

        yield work


# -- requests ----------------------------------------------------------------------------------------


@action("requests and messages")
async def _requests() -> AsyncIterator[Work]:
    async with connected() as (server, _, destination):
        role = server.role("r")
        role.on_request("sync")(lambda ctx: ctx.data)
        role.on_message("m")(lambda ctx: None)

        @role.on_request("async")
        async def later(ctx: roletalk.RequestContext) -> object:
            await asyncio.sleep(0)
            return ctx.data

        @role.on_request("reject")
        def reject(ctx: roletalk.RequestContext) -> None:
            raise roletalk.Reject("no")

        async def work(count: int) -> None:
            for i in range(count // IN_FLIGHT):
                data = {"i": i, "text": "x" * (i % 1000)}
                asked = [destination.request(("sync", "async")[j % 2], data) for j in range(16)]
                refused = [destination.request(event) for event in ("reject", "reject", "unknown")]
                await destination.send("m", data)
                await asyncio.gather(*asked)
                await asyncio.gather(*refused, return_exceptions=True)

        yield work


@action("requests cancelled, dropped or too late")
async def _cancelled_requests() -> AsyncIterator[Work]:
    async with connected() as (server, client, destination):

        @server.role("r").on_request("slow")
        async def slow(ctx: roletalk.RequestContext) -> None:
            await asyncio.sleep(0.001)

        async def work(count: int) -> None:
            for _ in range(count // IN_FLIGHT):
                tasks = [asyncio.ensure_future(destination.request("slow")) for _ in range(8)]
                for _ in range(8):
                    _ = destination.request("slow")  # nobody awaits it
                await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                late = [destination.request("slow", timeout=0.0001) for _ in range(4)]
                await asyncio.gather(*tasks, *late, return_exceptions=True)
            await until(lambda: not server.stats()["running_handlers"])
            await until(lambda: not client.stats()["pending_requests"])

        yield work


# -- streams -----------------------------------------------------------------------------------------


async def in_flight(count: int, *kinds: Callable[[], Awaitable[None]], fail: bool = False) -> None:
    """Await each of `kinds` in turn, `IN_FLIGHT` at a time; with `fail`, each must raise or be left."""
    for at in range(0, count, IN_FLIGHT):
        kind = kinds[at // IN_FLIGHT % len(kinds)]
        done = await asyncio.gather(*(kind() for _ in range(IN_FLIGHT)), return_exceptions=fail)
        assert not any(isinstance(each, AssertionError) for each in done), done


@asynccontextmanager
async def streaming() -> AsyncIterator[tuple[roletalk.Destination, Callable[[], Awaitable[None]]]]:
    """A destination with streams of all kinds, and what waits until none is left."""
    async with connected() as (server, client, destination):
        role = server.role("r")

        @role.on_readable("e")
        async def read(ctx: roletalk.ReadableContext) -> None:
            async with ctx.accept() as stream:
                if ctx.data == "stop":
                    await stream.readexactly(1)
                else:
                    assert len(await stream.read()) == len(CHUNK)

        @role.on_writable("e")
        async def write(ctx: roletalk.WritableContext) -> None:
            async with ctx.accept() as stream:
                await stream.write(CHUNK)
                if ctx.data == "fail":
                    raise roletalk.Reject("no more")

        async def refuse(ctx: Any) -> None:
            raise roletalk.Reject("never")

        async def late(ctx: Any) -> None:
            await asyncio.sleep(0.01)
            await ctx.accept()

        for event, handler in (("never", refuse), ("late", late)):
            role.on_readable(event)(handler)
            role.on_writable(event)(handler)

        async def quiet() -> None:
            for peer in (server, client):
                await until(lambda peer=peer: not peer.stats()["running_handlers"])  # type: ignore[misc]
                await until(lambda peer=peer: not peer.stats()["streams"])  # type: ignore[misc]

        yield destination, quiet


@action("streams that we read")
async def _readable() -> AsyncIterator[Work]:
    async with streaming() as (destination, quiet):

        async def read() -> None:
            async with destination.readable("e") as stream:
                assert len(await stream.read()) == len(CHUNK)

        async def work(count: int) -> None:
            await in_flight(count, read)
            await quiet()

        yield work


@action("streams that we write")
async def _writable() -> AsyncIterator[Work]:
    async with streaming() as (destination, quiet):

        async def write() -> None:
            async with destination.writable("e") as stream:
                await stream.write(CHUNK)

        async def work(count: int) -> None:
            await in_flight(count, write)
            await quiet()

        yield work


@action("streams left, aborted, refused or too late")
async def _broken_streams() -> AsyncIterator[Work]:
    async with streaming() as (destination, quiet):

        async def leave() -> None:
            async with destination.readable("e") as stream:
                await stream.read(1)

        async def abort() -> None:
            async with destination.writable("e", "stop") as stream:
                await stream.write(CHUNK)
                await stream.abort()

        async def are_stopped() -> None:
            async with destination.readable("e", "fail") as reader:
                await reader.read()

        async def are_left() -> None:
            async with destination.writable("e", "stop") as writer:
                await writer.write(bytes(1 << 20))

        async def are_refused() -> None:
            await destination.readable("never")

        async def are_late() -> None:
            await destination.writable("late", timeout=0.0001)

        async def work(count: int) -> None:
            kinds = (leave, abort, are_stopped, are_left, are_refused, are_late)
            await in_flight(count, *kinds, fail=True)
            await quiet()

        yield work
