"""The streams of a connection: their channels, and the schedule that shares it (docs/protocol.md, section 7).

A stream lives on one connection.  Frames that come in find it by our channel number in `Channels`.
What goes out is sent in turns: each stream that has bytes and credit sends one chunk and goes to the
end of the queue.  Two things hold it back besides credit: the transport, once it has some tens of
kilobytes that the system does not take; and the event loop, which gets its turn every so often.
So a small message never waits for more than a chunk or two.
"""

import asyncio
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from ._calls cimport ANSWERED, FAILED, WAITING, new_call, new_waiter
from ._codec cimport number_size, write_number
from ._debug cimport COUNT_STREAM, DEBUG, token
from ._frame cimport OPEN
from ._wire cimport CORRELATION_BITS, FLAG_ERROR, FLAG_QUOTA, MSG_STREAM_DATA

from ._text import named, printable
from .errors import Reject, RoletalkError, StreamError

# Go's own channel numbers, which our ends have to take over, are small and count up.
cdef uint64_t FIRST_BESIDE_GO = 1 << 30

cdef enum:
    FIRST_WINDOW = 16384               # docs/protocol.md, section 7
    # Where a window begins: more than the pipe holds only makes what comes after it wait.  On the side
    # that has to take masks off the reader is the slower one, and all of the window queues up; on the
    # other one it waits for the writer, and a wider window saves that one some waiting.
    MASKED_WINDOW = 196608
    PLAIN_WINDOW = 1048576
    # No window takes more than this part of what is left: the first ones get all they may have, and
    # there is something for the thousandth.
    WINDOW_SHARE = 16
    # Bytes sent for streams until the loop gets its turn, and what a frame costs besides its bytes.
    TURN_BYTES = 131072
    FRAME_COST = 256
    CHUNK = 65536                      # bytes of one frame, at most
    ERROR_TEXT = 4096                  # characters of an abort that are sent and kept


cdef class UnitStreams:
    def __init__(self, PeerCore peer):
        self.limit = peer.max_streams
        self.window = peer.stream_window
        self.spare = peer.stream_buffer
        self.account = peer.account
        self.first_credit = FIRST_WINDOW
        self._next_number = 1

    def set_manners(self, *, bint is_exact, bint is_go, Py_ssize_t first_credit):
        """What kind of peer the unit is (docs/protocol.md, section 7)."""
        self.is_exact = is_exact
        self.is_go = is_go
        self.first_credit = first_credit
        self._next_number = FIRST_BESIDE_GO if is_go else 1

    cdef bint enter(self) noexcept:
        if self.open >= self.limit:
            return False
        self.open += 1
        return True

    cdef void leave(self) noexcept:
        self.open -= 1

    cdef uint64_t new_number(self) noexcept:
        cdef uint64_t number = self._next_number
        self._next_number += 1
        if self._next_number >> CORRELATION_BITS:
            self._next_number = FIRST_BESIDE_GO if self.is_go else 1
        return number

    cdef Py_ssize_t take_window(self, bint is_masked) noexcept:
        return self.widen(self.first_credit, MASKED_WINDOW if is_masked else PLAIN_WINDOW)

    cdef Py_ssize_t widen(self, Py_ssize_t window, Py_ssize_t wanted) noexcept:
        cdef Py_ssize_t extra = min(
            min(wanted, self.window) - window, min(self.spare, self.account.windows) // WINDOW_SHARE)
        if extra <= 0:
            return window
        self.spare -= extra
        self.account.windows -= extra
        return window + extra

    cdef void return_window(self, Py_ssize_t window) noexcept:
        self.spare += window - self.first_credit
        self.account.windows += window - self.first_credit


cdef class Channels:
    def __init__(self, PeerCore peer, Connection connection, UnitStreams shared):
        self.peer = peer
        self.connection = connection
        self.shared = shared
        self.by_number = {}
        self.remote_numbers = set()
        self._ready = deque()
        self._chunk = min(CHUNK, peer.limits.max_message_size - MAX_HEAD)

    # ---- which there are -----------------------------------------------------------------------------

    @property
    def count(self):
        return len(self.by_number)

    cdef bint is_free(self, uint64_t remote) except -1:
        if remote in self.remote_numbers:
            return False
        if not self.shared.is_go:
            return True
        # Our end takes the same number, and must not meet one that we chose.
        return 0 < remote < FIRST_BESIDE_GO and remote not in self.by_number

    cdef int add(self, Stream stream, uint64_t number) except -1:
        stream.channels = self
        stream.number = number
        self.by_number[number] = stream
        return 0

    cdef int forget(self, Stream stream) except -1:
        if self.by_number.get(stream.number) is stream:
            del self.by_number[stream.number]
        if stream.head_size > 0:
            self.remote_numbers.discard(stream.remote)
        return 0

    cdef int fail_all(self, str text, bint opening_too) except -1:
        cdef Stream stream
        self._ready.clear()
        for each in list(self.by_number.values()):
            stream = <Stream>each
            if opening_too or stream.state != STREAM_OPENING:
                stream.fail(text, False)
        return 0

    # ---- in ------------------------------------------------------------------------------------------

    cdef int receive(self, uint64_t number, uint8_t flag, const uint8_t* data, Py_ssize_t size,
                     bint direct) except -1:
        stream = self.by_number.get(number)
        if stream is None:
            if self.shared.is_go or 0 < number < self.shared._next_number:
                self.peer.counters.late_stream_frames += 1
                return 0
            return self.peer.drop("stream frames of an unknown channel")
        if (<Stream>stream).state == STREAM_OPENING:
            # Its opener has just given up, or the answer is still to come.
            self.peer.counters.late_stream_frames += 1
            return 0
        if flag > FLAG_QUOTA:
            return self.peer.drop("stream frames with an unknown flag")
        return (<Stream>stream).receive(flag, data, size, direct)

    # ---- out -----------------------------------------------------------------------------------------

    cdef int enqueue(self, Stream stream) except -1:
        if not stream.is_queued:
            stream.is_queued = True
            self._ready.append(stream)
        return 0

    cdef int pump(self) except -1:
        cdef Stream stream
        cdef Connection connection = self.connection
        while self._ready and connection._state == OPEN and not connection._backed_up:
            if self._turn >= TURN_BYTES:
                if not self._waits_for_turn:
                    self._waits_for_turn = True
                    connection.loop.call_soon(self._next_turn)
                return 0
            stream = <Stream>self._ready.popleft()
            stream.is_queued = False
            self._turn += FRAME_COST + stream.send_some(self._chunk)
        return 0

    def _next_turn(self):
        self._waits_for_turn = False
        self._turn = 0
        self.pump()

    cdef int send_error(self, uint64_t remote, str text) except -1:
        cdef bytes encoded = text[:ERROR_TEXT].encode("utf-8", "replace")
        cdef char[MAX_HEAD] head
        cdef int size = write_head(head, remote)
        if self.connection._state != OPEN:
            return 0
        head[size - 1] = FLAG_ERROR
        return self.connection.send_chunk(head, size, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))


