"""Naming the handler that blocks the event loop.

A remote peer that hears nothing for a few seconds closes its connections (docs/protocol.md, section 6),
so whoever blocks the loop should be easy to find.  A sync handler is timed where it is called; an async
one runs in steps that only its task sees, so its task is given a coroutine that times them.
"""

import collections.abc
import logging

cimport cython
from cpython.object cimport PyObject

from ._debug cimport coarse_now

_log = logging.getLogger("roletalk")

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject** result) noexcept
    void PyErr_SetObject(object type, object value)
    ctypedef PySendResult (*sendfunc)(PyObject*, PyObject*, PyObject**) noexcept
    ctypedef PyObject* (*iternextfunc)(PyObject*) noexcept
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async
        iternextfunc tp_iternext
    void Py_DECREF(PyObject*)


@cython.final
cdef class Steps:
    def __await__(self):
        return self

    def __next__(self):
        raise AssertionError("replaced when the module is loaded")

    def send(self, value):
        cdef double started = coarse_now()
        try:
            return self.coroutine.send(value)
        finally:
            _timed(self, started)

    def throw(self, *exc_info):
        cdef double started = coarse_now()
        try:
            return self.coroutine.throw(*exc_info)
        finally:
            _timed(self, started)

    def close(self):
        self.coroutine.close()

    def __getattr__(self, name):
        # What asyncio shows of a coroutine: its name, its frame.
        return getattr(self.coroutine, name)


collections.abc.Coroutine.register(Steps)


cdef int _timed(Steps self, double started) except -1:
    cdef double seconds = coarse_now() - started
    if seconds > self.limit:
        blame(self.function, self.role, self.event, seconds)
    return 0


cdef PySendResult _am_send(PyObject* self, PyObject* value, PyObject** result) noexcept:
    cdef Steps steps = <Steps>self
    cdef double started = coarse_now()
    cdef PySendResult status = PyIter_Send(steps.coroutine, <object>value, result)
    if coarse_now() - started > steps.limit:
        _blame_quietly(steps, coarse_now() - started)
    return status


cdef PyObject* _iternext(PyObject* self) noexcept:
    cdef PyObject* result = NULL
    cdef PySendResult status = _am_send(self, <PyObject*>None, &result)
    if status == PYGEN_RETURN:
        # An instance: a bare tuple or exception would be taken for the arguments of one.
        PyErr_SetObject(StopIteration, StopIteration(<object>result))
        Py_DECREF(result)
        return NULL
    return result if status == PYGEN_NEXT else NULL


(<PyTypeObject*>Steps).tp_as_async.am_send = _am_send
(<PyTypeObject*>Steps).tp_iternext = _iternext


cdef extern from "Python.h":
    void PyErr_Fetch(PyObject** type, PyObject** value, PyObject** traceback)
    void PyErr_Restore(PyObject* type, PyObject* value, PyObject* traceback)


cdef void _blame_quietly(Steps self, double seconds) noexcept:
    # The step may have ended with an exception, which has to be there still when this returns.
    cdef PyObject* type = NULL
    cdef PyObject* value = NULL
    cdef PyObject* traceback = NULL
    PyErr_Fetch(&type, &value, &traceback)
    try:
        blame(self.function, self.role, self.event, seconds)
    except Exception:
        pass
    PyErr_Restore(type, value, traceback)


cdef Steps watch_steps(object coroutine, object function, str role, object event, double limit):
    cdef Steps self = Steps.__new__(Steps)
    self.coroutine = coroutine
    self.function = function
    self.role = role
    self.event = event
    self.limit = limit
    return self


cdef int blame(object function, str role, object event, double seconds) except -1:
    _log.warning(
        "handler %s of role %r, event %.200r held the event loop for %.2f s: remote peers that hear "
        "nothing for that long may close their connections",
        name_of(function), role, event, seconds)
    return 0


cdef str name_of(object function):
    return getattr(function, "__qualname__", None) or repr(function)[:200]
