from libc.stdint cimport uint8_t, uint64_t

from ._debug cimport Token
from ._dispatch cimport Handler


cdef class Responder:
    """Who a context came from and who takes its answer: the base of a unit."""

    cdef int check_here(self) except -1
    # A line that the remote peer can cause; with `error` its traceback follows.
    cdef int log(self, int level, str text, tuple args, object error) except -1
    # `connection`: the one that the request came in on, preferred for the answer.
    cdef int answer(self, RequestContext context, uint8_t kind, object value) except -1

    # What becomes of an async handler, told by its task: it waits for the first time, it is done.
    cdef int handler_waits(self, Context context, object task) except -1
    cdef int handler_returned(self, Handler handler, Context context, object value, object task) except -1
    cdef int handler_failed(self, Handler handler, Context context, object error, object task) except -1


cdef class Context:
    cdef:
        readonly Responder unit
        readonly bytes raw
        readonly str role
        readonly str event
        readonly str kind              # "message", "request", "reply", "readable" or "writable"
        double _rtt                    # s; of replies
        Token _token                   # of the debug build
        uint8_t _datatype
        bint _decoded
        object _data
        # Of requests.  Here, so that both kinds are of one size and come from one freelist.
        bint is_answered
        uint8_t correlation_size       # bytes that it took on the wire
        uint64_t correlation
        object connection              # the one that the request came in on


cdef class RequestContext(Context):
    cdef int finish(self, uint8_t kind, object value) except -1
    cdef int _check(self) except -1


cdef void fill(Context context, Responder unit, str kind, object role, object event, uint8_t datatype,
               bytes raw)
