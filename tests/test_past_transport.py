"""Reading and writing past the transport: sockets that are idle, full, slow, reset, or another's by now."""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

import roletalk
import tests.faketransport as fake
from roletalk._frame import Connection, ConnectionState
from roletalk._inbound import FrameLimits
from tests import rawclient as raw
from tests.cuts import cut_unit
from tests.faketransport import Recorder, Remote, connected, parse_frames, turns
from tests.helpers import eventually, pair, peers, ready, run
from tests.streams import MIB, opened, pattern
from tests.test_frame import both_sides, in_loop
from tests.test_listener import client_context, server_context


class SocketTransport(fake.FakeTransport):
    """One that writes to a socket, as aiofastnet's do; a connection may write there as well.

    `read` is the other end of that socket.
    """

    # aiofastnet's keep no reference to what they are given.
    __module__ = "aiofastnet.stand_in"

    def __init__(self, protocol: Any) -> None:
        self.held = bytearray()
        self.calls = 0
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        super().__init__(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._ours if name == "socket" else default

    def write(self, data: Any) -> None:
        if not isinstance(self.protocol, Connection):
            super().write(data)
            return
        assert not self.lost, "written after the connection was lost"
        self.calls += 1
        if not self.aborted:
            self.held += data
            self.send_held()
            if self.backlog > self._high and not self._over:
                self._over = True
                self.protocol.pause_writing()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def send_held(self) -> None:
        while self.held:
            try:
                del self.held[: self._ours.send(self.held)]
            except BlockingIOError:
                break
        self.backlog = len(self.held)

    def abort(self) -> None:
        self.held.clear()
        super().abort()

    def narrow(self) -> None:
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def fill(self) -> int:
        """Have the socket take no more; the count of the bytes that it took."""
        count = 0
        while True:
            try:
                count += self._ours.send(bytes(100))
            except BlockingIOError:
                return count

    def peek(self) -> bytes:
        """What the socket holds."""
        data = b""
        with suppress(BlockingIOError):
            while piece := self._theirs.recv(1 << 20):
                data += piece
        return data

    def read(self, size: int) -> bytes:
        """At most `size` bytes; the transport hears of the room that this makes."""
        try:
            data = self._theirs.recv(size)
        except BlockingIOError:
            data = b""
        if not self.lost:
            self.send_held()
            if self._over and self.backlog <= self._low:
                self._over = False
                self.protocol.resume_writing()
            if self.closing and not self.backlog:
                self._loop.call_soon(self._lose)
        return data

    def read_all(self) -> bytes:
        data = b""
        while piece := self.read(1 << 20):
            data += piece
        return data

    def written(self) -> bytes:
        if not self.lost:
            self.writes.append(self.read_all())
        return super().written()

    def _lose(self) -> None:
        if not self.lost:
            super()._lose()
            self.writes.append(self.read_all())
            self._ours.close()
            self._theirs.close()


def flush_soon(connection: Any) -> None:
    """What the loop would call at the end of the turn."""
    connection._flush_soon()


def socket_of(remote: Remote) -> SocketTransport:
    assert isinstance(remote.transport, SocketTransport)
    return remote.transport


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of the test have a socket that they may write to."""
    monkeypatch.setattr(fake, "FakeTransport", SocketTransport)


@pytest.mark.usefixtures("past")
@both_sides
@in_loop
async def test_what_an_idle_socket_takes_does_not_go_through_the_transport(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        transport = socket_of(remote)
        calls = transport.calls
        connection.send_message(pattern(1000))
        assert connection.unsent_bytes > 1000
        await turns()
        assert transport.calls == calls
        assert connection.unsent_bytes == 0
        assert [frame.payload for frame in remote.sent()] == [pattern(1000)]


@pytest.mark.usefixtures("past")
@both_sides
@pytest.mark.parametrize("seed", range(4))
@in_loop
async def test_a_slow_reader_gets_everything_in_order(client: bool, seed: int) -> None:
    limits = FrameLimits(high_water=50_000, low_water=20_000)
    with connected(client=client, limits=limits) as (connection, remote):
        transport = socket_of(remote)
        transport.narrow()
        rng = random.Random(seed)
        messages, got = [], bytearray()
        before = connection.bytes_sent
        for _ in range(150):
            for _ in range(rng.choice((0, 1, 1, 5))):
                messages.append(rng.randbytes(rng.choice((0, 1, 100, 3000, 70_000))))
                connection.send_message(messages[-1])
            if rng.random() < 0.5:
                await asyncio.sleep(0)
                # Right after a flush: what the transport holds, and nothing else.
                assert connection.unsent_bytes == transport.backlog
                assert connection.busy == (transport.backlog > 20_000)
            got += transport.read(rng.choice((1, 100, 3000, 500_000)))
        await turns()
        got += transport.read_all()
        assert connection.bytes_sent - before == len(got)
        assert connection.unsent_bytes == 0
        assert [frame.payload for frame in parse_frames(bytes(got))] == messages
        assert transport.calls > 0


@pytest.mark.usefixtures("past")
@in_loop
async def test_a_socket_that_takes_nothing() -> None:
    with connected() as (connection, remote):
        transport = socket_of(remote)
        transport.narrow()
        filler = transport.fill()
        connection.send_message(b"first")
        await turns()
        assert transport.calls == 1
        assert connection.unsent_bytes == transport.backlog == 7
        connection.send_message(b"second")
        await turns()
        assert transport.calls == 2
        got = remote.transport.written()[filler:]
        assert [frame.payload for frame in parse_frames(got)] == [b"first", b"second"]
        connection.send_message(b"third")
        await turns()
        assert transport.calls == 2
        assert [frame.payload for frame in remote.sent()] == [b"third"]


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize("look", [False, True], ids=["unseen", "seen"])
@in_loop
async def test_nothing_is_written_behind_what_abort_dropped(look: bool) -> None:
    # A remote that got the first part of a frame would take what follows for the rest of it.
    with connected() as (connection, remote):
        transport = socket_of(remote)
        transport.narrow()
        connection.send_message(bytes(100_000))
        await turns()
        assert transport.backlog > 0
        connection.send_message(b"\xff" * 1000)
        connection.abort()
        assert not look or connection.unsent_bytes >= 1000
        connection.send_message(b"\xff" * 1000)
        got = transport.peek()
        flush_soon(connection)
        got += transport.peek()
        await turns()
        assert connection.state == ConnectionState.CLOSED
        assert b"\xff" not in got[10:]


def test_nothing_is_written_behind_what_the_owner_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "FakeTransport", SocketTransport)

    async def main() -> None:
        async with cut_unit() as on:
            transport = socket_of(on.remote)
            transport.narrow()
            on.link.send_message(raw.message("r", "e", raw.value(bytes(100_000))))
            await turns()
            assert transport.backlog > 0
            admission: Any = on.link.owner
            on.link.send_message(b"\xff" * 1000)
            admission.abort()
            got = transport.peek()
            flush_soon(on.link)
            got += transport.peek()
            await turns()
            assert on.link.state == ConnectionState.CLOSED
            assert b"\xff" not in got[10:]

    run(main())


@pytest.mark.usefixtures("past")
@in_loop
async def test_what_the_transport_held_before_the_upgrade_goes_first() -> None:
    connection = Recorder(FrameLimits(), is_client=False)
    transport = SocketTransport(asyncio.Protocol())
    transport.narrow()
    filler = transport.fill()
    transport.held += b"HTTP"
    transport.backlog = 4
    connection.upgraded(transport)
    assert len(transport.peek()) == filler
    connection.send_message(b"frame")
    await turns()
    frame = raw.encode_frame(raw.BINARY, b"frame", mask=None)
    assert transport.read_all() == b"HTTP" + frame
    connection.abort()
    await turns()


@pytest.mark.parametrize("seed", range(4))
def test_chunks_to_a_slow_reader(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(fake, "FakeTransport", SocketTransport)

    async def main() -> None:
        rng = random.Random(seed)
        data = pattern(1 * MIB, seed)
        async with cut_unit() as on:
            transport = socket_of(on.remote)
            transport.narrow()

            async def handler(ctx: roletalk.WritableContext) -> None:
                stream = await ctx.accept()
                at = 0
                while at < len(data):
                    size = rng.choice((1, 100, 8191, 8192, 65_536, 200_000))
                    await stream.write(data[at : at + size])
                    at += size
                await stream.close()

            on.peer.role("r").on_writable("e")(handler)
            on.feed([raw.open_stream(raw.OPEN_READABLE, "r", "e", 1, 77)], rng, 100)
            await turns(5)
            got = bytearray(transport.read(1 << 16))
            # The first chunks are on their way already.
            said = (raw.decode(frame.payload) for frame in parse_frames(bytes(got)))
            answer = next(each for each in said if each.kind == raw.STREAM_RESOLVE)
            on.feed([raw.stream_data(answer.channel, raw.QUOTA, raw.number(4 * MIB))], rng, 100)
            # Small reads end in every part of a frame, and of what is written of two together.
            while on.peer.stats()["streams"] or transport.backlog or not got:
                await asyncio.sleep(0)
                got += transport.read(rng.choice((1, 17, 2000, 9000, 50_000)))
            got += transport.read_all()
            heard = [raw.decode(frame.payload) for frame in parse_frames(bytes(got))]
            chunks = [each for each in heard if each.kind == raw.STREAM_DATA]
            assert {each.channel for each in chunks} == {77}
            assert b"".join(each.raw[4:] for each in chunks if each.raw[3] == raw.CHUNK) == data
            assert chunks[-1].raw[3] == raw.FINISH

    run(main(), debug=False)


# -- real sockets ------------------------------------------------------------------------------------


def squeeze(peer: roletalk.Peer) -> None:
    """Leave the sockets of `peer` little room."""
    for unit in peer.units:
        for link in unit.connections:
            sock = link.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


@asynccontextmanager
async def connected_peers(place: str, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    if place == "tcp":
        async with pair() as both:
            yield both
        return
    async with peers("server", "client") as (server, client):
        if place == "unix":
            listener = await server.listen(path=str(tmp_path / "s"))
            await client.connect(listener.url)
        else:
            ca = trustme.CA()
            listener = await server.listen(ssl=server_context(ca))
            await client.connect(listener.url, ssl=client_context(ca))
        await eventually(lambda: server.units)
        yield server, client


@pytest.mark.parametrize("place", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("opener", ["reads", "writes"])
def test_a_stream_through_narrow_sockets(place: str, opener: Any, tmp_path: Path) -> None:
    async def main() -> None:
        data = pattern(2 * MIB, 7)
        async with connected_peers(place, tmp_path) as (server, client):
            squeeze(server)
            squeeze(client)
            server.role("r").on_request("echo")(lambda ctx: ctx.data)
            destination = await ready(client)
            async with opened(server, client, opener) as ends:

                async def write() -> None:
                    at = 0
                    rng = random.Random(5)
                    while at < len(data):
                        size = rng.choice((1, 5000, 65_536, 300_000))
                        await ends.writer.write(data[at : at + size])
                        at += size
                    await ends.writer.close()

                writing = asyncio.create_task(write())
                # Requests and their replies go between the chunks.
                asked = [
                    asyncio.ensure_future(destination.request("echo", pattern(size, size)))
                    for size in (0, 10, 5000, 100_000)
                ]
                got = bytearray()
                while chunk := await ends.reader.read(10_000):
                    got += chunk
                await writing
                assert got == data
                for size, reply in zip((0, 10, 5000, 100_000), asked, strict=True):
                    assert (await reply).data == pattern(size, size)

    run(main(), debug=False)


def unit_of(port: int) -> raw.Connection:
    """A connection that has become a unit's."""
    connection = raw.dial(port)
    raw.authenticate(connection)
    return connection


@pytest.mark.parametrize("when", ["idle", "full"])
def test_a_remote_that_resets(when: str) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()
            with await asyncio.to_thread(unit_of, listener.port) as connection:
                await eventually(lambda: server.units)
                link: Any = server.units[0].connections[0]
                if when == "full":
                    link.send_message(bytes(16 * MIB))
                    await turns()
                    assert link.unsent_bytes > 0
                linger = struct.pack("ii", 1, 0)
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.drop()
                # The reset is there already; the loop has not seen it.
                for _ in range(5):
                    link.send_message(bytes(1000))
                    link.send_message(bytes(100_000))
                    link._flush_soon()
            await eventually(lambda: link.state == ConnectionState.CLOSED)
            assert link.close_code == 1006
            assert link.unsent_bytes == 0
            with pytest.raises(ConnectionError):
                link.send_message(b"late")

    run(main(), debug=False)


@pytest.mark.skipif(not hasattr(os, "dup2"), reason="needs os.dup2")
@pytest.mark.parametrize("ending", ["abort", "eof"])
def test_a_descriptor_that_is_used_again_gets_nothing(ending: str) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()
            with await asyncio.to_thread(unit_of, listener.port) as connection:
                await eventually(lambda: server.units)
                link: Any = server.units[0].connections[0]
                descriptor = link.transport.get_extra_info("socket").fileno()
                link.send_message(b"in time")
                if ending == "abort":
                    link.abort()
                else:
                    connection.drop()
            while link.state != ConnectionState.CLOSED:
                if link.is_open:
                    link.send_message(b"perhaps")
                await asyncio.sleep(0)
            ours, theirs = socket.socketpair()
            if theirs.fileno() == descriptor:
                ours, theirs = theirs, ours
            with ours, theirs:
                if ours.fileno() != descriptor:
                    os.dup2(ours.fileno(), descriptor)
                for _ in range(5):
                    link._flush_soon()
                    link.check_alive(1e12, 0.0, 0.0)
                    link.close()
                    await asyncio.sleep(0)
                theirs.setblocking(False)
                with pytest.raises(BlockingIOError):
                    theirs.recv(1)
                if ours.fileno() != descriptor:
                    os.close(descriptor)

    run(main(), debug=False)
