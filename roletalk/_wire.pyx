"""The constants of the wire that Python code needs; compiled code takes them from ``_wire.pxd``."""

import enum

__all__ = ["CloseCode", "DataType", "MessageType"]

MAX_WIRE_NUMBER = (1ULL << 53) - 1


class CloseCode(enum.IntEnum):
    """WebSocket close codes (docs/protocol.md, section 1)."""

    NORMAL = CLOSE_NORMAL
    GOING_AWAY = CLOSE_GOING_AWAY
    PROTOCOL_ERROR = CLOSE_PROTOCOL_ERROR
    ABNORMAL = CLOSE_ABNORMAL
    INVALID_TEXT = CLOSE_INVALID_TEXT
    POLICY_VIOLATION = CLOSE_POLICY_VIOLATION
    TOO_BIG = CLOSE_TOO_BIG
    INTERNAL_ERROR = CLOSE_INTERNAL_ERROR
    TRY_AGAIN_LATER = CLOSE_TRY_AGAIN_LATER
    MANUAL = CLOSE_MANUAL
    AUTH_REJECTED = CLOSE_AUTH_REJECTED
    WRONG_MESSAGE_TYPE = CLOSE_WRONG_MESSAGE_TYPE
    WRONG_DATA_TYPE = CLOSE_WRONG_DATA_TYPE
    WRONG_CORRELATION = CLOSE_WRONG_CORRELATION
    HEARTBEAT_TIMEOUT = CLOSE_HEARTBEAT_TIMEOUT
    BAD_STRUCTURE = CLOSE_BAD_STRUCTURE
    WRONG_VERSION = CLOSE_WRONG_VERSION


# Not a class statement: Cython keeps the name NULL for itself.
DataType = enum.IntEnum(
    "DataType",
    {
        "BINARY": DATA_BINARY,
        "NULL": DATA_NULL,
        "BOOL": DATA_BOOL,
        "STRING": DATA_STRING,
        "NUMBER": DATA_NUMBER,
        "OBJECT": DATA_OBJECT,
    },
    module=__name__,
)
DataType.__doc__ = (
    "The first byte of a payload: how the rest of it is to be read (docs/protocol.md, section 2)."
)


class MessageType(enum.IntEnum):
    """The first byte of a message (docs/protocol.md, section 3)."""

    ERROR = MSG_ERROR
    CHALLENGE = MSG_CHALLENGE
    PROOF = MSG_PROOF
    CONFIRMED = MSG_CONFIRMED
    MESSAGE = MSG_MESSAGE
    REQUEST = MSG_REQUEST
    RESOLVE = MSG_RESOLVE
    OPEN_READABLE = MSG_OPEN_READABLE
    OPEN_WRITABLE = MSG_OPEN_WRITABLE
    REJECT = MSG_REJECT
    STREAM_DATA = MSG_STREAM_DATA
    STREAM_RESOLVE = MSG_STREAM_RESOLVE
    STREAM_REJECT = MSG_STREAM_REJECT
    ACQUAINT = MSG_ACQUAINT
    ROLES = MSG_ROLES
