"""The recorded streams of the Go and the Node.js peer: read, rebuilt, and replayed to a live peer.

A replay takes one side of a recording and plays it, frame by frame, to a live peer in the place of the
other.  The numbers that the recorded one had chosen are replaced by those that the live one chose.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import pytest

import roletalk
from roletalk._codec import (
    build_answer,
    build_open,
    build_request,
    build_stream_answer,
    build_stream_data,
    decode_value,
    parse_envelope,
)
from roletalk._wire import MessageType
from tests import rawclient as raw
from tests.helpers import eventually, run
from tests.recordings import PAIRS, Recording, each_pair, load

Side: TypeAlias = Literal["dialer", "listener"]

SCENARIOS = (
    "stream_dialer_reads",
    "stream_dialer_reads_after_300_requests",
    "stream_dialer_writes",
    "stream_reader_destroys",
    "stream_rejected",
    "stream_remote_reader_destroys",
    "stream_remote_writer_destroys",
    "stream_writer_destroys",
)
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS)

INITIAL_CREDIT = 16384
WINDOW = 192 * 1024  # what a reader of ours opens its window to where it has listened
LARGEST_CHUNK = 1 << 16

OPENINGS = (MessageType.OPEN_READABLE, MessageType.OPEN_WRITABLE)
STREAM_ANSWERS = (MessageType.STREAM_RESOLVE, MessageType.STREAM_REJECT)


# -- reading and rebuilding --------------------------------------------------------------------------


@each_scenario
@each_pair
def test_every_message_is_read_and_rebuilt(scenario: str, pair: str) -> None:
    recording = load(scenario, pair)
    for side in ("dialer", "listener"):
        messages = [message for message in recording.messages(side) if message[0] != 3]
        for message in messages:
            found = parse_envelope(message)
            role, event = found.role.decode(), found.event.decode()
            correlation, channel, flag = found.correlation, found.channel, found.flag
            if found.kind is MessageType.STREAM_DATA:
                assert channel is not None
                assert flag is not None
                assert message == build_stream_data(channel, flag, found.body)
                continue
            assert correlation is not None
            value = decode_value(found.body)
            if channel is None and found.role:
                assert message == build_request(role, event, correlation, value)
            elif channel is None:
                assert message == build_answer(found.kind, correlation, value)
            elif found.kind in OPENINGS:
                assert message == build_open(found.kind, role, event, correlation, channel, value)
            else:
                # Theirs is not padded, which is why Go cannot read it; ours is.
                size = max(message[1:3])
                assert message == raw.stream_answer(found.kind, correlation, channel, found.body)
                assert build_stream_answer(found.kind, correlation, channel, value) == (
                    raw.stream_answer(
                        found.kind,
                        raw.number(correlation, size),
                        raw.number(channel, size),
                        found.body,
                    )
                )


@each_scenario
@each_pair
def test_whose_number_a_recorded_frame_carries(scenario: str, pair: str) -> None:
    """JS puts the receiver's number in the frames it sends, Go its own."""
    recording = load(scenario, pair)
    envelopes = {side: recording.envelopes(side) for side in ("dialer", "listener")}
    announced = {
        side: {f.channel for f in found if f.kind in (*OPENINGS, MessageType.STREAM_RESOLVE)}
        for side, found in envelopes.items()
    }
    for side, other in (("dialer", "listener"), ("listener", "dialer")):
        peer = recording.dialer if side == "dialer" else recording.listener
        carried = {f.channel for f in envelopes[side] if f.kind is MessageType.STREAM_DATA}
        assert carried <= announced[side if peer == "go" else other]


def test_recorded_rejects() -> None:
    """The texts of JS are JSON in a string, with channel 0; Go's are lost, and a 105."""
    texts = [
        "Error: no stream",
        "Error: no stream",
        'The event "unknown" is not handled',
        'The role "nobody" is not registered',
    ]
    for pair in PAIRS:
        recording = load("stream_rejected", pair)
        for found, text in zip(recording.envelopes("listener"), texts, strict=True):
            value = decode_value(found.body)
            if recording.listener == "go":
                assert (found.kind, value) == (MessageType.REJECT, {})
            else:
                assert (found.kind, found.channel) == (MessageType.STREAM_REJECT, 0)
                assert isinstance(value, str)
                assert json.loads(value) == {"data": text}


# -- playing a recording -----------------------------------------------------------------------------


