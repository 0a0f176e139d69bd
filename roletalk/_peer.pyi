import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import disjoint_base

from ._buffer import Account, ReadSpace
from ._calls import CallTable
from ._dispatch import HandlerTable
from ._frame import Connection
from ._inbound import FrameLimits
from .remote_log import RemoteLog
from .stats import Counters

def clock() -> float: ...

@disjoint_base
class PeerCore:
    """What the hot path needs of a peer."""

    request_timeout: float | None
    expose_errors: bool
    max_handlers: int
    max_handler_bytes: int
    max_pending: int
    slow_handler: float
    max_streams: int
    stream_window: int
    stream_buffer: int
    def __init__(
        self,
        limits: FrameLimits,
        *,
        request_timeout: float | None,
        expose_errors: bool,
        max_handlers: int,
        max_handler_bytes: int,
        max_pending: int,
        slow_handler: float,
        max_streams: int,
        stream_window: int,
        stream_buffer: int,
        max_received_bytes: int,
        remote_log: RemoteLog,
    ) -> None: ...
    # None until bind(), after which everybody who uses it comes.
    @property
    def loop(self) -> asyncio.AbstractEventLoop | Any: ...
    @property
    def makes_tasks(self) -> bool: ...
    @property
    def limits(self) -> FrameLimits: ...
    @property
    def read_space(self) -> ReadSpace: ...
    @property
    def account(self) -> Account: ...
    @property
    def remote_log(self) -> RemoteLog: ...
    @property
    def table(self) -> HandlerTable: ...
    @property
    def drops(self) -> dict[str, int]: ...
    def bind(self) -> None:
        """Bind the peer to the running loop, or raise `RuntimeError` when it is bound elsewhere."""
    def check_thread(self) -> None:
        """For plain calls that may come before the loop runs: raise only in a wrong thread or process."""
    def count_drop(self, reason: str) -> None: ...
    def count_link(self, link: Connection) -> None:
        """Take over the byte counts of a connection that is gone."""
    def counted(self) -> Counters:
        """The counters of messages, requests and bytes, as a new dict."""
    def keep_pending(self, table: CallTable) -> None:
        """A unit is gone, but requests that ignore it may wait on in its table."""
    def fail_pending(
        self,
        tables: Iterable[CallTable],
        make_error: Callable[[str, str], Exception],
    ) -> None:
        """Fail all that is pending, in `tables` and in those of units that are gone."""
    def stop_sweeping(self) -> None: ...
