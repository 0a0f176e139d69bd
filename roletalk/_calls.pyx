"""Pending requests: their slots, their deadlines and what the caller awaits.

A `Call` is a coroutine to asyncio (it works in `await`, `create_task`, `gather`, `wait_for` ...), and
yields a `Waiter`, which is a future to the task that steps it.  The answer steps that task directly
where no other task is current; anywhere else by `call_soon`.
"""

import asyncio
import collections.abc

from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
cimport cython

from ._debug cimport COUNT_CALL, COUNT_WAITER, DEBUG, token
from ._pyapi cimport (
    PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit,
    PyErr_SetNone, PyErr_SetObject, PyErr_SetString, PySendResult, PyTypeObject, Py_False, Py_True,
    generic_getattr, generic_setattr, keep, raise_what_is_set, release,
)
from ._wire cimport CORRELATION_BITS

from ._text import named
from .errors import RequestTimeout, WouldBlock

cdef double INFINITE = float("inf")


@cython.final
cdef class Home:
    def __init__(self, loop, unseen=None):
        self.loop = loop
        self.unseen = unseen
        self.done_future = loop.create_future()
        self.done_future.set_result(None)
        self.get_loop = self.done_future.get_loop


@cython.final
@cython.freelist(512)
@cython.binding(False)
cdef class Waiter:
    def __init__(self):
        raise TypeError("waiters are made by the library")

    cdef int settle(self, CallState state, object outcome, bint direct) except -1:
        if self.state != WAITING:
            return 0
        self.state = state
        self.outcome = outcome
        self.table = None
        self.keeps = self.stream = None
        wakeup, context = self.wakeup, self.context
        self.wakeup = self.context = None
        if wakeup is None:
            return 0
        if self.wake != NULL:
            return self.wake(wakeup, self, direct)
        # A task asks the future that it is woken with whether to throw, and one of asyncio's own without
        # a method call.  The value is delivered by the Call, so any future that is done will do.
        future = self if state == FORGOTTEN else self.home.done_future
        if not direct:
            self.home.loop.call_soon(wakeup, future, context=context)
            return 0
        try:
            PyContext_Enter(context)
        except RuntimeError:
            # It is entered further up the stack already.
            self.home.loop.call_soon(wakeup, future, context=context)
            return 0
        try:
            wakeup(future)
        except BaseException as exc:
            # A task lets only KeyboardInterrupt and SystemExit out: they belong to the loop.
            self.home.loop.call_soon(_raise, exc)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int forget(self) except -1:
        if self.table is not None:
            self.table.discard(self)
        return self.settle(FORGOTTEN, None, False)

    # ---- what a task asks of a future ----------------------------------------------------------------

    @property
    def _asyncio_future_blocking(self):
        return self.blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, bint value):
        self.blocking = value

    @property
    def get_loop(self):
        return None if self.home is None else self.home.get_loop

    def add_done_callback(self, callback, *, context=None):
        if self.wakeup is not None:
            raise RuntimeError("a request is awaited by one task at a time")
        if context is None:
            context = PyContext_CopyCurrent()
        if self.state != WAITING:
            self.home.loop.call_soon(callback, self, context=context)
        else:
            self.wake = NULL
            self.wakeup = callback
            self.context = context

    def remove_done_callback(self, callback):
        if self.wakeup == callback:
            self.wakeup = self.context = None
            return 1
        return 0

    def done(self):
        return self.state != WAITING

    def cancelled(self):
        return self.state == FORGOTTEN

    def cancel(self, msg=None):
        if self.state != WAITING:
            return False
        self.forget()
        self.outcome = msg
        return True

    def result(self):
        # The value itself is delivered by the Call; the task only asks whether to throw.
        if self.state == FORGOTTEN:
            raise asyncio.CancelledError() if self.outcome is None else asyncio.CancelledError(self.outcome)

    def exception(self):
        return None


# What asyncio's tasks ask each future for, found without a search: the names are interned.
cdef str _BLOCKING = "_asyncio_future_blocking"
cdef str _GET_LOOP = "get_loop"


cdef PyObject* _getattro(PyObject* self, PyObject* name) noexcept:
    cdef PyObject* found
    if name == <PyObject*>_BLOCKING:
        found = Py_True if (<Waiter>self).blocking else Py_False
    elif name == <PyObject*>_GET_LOOP and (<Waiter>self).home is not None:
        found = <PyObject*>(<Waiter>self).home.get_loop
    else:
        return generic_getattr(self, name)
    keep(<object>found)
    return found


