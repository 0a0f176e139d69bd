"""Processes that talk to each other without a broker: roles, units, destinations."""

import logging

from . import _abi as _abi  # first: refuses a picows that the compiled modules were not built for
from ._context import Context, RequestContext
from ._opening import ReadableContext, WritableContext
from ._readable import ReadableStream
from ._session import Link as Connection
from ._version import __version__
from ._wire import CloseCode, DataType
from ._writable import WritableStream
from .destination import Destination
from .errors import (
    AuthError,
    BadPayload,
    ConnectError,
    NoUnitsError,
    ProtocolError,
    Reject,
    RemoteError,
    RequestTimeout,
    RoletalkError,
    StreamError,
    UnitClosedError,
    WouldBlock,
)
from .keys import generate_key
from .listener import Listener
from .middleware import CallNext, Kind
from .peer import Peer
from .role import Role
from .singletons import singleton
from .stats import Stats
from .unit import Unit

# Quiet unless the application says otherwise.
logging.getLogger("roletalk").addHandler(logging.NullHandler())

__all__ = [
    "AuthError",
    "BadPayload",
    "CallNext",
    "CloseCode",
    "ConnectError",
    "Connection",
    "Context",
    "DataType",
    "Destination",
    "Kind",
    "Listener",
    "NoUnitsError",
    "Peer",
    "ProtocolError",
    "ReadableContext",
    "ReadableStream",
    "Reject",
    "RemoteError",
    "RequestContext",
    "RequestTimeout",
    "Role",
    "RoletalkError",
    "Stats",
    "StreamError",
    "Unit",
    "UnitClosedError",
    "WouldBlock",
    "WritableContext",
    "WritableStream",
    "__version__",
    "generate_key",
    "singleton",
]
