from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from typing_extensions import Buffer, disjoint_base

from ._channels import Stream

@disjoint_base
class WritableStream(Stream):
    """The end of a stream that is written to (docs/protocol.md, section 7).

    An async context manager: leaving the block finishes the stream, an exception aborts it.
    """

    def write(self, data: Buffer) -> Coroutine[Any, Any, None]:
        """Write any buffer, of any size; await it.

        Done when all of it is handed to the connection: it waits while the other end has no room for
        more, or the connection is full.  `data` is not copied meanwhile and must not be changed.
        Cancelled while it waits, some part of it has been sent.

        Raised by the await: `StreamError` when the stream is over, `TypeError` for what is no buffer,
        `RuntimeError` while another write is under way.  Raised at once: `RuntimeError` in a wrong
        thread, loop or process.
        """
    async def close(self) -> None:
        """Finish the stream: the other end has read all of it once it has read what was written.

        Does nothing when it is finished already.  Raises `StreamError` when it has failed or was
        aborted, `RuntimeError` while a write is under way and in a wrong thread, loop or process.
        """
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
