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
    def reply(self, data: object = None) -> NoReturn: ...
    def accept(self, data: object = None) -> StreamOpening[Any]: ...

class ReadableContext(StreamContext):
    def accept(self, data: object = None) -> StreamOpening[ReadableStream]: ...

class WritableContext(StreamContext):
    def accept(self, data: object = None) -> StreamOpening[WritableStream]: ...
