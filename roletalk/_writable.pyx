"""The writing end of a stream."""

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from libc.stdint cimport uint8_t, uint64_t

from ._calls cimport WAITING, done_call, failed_call
from ._channels cimport STREAM_FAILED, STREAM_FINISHED, STREAM_OPEN, abort_text, remote_text
from ._codec cimport saturated_number
from ._wire cimport FLAG_CHUNK, FLAG_ERROR, FLAG_FINISH, FLAG_QUOTA, MAX_WIRE_NUMBER

from .errors import StreamError

cdef class WritableStream(Stream):
    """The end of a stream that is written to (docs/protocol.md, section 7).

    An async context manager: leaving the block finishes the stream, an exception aborts it.
    """

    def write(self, data):
        """Write any buffer, of any size; await it.

        Done when all of it is handed to the connection: it waits while the other end has no room for
        more, or the connection is full.  `data` is not copied meanwhile and must not be changed.
        Cancelled while it waits, some part of it has been sent.

        Raised by the await: `StreamError` when the stream is over, `TypeError` for what is no buffer,
        `RuntimeError` while another write is under way.  Raised at once: `RuntimeError` in a wrong
        thread, loop or process.
        """
        self.peer.check_here()
        try:
            return self._write(data)
        except Exception as exc:
            return failed_call(exc, self.peer.home)

    cdef object _write(self, object data):
        # Before anything is checked: to ask for a buffer may run code of the owner's.
        cdef object owner = data if PyBytes_CheckExact(data) else _contiguous(data)
        self._check_open()
        if PyBytes_CheckExact(owner):
            self._at = PyBytes_AS_STRING(owner)
            self._left = PyBytes_GET_SIZE(owner)
        else:
            self._at = <const char*>PyMemoryView_GET_BUFFER(owner).buf
            self._left = PyMemoryView_GET_BUFFER(owner).len
        try:
            if self._left > 0 and self.credit > 0:
                self.channels.enqueue(self)
                self.channels.pump()
            if self._left == 0:
                return done_call()
            call = self.wait()
        except BaseException:
            self._drop_rest()
            raise
        self.waiter.keeps = owner
        # Without an await all that is missing is that somebody waits.
        self.waiter.goes_on = True
        return call

    cdef int _check_open(self) except -1:
        if self.state == STREAM_FAILED:
            raise self.failure()
        if self.state == STREAM_FINISHED:
            raise self._closed()
        if self.is_awaited():
            raise RuntimeError(
                f"a stream is written by one task at a time: await the write before ({self.described()})")
        # One that was cancelled left the rest of its bytes here.
        return self._drop_rest()

    cdef object _closed(self):
        error = StreamError(
            "the stream is closed: nothing is written after close() or the end of its handler",
            hint=self.described())
        error.unit = self.unit
        if self.reply is not None:
            error.role, error.event = self.reply.role, self.reply.event
        return error

    cdef Py_ssize_t send_some(self, Py_ssize_t most) except -1:
        cdef Py_ssize_t size = min(self._left, self.credit, most)
        if self.waiter is not None and self.waiter.state != WAITING:
            # The write was cancelled.
            self._drop_rest()
            return 0
        if size <= 0 or self.state != STREAM_OPEN:
            return 0
        self.credit -= size
        self.peer.counters.stream_bytes_sent += size
        self.send(FLAG_CHUNK, self._at, size)
        self._at += size
        self._left -= size
        if self._left > 0:
            if self.credit > 0:
                self.channels.enqueue(self)
            return size
        self.wake(False)
        return size

    cdef int _drop_rest(self) except -1:
        self._at = NULL
        self._left = 0
        self.waiter = None
        return 0

    cdef int receive(self, uint8_t flag, const uint8_t* data, Py_ssize_t size, bint direct) except -1:
        if flag == FLAG_QUOTA:
            self.credit = <Py_ssize_t>min(
                MAX_WIRE_NUMBER, <uint64_t>self.credit + saturated_number(data, size))
            if self._left > 0 and self.credit > 0:
                self.channels.enqueue(self)
                self.channels.pump()
            return 0
        if flag == FLAG_ERROR:
            return self.fail(remote_text("aborted by the reader", data, size), direct)
        return self.peer.drop("stream frames in the wrong direction")

    cdef int ended(self) except -1:
        self._at = NULL
        self._left = 0
        return self.leave()

    async def close(self):
        """Finish the stream: the other end has read all of it once it has read what was written.

        Does nothing when it is finished already.  Raises `StreamError` when it has failed or was
        aborted, `RuntimeError` while a write is under way and in a wrong thread, loop or process.
        """
        self.peer.check_here()
        if self.state == STREAM_FINISHED:
            return
        self._check_open()
        self._finish_now()

    cdef int _finish_now(self) except -1:
        self.send(FLAG_FINISH, NULL, 0)
        return self.finish()

    cdef int handler_returned(self) except -1:
        if self.state != STREAM_OPEN:
            return 0
        if self.is_awaited():
            self.unit.log(
                logging.WARNING,
                "the handler of role '%s', event '%s' returned before its stream had written everything, "
                "which is aborted: await stream.write()",
                (self.reply.role, self.reply.event), None)
            return self.abort_with("a write was not awaited")
        return self._finish_now()

    async def __aexit__(self, exc_type, exc, traceback):
        if exc is not None:
            self.abort_with(abort_text(exc, self.peer.expose_errors))
            return
        try:
            await self.close()
        except BaseException as error:
            # A write is under way still, or this task was cancelled.
            self.abort_with(abort_text(error, self.peer.expose_errors))
            raise


cdef object _contiguous(object data):
    """A memoryview of `data`, of a copy where its bytes do not lie in a row."""
    view = PyMemoryView_FromObject(data)
    return view if view.c_contiguous else PyMemoryView_FromObject(view.tobytes())
