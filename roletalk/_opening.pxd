from libc.stdint cimport uint64_t

from ._channels cimport Stream
from ._context cimport RequestContext


cdef class StreamOpening:
    """What opens a stream: to be awaited, or entered."""

    cdef:
        object _opening                # a coroutine
        object _opened


cdef class StreamContext(RequestContext):
    """A stream request: what both of its kinds have in common."""

    cdef:
        uint64_t remote                # the channel that the other end receives on
        Stream stream                  # once it is accepted
        object task                    # of an async handler

    cdef Stream new_stream(self)


cdef class ReadableContext(StreamContext):
    pass


cdef class WritableContext(StreamContext):
    pass


cdef StreamOpening opening(object coroutine, str name)
cdef object renamed(object coroutine, str name)
