"""Sending: the choice of unit, and what it takes to get a message or request onto a connection."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.stdint cimport uint64_t

from ._calls cimport CallTable, Waiter, done_call, failed_call, new_call, new_waiter
from ._channels cimport Stream, abort_text, begin_stream
from ._codec cimport (
    message_size, open_size, request_size, write_message, write_open, write_request,
)
from ._debug cimport now
from ._opening cimport opening, renamed
from ._payload cimport encode
from ._readable cimport ReadableStream
from ._wire cimport MSG_OPEN_READABLE, MSG_OPEN_WRITABLE
from ._writable cimport WritableStream

from ._dispatch import encode_name
from ._text import named
from .errors import RoletalkError, UnitClosedError, WouldBlock

cdef enum:
    NAMES_CACHE = 1024                 # events that a destination keeps encoded

cdef double INFINITE = float("inf")


class _Default:
    """Seen in the signatures of what takes a timeout."""

    def __repr__(self):
        return "<the peer's request_timeout>"


cdef object _UNSET = _Default()
UNSET = _UNSET


cdef double seconds_of(object timeout) except? -1:
    try:
        return timeout
    except TypeError:
        kind = type(timeout).__name__
        raise TypeError(f"timeout= is in seconds, a number, or None for no limit, not {kind}") from None


cdef class DestinationCore:
    def __init__(self, PeerCore peer, name):
        self._wire_name = encode_name(name, "role")
        self.peer = peer
        self.name = str.__str__(name)
        self._units = []
        self._names = {}

    def current_units(self):
        return tuple(self._units)

    def add_unit(self, UnitCore unit):
        self._units.append(unit)

    def remove_unit(self, UnitCore unit):
        self._units.remove(unit)

    cdef bytes names_of(self, object event):
        cdef bytes names
        if event is self._last_event and event is not None:
            return self._last_names
        names = self._names.get(event)
        if names is None:
            names = self._wire_name + encode_name(event, "event")
            if len(self._names) >= NAMES_CACHE:
                self._names.clear()
            self._names[event] = names
        self._last_event = event
        self._last_names = names
        return names

    cdef Link pick(self, object unit, bint for_stream):
        """An open connection of `unit`, or of the unit whose turn it is."""
        cdef:
            Py_ssize_t n = PyList_GET_SIZE(self._units)
            Py_ssize_t _i
            UnitCore one
            Link link
        if unit is not None:
            return self._pick_of(unit, for_stream)
        for _i in range(n):
            self._next_unit += 1
            if self._next_unit >= n:
                self._next_unit = 0
            one = <UnitCore><object>PyList_GET_ITEM(self._units, self._next_unit)
            link = one.pick_calm_link() if for_stream else one.pick_link()
            # A unit that is closing still counts as one until its last connection is gone.
            if link is not None:
                return link
        raise self._nobody()

    cdef Link _pick_of(self, object unit, bint for_stream):
        cdef Link link
        if not isinstance(unit, UnitCore) or (<UnitCore>unit).peer is not self.peer:
            raise TypeError(
                f"unit= must be a Unit of the same peer (of peer.units or destination.units), not "
                f"{'one of another peer' if isinstance(unit, UnitCore) else type(unit).__name__}")
        link = (<UnitCore>unit).pick_calm_link() if for_stream else (<UnitCore>unit).pick_link()
        if link is None:
            closed = UnitClosedError(
                f"{named(unit)} is not connected any more; nothing was sent to role {self.name!r}",
                hint="a unit that comes back is another Unit: take it from destination.units")
            closed.unit = unit
            raise closed
        if self.name not in unit.roles:
            error = self._nobody(unit)
            error.unit = unit
            raise error
        return link

    cdef object _about(self, object error, object event):
        """`error`, with what was being done."""
        if isinstance(error, RoletalkError):
            error.role = self.name
            if isinstance(event, str):
                error.event = event
        return error

    # ---- requests ------------------------------------------------------------------------------------

    def request(self, event, data=None, *, timeout=_UNSET, unit=None, bint ignore_unit_close=False):
        """Ask one unit; await it for the reply's `Context`.

        The request is written at the call (docs/protocol.md, section 3), unless the connection is above
        its high-water mark: then when it is awaited and there is room.

        ``timeout`` is in seconds, ``None`` for no limit, by default the peer's `request_timeout`.  `unit`
        names the unit; by default they take turns.  With `ignore_unit_close` a request whose unit goes
        away waits on until its timeout.

        Raised by the await: `RemoteError` when it is rejected, `RequestTimeout`, `NoUnitsError`,
        `UnitClosedError`, `WouldBlock` when too many are pending on the unit, `TypeError` and
        `ValueError` for what cannot be sent.  Raised at once: `RuntimeError` in a wrong thread, loop or
        process.
        """
        self.peer.check_here()
        try:
            outcome = self._request(event, data, timeout, unit, ignore_unit_close)
        except Exception as exc:
            return failed_call(self._about(exc, event), self.peer.home)
        if isinstance(outcome, Link):
            return renamed(
                self._request_later(event, data, timeout, unit, ignore_unit_close, outcome),
                "Destination.request")
        return outcome

    cdef object _request(self, object event, object data, object timeout, object unit, bint ignore_close):
        """The `Call`; or the connection that has no room, and nothing is written then."""
        cdef:
            bytes names = self.names_of(event)
            PeerCore peer = self.peer
            double sent_at = now()
            double deadline
            CallTable calls
            Link link
            Encoded payload
            Waiter waiter
            uint64_t correlation
            Py_ssize_t role_size = PyBytes_GET_SIZE(self._wire_name)
        deadline = self._deadline(timeout, sent_at)
        # Before a connection is picked: encoding may run code of the value's.
        _owner = encode(data, &payload)
        if payload.size + PyBytes_GET_SIZE(names) + 32 > peer.limits.max_message_size:
            raise ValueError(_too_large("request", payload.size, peer.limits.max_message_size))
        link = self.pick(unit, False)
        if not link.has_room():
            return link
        calls = link.unit.calls
        waiter = new_waiter(peer.home, sent_at, deadline, self.name, event)
        waiter.ignore_close = ignore_close
        correlation = calls.add(waiter)
        try:
            write_request(link.begin(request_size(PyBytes_GET_SIZE(names), correlation, &payload)),
                          PyBytes_AS_STRING(names), role_size, PyBytes_GET_SIZE(names) - role_size,
                          correlation, &payload)
            link.end()
        except BaseException:
            calls.discard(waiter)
            raise
        peer.counters.requests_sent += 1
        if deadline != INFINITE:
            peer.note_deadline(deadline, calls)
        return new_call(waiter)

    cdef double _deadline(self, object timeout, double at) except? -1:
        """When what begins at `at` has to be answered; infinity: any time."""
        cdef double seconds
        if timeout is _UNSET:
            timeout = self.peer.request_timeout
        if timeout is None:
            return INFINITE
        seconds = timeout if type(timeout) is float else seconds_of(timeout)
        if not seconds >= 0:
            raise ValueError(f"timeout= is in seconds, 0 or more, or None for no limit, not {timeout!r}")
        return at + seconds

    async def _request_later(self, event, data, timeout, unit, ignore_close, link):
        cdef double deadline = self._deadline(timeout, now())
        while True:
            await self._room(link, deadline, event)
            left = None if deadline == INFINITE else max(deadline - now(), 0.0)
            try:
                outcome = self._request(event, data, left, unit, ignore_close)
            except RoletalkError as exc:
                raise self._about(exc, event)
            if not isinstance(outcome, Link):
                return await outcome
            link = outcome

    # ---- messages ------------------------------------------------------------------------------------

    cdef int _write(self, Link link, bytes names, Encoded* payload) except -1:
        cdef Py_ssize_t role_size = PyBytes_GET_SIZE(self._wire_name)
        cdef Py_ssize_t size = message_size(PyBytes_GET_SIZE(names), payload)
        if size > self.peer.limits.max_message_size:
            raise ValueError(_too_large("message", size, self.peer.limits.max_message_size))
        write_message(link.begin(size), PyBytes_AS_STRING(names), role_size,
                      PyBytes_GET_SIZE(names) - role_size, payload)
        link.end()
        self.peer.counters.messages_sent += 1
        return 0

    cdef Link _send(self, object event, object data, object unit):
        """Write a message; returns None when it is written, else the connection that has no room."""
        cdef:
            bytes names = self.names_of(event)
            Link link
            Encoded payload
        # Before a connection is picked: encoding may run code of the value's.
        _owner = encode(data, &payload)
        link = self.pick(unit, False)
        if not link.has_room():
            return link
        self._write(link, names, &payload)
        return None

    def send(self, event, data=None, *, unit=None):
        """Send a one-way message to one unit; await it.

        Written at the call.  Above the connection's high-water mark nothing is written until there is
        room; cancelled there, nothing was sent.  Delivered at most once.

        Raised by the await: `NoUnitsError`, `UnitClosedError`, `TypeError` and `ValueError` for what
        cannot be sent.  Raised at once: `RuntimeError` in a wrong thread, loop or process.
        """
        cdef Link full
        self.peer.check_here()
        try:
            full = self._send(event, data, unit)
        except Exception as exc:
            return failed_call(self._about(exc, event), self.peer.home)
        if full is None:
            return done_call()
        return renamed(self._send_later(event, data, unit, full), "Destination.send")

    async def _send_later(self, event, data, unit, link):
        while link is not None:
            await self._room(link, INFINITE, event)
            try:
                link = self._send(event, data, unit)
            except RoletalkError as exc:
                raise self._about(exc, event)

    def send_nowait(self, event, data=None, *, unit=None):
        """Send a one-way message to one unit at once.

        Raises `WouldBlock` above the connection's high-water mark, and what `send` raises.
        """
        self.peer.check_here()
        cdef Link full
        try:
            full = self._send(event, data, unit)
        except RoletalkError as exc:
            self._about(exc, event)
            raise
        if full is not None:
            error = WouldBlock(
                f"{event!r} was not sent to role {self.name!r}: {full.unsent()} bytes are unsent to "
                f"{named(full.unit)}, over its high-water mark",
                hint="await send(), which waits for room, or Peer(high_water=...)")
            error.unit = full.unit
            raise self._about(error, event)

    def broadcast(self, event, data=None):
        """Send a one-way message to every unit; returns the tuple of units that it was written to.

        Units above their high-water mark are left out and counted in `stats()`.  Raises `NoUnitsError`
        when there is no unit, `TypeError` and `ValueError` for what cannot be sent.
        """
        cdef:
            bytes names
            Encoded payload
            UnitCore unit
            Link link
            list sent = []
        self.peer.check_here()
        names = self.names_of(event)
        if not self._units:
            raise self._about(self._nobody(), event)
        _owner = encode(data, &payload)
        for each in tuple(self._units):
            unit = <UnitCore>each
            link = unit.pick_link()
            if link is None or not link.has_room():
                self.peer.drop("broadcasts to units above their high-water mark")
                continue
            self._write(link, names, &payload)
            sent.append(unit)
        return tuple(sent)

    # ---- streams (docs/protocol.md, section 7) ---------------------------------------------------------

    def readable(self, event, data=None, *, timeout=_UNSET, unit=None):
        """Open a stream that one unit writes; await or enter it for the `ReadableStream`.

        `data` goes to the handler; the one that accepted is `stream.reply`.  The stream lives on one
        connection, the one of the unit that has the fewest streams.  ``timeout`` is in seconds until it is
        accepted, ``None`` for no limit, by default the peer's `request_timeout`.

        Raised by the await: `RemoteError` when it is rejected, `RequestTimeout`, `NoUnitsError`,
        `UnitClosedError`, `StreamError` when its connection is lost, `WouldBlock` when too many streams
        are open with the unit, `TypeError` and `ValueError` for what cannot be sent, `RuntimeError` in a
        wrong thread, loop or process.
        """
        return opening(self._open(MSG_OPEN_READABLE, event, data, timeout, unit), "Destination.readable")

    def writable(self, event, data=None, *, timeout=_UNSET, unit=None):
        """Open a stream that one unit reads; await or enter it for the `WritableStream`.

        See `readable`.
        """
        return opening(self._open(MSG_OPEN_WRITABLE, event, data, timeout, unit), "Destination.writable")

    async def _open(self, int kind, event, data, timeout, unit):
        cdef Stream stream
        self.peer.check_here()
        cdef double deadline = self._deadline(timeout, now())
        while True:
            if kind == MSG_OPEN_READABLE:
                stream = ReadableStream.__new__(ReadableStream)
            else:
                stream = WritableStream.__new__(WritableStream)
            try:
                outcome = self._open_now(stream, kind, event, data, deadline, unit)
            except RoletalkError as exc:
                raise self._about(exc, event)
            if not isinstance(outcome, Link):
                break
            await self._room(outcome, deadline, event)
        try:
            await outcome
        except BaseException as exc:
            stream.abort_with(abort_text(exc, False))
            raise self._about(exc, event)
        return stream

    cdef object _open_now(self, Stream stream, int kind, object event, object data, double deadline,
                          object unit):
        """The `Call`; or the connection that has no room, and nothing is written then."""
        cdef:
            bytes names = self.names_of(event)
            PeerCore peer = self.peer
            Py_ssize_t role_size = PyBytes_GET_SIZE(self._wire_name)
            Py_ssize_t size
            uint64_t correlation
            UnitCore to
            Link link
            Encoded payload
            Waiter waiter
        _owner = encode(data, &payload)
        if payload.size + PyBytes_GET_SIZE(names) + 32 > peer.limits.max_message_size:
            raise ValueError(_too_large("request", payload.size, peer.limits.max_message_size))
        link = self.pick(unit, True)
        if not link.has_room():
            return link
        to = link.unit
        if not to.streams.enter():
            error = WouldBlock(f"{to.streams.open} streams are open with {named(to)} already",
                               hint="close some of them first, or Peer(max_streams=...)")
            error.unit = to
            raise error
        begin_stream(stream, peer, to, to.streams)
        link.channels.add(stream, to.streams.new_number())
        waiter = new_waiter(peer.home, now(), deadline, self.name, event)
        try:
            correlation = to.calls.add(waiter)
            waiter.stream = stream
            stream.opening = waiter
            size = open_size(PyBytes_GET_SIZE(names), correlation, stream.number, &payload)
            write_open(link.begin(size), kind, PyBytes_AS_STRING(names), role_size,
                       PyBytes_GET_SIZE(names) - role_size, correlation, stream.number, &payload)
            link.end()
        except BaseException:
            stream.abort_with("not sent")
            raise
        peer.counters.requests_sent += 1
        if deadline != INFINITE:
            peer.note_deadline(deadline, to.calls)
        return new_call(waiter)


cdef str _too_large(str what, Py_ssize_t size, Py_ssize_t limit):
    return (f"the {what} takes {size} bytes, over max_message_size ({limit}): "
            "Peer(max_message_size=...) on both sides, or a stream")
