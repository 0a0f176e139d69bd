"""A connected unit: any messages and any use of what they open, in any order (sections 3, 5, 7).

However it goes: nothing but what is documented is raised, whatever is sent is well-formed, what a reader
gets is what was written, and nothing is held once the unit is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import roletalk
from roletalk.gate import Admission
from trials.fuzz import reference
from trials.fuzz.source import Cutter, Source, cutter, pattern
from trials.fuzz.still import StillTransport

MAX_LENGTH: Final = 600  # bytes of an input: what it stands for is longer
LOOP: Final = asyncio.new_event_loop()
STREAM_BUFFER: Final = 1 << 20
FIRST_SERIAL: Final = 1000  # the correlations below are an attacker's
RUNTIMES: Final = ("nodejs v20.1.0", "GO", "nodejs v22.1.0", "python")
KINDS: Final = (*range(100, 109), 200, 201, 99, 109, 0, 3)
SIZES: Final = (0, 1, 100, 4095, 4096, 16_384, 16_390, 40_000, 65_536, 70_000, 200_000)
LATE: Final = 30.0  # s that an end may take, on a busy machine


class _Faults(logging.Handler):
    """Errors that a connection survives by closing; only handlers of this module may fail."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, _MeantError):
            self.found.append(f"{record.getMessage()}: {error!r}")


class _MeantError(Exception):
    """A handler of this module fails."""


FAULTS: Final = _Faults()
LOG: Final = logging.getLogger("roletalk")


def test_one(data: bytes) -> None:
    FAULTS.found.clear()
    LOOP.set_exception_handler(lambda _, context: FAULTS.found.append(str(context)))
    LOG.addHandler(FAULTS)
    try:
        LOOP.run_until_complete(asyncio.wait_for(_play(Source(data)), LATE))
    finally:
        LOG.removeHandler(FAULTS)
    assert not FAULTS.found, FAULTS.found


async def _play(source: Source) -> None:
    await _Scene(source).play()


