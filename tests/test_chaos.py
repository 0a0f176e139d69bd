"""tests.chaos: the proxy does what it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos import Proxy
from tests.helpers import eventually, run
from tests.streams import pattern


class Ends:
    """Both ends of one connection through a proxy; `reads` are the sizes that the target read."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer
        self.got = bytearray()
        self.reads: list[int] = []
        self.target_reader: asyncio.StreamReader | None = None
        self.target_writer: asyncio.StreamWriter | None = None
        self.how: BaseException | str | None = None

    async def serve(self) -> None:
        assert self.target_reader is not None
        try:
            while data := await self.target_reader.read(65536):
                self.got += data
                self.reads.append(len(data))
            self.how = "end"
        except ConnectionError as exc:
            self.how = exc


@asynccontextmanager
async def ends(**ways: float) -> AsyncIterator[Ends]:
    """A connection through a proxy whose way up has those attributes."""
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    accepted = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        for name, value in ways.items():
            assert hasattr(proxy.up, name)
            setattr(proxy.up, name, value)
        both = Ends(proxy, *await asyncio.open_connection("127.0.0.1", proxy.port))
        both.target_reader, both.target_writer = await accepted
        serving = asyncio.create_task(both.serve())
        try:
            yield both
        finally:
            serving.cancel()
            both.writer.close()
            over.set()
            await asyncio.wait({serving})
            server.close()
            await server.wait_closed()


def test_it_forwards_both_ways_and_ends_with_both_ends() -> None:
    async def main() -> None:
        async with ends() as both:
            sent = pattern(3_000_000)
            both.writer.write(sent)
            both.target_writer.write(b"answer")
            assert await both.reader.readexactly(6) == b"answer"
            await eventually(lambda: len(both.got) == len(sent))
            assert both.got == sent
            # One end says that it is done: the other one may still speak.
            both.writer.write_eof()
            await eventually(lambda: both.how == "end")
            both.target_writer.write(b"more")
            assert await both.reader.readexactly(4) == b"more"
            both.target_writer.write_eof()
            assert await both.reader.read() == b""
            await eventually(lambda: not both.proxy.connections)

    run(main())


def test_a_reset_is_seen_as_one_on_both_ends() -> None:
    async def main() -> None:
        async with ends() as both:
            both.writer.write(b"x")
            await eventually(lambda: both.got)
            await both.proxy.reset()
            with pytest.raises(ConnectionResetError):
                await both.reader.read()
            await eventually(lambda: isinstance(both.how, ConnectionResetError))
            assert not both.proxy.connections

    run(main())


def test_a_reset_by_one_end_is_passed_on() -> None:
    async def main() -> None:
        async with ends() as both:
            both.writer.write(b"x")
            await eventually(lambda: both.got)
            both.target_writer.write(b"unread at the other end")
            await asyncio.sleep(0)
            both.writer.transport.abort()
            await eventually(lambda: both.how is not None)

    run(main())


def test_a_black_hole_takes_and_gives_nothing_until_it_is_none() -> None:
    async def main() -> None:
        async with ends(black_hole=True) as both:
            both.writer.write(b"up")
            both.target_writer.write(b"down")
            # The other way goes on, so what goes up would have come by now.
            assert await both.reader.readexactly(4) == b"down"
            both.target_writer.write(b"again")
            assert await both.reader.readexactly(5) == b"again"
            assert not both.got
            both.proxy.up.black_hole = False
            await eventually(lambda: both.got == b"up")
            both.proxy.black_hole = True
            assert both.proxy.down.black_hole
            assert both.proxy.black_hole

    run(main())


def test_a_black_hole_lets_the_writer_pile_up() -> None:
    async def main() -> None:
        async with ends(black_hole=True) as both:
            sent = pattern(32_000_000)
            both.writer.write(sent)
            drained = asyncio.create_task(both.writer.drain())
            both.target_writer.write(b"down")
            await both.reader.readexactly(4)
            assert not drained.done()
            assert both.writer.transport.get_write_buffer_size() > 1_000_000
            both.proxy.black_hole = False
            await drained
            await eventually(lambda: len(both.got) == len(sent))
            assert both.got == sent

    run(main())


def test_one_byte_at_a_time() -> None:
    async def main() -> None:
        async with ends(piece=1) as both:
            both.writer.write(b"piecemeal" * 20)
            await eventually(lambda: len(both.got) == 180)
            assert both.got == b"piecemeal" * 20
            # The loop may be late for some turns, and then a read takes several.
            assert len(both.reads) > 20

    run(main())


def test_a_delay_delays_and_does_not_slow_down() -> None:
    async def main() -> None:
        async with ends(delay=0.2, jitter=0.1) as both:
            sent = pattern(8_000_000)
            started = time.monotonic()
            both.writer.write(sent)
            await eventually(lambda: both.got)
            assert time.monotonic() - started >= 0.2
            await eventually(lambda: len(both.got) == len(sent))
            assert both.got == sent
            # One after the other the chunks, 122 at the least, would take 24 seconds.
            assert time.monotonic() - started < 20

    run(main())


def test_a_throttle_holds_the_rate() -> None:
    async def main() -> None:
        async with ends(rate=100_000) as both:
            started = time.monotonic()
            both.writer.write(pattern(50_000))
            await eventually(lambda: len(both.got) == 50_000)
            assert time.monotonic() - started >= 0.45
            assert both.got == pattern(50_000)
            assert max(both.reads) < 50_000
            both.proxy.up.rate = None
            both.writer.write(pattern(1_000_000))
            await eventually(lambda: len(both.got) == 1_050_000)

    run(main())


def test_a_cut_comes_after_so_many_bytes() -> None:
    async def main() -> None:
        async with ends(cut_after=1000) as both:
            both.writer.write(pattern(100_000))
            await eventually(lambda: both.how is not None)
            assert isinstance(both.how, ConnectionResetError)
            assert both.got == pattern(100_000)[:1000]

    run(main())


@pytest.mark.parametrize("up", [True, False])
def test_half_a_close(up: bool) -> None:
    async def main() -> None:
        async with ends() as both:
            both.writer.write(b"x")
            await eventually(lambda: both.got == b"x")
            both.proxy.connections[0].half_close(up=up)
            if up:
                await eventually(lambda: both.how == "end")
                both.target_writer.write(b"still")
                assert await both.reader.readexactly(5) == b"still"
            else:
                assert await both.reader.read() == b""
                both.writer.write(b"y")
                await eventually(lambda: both.got == b"xy")

    run(main())


def test_nobody_at_the_target_is_a_reset() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        async with Proxy(port) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main())
