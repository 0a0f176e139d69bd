"""WebSocket frames out and in (docs/protocol.md, section 1)."""

from typing import Any

import pytest

from tests.rawclient import BINARY

from .conftest import Measure
from .rig import Rig, loops

HEAD = b"\x6a\x01\x07\x00"
SIZES = {"32 B": 32, "1 KiB": 1024, "64 KiB": 65536}

each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
masked_or_not = pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])


@each_size
@masked_or_not
def test_build(measure: Measure, rig: Rig, masked: bool, size: int) -> None:
    """From 64 KiB on a frame leaves as soon as it is built."""
    connection, _ = rig.connection(is_client=masked)
    measure(loops.build_frames, connection, bytes(size))


@each_size
@masked_or_not
def test_send_chunk(measure: Measure, rig: Rig, masked: bool, size: int) -> None:
    """A stream's; a large one that needs no mask is not copied."""
    connection, _ = rig.connection(is_client=masked)
    measure(loops.send_chunks, connection, HEAD, bytes(size))


@each_size
@masked_or_not
def test_receive(measure: Measure, rig: Rig, masked: bool, size: int) -> None:
    """From the transport's read to the whole message; 256 KiB at a time are there to be read."""
    connection, remote = rig.connection(is_client=not masked)
    frame = remote.frame(BINARY, bytes(size))
    together = max(1, min(1000, (256 << 10) // len(frame)))
    measure(receive, connection, remote.transport.protocol, frame, together)


def receive(connection: Any, protocol: Any, frame: bytes, together: int, count: int) -> None:
    before = connection.messages
    for at in range(0, count, together):
        feed(protocol, memoryview(frame * min(together, count - at)))
    assert connection.messages - before == count


def feed(protocol: Any, data: memoryview) -> None:
    while data:
        room = protocol.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        data = data[size:]
        protocol.buffer_updated(size)
