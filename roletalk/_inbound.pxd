from aiofastnet.transport cimport Protocol
from aiofastnet.utils cimport NoResult
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ._buffer cimport Account, ReadSpace, WriteBuffer
from ._framing cimport FrameHeader

cdef enum:
    # Of a masked message of this size only the beginning is unmasked at once: see take().
    LAZY_UNMASK = 4096
    PLAIN_HEAD = 64                  # bytes of that beginning; a multiple of 4


cdef class FrameLimits:
    """What bounds a connection; one object is shared by all connections of a peer."""

    cdef public:
        Py_ssize_t max_message_size    # bytes of one received message, whole
        Py_ssize_t max_fragments       # frames of one received message
        Py_ssize_t high_water          # unsent bytes above which sending waits
        Py_ssize_t low_water           # unsent bytes below which a connection is not busy
        Py_ssize_t max_unsent          # unsent bytes above which nothing more is read
        double close_timeout           # s for the closing handshake


cdef class Inbound(Protocol):
    """What a transport reads for one connection: bytes in, whole messages out."""

    cdef:
        readonly object loop
        readonly FrameLimits limits
        readonly bint is_client
        readonly bint takes_text           # or refuses it, as roletalk's protocol says
        readonly bint is_text              # the message that is being received
        readonly uint64_t bytes_received   # of messages
        readonly double received_at        # s, when the last read batch began
        object __weakref__

        # What was read, and the frame that is being handed out.
        ReadSpace _space
        Account _account
        Py_ssize_t _kept               # bytes of messages that are not whole, as the account has them
        WriteBuffer _rest              # a frame that is not whole yet, and what follows; or None
        bint _reads_into_rest          # where the last get_buffer() was
        bint _in_batch
        bint _is_ending                # nothing but a close frame is handed out
        bint _is_deaf                  # nothing at all
        Py_ssize_t _parsed             # bytes of this batch that were taken out
        Py_ssize_t _tail               # bytes read but not yet taken out
        Py_ssize_t _budget             # bytes that may come yet; -1: any number
        char* _masked                  # where the message is still masked, or NULL
        char* _masked_end
        uint32_t _in_mask

        # A large frame whose body is read to where it stays.
        bytes _body                    # what of the message follows its head; or None
        Py_ssize_t _body_filled
        uint32_t _body_mask            # of the next byte
        bint _reads_into_body          # where the last get_buffer() was
        bint _expects_body             # the frame before this one was of the kind
        Py_ssize_t _head_size
        char[PLAIN_HEAD] _head

        # A message that comes in fragments.
        bint _assembling
        WriteBuffer _assembly
        Py_ssize_t _fragments

    # What a subclass overrides.  `message` is borrowed until the method returns; from LAZY_UNMASK bytes
    # on all but its beginning may still be masked: see unmask() and take().
    cdef int batch_started(self) except -1
    cdef int message_received(self, uint8_t* message, Py_ssize_t size) except -1
    # `data`, borrowed as well, follows the first `head_size` bytes of a message that body_offset() took.
    cdef int body_received(self, const uint8_t* head, Py_ssize_t head_size, const uint8_t* data,
                           Py_ssize_t size) except -1
    # A message begins with `head`, of PLAIN_HEAD bytes: how many of them are no body that is worth being
    # read to where it stays; 0: all is wanted at once.
    cdef Py_ssize_t body_offset(self, const uint8_t* head) except -1
    cdef int control_received(self, uint8_t opcode, const char* payload, Py_ssize_t size) except -1
    cdef int batch_ended(self) except -1
    cdef int refuse(self, int code, str reason) except -1
    cdef int over_budget(self) except -1
    # The account has no room for what this connection keeps.
    cdef int over_account(self) except -1
    # Something was raised that nobody had reckoned with.
    cdef int broke(self, object error) except -1

    # The message that is being received: take off what mask it has left in place, or while copying.
    cdef void unmask(self) noexcept
    cdef void take(self, char* to, const char* data, Py_ssize_t size) noexcept
    cdef bytes taken(self, const char* data, Py_ssize_t size)

    cdef int start_reading(self, bytes rest, Py_ssize_t budget) except -1
    cdef int lift_budget(self) except -1
    cdef int stop_reading(self) except -1

    cdef NoResult get_buffer_c(self, Py_ssize_t hint, char** buf, Py_ssize_t* buf_len) except NoResult.EXC
    cdef int _keep(self) except -1
    cdef int _received(self, Py_ssize_t fresh) except -1
    cdef bint _frames(self, char* data, Py_ssize_t size) except -1
    cdef int _take_frames(self, char* data, Py_ssize_t size) except -1
    cdef int _receive(self, FrameHeader* frame, char* payload) except -1
    cdef int _receive_text(self, FrameHeader* frame, char* payload) except -1
    cdef int _begin_assembly(self, const char* data, Py_ssize_t size) except -1
    cdef bint _begin_body(self, FrameHeader* frame, char* payload, Py_ssize_t there) except -1
    cdef Py_ssize_t _continue_body(self, char* data, Py_ssize_t size) except -1
    cdef int _violation(self, int code, str reason) except -1
