"""The coroutine that an async handler's task runs.

It does two things that would otherwise cost a callback and an object for each request, or could not be
done at all.  It takes the handler's result in the task's last step, so no done callback has to be
scheduled.  And it times each step: a remote peer that hears nothing for a few seconds closes its
connections (docs/protocol.md, section 6), so whoever blocks the event loop should be easy to find.
"""

import asyncio
import collections.abc
import logging

from cpython.object cimport PyObject

from ._debug cimport coarse_now
from ._pyapi cimport (
    PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN, PyErr_SetNone, PyErr_SetObject, PyIter_Send, PySendResult,
    PyTypeObject, keep, raise_what_is_set, release,
)

_log = logging.getLogger("roletalk")


cdef class Steps:
    cdef int returned(self, object value) except -1:
        raise AssertionError("overridden by whoever takes the result")

    cdef int failed(self, object error) except -1:
        raise AssertionError("overridden by whoever takes the result")

    def __await__(self):
        return self

    def __next__(self):
        raise AssertionError("replaced when the module is loaded")

    def send(self, value):
        cdef PyObject* result = NULL
        cdef PySendResult status = _step(<PyObject*>self, <PyObject*>value, &result)
        if status == PYGEN_ERROR:
            raise_what_is_set()
        value = <object>result
        release(result)
        if status == PYGEN_RETURN:
            raise StopIteration
        return value

    def throw(self, *exc_info):
        cdef double started = coarse_now()
        try:
            return self.coroutine.throw(*exc_info)
        except StopIteration as stop:
            _over(self, stop.value, None)
        except BaseException as exc:
            _over(self, None, exc)
        finally:
            _check_time(self, started)
        raise StopIteration

    def close(self):
        self.coroutine.close()

    def __getattr__(self, name):
        # What asyncio shows of a coroutine: its name, its frame.
        return getattr(self.coroutine, name)


collections.abc.Coroutine.register(Steps)


cdef int _over(Steps self, object value, object error) except -1:
    """The handler's coroutine is done; raises only what its task has to end with."""
    try:
        if error is None:
            self.returned(value)
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        else:
            self.failed(error)
    except Exception:
        _log.exception("error while answering for handler %s", name_of(self.function))
    if isinstance(error, asyncio.CancelledError):
        raise error
    return 0


cdef int _check_time(Steps self, double started) except -1:
    cdef double seconds = coarse_now() - started
    if seconds > self.limit:
        blame(self.function, self.role, self.event, seconds)
    return 0


cdef PySendResult _step(PyObject* this, PyObject* value, PyObject** result) noexcept:
    cdef:
        Steps self = <Steps>this
        double started = coarse_now()
        PySendResult status = PyIter_Send(self.coroutine, <object>value, result)
    if status == PYGEN_NEXT and coarse_now() - started <= self.limit:
        return status
    try:
        if status == PYGEN_RETURN:
            outcome = <object>result[0]
            release(result[0])
            result[0] = NULL
            _over(self, outcome, None)
        elif status == PYGEN_ERROR:
            try:
                raise_what_is_set()
            except BaseException as exc:
                _over(self, None, exc)
        _check_time(self, started)
    except BaseException as exc:
        PyErr_SetObject(type(exc), exc)
        return PYGEN_ERROR
    if status == PYGEN_NEXT:
        return status
    keep(None)
    result[0] = <PyObject*>None
    return PYGEN_RETURN


cdef PyObject* _iternext(PyObject* this) noexcept:
    cdef PyObject* result = NULL
    cdef PySendResult status = _step(this, <PyObject*>None, &result)
    if status == PYGEN_RETURN:
        release(result)
        PyErr_SetNone(StopIteration)
        return NULL
    return result if status == PYGEN_NEXT else NULL


(<PyTypeObject*>Steps).tp_as_async.am_send = _step
(<PyTypeObject*>Steps).tp_iternext = _iternext


cdef int blame(object function, str role, object event, double seconds) except -1:
    _log.warning(
        "handler %s of role %r, event %.200r held the event loop for %.2f s: remote peers that hear "
        "nothing for that long may close their connections",
        name_of(function), role, event, seconds)
    return 0


cdef str name_of(object function):
    return getattr(function, "__qualname__", None) or repr(function)[:200]
