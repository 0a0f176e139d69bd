"""What one unit has in flight: its connections, dispatch, answers, and the handlers that run for it."""

import asyncio
import logging

import msgspec

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.stdlib cimport rand

from ._calls cimport ANSWERED, FAILED, Waiter
from ._channels cimport STREAM_FAILED, begin_stream, exposed
from ._codec cimport (
    answer_size, parse, stream_answer_size, stream_number_size, write_answer, write_stream_answer,
)
from ._context cimport fill
from ._debug cimport coarse_now
from ._dispatch cimport event_text
from ._frame cimport OPEN
from ._inbound cimport PLAIN_HEAD
from ._opening cimport ReadableContext, WritableContext
from ._payload cimport Encoded, decode, encode
from ._pyapi cimport (PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyCoro_CheckExact,
                      is_awaitable)
from ._steps cimport Steps, new_steps
from ._task cimport CAN_BE_CURRENT, blame, name_of, new_task
from ._wire cimport (CLOSE_BAD_STRUCTURE, CLOSE_POLICY_VIOLATION, CLOSE_WRONG_CORRELATION,
                     CLOSE_WRONG_MESSAGE_TYPE,
                     DATA_OBJECT, DATA_STRING, FLAG_CHUNK, MSG_MESSAGE, MSG_OPEN_READABLE,
                     MSG_OPEN_WRITABLE, MSG_REJECT, MSG_REQUEST, MSG_RESOLVE, MSG_ROLES,
                     MSG_STREAM_DATA, MSG_STREAM_REJECT, MSG_STREAM_RESOLVE)

from ._text import Hint, named, printable
from .errors import BadPayload, ProtocolError, Reject, RemoteError, StreamError

cdef enum:
    REJECT_TEXT = 4096                 # characters of a remote reject that are kept
    SMALL_ANSWER = 256                 # bytes; what says that a larger one is not sent is no longer
    REJECT_BYTES = 4 * REJECT_TEXT     # and decoded: megabytes of JSON would hold up everybody else


class _WrappedReject(msgspec.Struct):
    data: str


_CLOSE_REASONS = {
    CLOSE_WRONG_MESSAGE_TYPE: "unknown message type",
    CLOSE_WRONG_CORRELATION: "bad correlation, channel or quota",
    CLOSE_BAD_STRUCTURE: "malformed message",
}

# docs/protocol.md, section 8: a handshake message has at most 64 KiB.
cdef FrameLimits _STRANGER_LIMITS = FrameLimits(max_message_size=65536)


