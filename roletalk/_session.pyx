"""The hot path above the frames: dispatch, answers, requests, and the choice of unit and connection.

`Peer`, `Unit`, `Destination` and `Link`'s owner are Python classes over these; nothing here imports them.
"""

import asyncio
import logging
import math
import os
import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdlib cimport rand
from libc.string cimport memcpy, memset

from ._calls cimport (ANSWERED, FAILED, Call, Waiter, failed_call, new_call, new_waiter)
from ._codec cimport (Encoded, decode, encode, message_size, number_size, parse, request_size,
                      answer_size, write_answer, write_message, write_number, write_request)
from ._context cimport fill
from ._debug cimport DEBUG, coarse_now, now
from ._dispatch cimport event_text
from ._frame cimport OPEN
from ._steps cimport blame, name_of, watch_steps
from ._wire cimport (CLOSE_BAD_STRUCTURE, CLOSE_WRONG_CORRELATION, CLOSE_WRONG_MESSAGE_TYPE,
                     DATA_OBJECT, DATA_STRING, MSG_ACQUAINT, MSG_MESSAGE, MSG_OPEN_READABLE,
                     MSG_OPEN_WRITABLE, MSG_REJECT, MSG_REQUEST, MSG_RESOLVE, MSG_ROLES,
                     MSG_STREAM_DATA, MSG_STREAM_REJECT, MSG_STREAM_RESOLVE)

from ._dispatch import encode_name
from .errors import (BadPayload, NoUnitsError, ProtocolError, Reject, RemoteError, UnitClosedError,
                     WouldBlock)

_log = logging.getLogger("roletalk")

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_CopyCurrent()
    bint PyCoro_CheckExact(object candidate)

cdef extern from *:
    """
    static int roletalk_is_awaitable(PyObject* value) {
        PyAsyncMethods* methods = Py_TYPE(value)->tp_as_async;
        return methods != NULL && methods->am_await != NULL;
    }
    """
    bint _is_awaitable "roletalk_is_awaitable"(object value)

cdef enum:
    NAMES_CACHE = 1024                 # events that a destination keeps encoded
    REJECT_TEXT = 4096                 # characters of a remote reject that are kept

cdef double INFINITE = float("inf")
cdef double SWEEP_GRAIN = 0.005        # s that a timeout may be late, so that sweeps gather

cdef object _get_running_loop = asyncio._get_running_loop
cdef object _UNSET = object()
UNSET = _UNSET

# 3.12 made Task(eager_start=True); its current_task is written in C.  Before that the C tasks keep
# the current one in this dict.
cdef bint _HAS_EAGER = sys.version_info >= (3, 12)
cdef object _current_task = asyncio.current_task
cdef object _current_tasks = None if _HAS_EAGER else asyncio.tasks._current_tasks

cdef int _forks = 0


def _forked():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

_CLOSE_REASONS = {
    CLOSE_WRONG_MESSAGE_TYPE: "unknown message type",
    CLOSE_WRONG_CORRELATION: "bad correlation, channel or quota",
    CLOSE_BAD_STRUCTURE: "malformed message",
}


def clock():
    """Seconds on the monotonic clock that deadlines are on."""
    return now()


cdef class _Done:
    """What `send` returns when the message is written already: an awaitable that never suspends.

    It has no state, so one serves all.
    """

    __name__ = "send"
    __qualname__ = "Destination.send"

    def __await__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, type, value=None, traceback=None):
        raise type if value is None else value

    def close(self):
        pass


import collections.abc
collections.abc.Coroutine.register(_Done)
cdef _Done _DONE = _Done()


# docs/protocol.md, section 8: a handshake message has at most 64 KiB.
cdef FrameLimits _STRANGER_LIMITS = FrameLimits(max_message_size=65536)


