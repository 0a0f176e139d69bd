"""The coroutine of an async handler whose task is not of our own making.

Where the loop has a task factory, that one makes the tasks of handlers as well; so it does on a Python
that does not let ours be the current one.  The handler's coroutine then stands inside one of these,
which does what the task would do: it times each step, and takes the handler's result in the last.
"""

import asyncio
import collections.abc
import logging

from ._debug cimport coarse_now
from ._task cimport blame, name_of


cdef class Steps:
    def __init__(self):
        raise TypeError("made by the library")

    def __await__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        return self._step(self.coroutine.send, (value,))

    def throw(self, *exc_info):
        return self._step(self.coroutine.throw, exc_info)

    def close(self):
        self.coroutine.close()

    def __getattr__(self, name):
        # What asyncio shows of a coroutine: its name, its frame.
        return getattr(self.coroutine, name)

    def _step(self, step, args):
        cdef double started = coarse_now()
        cdef double seconds
        try:
            return step(*args)
        except StopIteration as stop:
            self._done(stop.value, None)
        except BaseException as exc:
            self._done(None, exc)
        finally:
            seconds = coarse_now() - started
            if seconds > self.limit:
                blame(self.handler, self.context, seconds)
        raise StopIteration

    cdef int _done(self, object value, object error) except -1:
        """The handler's coroutine is done; raises only what its task has to end with."""
        self.is_over = True
        # The task keeps this as its coroutine, and is kept by nobody else.
        task, self.task = self.task, None
        try:
            if error is None:
                self.context.unit.handler_returned(self.handler, self.context, value, task)
            else:
                self.context.unit.handler_failed(self.handler, self.context, error, task)
        except Exception as exc:
            self.context.unit.log(
                logging.ERROR, "error while answering for handler %s", (name_of(self.handler.function),), exc)
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):
            raise error
        return 0


collections.abc.Coroutine.register(Steps)


cdef Steps new_steps(object coroutine, Handler handler, Context context, double limit):
    cdef Steps self = Steps.__new__(Steps)
    self.coroutine = coroutine
    self.handler = handler
    self.context = context
    self.limit = limit
    return self
