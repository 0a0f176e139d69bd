"""Values to payload bytes and back (docs/protocol.md, section 2)."""

import dataclasses
import datetime
import uuid

import msgspec

from .errors import BadPayload

cimport cython
from cpython.buffer cimport (
    Py_buffer, PyBUF_FULL_RO, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE,
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
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, strcmp, strlen, strspn

from ._wire cimport (
    DATA_BINARY, DATA_BOOL, DATA_NULL, DATA_NUMBER, DATA_OBJECT, DATA_STRING, MAX_NUMBER_CHARS,
)

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
    if hasattr(value, "__await__"):
        raise TypeError(f"cannot send a value of type {_type_name(value)}: is an await missing before it?")
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
    except TypeError as error:
        # msgspec's own names the type, but neither what is wanted nor what it is in.
        raise TypeError(
            f"cannot send the {_type_name(value)}, for what is in it: {error}; inside of objects JSON's "
            "types go, and dataclasses, msgspec.Structs, dates, times, UUIDs, Decimals, enums, sets and "
            "bytes (as base64)"
        ) from None
    # A BufferError is that of a memoryview with gaps.
    except (OverflowError, RecursionError, BufferError) as error:
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