cdef class PeerCore:
    def __init__(self, FrameLimits limits, *, request_timeout, bint expose_errors, Py_ssize_t max_handlers,
                 Py_ssize_t max_pending, double slow_handler):
        self.limits = limits
        self.table = HandlerTable()
        self.drops = {}
        self.request_timeout = request_timeout
        self.expose_errors = expose_errors
        self.max_handlers = max_handlers
        self.max_pending = max_pending
        self.slow_handler = slow_handler
        self._tables = set()
        self._sweep_at = INFINITE
        self._fork_epoch = _forks
        memset(&self.counters, 0, sizeof(Counters))

    cdef int check_here(self) except -1:
        if _HAS_EAGER:
            if self.loop is not None and _get_running_loop() is self.loop and self._fork_epoch == _forks:
                return 0
        # Before 3.12 asking for the running loop asks the kernel for the process each time.  Of the
        # loops of one thread only one runs, so asking ours is as good.
        elif (self._thread == PyThread_get_thread_ident() and self._fork_epoch == _forks
                and self.loop is not None and self._is_running()):
            return 0
        self.bind()
        return 0

    def bind(self):
        """Bind the peer to the running loop, or raise `RuntimeError` when it is bound elsewhere."""
        loop = _get_running_loop()
        if self._fork_epoch != _forks:
            raise RuntimeError("this peer was made before a fork: make a new one in the child process")
        if loop is None:
            if self.loop is not None and self._thread != PyThread_get_thread_ident():
                raise RuntimeError("this peer runs in another thread: use loop.call_soon_threadsafe")
            raise RuntimeError("no event loop is running in this thread")
        if self.loop is None:
            self.loop = loop
            self._is_running = loop.is_running
            self._thread = PyThread_get_thread_ident()
            # A task factory of the user's own makes all tasks; otherwise ours may start eagerly.
            self._eager = _HAS_EAGER and loop.get_task_factory() is None
        elif loop is not self.loop:
            if self._thread != PyThread_get_thread_ident():
                raise RuntimeError("this peer runs in another thread: use loop.call_soon_threadsafe")
            raise RuntimeError("this peer runs on another event loop")

    def check_thread(self):
        """For plain calls that may come before the loop runs: raise only in a wrong thread or process."""
        loop = _get_running_loop()
        if loop is not None and loop is self.loop and self._fork_epoch == _forks:
            return
        if self.loop is not None and (loop is not None or self._thread != PyThread_get_thread_ident()):
            self.bind()
        elif self._fork_epoch != _forks:
            self.bind()

    # ---- counters ------------------------------------------------------------------------------------

    cdef int drop(self, str reason) except -1:
        count = self.drops.get(reason, 0) + 1
        self.drops[reason] = count
        if count == 1:
            _log.warning("dropped for the first time: %s (further ones are counted in stats())", reason)
        return 0

    def count_drop(self, str reason):
        self.drop(reason)

    def count_link(self, Link link):
        """Take over the byte counts of a connection that is gone."""
        self.counters.bytes_sent += link.bytes_sent
        self.counters.bytes_received += link.bytes_received

    def counted(self):
        """The counters of messages, requests and bytes, as a new dict."""
        return self.counters

    # ---- deadlines: one timer for all, never one a request --------------------------------------------

    cdef int note_deadline(self, double deadline, CallTable table) except -1:
        if not table.swept:
            table.swept = True
            self._tables.add(table)
        if deadline + SWEEP_GRAIN >= self._sweep_at:
            return 0
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        self._sweep_at = deadline + SWEEP_GRAIN
        delay = self._sweep_at - now()
        self._sweep_handle = self.loop.call_later(delay if delay > 0 else 0, self._sweep)
        return 0

    def _sweep(self):
        cdef:
            double at = now()
            double earliest = INFINITE
            CallTable table
        self._sweep_handle = None
        self._sweep_at = INFINITE
        for entry in list(self._tables):
            table = <CallTable>entry
            if table.earliest <= at:
                self.counters.timeouts += table.expire(at)
            if table.used == 0:
                self._tables.discard(table)
                table.swept = False
            elif table.earliest < earliest:
                earliest = table.earliest
        if earliest < INFINITE:
            self._sweep_at = earliest + SWEEP_GRAIN
            self._sweep_handle = self.loop.call_later(max(self._sweep_at - at, SWEEP_GRAIN), self._sweep)

    def keep_pending(self, CallTable table):
        """A unit is gone, but requests that ignore it may wait on in its table."""
        if table.used > 0:
            table.swept = True
            self._tables.add(table)

    def fail_pending(self, tables, make_error):
        """Fail all that is pending, in `tables` and in those of units that are gone."""
        for table in (*tables, *self._tables):
            (<CallTable>table).fail_all(make_error, and_ignoring=True)

    def stop_sweeping(self):
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None
        self._sweep_at = INFINITE
        self._tables.clear()

    @property
    def pending(self):
        return sum([(<CallTable>table).used for table in self._tables])


