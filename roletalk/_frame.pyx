"""A WebSocket connection on picows: whole messages in, coalesced frames out, busy or not.

picows parses frames; what it leaves open is done here (docs/protocol.md, section 1): reassembly and
its limits, RSV bits, text, the order of continuations, close codes, the closing handshake and its
timeout, bounded answers to pings, and masks that nobody can predict.

Frames are built in the connection's own buffer and all those of one loop turn leave in one write:
when the read batch that caused them ends, or by `call_soon` when they came from elsewhere.
"""

import logging
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memcpy

from picows.picows cimport WSMsgType

from ._debug cimport COUNT_CONNECTION, DEBUG, count, now
from ._wire cimport (CLOSE_ABNORMAL, CLOSE_HEARTBEAT_TIMEOUT, CLOSE_INTERNAL_ERROR, CLOSE_NORMAL,
                     CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG, CLOSE_WRONG_MESSAGE_TYPE)

_log = logging.getLogger("roletalk.connection")

cdef enum:
    OPCODE_BINARY = 0x2
    OPCODE_CLOSE = 0x8
    OPCODE_PING = 0x9
    OPCODE_PONG = 0xA

    # While a batch is being read: write early once this much is out and it exceeds what is left to
    # read, so that the other side works while we do.
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
    MASK_POOL = 4096

cdef double UNASKED_PONG = 0.75        # s between them, at the least; a JS peer gives up after 2


# ---- masks -----------------------------------------------------------------------------------------
# RFC 6455, 5.3 asks for masks from a strong source of entropy: a pool of the system's random bytes.

cdef bytes _mask_pool = b""
cdef Py_ssize_t _mask_at = 0


cdef uint32_t _next_mask() except? 0:
    global _mask_pool, _mask_at
    cdef uint32_t mask
    if _mask_at + 4 > PyBytes_GET_SIZE(_mask_pool):
        _mask_pool = os.urandom(MASK_POOL)
        _mask_at = 0
    memcpy(&mask, PyBytes_AS_STRING(_mask_pool) + _mask_at, 4)
    _mask_at += 4
    return mask


def _forget_masks():
    global _mask_at
    _mask_at = MASK_POOL


# A forked child must not go on in its parent's pool.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_masks)


cdef void _mask_copy(char* to, const char* data, Py_ssize_t size, uint32_t mask) noexcept nogil:
    """`data` under `mask`; `to` may be `data` itself."""
    cdef uint64_t wide = (<uint64_t>mask << 32) | mask
    cdef uint64_t word
    cdef uint32_t half
    cdef const char* mask_bytes = <const char*>&mask
    cdef Py_ssize_t i = 0
    while i + 8 <= size:
        memcpy(&word, data + i, 8)
        word ^= wide
        memcpy(to + i, &word, 8)
        i += 8
    if i + 4 <= size:
        memcpy(&half, data + i, 4)
        half ^= mask
        memcpy(to + i, &half, 4)
        i += 4
    while i < size:
        to[i] = data[i] ^ mask_bytes[i & 3]
        i += 1


cdef inline uint32_t _mask_after(uint32_t mask, Py_ssize_t size) noexcept:
    """The mask that goes on after `size` bytes, as four bytes in memory order."""
    cdef uint32_t turned
    cdef const char* mask_bytes = <const char*>&mask
    cdef char* turned_bytes = <char*>&turned
    cdef Py_ssize_t i
    for i in range(4):
        turned_bytes[i] = mask_bytes[(size + i) & 3]
    return turned


cdef bint _is_sendable_close_code(int code) noexcept:
    """RFC 6455, 7.4: the codes that may stand in a close frame."""
    return (1000 <= code <= 1003) or (1007 <= code <= 1014) or (3000 <= code <= 4999)


cdef class FrameLimits:
    def __init__(self, *, Py_ssize_t max_message_size=16 << 20, Py_ssize_t high_water=1 << 20,
                 Py_ssize_t low_water=256 << 10, double close_timeout=2.0):
        self.max_message_size = max_message_size
        # Go sends a fragment for each 4 KiB; a quarter of that still passes.
        self.max_fragments = 64 + max_message_size // 1024
        self.high_water = high_water
        self.low_water = low_water
        self.max_unsent = 4 * high_water + max_message_size
        self.close_timeout = close_timeout


