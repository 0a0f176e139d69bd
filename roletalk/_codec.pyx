"""Envelopes to bytes and back (docs/protocol.md, section 3).

Compiled code uses this module through ``_codec.pxd``.  What Python sees of it
serves tests and tools: the same code, given and giving ``bytes``.
"""

from typing import NamedTuple, Optional

from .errors import BadPayload, ProtocolError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset

from ._payload cimport Encoded, decode, encode
from ._wire cimport (
    CLOSE_BAD_STRUCTURE, CLOSE_WRONG_CORRELATION, CLOSE_WRONG_MESSAGE_TYPE, FLAG_QUOTA,
    MAX_NAME_BYTES, MAX_NUMBER_BYTES, MAX_WIRE_NUMBER, MSG_ACQUAINT, MSG_MESSAGE,
    MSG_OPEN_READABLE, MSG_OPEN_WRITABLE, MSG_REJECT, MSG_REQUEST, MSG_RESOLVE, MSG_ROLES,
    MSG_STREAM_DATA, MSG_STREAM_REJECT, MSG_STREAM_RESOLVE,
)

from ._wire import MessageType

__all__ = [
    "ParsedEnvelope",
    "build_answer",
    "build_message",
    "build_open",
    "build_request",
    "build_stream_answer",
    "build_stream_data",
    "decode_value",
    "encode_value",
    "parse_envelope",
]

# ---- parsing envelopes (section 3) ---------------------------------------------------------------

# What stands between the type byte and the body, as bits.
cdef enum:
    KNOWN = 1
    NAMES = 2                        # rl el .. role event
    CORRELATION = 4                  # cl .. corr
    CHANNEL = 8                      # hl .. channel
    ONE_MORE = 16                    # at least one byte: a payload's data type, or stream data's flag


cdef inline int _layout(uint8_t kind) noexcept:
    if kind == MSG_REQUEST:
        return KNOWN | NAMES | CORRELATION | ONE_MORE
    if kind == MSG_RESOLVE or kind == MSG_REJECT:
        return KNOWN | CORRELATION | ONE_MORE
    if kind == MSG_STREAM_DATA:
        return KNOWN | CHANNEL | ONE_MORE
    if kind == MSG_MESSAGE:
        return KNOWN | NAMES | ONE_MORE
    if kind == MSG_OPEN_READABLE or kind == MSG_OPEN_WRITABLE:
        return KNOWN | NAMES | CORRELATION | CHANNEL | ONE_MORE
    if kind == MSG_STREAM_RESOLVE or kind == MSG_STREAM_REJECT:
        return KNOWN | CORRELATION | CHANNEL | ONE_MORE
    if kind == MSG_ACQUAINT or kind == MSG_ROLES:
        return KNOWN
    return 0


cdef int parse(const uint8_t* message, Py_ssize_t size, Envelope* out) noexcept:
    cdef const uint8_t* at
    cdef int layout
    cdef Py_ssize_t needed
    memset(out, 0, sizeof(Envelope))
    if size < 1:
        return CLOSE_BAD_STRUCTURE
    out.kind = message[0]
    layout = _layout(out.kind)
    if layout == 0:
        return CLOSE_WRONG_MESSAGE_TYPE

    # All lengths stand together at the front: first the bytes that hold them must be there, then
    # what they add up to.  The sum stays below 2^18, so nothing can overflow.
    needed = 1
    if layout & NAMES:
        needed += 4
    if layout & CORRELATION:
        needed += 1
    if layout & CHANNEL:
        needed += 1
    if size < needed:
        return CLOSE_BAD_STRUCTURE
    at = message + 1
    if layout & NAMES:
        out.role_size = <uint16_t> (at[0] << 8 | at[1])
        out.event_size = <uint16_t> (at[2] << 8 | at[3])
        at += 4
    if layout & CORRELATION:
        out.correlation_size = at[0]
        at += 1
    if layout & CHANNEL:
        out.channel_size = at[0]
        at += 1
    needed += out.role_size
    needed += out.event_size
    needed += out.correlation_size
    needed += out.channel_size
    if layout & ONE_MORE:
        needed += 1
    if size < needed:
        return CLOSE_BAD_STRUCTURE

    out.names = at
    at += out.role_size
    at += out.event_size
    if layout & CORRELATION:
        if not read_number(at, out.correlation_size, &out.correlation):
            return CLOSE_WRONG_CORRELATION
        at += out.correlation_size
    if layout & CHANNEL:
        if not read_number(at, out.channel_size, &out.channel):
            return CLOSE_WRONG_CORRELATION
        at += out.channel_size
    if out.kind == MSG_STREAM_DATA:
        out.flag = at[0]
        at += 1
    out.body = at
    out.body_size = size - (at - message)
    # A quota above 2^53-1 is well-formed: the stream's credit saturates.
    if (
        out.kind == MSG_STREAM_DATA
        and out.flag == FLAG_QUOTA
        and not 1 <= out.body_size <= MAX_NUMBER_BYTES
    ):
        return CLOSE_WRONG_CORRELATION
    return 0


