"""From bytes to whole messages: what a transport reads for one WebSocket connection (RFC 6455, section 5).

All connections of a peer read into one `ReadSpace`, and what was read is taken apart before the next
read.  Memory of its own has only a connection with a frame that is not whole yet.  The body of a large
frame is read to where it stays, if it is worth that: then no byte of it is copied.
"""

import logging

from aiofastnet.utils cimport NoResult
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memcpy

from . import _buffer

from ._debug cimport now
from ._framing cimport (
    HEADER_PARTIAL, HEADER_WHOLE, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_TEXT,
    VIOLATIONS, HeaderState, mask_after, mask_copy, parse_header,
)
from ._wire cimport (CLOSE_INTERNAL_ERROR, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG, CLOSE_TRY_AGAIN_LATER,
                     CLOSE_WRONG_MESSAGE_TYPE)

_log = logging.getLogger("roletalk.connection")

cdef enum:
    # A body of this size, and of no more than that, is read to where it stays ...
    SMALLEST_BODY = 16384
    LARGEST_BODY = 1048576
    # ... while this much of it is to come; what comes after it is better read along with the rest.
    WORTH_A_READ = 8192
    # Where the next frame is likely to be such a one as well: what is read of it before that is known.
    FIRST_READ = 4096
    # What any connection may keep of messages that are not whole, however much is kept by others.
    FREE_PART = 65536
    FREE_STRANGERS_PART = 4096
    # Memory for an unfinished frame that has grown beyond this is not kept for the next one.
    KEPT_REST = 1048576


cdef Py_ssize_t MOST_OF_STRANGERS = _buffer.MAX_STRANGERS_BYTES


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


