"""From a socket to a unit: the upgrade, what strangers may do, what a peer remembers of them."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiofastnet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picows import WSInvalidMessageError

import roletalk
from roletalk._frame import ConnectionState
from roletalk._inbound import FrameLimits
from roletalk.address import Address
from roletalk.gate import (
    MAX_RT2_MEMORY,
    STRANGER_BYTES,
    UPGRADE_BYTES,
    Admission,
    Gate,
    _Rt2Memory,
)
from roletalk.lobby import Lobby
from tests import rawclient as raw
from tests.faketransport import FakeTransport, Recorder, turns
from tests.helpers import eventually, loop_factory, peers, run
from tests.test_frame import both_sides, in_loop
from tools.ports import quiet_port

KEY = "preshared-secret"


def answer_as_legacy(listener: raw.RawListener, unit_id: str) -> None:
    """One connection, taken by a legacy peer that holds the right key."""
    with listener.accept_upgraded() as connection:
        try:
            raw.authenticate(connection, KEY, "k", data=raw.peer_data(unit_id))
            connection.wait_closed()
        except (raw.PeerGone, raw.HandshakeRefused):
            pass


@pytest.mark.parametrize("what", ["address", "unit id"])
def test_whoever_spoke_rt2_is_not_accepted_with_a_legacy_proof(what: str) -> None:
    async def main() -> None:
        async with peers("server", "client", keys={"k": KEY}) as (server, client):
            listener = await server.listen(port=quiet_port())
            async with client.connect(listener.url):
                pass
            port = listener.port if what == "address" else 0
            unit_id = server.id if what == "unit id" else "f" * 32
            await listener.close()
            with raw.RawListener(port) as legacy:
                answering = asyncio.create_task(
                    asyncio.to_thread(answer_as_legacy, legacy, unit_id)
                )
                with pytest.raises(roletalk.AuthError, match="rt2"):
                    await client.connect(legacy.url)
                await answering
            assert client.units == ()

    run(main())


def test_a_legacy_peer_at_a_new_address_is_accepted() -> None:
    async def main() -> None:
        async with peers("client", keys={"k": KEY}) as (client,):
            with raw.RawListener() as legacy:
                answering = asyncio.create_task(
                    asyncio.to_thread(answer_as_legacy, legacy, "f" * 32)
                )
                async with client.connect(legacy.url) as unit:
                    assert unit.id == "f" * 32
                await answering

    run(main())


def test_the_memory_of_rt2_forgets_the_oldest() -> None:
    memory = _Rt2Memory()
    for number in range(MAX_RT2_MEMORY + 2):
        memory.add(("unit", str(number)))
    assert ("unit", "0") not in memory
    assert ("unit", "1") not in memory
    assert ("unit", "2") in memory
    memory.add(("unit", "2"))
    assert ("unit", "3") in memory


def test_a_stranger_is_cut_off_however_it_frames_what_it_sends() -> None:
    async def main() -> None:
        async with peers("server", keys={"k": KEY}) as (server,):
            listener = await server.listen()

            def flood() -> int | None:
                with raw.dial(listener.port) as connection:
                    try:
                        # The header of one frame as large as the peer would take from a unit.
                        connection.send_raw(raw.frame_header(raw.BINARY, 16 << 20))
                        for _ in range(64):
                            connection.send_raw(bytes(STRANGER_BYTES // 16))
                        return connection.wait_closed()
                    except raw.PeerGone as gone:
                        return gone.code

            assert await asyncio.to_thread(flood) in (1009, None)
            await eventually(lambda: server.stats()["handshakes"] == 0)
            assert server.stats()["handshake_failures"] == 1

    run(main())


@pytest.mark.parametrize("what", ["url", "place"])
def test_a_unit_named_like_an_address_says_nothing_of_that_address(what: str) -> None:
    # Or whoever has the key could lock any legacy peer out, just by its choice of an id.
    async def main() -> None:
        async with peers("server", "liar", keys={"k": KEY}) as (server, liar):
            with raw.RawListener() as legacy:
                url = f"ws://127.0.0.1:{legacy.port}"
                name = url if what == "url" else Address.parse(url).place
                liar.id = name  # type: ignore[misc]  # Final to all but this one
                await liar.connect((await server.listen()).url)
                await eventually(lambda: server.unit(name))
                answering = asyncio.create_task(
                    asyncio.to_thread(answer_as_legacy, legacy, "f" * 32)
                )
                async with server.connect(url, reconnect=False) as unit:
                    assert unit.id == "f" * 32
                await answering

    run(main())


# -- the upgrade, however it is cut ------------------------------------------------------------------


def response_to(transport: FakeTransport) -> bytes:
    """The right answer to the upgrade request that was written."""
    (request,) = transport.writes
    (key,) = [line[19:] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")]
    transport.writes.clear()
    return raw.upgrade_response(key)


class Upgrading:
    """A connection that is not upgraded yet; `head` is what would upgrade it."""

    def __init__(self, *, client: bool, budget: int = -1) -> None:
        self.connection = Recorder(FrameLimits(), is_client=client)
        self.gate = Gate(
            self.connection,
            host="remote" if client else None,
            target="/" if client else None,
            budget=budget,
        )
        self.transport = FakeTransport(self.gate)
        self.head = response_to(self.transport) if client else raw.upgrade_request()
        self.mask = None if client else b"\x1d\xe0\x5a\x93"

    def frames(self, *messages: bytes) -> bytes:
        return b"".join(raw.encode_frame(raw.BINARY, each, mask=self.mask) for each in messages)

    async def end(self) -> None:
        self.transport.abort()
        await turns()


@both_sides
@in_loop
async def test_an_upgrade_byte_by_byte(client: bool) -> None:
    it = Upgrading(client=client)
    for number, byte in enumerate(it.head):
        assert it.connection.state == ConnectionState.CONNECTING, number
        it.transport.feed(bytes([byte]))
    assert it.connection.is_open
    it.transport.feed(it.frames(b"hello"))
    assert it.connection.messages == [b"hello"]
    await it.end()


@both_sides
@in_loop
async def test_first_frames_in_the_segment_of_the_upgrade(client: bool) -> None:
    messages = [b"first", b"", b"x" * 300, b"y" * 5000]
    probe = Upgrading(client=client)
    size = len(probe.head)
    await probe.end()
    for at in [*range(0, size, 7), *range(size - 5, size + 20), size + 1000, 1 << 20]:
        it = Upgrading(client=client)
        data = it.head + it.frames(*messages) + it.frames(b"half")[:-1]
        for piece in (data[:at], data[at:]):
            if piece:
                it.transport.feed(piece)
        assert it.connection.messages == messages, at
        it.transport.feed(it.frames(b"half")[-1:])
        assert it.connection.messages[4:] == [b"half"], at
        assert it.connection.is_open
        await it.end()


@both_sides
@in_loop
async def test_a_close_frame_and_a_violation_in_the_segment_of_the_upgrade(client: bool) -> None:
    for bad, code in (
        (raw.frame_header(raw.BINARY, 1, rsv=1), 1002),
        (
            raw.encode_frame(raw.CLOSE, raw.close_payload(4000), mask=None if client else b"mask"),
            4000,
        ),
    ):
        it = Upgrading(client=client)
        it.transport.feed(it.head + it.frames(b"heard") + bad + it.frames(b"late"))
        assert it.connection.messages == [b"heard"]
        assert it.connection.close_code == code
        await it.end()


@both_sides
@pytest.mark.parametrize("with_end", [False, True])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
@in_loop
async def test_a_head_that_is_too_long(client: bool, with_end: bool, piece: int) -> None:
    it = Upgrading(client=client)
    data = it.head[:-2] + b"X: " + b"x" * UPGRADE_BYTES + (b"\r\n\r\n" if with_end else b"")
    data += it.frames(b"late")
    for at in range(0, len(data), piece):
        it.transport.feed(data[at : at + piece])
    assert it.transport.closing
    assert it.connection.state == ConnectionState.CONNECTING
    assert it.connection.messages == []
    await it.end()
    if client:
        with pytest.raises(WSInvalidMessageError):
            await it.gate.wait_upgraded()


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"\0\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n: \r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nUpgrade: \xff\xfe\r\n\r\n",
        b"POST / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        raw.upgrade_request(sec_websocket_version="8"),
        raw.upgrade_request(drop=["Sec-WebSocket-Key"]),
        raw.upgrade_request(sec_websocket_key="\xff\xff"),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
    ],
    ids=range(14),
)
@both_sides
@in_loop
async def test_garbage_instead_of_an_upgrade(client: bool, head: bytes) -> None:
    it = Upgrading(client=client)
    it.transport.feed(head + it.frames(b"late"))
    assert it.transport.closing
    assert it.connection.state == ConnectionState.CONNECTING
    await it.end()
    if client:
        with pytest.raises(Exception):  # noqa: B017  # whatever picows makes of it
            await it.gate.wait_upgraded()
    else:
        assert it.connection.messages == []


@both_sides
@settings(max_examples=30)
@given(data=st.binary(max_size=200), at=st.integers(0, 400))
def test_any_bytes_instead_of_an_upgrade(client: bool, data: bytes, at: int) -> None:
    async def main() -> None:
        it = Upgrading(client=client)
        it.transport.feed(it.head[: min(at, len(it.head) - 5)] + data + b"\r\n\r\n")
        await it.end()
        if client:
            with suppress(Exception):
                await it.gate.wait_upgraded()

    run(main(), debug=False)


@pytest.mark.parametrize("end", [0, 1, 20, -4, -1])
def test_a_stranger_that_leaves_in_the_middle_of_its_request(end: int) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            listener = await server.listen()

            def leave() -> None:
                with raw.connect(listener.port) as connection:
                    connection.send_raw(raw.upgrade_request()[:end])
                    connection.finish_sending()
                    with pytest.raises(raw.PeerGone):
                        connection.read_until(b"\r\n\r\n")

            await asyncio.to_thread(leave)
            await eventually(lambda: server.stats()["handshakes"] == 0)
            assert server.stats()["handshake_failures"] == 1

    run(main())


@pytest.mark.parametrize("end", [0, 1, 20, -4, -1])
def test_a_listener_that_leaves_in_the_middle_of_its_response(end: int) -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with raw.RawListener() as listener:

                def leave() -> None:
                    with listener.accept() as connection:
                        key = raw.read_upgrade(connection)
                        connection.send_raw(raw.upgrade_response(key)[:end])

                leaving = asyncio.create_task(asyncio.to_thread(leave))
                with pytest.raises(roletalk.ConnectError):
                    await client.connect(listener.url)
                await leaving

    run(main())


def test_a_listener_whose_first_messages_come_with_its_response() -> None:
    async def main() -> None:
        async with peers("client") as (client,):
            with raw.RawListener() as listener:

                def answer() -> None:
                    with listener.accept() as connection:
                        response = raw.upgrade_response(raw.read_upgrade(connection))
                        data = raw.peer_data("f" * 32, roles=["r"])
                        confirmed = raw.json_message(raw.CONFIRMED, data)
                        ping = raw.encode_frame(raw.PING, b"?", mask=None)
                        frame = raw.encode_frame(raw.BINARY, confirmed, mask=None)
                        connection.send_raw(response + ping + frame)
                        connection.wait_closed()

                answering = asyncio.create_task(asyncio.to_thread(answer))
                async with client.connect(listener.url) as unit:
                    assert (unit.id, set(unit.roles)) == ("f" * 32, {"r"})
                await answering

    run(main())


# -- nothing is left of it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "ending"),
    [
        (True, "upgraded"),
        (True, "left"),
        (False, "upgraded"),
        (False, "left"),
        (False, "refused"),
        (False, "garbage"),
        (False, "too long"),
    ],
)
@in_loop
async def test_no_cycle_keeps_a_gate(client: bool, ending: str) -> None:
    gc.collect()
    gc.disable()
    try:
        it = Upgrading(client=client)
        if ending == "upgraded":
            it.transport.feed(it.head)
        elif ending == "refused":
            it.transport.feed(raw.upgrade_request(sec_websocket_version="8"))
        elif ending == "garbage":
            it.transport.feed(b"garbage\r\n\r\n")
        elif ending == "too long":
            it.transport.feed(b"x" * 2 * UPGRADE_BYTES)
        await it.end()
        gone = weakref.ref(it.gate)
        connection = weakref.ref(it.connection)
        it.transport.protocol = None
        del it
        await turns()
        assert gone() is None
        assert connection() is None
    finally:
        gc.enable()


def test_no_cycle_keeps_what_took_a_connection_in() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            listener = await server.listen()
            gc.collect()
            gc.disable()
            try:
                async with client.connect(listener.url):
                    await eventually(lambda: server.units)
                    links: list[Any] = [peer.units[0].connections[0] for peer in (server, client)]
                    gone = [weakref.ref(link.owner) for link in links]
                    gone += [weakref.ref(link.owner.gate) for link in links]
                    del links
                await eventually(lambda: not server.units)
                await eventually(lambda: [each() for each in gone] == [None] * 4)
            finally:
                gc.enable()

    run(main(), debug=False)


def test_a_gate_that_cannot_be_made_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> Gate:
        raise ValueError("no such gate")

    async def main() -> None:
        async with peers("server") as (server,):
            server.bind()
            monkeypatch.setattr("roletalk.gate.Gate", refuse)
            with pytest.raises(ValueError, match="no such gate"):
                Admission(server)
            assert server.stats()["handshakes"] == 0

    run(main())


# -- the budget of strangers -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["with the upgrade", "at once", "in pieces"])
@pytest.mark.parametrize("over", [0, 1])
@in_loop
async def test_a_stranger_has_so_many_bytes_and_no_more(how: str, over: int) -> None:
    it = Upgrading(client=False, budget=1000)
    ping = raw.encode_frame(raw.PING, b"x" * 94)
    data = ping * 10 + b"\x8a"[:over]
    assert len(data) == 1000 + over
    it.transport.feed(it.head + (data if how == "with the upgrade" else b""))
    if how == "at once":
        it.transport.feed(data)
    elif how == "in pieces":
        for byte in data:
            it.transport.feed(bytes([byte]))
    assert it.connection.is_open == (over == 0)
    if over:
        assert it.connection.close_code == 1009
    it.transport.feed(it.frames(b"late"))
    assert it.connection.messages == []
    assert it.connection.close_code == 1009
    await it.end()


@in_loop
async def test_half_a_frame_counts_as_bytes_of_a_stranger() -> None:
    it = Upgrading(client=False, budget=1000)
    it.transport.feed(it.head + raw.frame_header(raw.BINARY, 50_000))
    it.transport.feed(bytes(992))
    assert it.connection.is_open
    it.transport.feed(bytes(1))
    assert it.connection.close_code == 1009
    await it.end()


@pytest.mark.parametrize("how", ["with the upgrade", "at once", "in pieces"])
def test_what_comes_along_with_the_end_of_the_handshake_is_a_units(how: str) -> None:
    # A peer that was busy finds all of this in one read, and it is no stranger's.
    async def main() -> None:
        async with peers("server") as (server,):
            server.bind()
            got: list[bytes] = []
            server.role("r").on_message("e")(lambda ctx: got.append(ctx.data))
            admission = Admission(server)
            transport = FakeTransport(admission.gate)
            confirmed = raw.json_message(raw.CONFIRMED, raw.peer_data("remote"))
            sent = [b"%05d" % number * 1000 for number in range(STRANGER_BYTES // 5000 + 20)]
            messages = [confirmed, *(raw.message("r", "e", raw.value(data)) for data in sent)]
            frames = b"".join(raw.encode_frame(raw.BINARY, each) for each in messages)
            if how == "with the upgrade":
                transport.feed(raw.upgrade_request() + frames)
            else:
                transport.feed(raw.upgrade_request())
                step = 1000 if how == "in pieces" else len(frames)
                for at in range(0, len(frames), step):
                    transport.feed(frames[at : at + step])
            assert admission.link.is_open
            unit = await admission.result
            assert got == sent
            admission.link.abort()
            await unit._lost.wait()

    run(main())


@in_loop
async def test_a_transport_that_learns_of_its_new_protocol_one_read_late() -> None:
    # As TLS does that has filled its buffer when it hands out the upgrade.
    it = Upgrading(client=False, budget=100)
    late: Any = it.connection
    it.transport.feed(it.head + it.frames(b"first")[:3])
    late.data_received(it.frames(b"first")[3:] + it.frames(b"second", b"third")[:-1])
    it.transport.feed(it.frames(b"third")[-1:])
    assert it.connection.messages == [b"first", b"second", b"third"]
    late.data_received(it.frames(bytes(300_000)))
    assert it.connection.close_code == 1009
    await it.end()


@pytest.mark.parametrize("new_loop", [loop_factory, asyncio.new_event_loop])
def test_the_sockets_of_those_who_are_turned_away_at_once_are_forgotten(
    new_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The number of such a socket is the next one's, which has to be heard all the same.
    let_in = Lobby.let_in
    came: set[Admission] = set()

    def turn_away(self: Lobby, admission: Admission, host: str) -> bool:
        came.add(admission)
        return len(came) > 8 and let_in(self, admission, host)

    monkeypatch.setattr(Lobby, "let_in", turn_away)

    async def main() -> None:
        async with peers("server", "client", handshake_timeout=20.0) as (server, client):
            url = (await server.listen()).url
            for _ in range(8):
                with pytest.raises(roletalk.ConnectError):
                    await client.connect(url)
            await client.connect(url)
            await eventually(lambda: server.units)

    run(main(), new_loop=new_loop, timeout=10)


def test_a_socket_is_not_watched_any_more_when_its_dial_was_given_up() -> None:
    """libuv ends the process over a socket that is closed and still watched."""
    watched: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def turn_away(transport: Any) -> bool:
            watched.append(transport.get_extra_info("socket").fileno())
            dialling.cancel()
            return False

        def gate() -> Gate:
            connection = Recorder(FrameLimits(), is_client=True)
            return Gate(connection, host="127.0.0.1", target="/", arrived=turn_away)

        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            dialling = loop.create_task(aiofastnet.create_connection(loop, gate, "127.0.0.1", port))
            with pytest.raises(asyncio.CancelledError):
                await dialling
            await turns()
            assert not loop.remove_reader(watched[0])

    # This loop only remembers it.
    run(main(), debug=False, new_loop=asyncio.SelectorEventLoop)