# ---- numbers (section 3) -------------------------------------------------------------------------

cdef int number_size(uint64_t number) noexcept:
    cdef int size = 1
    while number > 0xFF:
        number >>= 8
        size += 1
    return size


cdef void write_number(char* at, int size, uint64_t number) noexcept:
    while size > 0:
        size -= 1
        at[size] = <char> (number & 0xFF)
        number >>= 8


cdef bint read_number(const uint8_t* at, Py_ssize_t size, uint64_t* out) noexcept:
    cdef uint64_t number = 0
    cdef Py_ssize_t i
    if size < 1 or size > MAX_NUMBER_BYTES:
        return False
    for i in range(size):
        number = number << 8 | at[i]
    if number > MAX_WIRE_NUMBER:
        return False
    out[0] = number
    return True


cdef uint64_t saturated_number(const uint8_t* at, Py_ssize_t size) noexcept:
    cdef uint64_t number = 0
    cdef Py_ssize_t i
    for i in range(size):
        number = number << 8 | at[i]
    return min(number, MAX_WIRE_NUMBER)


# ---- writing messages (section 3) ----------------------------------------------------------------

cdef inline void _write_u16(char* at, uint16_t number) noexcept:
    at[0] = <char> (number >> 8)
    at[1] = <char> (number & 0xFF)


cdef inline void _write_payload(char* at, Encoded* payload) noexcept:
    at[0] = <char> payload.datatype
    memcpy(at + 1, payload.data, <size_t> payload.size)


cdef Py_ssize_t message_size(Py_ssize_t names_size, Encoded* payload) noexcept:
    return 1 + 2 + 2 + names_size + 1 + payload.size


cdef void write_message(char* at, const char* names, uint16_t role_size, uint16_t event_size,
                        Encoded* payload) noexcept:
    cdef size_t names_size = <size_t> role_size + event_size
    at[0] = MSG_MESSAGE
    _write_u16(at + 1, role_size)
    _write_u16(at + 3, event_size)
    memcpy(at + 5, names, names_size)
    _write_payload(at + 5 + names_size, payload)


cdef Py_ssize_t request_size(Py_ssize_t names_size, uint64_t correlation,
                             Encoded* payload) noexcept:
    return 1 + 2 + 2 + 1 + names_size + number_size(correlation) + 1 + payload.size


cdef void write_request(char* at, const char* names, uint16_t role_size, uint16_t event_size,
                        uint64_t correlation, Encoded* payload) noexcept:
    cdef size_t names_size = <size_t> role_size + event_size
    cdef int correlation_size = number_size(correlation)
    at[0] = MSG_REQUEST
    _write_u16(at + 1, role_size)
    _write_u16(at + 3, event_size)
    at[5] = <char> correlation_size
    memcpy(at + 6, names, names_size)
    at += 6 + names_size
    write_number(at, correlation_size, correlation)
    _write_payload(at + correlation_size, payload)


cdef Py_ssize_t answer_size(int correlation_size, Encoded* payload) noexcept:
    return 1 + 1 + correlation_size + 1 + payload.size


cdef void write_answer(char* at, uint8_t kind, uint64_t correlation, int correlation_size,
                       Encoded* payload) noexcept:
    at[0] = <char> kind
    at[1] = <char> correlation_size
    write_number(at + 2, correlation_size, correlation)
    _write_payload(at + 2 + correlation_size, payload)


cdef Py_ssize_t open_size(Py_ssize_t names_size, uint64_t correlation, uint64_t channel,
                          Encoded* payload) noexcept:
    return 7 + names_size + number_size(correlation) + number_size(channel) + 1 + payload.size


