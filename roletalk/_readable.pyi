from types import TracebackType

from typing_extensions import Buffer, Self, disjoint_base

from ._channels import Stream

@disjoint_base
class ReadableStream(Stream):
    """The end of a stream that is read from (docs/protocol.md, section 7).

    Iterating gives the bytes as they come, in pieces that are never empty; how they were cut by the
    writer is not kept.  What had come before a failure is still read, then each read raises
    `StreamError`: only a stream that its writer has finished has an end.

    An async context manager: leaving the block before the end makes the writer stop.
    """

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, as soon as there are any; b"" at the end.  With -1, all to the end.

        Cancelled, it has read nothing.  Raises `StreamError` when the stream has failed, `RuntimeError`
        while another read waits, and in a wrong thread, loop or process.
        """
    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes.

        Raises `asyncio.IncompleteReadError`, with what there was, when the end comes first,
        `ValueError` when `n` is negative, and what `read` raises.
        """
    async def readinto(self, buffer: Buffer) -> int:
        """Read into a writable buffer, as soon as there are bytes; returns their count, 0 at the end.

        Raises `TypeError` for what is no writable, contiguous buffer, and what `read` raises.
        """
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> bytes: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
