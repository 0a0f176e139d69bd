"""Stream requests as their handlers get them, and what opens a stream on either side."""

import collections.abc

from ._context cimport RequestContext
from ._readable cimport ReadableStream
from ._writable cimport WritableStream
from ._wire cimport MSG_STREAM_RESOLVE

from ._text import quoted


cdef class StreamOpening:
    """A stream that is being opened: await it for the stream, or enter it at once.

    Nothing is sent before.  Works wherever a coroutine does.
    """

    __name__ = "open"
    __qualname__ = "StreamOpening"

    def __init__(self):
        raise TypeError("made by readable(), writable() and accept()")

    def __await__(self):
        return self._opening.__await__()

    def send(self, value):
        return self._opening.send(value)

    def throw(self, *exc_info):
        return self._opening.throw(*exc_info)

    def close(self):
        self._opening.close()

    async def __aenter__(self):
        self._opened = await self._opening
        return self._opened

    async def __aexit__(self, exc_type, exc, traceback):
        opened, self._opened = self._opened, None
        return await opened.__aexit__(exc_type, exc, traceback)


collections.abc.Coroutine.register(StreamOpening)


cdef StreamOpening opening(object coroutine, str name):
    cdef StreamOpening self = StreamOpening.__new__(StreamOpening)
    self._opening = renamed(coroutine, name)
    return self


cdef object renamed(object coroutine, str name):
    """`coroutine` as the user called it: Python warns by that name when it is never awaited."""
    coroutine.__qualname__ = name
    return coroutine


cdef class StreamContext(RequestContext):
    def reply(self, data=None):
        """Raises `RuntimeError`: a stream request is accepted or rejected."""
        raise RuntimeError(
            f"the stream request {quoted(self.event)} of role {quoted(self.role)} is answered by "
            "ctx.accept(data) or ctx.reject(text), not by ctx.reply()")

    cdef Stream new_stream(self):
        raise AssertionError("overridden by both kinds of stream request")

    def accept(self, data=None):
        """Accept the stream, with `data` for the other end; await or enter it for the stream.

        The stream ends with its handler: when that returns, a stream that is written is finished, one
        that is read and not at its end is aborted; when it raises, the stream is aborted.

        Raised by the await: `RuntimeError` when it is answered already, and in a wrong thread, loop or
        process; `StreamError` when the connection that it came in on is lost; `TypeError` and
        `ValueError` when `data` cannot be encoded (it is not answered then).
        """
        return opening(self._accept(data), f"{type(self).__name__}.accept")

    async def _accept(self, data):
        self._check()
        self.finish(MSG_STREAM_RESOLVE, data)
        return self.stream


cdef class ReadableContext(StreamContext):
    """A stream request whose handler reads."""

    cdef Stream new_stream(self):
        return ReadableStream.__new__(ReadableStream)


cdef class WritableContext(StreamContext):
    """A stream request whose handler writes."""

    cdef Stream new_stream(self):
        return WritableStream.__new__(WritableStream)
