"""The reading end of a stream."""

import asyncio
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from ._channels cimport STREAM_FAILED, STREAM_FINISHED, STREAM_OPEN, abort_text, remote_text
from ._codec cimport number_size, write_number
from ._debug cimport now
from ._wire cimport FLAG_CHUNK, FLAG_ERROR, FLAG_FINISH, FLAG_QUOTA

cdef enum:
    # A chunk below this that has to wait for its reader is put together with its neighbours.
    SMALL_CHUNK = 4096
    GATHERED = 65536
    # The rate is taken over this many windows: bursts come from the scheduling of processes.
    RATE_WINDOWS = 8

cdef double INFINITE = float("inf")


cdef class ReadableStream(Stream):
    """The end of a stream that is read from (docs/protocol.md, section 7).

    Iterating gives the bytes as they come, in pieces that are never empty; how they were cut by the
    writer is not kept.  What had come before a failure is still read, then each read raises
    `StreamError`: only a stream that its writer has finished has an end.

    An async context manager: leaving the block before the end makes the writer stop.
    """

    def __cinit__(self, *args, **kwargs):
        self._chunks = deque()

    # ---- reading -------------------------------------------------------------------------------------
    # Bytes are taken in the step that returns them, never before: a read that is cancelled loses none.

    async def read(self, n=-1):
        """Read up to `n` bytes, as soon as there are any; b"" at the end.  With -1, all to the end.

        Cancelled, it has read nothing.  Raises `StreamError` when the stream has failed, `RuntimeError`
        while another read waits, and in a wrong thread, loop or process.
        """
        cdef Py_ssize_t most = n
        self.peer.check_here()
        if most < 0:
            return await self._gather(-1)
        self._check_alone()
        if most == 0 or not await self._some():
            return b""
        return self._take(most)

    async def readexactly(self, n):
        """Read exactly `n` bytes.

        Raises `asyncio.IncompleteReadError`, with what there was, when the end comes first,
        `ValueError` when `n` is negative, and what `read` raises.
        """
        cdef Py_ssize_t size = n
        self.peer.check_here()
        if size < 0:
            raise ValueError(f"n is negative: {n}")
        return await self._gather(size)

    async def readinto(self, buffer):
        """Read into a writable buffer, as soon as there are bytes; returns their count, 0 at the end.

        Raises `TypeError` for what is no writable, contiguous buffer, and what `read` raises.
        """
        cdef char* to
        cdef Py_ssize_t size
        self.peer.check_here()
        with PyMemoryView_FromObject(buffer) as view:
            if view.readonly or not view.c_contiguous:
                raise TypeError("readinto needs a writable, contiguous buffer")
            to = <char*>PyMemoryView_GET_BUFFER(view).buf
            size = PyMemoryView_GET_BUFFER(view).len
            return await self._fill(<size_t>to, size) if size > 0 else 0

    async def _fill(self, size_t address, Py_ssize_t size):
        """Read into memory that the caller keeps."""
        cdef char* to = <char*>address
        cdef Py_ssize_t filled
        self._check_alone()
        self._into, self._into_size, self._into_filled = to, size, 0
        try:
            if not await self._some():
                return 0
        except BaseException:
            if self._into_filled > 0:
                self._put_back(PyBytes_FromStringAndSize(to, self._into_filled))
            raise
        finally:
            filled, self._into_filled = self._into_filled, 0
            self._into = NULL
        # What came while this waited lies in the buffer already.
        return filled if filled > 0 else self._take_into(to, size)

    def __aiter__(self):
        return self

    async def __anext__(self):
        self.peer.check_here()
        self._check_alone()
        if not await self._some():
            raise StopAsyncIteration
        return self._take(-1)

    cdef int _check_alone(self) except -1:
        if self.is_awaited() or self._into != NULL:
            raise RuntimeError(
                f"a stream is read by one task at a time: await the read before ({self.described()})")
        return 0

    async def _some(self):
        """Wait until there are bytes; False at the end.  Raises what the stream failed with."""
        while self._unread == 0 and self._into_filled == 0:
            if self.state == STREAM_FAILED:
                raise self.failure()
            if self.state == STREAM_FINISHED:
                return False
            await self.wait()
        return True

    async def _gather(self, Py_ssize_t n):
        """`n` bytes, or with -1 all of them to the end."""
        cdef list pieces = []
        cdef Py_ssize_t missing = n
        cdef bytes piece
        self._check_alone()
        try:
            while missing != 0:
                if not await self._some():
                    break
                piece = self._take(missing)
                pieces.append(piece)
                if n > 0:
                    missing -= PyBytes_GET_SIZE(piece)
        except BaseException:
            # Nothing of it was read.
            if pieces:
                self._put_back(b"".join(pieces))
            raise
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if missing > 0:
            raise asyncio.IncompleteReadError(whole, n)
        return whole

    # ---- what is unread ------------------------------------------------------------------------------

    cdef int _store(self, const char* data, Py_ssize_t size) except -1:
        self._unread += size
        if size < SMALL_CHUNK and self._unread > size:
            if self._small is None:
                self._small = WriteBuffer()
            self.channels.connection.take(self._small.append(size), data, size)
            return self._queue_small() if self._small.size >= GATHERED else 0
        if self._small is not None and self._small.size > 0:
            self._queue_small()
        self._chunks.append(self.channels.connection.taken(data, size))
        return 0

    cdef int _queue_small(self) except -1:
        self._chunks.append(PyBytes_FromStringAndSize(self._small.data, self._small.size))
        self._small.release()
        return 0

    cdef bytes _take(self, Py_ssize_t most):
        """The next bytes, at most `most` of them; with -1 what lies together."""
        cdef bytes chunk, piece
        cdef Py_ssize_t size
        if not self._chunks:
            self._queue_small()
        chunk = self._chunks[0]
        size = PyBytes_GET_SIZE(chunk) - self._at
        if most < 0 or size <= most:
            piece = chunk if self._at == 0 else chunk[self._at:]
            self._chunks.popleft()
            self._at = 0
        else:
            size = most
            piece = chunk[self._at:self._at + size]
            self._at += size
        self._consumed(size)
        return piece

    cdef Py_ssize_t _take_into(self, char* to, Py_ssize_t size) except -1:
        cdef Py_ssize_t filled = 0
        cdef Py_ssize_t part
        cdef bytes chunk
        while filled < size and self._unread > filled:
            if not self._chunks:
                self._queue_small()
            chunk = self._chunks[0]
            part = min(size - filled, PyBytes_GET_SIZE(chunk) - self._at)
            memcpy(to + filled, PyBytes_AS_STRING(chunk) + self._at, part)
            filled += part
            self._at += part
            if self._at == PyBytes_GET_SIZE(chunk):
                self._chunks.popleft()
                self._at = 0
        self._consumed(filled)
        return filled

    cdef int _put_back(self, bytes data) except -1:
        if self._given_up:
            return 0
        if self._at > 0:
            self._chunks[0] = self._chunks[0][self._at:]
            self._at = 0
        self._chunks.appendleft(data)
        self._unread += PyBytes_GET_SIZE(data)
        return 0

    # ---- flow control --------------------------------------------------------------------------------

    cdef int opened(self) except -1:
        self._window = self.shared.take_window(not self.channels.connection.is_client)
        self._round_trip = INFINITE
        self._rate_from = now()
        return self._grant()

    cdef int _consumed(self, Py_ssize_t size) except -1:
        self._unread -= size
        if self._is_holding and self._unread <= self._window // 2:
            self._is_holding = False
            self.channels.connection.release_reading()
        if self.state == STREAM_OPEN:
            return self._grant()
        if self._unread == 0:
            return self.leave()
        return 0

    cdef int _grant(self) except -1:
        cdef char[8] quota
        # A writer below 0 has stopped: none of that is under way.
        cdef Py_ssize_t left = max(self.credit, 0)
        cdef Py_ssize_t more = self._window - self._unread - left
        # A JS writer sets its credit to the quota: a grant at or below half of the window, which then
        # fills it up, cannot leave it with less than the other half.
        if 2 * (left + self._unread) > self._window:
            return 0
        if self._granted_at == 0:
            self._granted_at = now()
            self._granted_from = self._received + left
        self.credit = left + more
        write_number(quota, number_size(more), more)
        self.send(FLAG_QUOTA, quota, number_size(more))
        # Not after the rest of what was read: the writer may wait for it.
        return self.channels.connection.flush()

    cdef int _measure(self) except -1:
        """Let the window follow what the pipe holds: the rate times the round trip.

        A writer that is held up by its credit gets two thirds of a window or more in each round trip; one
        that never is gets less than half.  The round trip is that of a grant: from sending it to the
        first byte that could not have come without it.
        """
        cdef double at = self.channels.connection.received_at
        cdef double seconds
        if 0 < self._granted_at < at and self._received > self._granted_from:
            self._round_trip = min(self._round_trip, at - self._granted_at)
            self._granted_at = 0
        if self._received - self._rate_received < RATE_WINDOWS * self._window:
            return 0
        seconds = at - self._rate_from
        if 5 * (self._received - self._rate_received) * self._round_trip > 3 * self._window * seconds:
            self._window = self.shared.widen(self._window, 2 * self._window)
        self._rate_from = at
        self._rate_received = self._received
        return 0

    cdef int receive(self, uint8_t flag, const uint8_t* data, Py_ssize_t size, bint direct) except -1:
        cdef Py_ssize_t part
        if flag == FLAG_CHUNK:
            if size == 0:
                return 0
            self.peer.counters.stream_bytes_received += size
            self.credit -= size
            self._received += size
            self._measure()
            if self.credit < 0 and self.shared.is_exact:
                self.channels.send_error(self.remote, "more was sent than was granted")
                return self.fail("the writer sent more than it was granted", direct)
            if direct and self._into != NULL and self._into_filled == 0 and self._unread == 0:
                # Straight to where the reader wants it.
                part = min(size, self._into_size)
                self.channels.connection.take(self._into, <const char*>data, part)
                self._into_filled = part
                if part < size:
                    self._store(<const char*>data + part, size - part)
                self._grant()
            else:
                self._store(<const char*>data, size)
            if self.credit < -self._window and not self._is_holding:
                # It ignores its credit, as Go does: what else it sends waits in its socket.
                self._is_holding = True
                self.channels.connection.hold_reading()
            return self.wake(direct)
        if flag == FLAG_FINISH:
            self.finish()
            return self.wake(direct)
        if flag == FLAG_ERROR:
            return self.fail(remote_text("aborted by the writer", data, size), direct)
        return self.peer.drop("stream frames in the wrong direction")

    # ---- the end -------------------------------------------------------------------------------------

    cdef int ended(self) except -1:
        # What is unread counts until it is read, or nobody will.
        return self.leave() if self._unread == 0 else 0

    cdef int leave(self) except -1:
        if self.shared is not None and self._window > 0:
            self.shared.return_window(self._window)
        if self._is_holding:
            self._is_holding = False
            self.channels.connection.release_reading()
        return Stream.leave(self)

    cdef int abort_with(self, str text) except -1:
        self._given_up = True
        if self._unread > 0:
            self._chunks.clear()
            self._small = None
            self._at = self._unread = 0
            if self.state == STREAM_FINISHED:
                # Not to be mistaken for the end: that was not read.
                self.state = STREAM_FAILED
                self.error_text = text or "aborted"
        Stream.abort_with(self, text)
        return self.leave()

    cdef int handler_returned(self) except -1:
        return self.abort_with("the reader has left")

    async def __aexit__(self, exc_type, exc, traceback):
        self.abort_with(
            "the reader has left" if exc is None else abort_text(exc, self.peer.expose_errors))
