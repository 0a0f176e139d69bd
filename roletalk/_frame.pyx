"""A WebSocket connection: whole messages in, coalesced frames out, busy or not (docs/protocol.md, section 1).

It is the protocol of a transport once the upgrade is done (see `gate`).  Frames are built in the
connection's own buffer and all those of one loop turn leave in one write: when the read batch that caused
them ends, or by `call_soon` when they came from elsewhere.
"""

from contextlib import suppress

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memcmp, memcpy

from ._debug cimport COUNT_CONNECTION, DEBUG, count, now
from ._framing cimport (
    OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, header_size, mask_after, mask_copy,
    next_mask, write_header,
)
from ._socket cimport WRITES_PAST, send_both, send_now
from ._wire cimport (CLOSE_ABNORMAL, CLOSE_HEARTBEAT_TIMEOUT, CLOSE_INVALID_TEXT, CLOSE_MANUAL,
                     CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR)

cdef enum:
    # While a batch is being read: write early once this much is out and it exceeds what is left to
    # read, so that the other side works while we do.  With nothing left the batch is about to end,
    # unless whoever was woken by it goes on writing: that is gathered as anywhere else.
    EARLY_FLUSH = 1024
    # Outside a batch: what one loop turn gathers before it is written without waiting for the turn's end.
    TURN_FLUSH = 65536
    # A reassembly or output buffer that grew beyond this is given back when it is empty.
    KEPT_BUFFER = 262144
    # A chunk that needs no mask is not copied into the output buffer from this size on.
    DIRECT_WRITE = 8192
    # The transport's backlog above which it calls pause_writing, and below which resume_writing.
    BACKED_UP = 65536
    DRAINED = 16384
    # Times `close_timeout` that a closing handshake may take while the remote still talks.
    CLOSING_PATIENCE = 5
    PROBE_SIZE = 5

cdef const char* PROBE = b"heard"      # what a ping carries that is no heartbeat's
cdef double UNASKED_PONG = 0.75        # s between them, at the least; a JS peer gives up after 2
STOOD_STILL = 0.25                     # s that a timer is late by when the loop, or the machine, did


cdef bint _is_sendable_close_code(int code) noexcept:
    """RFC 6455, 7.4: the codes that may stand in a close frame."""
    return (1000 <= code <= 1003) or (1007 <= code <= 1014) or (3000 <= code <= 4999)


