import enum

__all__ = ["CloseCode", "DataType", "MessageType"]

class CloseCode(enum.IntEnum):
    """WebSocket close codes (docs/protocol.md, section 1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    ABNORMAL = 1006
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    MANUAL = 4000
    AUTH_REJECTED = 4001
    WRONG_MESSAGE_TYPE = 4002
    WRONG_DATA_TYPE = 4003
    WRONG_CORRELATION = 4004
    HEARTBEAT_TIMEOUT = 4005
    BAD_STRUCTURE = 4006
    WRONG_VERSION = 4007

class DataType(enum.IntEnum):
    """The first byte of a payload: how the rest of it is to be read (docs/protocol.md, section 2)."""

    BINARY = 0
    NULL = 1
    BOOL = 2
    STRING = 3
    NUMBER = 4
    OBJECT = 5

class MessageType(enum.IntEnum):
    ERROR = 0
    CHALLENGE = 1
    PROOF = 2
    CONFIRMED = 3
    MESSAGE = 100
    REQUEST = 101
    RESOLVE = 102
    OPEN_READABLE = 103
    OPEN_WRITABLE = 104
    REJECT = 105
    STREAM_DATA = 106
    STREAM_RESOLVE = 107
    STREAM_REJECT = 108
    ACQUAINT = 200
    ROLES = 201
