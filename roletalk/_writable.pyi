from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from typing_extensions import Buffer, disjoint_base

from ._channels import Stream

@disjoint_base
class WritableStream(Stream):
    def write(self, data: Buffer) -> Coroutine[Any, Any, None]: ...
    async def close(self) -> None: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