def spoken(recording: Recording) -> list[tuple[str, int, list[bytes]]]:
    """Who said what, in order: side, opcode, and the fragments."""
    said: list[tuple[str, int, list[bytes]]] = []
    for frame in recording.frames:
        side = frame["dir"].partition("-")[0]
        if frame["opcode"]:
            said.append((side, frame["opcode"], [frame["payload"]]))
        else:
            [pieces for who, opcode, pieces in said if who == side and opcode == raw.BINARY][
                -1
            ].append(frame["payload"])
    return [each for each in said if each[2][0][:1] != b"\x03"]


@dataclass
class Replay:
    """Plays `theirs` side of a recording on a connection, and takes down what the live peer says."""

    recording: Recording
    theirs: Side
    connection: raw.Connection
    frames: list[raw.Message] = field(default_factory=list)  # the stream data that ours sent
    others: list[raw.Message] = field(default_factory=list)  # everything else that ours sent
    received: bytearray = field(default_factory=bytearray)
    correlations: dict[int, int] = field(default_factory=dict)  # the recorded number: ours
    channels: dict[int, int] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)  # by theirs
    said: int = 0  # frames of stream data
    late: int = 0  # those of them that were sent when the stream was known to be over
    closed: bool = False
    _credit: int = INITIAL_CREDIT
    _wanted: int = 0
    _over: bool = False  # the stream, by an error from either side

    def __post_init__(self) -> None:
        peer = self.recording.dialer if self.theirs == "dialer" else self.recording.listener
        self.go = peer == "go"

    def play(self) -> None:
        for side, opcode, pieces in spoken(self.recording):
            if side != self.theirs:
                if opcode == raw.BINARY:
                    self._await(raw.decode(b"".join(pieces)))
            elif opcode == raw.CLOSE:
                self.connection.send_frame(opcode, pieces[0])
                self.closed = True
            else:
                self._say(raw.decode(pieces[0]), pieces)

    # -- theirs

    def _say(self, head: raw.Message, pieces: list[bytes]) -> None:
        if head.kind in (raw.RESOLVE, raw.REJECT, *STREAM_ANSWERS):
            if head.correlation not in self.correlations:
                return  # its question was left out of the recording
            correlation = self.correlations[head.correlation]
            if head.kind in STREAM_ANSWERS:
                first = raw.stream_answer(head.kind, correlation, head.channel, head.payload)
            else:
                first = raw.answer(head.kind, correlation, head.payload)
        elif head.kind == raw.STREAM_DATA:
            first = self._stream_data(head)
        else:
            self.asked.add(head.correlation)
            first = pieces[0]
        self.connection.send_fragments([first, *pieces[1:]])

    def _stream_data(self, head: raw.Message) -> bytes:
        if head.flag == raw.STREAM_ERROR and not head.payload:
            self.pump(self._finished)  # how JS's reader takes leave: after the end
        self.said += 1
        self.late += self._over or self._finished()
        if head.flag == raw.QUOTA:
            self._credit += int.from_bytes(head.payload, "big")
        elif head.flag == raw.STREAM_ERROR:
            self._over = True
        channel = head.channel if self.go else self.channels[head.channel]
        return raw.stream_data(channel, head.flag, head.payload)

    # -- ours

    def _await(self, recorded: raw.Message) -> None:
        """Read on until ours has said what the recorded one had said."""
        if recorded.kind == raw.STREAM_DATA:
            self._await_stream_data(recorded)
        elif recorded.kind in (raw.OPEN_READABLE, raw.OPEN_WRITABLE, raw.REQUEST):
            found = self._find(lambda f: (f.role, f.event) == (recorded.role, recorded.event))
            assert (found.kind, found.payload) == (recorded.kind, recorded.payload)
            self.correlations[recorded.correlation] = found.correlation
            self.channels[recorded.channel] = found.channel
        elif recorded.correlation in self.asked:
            found = self._find(lambda f: f.correlation == recorded.correlation)
            self.channels[recorded.channel] = found.channel
            if recorded.kind == raw.STREAM_RESOLVE:
                assert (found.kind, found.payload) == (recorded.kind, recorded.payload)
                assert found.raw[1] == found.raw[2]  # the lengths of its two numbers

    def _await_stream_data(self, recorded: raw.Message) -> None:
        if self._over:
            return  # JS's writer goes on after an error
        if recorded.flag == raw.CHUNK:
            self._wanted += len(recorded.payload)
            # A legacy writer overshoots its credit, ours does not.
            self.pump(lambda: len(self.received) >= min(self._wanted, self._credit))
        elif recorded.flag == raw.FINISH:
            if self._wanted <= self._credit:  # else it comes after the next quota
                self.pump(self._finished)
        elif recorded.flag == raw.STREAM_ERROR and recorded.payload:
            self.pump(lambda: self._sent(raw.STREAM_ERROR))
            # JS's writer prefixes it.
            assert self.frames[-1].payload == recorded.payload.removeprefix(b"Error: ")
            self._over = True

    def _sent(self, flag: int) -> bool:
        return bool(self.frames) and self.frames[-1].flag == flag

    def _finished(self) -> bool:
        return self._sent(raw.FINISH)

    def _find(self, match: Callable[[raw.Message], bool]) -> raw.Message:
        """The first message that matches and was not found before."""
        self.pump(lambda: any(map(match, self.others)))
        index = next(i for i, found in enumerate(self.others) if match(found))
        return self.others.pop(index)

    def pump(self, until: Callable[[], bool]) -> None:
        while not until():
            found = raw.decode(self.connection.read_message())
            if found.kind != raw.STREAM_DATA:
                self.others.append(found)
                continue
            self.frames.append(found)
            if found.flag == raw.CHUNK:
                self.received += found.payload
                assert 0 < len(found.payload) <= LARGEST_CHUNK
                assert len(self.received) <= self._credit

    def settle(self) -> None:
        """Have everything said so far handled, and read what ours said until then."""
        correlation = 0xFFFFFF
        self.connection.send(raw.request("bench", "echo", correlation))
        self.pump(lambda: any(found.correlation == correlation for found in self.others))

    def recorded_bytes(self) -> bytes:
        """What theirs had written into the stream."""
        found = self.recording.envelopes(self.theirs)
        return b"".join(f.body for f in found if f.flag == raw.CHUNK)