cdef int _setattro(PyObject* self, PyObject* name, PyObject* value) noexcept:
    if name == <PyObject*>_BLOCKING and value == Py_False:
        (<Waiter>self).blocking = False
        return 0
    return generic_setattr(self, name, value)


(<PyTypeObject*>Waiter).tp_getattro = _getattro
(<PyTypeObject*>Waiter).tp_setattro = _setattro


cdef Waiter new_waiter(Home home, double sent_at, double deadline, object role, object event):
    cdef Waiter self = Waiter.__new__(Waiter)
    if DEBUG:
        self.token = token(COUNT_WAITER)
    self.home = home
    self.sent_at = sent_at
    self.deadline = deadline
    self.role = role
    self.event = event
    return self


@cython.final
cdef class CallTable:
    def __init__(self, Py_ssize_t limit):
        self.slots = []
        self.next = 1
        self.limit = limit
        self.earliest = INFINITE

    cdef uint64_t add(self, Waiter waiter) except 0:
        cdef uint64_t correlation
        if self.used >= self.limit:
            error = WouldBlock(f"{self.used} requests are pending on {named(self.unit)} already",
                               hint="await answers before asking for more, or Peer(max_pending=...)")
            error.unit = self.unit
            raise error
        if 2 * self.used >= len(self.slots):
            self._grow()
        while True:
            correlation = self.next
            self.next += 1
            if self.next >> CORRELATION_BITS:
                self.next = 1
            if <object>PyList_GET_ITEM(self.slots, <Py_ssize_t>(correlation & self.mask)) is None:
                break
        self.slots[<Py_ssize_t>(correlation & self.mask)] = waiter
        self.used += 1
        waiter.correlation = correlation
        waiter.table = self
        if waiter.deadline < self.earliest:
            self.earliest = waiter.deadline
        return correlation

    cdef int _grow(self) except -1:
        cdef:
            Py_ssize_t size = 2 * len(self.slots) or 16
            list slots = [None] * size
            Waiter waiter
        # Correlations that differ in the low bits still differ with one bit more: no two collide.
        for entry in self.slots:
            if entry is not None:
                waiter = <Waiter>entry
                slots[<Py_ssize_t>(waiter.correlation & <uint64_t>(size - 1))] = waiter
        self.slots = slots
        self.mask = size - 1
        return 0

    cdef Waiter take(self, uint64_t correlation):
        cdef Waiter waiter
        if self.used == 0:
            return None
        entry = <object>PyList_GET_ITEM(self.slots, <Py_ssize_t>(correlation & self.mask))
        if entry is None:
            return None
        waiter = <Waiter>entry
        if waiter.correlation != correlation:
            return None
        self.discard(waiter)
        return waiter

    cdef int discard(self, Waiter waiter) except -1:
        self.slots[<Py_ssize_t>(waiter.correlation & self.mask)] = None
        self.used -= 1
        waiter.table = None
        return 0

    def expire(self, double at):
        """Fail what is due at `at`; returns how many. `earliest` is exact afterwards."""
        cdef:
            double earliest = INFINITE
            list due = []
            Waiter waiter
        for entry in self.slots:
            if entry is None:
                continue
            waiter = <Waiter>entry
            if waiter.deadline <= at:
                due.append(waiter)
            elif waiter.deadline < earliest:
                earliest = waiter.deadline
        self.earliest = earliest
        due.sort(key=_deadline)
        for entry in due:
            waiter = <Waiter>entry
            if waiter.state == WAITING:
                self.discard(waiter)
                error = RequestTimeout(
                    f"no answer to {waiter.event!r} of role {waiter.role!r} within "
                    f"{waiter.deadline - waiter.sent_at:g} s from {named(self.unit)}",
                    hint="it may have been executed; timeout= or Peer(request_timeout=...) allow more",
                )
                error.unit = self.unit
                error.role = waiter.role
                error.event = waiter.event
                waiter.settle(FAILED, error, False)
        return len(due)

    def fail_all(self, make_error, *, bint and_ignoring=False):
        """Fail what is pending with ``make_error(role, event)``; returns how many.

        Requests that ignore the closing of their unit stay, unless `and_ignoring`.
        """
        cdef:
            Py_ssize_t failed = 0
            Waiter waiter
        for entry in list(self.slots):
            if entry is not None:
                waiter = <Waiter>entry
                if waiter.table is not self or (waiter.ignore_close and not and_ignoring):
                    continue
                self.discard(waiter)
                waiter.settle(FAILED, make_error(waiter.role, waiter.event), False)
                failed += 1
        return failed