class _Scene:
    """One unit of one peer, and its remote end, which is the fuzzer's."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.cut: Cutter = cutter(source)
        self.runtime = source.pick(RUNTIMES)
        self.peer = roletalk.Peer(
            max_message_size=100_000,
            high_water=40_000,
            low_water=10_000,
            max_handlers=20,
            max_pending=20,
            max_streams=5,
            stream_window=65_536,
            stream_buffer=STREAM_BUFFER,
        )
        self.peer.bind()
        self.go_on = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self.streams: list[Any] = []  # that were opened from here
        self.serial = FIRST_SERIAL
        self.asked: set[int] = set()  # correlations of what we asked the remote end
        self.channels: list[int] = []  # that we receive on
        self.uploads: dict[int, int] = {}  # channel to serial
        self.sent: dict[int, bytearray] = {}  # by serial: what was written to us
        self.got: dict[int, bytearray] = {}
        self.is_honest = True  # whether serials are what they are meant to be
        self._add_handlers()

    async def play(self) -> None:
        admission = Admission(self.peer)
        self.transport = StillTransport(LOOP, admission.link)
        admission.link.upgraded(self.transport, b"", -1)
        self.say(b"\x03" + json.dumps(self._peer_data()).encode())
        unit = admission.result.result()
        self.unit = unit
        self.far = self.peer.destination("far")
        self.listen()
        acts = (
            self.raw_message, self.any_message, self.request, self.stream_frame, self.upload_frame,
            self.upload, self.answer, self.ask, self.open_stream, self.use_stream, self.turn, self.turn,
            self.cancel, self.let_go_on, self.stall, self.any_frame,
        )  # fmt: skip
        while not self.source.is_empty and not self.transport.closing:
            act: Callable[[], None] = self.source.pick(acts)
            act()
            if self.source.flag():
                await asyncio.sleep(0)
            self.listen()
        await self._end(admission, unit)

    # -- what the peer's user does

    def _add_handlers(self) -> None:
        role = self.peer.role("r")
        role.on_request("now")(lambda ctx: ctx.data)
        role.on_message("now")(lambda ctx: ctx.data)
        role.on_request("fail")(self._fail)
        role.on_request("later")(self._later)
        role.on_message("later")(self._later)
        role.on_readable("up")(self._read)
        role.on_readable("tired")(self._read_little)
        role.on_writable("down")(self._write)
        role.on_writable("no")(self._fail)

    def _fail(self, ctx: Any) -> None:
        raise _MeantError if ctx.datatype else roletalk.Reject("no")

    async def _later(self, ctx: Any) -> object:
        await self.go_on.wait()
        return ctx.data

    async def _read(self, ctx: Any) -> None:
        serial = ctx.data if type(ctx.data) is int else 0
        got = self.got.setdefault(serial, bytearray())
        async with ctx.accept({"ok": True}) as stream:
            if serial & 1:
                await self.go_on.wait()
            async for chunk in stream:
                got += chunk
                if serial & 2:
                    await asyncio.sleep(0)

    async def _read_little(self, ctx: Any) -> None:
        async with ctx.accept() as stream:
            await stream.read(10)
            await self.go_on.wait()
            await stream.readinto(bytearray(5000))

    async def _write(self, ctx: Any) -> None:
        async with ctx.accept() as stream:
            for size in (10, 20_000, 100_000, 0, 300_000):
                await stream.write(bytes(size))

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append(LOOP.create_task(coroutine))

    def ask(self) -> None:
        text = self.source.text()

        # Asked by its task: one that is cancelled before its first step leaves no call that nobody awaits.
        async def ask() -> None:
            await self.far.request("e", text, unit=self.unit, timeout=None)

        self.begin(ask())

    def open_stream(self) -> None:
        opener: Any = self.far.readable if self.source.flag() else self.far.writable

        async def hold() -> None:
            self.streams.append(await opener("e", None, unit=self.unit, timeout=None))

        self.begin(hold())

    def use_stream(self) -> None:
        if not self.streams:
            return
        stream = self.source.pick(self.streams)
        act = self.source.byte() % 4
        if act == 0:
            self.begin(stream.abort("enough"))
        elif isinstance(stream, roletalk.WritableStream):
            if act == 1:
                self.begin(stream.close())
            else:
                self.begin(stream.write(bytes(self.source.pick(SIZES))))
        elif act == 1:
            self.begin(stream.readinto(bytearray(self.source.pick(SIZES))))
        elif act == 2:
            self.begin(stream.readexactly(self.source.pick(SIZES)))
        else:
            self.begin(stream.read(self.source.pick((-1, 0, 10, 100_000))))

    def cancel(self) -> None:
        if self.tasks:
            self.source.pick(self.tasks).cancel()

    def let_go_on(self) -> None:
        self.go_on.set()
        self.go_on = asyncio.Event() if self.source.flag() else self.go_on

    def turn(self) -> None:
        """Only let a turn of the loop pass."""

    def stall(self) -> None:
        self.transport.stalled = not self.transport.stalled
        if not self.transport.stalled:
            self.transport.take()

    # -- what the remote end says

    def _peer_data(self) -> dict[str, Any]:
        meta = {"os": "", "runtime": self.runtime, "time": 1, "uptime": 1, "protocol": "2.0.0"}
        features = ["streams"] if self.runtime == "python" else []
        return {
            "id": "remote",
            "name": "",
            "roles": ["far"],
            "friendly": False,
            "meta": meta,
            "rt2": {"v": 2, "features": features},
        }

    def feed(self, data: bytes) -> None:
        for piece in self.cut(data):
            self.transport.feed(piece)

    def say(self, message: bytes) -> None:
        self.feed(reference.frame(reference.BINARY, message, mask=b"mask"))

    def any_frame(self) -> None:
        opcode = self.source.pick((9, 10, 2, 0, 8, 1))
        fin = self.source.flag() or opcode >= 8
        # What comes after an unfinished message is part of it.
        self.is_honest = self.is_honest and fin
        self.feed(reference.frame(opcode, self.source.some(125), fin=fin, mask=b"mask"))

    def raw_message(self) -> None:
        self.is_honest = False
        self.say(self.source.take(self.source.number(2) % 4096))

    def any_message(self) -> None:
        kind = self.source.pick(KINDS)
        channel = self.channel()
        if kind == reference.STREAM_DATA and channel in self.uploads:
            return
        parts = [
            self.source.some(40) if self.source.flag() else b"r",
            self.source.some(40) if self.source.flag() else b"now",
            _number(self.source.number(2) % FIRST_SERIAL),
            _number(channel),
        ]
        self.say(_envelope(kind, *parts) + self.source.some())

    def request(self) -> None:
        kind = self.source.pick((101, 100, 103, 104))
        event = self.source.pick((b"now", b"later", b"fail", b"up", b"tired", b"down", b"no"))
        correlation = _number(self.source.number(1))
        remote = _number(self.source.number(1))
        self.say(_envelope(kind, b"r", event, correlation, remote) + self.payload())

    def answer(self) -> None:
        kind = self.source.pick((102, 105, 107, 108))
        if not self.asked:
            return
        correlation = self.source.pick(sorted(self.asked))
        remote = _number(self.source.number(1))
        self.say(_envelope(kind, b"", b"", _number(correlation), remote) + self.payload())

    def upload(self) -> None:
        """A stream whose bytes are kept account of."""
        self.serial += 1
        correlation, remote = _number(self.serial), _number(10_000 + self.serial)
        payload = b"\x04%d" % self.serial
        self.sent[self.serial] = bytearray()
        self.say(_envelope(104, b"r", b"up", correlation, remote) + payload)

    def upload_frame(self) -> None:
        if not self.uploads:
            return
        channel = self.source.pick(sorted(self.uploads))
        flag = 0 if self.source.flag() else self.source.pick((0, 0, 0, 1, 2, 7))
        size = self.source.pick(SIZES) + self.source.byte() % 4
        data = pattern(size, self.source.byte()) if flag == 0 else self.source.some(20)
        if self.transport.closing:
            return
        if flag == 0:
            self.sent[self.uploads[channel]] += data
        self.say(_stream_frame(channel, flag, data))

    def stream_frame(self) -> None:
        channel, flag = self.channel(), self.source.byte() % 5
        if channel in self.uploads and flag == 0:
            return
        data = self.source.some(10) if flag else pattern(self.source.pick(SIZES), 0)
        self.say(_stream_frame(channel, flag, data))

    def channel(self) -> int:
        if self.channels and self.source.flag():
            return self.source.pick(self.channels)
        return self.source.number(1)

    def payload(self) -> bytes:
        return bytes([self.source.byte() % 7]) + self.source.some()

    # -- what it hears

    def listen(self) -> None:
        """All that was sent is well-formed, and tells what may be answered."""
        for opcode, payload in reference.frames(self.transport.written(), from_client=False):
            assert opcode in (reference.BINARY, reference.CLOSE, reference.PONG), opcode
            if opcode == reference.CLOSE:
                # 1011 is a fault of our own.
                assert payload[:2] != (1011).to_bytes(2, "big"), payload
            if opcode != reference.BINARY or payload[0] == 3:
                continue
            message = reference.parse_message(payload)
            if message.kind in (101, 103, 104) and message.correlation is not None:
                assert message.role == b"far"
                self.asked.add(message.correlation)
            if message.channel and message.kind in (103, 104, 107):
                self.channels.append(message.channel)
            if message.kind == 107 and message.correlation in self.sent:
                self.uploads.setdefault(message.channel or 0, message.correlation)

    async def _end(self, admission: Admission, unit: roletalk.Unit) -> None:
        how = self.source.byte() % 3
        if how == 0:
            admission.link.close(4000, "the end")
        self.transport.stalled = False
        self.transport.take()
        self.transport.abort()
        await unit._lost.wait()
        self.go_on.set()
        # Readers that have all of it read it.
        for _ in range(5):
            await asyncio.sleep(0)
        while unit.tasks:
            await asyncio.wait(tuple(unit.tasks))
        for task in self.tasks:
            if not task.done():
                task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for task in self.tasks:
            assert task.cancelled() or _is_documented(task.exception()), task.exception()
        for stream in self.streams:
            await stream.abort()
        self._check(unit)
        await self.peer.close()

    def _check(self, unit: roletalk.Unit) -> None:
        if self.is_honest:
            for serial, written in self.sent.items():
                got = self.got.get(serial, b"")
                assert bytes(written).startswith(bytes(got)), f"upload {serial} was garbled"
        stats = self.peer.stats()
        for name in ("units", "connections", "unsent_bytes", "pending_requests", "streams"):
            assert stats[name] == 0, (name, stats[name])
        assert stats["running_handlers"] == stats["handshakes"] == 0
        assert unit.handling == 0
        assert unit.calls.used == 0
        assert unit.streams.open == 0
        assert unit.streams.spare == STREAM_BUFFER, unit.streams.spare


def _is_documented(error: BaseException | None) -> bool:
    if isinstance(error, RuntimeError) and "by one task at a time" in str(error):
        # Two tasks of this module at one stream.
        return True
    return isinstance(error, (type(None), roletalk.RoletalkError, asyncio.IncompleteReadError))


# -- messages --------------------------------------------------------------------------------------


def _number(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def _envelope(kind: int, role: bytes, event: bytes, correlation: bytes, channel: bytes) -> bytes:
    """All of a message but its payload; of the parts those that its kind has."""
    head, body = bytes([kind]), b""
    if kind in reference.NAMED:
        head += len(role).to_bytes(2, "big") + len(event).to_bytes(2, "big")
        body += role + event
    if kind in reference.CORRELATED:
        head += bytes([len(correlation)])
        body += correlation
    if kind in reference.CHANNELLED:
        head += bytes([len(channel)])
        body += channel
    return head + body


def _stream_frame(channel: int, flag: int, data: bytes) -> bytes:
    return _envelope(reference.STREAM_DATA, b"", b"", b"", _number(channel)) + bytes([flag]) + data
