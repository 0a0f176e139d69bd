"""Streams in numbers: many at once, much in each, and what is held for those that lag."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import roletalk
from tests import rawclient as raw
from tests.helpers import eventually, pair, peers, ready, run
from tests.streams import (
    KIB,
    MIB,
    OPENERS,
    WINDOW,
    Opener,
    ends,
    open_streams,
    opened,
    pattern,
    write_all,
)

# -- many at once


def serve_hashes(server: roletalk.Peer) -> dict[int, str]:
    """Handlers of both kinds: what they read is hashed under its number, what they write is pattern."""
    hashes: dict[int, str] = {}
    role = server.role("r")
    role.on_request("ping")(lambda ctx: ctx.data)

    @role.on_readable("hash")
    async def read(ctx: roletalk.ReadableContext) -> None:
        found = hashlib.sha256()
        async with ctx.accept() as stream:
            async for chunk in stream:
                found.update(chunk)
        hashes[ctx.data] = found.hexdigest()

    @role.on_writable("pattern")
    async def write(ctx: roletalk.WritableContext) -> None:
        seed, size, piece = ctx.data
        data = memoryview(pattern(size, seed))
        async with ctx.accept() as stream:
            for start in range(0, size, piece):
                await stream.write(data[start : start + piece])

    return hashes


@pytest.mark.slow
@pytest.mark.parametrize("window", [WINDOW, MIB])
def test_a_thousand_streams_on_one_connection(window: int) -> None:
    count = 1000
    pieces = (1, 100, 1000, 4096, 16 * KIB, 65_536, 100_000)

    async def main() -> None:
        async with pair(stream_window=window) as (server, client):
            hashes = serve_hashes(server)
            destination = await ready(client)
            going = asyncio.Event()
            asked = 0

            def size_of(number: int) -> int:
                # One-byte writes of a small stream, up to 200 KB otherwise.
                return 300 if number % len(pieces) == 0 else number * 199

            async def up(number: int) -> None:
                piece = pieces[number % len(pieces)]
                data = memoryview(pattern(size_of(number), number))
                async with destination.writable("hash", number) as stream:
                    for start in range(0, len(data), piece):
                        await stream.write(data[start : start + piece])

            async def down(number: int) -> None:
                piece = pieces[number % len(pieces)]
                size = size_of(number)
                found = hashlib.sha256()
                async with destination.readable("pattern", [number, size, piece]) as stream:
                    while chunk := await stream.read(pieces[number // 7 % len(pieces)] + 50):
                        found.update(chunk)
                assert found.digest() == hashlib.sha256(pattern(size, number)).digest()

            async def ask() -> None:
                nonlocal asked
                while not going.is_set():
                    assert (await destination.request("ping", asked, timeout=20)).data == asked
                    asked += 1

            asking = asyncio.create_task(ask())
            await asyncio.gather(*((up, down)[i % 2](i) for i in range(count)))
            going.set()
            await asking
            assert asked > 1
            await eventually(lambda: len(hashes) == count // 2)
            for number, found in hashes.items():
                assert found == hashlib.sha256(pattern(size_of(number), number)).hexdigest()
            await eventually(lambda: open_streams(server, client) == 0)
            total = sum(size_of(i) for i in range(count))
            for peer in (server, client):
                stats = peer.stats()
                assert stats["streams_opened"] == count
                assert stats["connections"] == 1
                assert stats["drops"] == {}
                assert stats["stream_bytes_sent"] + stats["stream_bytes_received"] == total
                assert stats["running_handlers"] == 0

    run(main(), timeout=120, debug=False)


def test_a_stalled_stream_holds_up_no_other() -> None:
    async def main() -> None:
        async with pair(stream_window=WINDOW, stream_buffer=WINDOW) as (server, client):
            serve_hashes(server)
            destination = await ready(client)
            stalled = [
                await destination.readable("pattern", [i, 10 * WINDOW, WINDOW]) for i in range(20)
            ]
            for i in range(20):
                async with destination.readable("pattern", [i, 5 * WINDOW, 1000]) as stream:
                    assert await stream.read() == pattern(5 * WINDOW, i)
                assert (await destination.request("ping", i)).data == i
            for i, each in enumerate(stalled):
                assert await each.read() == pattern(10 * WINDOW, i)

    run(main())


# -- small chunks


def test_empty_and_single_bytes_by_the_hundred_thousand() -> None:
    async def main() -> None:
        count = 100_000
        data = pattern(count)
        async with pair() as (server, client), opened(server, client, "writes") as both:

            async def write() -> None:
                for i in range(count):
                    await both.writer.write(data[i : i + 1])
                    await both.writer.write(b"")
                await both.writer.close()

            writing = asyncio.create_task(write())
            assert await both.reader.read() == data
            await writing
            assert server.stats()["stream_bytes_received"] == count

    run(main(), debug=False)


@pytest.mark.parametrize("opener", OPENERS)
def test_single_bytes_for_a_reader_that_lags(opener: Opener) -> None:
    """What is unread counts by its bytes: the writer gets on until the window is full of them."""

    async def main() -> None:
        count = 100_000
        data = pattern(count)
        async with (
            pair(stream_window=64 * KIB, stream_buffer=64 * KIB) as (server, client),
            opened(server, client, opener) as both,
        ):
            written = 0

            async def write() -> None:
                nonlocal written
                for i in range(count):
                    await both.writer.write(data[i : i + 1])
                    written += 1
                await both.writer.close()

            writing = asyncio.create_task(write())
            await stalled(lambda: written)
            assert WINDOW <= written <= 64 * KIB
            got = bytearray()
            async for chunk in both.reader:
                got += chunk
            assert got == data
            await writing

    run(main(), debug=False)


async def stalled(progress: Callable[[], int]) -> None:
    """Wait until `progress` has not moved for a hundred looks; what it is then is for the caller."""
    last, same = progress(), 0
    while same < 100:
        await asyncio.sleep(0.002)
        now = progress()
        same = same + 1 if now == last else 0
        last = now


# -- credit


@pytest.mark.parametrize("window", [WINDOW, 100_000, 192 * KIB])
@pytest.mark.parametrize("opener", OPENERS)
def test_a_writer_gets_no_further_than_the_window(opener: Opener, window: int) -> None:
    async def main() -> None:
        async with (
            pair(stream_window=window) as (server, client),
            opened(server, client, opener) as both,
        ):
            sender = server if opener == "reads" else client
            data = pattern(4 * window)
            writing = asyncio.create_task(write_all(both.writer, data))
            await stalled(lambda: int(sender.stats()["stream_bytes_sent"]))
            sent = sender.stats()["stream_bytes_sent"]
            assert window // 2 <= sent <= window
            assert not writing.done()
            # Reading lets it go on, by as much as was read and no more.
            assert await both.reader.readexactly(window) == data[:window]
            await stalled(lambda: int(sender.stats()["stream_bytes_sent"]))
            assert sender.stats()["stream_bytes_sent"] <= 2 * window
            assert await both.reader.read() == data[window:]
            await writing

    run(main(), debug=False)


def test_all_streams_of_a_unit_share_its_buffer() -> None:
    count, budget = 40, 8 * WINDOW

    async def main() -> None:
        async with pair(stream_window=MIB, stream_buffer=budget) as (server, client):
            serve_hashes(server)
            destination = await ready(client)
            streams = [
                await destination.readable("pattern", [i, 2 * MIB, 50_000]) for i in range(count)
            ]
            await stalled(lambda: int(client.stats()["stream_bytes_received"]))
            assert client.stats()["stream_bytes_received"] <= budget + count * WINDOW
            found = await asyncio.gather(*(each.read() for each in streams))
            assert found == [pattern(2 * MIB, i) for i in range(count)]

    run(main(), debug=False)


@pytest.mark.parametrize("ending", ["finish", "abort", "cut"])
def test_a_relay_passes_bytes_pressure_and_failures_on(ending: str) -> None:
    async def main() -> None:
        limits: dict[str, Any] = {"stream_window": 64 * KIB, "stream_buffer": 2 * MIB}
        async with peers("source", "relay", "sink", **limits) as (source, relay, sink):
            data = pattern(4 * MIB)
            errors: list[BaseException] = []

            @source.role("source").on_writable("e")
            async def write(ctx: roletalk.WritableContext) -> None:
                try:
                    async with ctx.accept() as stream:
                        await stream.write(data)
                except roletalk.StreamError as error:
                    errors.append(error)
                    raise

            await relay.connect((await source.listen()).url, reconnect=False)
            sources = await ready(relay, "source")

            @relay.role("relay").on_writable("e")
            async def pass_on(ctx: roletalk.WritableContext) -> None:
                async with sources.readable("e") as upstream, ctx.accept() as stream:
                    async for chunk in upstream:
                        await stream.write(chunk)

            await sink.connect((await relay.listen()).url, reconnect=False)
            destination = await ready(sink, "relay")
            async with destination.readable("e") as stream:
                assert await stream.readexactly(1000) == data[:1000]
                await stalled(lambda: int(source.stats()["stream_bytes_sent"]))
                assert source.stats()["stream_bytes_sent"] < 300 * KIB
                if ending == "finish":
                    assert await stream.read() == data[1000:]
                elif ending == "abort":
                    await stream.abort("enough")
                else:
                    relay.unit(source.id).connections[0].abort()  # type: ignore[union-attr]
                    with pytest.raises(roletalk.StreamError):
                        await stream.read()
            await eventually(lambda: open_streams(source, relay, sink) == 0)
            await eventually(lambda: not relay.stats()["running_handlers"])
            assert len(errors) == (ending != "finish")

    run(main(), debug=False)


# -- limits


@pytest.mark.parametrize("opener", OPENERS)
def test_max_streams_of_the_one_that_is_asked(opener: Opener) -> None:
    async def main() -> None:
        async with (
            peers("server", max_streams=3) as (server,),
            peers("client") as (client,),
        ):
            await client.connect((await server.listen()).url)
            serve_hold(server)
            destination = await ready(client)
            opening: Any = destination.readable if opener == "reads" else destination.writable
            for _ in range(3):
                streams = [await opening("hold") for _ in range(3)]
                for _ in range(2):
                    with pytest.raises(roletalk.RemoteError, match="too many streams"):
                        await opening("hold")
                assert open_streams(server) == open_streams(client) == 3
                for stream in streams:
                    await stream.abort()
                await eventually(lambda: open_streams(server) == 0)
                await eventually(lambda: server.stats()["running_handlers"] == 0)

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_max_streams_of_the_one_that_asks(opener: Opener) -> None:
    async def main() -> None:
        async with (
            peers("server") as (server,),
            peers("client", max_streams=3) as (client,),
        ):
            await client.connect((await server.listen()).url)
            serve_hold(server)
            destination = await ready(client)
            opening: Any = destination.readable if opener == "reads" else destination.writable
            for _ in range(3):
                streams = [await opening("hold") for _ in range(3)]
                for _ in range(2):
                    with pytest.raises(roletalk.WouldBlock):
                        await opening("hold")
                for stream in streams:
                    await stream.abort()
                assert open_streams(client) == 0  # there is room again at once
            # Those that are not answered yet count as well.
            results = await asyncio.gather(
                *(opening("hold") for _ in range(5)), return_exceptions=True
            )
            refused = [each for each in results if isinstance(each, BaseException)]
            assert [type(each) for each in refused] == [roletalk.WouldBlock] * 2
            for each in results:
                if not isinstance(each, BaseException):
                    await each.abort()

    run(main())


@pytest.mark.parametrize("how", ["finish", "abort"])
def test_streams_that_are_over_and_forgotten_take_no_room(how: str) -> None:
    async def main() -> None:
        async with pair(max_streams=5) as (server, client):

            @server.role("r").on_writable("e")
            async def write(ctx: roletalk.WritableContext) -> None:
                stream = await ctx.accept()
                await stream.write(b"unread")
                if how == "abort":
                    await stream.abort()

            destination = await ready(client)
            for _ in range(20):
                # Nobody reads it, nobody aborts it, and then nobody has it.
                await destination.readable("e")
                await eventually(lambda: server.stats()["streams"] == 0)
                gc.collect()
                await eventually(lambda: client.stats()["streams"] == 0)

    run(main())


def serve_hold(server: roletalk.Peer) -> None:
    """Handlers of both kinds that hold their stream until it dies."""

    async def hold(ctx: Any) -> None:
        async with ctx.accept():
            await asyncio.Event().wait()

    role = server.role("r")
    role.on_readable("hold")(hold)
    role.on_writable("hold")(hold)


@pytest.mark.parametrize(
    "options",
    [
        {"stream_window": WINDOW - 1},
        {"stream_window": 0},
        {"stream_window": -1},
        {"stream_buffer": -1},
    ],
    ids=repr,
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        roletalk.Peer(**options)


# -- channels


def test_channel_numbers_are_not_used_again_soon() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            serve_hold(server)
            listener = await server.listen()

            def ask() -> list[int]:
                channels = []
                with raw.dial(listener.port) as connection:
                    raw.authenticate(connection)
                    for number in range(1, 501):
                        kind = (raw.OPEN_READABLE, raw.OPEN_WRITABLE)[number % 2]
                        connection.send(raw.open_stream(kind, "r", "hold", number, number))
                        answer = connection.read_answer(number)
                        assert answer.kind == raw.STREAM_RESOLVE
                        channels.append(answer.channel)
                        abort = raw.stream_data(answer.channel, raw.STREAM_ERROR, b"done")
                        connection.send(abort)
                return channels

            channels = await asyncio.to_thread(ask)
            assert len(set(channels)) == len(channels)
            assert 0 not in channels
            await eventually(lambda: open_streams(server) == 0)

    run(main())


def test_frames_that_come_too_late_are_counted_and_harm_nobody() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            serve_hashes(server)
            destination = await ready(client)
            for i in range(5):
                stream = await destination.readable("pattern", [i, 10 * MIB, 65_536])
                assert await stream.readexactly(1000) == pattern(1000, i)
                await stream.abort()
            await eventually(lambda: open_streams(server, client) == 0)
            await destination.request("ping")
            assert client.stats()["late_stream_frames"] > 0
            assert client.stats()["drops"] == server.stats()["drops"] == {}
            async with destination.readable("pattern", [7, 1000, 10]) as stream:
                assert await stream.read() == pattern(1000, 7)

    run(main(), debug=False)


# -- two connections of one unit


async def twice_connected(server: roletalk.Peer, client: roletalk.Peer) -> roletalk.Unit:
    url = (await server.listen()).url
    unit = await client.connect(url, reconnect=False)
    assert await client.connect(url, reconnect=False) is unit
    await eventually(lambda: [len(each.connections) for each in server.units] == [2])
    assert len(unit.connections) == 2
    return unit


def sent_by(unit: roletalk.Unit) -> list[int]:
    return [link.bytes_sent for link in unit.connections]


def test_streams_spread_over_connections_and_stay_where_they_are() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            hashes = serve_hashes(server)
            unit = await twice_connected(server, client)
            destination = await ready(client)
            streams = [await destination.writable("hash", number) for number in range(6)]
            carried: Counter[int] = Counter()
            for stream in streams:
                before = sent_by(unit)
                await stream.write(pattern(3 * MIB))
                after = sent_by(unit)
                grown = [b - a for a, b in zip(before, after, strict=True)]
                link = grown.index(max(grown))
                assert grown[link] >= 3 * MIB
                assert grown[1 - link] < WINDOW
                carried[link] += 1
            assert carried == {0: 3, 1: 3}
            for stream in streams:
                await stream.close()
            await eventually(lambda: len(hashes) == 6)
            assert set(hashes.values()) == {hashlib.sha256(pattern(3 * MIB)).hexdigest()}

    run(main(), debug=False)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("side", ["server", "client"])
def test_streams_of_a_lost_connection_die_and_others_live(opener: Opener, side: str) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            count = 12
            accepted: list[Any] = []
            ended: Counter[str] = Counter()
            release = asyncio.Event()

            async def hold(ctx: Any) -> None:
                accepted.append(await ctx.accept(len(accepted)))
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    ended["cancelled"] += 1
                    raise

            role = server.role("r")
            role.on_readable("held")(hold)
            role.on_writable("held")(hold)
            role.on_request("ping")(lambda ctx: None)
            unit = await twice_connected(server, client)
            destination = await ready(client)
            opening: Any = destination.readable if opener == "reads" else destination.writable
            streams: list[Any] = [await opening("held") for _ in range(count)]
            pairs = [(each, accepted[each.reply.data]) for each in streams]
            loser = server.units[0] if side == "server" else unit
            loser.connections[0].abort()
            await eventually(lambda: [len(u.connections) for u in (*server.units, unit)] == [1, 1])

            async def works(mine: Any, theirs: Any) -> bool:
                reader, writer = (mine, theirs) if opener == "reads" else (theirs, mine)
                results = await asyncio.gather(
                    write_all(writer, b"alive"), reader.read(), return_exceptions=True
                )
                if list(results) == [None, b"alive"]:
                    return True
                assert [type(each) for each in results] == [roletalk.StreamError] * 2
                return False

            alive = [await works(*both) for both in pairs]
            assert 0 < sum(alive) < count
            await eventually(lambda: ended["cancelled"] == count - sum(alive))
            assert unit.connected
            await destination.request("ping")
            release.set()

    run(main())


def test_requests_are_answered_while_a_stream_fills_the_connection() -> None:
    async def main() -> None:
        async with ends("writes") as both:
            client = both.writer.unit.peer
            server = both.reader.unit.peer
            server.role("r").on_request("ping")(lambda ctx: ctx.data)
            destination = client.destination("r")
            total = 64 * MIB
            done = asyncio.Event()

            async def write() -> None:
                piece = bytes(MIB)
                for _ in range(total // len(piece)):
                    await both.writer.write(piece)
                await both.writer.close()

            async def read() -> None:
                count = 0
                async for chunk in both.reader:
                    count += len(chunk)
                assert count == total
                done.set()

            async def ask() -> int:
                asked = 0
                while not done.is_set():
                    assert (await destination.request("ping", asked)).data == asked
                    asked += 1
                return asked

            work: list[Awaitable[Any]] = [write(), read(), ask()]
            assert (await asyncio.gather(*work))[2] > 10

    run(main(), debug=False)
