from ._channels cimport Stream


cdef class WritableStream(Stream):
    """The writing end of a stream."""

    cdef:
        const char* _at                # what is left of the write that is under way
        Py_ssize_t _left               # bytes

    cdef object _write(self, object data)
    cdef int _check_open(self) except -1
    cdef object _closed(self)
    cdef int _drop_rest(self) except -1
    cdef int _finish_now(self) except -1
