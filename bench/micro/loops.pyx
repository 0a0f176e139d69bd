# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""Loops in C around what only compiled code can call, so that what is measured is not the calling.

Each does its operation `count` times.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy

from roletalk._buffer cimport WriteBuffer
from roletalk._calls cimport ANSWERED, CallTable, Home, Waiter, new_waiter
from roletalk._channels cimport Channels, Stream, begin_stream
from roletalk._codec cimport (
    Envelope, answer_size, message_size, number_size, open_size, parse, request_size,
    stream_answer_size, stream_number_size, write_answer, write_message, write_open, write_request,
    write_stream_answer,
)
from roletalk._destination cimport DestinationCore
from roletalk._dispatch cimport HandlerTable
from roletalk._frame cimport Connection
from roletalk._payload cimport Encoded, decode, encode
from roletalk._peer cimport PeerCore
from roletalk._readable cimport ReadableStream
from roletalk._session cimport Link, UnitCore
from roletalk._wire cimport (
    FLAG_CHUNK, MSG_OPEN_WRITABLE, MSG_REJECT, MSG_RESOLVE, MSG_STREAM_RESOLVE,
)
from roletalk._writable cimport WritableStream

cdef Py_ssize_t ENDLESS = <Py_ssize_t>1 << 60


# ---- payloads and envelopes ------------------------------------------------------------------------

def encode_values(object value, Py_ssize_t count):
    cdef Encoded payload
    for _ in range(count):
        _owner = encode(value, &payload)


def decode_values(int datatype, bytes raw, Py_ssize_t count):
    for _ in range(count):
        decode(<uint8_t>datatype, raw)


def parse_messages(bytes message, Py_ssize_t count):
    cdef Envelope envelope
    cdef int code = 0
    for _ in range(count):
        code |= parse(<const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), &envelope)
    if code != 0:
        raise ValueError(f"the message is refused with {code}")


cdef class Writer:
    """Writes envelopes of one role, event and payload, again and again to the same place."""

    cdef:
        WriteBuffer _out
        bytes _names
        uint16_t _role_size, _event_size
        Encoded _payload
        object _owner

    def __init__(self, bytes role, bytes event, bytes value):
        self._out = WriteBuffer()
        self._names = role + event
        self._role_size = <uint16_t>len(role)
        self._event_size = <uint16_t>len(event)
        self._owner = encode(value, &self._payload)

    cdef char* _room(self, Py_ssize_t size) except NULL:
        self._out.clear()
        return self._out.append(size)

    def write_messages(self, Py_ssize_t count):
        cdef Py_ssize_t names_size = PyBytes_GET_SIZE(self._names)
        for _ in range(count):
            write_message(self._room(message_size(names_size, &self._payload)),
                          PyBytes_AS_STRING(self._names), self._role_size, self._event_size,
                          &self._payload)

    def write_requests(self, uint64_t correlation, Py_ssize_t count):
        cdef Py_ssize_t names_size = PyBytes_GET_SIZE(self._names)
        for _ in range(count):
            write_request(self._room(request_size(names_size, correlation, &self._payload)),
                          PyBytes_AS_STRING(self._names), self._role_size, self._event_size,
                          correlation, &self._payload)

    def write_answers(self, bint rejects, uint64_t correlation, Py_ssize_t count):
        cdef int size = number_size(correlation)
        for _ in range(count):
            write_answer(self._room(answer_size(size, &self._payload)),
                         MSG_REJECT if rejects else MSG_RESOLVE, correlation, size, &self._payload)

    def write_opens(self, uint64_t correlation, uint64_t channel, Py_ssize_t count):
        cdef Py_ssize_t names_size = PyBytes_GET_SIZE(self._names)
        for _ in range(count):
            write_open(self._room(open_size(names_size, correlation, channel, &self._payload)),
                       MSG_OPEN_WRITABLE, PyBytes_AS_STRING(self._names), self._role_size,
                       self._event_size, correlation, channel, &self._payload)

    def write_stream_answers(self, uint64_t correlation, uint64_t channel, Py_ssize_t count):
        cdef int numbers = stream_number_size(number_size(correlation), channel)
        for _ in range(count):
            write_stream_answer(self._room(stream_answer_size(numbers, &self._payload)),
                                MSG_STREAM_RESOLVE, numbers, correlation, channel, &self._payload)


# ---- frames ----------------------------------------------------------------------------------------

cdef class Sink(Connection):
    """A connection that only counts the messages that come."""

    cdef readonly Py_ssize_t messages

    cdef int message_received(self, uint8_t* message, Py_ssize_t size) except -1:
        self.unmask()
        self.messages += 1
        return 0


