from libc.stdint cimport uint8_t

cdef struct Encoded:
    # A value as payload bytes, before they are copied into a frame.
    const char* data                 # borrowed: from `scratch`, or from the owner that encode() returned
    Py_ssize_t size                  # bytes, the data type byte not counted
    uint8_t datatype
    char scratch[48]

# Fills `out`; returns the object that keeps out.data alive (or None).  The caller holds both until it
# has copied the bytes, and runs no Python code in between.
# TypeError, ValueError: docs/protocol.md section 2; nothing of `out` may be used then.
cdef object encode(object value, Encoded* out)

# The value of a payload; `raw` is the payload without its data type byte.  Raises BadPayload.
cdef object decode(uint8_t datatype, bytes raw)