cdef class Connection(Inbound):
    def __cinit__(self, *args, **kwargs):
        self._out = WriteBuffer()
        self._frame_at = -1
        self._fd = -1
        self.close_reason = ""
        if DEBUG:
            count(COUNT_CONNECTION, 1)

    def __dealloc__(self):
        if DEBUG:
            count(COUNT_CONNECTION, -1)

    # ---- state -------------------------------------------------------------------------------------

    @property
    def state(self):
        return self._state

    @property
    def is_open(self):
        return self._state == OPEN

    @property
    def unsent_bytes(self):
        """Bytes written here that the operating system has not taken yet."""
        return self.unsent()

    @property
    def busy(self):
        """Whether the unsent bytes are above the low-water mark."""
        return self.is_busy()

    @property
    def transport(self):
        return self._transport

    cdef int _set_state(self, ConnectionState state) except -1:
        if state <= self._state:
            raise AssertionError(f"connection state cannot go from {self._state} to {state}")
        self._state = state
        if state >= CLOSING and self._probes is not None:
            self._end_probes()
        return 0

    # ---- what subclasses do; the defaults call the methods of the same meaning below ----------------

    cdef int opened(self) except -1:
        self.on_open()
        return 0

    cdef int message_received(self, uint8_t* message, Py_ssize_t size) except -1:
        self.unmask()
        self.on_message(PyBytes_FromStringAndSize(<const char*>message, size))
        return 0

    cdef int writable(self) except -1:
        return 0

    cdef int drained(self) except -1:
        return 0

    cdef int closing(self) except -1:
        return 0

    cdef int closed(self) except -1:
        self.on_closed()
        return 0

    def on_open(self):
        """The upgrade is done."""

    def on_message(self, message):
        """A whole message came in, as bytes; `is_text` says of which kind."""

    def on_closed(self):
        """The connection is gone; `close_code` and `close_reason` say how."""

    # ---- what the transport calls ------------------------------------------------------------------

    def upgraded(self, transport, bytes rest=b"", Py_ssize_t budget=-1):
        """The upgrade is done: from now on this is the protocol of `transport`.

        `rest` was read already.  At most `budget` bytes may come until `lift_budget`; -1: any number.
        """
        self._transport = transport
        self._write = transport.write
        self._writelines = transport.writelines
        self._write_buffer_size = transport.get_write_buffer_size
        self._backlog = self._write_buffer_size()
        # aiofastnet copies what it cannot send at once; other transports may keep the view.
        self._write_copies = type(transport).__module__.startswith("aiofastnet.")
        sock = transport.get_extra_info("socket")
        if (WRITES_PAST and self._write_copies and sock is not None
                and transport.get_extra_info("ssl_object") is None):
            self._fd = sock.fileno()
        self.set_limits(self.limits)
        transport.set_protocol(self)
        self.received_at = now()
        self._set_state(OPEN)
        self.opened()
        self.start_reading(rest, budget)
        if self._out.size > 0:
            self.flush()

    def eof_received(self):
        self.unsent()
        return False                   # the transport closes itself, once it has sent what it holds

    def connection_lost(self, exc):
        if self._state == CLOSED:
            return
        # Nobody is told what the transport has dropped: that is what it held when it was last looked at.
        self._note_lost(self._out.size + (self._backlog if exc is not None else 0))
        self._set_state(CLOSED)
        if self.close_code == 0:
            self.close_code = CLOSE_ABNORMAL
            self.close_reason = "connection lost"
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._fd = -1
        self._backlog = 0
        self.stop_reading()
        try:
            self.closed()
        finally:
            self._out.release()
            # The transport may keep its protocol, and its buffers are large with TLS: they must not wait
            # for the garbage collector, which finds what else of a connection is a cycle.
            self._transport = self._write = self._writelines = self._write_buffer_size = None

    def set_limits(self, FrameLimits limits):
        self.limits = limits
        if self._state == CLOSED:
            return
        self._transport.set_write_buffer_limits(
            high=min(BACKED_UP, limits.high_water), low=min(DRAINED, limits.low_water))

    def pause_writing(self):
        self._backed_up = True

    def resume_writing(self):
        self._backed_up = False
        if self._state != OPEN:
            return
        self._backlog = self._write_buffer_size()
        if self._reading_paused:
            self._reading_paused = False
            self._resume_soon()
        self._use_room()
        if self._state == OPEN:
            self.drained()

    def _resume_reading(self):
        # Once it is closing the remote's close frame is to be read, whoever is behind.
        if self._state == CLOSING or (self._state == OPEN and not self._reading_paused and self._holds == 0):
            self._transport.resume_reading()

    cdef int hold_reading(self) except -1:
        self._holds += 1
        if self._state == OPEN:
            self._transport.pause_reading()
        return 0

    cdef int release_reading(self) except -1:
        self._holds -= 1
        if self._holds == 0 and self._state != CLOSED:
            self._resume_soon()
        return 0

    cdef int _resume_soon(self) except -1:
        # A transport that has what is to be read ready may call back at once: not from here.
        self.loop.call_soon(self._resume_reading)
        return 0

    cdef int _use_room(self) except -1:
        if self._state != OPEN or not self.has_room():
            return 0
        if self._pong is not None:
            payload, self._pong = self._pong, None
            self._control(OPCODE_PONG, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        if self._wants_room:
            self._wants_room = False
            self.writable()
        return 0

    # ---- in ----------------------------------------------------------------------------------------

    cdef int batch_ended(self) except -1:
        return self.flush() if self._out.size > 0 else 0

    cdef int refuse(self, int code, str reason) except -1:
        if self._state != OPEN:
            return 0
        self._start_closing(code, reason, True)
        if self._is_deaf and not self.is_client and self._transport.can_write_eof():
            # No close frame will be heard.  The server ends TCP first (RFC 6455, 7.1.1), and just its own
            # direction: to close both with bytes unread is a reset, which may overtake our close frame.
            self.flush()
            with suppress(OSError):
                self._transport.write_eof()
        return 0

    cdef int control_received(self, uint8_t opcode, const char* payload, Py_ssize_t size) except -1:
        if opcode == OPCODE_PING:
            return self._answer_ping(payload, size)
        if opcode == OPCODE_CLOSE:
            return self._receive_close(<const uint8_t*>payload, size)
        if self._probes is not None and size == PROBE_SIZE and memcmp(payload, PROBE, size) == 0:
            self._end_probes()
        return 0

    cdef int _end_probes(self) except -1:
        probes, self._probes = self._probes, None
        for probe in probes:
            if not probe.done():
                probe.set_result(None)
        return 0

    cdef int _answer_ping(self, const char* payload, Py_ssize_t size) except -1:
        # RFC 6455, 5.5.3 lets us answer only the latest ping; with no room that is all we keep.
        if self.has_room():
            self._pong = None
            return self._control(OPCODE_PONG, payload, size)
        self._pong = PyBytes_FromStringAndSize(payload, size)
        return 0

    cdef int _receive_close(self, const uint8_t* payload, Py_ssize_t size) except -1:
        cdef int code = CLOSE_NORMAL
        self.stop_reading()
        if self._state == OPEN:
            if size >= 2:
                code = (payload[0] << 8) | payload[1]
            if size == 1 or not _is_sendable_close_code(code):
                self._start_closing(CLOSE_PROTOCOL_ERROR, "invalid close code", True)
            else:
                try:
                    reason = PyBytes_FromStringAndSize(<const char*>payload + 2, max(size - 2, 0)).decode()
                except UnicodeDecodeError:
                    self._start_closing(CLOSE_INVALID_TEXT, "the close reason is not UTF-8", True)
                else:
                    self._start_closing(code, reason, False)
            self.flush()
        elif not self.closed_by_us:
            return 0
        self._transport.close()
        return 0

    # ---- out ---------------------------------------------------------------------------------------

    cdef char* begin(self, Py_ssize_t size) except NULL:
        return self._begin(OPCODE_BINARY, size)

    cdef char* _begin(self, uint8_t opcode, Py_ssize_t size) except NULL:
        cdef char* at = self._header(opcode, size, size)
        self._frame_at = self._out.size - size
        self._frame_size = size
        return at

    cdef inline char* _header(self, uint8_t opcode, Py_ssize_t size, Py_ssize_t space) except NULL:
        """The header of a frame of `size` bytes, and where the `space` for its first ones begins."""
        cdef Py_ssize_t header = header_size(size, self.is_client)
        cdef char* at
        if DEBUG:
            self._check_free()
        if self.is_client:
            self._mask = next_mask()
        at = self._out.append(header + space)
        write_header(<uint8_t*>at, opcode, size, self.is_client, self._mask)
        return at + header

    cdef int send_chunk(self, const char* head, Py_ssize_t head_size, const char* data,
                        Py_ssize_t size) except -1:
        cdef char* at
        cdef Py_ssize_t sent
        if not self.is_client and size >= DIRECT_WRITE and self._write_copies and self._write is not None:
            memcpy(self._header(OPCODE_BINARY, head_size + size, head_size), head, head_size)
            sent = send_both(self._fd, self._out.data, self._out.size, data, size) if self._is_idle() else 0
            if sent < self._out.size:
                self._writelines((self._view(self._out.data + sent, self._out.size - sent),
                                  self._view(data, size)))
            elif sent < self._out.size + size:
                sent -= self._out.size
                self._write(self._view(data + sent, size - sent))
            else:
                return self._written(sent)
            self._backlog = self._write_buffer_size()
            return self._written(self._out.size + size)
        at = self._header(OPCODE_BINARY, head_size + size, head_size + size)
        if self.is_client:
            mask_copy(at, head, head_size, self._mask)
            mask_copy(at + head_size, data, size, mask_after(self._mask, head_size))
        else:
            memcpy(at, head, head_size)
            if size > 0:
                memcpy(at + head_size, data, size)
        return self._frame_done()

    cdef inline object _view(self, const char* data, Py_ssize_t size):
        return PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ)

    cdef inline bint _is_idle(self) except -1:
        """Whether the transport holds nothing, so that the socket may be written to past it."""
        if self._fd < 0:
            return False
        if self._backlog > 0:
            self._backlog = self._write_buffer_size()
            if self._backlog == 0 and self._transport.is_closing():
                # It may have dropped the rest of a frame: nothing may follow that.
                self._fd = -1
                return False
        return self._backlog == 0

    cdef int end(self) except -1:
        cdef char* at
        if DEBUG:
            self._check_built()
        if self.is_client:
            at = self._out.data + self._frame_at
            mask_copy(at, at, self._frame_size, self._mask)
        self._frame_at = -1
        return self._frame_done()

    cdef int _check_free(self) except -1:
        if self._frame_at >= 0:
            raise AssertionError("a frame is being built already")
        if self._state != OPEN:
            raise AssertionError("no frame may be built now")
        return 0

    cdef int _check_built(self) except -1:
        if self._frame_at < 0:
            raise AssertionError("no frame is being built")
        if self._frame_at + self._frame_size != self._out.size:
            raise AssertionError("the frame moved")
        return 0

    cdef int _frame_done(self) except -1:
        cdef Py_ssize_t size = self._out.size
        if size >= TURN_FLUSH:
            return self.flush()
        if self._in_batch:
            if size >= EARLY_FLUSH and 0 < self._tail < size:
                return self.flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_soon)
        return 0

    cdef int _control(self, uint8_t opcode, const char* data, Py_ssize_t size) except -1:
        cdef char* at = self._begin(opcode, size)
        if size > 0:
            memcpy(at, data, size)
        return self.end()

    def _flush_soon(self):
        self._flush_scheduled = False
        if self._out.size > 0 and self._state != CLOSED:
            self.flush()

    cdef int flush(self) except -1:
        cdef Py_ssize_t size = self._out.size
        cdef Py_ssize_t sent
        if size == 0:
            return 0
        if self._write is None:
            self._out.clear()
            return 0
        sent = send_now(self._fd, self._out.data, size) if self._is_idle() else 0
        if sent < size:
            if self._write_copies:
                self._write(self._view(self._out.data + sent, size - sent))
            else:
                self._write(PyBytes_FromStringAndSize(self._out.data + sent, size - sent))
            self._backlog = self._write_buffer_size()
        return self._written(size)

    cdef int _written(self, Py_ssize_t size) except -1:
        """`size` bytes were given to the socket or the transport: what was gathered is among them."""
        self.bytes_sent += size
        if self._out.capacity > KEPT_BUFFER:
            self._out.release()
        else:
            self._out.clear()
        if self._backlog > self.limits.max_unsent and not self._reading_paused and self._state == OPEN:
            # The remote does not read what it asked for: take no more of its requests.
            self._reading_paused = True
            self._transport.pause_reading()
        if self._wants_room or self._pong is not None:
            self._use_room()
        return 0

    cdef Py_ssize_t unsent(self) except -1:
        if self._backlog > 0 and self._write_buffer_size is not None:
            self._backlog = self._write_buffer_size()
        return self._out.size + self._backlog

    cdef bint is_busy(self) except -1:
        if self._out.size + self._backlog <= self.limits.low_water:
            return False
        return self.unsent() > self.limits.low_water

    cdef bint has_room(self) except -1:
        if self._out.size + self._backlog <= self.limits.high_water:
            return True
        return self.unsent() <= self.limits.high_water

    def send_message(self, bytes message not None, bint text=False):
        """Queue one message, of bytes or of UTF-8 text. Raises ConnectionError when it is not open."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
        if self._state != OPEN:
            raise ConnectionError("the connection is not open")
        memcpy(self._begin(OPCODE_TEXT if text else OPCODE_BINARY, size), PyBytes_AS_STRING(message), size)
        self.end()

    # ---- heartbeat (docs/protocol.md, section 6) ------------------------------------------------------

    def check_alive(self, double at, double interval, double timeout, double lag=0.0):
        """Ping when nothing came for `interval` seconds; close with 4005 `timeout` seconds after a ping
        that nothing followed.  Any received byte counts as life.

        `lag` is what this look is late by, in seconds: it counts against nobody, the remote may stand
        still with us.
        """
        if self._state != OPEN:
            return
        self.unsent()
        cdef Py_ssize_t taken
        if self._holds > 0:
            # Nothing is read because a reader is behind: nothing can be heard, pings neither.  A pong
            # that was not asked for (RFC 6455, 5.5.3) tells the other side that we live.
            self._pinged_at = 0
            self.received_at = at
            if at - self._ponged_at >= UNASKED_PONG and self.has_room():
                self._ponged_at = at
                self._control(OPCODE_PONG, NULL, 0)
            return
        if self._reading_paused:
            # Nothing is read, so nothing can be heard: that the remote takes our bytes is life too.
            taken = self.bytes_sent - self._backlog
            if taken != self._taken:
                self._taken = taken
                self.received_at = at
        # Not later: where a test's clock stands, the answer comes at the time of the ping.
        if self._pinged_at and self.received_at >= self._pinged_at:
            self._pinged_at = 0
        if self._pinged_at:
            self._pinged_at += lag
            if at - self._pinged_at >= timeout:
                self._start_closing(CLOSE_HEARTBEAT_TIMEOUT, "heartbeat timeout", True)
                # The other side is as good as gone: it will not take part in a closing handshake.
                self.flush()
                self.abort()
        elif at - self.received_at >= interval:
            self._pinged_at = at
            self._control(OPCODE_PING, NULL, 0)

    def probe(self):
        """Ping; returns a future that is done when the remote has read what was sent before, and what it had
        sent until then is read here, or when the connection closes."""
        future = self.loop.create_future()
        if self._state != OPEN:
            future.set_result(None)
            return future
        if self._probes is None:
            self._probes = []
        self._probes.append(future)
        self._control(OPCODE_PING, PROBE, PROBE_SIZE)
        return future

    # ---- closing -----------------------------------------------------------------------------------

    def close(self, int code=CLOSE_NORMAL, str reason=""):
        """Start the closing handshake; what is queued is sent first.  Does nothing when not open."""
        if self._state == OPEN:
            self._start_closing(code, reason, True)
            if not self._in_batch:
                self.flush()

    def _closing_overdue(self):
        """Drop the connection, unless it is closed on purpose and the remote was heard just now.

        Such a one is behind: it has not read up to our close frame yet.  What it sends to a socket that
        is gone would be answered by a reset, which takes what it has not read from it.  Nor is it judged
        by a time in which we stood still: it may have done so too.
        """
        cdef double at = now(), late = at - self._close_due
        cdef bint is_heard = at - self.received_at < self.limits.close_timeout
        if late > STOOD_STILL:
            self._patient_until += late
            is_heard = True
        if self.close_code == CLOSE_MANUAL and is_heard and at < self._patient_until:
            self._wait_closed(at)
        else:
            self._close_timer = None
            self.abort()

    cdef int _wait_closed(self, double at) except -1:
        self._close_due = at + self.limits.close_timeout
        self._close_timer = self.loop.call_later(self.limits.close_timeout, self._closing_overdue)
        return 0

    def abort(self):
        """Drop the connection at once."""
        if self._transport is not None and self._state != CLOSED:
            # What the transport drops may be the rest of a frame: nothing may follow it.
            self._fd = -1
            self._note_lost(self.unsent())
            self._transport.abort()

    cdef int _note_lost(self, Py_ssize_t unsent) except -1:
        self.bytes_lost = max(self.bytes_lost, unsent - self._close_size)
        return 0

    cdef int _start_closing(self, int code, str reason, bint by_us) except -1:
        cdef bytes text = reason.encode("utf-8", "replace")[:123]
        cdef bytes payload
        cdef double at
        self.close_code = code
        self.close_reason = reason
        self.closed_by_us = by_us
        self._is_ending = True
        self._assembly = None
        self._pong = None
        payload = bytes((code >> 8, code & 0xFF)) + text.decode("utf-8", "ignore").encode()
        self._close_size = header_size(PyBytes_GET_SIZE(payload), self.is_client) + PyBytes_GET_SIZE(payload)
        self._control(OPCODE_CLOSE, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self._set_state(CLOSING)
        if self._close_timer is None:
            at = now()
            self._patient_until = at + CLOSING_PATIENCE * self.limits.close_timeout
            self._wait_closed(at)
        self.closing()
        if self._reading_paused or self._holds > 0:
            self._reading_paused = False
            self._resume_soon()
        return 0
