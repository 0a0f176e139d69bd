import asyncio

from typing_extensions import disjoint_base

from ._buffer import Account, ReadSpace

@disjoint_base
class FrameLimits:
    max_message_size: int
    max_fragments: int
    high_water: int
    low_water: int
    max_unsent: int
    close_timeout: float
    def __init__(
        self,
        *,
        max_message_size: int = 16777216,
        high_water: int = 1048576,
        low_water: int = 262144,
        close_timeout: float = 2.0,
    ) -> None: ...

@disjoint_base
class Inbound:
    """What a transport reads for one connection: bytes in, whole messages out."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: FrameLimits,
        *,
        is_client: bool,
        space: ReadSpace | None = None,
        account: Account | None = None,
        takes_text: bool = False,
    ) -> None: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def limits(self) -> FrameLimits: ...
    @property
    def is_client(self) -> bool: ...
    @property
    def takes_text(self) -> bool: ...
    @property
    def is_text(self) -> bool: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def received_at(self) -> float: ...
    def is_buffered_protocol(self) -> bool: ...
    def get_buffer(self, hint: int) -> memoryview: ...
    def buffer_updated(self, bytes_read: int) -> None: ...
    def data_received(self, data: bytes) -> None: ...