cdef class Link(Connection):
    def __init__(self, PeerCore peer, owner, *, bint is_client):
        Connection.__init__(self, peer.loop, _STRANGER_LIMITS, is_client=is_client, space=peer.read_space,
                            account=peer.account)
        self.peer = peer
        self.owner = owner

    def admit(self, UnitCore unit):
        """The handshake is done: from now on messages are dispatched for `unit`."""
        self.unit = unit
        self.channels = Channels(self.peer, self, unit.streams)
        self._asked = set()
        self.set_limits(self.peer.limits)
        self.lift_budget()
        unit._links.append(self)

    cdef int opened(self) except -1:
        self.owner.opened(self)
        return 0

    cdef int closed(self) except -1:
        self._end_streams()
        owner, self.owner = self.owner, None
        self.peer.count_link(self)
        if self.bytes_lost > 0 and self.unit is not None:
            self.peer.drop("connections lost with bytes unsent")
        owner.lost(self)
        return 0

    cdef int over_budget(self) except -1:
        self.owner.too_much()
        return 0

    cdef int over_account(self) except -1:
        self.peer.drop("connections closed because too much was being received")
        if self.unit is None:
            return self.over_budget()
        return Connection.over_account(self)

    cdef int broke(self, object error) except -1:
        about = self.unit.id if self.unit is not None else self.owner.whom
        self.peer.remote_log.log(
            logging.ERROR, about,
            "internal error while receiving from %s, closing this connection; please report it", about,
            error=error)
        return 0

    cdef Py_ssize_t body_offset(self, const uint8_t* head) except -1:
        """The chunk of a stream is read to where its reader takes it from."""
        cdef Envelope envelope
        if (self.unit is None or head[0] != MSG_STREAM_DATA or parse(head, PLAIN_HEAD, &envelope) != 0
                or envelope.flag != FLAG_CHUNK):
            return 0
        return envelope.body - head

    cdef int body_received(self, const uint8_t* head, Py_ssize_t head_size, const uint8_t* data,
                           Py_ssize_t size) except -1:
        cdef Envelope envelope
        parse(head, PLAIN_HEAD, &envelope)
        return self.channels.receive(envelope.channel, envelope.flag, data, size, self._direct)

    cdef int writable(self) except -1:
        self.owner.writable(self)
        return 0

    cdef int drained(self) except -1:
        return self.channels.pump() if self.channels is not None else 0

    cdef int closing(self) except -1:
        return self._end_streams()

    cdef int _end_streams(self) except -1:
        """Nothing more can be sent: streams live and die with their connection."""
        if self.channels is None:
            return 0
        text = printable(self.close_reason) or "the connection was lost"
        self.channels.fail_all(text, len(self.unit._links) > 1)
        asked, self._asked = self._asked, set()
        for context in asked:
            if (<StreamContext>context).task is not None:
                (<StreamContext>context).task.cancel(text)
        return 0

    @property
    def stream_tasks(self):
        """The handlers that serve streams of this connection, or are asked to."""
        if self.channels is None:
            return set()
        tasks = {(<Stream>stream).task for stream in self.channels.by_number.values()}
        tasks.update([(<StreamContext>context).task for context in self._asked])
        tasks.discard(None)
        return tasks

    def wait_for_room(self):
        """Have `owner.writable(link)` called once the unsent bytes are below the high-water mark."""
        self._wants_room = True

    @property
    def has_room_now(self):
        return self._state == OPEN and self.has_room()

    cdef int batch_started(self) except -1:
        self._direct = self.peer.no_task_is_current()
        return 0

    cdef int message_received(self, uint8_t* message, Py_ssize_t size) except -1:
        cdef:
            Envelope envelope
            int code
        # An empty one that came in fragments has no memory at all.
        if size == 0 or message[0] != MSG_STREAM_DATA or self.unit is None:
            self.unmask()
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
        if envelope.kind == MSG_STREAM_DATA:
            if envelope.flag != FLAG_CHUNK:
                self.unmask()
            return self.channels.receive(
                envelope.channel, envelope.flag, envelope.body, envelope.body_size, self._direct)
        if envelope.kind == MSG_OPEN_READABLE or envelope.kind == MSG_OPEN_WRITABLE:
            return self._handle(&envelope)
        if envelope.kind == MSG_STREAM_RESOLVE or envelope.kind == MSG_STREAM_REJECT:
            return self._settle_stream(&envelope)
        # Roles, or an acquaint message.
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

    cdef int _handle(self, Envelope* envelope) except -1:
        cdef:
            PeerCore peer = self.peer
            bint is_request = envelope.kind != MSG_MESSAGE
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
        if self._reading_paused:
            # What was read before the pause, of a remote that does not read our answers.
            if is_request:
                return self._refuse(envelope, "too many answers are unread")
            return peer.drop("messages of a unit that does not read what it asked for")
        if (len(self.unit.tasks) >= peer.max_handlers or self.unit.handling > peer.max_handler_bytes
                or peer.account.kept > peer.account.max_kept):
            if is_request:
                return self._refuse(envelope, "too many requests at once")
            return peer.drop("messages while too many handlers run for their unit")
        event = handler.event
        if event is None:
            event = event_text(envelope.names, envelope.role_size, envelope.event_size)
        raw = PyBytes_FromStringAndSize(<const char*>envelope.body + 1, envelope.body_size - 1)
        if is_request:
            if envelope.kind == MSG_REQUEST:
                request = RequestContext.__new__(RequestContext)
            else:
                request = self._asked_for(envelope)
                if request is None:
                    return 0
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
        if waiter.stream is not None and not rejected:
            error = self._misanswered("a stream request was answered like a request", waiter)
            return waiter.settle(FAILED, error, self._direct)
        if rejected:
            peer.counters.rejects_received += 1
            error = RemoteError(_reject_text(envelope.body[0], raw), self.unit, waiter.role, waiter.event)
            return waiter.settle(FAILED, error, self._direct)
        peer.counters.replies_received += 1
        context = Context.__new__(Context)
        fill(context, self.unit, "reply", waiter.role, waiter.event, envelope.body[0], raw)
        context._rtt = self.received_at - waiter.sent_at
        return waiter.settle(ANSWERED, context, self._direct)

    cdef object _misanswered(self, str text, Waiter waiter):
        error = ProtocolError(f"{text} by {named(self.unit)}: {waiter.event!r} of role {waiter.role!r}")
        error.unit, error.role, error.event = self.unit, waiter.role, waiter.event
        return error

    cdef int _refuse(self, Envelope* envelope, str text) except -1:
        cdef Encoded payload
        cdef int size = envelope.correlation_size
        _owner = encode(text, &payload)
        if envelope.kind == MSG_REQUEST:
            write_answer(self.begin(answer_size(size, &payload)), MSG_REJECT, envelope.correlation, size,
                         &payload)
        else:
            write_stream_answer(self.begin(stream_answer_size(size, &payload)), MSG_STREAM_REJECT, size,
                                envelope.correlation, 0, &payload)
        self.end()
        self.peer.counters.rejects_sent += 1
        return 0

    # ---- streams (docs/protocol.md, section 7) ---------------------------------------------------------

    cdef StreamContext _asked_for(self, Envelope* envelope):
        """The context of a stream request; None when it is refused."""
        cdef:
            Channels channels = self.channels
            uint64_t remote = envelope.channel
            StreamContext context
        if not channels.is_free(remote):
            self._refuse(envelope, "the channel is in use")
            return None
        if not channels.shared.enter():
            self._refuse(envelope, "too many streams")
            return None
        if envelope.kind == MSG_OPEN_READABLE:
            context = WritableContext.__new__(WritableContext)
        else:
            context = ReadableContext.__new__(ReadableContext)
        context.remote = remote
        channels.remote_numbers.add(remote)
        self._asked.add(context)
        return context

    cdef int _answered(self, StreamContext context) except -1:
        self._asked.discard(context)
        if context.stream is None:
            self.channels.shared.leave()
            self.channels.remote_numbers.discard(context.remote)
        return 0

    cdef int _settle_stream(self, Envelope* envelope) except -1:
        cdef:
            PeerCore peer = self.peer
            Waiter waiter = self.unit.calls.take(envelope.correlation)
            Stream stream
            Context context
        if waiter is None:
            peer.counters.late_replies += 1
            if envelope.kind == MSG_STREAM_RESOLVE and self.channels.is_free(envelope.channel):
                # Its opener has given up: without this the other end would wait for ever.
                self.channels.send_error(envelope.channel, "nobody waits for this stream any more")
            return 0
        raw = PyBytes_FromStringAndSize(<const char*>envelope.body + 1, envelope.body_size - 1)
        if envelope.kind == MSG_STREAM_REJECT:
            peer.counters.rejects_received += 1
            text = _reject_text(envelope.body[0], raw)
            if envelope.body[0] == DATA_STRING and not self.channels.shared.is_exact:
                text = _unwrapped(text)
            error = RemoteError(text, self.unit, waiter.role, waiter.event)
            return waiter.settle(FAILED, error, self._direct)
        if waiter.stream is None:
            error = self._misanswered("a request was answered like a stream request", waiter)
            return waiter.settle(FAILED, error, self._direct)
        stream = <Stream>waiter.stream
        if not self._adopt(stream, envelope.channel):
            error = self._misanswered("a stream was accepted on a channel that is in use", waiter)
            return waiter.settle(FAILED, error, self._direct)
        peer.counters.replies_received += 1
        context = Context.__new__(Context)
        fill(context, self.unit, "reply", waiter.role, waiter.event, envelope.body[0], raw)
        context._rtt = self.received_at - waiter.sent_at
        stream.reply = context
        stream.open(envelope.channel)
        return waiter.settle(ANSWERED, context, self._direct)

    cdef bint _adopt(self, Stream stream, uint64_t remote) except -1:
        """Have `stream` live here, where it was accepted; False when its channel is taken."""
        # Go puts its own number into what it sends.
        cdef uint64_t number = remote if self.channels.shared.is_go else stream.number
        if not self.channels.is_free(remote):
            return False
        stream.channels.forget(stream)
        self.channels.add(stream, number)
        return True


