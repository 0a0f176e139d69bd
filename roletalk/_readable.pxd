from libc.stdint cimport int64_t

from ._buffer cimport WriteBuffer
from ._channels cimport Stream


cdef class ReadableStream(Stream):
    """The reading end of a stream."""

    cdef:
        object _chunks                 # deque of bytes, none of them empty
        Py_ssize_t _at                 # of the first of them, where its unread part begins
        WriteBuffer _small             # what came after them in small chunks, together
        Py_ssize_t _unread             # bytes in all
        Py_ssize_t _window
        int64_t _received              # bytes in all
        double _round_trip             # s, the least that was seen; infinity: none
        double _granted_at             # s, the grant whose round trip is measured; 0: none is
        int64_t _granted_from          # byte that can only come thanks to it
        double _rate_from              # s, since when the rate is measured
        int64_t _rate_received         # bytes that had come by then
        bint _is_holding               # the connection is not read from, for this stream
        bint _given_up                  # aborted by our own side: nothing more is read
        char* _into                    # of the readinto() that waits
        Py_ssize_t _into_size
        Py_ssize_t _into_filled

    cdef int _store(self, const char* data, Py_ssize_t size) except -1
    cdef int _queue_small(self) except -1
    cdef int _consumed(self, Py_ssize_t size) except -1
    cdef int _grant(self) except -1
    cdef int _measure(self) except -1
    cdef bytes _take(self, Py_ssize_t most)
    cdef Py_ssize_t _take_into(self, char* to, Py_ssize_t size) except -1
    cdef int _put_back(self, bytes data) except -1
    cdef int _check_alone(self) except -1