cdef void write_open(char* at, uint8_t kind, const char* names, uint16_t role_size,
                     uint16_t event_size, uint64_t correlation, uint64_t channel,
                     Encoded* payload) noexcept:
    cdef size_t names_size = <size_t> role_size + event_size
    cdef int correlation_size = number_size(correlation)
    cdef int channel_size = number_size(channel)
    at[0] = <char> kind
    _write_u16(at + 1, role_size)
    _write_u16(at + 3, event_size)
    at[5] = <char> correlation_size
    at[6] = <char> channel_size
    memcpy(at + 7, names, names_size)
    at += 7 + names_size
    write_number(at, correlation_size, correlation)
    write_number(at + correlation_size, channel_size, channel)
    _write_payload(at + correlation_size + channel_size, payload)


cdef int stream_number_size(int correlation_size, uint64_t channel) noexcept:
    return max(correlation_size, number_size(channel))


cdef Py_ssize_t stream_answer_size(int numbers, Encoded* payload) noexcept:
    return 3 + 2 * numbers + 1 + payload.size


cdef void write_stream_answer(char* at, uint8_t kind, int numbers, uint64_t correlation,
                              uint64_t channel, Encoded* payload) noexcept:
    at[0] = <char> kind
    at[1] = at[2] = <char> numbers
    write_number(at + 3, numbers, correlation)
    write_number(at + 3 + numbers, numbers, channel)
    _write_payload(at + 3 + 2 * numbers, payload)


# ---- the same for Python: tests and tools --------------------------------------------------------

ParsedEnvelope = NamedTuple(
    "ParsedEnvelope",
    [
        ("kind", MessageType),
        ("role", bytes),
        ("event", bytes),
        ("correlation", Optional[int]),
        ("channel", Optional[int]),
        ("flag", Optional[int]),
        ("body", bytes),
    ],
)
ParsedEnvelope.__module__ = __name__
ParsedEnvelope.__doc__ = """A message taken apart.

`correlation`, `channel` and `flag` are None, `role` and `event` empty, where the type of message
has none.  `body` is what follows the envelope: the payload with its data type byte; for stream data
the bytes after the flag; for 200 and 201 the JSON text.
"""

cdef dict _FAULTS = {
    CLOSE_BAD_STRUCTURE: "a message that is empty or cut short",
    CLOSE_WRONG_MESSAGE_TYPE: "an unknown message type",
    CLOSE_WRONG_CORRELATION: "a correlation, channel or quota out of range",
}


def encode_value(value):
    """`value` as a payload, its data type byte in front.

    Raises TypeError for what cannot be sent and ValueError for what is out of range: an int
    beyond a float's range, lone surrogates, an object nested too deeply.
    """
    cdef Encoded payload
    cdef object _owner = encode(value, &payload)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 1 + payload.size)
    _write_payload(PyBytes_AS_STRING(out), &payload)
    return out


def decode_value(bytes payload not None):
    """The value of `payload`, whose first byte is its data type.  Raises BadPayload."""
    if not payload:
        raise BadPayload("a payload without its data type")
    return decode(<uint8_t> PyBytes_AS_STRING(payload)[0], payload[1:])


def parse_envelope(bytes message not None):
    """Takes `message` apart.  Raises ProtocolError, whose `close_code` is 4002, 4004 or 4006."""
    cdef Envelope found
    cdef const char* names
    cdef int code = parse(
        <const uint8_t*> PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), &found
    )
    if code != 0:
        raise ProtocolError(_FAULTS[code], code)
    names = <const char*> found.names
    return ParsedEnvelope(
        MessageType(found.kind),
        PyBytes_FromStringAndSize(names, found.role_size),
        PyBytes_FromStringAndSize(names + found.role_size, found.event_size),
        found.correlation if found.correlation_size else None,
        found.channel if found.channel_size else None,
        found.flag if found.kind == MSG_STREAM_DATA else None,
        PyBytes_FromStringAndSize(<const char*> found.body, found.body_size),
    )


cdef bytes _name_bytes(object name):
    cdef bytes text = name.encode()
    if PyBytes_GET_SIZE(text) > MAX_NAME_BYTES:
        raise ValueError(f"a role or event of more than {MAX_NAME_BYTES} bytes")
    return text


cdef uint64_t _wire_number(object number) except? 0:
    if not 0 <= number <= MAX_WIRE_NUMBER:
        raise ValueError("a correlation or channel is 0..2^53-1")
    return number