cdef class Link(Connection):
    def __init__(self, PeerCore peer, owner, *, bint is_client):
        Connection.__init__(self, peer.loop, _STRANGER_LIMITS, is_client=is_client)
        self.peer = peer
        self.owner = owner

    def admit(self, UnitCore unit):
        """The handshake is done: from now on messages are dispatched for `unit`."""
        self.unit = unit
        self.limits = self.peer.limits
        self._transport.set_write_buffer_limits(high=self.limits.high_water, low=self.limits.low_water)
        unit._links.append(self)

    cdef int opened(self) except -1:
        self.owner.opened(self)
        return 0

    cdef int closed(self) except -1:
        owner, self.owner = self.owner, None
        self.peer.count_link(self)
        if self._out.size > 0 and not self.closed_by_us:
            self.peer.drop("frames unsent when their connection was lost")
        owner.lost(self)
        return 0

    cdef int writable(self) except -1:
        self.owner.writable(self)
        return 0

    def wait_for_room(self):
        """Have `owner.writable(link)` called once the unsent bytes are below the high-water mark."""
        self._wants_room = True

    @property
    def has_room_now(self):
        return self._state == OPEN and self.has_room()

    cdef int batch_started(self) except -1:
        if _HAS_EAGER:
            self._direct = _current_task() is None
        else:
            self._direct = _current_tasks.get(self.loop) is None
        return 0

    cdef int message_received(self, const uint8_t* message, Py_ssize_t size) except -1:
        cdef:
            Envelope envelope
            int code
        if self.unit is None:
            self.owner.handshake(self, PyBytes_FromStringAndSize(<const char*>message, size))
            return 0
        code = parse(message, size, &envelope)
        if code != 0:
            self.peer.drop("malformed messages")
            return self._start_closing(code, _CLOSE_REASONS[code], True)
        if envelope.kind == MSG_RESOLVE:
            return self._settle(&envelope, False)
        if envelope.kind == MSG_REQUEST or envelope.kind == MSG_MESSAGE:
            return self._handle(&envelope)
        if envelope.kind == MSG_REJECT:
            return self._settle(&envelope, True)
        if envelope.kind == MSG_ROLES or envelope.kind == MSG_ACQUAINT:
            text = PyBytes_FromStringAndSize(<const char*>envelope.body, envelope.body_size)
            try:
                if envelope.kind == MSG_ROLES:
                    self.owner.roles(self, text)
                else:
                    self.owner.acquaint(self, text)
            except ProtocolError as exc:
                self.peer.drop("malformed messages")
                return self._start_closing(exc.close_code, str(exc), True)
            return 0
        return self._stream_message(&envelope)

    cdef int _handle(self, Envelope* envelope) except -1:
        cdef:
            PeerCore peer = self.peer
            bint is_request = envelope.kind == MSG_REQUEST
            Handler handler
            RequestContext request
            Context context
            uint8_t datatype = envelope.body[0]
            str event
        if is_request:
            peer.counters.requests_received += 1
        else:
            peer.counters.messages_received += 1
        handler = peer.table.find(envelope.kind, envelope.names, envelope.role_size, envelope.event_size)
        if handler is None or not handler.role._active:
            text = peer.table.why(envelope.names, envelope.role_size)
            if is_request:
                return self._refuse(envelope, text)
            return peer.drop("messages to an unknown or inactive role, or an unhandled event")
        if datatype > DATA_OBJECT:
            if is_request:
                return self._refuse(envelope, "the payload has an unknown data type")
            return peer.drop("messages with a payload that does not decode")
        if len(self.unit.tasks) >= peer.max_handlers:
            if is_request:
                return self._refuse(envelope, "too many requests at once")
            return peer.drop("messages while too many handlers run for their unit")
        event = handler.event
        if event is None:
            event = event_text(envelope.names, envelope.role_size, envelope.event_size)
        raw = PyBytes_FromStringAndSize(<const char*>envelope.body + 1, envelope.body_size - 1)
        if is_request:
            request = RequestContext.__new__(RequestContext)
            request.correlation = envelope.correlation
            request.correlation_size = envelope.correlation_size
            request.connection = self
            context = request
        else:
            context = Context.__new__(Context)
        fill(context, self.unit, handler.kind, handler.role.name, event, datatype, raw)
        return self.unit.run(handler, context)

    cdef int _settle(self, Envelope* envelope, bint rejected) except -1:
        cdef:
            PeerCore peer = self.peer
            Waiter waiter = self.unit.calls.take(envelope.correlation)
            Context context
        if waiter is None:
            peer.counters.late_replies += 1
            return 0
        raw = PyBytes_FromStringAndSize(<const char*>envelope.body + 1, envelope.body_size - 1)
        if rejected:
            peer.counters.rejects_received += 1
            error = RemoteError(_reject_text(envelope.body[0], raw), self.unit, waiter.role, waiter.event)
            return waiter.settle(FAILED, error, self._direct)
        peer.counters.replies_received += 1
        context = Context.__new__(Context)
        fill(context, self.unit, "reply", waiter.role, waiter.event, envelope.body[0], raw)
        context._rtt = self.received_at - waiter.sent_at
        return waiter.settle(ANSWERED, context, self._direct)

    cdef int _refuse(self, Envelope* envelope, str text) except -1:
        cdef Encoded payload
        owner = encode(text, &payload)
        write_answer(self.begin(answer_size(envelope.correlation_size, &payload)), MSG_REJECT,
                     envelope.correlation, envelope.correlation_size, &payload)
        self.end()
        self.peer.counters.rejects_sent += 1
        return 0

    # Streams have their place here: channels belong to a link, stream requests are dispatched like
    # requests, and their answers settle waiters (docs/protocol.md, section 7).
    cdef int _stream_message(self, Envelope* envelope) except -1:
        if envelope.kind == MSG_OPEN_READABLE or envelope.kind == MSG_OPEN_WRITABLE:
            self.peer.counters.requests_received += 1
            return self._refuse_stream(envelope)
        if envelope.kind == MSG_STREAM_DATA:
            return self.peer.drop("stream frames of an unknown channel")
        self.peer.counters.late_replies += 1
        return 0

    cdef int _refuse_stream(self, Envelope* envelope) except -1:
        # type, cl, hl, correlation, channel, payload; both numbers of one length, as Go needs it
        cdef:
            Encoded payload
            int size = envelope.correlation_size
            char* at
        owner = encode("streams are not served here", &payload)
        at = self.begin(3 + 2 * size + 1 + payload.size)
        at[0] = <char>MSG_STREAM_REJECT
        at[1] = at[2] = <char>size
        write_number(at + 3, size, envelope.correlation)
        write_number(at + 3 + size, size, 0)
        at[3 + 2 * size] = <char>payload.datatype
        memcpy(at + 4 + 2 * size, payload.data, payload.size)
        self.end()
        self.peer.counters.rejects_sent += 1
        return 0



