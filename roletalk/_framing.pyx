"""The bytes around a payload: frame headers and masks (RFC 6455, sections 5.2 and 5.3).

Compiled code uses this module through ``_framing.pxd``.  What Python sees of it serves tests and tools.
"""

import os
from typing import NamedTuple, Optional

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from .errors import ProtocolError

__all__ = ["ParsedHeader", "apply_mask", "build_header", "parse_frame_header"]

cdef extern from *:
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "_mask.h":
    void roletalk_mask_copy(char* to, const char* data, Py_ssize_t size, uint32_t mask) nogil

cdef enum:
    MASK_POOL = 4096

# By HeaderState.
VIOLATIONS = (
    "", "", "reserved bits are set", "invalid opcode", "fragmented or long control frame",
    "frame with a mask from a server, or without one from a client", "invalid payload length",
)


# ---- headers -----------------------------------------------------------------------------------------

cdef HeaderState parse_header(const uint8_t* data, Py_ssize_t size, bint from_client,
                              FrameHeader* out) noexcept:
    cdef:
        Py_ssize_t extended = 0
        Py_ssize_t i
        uint64_t length
        uint8_t opcode
    if size < 2:
        return HEADER_PARTIAL
    if data[0] & 0x70:
        return BAD_RSV
    opcode = data[0] & 0x0F
    if opcode & 0x07 > 0x02:
        return BAD_OPCODE
    out.opcode = opcode
    out.fin = data[0] >> 7
    out.masked = data[1] >> 7
    length = data[1] & 0x7F
    if opcode & 0x08 and (length > 125 or not out.fin):
        return BAD_CONTROL
    if out.masked != from_client:
        return BAD_MASK
    if length > 125:
        extended = 2 if length == 126 else 8
        if size < 2 + extended:
            return HEADER_PARTIAL
        length = 0
        for i in range(extended):
            length = length << 8 | data[2 + i]
        # The shortest form that holds it, and no sign bit.
        if length < 126 or (extended == 8 and (length < 65536 or length >> 63)):
            return BAD_LENGTH
        if length > <uint64_t>PY_SSIZE_T_MAX:
            length = <uint64_t>PY_SSIZE_T_MAX    # where addresses have 32 bits: too big in any case
    out.size = <Py_ssize_t>length
    out.header_size = 2 + extended
    out.mask = 0
    if out.masked:
        if size < out.header_size + 4:
            return HEADER_PARTIAL
        memcpy(&out.mask, data + out.header_size, 4)
        out.header_size += 4
    return HEADER_WHOLE


cdef Py_ssize_t header_size(Py_ssize_t size, bint masked) noexcept:
    return 2 + (0 if size < 126 else 2 if size < 65536 else 8) + (4 if masked else 0)


cdef void write_header(uint8_t* at, uint8_t opcode, Py_ssize_t size, bint masked, uint32_t mask) noexcept:
    cdef:
        uint8_t mask_bit = 0x80 if masked else 0
        int extended = 0
        int i
    at[0] = 0x80 | opcode
    if size < 126:
        at[1] = mask_bit | <uint8_t>size
    else:
        extended = 2 if size < 65536 else 8
        at[1] = mask_bit | (126 if extended == 2 else 127)
        for i in range(extended):
            at[2 + i] = <uint8_t>(size >> (8 * (extended - 1 - i)))
    if masked:
        memcpy(at + 2 + extended, &mask, 4)


# ---- masks -------------------------------------------------------------------------------------------
# RFC 6455, 5.3 asks for masks from a strong source of entropy: a pool of the system's random bytes.

cdef bytes _mask_pool = b""
cdef Py_ssize_t _mask_at = 0


cdef uint32_t next_mask() except? 0:
    global _mask_pool, _mask_at
    cdef uint32_t mask
    if _mask_at + 4 > PyBytes_GET_SIZE(_mask_pool):
        _mask_pool = os.urandom(MASK_POOL)
        _mask_at = 0
    memcpy(&mask, PyBytes_AS_STRING(_mask_pool) + _mask_at, 4)
    _mask_at += 4
    return mask


def _forget_masks():
    global _mask_at
    _mask_at = MASK_POOL


# A forked child must not go on in its parent's pool.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_masks)


cdef void mask_copy(char* to, const char* data, Py_ssize_t size, uint32_t mask) noexcept nogil:
    roletalk_mask_copy(to, data, size, mask)


cdef uint32_t mask_after(uint32_t mask, Py_ssize_t size) noexcept:
    cdef uint32_t turned
    cdef const char* mask_bytes = <const char*>&mask
    cdef char* turned_bytes = <char*>&turned
    cdef Py_ssize_t i
    for i in range(4):
        turned_bytes[i] = mask_bytes[(size + i) & 3]
    return turned


# ---- the same for Python -----------------------------------------------------------------------------

class ParsedHeader(NamedTuple):
    opcode: int
    fin: bool
    mask: Optional[bytes]
    header_size: int
    size: int


def parse_frame_header(const uint8_t[::1] data not None, *, bint from_client):
    """The header that `data` begins with; ``None`` while it is not whole.

    Raises `ProtocolError` (1002) for what RFC 6455 does not allow.
    """
    cdef FrameHeader header
    cdef HeaderState state
    cdef const uint8_t* at = &data[0] if data.shape[0] > 0 else NULL
    state = parse_header(at, data.shape[0], from_client, &header)
    if state == HEADER_PARTIAL:
        return None
    if state != HEADER_WHOLE:
        raise ProtocolError(VIOLATIONS[state], 1002)
    mask = PyBytes_FromStringAndSize(<char*>&header.mask, 4) if header.masked else None
    return ParsedHeader(header.opcode, header.fin, mask, header.header_size, header.size)


def build_header(int opcode, Py_ssize_t size, bytes mask=None):
    """The header of a final frame of `size` bytes of payload; `mask` has 4 bytes."""
    cdef uint32_t number = 0
    cdef bytes header = PyBytes_FromStringAndSize(NULL, header_size(size, mask is not None))
    if mask is not None:
        if len(mask) != 4:
            raise ValueError("a mask has 4 bytes")
        memcpy(&number, PyBytes_AS_STRING(mask), 4)
    write_header(<uint8_t*>PyBytes_AS_STRING(header), <uint8_t>opcode, size, mask is not None, number)
    return header


def apply_mask(bytes data not None, bytes mask not None):
    """`data` under `mask`, which has 4 bytes; the same again takes it off."""
    cdef uint32_t number
    cdef bytes masked = PyBytes_FromStringAndSize(NULL, len(data))
    if len(mask) != 4:
        raise ValueError("a mask has 4 bytes")
    memcpy(&number, PyBytes_AS_STRING(mask), 4)
    mask_copy(PyBytes_AS_STRING(masked), PyBytes_AS_STRING(data), len(data), number)
    return masked