cdef class Connection(WSListener):
    def __cinit__(self, *args, **kwargs):
        self._out = WriteBuffer()
        self._frame_at = -1
        self.close_reason = ""
        if DEBUG:
            count(COUNT_CONNECTION, 1)

    def __dealloc__(self):
        if DEBUG:
            count(COUNT_CONNECTION, -1)

    def __init__(self, loop, FrameLimits limits, *, bint is_client):
        self.loop = loop
        self.limits = limits
        self.is_client = is_client

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
        return 0

    # ---- what subclasses do; the defaults call the methods of the same meaning below ----------------

    cdef int opened(self) except -1:
        self.on_open()
        return 0

    cdef int batch_started(self) except -1:
        return 0

    cdef int message_received(self, const uint8_t* message, Py_ssize_t size) except -1:
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
        """The WebSocket upgrade is done."""

    def on_message(self, message):
        """A whole binary message came in, as bytes."""

    def on_closed(self):
        """The connection is gone; `close_code` and `close_reason` say how."""

    # ---- picows's callbacks ------------------------------------------------------------------------

    cpdef on_ws_connected(self, WSTransport transport):
        self._ws = transport
        under = transport.underlying_transport
        self._transport = getattr(under, "wrapped", under)
        self._write = self._transport.write
        self._writelines = self._transport.writelines
        self._write_buffer_size = self._transport.get_write_buffer_size
        # aiofastnet copies what it cannot send at once; other transports may keep the view.
        self._write_copies = type(self._transport).__module__.startswith("aiofastnet.")
        self.set_limits(self.limits)
        self.received_at = now()
        self._set_state(OPEN)
        self.opened()
        if self._out.size > 0:
            self.flush()

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if not self._in_batch:
            self._in_batch = True
            self.received_at = now()
            if self._watching:
                self._stop_watching()
            self.batch_started()
        self._tail = frame.tail_size
        try:
            self._receive(frame)
        except (KeyboardInterrupt, SystemExit) as exc:
            self.loop.call_soon(_raise, exc)
        except BaseException:
            _log.exception("error while receiving; closing this connection")
            self.close(CLOSE_INTERNAL_ERROR, "internal error")
        if frame.last_in_buffer:
            self._in_batch = False
            if self._out.size > 0:
                self.flush()

    cpdef on_ws_disconnected(self, WSTransport transport):
        if self._state == CLOSED:
            return
        # A client's would get the violation as an exception that nobody retrieves.
        transport.disconnected_future.cancel()
        if self._ws.is_close_frame_sent and self.close_code == 0:
            # picows found a violation and closed by itself.
            self.close_code = self._ws.close_handshake.sent.code
            self.close_reason = self._ws.close_handshake.sent.reason or ""
            self.closed_by_us = True
        self._set_state(CLOSED)
        if self.close_code == 0:
            self.close_code = CLOSE_ABNORMAL
            self.close_reason = "connection lost"
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._assembly = None
        try:
            self.closed()
        finally:
            self._out.release()
            self.watch = None
            # Break the cycle transport -> protocol -> picows -> self -> transport.
            self._write = self._writelines = self._write_buffer_size = None

    def set_limits(self, FrameLimits limits):
        self.limits = limits
        self._transport.set_write_buffer_limits(
            high=min(BACKED_UP, limits.high_water), low=min(DRAINED, limits.low_water))

    cpdef pause_writing(self):
        self._backed_up = True

    cpdef resume_writing(self):
        self._backed_up = False
        if self._state != OPEN:
            return
        self._backlog = self._write_buffer_size()
        if self._reading_paused:
            self._reading_paused = False
            self._resume_reading()
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
        # A transport that has what is to be read ready may call back at once: not from here.
        if self._holds == 0 and self._state != CLOSED:
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

    cdef int _receive(self, WSFrame frame) except -1:
        cdef:
            WSMsgType opcode = frame.msg_type
            const uint8_t* data = <const uint8_t*>frame.payload_ptr
            Py_ssize_t size = frame.payload_size

        if self._ws.is_close_frame_sent:
            # picows found a violation and closed by itself: nothing is heard after that.
            return 0
        if self._state != OPEN:
            if self._state == CLOSING and opcode == WSMsgType.CLOSE and self.closed_by_us:
                # The answer to our close frame.
                self._transport.close()
            return 0
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self._start_closing(CLOSE_PROTOCOL_ERROR, "reserved bits are set", True)

        if opcode == WSMsgType.BINARY:
            if self._assembling:
                return self._start_closing(CLOSE_PROTOCOL_ERROR, "message inside a message", True)
            if size > self.limits.max_message_size:
                return self._start_closing(CLOSE_TOO_BIG, "message too big", True)
            if frame.fin:
                self.bytes_received += size
                return self.message_received(data, size)
            self._assembling = True
            self._fragments = 1
            self._assembly = WriteBuffer()
            if size > 0:
                memcpy(self._assembly.append(size), data, size)
        elif opcode == WSMsgType.CONTINUATION:
            if not self._assembling:
                return self._start_closing(CLOSE_PROTOCOL_ERROR, "continuation of nothing", True)
            self._fragments += 1
            if (self._fragments > self.limits.max_fragments
                    or size > self.limits.max_message_size - self._assembly.size):
                self._assembly = None
                return self._start_closing(CLOSE_TOO_BIG, "message too big", True)
            if size > 0:
                memcpy(self._assembly.append(size), data, size)
            if frame.fin:
                assembly = self._assembly
                self._assembling = False
                self._assembly = None
                self.bytes_received += assembly.size
                return self.message_received(<const uint8_t*>assembly.data, assembly.size)
        elif opcode == WSMsgType.PING:
            return self._answer_ping(frame)
        elif opcode == WSMsgType.PONG:
            pass
        elif opcode == WSMsgType.CLOSE:
            return self._receive_close(frame)
        else:
            return self._start_closing(CLOSE_WRONG_MESSAGE_TYPE, "text messages are not spoken here", True)
        return 0

    cdef int _answer_ping(self, WSFrame frame) except -1:
        # RFC 6455, 5.5.3 lets us answer only the latest ping; with no room that is all we keep.
        if self.has_room():
            self._pong = None
            return self._control(OPCODE_PONG, frame.payload_ptr, frame.payload_size)
        self._pong = frame.get_payload_as_bytes()
        return 0

    cdef int _receive_close(self, WSFrame frame) except -1:
        cdef int code = CLOSE_NORMAL
        if frame.payload_size >= 2:
            code = ((<uint8_t>frame.payload_ptr[0]) << 8) | <uint8_t>frame.payload_ptr[1]
        if _is_sendable_close_code(code):
            self._start_closing(code, frame.get_close_reason() or "", False)
        else:
            self._start_closing(CLOSE_PROTOCOL_ERROR, "invalid close code", True)
        self.flush()
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
        # 2 fixed, then 0, 2 or 8 of extended length, then 0 or 4 of mask (RFC 6455, 5.2)
        cdef:
            Py_ssize_t extended = 0 if size < 126 else 2 if size < 65536 else 8
            Py_ssize_t header = 2 + extended + (4 if self.is_client else 0)
            uint8_t mask_bit = 0x80 if self.is_client else 0
            uint8_t* at
            Py_ssize_t i
        if DEBUG:
            assert self._frame_at < 0, "a frame is being built already"
            assert self._state == OPEN, "no frame may be built now"
        if self.is_client:
            self._mask = _next_mask()
        at = <uint8_t*>self._out.append(header + space)
        at[0] = 0x80 | opcode
        if extended == 0:
            at[1] = mask_bit | <uint8_t>size
        else:
            at[1] = mask_bit | (126 if extended == 2 else 127)
            for i in range(extended):
                at[2 + i] = <uint8_t>(size >> (8 * (extended - 1 - i)))
        if self.is_client:
            memcpy(at + header - 4, &self._mask, 4)
        return <char*>at + header

    cdef int send_chunk(self, const char* head, Py_ssize_t head_size, const char* data,
                        Py_ssize_t size) except -1:
        cdef char* at
        if not self.is_client and size >= DIRECT_WRITE and self._write_copies and self._can_write():
            memcpy(self._header(OPCODE_BINARY, head_size + size, head_size), head, head_size)
            self._writelines((PyMemoryView_FromMemory(self._out.data, self._out.size, PyBUF_READ),
                              PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ)))
            return self._written(self._out.size + size)
        at = self._header(OPCODE_BINARY, head_size + size, head_size + size)
        if self.is_client:
            _mask_copy(at, head, head_size, self._mask)
            _mask_copy(at + head_size, data, size, _mask_after(self._mask, head_size))
        else:
            memcpy(at, head, head_size)
            if size > 0:
                memcpy(at + head_size, data, size)
        return self._frame_done()

    cdef inline bint _can_write(self) noexcept:
        # picows closes by itself after what it cannot parse; nothing may follow its close frame.
        return self._write is not None and not self._ws.is_close_frame_sent

    cdef int end(self) except -1:
        cdef char* at
        if DEBUG:
            self._check_built()
        if self.is_client:
            at = self._out.data + self._frame_at
            _mask_copy(at, at, self._frame_size, self._mask)
        self._frame_at = -1
        return self._frame_done()

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
            if size >= EARLY_FLUSH and size > self._tail:
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
        if size == 0:
            return 0
        if not self._can_write():
            self._out.clear()
            return 0
        if self._write_copies:
            self._write(PyMemoryView_FromMemory(self._out.data, size, PyBUF_READ))
        else:
            self._write(PyBytes_FromStringAndSize(self._out.data, size))
        return self._written(size)

    cdef int _written(self, Py_ssize_t size) except -1:
        """`size` bytes were given to the transport: what was gathered is among them."""
        self.bytes_sent += size
        if self._out.capacity > KEPT_BUFFER:
            self._out.release()
        else:
            self._out.clear()
        self._backlog = self._write_buffer_size()
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

    def send_message(self, bytes message):
        """Queue one binary message. Raises ConnectionError when the connection is not open."""
        if self._state != OPEN:
            raise ConnectionError("the connection is not open")
        memcpy(self.begin(PyBytes_GET_SIZE(message)), PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        self.end()

    # ---- heartbeat (docs/protocol.md, section 6) ------------------------------------------------------

    def check_alive(self, double at, double interval, double timeout):
        """Ping when nothing came for `interval` seconds; close with 4005 `timeout` seconds after a ping
        that nothing followed.  Any received byte counts as life."""
        if self._state != OPEN:
            return
        if self._ws.is_close_frame_sent:
            # picows closed after a violation and waits for the remote to take it.
            if self._close_timer is None:
                self._close_timer = self.loop.call_later(self.limits.close_timeout, self.abort)
            return
        cdef Py_ssize_t backlog
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
            backlog = self._write_buffer_size()
            if backlog < self._backlog:
                self._backlog = backlog
                self.received_at = at
        if self._pinged_at and self.received_at > self._pinged_at:
            self._pinged_at = 0
        if self._pinged_at:
            if at - self._pinged_at >= timeout:
                self._start_closing(CLOSE_HEARTBEAT_TIMEOUT, "heartbeat timeout", True)
                # The other side is as good as gone: it will not take part in a closing handshake.
                self.flush()
                self.abort()
        elif at - self.received_at >= interval:
            self._pinged_at = at
            if self.watch is not None:
                self._watching = True
                self.watch(True)
            self._control(OPCODE_PING, NULL, 0)

    def bytes_seen(self):
        """Called by whoever watches the transport: some bytes came, perhaps not yet a whole frame."""
        self.received_at = now()

    cdef int _stop_watching(self) except -1:
        self._watching = False
        if self.watch is not None:
            self.watch(False)
        return 0

    # ---- closing -----------------------------------------------------------------------------------

    def close(self, int code=CLOSE_NORMAL, str reason=""):
        """Start the closing handshake; what is queued is sent first.  Does nothing when not open."""
        if self._state == OPEN:
            self._start_closing(code, reason, True)
            if not self._in_batch:
                self.flush()

    def abort(self):
        """Drop the connection at once."""
        if self._transport is not None and self._state != CLOSED:
            self._transport.abort()

    cdef int _start_closing(self, int code, str reason, bint by_us) except -1:
        cdef bytes text = reason.encode("utf-8", "replace")[:123]
        cdef bytes payload
        self.close_code = code
        self.close_reason = reason
        self.closed_by_us = by_us
        self._assembling = False
        self._assembly = None
        self._pong = None
        if not self._ws.is_close_frame_sent:
            payload = bytes((code >> 8, code & 0xFF)) + text.decode("utf-8", "ignore").encode()
            self._control(OPCODE_CLOSE, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self._set_state(CLOSING)
        if self._close_timer is None:
            self._close_timer = self.loop.call_later(self.limits.close_timeout, self.abort)
        self.closing()
        if self._reading_paused or self._holds > 0:
            self._reading_paused = False
            self._resume_reading()
        return 0


def _raise(exc):
    raise exc
