"""What handlers are called with and what requests return."""

import msgspec

cimport cython

from ._payload cimport decode
from ._debug cimport COUNT_CONTEXT, DEBUG, token
from ._wire cimport DATA_BINARY, DATA_OBJECT, MSG_REJECT, MSG_RESOLVE

from ._text import printable, quoted
from ._wire import DataType
from .errors import BadPayload

cdef tuple _DATA_TYPES = tuple(DataType)


cdef class Responder:
    cdef int check_here(self) except -1:
        return 0

    cdef int log(self, int level, str text, tuple args, object error) except -1:
        raise AssertionError("overridden by whoever has a log")

    cdef int answer(self, RequestContext context, uint8_t kind, object value) except -1:
        raise AssertionError("overridden by whoever takes answers")

    cdef int handler_waits(self, Context context, object task) except -1:
        raise AssertionError("overridden by whoever runs handlers")

    cdef int handler_returned(self, Handler handler, Context context, object value, object task) except -1:
        raise AssertionError("overridden by whoever runs handlers")

    cdef int handler_failed(self, Handler handler, Context context, object error, object task) except -1:
        raise AssertionError("overridden by whoever runs handlers")


@cython.freelist(256)
cdef class Context:
    """A message that came in: to a handler, or as the reply to a request.

    `data` is decoded when it is first read; `raw` is the payload as it came.  `rtt` is the time from
    writing the request to reading its reply in seconds, ``None`` but on replies.
    """

    def __init__(self):
        raise TypeError("contexts are made by the library")

    @property
    def data(self):
        """The payload's value. Raises `BadPayload` when it does not decode (docs/protocol.md, section 2).

        May be set, for what is called later (a middleware may replace it).
        """
        if not self._decoded:
            self._data = decode(self._datatype, self.raw)
            self._decoded = True
        return self._data

    @data.setter
    def data(self, value):
        self._data = value
        self._decoded = True

    @property
    def datatype(self):
        """The wire's data type, or the bare ``int`` where the wire knows no such type."""
        if self._datatype <= DATA_OBJECT:
            return _DATA_TYPES[self._datatype]
        return self._datatype

    @property
    def rtt(self):
        return self._rtt if self.kind == "reply" else None

    def decode(self, type):
        """The payload as `type`, checked and converted by msgspec.

        Objects are parsed straight into `type`; other payloads are converted.  Raises `BadPayload`
        when the payload is not a `type`.
        """
        try:
            if self._datatype == DATA_OBJECT and not self._decoded:
                return msgspec.json.decode(self.raw, type=type)
            if self._datatype == DATA_BINARY and not self._decoded and type is bytes:
                return self.raw
            return msgspec.convert(self.data, type)
        except (msgspec.DecodeError, RecursionError, ValueError) as exc:
            if isinstance(exc, BadPayload):
                raise
            raise BadPayload(f"the payload does not fit: {printable(str(exc))}") from None

    def __repr__(self):
        return (f"<{type(self).__name__} {self.kind} role={quoted(self.role)} event={quoted(self.event)} "
                f"datatype={self.datatype!r} size={len(self.raw)}>")


cdef class RequestContext(Context):
    """A request, as its handler gets it."""

    @property
    def answered(self):
        return self.is_answered

    def reply(self, data=None):
        """Answer now; what the handler returns later is ignored.

        Raises `RuntimeError` when it is answered already, `TypeError` and `ValueError` when `data`
        cannot be encoded (it is not answered then).
        """
        self._check()
        self.finish(MSG_RESOLVE, data)

    def reject(self, text="rejected"):
        """Refuse with `text` (an empty one becomes ``"rejected"``).

        Raises `RuntimeError` when it is answered already.
        """
        self._check()
        self.finish(MSG_REJECT, str(text) or "rejected")

    cdef int _check(self) except -1:
        if self.is_answered or self.connection is None:
            raise RuntimeError(
                f"the request {quoted(self.event)} of role {quoted(self.role)} is answered already: "
                "reply(), reject() and accept() answer it once")
        return self.unit.check_here()

    cdef int finish(self, uint8_t kind, object value) except -1:
        self.unit.answer(self, kind, value)
        self.is_answered = True
        self.connection = None
        return 0


cdef void fill(Context context, Responder unit, str kind, object role, object event, uint8_t datatype,
               bytes raw):
    if DEBUG:
        context._token = token(COUNT_CONTEXT)
    context.unit = unit
    context.kind = kind
    context.role = role
    # An exact str, whatever subclass of it the caller named the event with.
    context.event = event if type(event) is str else str.__str__(event)
    context._datatype = datatype
    context.raw = raw