@cython.final
@cython.no_gc_clear
@cython.freelist(512)
cdef class Call:
    """A request on its way. Await it once: the reply's `Context`, or what went wrong."""

    __name__ = "request"
    __qualname__ = "Destination.request"

    # Not __del__: an object from a freelist is finalized by the interpreter once only.
    def __dealloc__(self):
        if self.waiter is not None:
            if self.waiter.state == FAILED:
                _unseen(self.waiter.home, self.waiter.outcome)
            elif self.waiter.state == WAITING and not self.waiter.goes_on:
                # Dropped without having been awaited: nobody will ask for the answer.
                self.waiter.forget()

    @property
    def data(self):
        raise AttributeError("a request has no data before it is awaited: reply = await ...request(...)")

    def __await__(self):
        return self

    def __iter__(self):
        return self

    # The slots of __next__ and am_send are set below: a value is returned without a StopIteration
    # being raised in Python, and no traceback entry is made.
    def __next__(self):
        raise AssertionError("replaced when the module is loaded")

    def send(self, value):
        cdef PyObject* result = NULL
        cdef PySendResult status = _step(self, &result)
        if status == PYGEN_ERROR:
            raise_what_is_set()
        value = <object>result
        release(result)
        if status == PYGEN_RETURN:
            raise StopIteration(value)
        return value

    def throw(self, type, value=None, traceback=None):
        self.close()
        if value is None:
            value = type() if isinstance(type, _type) else type
        if traceback is not None:
            value = value.with_traceback(traceback)
        raise value

    def close(self):
        waiter, self.waiter = self.waiter, None
        if waiter is not None and (<Waiter>waiter).state == WAITING:
            (<Waiter>waiter).wakeup = None
            (<Waiter>waiter).forget()


_type = type
collections.abc.Coroutine.register(Call)


cdef int _unseen(Home home, object error) except -1:
    """An error was dropped with the call that had it."""
    if home is not None and home.unseen is not None:
        home.unseen(error)
    return 0


cdef PySendResult _step(Call self, PyObject** result) noexcept:
    cdef Waiter waiter = self.waiter
    if waiter is None:
        PyErr_SetString(RuntimeError, b"this request was awaited already: each call is awaited once")
        return PYGEN_ERROR
    if waiter.state == WAITING:
        if waiter.wakeup is not None:
            PyErr_SetString(RuntimeError, b"a request is awaited by one task at a time")
            return PYGEN_ERROR
        waiter.blocking = True
        keep(waiter)
        result[0] = <PyObject*>waiter
        return PYGEN_NEXT
    self.waiter = None
    value = waiter.outcome
    waiter.outcome = None
    if waiter.state == ANSWERED:
        keep(value)
        result[0] = <PyObject*>value
        return PYGEN_RETURN
    if waiter.state == FAILED:
        PyErr_SetObject(type(value), value)
    else:
        PyErr_SetNone(asyncio.CancelledError)
    return PYGEN_ERROR


cdef PySendResult _am_send(PyObject* self, PyObject* value, PyObject** result) noexcept:
    return _step(<Call>self, result)


cdef PyObject* _iternext(PyObject* self) noexcept:
    cdef PyObject* result = NULL
    cdef PySendResult status = _step(<Call>self, &result)
    if status == PYGEN_RETURN:
        PyErr_SetObject(StopIteration, <object>result)
        release(result)
        return NULL
    return result if status == PYGEN_NEXT else NULL


(<PyTypeObject*>Call).tp_as_async.am_send = _am_send
(<PyTypeObject*>Call).tp_iternext = _iternext


cdef Call new_call(Waiter waiter):
    cdef Call self = Call.__new__(Call)
    if DEBUG:
        self.token = token(COUNT_CALL)
    self.waiter = waiter
    return self


cdef Call failed_call(object error, Home home):
    cdef Waiter waiter = new_waiter(home, 0, 0, None, None)
    waiter.state = FAILED
    waiter.outcome = error
    return new_call(waiter)


cdef class _Done:
    """What `send` and `write` return when all is written already: an awaitable that never suspends.

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


collections.abc.Coroutine.register(_Done)
cdef _Done _DONE = _Done()


cdef object done_call():
    return _DONE


def _deadline(Waiter waiter):
    return waiter.deadline


def _raise(exc):
    raise exc
