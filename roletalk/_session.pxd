from libc.stdint cimport uint8_t, uint64_t

from ._calls cimport CallTable, Waiter
from ._channels cimport Channels, Stream, UnitStreams
from ._codec cimport Envelope
from ._context cimport Context, RequestContext, Responder
from ._dispatch cimport Handler
from ._frame cimport Connection
from ._inbound cimport FrameLimits
from ._opening cimport StreamContext
from ._peer cimport PeerCore


cdef class Link(Connection):
    """A connection to a unit, made by either side; a unit may have several."""

    cdef:
        readonly PeerCore peer
        readonly UnitCore unit         # None until the handshake is done
        public object owner            # takes the handshake's messages and hears of the end
        bint _direct                   # no task is current while this batch is read
        Channels channels              # None until the handshake is done
        set _asked                     # stream requests that are not answered yet

    cdef int _handle(self, Envelope* envelope) except -1
    cdef int _settle(self, Envelope* envelope, bint rejected) except -1
    cdef object _misanswered(self, str text, Waiter waiter)
    cdef int _refuse(self, Envelope* envelope, str text) except -1
    cdef StreamContext _asked_for(self, Envelope* envelope)
    cdef int _answered(self, StreamContext context) except -1
    cdef int _settle_stream(self, Envelope* envelope) except -1
    cdef bint _adopt(self, Stream stream, uint64_t remote) except -1
    cdef int _end_streams(self) except -1


cdef class UnitCore(Responder):
    """A remote peer: its connections, what it was asked, and the handlers that run for it."""

    cdef:
        readonly PeerCore peer
        readonly CallTable calls
        readonly UnitStreams streams
        list _links
        Py_ssize_t _next_link
        readonly Py_ssize_t handling   # bytes of payload that running async handlers keep
        readonly set tasks                      # of async handlers that run for this unit
        readonly bint gone             # its last connection is lost

    cdef Link pick_link(self)
    cdef Link pick_calm_link(self)
    cdef int run(self, Handler handler, Context context) except -1
    cdef int _failed(self, Handler handler, Context context, object error) except -1
    cdef int _returned(self, Handler handler, Context context, object value) except -1
    cdef int _spawn(self, Handler handler, Context context, object coroutine) except -1
    cdef bint _is_too_much(self, Link link) except -1
    cdef int _leave(self, Context context, object task) except -1
    cdef int _answer_stream(self, StreamContext context, uint8_t kind, object value) except -1
    cdef str _too_large(self, Py_ssize_t size)
    cdef object _not_accepted(self, StreamContext context, str why)
    cdef int _stream_done(self, StreamContext context, str failure) except -1