cdef str _reject_text(uint8_t datatype, bytes raw):
    """The reason of a reject.  Go's carry an empty object, JS's may be anything."""
    try:
        value = decode(datatype, raw)
    except BadPayload:
        value = None
    text = value if isinstance(value, str) else "" if not value else str(value)
    return text[:REJECT_TEXT] or "rejected"


cdef class UnitCore(Responder):
    def __init__(self, PeerCore peer):
        self.peer = peer
        self.calls = CallTable(peer.max_pending)
        self._links = []
        self.tasks = set()

    @property
    def links(self):
        return tuple(self._links)

    def forget_link(self, Link link):
        """A connection is lost; returns how many are left."""
        if link in self._links:
            self._links.remove(link)
        self.gone = not self._links
        return len(self._links)

    cdef Link pick_link(self):
        """The first connection in rotation that is open and not busy; a random open one when all are
        busy; None when none is open."""
        cdef:
            list links = self._links
            Py_ssize_t n = PyList_GET_SIZE(links)
            Py_ssize_t i
            Link link
            list open_links
        if n == 1:
            link = <Link><object>PyList_GET_ITEM(links, 0)
            return link if link._state == OPEN else None
        for i in range(n):
            self._next_link = (self._next_link + 1) % n
            link = <Link><object>PyList_GET_ITEM(links, self._next_link)
            if link._state == OPEN and not link.is_busy():
                return link
        open_links = [each for each in links if (<Link>each)._state == OPEN]
        if not open_links:
            return None
        return <Link>open_links[rand() % len(open_links)]

    def next_link(self):
        return self.pick_link()

    def send_control(self, bytes message):
        """Queue a message of section 5 (roles or acquaint) that the caller encoded, whole.

        These are few and small, and are not held back by the high-water mark.  Returns whether there
        was a connection to write it to.
        """
        cdef Link link = self.pick_link()
        if link is None:
            return False
        link.send_message(message)
        return True

    # ---- handlers ------------------------------------------------------------------------------------

    cdef int run(self, Handler handler, Context context) except -1:
        cdef double started = coarse_now()
        cdef double seconds
        variables = PyContext_CopyCurrent()
        PyContext_Enter(variables)
        try:
            value = handler.target(context)
        except (Exception, asyncio.CancelledError) as exc:
            PyContext_Exit(variables)
            return self._failed(handler, context, exc)
        except BaseException:
            PyContext_Exit(variables)
            raise
        PyContext_Exit(variables)
        if _is_awaitable(value):
            if not PyCoro_CheckExact(value) and not asyncio.iscoroutine(value):
                value = _awaited(value)
            self._spawn(handler, context, value, variables)
        else:
            self._returned(handler, context, value)
        seconds = coarse_now() - started
        if seconds > self.peer.slow_handler:
            blame(handler.function, handler.role.name, context.event, seconds)
        return 0

    cdef int _spawn(self, Handler handler, Context context, object coroutine, object variables) except -1:
        cdef _Completion completion
        coroutine = watch_steps(coroutine, handler.function, handler.role.name, context.event,
                                self.peer.slow_handler)
        if self.peer._eager:
            task = asyncio.Task(coroutine, loop=self.peer.loop, context=variables, eager_start=True)
            if task.done():
                return self._complete(handler, context, task)
        else:
            task = variables.run(self.peer.loop.create_task, coroutine)
        completion = _Completion.__new__(_Completion)
        completion.unit = self
        completion.handler = handler
        completion.context = context
        self.tasks.add(task)
        task.add_done_callback(completion)
        return 0

    cdef int _complete(self, Handler handler, Context context, object task) except -1:
        if task.cancelled():
            return self._failed(handler, context, Reject("the handler was cancelled"))
        error = task.exception()
        if error is not None:
            return self._failed(handler, context, error)
        return self._returned(handler, context, task.result())

    cdef int _returned(self, Handler handler, Context context, object value) except -1:
        if not isinstance(context, RequestContext) or (<RequestContext>context).answered:
            return 0
        try:
            (<RequestContext>context).finish(MSG_RESOLVE, value)
        except (TypeError, ValueError):
            _log.exception("the reply of handler %s to event %r cannot be encoded",
                           name_of(handler.function), context.event)
            (<RequestContext>context).finish(MSG_REJECT, "internal error")
        return 0

    cdef int _failed(self, Handler handler, Context context, object error) except -1:
        cdef str text
        if isinstance(error, Reject):
            text = error.text or "rejected"
            if not isinstance(context, RequestContext):
                if isinstance(error, BadPayload):
                    self.peer.drop("messages with a payload that does not decode")
                else:
                    _log.info("handler %s turned a message down: %.200r", name_of(handler.function), text)
                return 0
        else:
            _log.error("error in handler %s of role %r, event %.200r",
                       name_of(handler.function), handler.role.name, context.event, exc_info=error)
            text = "internal error"
            if self.peer.expose_errors:
                text = f"{type(error).__name__}: {error}"[:REJECT_TEXT]
        if isinstance(context, RequestContext) and not (<RequestContext>context).answered:
            (<RequestContext>context).finish(MSG_REJECT, text)
        return 0

    cdef int answer(self, RequestContext context, uint8_t kind, object value) except -1:
        cdef:
            Encoded payload
            Py_ssize_t size
            Link link = <Link>context.connection
        owner = encode(value, &payload)
        size = answer_size(context.correlation_size, &payload)
        if size > self.peer.limits.max_message_size:
            raise ValueError(f"the reply takes {size} bytes, over max_message_size")
        if link._state != OPEN:
            link = self.pick_link()
            if link is None:
                return self.peer.drop("replies to units that are gone")
        write_answer(link.begin(size), kind, context.correlation, context.correlation_size, &payload)
        link.end()
        if kind == MSG_RESOLVE:
            self.peer.counters.replies_sent += 1
        else:
            self.peer.counters.rejects_sent += 1
        return 0


