from libc.stdint cimport uint64_t

from ._buffer cimport Account, ReadSpace
from ._calls cimport CallTable, Home
from ._dispatch cimport HandlerTable
from ._inbound cimport FrameLimits


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
    uint64_t streams_opened            # accepted, either way
    uint64_t stream_bytes_sent
    uint64_t stream_bytes_received
    uint64_t late_stream_frames        # for channels that are over already
    uint64_t timeouts
    uint64_t bytes_sent                # of connections that are gone; the living count their own
    uint64_t bytes_received


cdef class PeerCore:
    """What the hot path needs of a peer."""

    cdef:
        readonly object loop           # None until the first use inside a running loop
        readonly FrameLimits limits
        readonly HandlerTable table
        readonly ReadSpace read_space  # of all connections
        readonly Account account       # of what is kept
        readonly object remote_log     # for lines that remote peers can cause
        readonly dict drops            # reason -> count
        public object request_timeout  # s, or None
        public bint expose_errors
        public Py_ssize_t max_handlers  # async handlers that run at once for one unit
        public Py_ssize_t max_handler_bytes  # of payload that they may keep
        public Py_ssize_t max_pending  # requests pending on one unit
        public Py_ssize_t max_streams  # open at once with one unit
        public Py_ssize_t stream_window  # bytes unread or on their way, of one stream
        public Py_ssize_t stream_buffer  # the same of all streams of a unit, beyond the smallest windows
        public double slow_handler     # s that a handler may hold the loop before a warning names it
        Counters counters
        unsigned long _thread
        object _is_running             # of the loop
        Home home                      # of what waits on the loop
        int _fork_epoch
        object _pid                    # of the process that made it
        readonly bint makes_tasks      # the loop has no task factory of the user's
        set _tables                    # call tables that may hold a deadline
        double _sweep_at
        object _sweep_handle

    cdef int check_here(self) except -1
    cdef bint no_task_is_current(self) except -1
    cdef int drop(self, str reason) except -1
    cdef int note_deadline(self, double deadline, CallTable table) except -1
