# Every constant of the wire, by section of docs/protocol.md.  _wire.pyx exports the ones that Python needs.

from libc.stdint cimport uint64_t

# -- section 1: close codes --------------------------------------------------------------------------
cdef enum:
    CLOSE_NORMAL = 1000
    CLOSE_GOING_AWAY = 1001
    CLOSE_PROTOCOL_ERROR = 1002
    CLOSE_ABNORMAL = 1006            # never sent: the connection went without a close frame
    CLOSE_INVALID_TEXT = 1007
    CLOSE_POLICY_VIOLATION = 1008
    CLOSE_TOO_BIG = 1009
    CLOSE_INTERNAL_ERROR = 1011
    CLOSE_TRY_AGAIN_LATER = 1013
    CLOSE_MANUAL = 4000
    CLOSE_AUTH_REJECTED = 4001
    CLOSE_WRONG_MESSAGE_TYPE = 4002
    CLOSE_WRONG_DATA_TYPE = 4003
    CLOSE_WRONG_CORRELATION = 4004
    CLOSE_HEARTBEAT_TIMEOUT = 4005
    CLOSE_BAD_STRUCTURE = 4006
    CLOSE_WRONG_VERSION = 4007

# -- section 2: data types ---------------------------------------------------------------------------
cdef enum:
    DATA_BINARY = 0
    DATA_NULL = 1
    DATA_BOOL = 2
    DATA_STRING = 3
    DATA_NUMBER = 4
    DATA_OBJECT = 5

cdef enum:
    MAX_NUMBER_CHARS = 400

# -- section 3: message types ------------------------------------------------------------------------
cdef enum:
    MSG_ERROR = 0
    MSG_CHALLENGE = 1
    MSG_PROOF = 2
    MSG_CONFIRMED = 3
    MSG_MESSAGE = 100
    MSG_REQUEST = 101
    MSG_RESOLVE = 102
    MSG_OPEN_READABLE = 103          # the requester reads
    MSG_OPEN_WRITABLE = 104          # the requester writes
    MSG_REJECT = 105
    MSG_STREAM_DATA = 106
    MSG_STREAM_RESOLVE = 107
    MSG_STREAM_REJECT = 108
    MSG_ACQUAINT = 200
    MSG_ROLES = 201

cdef enum:
    FLAG_CHUNK = 0
    FLAG_FINISH = 1
    FLAG_ERROR = 2
    FLAG_QUOTA = 3

cdef enum:
    MAX_NAME_BYTES = 65535           # of a role's and of an event's UTF-8
    MAX_NUMBER_BYTES = 8             # of a correlation or a channel
    CORRELATION_BITS = 39            # Go garbles what is longer: ours wrap below 2^39

cdef uint64_t MAX_WIRE_NUMBER        # 2^53 - 1