async def _awaited(awaitable):
    return await awaitable


cdef class _Completion:
    """Called when the task of an async handler is done."""

    cdef:
        UnitCore unit
        Handler handler
        Context context

    def __call__(self, task):
        self.unit.tasks.discard(task)
        self.unit._complete(self.handler, self.context, task)


cdef class DestinationCore:
    def __init__(self, PeerCore peer, str name):
        self._wire_name = encode_name(name, "role")
        self.peer = peer
        self.name = name
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

    cdef UnitCore pick_unit(self, object unit):
        cdef Py_ssize_t n = PyList_GET_SIZE(self._units)
        if unit is not None:
            if not isinstance(unit, UnitCore) or (<UnitCore>unit).peer is not self.peer:
                raise TypeError(f"unit must be a Unit of the same peer, not {type(unit).__name__}")
            if (<UnitCore>unit).gone:
                raise UnitClosedError(f"unit {unit.name or unit.id!r} is not connected any more")
            if unit not in self._units:
                raise NoUnitsError(f"unit {unit.name or unit.id!r} does not serve role {self.name!r}")
            return <UnitCore>unit
        if n == 0:
            raise NoUnitsError(f"no connected unit serves role {self.name!r}")
        self._next_unit += 1
        if self._next_unit >= n:
            self._next_unit = 0
        return <UnitCore><object>PyList_GET_ITEM(self._units, self._next_unit)

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
            return self._request(event, data, timeout, unit, ignore_unit_close, True)
        except Exception as exc:
            return failed_call(exc)

    cdef object _request(self, object event, object data, object timeout, object unit, bint ignore_close,
                         bint may_wait):
        cdef:
            bytes names = self.names_of(event)
            PeerCore peer = self.peer
            double sent_at = now()
            double deadline = INFINITE
            UnitCore target
            Link link
            Encoded payload
            Waiter waiter
            uint64_t correlation
            Py_ssize_t role_size = PyBytes_GET_SIZE(self._wire_name)
        if timeout is _UNSET:
            timeout = peer.request_timeout
        if timeout is not None:
            deadline = <double>timeout
            if not deadline >= 0:
                raise ValueError(f"timeout must be a number of seconds or None, not {timeout!r}")
            deadline += sent_at
        target = self.pick_unit(unit)
        link = target.pick_link()
        if link is None:
            raise UnitClosedError(f"no open connection to unit {target.name or target.id!r}")
        owner = encode(data, &payload)
        if payload.size + PyBytes_GET_SIZE(names) + 32 > peer.limits.max_message_size:
            raise ValueError(f"the request takes {payload.size} bytes of payload, over max_message_size")
        if not link.has_room():
            if not may_wait:
                raise WouldBlock(f"the connection to unit {target.name or target.id!r} is above its "
                                 "high-water mark")
            return self._request_later(event, data, timeout, deadline, unit, ignore_close, link)
        waiter = new_waiter(peer.loop, sent_at, deadline, self.name, event)
        correlation = target.calls.add(waiter)
        write_request(link.begin(request_size(PyBytes_GET_SIZE(names), correlation, &payload)),
                      PyBytes_AS_STRING(names), role_size, PyBytes_GET_SIZE(names) - role_size,
                      correlation, &payload)
        link.end()
        peer.counters.requests_sent += 1
        waiter.ignore_close = ignore_close
        if deadline != INFINITE:
            peer.note_deadline(deadline, target.calls)
        return new_call(waiter)

    async def _request_later(self, event, data, timeout, double deadline, unit, ignore_close, link):
        while True:
            await self._room(link, deadline, event)
            left = None if timeout is None else max(deadline - now(), 0.0)
            try:
                call = self._request(event, data, left, unit, ignore_close, False)
            except WouldBlock:
                link = self.pick_unit(unit).next_link()
                if link is None or link.has_room_now:
                    raise
                continue
            return await call

    # ---- messages ------------------------------------------------------------------------------------

    cdef int _write(self, Link link, bytes names, Encoded* payload) except -1:
        cdef Py_ssize_t role_size = PyBytes_GET_SIZE(self._wire_name)
        cdef Py_ssize_t size = message_size(PyBytes_GET_SIZE(names), payload)
        if size > self.peer.limits.max_message_size:
            raise ValueError(f"the message takes {size} bytes, over max_message_size")
        write_message(link.begin(size), PyBytes_AS_STRING(names), role_size,
                      PyBytes_GET_SIZE(names) - role_size, payload)
        link.end()
        self.peer.counters.messages_sent += 1
        return 0

    cdef Link _send(self, object event, object data, object unit):
        """Write a message; returns None when it is written, else the connection that has no room."""
        cdef:
            bytes names = self.names_of(event)
            UnitCore target = self.pick_unit(unit)
            Link link = target.pick_link()
            Encoded payload
        if link is None:
            raise UnitClosedError(f"no open connection to unit {target.name or target.id!r}")
        owner = encode(data, &payload)
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
            return failed_call(exc)
        if full is None:
            return _DONE
        return self._send_later(event, data, unit, full)

    async def _send_later(self, event, data, unit, link):
        while link is not None:
            await self._room(link, INFINITE, event)
            link = self._send(event, data, unit)

    def send_nowait(self, event, data=None, *, unit=None):
        """Send a one-way message to one unit at once.

        Raises `WouldBlock` above the connection's high-water mark, and what `send` raises.
        """
        self.peer.check_here()
        if self._send(event, data, unit) is not None:
            raise WouldBlock(f"the connection to a unit of role {self.name!r} is above its high-water mark")

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
            raise NoUnitsError(f"no connected unit serves role {self.name!r}")
        owner = encode(data, &payload)
        for each in tuple(self._units):
            unit = <UnitCore>each
            link = unit.pick_link()
            if link is None or not link.has_room():
                self.peer.drop("broadcasts to units above their high-water mark")
                continue
            self._write(link, names, &payload)
            sent.append(unit)
        return tuple(sent)
