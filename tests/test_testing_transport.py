"""What a transport in memory does, beside asyncio's over TCP: one set of checks for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import roletalk
from roletalk.testing._faults import Faults, Place
from roletalk.testing._network import Hub
from tests.helpers import eventually, run

MANY = bytes(range(256)) * 64 * 1024  # 16 MiB: more than any two ends and the way between them hold


class Recorder:
    """What both kinds of protocols keep of what they are told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.told: list[str] = []
        self.lost: list[Exception | None] = []
        self.keeps_open = False
        self.fails = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def took(self, data: bytes) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.received += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Streaming(Recorder, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.took(data)


class Buffered(Recorder, asyncio.BufferedProtocol):
    def __init__(self) -> None:
        super().__init__()
        self._room = bytearray(1000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.took(self._room[:nbytes])


Ends = tuple[Recorder, Recorder]
Connected = Callable[[type[Any]], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def over_tcp(kind: type[Any]) -> AsyncIterator[Ends]:
    loop = asyncio.get_running_loop()
    dialled, accepted = kind(), kind()
    server = await loop.create_server(lambda: accepted, "127.0.0.1", 0)
    await loop.create_connection(lambda: dialled, *server.sockets[0].getsockname())
    server.close()
    await eventually(lambda: accepted.transport)
    try:
        yield dialled, accepted
    finally:
        for end in (dialled, accepted):
            if not end.lost:
                end.transport.abort()
        await eventually(lambda: dialled.lost and accepted.lost)


@asynccontextmanager
async def in_memory(kind: type[Any]) -> AsyncIterator[Ends]:
    hub = Hub(256 * 1024, Faults(0))
    place = Place(roletalk.Peer(), "localhost")
    dialled, accepted = kind(), kind()
    listening = hub.listen(place, ("localhost", 1), False, lambda host: accepted)
    await hub.connect(place, ("localhost", 1), False, dialled)
    listening.close()
    await eventually(lambda: accepted.transport)
    try:
        yield dialled, accepted
    finally:
        for end in (dialled, accepted):
            if not end.lost:
                end.transport.abort()
        await eventually(lambda: not hub.links)


@pytest.fixture(params=[over_tcp, in_memory])
def connected(request: pytest.FixtureRequest) -> Connected:
    found: Connected = request.param
    return found


def on_stock_loop(main: Any, **options: Any) -> None:
    run(main, new_loop=asyncio.new_event_loop, debug=False, **options)


@pytest.mark.parametrize("kind", [Streaming, Buffered])
def test_bytes_arrive_in_order_and_not_at_once(connected: Connected, kind: type[Any]) -> None:
    async def main() -> None:
        async with connected(kind) as (a, b):
            a.transport.write(b"one ")
            a.transport.writelines([b"two ", bytearray(b"three "), memoryview(b"four")])
            a.transport.write(b"")
            assert not b.received
            b.transport.write(b"back")
            await eventually(lambda: b.received == b"one two three four" and a.received == b"back")
            assert a.told == b.told == ["made"]

    on_stock_loop(main())


def test_a_writer_is_told_to_pause_and_to_go_on(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            a.transport.set_write_buffer_limits(high=1000, low=100)
            assert a.transport.get_write_buffer_limits() == (100, 1000)
            b.transport.pause_reading()
            assert not b.transport.is_reading()
            a.transport.write(MANY)
            assert a.told == ["made", "pause"]
            assert a.transport.get_write_buffer_size() > 1000
            b.transport.resume_reading()
            await eventually(lambda: len(b.received) == len(MANY))
            assert b.received == MANY
            await eventually(lambda: a.told == ["made", "pause", "resume"])
            assert a.transport.get_write_buffer_size() == 0
            with pytest.raises(ValueError, match="high"):
                a.transport.set_write_buffer_limits(high=1, low=2)

    on_stock_loop(main())


def test_a_paused_reader_gets_nothing(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            b.transport.pause_reading()
            a.transport.write(b"first")
            b.transport.write(b"other way")
            await eventually(lambda: a.received)
            assert not b.received
            b.transport.resume_reading()
            await eventually(lambda: b.received == b"first")

    on_stock_loop(main())


def test_one_direction_is_ended(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            b.keeps_open = True
            assert a.transport.can_write_eof()
            a.transport.write(b"question")
            a.transport.write_eof()
            with pytest.raises(RuntimeError):
                a.transport.write(b"more")
            await eventually(lambda: "eof" in b.told)
            assert b.received == b"question"
            assert not b.transport.is_closing()
            b.transport.write(b"answer")
            b.transport.close()
            await eventually(lambda: a.lost and b.lost)
            assert a.received == b"answer"
            assert a.lost == b.lost == [None]

    on_stock_loop(main())


def test_close_sends_what_waits_first(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            a.transport.write(MANY)
            a.transport.close()
            a.transport.close()
            assert a.transport.is_closing()
            assert not a.lost
            await eventually(lambda: a.lost and b.lost)
            assert b.received == MANY
            assert a.lost == b.lost == [None]
            assert b.told == ["made", "eof"]

    on_stock_loop(main())


def test_abort_drops_what_waits(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            a.transport.write(MANY)
            a.transport.abort()
            assert not a.lost
            await eventually(lambda: a.lost and b.lost)
            assert len(b.received) < len(MANY)
            assert a.lost == b.lost == [None]

    on_stock_loop(main())


def test_closing_with_bytes_unread_is_a_reset(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            b.transport.pause_reading()
            a.transport.write(b"unread")
            b.transport.write(b"marker")
            await eventually(lambda: a.received)
            b.transport.close()
            await eventually(lambda: a.lost and b.lost)
            assert isinstance(a.lost[0], ConnectionResetError)
            assert b.lost == [None]

    on_stock_loop(main())


def test_writing_to_who_is_gone_ends_the_connection(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, b):
            # It does not read, and so learns of it only by writing.
            a.transport.pause_reading()
            b.transport.abort()
            await eventually(lambda: b.lost)

            def write() -> bool:
                a.transport.write(b"anybody there?")
                return bool(a.lost)

            await eventually(write)
            assert isinstance(a.lost[0], ConnectionError)

    on_stock_loop(main())


@pytest.mark.parametrize("kind", [Streaming, Buffered])
def test_a_protocol_that_fails_loses_its_connection(connected: Connected, kind: type[Any]) -> None:
    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: reported.append(told))
        async with connected(kind) as (a, b):
            b.fails = True
            a.transport.write(b"x")
            await eventually(lambda: a.lost and b.lost)
            assert isinstance(b.lost[0], ZeroDivisionError)
            assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]

    on_stock_loop(main())


def test_what_is_no_bytes_is_not_written(connected: Connected) -> None:
    async def main() -> None:
        async with connected(Streaming) as (a, _):
            with pytest.raises(TypeError):
                a.transport.write("text")

    on_stock_loop(main())
