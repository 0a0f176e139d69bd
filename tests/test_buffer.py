"""The growable buffer: contents, growth, and what it does when memory cannot be had."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roletalk._buffer import ReadSpace, WriteBuffer
from roletalk._frame import Connection
from roletalk._inbound import FrameLimits


def test_a_new_buffer_is_empty_and_holds_no_memory() -> None:
    buffer = WriteBuffer()
    assert len(buffer) == 0
    assert buffer.getvalue() == b""
    assert buffer.allocated == 0


def test_writes_follow_each_other() -> None:
    buffer = WriteBuffer()
    buffer.write(b"abc")
    buffer.write(b"")
    buffer.write(b"\x00def")
    assert buffer.getvalue() == b"abc\x00def"
    assert len(buffer) == 7


def test_an_empty_write_on_a_buffer_without_memory() -> None:
    buffer = WriteBuffer()
    buffer.write(b"")
    assert buffer.getvalue() == b""


def test_contents_survive_growth() -> None:
    buffer = WriteBuffer()
    expected = b""
    for number in range(2000):
        piece = number.to_bytes(2, "big")
        buffer.write(piece)
        expected += piece
    assert buffer.getvalue() == expected


def test_growth_doubles() -> None:
    buffer = WriteBuffer()
    capacities: list[int] = []
    for _ in range(1 << 16):
        buffer.write(b"x")
        if not capacities or buffer.allocated != capacities[-1]:
            capacities.append(buffer.allocated)
    assert all(after == 2 * before for before, after in itertools.pairwise(capacities))


def test_one_write_larger_than_double() -> None:
    buffer = WriteBuffer()
    buffer.write(b"a")
    buffer.write(b"b" * 100_000)
    assert buffer.getvalue() == b"a" + b"b" * 100_000


@pytest.mark.parametrize("count", [sys.maxsize, sys.maxsize - 1, sys.maxsize // 2 + 1])
def test_memory_that_cannot_be_had_leaves_the_buffer_as_it_was(count: int) -> None:
    buffer = WriteBuffer()
    buffer.write(b"kept")
    with pytest.raises(MemoryError):
        buffer.write_zeros(count)
    assert buffer.getvalue() == b"kept"
    buffer.write(b" on")
    assert buffer.getvalue() == b"kept on"


def test_a_negative_size_is_refused() -> None:
    buffer = WriteBuffer()
    with pytest.raises(MemoryError):
        buffer.write_zeros(-1)
    assert len(buffer) == 0


def test_drop_takes_from_the_front() -> None:
    buffer = WriteBuffer()
    buffer.write(b"abcdef")
    buffer.drop(0)
    buffer.drop(2)
    assert buffer.getvalue() == b"cdef"
    buffer.write(b"gh")
    assert buffer.getvalue() == b"cdefgh"
    buffer.drop(6)
    assert buffer.getvalue() == b""


@pytest.mark.parametrize("count", [-1, 4])
def test_drop_refuses_what_is_not_there(count: int) -> None:
    buffer = WriteBuffer()
    buffer.write(b"abc")
    with pytest.raises(ValueError, match="within the written bytes"):
        buffer.drop(count)
    assert buffer.getvalue() == b"abc"


def test_reset_keeps_the_memory_unless_told_to_free_it() -> None:
    buffer = WriteBuffer()
    buffer.write(b"x" * 5000)
    held = buffer.allocated
    buffer.reset()
    assert (len(buffer), buffer.allocated) == (0, held)
    buffer.write(b"again")
    buffer.reset(free=True)
    assert (len(buffer), buffer.allocated) == (0, 0)
    buffer.write(b"and again")
    assert buffer.getvalue() == b"and again"


@given(st.lists(st.one_of(st.binary(max_size=3000), st.integers(0, 4000)), max_size=40))
def test_it_behaves_like_a_bytearray(steps: list[bytes | int]) -> None:
    buffer = WriteBuffer()
    model = bytearray()
    for step in steps:
        if isinstance(step, bytes):
            buffer.write(step)
            model += step
        else:
            count = min(step, len(model))
            buffer.drop(count)
            del model[:count]
        assert buffer.getvalue() == model


# -- what is read into -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [sys.maxsize, -1])
def test_a_read_space_that_cannot_be_had(size: int) -> None:
    with pytest.raises(MemoryError):
        ReadSpace(size)


def test_a_read_space_gives_its_memory_back() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        space = ReadSpace(1 << 20)
        assert tracemalloc.get_traced_memory()[0] - before >= 1 << 20
        del space
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 10
    finally:
        tracemalloc.stop()


def test_what_is_read_does_not_go_beyond_the_space() -> None:
    async def main() -> None:
        for size in (1, 14, 1000):
            connection = Connection(
                asyncio.get_running_loop(), FrameLimits(), is_client=False, space=ReadSpace(size)
            )
            assert len(connection.get_buffer(-1)) == size

    asyncio.run(main())
