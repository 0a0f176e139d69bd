from libc.stdint cimport uint8_t, uint16_t, uint64_t

from ._payload cimport Encoded

cdef struct Envelope:
    # A parsed message.  Pointers are borrowed from the bytes given to parse().
    uint8_t kind                     # its message type
    uint8_t flag                     # of stream data
    uint16_t role_size
    uint16_t event_size
    uint8_t correlation_size         # bytes as they stood on the wire, 0 where there is none
    uint8_t channel_size
    uint64_t correlation
    uint64_t channel
    const uint8_t* names             # role_size bytes of the role, then event_size bytes of the event
    const uint8_t* body              # what follows the envelope: payload with its data type byte; for
                                     # stream data the bytes after the flag; for 200 and 201 the JSON text
    Py_ssize_t body_size             # bytes; >= 1 where a payload is required

# 0, or the close code that the connection must be closed with (4002, 4004, 4006).
cdef int parse(const uint8_t* message, Py_ssize_t size, Envelope* out) noexcept

# Big-endian, minimal, at least one byte.  1..8.
cdef int number_size(uint64_t number) noexcept
cdef void write_number(char* at, int size, uint64_t number) noexcept
# False: no bytes, more than 8, or above 2^53-1.
cdef bint read_number(const uint8_t* at, Py_ssize_t size, uint64_t* out) noexcept

# Of 1..8 bytes; more than a number on the wire may be is its maximum.
cdef uint64_t saturated_number(const uint8_t* at, Py_ssize_t size) noexcept

# Sizes of whole messages, data type byte included, and their writing into exactly that many bytes.
# `names` is role || event in UTF-8.
cdef Py_ssize_t message_size(Py_ssize_t names_size, Encoded* payload) noexcept
cdef void write_message(char* at, const char* names, uint16_t role_size, uint16_t event_size,
                        Encoded* payload) noexcept
cdef Py_ssize_t request_size(Py_ssize_t names_size, uint64_t correlation, Encoded* payload) noexcept
cdef void write_request(char* at, const char* names, uint16_t role_size, uint16_t event_size,
                        uint64_t correlation, Encoded* payload) noexcept
# kind: MSG_RESOLVE or MSG_REJECT.  correlation_size >= number_size(correlation): answers keep the
# length that the request had.
cdef Py_ssize_t answer_size(int correlation_size, Encoded* payload) noexcept
cdef void write_answer(char* at, uint8_t kind, uint64_t correlation, int correlation_size,
                       Encoded* payload) noexcept
# kind: MSG_OPEN_READABLE or MSG_OPEN_WRITABLE.
cdef Py_ssize_t open_size(Py_ssize_t names_size, uint64_t correlation, uint64_t channel,
                          Encoded* payload) noexcept
cdef void write_open(char* at, uint8_t kind, const char* names, uint16_t role_size,
                     uint16_t event_size, uint64_t correlation, uint64_t channel,
                     Encoded* payload) noexcept
# kind: MSG_STREAM_RESOLVE or MSG_STREAM_REJECT.  `numbers`: bytes of each of the two numbers, which
# Go reads only when they have the same length (section 7).
cdef int stream_number_size(int correlation_size, uint64_t channel) noexcept
cdef Py_ssize_t stream_answer_size(int numbers, Encoded* payload) noexcept
cdef void write_stream_answer(char* at, uint8_t kind, int numbers, uint64_t correlation,
                              uint64_t channel, Encoded* payload) noexcept
