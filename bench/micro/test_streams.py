"""Streams: whose turn it is to send, and what a reader makes of the chunks that come."""

import pytest

from .conftest import Measure
from .rig import Rig, loops

SIZES = {"1 KiB": 1024, "64 KiB": 65536}

each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


@each_size
@pytest.mark.parametrize("streams", [1, 10, 100])
def test_pump(measure: Measure, rig: Rig, streams: int, size: int) -> None:
    """A chunk of a stream is scheduled and leaves, without a mask."""
    (link,) = rig.unit(is_client=False).links
    opened = [loops.open_writable(link, number + 1) for number in range(streams)]
    chunk = bytes(size)

    def pump(count: int) -> None:
        before = link.bytes_sent
        loops.pump_chunks(link, opened, chunk, count)
        assert link.bytes_sent + link.unsent_bytes - before >= count * size

    measure(pump)


@each_size
def test_read(measure: Measure, rig: Rig, size: int) -> None:
    """A chunk comes in and is read; what was read is granted anew."""
    (link,) = rig.unit(is_client=False).links
    measure(loops.read_chunks, link, loops.open_readable(link, 1), bytes(size))