def write_nowhere(Connection connection not None):
    """Have what `connection` writes vanish: its transport takes all and keeps nothing."""
    connection._write = connection._writelines = _take
    connection._write_buffer_size = _nothing
    connection._write_copies = True
    connection._fd = -1


def _take(data):
    pass


def _nothing():
    return 0


def build_frames(Connection connection not None, bytes message, Py_ssize_t count):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
    for _ in range(count):
        memcpy(connection.begin(size), PyBytes_AS_STRING(message), size)
        connection.end()
        connection._out.clear()


def send_chunks(Connection connection not None, bytes head, bytes chunk, Py_ssize_t count):
    for _ in range(count):
        connection.send_chunk(PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head),
                              PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))
        connection._out.clear()


# ---- the choice of unit, connection and handler -----------------------------------------------------

def pick_units(DestinationCore destination not None, bint for_stream, Py_ssize_t count):
    for _ in range(count):
        destination.pick(None, for_stream)


def pick_links(UnitCore unit not None, Py_ssize_t count):
    for _ in range(count):
        unit.pick_link()


def find_handlers(HandlerTable table not None, int kind, bytes role, bytes event, Py_ssize_t count):
    cdef bytes names = role + event
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(names)
    cdef uint16_t role_size = <uint16_t>len(role)
    cdef uint16_t event_size = <uint16_t>len(event)
    for _ in range(count):
        table.find(<uint8_t>kind, at, role_size, event_size)


# ---- messages in, as one batch of frames ------------------------------------------------------------

cdef int _begin_batch(Link link) except -1:
    link._in_batch = True
    # More is still to be read than is ever gathered: nothing leaves early.
    link._tail = ENDLESS
    return link.batch_started()


cdef int _end_batch(Link link) except -1:
    link._in_batch = False
    return link.flush()


def receive_messages(Link link not None, bytes message, Py_ssize_t count):
    _begin_batch(link)
    for _ in range(count):
        link.message_received(<uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
    _end_batch(link)


def receive_answers(Link link not None, bytes value, uint64_t first, Py_ssize_t count):
    """Answers to the requests from correlation `first` on, as the remote end writes them."""
    cdef:
        WriteBuffer out = WriteBuffer()
        Encoded payload
        uint64_t correlation
        Py_ssize_t i
        int size
    _owner = encode(value, &payload)
    _begin_batch(link)
    for i in range(count):
        correlation = first + <uint64_t>i
        size = number_size(correlation)
        out.clear()
        write_answer(out.append(answer_size(size, &payload)), MSG_RESOLVE, correlation, size, &payload)
        link.message_received(<uint8_t*>out.data, out.size)
    _end_batch(link)


# ---- calls -----------------------------------------------------------------------------------------

def settle_calls(CallTable table not None, Home home not None, Py_ssize_t count):
    """A waiter into the table, out of it by its correlation, and settled; nobody waits."""
    cdef Waiter waiter
    for _ in range(count):
        waiter = new_waiter(home, 0.0, ENDLESS, "role", "event")
        table.take(table.add(waiter)).settle(ANSWERED, None, False)


# ---- streams ---------------------------------------------------------------------------------------

cdef Stream _opened(Stream stream, Link link, uint64_t remote):
    cdef UnitCore unit = link.unit
    unit.streams.enter()
    begin_stream(stream, link.peer, unit, unit.streams)
    link.channels.add(stream, unit.streams.new_number())
    stream.open(remote)
    return stream


def open_writable(Link link not None, uint64_t remote):
    """An open stream whose reader has granted more than it will ever be sent."""
    cdef Stream stream = _opened(WritableStream.__new__(WritableStream), link, remote)
    stream.credit = ENDLESS
    return stream


def open_readable(Link link not None, uint64_t remote):
    return _opened(ReadableStream.__new__(ReadableStream), link, remote)


def pump_chunks(Link link not None, list streams, bytes chunk, Py_ssize_t count):
    """`count` chunks in all: each stream in its turn has one to send."""
    cdef:
        Channels channels = link.channels
        WritableStream stream
        Py_ssize_t left = count
    while left > 0:
        for each in streams:
            stream = <WritableStream>each
            stream._at = PyBytes_AS_STRING(chunk)
            stream._left = PyBytes_GET_SIZE(chunk)
            channels.enqueue(stream)
            left -= 1
            if left == 0:
                break
        # The loop would get its turn: here it is always over.
        channels._turn = -ENDLESS
        channels.pump()


def read_chunks(Link link not None, ReadableStream stream not None, bytes chunk, Py_ssize_t count):
    """Each chunk comes in and is read before the next."""
    for _ in range(count):
        link.channels.receive(stream.number, FLAG_CHUNK, <const uint8_t*>PyBytes_AS_STRING(chunk),
                              PyBytes_GET_SIZE(chunk), False)
        stream._take(-1)