# -- the live peer -----------------------------------------------------------------------------------


@dataclass
class Seen:
    """What ours saw of its end of a stream."""

    data: bytes = b""  # read, or written
    failure: str | None = None  # the text of the StreamError that it ended with


class Ours:
    """A live peer with both parts of the recorded scenarios."""

    def __init__(self, peer: roletalk.Peer) -> None:
        self.peer = peer
        self.ended: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
        self._serve(peer.role("bench"))

    def _serve(self, bench: roletalk.Role) -> None:
        @bench.on_request("echo")
        def echo(ctx: roletalk.Context) -> object:
            return ctx.data

        @bench.on_request("upstat")
        async def upstat(_: roletalk.Context) -> str:
            seen = await asyncio.shield(self.ended)
            last = {"bytes": len(seen.data), "err": seen.failure or "EOF"}
            return json.dumps({"done": 1, "last": last}, separators=(",", ":"))

        @bench.on_writable("download")
        async def download(ctx: roletalk.WritableContext) -> None:
            size, step = map(int, ctx.data.split())
            await self._write(ctx.accept("coming"), [bytes(step)] * (size // step))

        @bench.on_readable("upload")
        async def upload(ctx: roletalk.ReadableContext) -> None:
            assert ctx.data in ("hello", None)
            await self._read(ctx.accept("go ahead"))

        @bench.on_readable("destroyr")
        async def destroyr(ctx: roletalk.ReadableContext) -> None:
            await self._read(ctx.accept("x"), 3, "reader gives up")

        @bench.on_writable("destroyw")
        async def destroyw(ctx: roletalk.WritableContext) -> None:
            await self._write(ctx.accept("x"), [b"abc"], "writer gives up")

        @bench.on_readable("rejects")
        @bench.on_writable("rejects")
        def rejects(_: roletalk.ReadableContext | roletalk.WritableContext) -> None:
            raise roletalk.Reject("no stream")

    async def _read(self, opening: Any, enough: int = -1, reason: str = "") -> None:
        """Read all of a stream, or `enough` of it and abort."""
        seen = Seen()
        try:
            async with opening as stream:
                async for chunk in stream:
                    seen.data += chunk
                    if len(seen.data) >= enough >= 0:
                        await stream.abort(reason)
                        break
        except roletalk.StreamError as error:
            seen.failure = str(error)
        self.ended.set_result(seen)

    async def _write(self, opening: Any, chunks: list[bytes], reason: str | None = None) -> None:
        """Write `chunks`; then close the stream, or abort it."""
        seen = Seen(b"".join(chunks))
        try:
            stream = await opening
            for chunk in chunks:
                await stream.write(chunk)
            if reason is None:
                await stream.close()
            else:
                await stream.abort(reason)
        except roletalk.StreamError as error:
            seen.failure = str(error)
        self.ended.set_result(seen)

    # -- in the place of the dialer

    async def dial(
        self, scenario: str, *, asks_upstat: bool, requests: int, data: str | None
    ) -> None:
        bench = self.peer.destination("bench")
        await bench.wait_ready(raw.WAIT)
        for _ in range(requests):
            await bench.request("echo", data)
        if "dialer_reads" in scenario:
            await self._read(bench.readable("download", "30000 6000"))
        elif scenario == "stream_dialer_writes":
            chunks = [bytes([letter]) * 6000 for letter in b"abcde"]
            await self._write(bench.writable("upload", "hello"), chunks)
        elif scenario == "stream_reader_destroys":
            opening = bench.readable("download", "30000 6000")
            # All that is recorded before it: nothing is under way then.
            await self._read(opening, 18000, "client reader gives up")
        elif scenario == "stream_writer_destroys":
            await self._write(bench.writable("upload"), [b"abc"], "client writer gives up")
        elif scenario == "stream_remote_writer_destroys":
            await self._read(bench.readable("destroyw", "30000 6000"))
        elif scenario == "stream_remote_reader_destroys":
            stream = await bench.writable("destroyr")
            await stream.write(b"abc")
            await eventually(lambda: stream.closed)
            with pytest.raises(roletalk.StreamError) as caught:
                await stream.write(b"def")
            self.ended.set_result(Seen(b"abc", str(caught.value)))
        if asks_upstat:
            stat = json.loads((await bench.request("upstat")).data)
            assert stat["last"]["bytes"] == len(self.ended.result().data)


# -- what comes of it --------------------------------------------------------------------------------

DONE, CUT = None, object()  # everything went as it was meant to; the connection went

# How the stream ended for ours, for each of PAIRS.  Where the recording is one of Go and JS, it ends
# early: they could not stream to each other.
AS_LISTENER: dict[str, tuple[object, ...]] = {
    "stream_dialer_reads": (DONE, CUT, CUT, DONE),
    "stream_dialer_reads_after_300_requests": (DONE, DONE, CUT, DONE),
    "stream_dialer_writes": (DONE, CUT, DONE, DONE),
    "stream_reader_destroys": ("client reader gives up", CUT, *["client reader gives up"] * 2),
    "stream_remote_reader_destroys": (DONE, CUT, DONE, DONE),
    "stream_remote_writer_destroys": (DONE, DONE, DONE, DONE),
    "stream_writer_destroys": ("client writer gives up", CUT, *["client writer gives up"] * 2),
}
AS_DIALER: dict[str, tuple[object, ...]] = {
    "stream_dialer_reads": (DONE, CUT, CUT, DONE),
    "stream_dialer_reads_after_300_requests": (DONE, CUT, CUT, DONE),
    "stream_dialer_writes": (DONE, CUT, DONE, DONE),
    "stream_reader_destroys": (DONE, DONE, DONE, DONE),
    "stream_remote_reader_destroys": ("reader gives up", CUT, *["reader gives up"] * 2),
    "stream_remote_writer_destroys": ("writer gives up",) * 4,
    "stream_writer_destroys": (DONE, DONE, DONE, DONE),
}


def check(replay: Replay, ours: Side, seen: Seen, end: object, stats: dict[str, Any]) -> None:
    assert (seen.failure is None) is (end is DONE)
    if isinstance(end, str):
        assert seen.failure is not None
        assert end in seen.failure
    scenario, recorded = replay.recording.scenario, replay.recorded_bytes()
    quotas = [int.from_bytes(f.payload, "big") for f in replay.frames if f.flag == raw.QUOTA]
    last = replay.frames[-1].flag if replay.frames else None
    dialer_reads = any(
        f.kind is MessageType.OPEN_READABLE for f in replay.recording.envelopes("dialer")
    )
    ours_reads = dialer_reads is (ours == "dialer")
    aborts = end is DONE and "destroys" in scenario
    if ours_reads:
        assert recorded.startswith(seen.data)
        assert aborts or seen.data == recorded
        assert not replay.received
        assert replay.closed or quotas == [WINDOW - INITIAL_CREDIT]
    else:
        assert not quotas
        assert seen.data.startswith(replay.received)
        if end is DONE and not replay.closed:
            assert seen.data == replay.received
            assert aborts or last == raw.FINISH
    assert not aborts or replay.closed or last == raw.STREAM_ERROR
    for frame in replay.frames:
        assert frame.raw == raw.stream_data(frame.channel, frame.flag, frame.payload)
    assert not stats["drops"]
    assert stats["streams"] == 0
    assert stats["streams_opened"] == 1
    if not replay.closed:
        assert replay.late <= stats["late_stream_frames"] <= replay.said
    assert stats["stream_bytes_received"] <= len(recorded)
    if end is not CUT:
        assert stats["stream_bytes_sent"] == len(replay.received) or replay.closed


async def play(ours: Side, scenario: str, pair: str) -> None:
    recording = load(scenario, pair)
    theirs: Side = "dialer" if ours == "listener" else "listener"
    end = (AS_LISTENER if ours == "listener" else AS_DIALER)[scenario][PAIRS.index(pair)]
    mine = recording.peer_data(theirs)
    async with roletalk.Peer(name="ours") as peer:
        live = Ours(peer)
        listener = await peer.listen("127.0.0.1", 0)
        with await asyncio.to_thread(raw.dial, listener.port) as connection:
            await asyncio.to_thread(raw.authenticate, connection, data=mine)
            replay = Replay(recording, theirs, connection)
            dialling = None
            if ours == "dialer":
                asked = [f.event for f in recording.envelopes("dialer")]
                extra = 300 * ("300" in scenario)  # which the recording has left out
                dialling = asyncio.create_task(
                    live.dial(
                        scenario,
                        asks_upstat=b"upstat" in asked,
                        requests=extra + asked.count(b"echo"),
                        data="x" if recording.dialer == "go" else None,
                    )
                )
                await asyncio.to_thread(answer_requests, connection, extra)
            await asyncio.to_thread(replay.play)
            if replay.closed:
                await asyncio.to_thread(connection.wait_closed)
            elif end is CUT:
                await asyncio.to_thread(replay.settle)
                connection.drop()
            seen = await asyncio.wait_for(asyncio.shield(live.ended), raw.WAIT)
            if dialling is not None:
                await dialling
            if not replay.closed and end is not CUT:
                await asyncio.to_thread(replay.settle)
            await eventually(lambda: peer.stats()["streams"] == 0)
            check(replay, ours, seen, end, peer.stats())


def answer_requests(connection: raw.Connection, count: int) -> None:
    for _ in range(count):
        asked = raw.decode(connection.read_kind(raw.REQUEST))
        connection.send(raw.answer(raw.RESOLVE, asked.correlation, asked.payload))


@pytest.mark.parametrize("scenario", AS_LISTENER)
@each_pair
def test_live_in_the_place_of_the_listener(scenario: str, pair: str) -> None:
    run(play("listener", scenario, pair))


@pytest.mark.parametrize("scenario", AS_DIALER)
@each_pair
def test_live_in_the_place_of_the_dialer(scenario: str, pair: str) -> None:
    run(play("dialer", scenario, pair))


# -- rejects -----------------------------------------------------------------------------------------


@each_pair
def test_live_rejects_by_ours(pair: str) -> None:
    async def main() -> None:
        recording = load("stream_rejected", pair)
        async with roletalk.Peer(name="ours") as peer:
            Ours(peer)
            listener = await peer.listen("127.0.0.1", 0)
            with await asyncio.to_thread(raw.dial, listener.port) as connection:
                mine = recording.peer_data("dialer")
                await asyncio.to_thread(raw.authenticate, connection, data=mine)
                texts = []
                for message in recording.messages("dialer")[1:]:
                    connection.send(message)
                    correlation = raw.decode(message).correlation
                    found = await asyncio.to_thread(connection.read_answer, correlation)
                    assert found.kind == raw.STREAM_REJECT
                    assert found.raw[1] == found.raw[2]
                    texts.append(found.data)
                assert texts[:2] == ["no stream", "no stream"]
                assert all(isinstance(text, str) and text for text in texts)
            assert peer.stats()["streams_opened"] == 0

    run(main())


@each_pair
def test_live_rejects_by_theirs(pair: str) -> None:
    async def main() -> None:
        recording = load("stream_rejected", pair)
        mine = {**recording.peer_data("listener"), "roles": ["bench", "nobody"]}
        async with roletalk.Peer(name="ours") as peer:
            listener = await peer.listen("127.0.0.1", 0)
            bench, nobody = peer.destination("bench"), peer.destination("nobody")
            with await asyncio.to_thread(raw.dial, listener.port) as connection:
                await asyncio.to_thread(raw.authenticate, connection, data=mine)
                await nobody.wait_ready(raw.WAIT)
                playing = asyncio.to_thread(Replay(recording, "listener", connection).play)
                task = asyncio.create_task(playing)
                texts = []
                for opening in (
                    bench.readable("rejects"),
                    bench.writable("rejects"),
                    bench.writable("unknown"),
                    nobody.readable("unknown"),
                ):
                    with pytest.raises(roletalk.RemoteError) as caught:
                        await opening
                    texts.append(caught.value.text)
                await task
            if recording.listener == "go":
                assert texts == ["rejected"] * 4
            else:
                assert texts == [
                    "no stream",
                    "no stream",
                    'The event "unknown" is not handled',
                    'The role "nobody" is not registered',
                ]
            assert peer.stats()["streams_opened"] == 0

    run(main())
