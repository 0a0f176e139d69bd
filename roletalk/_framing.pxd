from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    OPCODE_CONTINUATION = 0x0
    OPCODE_TEXT = 0x1
    OPCODE_BINARY = 0x2
    OPCODE_CLOSE = 0x8
    OPCODE_PING = 0x9
    OPCODE_PONG = 0xA

# What parse_header() found.  From BAD_RSV on it is a violation, and VIOLATIONS names it.
cdef enum HeaderState:
    HEADER_WHOLE
    HEADER_PARTIAL                   # more bytes are needed to tell
    BAD_RSV
    BAD_OPCODE
    BAD_CONTROL
    BAD_MASK
    BAD_LENGTH


cdef struct FrameHeader:
    uint8_t opcode
    bint fin
    bint masked
    uint32_t mask                    # as four bytes in memory order; 0 when not masked
    Py_ssize_t header_size
    Py_ssize_t size                  # of the payload


cdef tuple VIOLATIONS

# The header that `data` begins with.  A frame of a client has to be masked, one of a server must not.
cdef HeaderState parse_header(const uint8_t* data, Py_ssize_t size, bint from_client,
                              FrameHeader* out) noexcept

cdef Py_ssize_t header_size(Py_ssize_t size, bint masked) noexcept
# Writes the header of a final frame of `size` bytes, header_size() of them; `mask` only if `masked`.
cdef void write_header(uint8_t* at, uint8_t opcode, Py_ssize_t size, bint masked, uint32_t mask) noexcept

cdef uint32_t next_mask() except? 0
# `data` under `mask`; `to` may be `data` itself.
cdef void mask_copy(char* to, const char* data, Py_ssize_t size, uint32_t mask) noexcept nogil
# The mask that goes on after `size` bytes.
cdef uint32_t mask_after(uint32_t mask, Py_ssize_t size) noexcept