cdef int write_head(char* head, uint64_t remote) noexcept:
    """What a 106 to `remote` begins with; returns its size, the flag's byte included."""
    cdef int size = number_size(remote)
    head[0] = MSG_STREAM_DATA
    head[1] = <char>size
    write_number(head + 2, size, remote)
    return 3 + size


cdef class Stream:
    def __init__(self):
        raise TypeError("streams are made by the library")

    def __del__(self):
        self.leave()

    def __repr__(self):
        state = ("opening", "open", "finished", "failed")[self.state]
        return f"<{type(self).__name__} {state} channel={self.number} remote={self.remote}>"

    @property
    def closed(self):
        """Whether the stream is over: ended, failed or aborted.  Bytes may be left to read."""
        return self.state >= STREAM_FINISHED

    cdef int receive(self, uint8_t flag, const uint8_t* data, Py_ssize_t size, bint direct) except -1:
        raise AssertionError("overridden by both kinds of stream")

    cdef int opened(self) except -1:
        return 0

    cdef Py_ssize_t send_some(self, Py_ssize_t most) except -1:
        return 0

    cdef int ended(self) except -1:
        return self.leave()

    cdef int handler_returned(self) except -1:
        return 0

    # ---- states --------------------------------------------------------------------------------------

    cdef int open(self, uint64_t remote) except -1:
        """Both ends have agreed; `remote` is the channel that the other end receives on."""
        self.state = STREAM_OPEN
        self.opening = None
        self.remote = remote
        self.head_size = write_head(self.head, remote)
        self.channels.remote_numbers.add(remote)
        self.credit = self.shared.first_credit
        self.peer.counters.streams_opened += 1
        return self.opened()

    cdef int finish(self) except -1:
        """The end was sent or received."""
        self.state = STREAM_FINISHED
        self.channels.forget(self)
        return self.ended()

    cdef int fail(self, str text, bint direct) except -1:
        """It is over before its end; whoever waits learns of it, or else its handler is cancelled."""
        if self.state >= STREAM_FINISHED:
            return 0
        self.state = STREAM_FAILED
        self.error_text = text
        self.channels.forget(self)
        self.ended()
        opening, self.opening = self.opening, None
        if opening is not None and (<Waiter>opening).table is not None:
            (<Waiter>opening).table.discard(<Waiter>opening)
            return (<Waiter>opening).settle(FAILED, self.failure(), direct)
        if self.is_awaited():
            waiter, self.waiter = self.waiter, None
            task = (<Waiter>waiter).wakeup
            if (<Waiter>waiter).wake == NULL:
                task = getattr(task, "__self__", None if task is None else self.task)
            (<Waiter>waiter).settle(FAILED, self.failure(), direct)
            # The handler is told, unless a task of its own waited, or nobody.
            self.is_told = task is not None and task is self.task
        if self.task is not None:
            # It may have been woken already, and about to learn of it from its operation.
            self.peer.loop.call_soon(self._cancel_handler)
        return 0

    def _cancel_handler(self):
        if self.task is not None and not self.is_told:
            self.task.cancel(printable(self.error_text))

    cdef int abort_with(self, str text) except -1:
        """Our own side gives it up."""
        cdef Channels channels = self.channels
        # Its own handler is not to be cancelled for that.
        self.task = None
        if self.state == STREAM_OPEN:
            channels.send_error(self.remote, text or "aborted")
        self.fail(text or "aborted", False)
        return 0

    cdef int leave(self) except -1:
        """It holds no memory any more: it counts no more."""
        shared, self.shared = self.shared, None
        if shared is not None:
            (<UnitStreams>shared).leave()
        return 0

    cdef object failure(self):
        # Who else may be told of it is none of the handler's concern.
        if self.task is not None and asyncio.current_task(self.peer.loop) is self.task:
            self.is_told = True
        error = StreamError(self.error_text, hint=self.described())
        error.unit = self.unit
        if self.reply is not None:
            error.role = self.reply.role
            error.event = self.reply.event
        return error

    cdef str described(self):
        """Which stream it is, for errors."""
        if self.reply is None:
            return f"stream with {named(self.unit)}"
        return f"stream {self.reply.event!r} of role {self.reply.role!r} with {named(self.unit)}"

    # ---- waiting -------------------------------------------------------------------------------------

    cdef bint is_awaited(self) noexcept:
        return self.waiter is not None and self.waiter.state == WAITING

    cdef object wait(self):
        """What the one task that waits for this stream awaits."""
        if self.is_awaited():
            raise RuntimeError(
                f"a stream is used by one task at a time: await what is under way ({self.described()})")
        self.waiter = new_waiter(self.peer.home, 0, 0, None, None)
        return new_call(self.waiter)

    cdef int wake(self, bint direct) except -1:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            return (<Waiter>waiter).settle(ANSWERED, None, direct)
        return 0

    # ---- frames --------------------------------------------------------------------------------------

    cdef int send(self, uint8_t flag, const char* data, Py_ssize_t size) except -1:
        if self.channels.connection._state != OPEN:
            return 0
        self.head[self.head_size - 1] = <char>flag
        return self.channels.connection.send_chunk(self.head, self.head_size, data, size)

    # ---- the block, and the handler that serves it ---------------------------------------------------

    async def abort(self, reason="aborted"):
        """Give the stream up: the other end's operations raise `StreamError` with `reason`, and so do
        ours from now on.  Does nothing when the stream is over.  Raises `RuntimeError` in a wrong
        thread, loop or process.
        """
        self.peer.check_here()
        self.abort_with(str(reason))

    async def __aenter__(self):
        return self


cdef int begin_stream(Stream stream, PeerCore peer, Responder unit, UnitStreams shared) except -1:
    """Fill in what a new stream knows from the start; `shared` counts it already."""
    if DEBUG:
        stream.token = token(COUNT_STREAM)
    stream.peer = peer
    stream.unit = unit
    stream.shared = shared
    return 0


cdef str remote_text(str what, const uint8_t* data, Py_ssize_t size):
    reason = data[:min(size, <Py_ssize_t>(4 * ERROR_TEXT))].decode("utf-8", "replace")[:ERROR_TEXT]
    return f"{what}: {reason}" if reason else what


cdef str abort_text(object error, bint expose):
    if isinstance(error, Reject):
        return error.text
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return exposed(error) if expose else "internal error"


cdef str exposed(object error):
    try:
        # Hints are for who runs this peer: they name its keys, its other units and whom it dials.
        text = error.what if isinstance(error, RoletalkError) else error
        return f"{type(error).__name__}: {text}"
    except Exception:
        return type(error).__name__
