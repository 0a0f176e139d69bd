"""Reading a connection: any frames, cut anywhere, come to what a simple parser makes of them at once."""

from __future__ import annotations

from typing import Any, Final

from roletalk._frame import Connection, ConnectionState
from roletalk._inbound import FrameLimits
from trials.fuzz import reference
from trials.fuzz.source import Source, cutter, pattern
from trials.fuzz.still import StillLoop, StillTransport

OPCODES: Final = (2, 0, 2, 0, 9, 10, 8, 1, 3, 11)
# At each end of each form of the length, and around the sizes at which reading changes its ways.
SIZES: Final = (
    0,
    1,
    2,
    63,
    64,
    65,
    125,
    126,
    127,
    4095,
    4096,
    4097,
    16_383,
    16_384,
    65_535,
    65_536,
)
LARGEST: Final = (16 << 20, 5000, 100, 0)  # of a message
MAX_LENGTH: Final = 1000  # bytes of an input: what it stands for is longer
LOOP: Final = StillLoop()


class _Recorder(Connection):
    """Keeps what it receives, and answers each message with its first bytes."""

    def __init__(self, limits: FrameLimits, *, is_client: bool, echo: int) -> None:
        loop: Any = LOOP
        super().__init__(loop, limits, is_client=is_client)
        self.echo = echo
        self.messages: list[bytes] = []

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)
        if self.echo:
            self.send_message(message[: self.echo])


def test_one(data: bytes) -> None:
    source = Source(data)
    is_client = source.flag()
    limits = FrameLimits(max_message_size=source.pick(LARGEST))
    limits.max_fragments = source.pick((1000, 1, 2, 5))
    budget = source.pick((-1, -1, -1, 0, 100, 20_000))
    early = source.number(2)
    echo = source.pick((0, 0, 100, 5000))
    cut = cutter(source)
    frames = _frames(source, from_client=not is_client)
    expected = reference.read(
        frames,
        from_client=not is_client,
        most=limits.max_message_size,
        fragments=limits.max_fragments,
        budget=budget,
    )
    # What came along with the upgrade is no read; the gate bounds it.
    early = min(early, len(frames), budget + 1 if budget >= 0 else len(frames))

    connection = _Recorder(limits, is_client=is_client, echo=echo)
    transport = StillTransport(LOOP, connection)
    connection.upgraded(transport, frames[:early], budget)
    for piece in cut(frames[early:]):
        transport.feed(piece)
        LOOP.run()
    LOOP.run()
    sent = reference.frames(transport.written(), from_client=is_client)

    assert connection.messages == expected.messages
    assert connection.bytes_received == sum(map(len, expected.messages))
    assert [each for opcode, each in sent if opcode == 2] == [
        message[:echo] for message in expected.messages if echo
    ]
    assert [_short(*each) for each in sent if each[0] != 2] == expected.answers
    assert connection.close_code == (expected.close_code or 1006 * transport.lost)
    assert transport.closing == expected.dropped
    if expected.dropped:
        assert connection.state == ConnectionState.CLOSED
    transport.abort()
    LOOP.run()
    assert connection.state == ConnectionState.CLOSED
    assert connection.unsent_bytes == 0


def _short(opcode: int, payload: bytes) -> tuple[int, bytes]:
    return opcode, payload[:2] if opcode == reference.CLOSE else payload


def _frames(source: Source, *, from_client: bool) -> bytes:
    """Frames out of a grammar, or bytes as they are."""
    if source.flag():
        return source.rest()
    parts = []
    while not source.is_empty:
        opcode = source.pick(OPCODES)
        form = source.byte()
        large = 0 if form & 1 else source.pick(SIZES) + source.byte() % 3
        payload = source.some() if form & 1 else pattern(large, form)
        mask = source.take(4).ljust(4, b"\0") if from_client != (form & 0xF0 == 0xF0) else None
        rsv = 1 if form & 0x1E == 0x1E else 0
        frame = reference.frame(
            opcode, payload, fin=not form & 2 or opcode >= 8, rsv=rsv, mask=mask
        )
        if form & 0xE0 == 0x60:
            # Some of its bytes changed, or cut off.
            at = source.number(2) % len(frame)
            frame = frame[:at] + source.some(8) + frame[at + source.byte() % 8 :]
        parts.append(frame)
    return b"".join(parts)