def build_message(role, event, value):
    """A message (100) with `value` as its payload.  Raises TypeError, ValueError."""
    cdef bytes role_name = _name_bytes(role)
    cdef bytes event_name = _name_bytes(event)
    cdef bytes names = role_name + event_name
    cdef Encoded payload
    cdef object _owner = encode(value, &payload)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, message_size(len(names), &payload))
    write_message(PyBytes_AS_STRING(out), PyBytes_AS_STRING(names), <uint16_t> len(role_name),
                  <uint16_t> len(event_name), &payload)
    return out


def build_request(role, event, correlation, value):
    """A request (101) with `value` as its payload.  Raises TypeError, ValueError."""
    cdef bytes role_name = _name_bytes(role)
    cdef bytes event_name = _name_bytes(event)
    cdef bytes names = role_name + event_name
    cdef uint64_t number = _wire_number(correlation)
    cdef Encoded payload
    cdef object _owner = encode(value, &payload)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, request_size(len(names), number, &payload))
    write_request(PyBytes_AS_STRING(out), PyBytes_AS_STRING(names), <uint16_t> len(role_name),
                  <uint16_t> len(event_name), number, &payload)
    return out


def build_answer(kind, correlation, value, correlation_size=0):
    """A resolve (102) or a reject (105) with `value` as its payload.

    `correlation_size` is the correlation's length in bytes, as the request had it; 0 for the
    shortest.  Raises TypeError, ValueError.
    """
    cdef uint64_t number = _wire_number(correlation)
    cdef int size = correlation_size or number_size(number)
    cdef Encoded payload
    cdef object _owner
    cdef bytes out
    if kind != MSG_RESOLVE and kind != MSG_REJECT:
        raise ValueError("an answer is a RESOLVE or a REJECT")
    if not number_size(number) <= size <= MAX_NUMBER_BYTES:
        raise ValueError("the correlation does not fit correlation_size")
    _owner = encode(value, &payload)
    out = PyBytes_FromStringAndSize(NULL, answer_size(size, &payload))
    write_answer(PyBytes_AS_STRING(out), kind, number, size, &payload)
    return out


def build_open(kind, role, event, correlation, channel, value):
    """A request to open a stream (103, 104).  Raises TypeError, ValueError."""
    if kind != MSG_OPEN_READABLE and kind != MSG_OPEN_WRITABLE:
        raise ValueError("a stream is opened by OPEN_READABLE or OPEN_WRITABLE")
    cdef bytes role_name = _name_bytes(role)
    cdef bytes event_name = _name_bytes(event)
    cdef bytes names = role_name + event_name
    cdef uint64_t number = _wire_number(correlation)
    cdef uint64_t receiving = _wire_number(channel)
    cdef Encoded payload
    cdef object _owner = encode(value, &payload)
    cdef bytes out = PyBytes_FromStringAndSize(
        NULL, open_size(len(names), number, receiving, &payload)
    )
    write_open(PyBytes_AS_STRING(out), kind, PyBytes_AS_STRING(names), <uint16_t> len(role_name),
               <uint16_t> len(event_name), number, receiving, &payload)
    return out


def build_stream_answer(kind, correlation, channel, value):
    """A stream resolve (107) or reject (108).  Raises TypeError, ValueError.

    Correlation and channel get the same length: the Go peer misreads the payload otherwise
    (docs/protocol.md, section 7).
    """
    if kind != MSG_STREAM_RESOLVE and kind != MSG_STREAM_REJECT:
        raise ValueError("a stream's answer is a STREAM_RESOLVE or a STREAM_REJECT")
    cdef uint64_t number = _wire_number(correlation)
    cdef uint64_t receiving = _wire_number(channel)
    cdef int size = stream_number_size(number_size(number), receiving)
    cdef Encoded payload
    cdef object _owner = encode(value, &payload)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, stream_answer_size(size, &payload))
    write_stream_answer(PyBytes_AS_STRING(out), kind, size, number, receiving, &payload)
    return out


def build_stream_data(channel, flag, data):
    """Stream data (106): `flag` and the bytes after it.  Raises ValueError."""
    cdef uint64_t receiving = _wire_number(channel)
    size = number_size(receiving)
    return bytes([MSG_STREAM_DATA, size]) + channel.to_bytes(size, "big") + bytes([flag]) + data
