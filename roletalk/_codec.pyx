"""Values and envelopes to bytes and back (docs/protocol.md, sections 2 and 3).

Compiled code uses this module through ``_codec.pxd``.  What Python sees of it
serves tests and tools: the same code, given and giving ``bytes``.
"""

import dataclasses
import datetime
import uuid
from typing import NamedTuple, Optional

import msgspec

from .errors import BadPayload, ProtocolError

cimport cython
from cpython.buffer cimport (
    Py_buffer, PyBUF_FULL_RO, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.list cimport PyList_Check
from cpython.long cimport (
    PyLong_AsDouble, PyLong_AsLongLongAndOverflow, PyLong_Check, PyLong_FromString,
)
from cpython.mem cimport PyMem_Free
from cpython.memoryview cimport PyMemoryView_Check
from cpython.tuple cimport PyTuple_Check
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.math cimport INFINITY, isfinite, isinf, isnan
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset, strcmp, strlen, strspn

from ._wire cimport (
    CLOSE_BAD_STRUCTURE, CLOSE_WRONG_CORRELATION, CLOSE_WRONG_MESSAGE_TYPE, DATA_BINARY, DATA_BOOL,
    DATA_NULL, DATA_NUMBER, DATA_OBJECT, DATA_STRING, FLAG_QUOTA, MAX_NAME_BYTES, MAX_NUMBER_BYTES,
    MAX_NUMBER_CHARS, MAX_WIRE_NUMBER, MSG_ACQUAINT, MSG_MESSAGE, MSG_OPEN_READABLE,
    MSG_OPEN_WRITABLE, MSG_REJECT, MSG_REQUEST, MSG_RESOLVE, MSG_ROLES, MSG_STREAM_DATA,
    MSG_STREAM_REJECT, MSG_STREAM_RESOLVE,
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

cdef extern from "Python.h":
    enum:
        Py_DTSF_ADD_DOT_0
    char* PyOS_double_to_string(
        double value, char format_code, int precision, int flags, int* kind
    ) except NULL
    double PyOS_string_to_double(
        const char* text, char** end, void* overflow_exception
    ) except? -1.0
    object PyNumber_ToBase(object number, int base)


# ---- encoding (section 2) ------------------------------------------------------------------------

cdef object _to_json = msgspec.json.Encoder().encode

# Besides dict, list, tuple and dataclasses.
cdef tuple _OBJECT_TYPES = (
    msgspec.Struct,
    datetime.date,                   # datetime too, which derives from it
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
)


@cython.final
@cython.no_gc                        # lives for one call; clearing would drop the view unreleased
cdef class _View:
    """Keeps the exporter of a buffer from moving or freeing it."""

    cdef Py_buffer view              # owned; obj is NULL until the exporter has filled it

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef object encode(object value, Encoded* out):
    if PyUnicode_Check(value):
        out.datatype = DATA_STRING
        out.data = PyUnicode_AsUTF8AndSize(value, &out.size)
        return value
    if PyBytes_Check(value):
        out.datatype = DATA_BINARY
        out.data = PyBytes_AS_STRING(value)
        out.size = PyBytes_GET_SIZE(value)
        return value
    out.data = out.scratch
    if value is None:
        out.datatype = DATA_NULL
        out.size = 0
        return None
    if value is True or value is False:
        out.datatype = DATA_BOOL
        out.scratch[0] = value is True
        out.size = 1
        return None
    if PyLong_Check(value):
        out.datatype = DATA_NUMBER
        return _encode_int(value, out)
    if PyFloat_Check(value):
        out.datatype = DATA_NUMBER
        return _encode_float(PyFloat_AS_DOUBLE(value), out)
    if PyDict_Check(value) or PyList_Check(value) or PyTuple_Check(value):
        return _encode_object(value, out)
    if PyObject_CheckBuffer(value):
        return _encode_buffer(value, out)
    if isinstance(value, _OBJECT_TYPES) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        return _encode_object(value, out)
    raise TypeError(
        f"cannot send a value of type {_type_name(value)}: send None, bool, int, float, str, "
        "bytes, a buffer, dict, list, tuple, a dataclass, a msgspec.Struct, "
        "a date, a time or a UUID"
    )


cdef str _type_name(object value):
    cdef object kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


cdef object _encode_int(object value, Encoded* out):
    cdef int overflow = 0
    cdef int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef uint64_t rest
    cdef char* at
    cdef char* end
    if overflow:
        try:
            PyLong_AsDouble(value)
        except OverflowError:
            raise ValueError("an int too large to send: it overflows a float") from None
        # Not str(): a subclass may have overridden it.
        digits = PyNumber_ToBase(value, 10)
        out.data = PyUnicode_AsUTF8AndSize(digits, &out.size)
        return digits
    # Digits from the last to the first, at the end of the scratch.  Negating as unsigned is
    # defined for the smallest int64, too.
    rest = <uint64_t> number if number >= 0 else 0 - <uint64_t> number
    end = out.scratch + sizeof(out.scratch)
    at = end
    while True:
        at -= 1
        at[0] = <char> (c"0" + <char> (rest % 10))
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        at -= 1
        at[0] = c"-"
    out.data = at
    out.size = end - at
    return None


cdef object _encode_float(double value, Encoded* out):
    cdef char* text
    cdef size_t size
    if isnan(value):
        return _encode_word(b"NaN", out)
    if isinf(value):
        return _encode_word(b"Infinity" if value > 0 else b"-Infinity", out)
    text = PyOS_double_to_string(value, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    # The shortest text that reads back to the same double has at most 24 characters.
    size = min(strlen(text), sizeof(out.scratch))
    memcpy(out.scratch, text, size)
    PyMem_Free(text)
    out.size = <Py_ssize_t> size
    return None


cdef object _encode_word(bytes word, Encoded* out):
    out.data = PyBytes_AS_STRING(word)
    out.size = PyBytes_GET_SIZE(word)
    return word


cdef object _encode_object(object value, Encoded* out):
    cdef object text
    try:
        text = _to_json(value)
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"an object that JSON cannot hold: {error}") from error
    out.datatype = DATA_OBJECT
    out.data = PyBytes_AS_STRING(text)
    out.size = PyBytes_GET_SIZE(text)
    return text


cdef object _encode_buffer(object value, Encoded* out):
    cdef _View holder = _View.__new__(_View)
    cdef const char* items
    cdef bytes copied
    try:
        PyObject_GetBuffer(value, &holder.view, PyBUF_FULL_RO)
    except BufferError as error:
        raise ValueError(f"a buffer that cannot be read: {error}") from error
    # numpy's scalars export their memory: sending the number 5 as eight bytes helps nobody.
    if holder.view.ndim == 0 and not PyMemoryView_Check(value):
        raise TypeError(
            f"cannot send a value of type {_type_name(value)}: is it a number or bytes? "
            "send its item(), or a memoryview of it"
        )
    # Pointers of this process, which must not leave it.  The format may begin with a byte order.
    items = holder.view.format
    if items != NULL and strcmp(items + strspn(items, b"@=<>!"), b"O") == 0:
        raise TypeError(
            f"cannot send a value of type {_type_name(value)}: its items are objects, not bytes"
        )
    out.datatype = DATA_BINARY
    if not PyBuffer_IsContiguous(&holder.view, c"C"):
        copied = memoryview(value).tobytes()
        out.data = PyBytes_AS_STRING(copied)
        out.size = PyBytes_GET_SIZE(copied)
        return copied
    out.size = holder.view.len
    if out.size > 0:                 # an empty buffer may have no address
        out.data = <const char*> holder.view.buf
    return holder


# ---- decoding (section 2) ------------------------------------------------------------------------

cdef object _from_json = msgspec.json.Decoder().decode

# Every way that JS, Go and we write them.
cdef dict _NUMBER_WORDS = {
    b"NaN": float("nan"),
    b"Inf": INFINITY,
    b"+Inf": INFINITY,
    b"-Inf": -INFINITY,
    b"Infinity": INFINITY,
    b"+Infinity": INFINITY,
    b"-Infinity": -INFINITY,
}

cdef enum:
    MALFORMED
    INTEGER
    REAL

cdef enum:
    FAST_DIGITS = 18                 # as many fit an int64 whatever they are
    SHOWN_BYTES = 30                 # of a bad number in an error's text
    SHOWN_CHARS = 150                # of the JSON parser's reason


cdef object decode(uint8_t datatype, bytes raw):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(raw)
    cdef const char* at = PyBytes_AS_STRING(raw)
    if datatype == DATA_BINARY:
        return raw
    if datatype == DATA_STRING:
        return PyUnicode_DecodeUTF8(at, size, b"replace")
    if datatype == DATA_OBJECT:
        return _decode_object(raw)
    if datatype == DATA_NUMBER:
        return _decode_number(raw, at, size)
    if datatype == DATA_NULL:
        return None
    if datatype == DATA_BOOL:
        if size == 0:
            raise BadPayload("a bool without its byte")
        return at[0] != 0
    raise BadPayload(f"unknown data type {datatype}")


cdef object _decode_object(bytes raw):
    try:
        return _from_json(raw)
    except MemoryError:
        raise
    except Exception as error:
        reason = ascii(str(error)).strip("'\"")[:SHOWN_CHARS]
        raise BadPayload(f"bad object: {reason}") from None


cdef object _decode_number(bytes raw, const char* at, Py_ssize_t size):
    cdef int kind
    cdef double real
    if size > MAX_NUMBER_CHARS:
        raise BadPayload(f"a number of {size} characters, at most {MAX_NUMBER_CHARS} are allowed")
    kind = _scan_number(at, size)
    if kind == INTEGER:
        if size <= FAST_DIGITS:
            return _small_int(at, size)
        # Both conversions stop at the NUL that ends every bytes object.
        number = PyLong_FromString(at, NULL, 10)
        try:
            PyLong_AsDouble(number)
        except OverflowError:
            raise BadPayload("a number beyond the range of a float") from None
        return number
    if kind == REAL:
        real = PyOS_string_to_double(at, NULL, NULL)
        if not isfinite(real):
            raise BadPayload("a number beyond the range of a float")
        return real
    word = _NUMBER_WORDS.get(raw)
    if word is None:
        raise BadPayload(f"not a number: {ascii(raw[:SHOWN_BYTES])}")
    return word


cdef int _scan_number(const char* at, Py_ssize_t size) noexcept:
    # -?(digits[.digits?]?|.digits)([eE][+-]?digits)?: what Python's int() and float() would take
    # beyond it (1_000, blanks, +5, other scripts' digits) is unknown to the wire.
    cdef const char* end = at + size
    cdef Py_ssize_t digits, exponent
    if at < end and at[0] == c"-":
        at += 1
    digits = _count_digits(at, end)
    at += digits
    if at == end:
        return INTEGER if digits > 0 else MALFORMED
    if at[0] == c".":
        at += 1
        exponent = _count_digits(at, end)
        digits += exponent
        at += exponent
    if digits == 0:
        return MALFORMED
    if at < end and (at[0] == c"e" or at[0] == c"E"):
        at += 1
        if at < end and (at[0] == c"+" or at[0] == c"-"):
            at += 1
        exponent = _count_digits(at, end)
        if exponent == 0:
            return MALFORMED
        at += exponent
    return REAL if at == end else MALFORMED


cdef inline Py_ssize_t _count_digits(const char* at, const char* end) noexcept:
    cdef const char* start = at
    while at < end and c"0" <= at[0] <= c"9":
        at += 1
    return at - start


cdef int64_t _small_int(const char* at, Py_ssize_t size) noexcept:
    # A scanned integer of at most FAST_DIGITS characters.
    cdef const char* end = at + size
    cdef bint negative = at[0] == c"-"
    cdef int64_t number = 0
    if negative:
        at += 1
    while at < end:
        number = number * 10 + (at[0] - c"0")
        at += 1
    return -number if negative else number


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


cdef bytes _number_bytes(uint64_t number, int size):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
    write_number(PyBytes_AS_STRING(out), size, number)
    return out


def build_open(kind, role, event, correlation, channel, value):
    """A request to open a stream (103, 104).  Raises TypeError, ValueError."""
    if kind != MSG_OPEN_READABLE and kind != MSG_OPEN_WRITABLE:
        raise ValueError("a stream is opened by OPEN_READABLE or OPEN_WRITABLE")
    role_name, event_name = _name_bytes(role), _name_bytes(event)
    cdef uint64_t number = _wire_number(correlation)
    cdef uint64_t receiving = _wire_number(channel)
    corr = _number_bytes(number, number_size(number))
    chan = _number_bytes(receiving, number_size(receiving))
    sizes = len(role_name).to_bytes(2, "big") + len(event_name).to_bytes(2, "big")
    head = bytes([kind]) + sizes + bytes([len(corr), len(chan)])
    return head + role_name + event_name + corr + chan + encode_value(value)


def build_stream_answer(kind, correlation, channel, value):
    """A stream resolve (107) or reject (108).  Raises TypeError, ValueError.

    Correlation and channel get the same length: the Go peer misreads the payload otherwise
    (docs/protocol.md, section 7).
    """
    if kind != MSG_STREAM_RESOLVE and kind != MSG_STREAM_REJECT:
        raise ValueError("a stream's answer is a STREAM_RESOLVE or a STREAM_REJECT")
    cdef uint64_t number = _wire_number(correlation)
    cdef uint64_t receiving = _wire_number(channel)
    cdef int size = max(number_size(number), number_size(receiving))
    head = bytes([kind, size, size])
    return head + _number_bytes(number, size) + _number_bytes(receiving, size) + encode_value(value)


def build_stream_data(channel, flag, data):
    """Stream data (106): `flag` and the bytes after it.  Raises ValueError."""
    cdef uint64_t receiving = _wire_number(channel)
    cdef int size = number_size(receiving)
    return bytes([MSG_STREAM_DATA, size]) + _number_bytes(receiving, size) + bytes([flag]) + data