cdef str _unwrapped(str text):
    """The text of a JS stream handler's reject: ``{"data": "Error: the text"}``, as a string."""
    try:
        inner = msgspec.json.decode(text, type=_WrappedReject).data
    except (msgspec.DecodeError, RecursionError):
        return text
    return inner.removeprefix("Error: ") or "rejected"


cdef str _reject_text(uint8_t datatype, bytes raw):
    """The reason of a reject.  Go's carry an empty object, JS's may be anything."""
    cdef bytes kept = raw[:REJECT_BYTES]
    if datatype == DATA_OBJECT and len(raw) > REJECT_BYTES:
        datatype = DATA_STRING
    try:
        value = decode(datatype, kept)
        text = value if isinstance(value, str) else "" if not value else str(value)
    except (BadPayload, RecursionError):
        text = ""
    return text[:REJECT_TEXT] or "rejected"


cdef class UnitCore(Responder):
    def __init__(self, PeerCore peer):
        self.peer = peer
        self.calls = CallTable(peer.max_pending)
        self.calls.unit = self
        self.streams = UnitStreams(peer)
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
            Py_ssize_t _i
            Link link
            list open_links
        if n == 1:
            link = <Link><object>PyList_GET_ITEM(links, 0)
            return link if link._state == OPEN else None
        for _i in range(n):
            self._next_link = (self._next_link + 1) % n
            link = <Link><object>PyList_GET_ITEM(links, self._next_link)
            if link._state == OPEN and not link.is_busy():
                return link
        open_links = [each for each in links if (<Link>each)._state == OPEN]
        if not open_links:
            return None
        return <Link>open_links[rand() % len(open_links)]

    cdef Link pick_calm_link(self):
        """The open connection with the fewest streams, of those the one with the fewest unsent bytes;
        None when none is open."""
        cdef Link link
        cdef Link best = None
        cdef Py_ssize_t streams
        cdef Py_ssize_t fewest = 0
        for each in self._links:
            link = <Link>each
            if link._state != OPEN:
                continue
            streams = link.channels.count
            if best is None or streams < fewest or (streams == fewest and link.unsent() < best.unsent()):
                best, fewest = link, streams
        return best

    def send_control(self, bytes message):
        """Queue a message of section 5 (roles or acquaint) that the caller encoded, whole.

        These are few and small, and are not held back by the high-water mark; a unit that takes none of
        what is unsent loses the connection.  Returns whether there was one to write to.
        """
        cdef Link link = self.pick_link()
        if link is None:
            return False
        if link.unsent() > self.peer.limits.max_unsent:
            self.peer.drop("connections closed because the unit took nothing")
            link.close(CLOSE_POLICY_VIOLATION, "too much is unread")
            link.abort()
            return False
        link.send_message(message)
        return True

    cdef int check_here(self) except -1:
        return self.peer.check_here()

    cdef int log(self, int level, str text, tuple args, object error) except -1:
        self.peer.remote_log.log(level, self.id, text + " [%s]", *args, named(self), error=error)
        return 0

    # ---- handlers ------------------------------------------------------------------------------------

    cdef int run(self, Handler handler, Context context) except -1:
        cdef double started = coarse_now()
        cdef double seconds
        variables = PyContext_CopyCurrent()
        PyContext_Enter(variables)
        try:
            value = handler.target(context)
        except (KeyboardInterrupt, SystemExit):
            PyContext_Exit(variables)
            raise
        except BaseException as exc:
            PyContext_Exit(variables)
            return self._failed(handler, context, exc)
        if not is_awaitable(value):
            PyContext_Exit(variables)
            self._returned(handler, context, value)
        else:
            try:
                if not PyCoro_CheckExact(value) and not asyncio.iscoroutine(value):
                    value = _awaited(value)
                if CAN_BE_CURRENT and self.peer.makes_tasks:
                    new_task(self.peer.loop, value, variables, handler, context,
                             self.peer.slow_handler).step(None)
                else:
                    self._spawn(handler, context, value)
            finally:
                PyContext_Exit(variables)
        seconds = coarse_now() - started
        if seconds > self.peer.slow_handler:
            blame(handler, context, seconds)
        return 0

    cdef int _spawn(self, Handler handler, Context context, object coroutine) except -1:
        """Run a handler in a task that the loop makes."""
        cdef Steps steps = new_steps(coroutine, handler, context, self.peer.slow_handler)
        task = self.peer.loop.create_task(steps)
        if not steps.is_over:
            steps.task = task
            self.handler_waits(context, task)
        return 0

    cdef int handler_waits(self, Context context, object task) except -1:
        if isinstance(context, StreamContext):
            (<StreamContext>context).task = task
            if (<StreamContext>context).stream is not None:
                (<StreamContext>context).stream.task = task
        self.handling += PyBytes_GET_SIZE(context.raw)
        self.peer.account.kept += PyBytes_GET_SIZE(context.raw)
        self.tasks.add(task)
        return 0

    cdef int _leave(self, Context context, object task) except -1:
        """`task` is over; None when it never waited."""
        if task is None:
            return 0
        if isinstance(context, StreamContext):
            (<StreamContext>context).task = None
        self.handling -= PyBytes_GET_SIZE(context.raw)
        self.peer.account.kept -= PyBytes_GET_SIZE(context.raw)
        self.tasks.discard(task)
        return 0

    cdef int handler_returned(self, Handler handler, Context context, object value, object task) except -1:
        self._leave(context, task)
        return self._returned(handler, context, value)

    cdef int handler_failed(self, Handler handler, Context context, object error, object task) except -1:
        self._leave(context, task)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return 0
        if isinstance(error, asyncio.CancelledError):
            error = Reject("the handler was cancelled")
        return self._failed(handler, context, error)

    cdef int _returned(self, Handler handler, Context context, object value) except -1:
        # Contexts are of four types, none with subclasses; this one is by far the most frequent.
        if type(context) is not RequestContext:
            if isinstance(context, StreamContext):
                return self._stream_done(<StreamContext>context, None)
            return 0
        if context.is_answered:
            return 0
        try:
            (<RequestContext>context).finish(MSG_RESOLVE, value)
        except (TypeError, ValueError) as error:
            self.log(logging.ERROR,
                     "the reply of handler %s of role '%s' to event '%s' cannot be encoded, and its caller "
                     "gets 'internal error': %s",
                     (name_of(handler.function), handler.role.name, context.event, Hint(str(error))), error)
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
                    self.log(logging.INFO,
                             "handler %s of role '%s' turned a message down, of event '%s': '%s'",
                             (name_of(handler.function), handler.role.name, context.event, text), None)
                return 0
        elif isinstance(error, StreamError) and _has_lost_stream(context):
            self.log(logging.DEBUG, "the stream of handler %s is over: %s",
                     (name_of(handler.function), error), None)
            text = "internal error"
        else:
            self.log(logging.ERROR, "error in handler %s of role '%s', event '%s'",
                     (name_of(handler.function), handler.role.name, context.event), error)
            text = "internal error"
            if self.peer.expose_errors:
                text = exposed(error)
        text = text[:REJECT_TEXT]
        if isinstance(context, StreamContext) and (<StreamContext>context).stream is not None:
            return self._stream_done(<StreamContext>context, text)
        if isinstance(context, RequestContext) and not (<RequestContext>context).is_answered:
            try:
                (<RequestContext>context).finish(MSG_REJECT, text)
            except ValueError:
                # Lone surrogates, which no UTF-8 can hold.
                (<RequestContext>context).finish(MSG_REJECT, text.encode("utf-8", "replace").decode())
        return 0

    cdef int answer(self, RequestContext context, uint8_t kind, object value) except -1:
        cdef:
            Encoded payload
            Py_ssize_t size
            Link link = <Link>context.connection
        if type(context) is not RequestContext and isinstance(context, StreamContext):
            return self._answer_stream(<StreamContext>context, kind, value)
        _owner = encode(value, &payload)
        size = answer_size(context.correlation_size, &payload)
        if size > self.peer.limits.max_message_size:
            raise ValueError(self._too_large(size))
        if link._state != OPEN:
            link = self.pick_link()
            if link is None:
                return self.peer.drop("replies to units that are gone")
        if link._reading_paused and size > SMALL_ANSWER and self._is_too_much(link):
            self.peer.drop("replies to units that do not read them")
            return self.answer(context, MSG_REJECT, "too many answers are unread")
        write_answer(link.begin(size), kind, context.correlation, context.correlation_size, &payload)
        link.end()
        if kind == MSG_RESOLVE:
            self.peer.counters.replies_sent += 1
        else:
            self.peer.counters.rejects_sent += 1
        return 0

    cdef bint _is_too_much(self, Link link) except -1:
        """Whether what is unsent is more than handlers may have asked for when reading stopped."""
        return link.unsent() > self.peer.limits.max_unsent + self.peer.max_handler_bytes

    # ---- streams that handlers serve ------------------------------------------------------------------

    cdef int _answer_stream(self, StreamContext context, uint8_t kind, object value) except -1:
        # On the connection that the request came in on: Go sends its data there whatever we choose.
        cdef:
            Encoded payload
            Link link = <Link>context.connection
            uint64_t number = 0
            int numbers
            Py_ssize_t size
            Stream stream
            bint accepts = kind == MSG_STREAM_RESOLVE
        # First of all: encoding may run code of the value's.
        _owner = encode(value, &payload)
        if link._state != OPEN:
            if accepts:
                raise self._not_accepted(context, "the connection that it was asked for on is lost")
            link._answered(context)
            return self.peer.drop("replies to units that are gone")
        if accepts:
            # Go puts its own number into what it sends.
            number = context.remote if self.streams.is_go else self.streams.new_number()
        numbers = stream_number_size(context.correlation_size, number)
        size = stream_answer_size(numbers, &payload)
        if size > self.peer.limits.max_message_size:
            raise ValueError(self._too_large(size))
        if accepts and link._reading_paused and size > SMALL_ANSWER and self._is_too_much(link):
            raise self._not_accepted(context, "the unit does not read what it asked for before")
        write_stream_answer(link.begin(size), MSG_STREAM_RESOLVE if accepts else MSG_STREAM_REJECT,
                            numbers, context.correlation, number, &payload)
        link.end()
        if not accepts:
            self.peer.counters.rejects_sent += 1
            return link._answered(context)
        self.peer.counters.replies_sent += 1
        stream = context.stream = context.new_stream()
        begin_stream(stream, self.peer, self, self.streams)
        stream.reply = context
        stream.task = context.task
        link._answered(context)
        link.channels.add(stream, number)
        return stream.open(context.remote)

    cdef str _too_large(self, Py_ssize_t size):
        return (f"the reply takes {size} bytes, over max_message_size "
                f"({self.peer.limits.max_message_size}): Peer(max_message_size=...) on both sides, or a "
                "stream")

    cdef object _not_accepted(self, StreamContext context, str why):
        error = StreamError(
            f"stream {context.event!r} of role {context.role!r} cannot be accepted for {named(self)}: {why}")
        error.unit, error.role, error.event = self, context.role, context.event
        return error

    cdef int _stream_done(self, StreamContext context, str failure) except -1:
        """The handler of a stream is done; `failure` is what the other end is told when it failed."""
        stream, context.stream, context.task = context.stream, None, None
        if stream is None:
            if not context.is_answered:
                context.finish(MSG_REJECT, failure or "the stream was not accepted")
            return 0
        (<Stream>stream).task = None
        if failure is not None:
            return (<Stream>stream).abort_with(failure)
        return (<Stream>stream).handler_returned()


cdef bint _has_lost_stream(Context context) noexcept:
    """Whether the stream that its handler serves has failed, or could not be accepted any more."""
    if not isinstance(context, StreamContext):
        return False
    stream = (<StreamContext>context).stream
    if stream is not None:
        return (<Stream>stream).state == STREAM_FAILED
    connection = (<StreamContext>context).connection
    return connection is not None and (<Link>connection)._state != OPEN


async def _awaited(awaitable):
    return await awaitable