cdef class Inbound(Protocol):
    def __init__(self, loop, FrameLimits limits, *, bint is_client, ReadSpace space=None,
                 Account account=None, bint takes_text=False):
        self.loop = loop
        self.limits = limits
        self.is_client = is_client
        self.takes_text = takes_text
        self._space = ReadSpace() if space is None else space
        self._account = Account() if account is None else account
        self._budget = -1

    # ---- what subclasses do ------------------------------------------------------------------------

    cdef int batch_started(self) except -1:
        return 0

    cdef int message_received(self, uint8_t* message, Py_ssize_t size) except -1:
        raise AssertionError("overridden by whoever takes messages")

    cdef int body_received(self, const uint8_t* head, Py_ssize_t head_size, const uint8_t* data,
                           Py_ssize_t size) except -1:
        raise AssertionError("overridden by whoever takes bodies")

    cdef Py_ssize_t body_offset(self, const uint8_t* head) except -1:
        return 0

    cdef int control_received(self, uint8_t opcode, const char* payload, Py_ssize_t size) except -1:
        raise AssertionError("overridden by whoever takes control frames")

    cdef int batch_ended(self) except -1:
        return 0

    cdef int refuse(self, int code, str reason) except -1:
        raise AssertionError("overridden by whoever can close")

    cdef int over_budget(self) except -1:
        return self.refuse(CLOSE_TOO_BIG, "too many bytes")

    cdef int over_account(self) except -1:
        return self.refuse(CLOSE_TRY_AGAIN_LATER, "too much is being received")

    cdef int broke(self, object error) except -1:
        _log.error("error while receiving; closing this connection", exc_info=error)
        return 0

    # ---- what the transport calls ------------------------------------------------------------------

    cpdef is_buffered_protocol(self):
        return True

    cdef NoResult get_buffer_c(self, Py_ssize_t hint, char** buf, Py_ssize_t* buf_len) except NoResult.EXC:
        if self._in_batch:
            raise RuntimeError("a read inside of a read")
        self._reads_into_body = False
        self._reads_into_rest = self._rest is not None or self._space.busy
        if self._body is not None:
            buf_len[0] = PyBytes_GET_SIZE(self._body) - self._body_filled
            if buf_len[0] >= WORTH_A_READ:
                self._reads_into_body = True
                buf[0] = PyBytes_AS_STRING(self._body) + self._body_filled
                return NoResult.OK
        buf_len[0] = self._space.size
        if self._budget >= 0 and not self._is_deaf:
            buf_len[0] = min(buf_len[0], self._budget + 1)
        if not self._reads_into_rest:
            buf[0] = self._space.data
            if self._expects_body:
                buf_len[0] = min(<Py_ssize_t>FIRST_READ, self._space.size)
            return NoResult.OK
        if self._rest is None:
            self._rest = WriteBuffer()
        buf[0] = self._rest.reserve(buf_len[0])
        return NoResult.OK

    cpdef get_buffer(self, Py_ssize_t hint):
        cdef char* data
        cdef Py_ssize_t size
        self.get_buffer_c(hint, &data, &size)
        return PyMemoryView_FromMemory(data, size, PyBUF_WRITE)

    cpdef buffer_updated(self, Py_ssize_t bytes_read):
        self._received(bytes_read)

    cpdef data_received(self, data):
        # TLS that fills its own buffer with the upgrade learns of a new protocol one read too late.
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t part
        while at < len(data):
            room = self.get_buffer(-1)
            part = min(len(room), len(data) - at)
            room[:part] = data[at:at + part]
            at += part
            self._received(part)

    # ---- batches -----------------------------------------------------------------------------------

    cdef int start_reading(self, bytes rest, Py_ssize_t budget) except -1:
        """Take apart what was read already; at most `budget` bytes may come until lift_budget()."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(rest)
        self._budget = budget
        if size > 0:
            self._rest = WriteBuffer()
            memcpy(self._rest.reserve(size), PyBytes_AS_STRING(rest), size)
            self._reads_into_rest = True
            self._received(size)
        return 0

    cdef int lift_budget(self) except -1:
        if self._budget >= 0:
            self._account.strangers -= self._kept
            self._account.kept += self._kept
        self._budget = -1
        return 0

    cdef int stop_reading(self) except -1:
        self._is_deaf = True
        self._rest = self._assembly = None
        if not self._in_batch:
            self._body = None
            self._keep()
        return 0

    cdef int _received(self, Py_ssize_t fresh) except -1:
        """`fresh` bytes more are where get_buffer() said."""
        cdef:
            ReadSpace space = self._space
            WriteBuffer rest = self._rest if self._reads_into_rest and not self._reads_into_body else None
            char* data = space.data
            Py_ssize_t size = fresh
            bint had_body = self._body is not None
            bint reads_into_space = rest is None and not self._reads_into_body
            bint is_over
        if rest is not None:
            rest.size += fresh
            data, size = rest.data, rest.size
        elif self._reads_into_body:
            data = PyBytes_AS_STRING(self._body) + self._body_filled
        self.received_at = now()
        self._in_batch = True
        if reads_into_space:
            space.busy = True
        try:
            self._parsed = 0
            self._tail = size
            self.batch_started()
            while not self._is_deaf and self._frames(data, size):
                pass
            # Not before: what comes along with the message that lifts it is a unit's.
            if self._budget >= 0 and not self._is_deaf:
                is_over = fresh > self._budget
                # Never below 0: what it keeps would be taken for a unit's.
                self._budget = max(self._budget - fresh, 0)
                if is_over:
                    self._is_deaf = True
                    self.over_budget()
            self._expects_body = had_body or self._body is not None
        finally:
            self._in_batch = False
            self._masked = NULL
            if reads_into_space:
                space.busy = False
        if self._is_deaf:
            self._rest = self._body = None
        elif rest is not None:
            rest.consume(self._parsed)
            if rest.size == 0:
                self._rest = None
            elif rest.capacity > KEPT_REST and rest.size < space.size:
                self._rest = WriteBuffer()
                memcpy(self._rest.append(rest.size), rest.data, rest.size)
        elif self._parsed < size:
            self._rest = WriteBuffer()
            memcpy(self._rest.append(size - self._parsed), data + self._parsed, size - self._parsed)
        if (self._kept > 0 or self._rest is not None or self._body is not None
                or self._assembly is not None):
            self._keep()
        return self.batch_ended()

    cdef int _keep(self) except -1:
        """Have the account know what is kept of messages that are not whole; end where it is too much."""
        cdef Account account = self._account
        cdef Py_ssize_t kept = 0
        cdef bint is_too_much
        if self._rest is not None:
            kept += self._rest.size
        if self._assembly is not None:
            kept += self._assembly.size
        if self._body is not None:
            kept += PyBytes_GET_SIZE(self._body)
        if self._budget >= 0:
            account.strangers += kept - self._kept
            is_too_much = kept > FREE_STRANGERS_PART and account.strangers > MOST_OF_STRANGERS
        else:
            account.kept += kept - self._kept
            is_too_much = kept > FREE_PART and account.kept > account.max_kept
        self._kept = kept
        if is_too_much and not self._is_deaf:
            self._is_deaf = True
            self._rest = self._assembly = self._body = None
            self._keep()
            return self.over_account()
        return 0

    cdef bint _frames(self, char* data, Py_ssize_t size) except -1:
        """Take the frames out of `data`; returns whether there may be more, because one went wrong."""
        try:
            self._take_frames(data, size)
        except (KeyboardInterrupt, SystemExit) as exc:
            self.loop.call_soon(_raise, exc)
        except BaseException as exc:
            self.broke(exc)
            self.refuse(CLOSE_INTERNAL_ERROR, "internal error")
        else:
            return False
        return True

    cdef int _take_frames(self, char* data, Py_ssize_t size) except -1:
        cdef:
            FrameHeader frame
            HeaderState header
            char* at
            Py_ssize_t left
        if self._body is not None and self._parsed < size:
            self._continue_body(data, size)
        while not self._is_deaf:
            at = data + self._parsed
            left = size - self._parsed
            header = parse_header(<uint8_t*>at, left, not self.is_client, &frame)
            if header == HEADER_PARTIAL:
                return 0
            if header != HEADER_WHOLE:
                return self._violation(CLOSE_PROTOCOL_ERROR, VIOLATIONS[header])
            if frame.size > self.limits.max_message_size and not frame.opcode & 0x08:
                return self._violation(CLOSE_TOO_BIG, "message too big")
            left -= frame.header_size
            if left < frame.size:
                if frame.size >= SMALLEST_BODY and self._begin_body(&frame, at + frame.header_size, left):
                    self._parsed = size
                return 0
            self._tail = left - frame.size
            self._parsed += frame.header_size + frame.size
            self._receive(&frame, at + frame.header_size)
        return 0

    cdef int _violation(self, int code, str reason) except -1:
        """What comes after it cannot be told apart: nothing more is heard."""
        self._is_deaf = True
        return self.refuse(code, reason)

    # ---- large bodies ------------------------------------------------------------------------------

    cdef bint _begin_body(self, FrameHeader* frame, char* payload, Py_ssize_t there) except -1:
        """Whether a frame, of which the first bytes are `there`, goes on in a body; they are taken then."""
        cdef Py_ssize_t offset
        if (frame.opcode != OPCODE_BINARY or not frame.fin or frame.size > LARGEST_BODY
                or there < PLAIN_HEAD or self._is_ending or self._assembling):
            return False
        mask_copy(self._head, payload, PLAIN_HEAD, frame.mask)
        offset = self.body_offset(<uint8_t*>self._head)
        if offset == 0:
            return False
        self._head_size = offset
        self._body = PyBytes_FromStringAndSize(NULL, frame.size - offset)
        self._body_filled = there - offset
        self._body_mask = mask_after(frame.mask, there)
        mask_copy(PyBytes_AS_STRING(self._body), payload + offset, there - offset,
                  mask_after(frame.mask, offset))
        return True

    cdef Py_ssize_t _continue_body(self, char* data, Py_ssize_t size) except -1:
        """The first bytes of `data` go on with the body, and may be there already."""
        cdef char* to = PyBytes_AS_STRING(self._body) + self._body_filled
        cdef Py_ssize_t part = min(size, PyBytes_GET_SIZE(self._body) - self._body_filled)
        if self._body_mask != 0 or to != data:
            mask_copy(to, data, part, self._body_mask)
            self._body_mask = mask_after(self._body_mask, part)
        self._body_filled += part
        self._parsed = part
        self._tail = size - part
        if self._body_filled < PyBytes_GET_SIZE(self._body):
            return 0
        self._masked = NULL
        self.bytes_received += self._head_size + self._body_filled
        try:
            if not self._is_ending:
                self.body_received(<uint8_t*>self._head, self._head_size,
                                   <uint8_t*>PyBytes_AS_STRING(self._body), self._body_filled)
        finally:
            self._body = None
        return 0

    # ---- messages ----------------------------------------------------------------------------------

    cdef int _receive(self, FrameHeader* frame, char* payload) except -1:
        cdef:
            Py_ssize_t size = frame.size
            bint is_lazy

        if self._is_ending and frame.opcode != OPCODE_CLOSE:
            return 0
        if frame.masked:
            is_lazy = frame.opcode == OPCODE_BINARY and frame.fin and size >= LAZY_UNMASK
            mask_copy(payload, payload, PLAIN_HEAD if is_lazy else size, frame.mask)
            self._masked = payload + PLAIN_HEAD if is_lazy else NULL
            self._masked_end = payload + size
            self._in_mask = frame.mask

        if frame.opcode == OPCODE_BINARY:
            if self._assembling:
                return self.refuse(CLOSE_PROTOCOL_ERROR, "message inside a message")
            if frame.fin:
                self.bytes_received += size
                return self.message_received(<uint8_t*>payload, size)
            self._begin_assembly(payload, size)
        elif frame.opcode == OPCODE_CONTINUATION:
            if not self._assembling:
                return self.refuse(CLOSE_PROTOCOL_ERROR, "continuation of nothing")
            self._fragments += 1
            if (self._fragments > self.limits.max_fragments
                    or size > self.limits.max_message_size - self._assembly.size):
                self._assembly = None
                return self.refuse(CLOSE_TOO_BIG, "message too big")
            if size > 0:
                memcpy(self._assembly.append(size), payload, size)
            if frame.fin:
                assembly = self._assembly
                self._assembling = False
                self._assembly = None
                self.bytes_received += assembly.size
                self.message_received(<uint8_t*>assembly.data, assembly.size)
                self.is_text = False
        elif frame.opcode == OPCODE_TEXT:
            return self._receive_text(frame, payload)
        else:
            return self.control_received(frame.opcode, payload, size)
        return 0

    cdef int _begin_assembly(self, const char* data, Py_ssize_t size) except -1:
        self._assembling = True
        self._fragments = 1
        self._assembly = WriteBuffer()
        if size > 0:
            memcpy(self._assembly.append(size), data, size)
        return 0

    cdef int _receive_text(self, FrameHeader* frame, char* payload) except -1:
        if not self.takes_text:
            return self.refuse(CLOSE_WRONG_MESSAGE_TYPE, "text messages are not spoken here")
        if self._assembling:
            return self.refuse(CLOSE_PROTOCOL_ERROR, "message inside a message")
        self.is_text = True
        if not frame.fin:
            return self._begin_assembly(payload, frame.size)
        self.bytes_received += frame.size
        self.message_received(<uint8_t*>payload, frame.size)
        self.is_text = False
        return 0

    cdef void unmask(self) noexcept:
        if self._masked != NULL:
            mask_copy(self._masked, self._masked, self._masked_end - self._masked, self._in_mask)
            self._masked = NULL

    cdef void take(self, char* to, const char* data, Py_ssize_t size) noexcept:
        cdef Py_ssize_t plain = size
        cdef Py_ssize_t phase = 0
        if self._masked != NULL and data + size > self._masked:
            plain = self._masked - data
            if plain < 0:
                phase = -plain
                plain = 0
            mask_copy(to + plain, data + plain, size - plain, mask_after(self._in_mask, phase))
        memcpy(to, data, plain)

    cdef bytes taken(self, const char* data, Py_ssize_t size):
        """The same as an object: the one that it was read into, if that is all of it."""
        cdef bytes copy
        if (self._body is not None and data == PyBytes_AS_STRING(self._body)
                and size == PyBytes_GET_SIZE(self._body)):
            return self._body
        copy = PyBytes_FromStringAndSize(NULL, size)
        self.take(PyBytes_AS_STRING(copy), data, size)
        return copy


def _raise(exc):
    raise exc
