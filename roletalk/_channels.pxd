from libc.stdint cimport uint8_t, uint64_t

from ._buffer cimport Account
from ._calls cimport Waiter
from ._context cimport Context, Responder
from ._debug cimport Token
from ._frame cimport Connection
from ._peer cimport PeerCore

cdef enum:
    MAX_HEAD = 12                      # bytes before the data of a 106: type, length, channel, flag

# OPENING ──accepted──▶ OPEN ──the end was sent or received──▶ FINISHED
#    └─────────────────────┴──aborted, or the connection lost──▶ FAILED
cdef enum StreamState:
    STREAM_OPENING
    STREAM_OPEN
    STREAM_FINISHED
    STREAM_FAILED


cdef class UnitStreams:
    """What the streams of one unit share: how many there may be, their windows, channel numbers."""

    cdef:
        readonly Py_ssize_t open       # asked for, opening or open, or ended with bytes unread
        Py_ssize_t limit
        Py_ssize_t window              # bytes of one stream, at most
        Account account                # of the peer
        readonly Py_ssize_t spare      # bytes that windows beyond the smallest may still take together
        readonly Py_ssize_t first_credit  # bytes that either end may send before the first quota
        readonly bint is_exact         # never sends beyond its credit: a peer of ours
        readonly bint is_go
        uint64_t _next_number

    cdef bint enter(self) noexcept
    cdef void leave(self) noexcept
    cdef uint64_t new_number(self) noexcept
    cdef Py_ssize_t take_window(self, bint is_masked) noexcept
    # What `window` becomes when it should be `wanted`: at least itself.
    cdef Py_ssize_t widen(self, Py_ssize_t window, Py_ssize_t wanted) noexcept
    cdef void return_window(self, Py_ssize_t window) noexcept


cdef class Channels:
    """The streams of one connection, by channel number, and whose turn it is to send."""

    cdef:
        readonly PeerCore peer
        readonly Connection connection
        readonly UnitStreams shared
        dict by_number                 # our channel number -> Stream
        set remote_numbers             # the other ends of those, and of what was asked for
        object _ready                  # deque of streams that have bytes and credit
        Py_ssize_t _chunk              # bytes of one frame, at most
        Py_ssize_t _turn               # what was sent since the loop was last given its turn
        bint _waits_for_turn

    # Whether a stream of ours may have `remote` at its other end.
    cdef bint is_free(self, uint64_t remote) except -1
    cdef int add(self, Stream stream, uint64_t number) except -1
    cdef int forget(self, Stream stream) except -1
    cdef int receive(self, uint64_t number, uint8_t flag, const uint8_t* data, Py_ssize_t size,
                     bint direct) except -1
    # Those that are opening fail too when there is another connection; without one their unit is gone.
    cdef int fail_all(self, str text, bint opening_too) except -1
    cdef int enqueue(self, Stream stream) except -1
    cdef int pump(self) except -1
    # Tell the remote side that what it calls `remote` is over.
    cdef int send_error(self, uint64_t remote, str text) except -1


cdef class Stream:
    """One end of a stream: what reading and writing have in common."""

    cdef:
        object __weakref__
        readonly Context reply
        readonly Responder unit
        PeerCore peer
        Channels channels              # of the connection that it lives on
        UnitStreams shared             # None once it counts no more
        StreamState state
        str error_text                 # why it failed
        bint is_told                   # its handler was
        uint64_t number                # our channel
        uint64_t remote                # the other end's channel
        bint is_queued                 # in Channels._ready
        Waiter opening                 # of the request that opens it
        Waiter waiter                  # of the operation that waits
        object task                    # of the handler that serves it
        Py_ssize_t credit              # bytes that may still be sent on it
        char[MAX_HEAD] head            # what a 106 begins with, the flag last
        int head_size
        Token token                    # of the debug build

    # What the two kinds do.  `direct`: no task is current, so a waiting one may be stepped at once.
    cdef int receive(self, uint8_t flag, const uint8_t* data, Py_ssize_t size, bint direct) except -1
    cdef int opened(self) except -1
    cdef Py_ssize_t send_some(self, Py_ssize_t most) except -1
    cdef int ended(self) except -1
    cdef int handler_returned(self) except -1

    cdef int open(self, uint64_t remote) except -1
    cdef int send(self, uint8_t flag, const char* data, Py_ssize_t size) except -1
    cdef int finish(self) except -1
    cdef int fail(self, str text, bint direct) except -1
    cdef int abort_with(self, str text) except -1
    cdef int leave(self) except -1
    cdef int wake(self, bint direct) except -1
    cdef object wait(self)
    cdef object failure(self)
    cdef str described(self)
    cdef bint is_awaited(self) noexcept


# What a stream fails with: `what` happened, and the reason that the other end gives in `data`.
cdef str remote_text(str what, const uint8_t* data, Py_ssize_t size)

cdef int begin_stream(Stream stream, PeerCore peer, Responder unit, UnitStreams shared) except -1

# The text that the other end gets when a block or handler ends with `error`.
cdef str abort_text(object error, bint expose)
# The type and text of an error, for peers that expose them.
cdef str exposed(object error)
