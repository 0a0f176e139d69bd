"""Values drawn out of a fuzzer's bytes, so that it mutates what a grammar makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

Cutter = Callable[[bytes], Iterator[bytes]]

MOST_PIECES = 400
PIECES = (1, 2, 3, 5, 14, 63, 64, 65, 1000, 4096, 16_384, 65_536, 300_000)  # bytes


class Source:
    """Draws from the front of `data`; when that is used up, every draw is the smallest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or as many as there are."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def byte(self) -> int:
        return self.number(1)

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def flag(self) -> bool:
        return bool(self.byte() & 1)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def some(self, most: int = 255) -> bytes:
        """Bytes, up to `most` of them."""
        return self.take(min(self.byte(), most))

    def text(self, most: int = 40) -> str:
        return self.some(most).decode("utf-8", "replace")


def pattern(size: int, seed: int) -> bytes:
    """`size` bytes that are not alike, without `size` bytes of the fuzzer's."""
    unit = bytes((seed + 31 * at) & 255 for at in range(251))
    return (unit * (size // len(unit) + 1))[:size]


def cutter(source: Source) -> Cutter:
    """What cuts bytes into the pieces that they are read in."""
    sizes = [source.pick(PIECES) + source.byte() % 4 for _ in range(1 + source.byte() % 4)]

    def cut(data: bytes) -> Iterator[bytes]:
        least = len(data) // MOST_PIECES
        at = turn = 0
        while at < len(data):
            size = max(sizes[turn % len(sizes)], least)
            yield data[at : at + size]
            at += size
            turn += 1

    return cut
