from libc.stdint cimport uint8_t, uint64_t

from ._calls cimport CallTable
from ._codec cimport Encoded, Envelope
from ._context cimport Context, RequestContext, Responder
from ._dispatch cimport Handler, HandlerTable
from ._frame cimport Connection, FrameLimits


cdef struct Counters:
    uint64_t messages_sent
    uint64_t messages_received
    uint64_t requests_sent
    uint64_t requests_received
    uint64_t replies_sent
    uint64_t replies_received
    uint64_t rejects_sent
    uint64_t rejects_received
    uint64_t late_replies
    uint64_t timeouts
    uint64_t bytes_sent                # of connections that are gone; the living count their own
    uint64_t bytes_received


cdef class PeerCore:
    """What the hot path needs of a peer."""

    cdef:
        readonly object loop           # None until the first use inside a running loop
        readonly FrameLimits limits
        readonly HandlerTable table
        readonly dict drops            # reason -> count
        public object request_timeout  # s, or None
        public bint expose_errors
        public Py_ssize_t max_handlers # async handlers that run at once for one unit
        public Py_ssize_t max_pending  # requests pending on one unit
        public double slow_handler     # s that a handler may hold the loop before a warning names it
        Counters counters
        unsigned long _thread
        object _is_running             # of the loop
        int _fork_epoch
        object _eager                  # whether handlers' tasks may be started eagerly
        set _tables                    # call tables that may hold a deadline
        double _sweep_at
        object _sweep_handle

    cdef int check_here(self) except -1
    cdef int drop(self, str reason) except -1
    cdef int note_deadline(self, double deadline, CallTable table) except -1


cdef class Link(Connection):
    """A connection to a unit: handshake first, then everything that section 3 lists."""

    cdef:
        readonly PeerCore peer
        readonly UnitCore unit         # None until the handshake is done
        public object owner            # takes the handshake's messages and hears of the end
        bint _direct                   # no task is current while this batch is read

    cdef int _handle(self, Envelope* envelope) except -1
    cdef int _settle(self, Envelope* envelope, bint rejected) except -1
    cdef int _refuse(self, Envelope* envelope, str text) except -1
    cdef int _stream_message(self, Envelope* envelope) except -1
    cdef int _refuse_stream(self, Envelope* envelope) except -1


cdef class UnitCore(Responder):
    """A remote peer: its connections, what it was asked, and the handlers that run for it."""

    cdef:
        readonly PeerCore peer
        readonly CallTable calls
        list _links
        Py_ssize_t _next_link
        readonly set tasks                      # of async handlers that run for this unit
        readonly bint gone             # its last connection is lost

    cdef Link pick_link(self)
    cdef int run(self, Handler handler, Context context) except -1
    cdef int _failed(self, Handler handler, Context context, object error) except -1
    cdef int _returned(self, Handler handler, Context context, object value) except -1
    cdef int _complete(self, Handler handler, Context context, object task) except -1
    cdef int _spawn(self, Handler handler, Context context, object coroutine, object variables) except -1


cdef class DestinationCore:
    """A role as seen from outside: the units that serve it, and whose turn it is."""

    cdef:
        readonly PeerCore peer
        readonly str name
        bytes _wire_name
        list _units
        Py_ssize_t _next_unit
        dict _names                    # event -> role || event in UTF-8
        str _last_event
        bytes _last_names

    cdef bytes names_of(self, object event)
    cdef UnitCore pick_unit(self, object unit)
    cdef object _request(self, object event, object data, object timeout, object unit, bint ignore_close,
                         bint may_wait)
    cdef Link _send(self, object event, object data, object unit)
    cdef int _write(self, Link link, bytes names, Encoded* payload) except -1
