from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ._buffer cimport WriteBuffer
from ._inbound cimport FrameLimits, Inbound

# CONNECTING ──upgraded──▶ OPEN ──close(), or the remote's close frame, or a violation──▶ CLOSING
#     │                     │                                                             │
#     └─────────────────────┴────────────────── connection lost ──────────────────────────┴──▶ CLOSED
#
# CLOSING means that our close frame is written; nothing but the remote's close frame is read then.
cpdef enum ConnectionState:
    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


cdef class Connection(Inbound):
    """One WebSocket connection: whole messages in, coalesced frames out, busy or not."""

    cdef:
        readonly int close_code        # the remote's close code, or ours when we closed first; 0 while open
        readonly str close_reason
        readonly bint closed_by_us
        readonly uint64_t bytes_sent       # of frames
        readonly Py_ssize_t bytes_lost     # that were unsent when it ended, but for our close frame
        ConnectionState _state
        object _transport
        object _write
        object _writelines
        object _write_buffer_size
        bint _write_copies             # the transport keeps no reference to what it is given
        int _fd                        # of a socket that may be written to past its idle transport; or -1

        # Out: the frames of this loop turn.
        WriteBuffer _out
        Py_ssize_t _frame_at           # where the payload of the frame being built starts; -1: none
        Py_ssize_t _frame_size
        uint32_t _mask                 # of the frame being built, as four bytes in memory order
        Py_ssize_t _backlog            # bytes that the transport held when it was last looked at
        Py_ssize_t _close_size         # of our close frame
        Py_ssize_t _taken              # bytes that had left the transport when `check_alive` looked
        bint _flush_scheduled
        bint _backed_up                # the transport's backlog is above BACKED_UP, or not yet DRAINED
        bint _reading_paused           # the remote does not read what it asked for
        Py_ssize_t _holds              # readers that are behind: nothing more is read for them
        bint _wants_room               # somebody waits for `writable`
        bytes _pong                    # the one ping that waits for room to be answered
        list _probes                   # the futures of `probe`; None: there are none

        double _pinged_at              # s; 0: no ping is out
        double _ponged_at              # s, the last pong that nobody asked for
        object _close_timer
        double _close_due              # s, when that timer is
        double _patient_until          # s; a remote that is closed on purpose may talk until then

    # What a subclass overrides, besides what Inbound has.
    cdef int opened(self) except -1
    cdef int writable(self) except -1
    cdef int drained(self) except -1   # the transport took most of its backlog
    cdef int closing(self) except -1   # CLOSING begins
    cdef int closed(self) except -1

    # A binary frame of `size` bytes: fill what begin() returns, with no Python code in between,
    # then end().  Only while OPEN.
    cdef char* begin(self, Py_ssize_t size) except NULL
    cdef int end(self) except -1
    # A binary frame of `head` and `data`, both borrowed for the call.  Only while OPEN.
    cdef int send_chunk(self, const char* head, Py_ssize_t head_size, const char* data,
                        Py_ssize_t size) except -1

    # Stop reading from the transport, until as many calls have released it.
    cdef int hold_reading(self) except -1
    cdef int release_reading(self) except -1

    cdef Py_ssize_t unsent(self) except -1
    cdef bint is_busy(self) except -1
    cdef bint has_room(self) except -1
    cdef int flush(self) except -1

    cdef int _set_state(self, ConnectionState state) except -1
    cdef char* _begin(self, uint8_t opcode, Py_ssize_t size) except NULL
    cdef char* _header(self, uint8_t opcode, Py_ssize_t size, Py_ssize_t space) except NULL
    cdef object _view(self, const char* data, Py_ssize_t size)
    cdef bint _is_idle(self) except -1
    cdef int _check_free(self) except -1
    cdef int _check_built(self) except -1
    cdef int _frame_done(self) except -1
    cdef int _written(self, Py_ssize_t size) except -1
    cdef int _control(self, uint8_t opcode, const char* data, Py_ssize_t size) except -1
    cdef int _receive_close(self, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int _answer_ping(self, const char* payload, Py_ssize_t size) except -1
    cdef int _resume_soon(self) except -1
    cdef int _end_probes(self) except -1
    cdef int _wait_closed(self, double at) except -1
    cdef int _note_lost(self, Py_ssize_t unsent) except -1
    cdef int _start_closing(self, int code, str reason, bint by_us) except -1
    cdef int _use_room(self) except -1
