from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from typing_extensions import disjoint_base

from ._channels import Stream
from ._context import RequestContext
from ._readable import ReadableStream
from ._writable import WritableStream

_S = TypeVar("_S", bound=Stream)

@disjoint_base
class StreamOpening(Coroutine[Any, Any, _S]):
    __name__: str
    __qualname__: str
    def __await__(self) -> Generator[Any, Any, _S]: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, *exc_info: Any) -> Any: ...
    def close(self) -> None: ...
    async def __aenter__(self) -> _S: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

@disjoint_base
class StreamContext(RequestContext):
    """A stream request: what both of its kinds have in common."""

    def reply(self, data: object = None) -> NoReturn:
        """Raises `RuntimeError`: a stream request is accepted or rejected."""
    def accept(self, data: object = None) -> StreamOpening[Any]:
        """Accept the stream, with `data` for the other end; await or enter it for the stream.

        The stream ends with its handler: when that returns, a stream that is written is finished, one
        that is read and not at its end is aborted; when it raises, the stream is aborted.

        Raised by the await: `RuntimeError` when it is answered already, and in a wrong thread, loop or
        process; `StreamError` when the connection that it came in on is lost; `TypeError` and
        `ValueError` when `data` cannot be encoded (it is not answered then).
        """

class ReadableContext(StreamContext):
    """A stream request whose handler reads."""

    def accept(self, data: object = None) -> StreamOpening[ReadableStream]: ...

class WritableContext(StreamContext):
    """A stream request whose handler writes."""

    def accept(self, data: object = None) -> StreamOpening[WritableStream]: ...
