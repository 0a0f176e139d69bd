"""The task that an async handler runs in.

It does what asyncio's does, for less.  Its first step is taken where the message is read, so a handler
that never waits is over before the next message is looked at; it is woken by an answer without the
loop's help; and it takes the handler's result in its last step, so nothing is called back for that.
Each step is timed: a remote peer that hears nothing for a few seconds closes its connections
(docs/protocol.md, section 6), so whoever blocks the event loop should be easy to find.
"""

import asyncio
import asyncio.base_tasks
import inspect
import logging

from cpython.object cimport PyObject
cimport cython

from ._calls cimport FORGOTTEN, WAITING
from ._debug cimport COUNT_TASK, DEBUG, coarse_now, count
from ._pyapi cimport (
    PYGEN_ERROR, PYGEN_NEXT, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit,
    PyDict_SetDefault, PyDict_SetItem, PyIter_Send, PyObject_GenericSetAttr, PySendResult, forget_item,
    raise_what_is_set, release,
)


cdef str _NAME = "roletalk handler"
cdef tuple _STATES = ("PENDING", "FINISHED", "CANCELLED")
cdef object _CancelledError = asyncio.CancelledError
cdef object _register = asyncio._register_task


# ---- whose turn it is --------------------------------------------------------------------------------
# asyncio.current_task() reads a dict up to Python 3.13, the thread's own state from 3.14 on.

cdef dict _current = None
cdef object _swap = None


class _Loop:
    """Stands for a loop in the probe below."""


def _reads(dict tasks):
    """Whether `tasks` is what asyncio looks the current task up in."""
    loop, task = _Loop(), object()
    tasks[loop] = task
    try:
        return asyncio.current_task(loop) is task
    finally:
        del tasks[loop]


def _probe():
    global _current, _swap
    tasks = getattr(asyncio.tasks, "_current_tasks", None)
    if type(tasks) is dict and _reads(tasks):
        _current = tasks
    else:
        _swap = getattr(asyncio.tasks, "_swap_current_task", None)
    return _current is not None or _swap is not None


CAN_BE_CURRENT = _probe()


cdef object _enter(object loop, object task):
    """Make `task` the current one; returns the one before, or None."""
    cdef PyObject* found
    if _current is None:
        return _swap(loop, task)
    found = PyDict_SetDefault(_current, loop, task)
    if found == <PyObject*>task:
        return None
    previous = <object>found
    PyDict_SetItem(_current, loop, task)
    return previous


cdef int _leave(object loop, object previous) except -1:
    if _current is None:
        _swap(loop, previous)
    elif previous is None:
        forget_item(_current, loop)
    else:
        PyDict_SetItem(_current, loop, previous)
    return 0


# ---- the task ----------------------------------------------------------------------------------------


@cython.final
@cython.freelist(256)
@cython.binding(False)
cdef class HandlerTask:
    def __cinit__(self):
        if DEBUG:
            count(COUNT_TASK, 1)

    def __dealloc__(self):
        if DEBUG:
            count(COUNT_TASK, -1)

    def __init__(self):
        raise TypeError("tasks of handlers are made by the library")

    cdef int step(self, object error) except -1:
        cdef:
            PyObject* result = NULL
            PySendResult status
        if self.state != PENDING:
            raise asyncio.InvalidStateError(f"{self!r} is done already")
        if self.must_cancel:
            if not isinstance(error, _CancelledError):
                error = self._cancelled_error()
            self.must_cancel = False
        self.waits_on = None
        previous = _enter(self.loop, self)
        try:
            if error is None:
                status = PyIter_Send(self.coroutine, None, &result)
                if status == PYGEN_ERROR:
                    try:
                        raise_what_is_set()
                    except BaseException as exc:
                        self._failed(exc)
                else:
                    value = <object>result
                    release(result)
                    if status == PYGEN_NEXT:
                        self._wait_for(value)
                    else:
                        self._returned(value)
            else:
                try:
                    value = self.coroutine.throw(error)
                except StopIteration as stop:
                    self._returned(stop.value)
                except BaseException as exc:
                    self._failed(exc)
                else:
                    self._wait_for(value)
        finally:
            _leave(self.loop, previous)
        return 0

    # ---- waiting -------------------------------------------------------------------------------------

    cdef int _wait_for(self, object yielded) except -1:
        cdef Waiter waiter
        if not self.was_suspended:
            self.context.unit.handler_waits(self.context, self)
            self.was_suspended = True
            # From now on asyncio.all_tasks() knows of it, until it is gone.
            _register(self)
        if type(yielded) is Waiter:
            waiter = <Waiter>yielded
            if (waiter.blocking and waiter.state == WAITING and waiter.wakeup is None
                    and waiter.home.loop is self.loop):
                waiter.blocking = False
                waiter.wakeup = self
                waiter.wake = _wake
                self.waits_on = waiter
                if self.must_cancel and waiter.cancel(self.cancel_text):
                    self.must_cancel = False
                return 0
        elif yielded is None:
            self.loop.call_soon(self._step_soon, None, context=self.variables)
            return 0
        try:
            error = self._cannot_wait(yielded)
            if error is None:
                yielded._asyncio_future_blocking = False
                yielded.add_done_callback(self._wakeup, context=self.variables)
        except Exception as exc:
            error = exc
        if error is not None:
            self.loop.call_soon(self._step_soon, error, context=self.variables)
            return 0
        self.waits_on = yielded
        if self.must_cancel and yielded.cancel(msg=self.cancel_text):
            self.must_cancel = False
        return 0

    cdef object _cannot_wait(self, object yielded):
        """Why the coroutine cannot wait for that, in asyncio's words; None when it can."""
        blocking = getattr(yielded, "_asyncio_future_blocking", None)
        if blocking is None and inspect.isgenerator(yielded):
            return RuntimeError(
                f"yield was used instead of yield from for generator in task {self!r} with {yielded!r}")
        if blocking is None:
            return RuntimeError(f"Task got bad yield: {yielded!r}")
        get_loop = getattr(yielded, "get_loop", None)
        if (yielded._loop if get_loop is None else get_loop()) is not self.loop:
            return RuntimeError(f"Task {self!r} got Future {yielded!r} attached to a different loop")
        if not blocking:
            return RuntimeError(f"yield was used instead of yield from in task {self!r} with {yielded!r}")
        if yielded is self:
            return RuntimeError(f"Task cannot await on itself: {self!r}")
        return None

    def _step_soon(self, error):
        self._timed_step(error)

    def _wakeup(self, future):
        try:
            future.result()
        except BaseException as exc:
            error = exc
        else:
            error = None
        self._timed_step(error)

    cdef int _timed_step(self, object error) except -1:
        cdef double started = coarse_now()
        cdef double seconds
        cdef Context context = self.context
        try:
            return self.step(error)
        finally:
            seconds = coarse_now() - started
            if seconds > self.limit and context is not None:
                blame(self.handler, context, seconds)

    # ---- the end -------------------------------------------------------------------------------------

    cdef int _returned(self, object value) except -1:
        cdef TaskState state = FINISHED
        if self.must_cancel:
            # Cancelled in its last step, which went on to the end: as asyncio has it.
            self.must_cancel = False
            state = CANCELLED
        try:
            self.context.unit.handler_returned(self.handler, self.context, value, self._if_known())
        except Exception as exc:
            self.context.unit.log(
                logging.ERROR, "error while answering for handler %s", (name_of(self.handler.function),), exc)
        finally:
            self._end(state, value if state == FINISHED else None)
        return 0

    cdef int _failed(self, object error) except -1:
        self.has_failed = True
        try:
            self.context.unit.handler_failed(self.handler, self.context, error, self._if_known())
        except Exception as exc:
            self.context.unit.log(
                logging.ERROR, "error while answering for handler %s", (name_of(self.handler.function),), exc)
        finally:
            self._end(CANCELLED if isinstance(error, _CancelledError) else FINISHED, error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        return 0

    cdef object _if_known(self):
        """Itself, if its unit was told of it."""
        return self if self.was_suspended else None

    cdef int _end(self, TaskState state, object outcome) except -1:
        self.state = state
        self.outcome = outcome
        # Whoever keeps the task does not keep the message.
        self.context = None
        callbacks, self.callbacks = self.callbacks, None
        if callbacks is not None:
            for callback, context in callbacks:
                self.loop.call_soon(callback, self, context=context)
        return 0

    # ---- cancelling ----------------------------------------------------------------------------------

    def cancel(self, msg=None):
        """Have a `CancelledError` raised where the handler waits; False when it is done."""
        if self.state != PENDING:
            return False
        self.cancels += 1
        waits_on = self.waits_on
        if waits_on is not None and waits_on.cancel(msg=msg):
            return True
        self.must_cancel = True
        self.cancel_text = msg
        return True

    def cancelling(self):
        """How many times it was cancelled, without those that `uncancel` took back."""
        return self.cancels

    def uncancel(self):
        """Take a `cancel` back; returns how many are left."""
        if self.cancels > 0:
            self.cancels -= 1
            if self.cancels == 0:
                self.must_cancel = False
        return self.cancels

    cdef object _cancelled_error(self):
        return _CancelledError() if self.cancel_text is None else _CancelledError(self.cancel_text)

    def _make_cancelled_error(self):
        # The one that ended it, once: raised again and again its traceback would grow.
        error, self.outcome = self.outcome, None
        return self._cancelled_error() if error is None else error

    # ---- what waits for it, as of a future -----------------------------------------------------------

    @property
    def _asyncio_future_blocking(self):
        return self.blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, bint value):
        self.blocking = value

    def __await__(self):
        return _waiting_for(self)

    def __iter__(self):
        return _waiting_for(self)

    def done(self):
        return self.state != PENDING

    def cancelled(self):
        return self.state == CANCELLED

    def result(self):
        """What the handler returned.  Raises what it raised, `InvalidStateError` while it runs."""
        if self.state == FINISHED and not self.has_failed:
            return self.outcome
        error = self.exception()
        raise error

    def exception(self):
        """What the handler raised, or None.  Raises `CancelledError`, `InvalidStateError` while it runs."""
        if self.state == PENDING:
            raise asyncio.InvalidStateError("Result is not set.")
        if self.state == CANCELLED:
            raise self._make_cancelled_error()
        return self.outcome if self.has_failed else None

    def add_done_callback(self, callback, *, context=None):
        if context is None:
            context = PyContext_CopyCurrent()
        if self.state != PENDING:
            self.loop.call_soon(callback, self, context=context)
        elif self.callbacks is None:
            self.callbacks = [(callback, context)]
        else:
            self.callbacks.append((callback, context))

    def remove_done_callback(self, callback):
        if self.callbacks is None:
            return 0
        kept = [each for each in self.callbacks if each[0] != callback]
        removed = len(self.callbacks) - len(kept)
        self.callbacks = kept
        return removed

    def set_result(self, result):
        raise RuntimeError("Task does not support set_result operation")

    def set_exception(self, exception):
        raise RuntimeError("Task does not support set_exception operation")

    # ---- what is known of it -------------------------------------------------------------------------

    @property
    def __class__(self):
        # asyncio's type in C cannot be told of relatives; isinstance() asks for this as well.
        return asyncio.Task

    def get_loop(self):
        return self.loop

    def get_coro(self):
        return self.coroutine

    def get_context(self):
        return self.variables

    def get_name(self):
        return _NAME if self.name is None else self.name

    def set_name(self, value):
        self.name = str(value)

    def get_stack(self, *, limit=None):
        return asyncio.base_tasks._task_get_stack(self, limit)

    def print_stack(self, *, limit=None, file=None):
        return asyncio.base_tasks._task_print_stack(self, limit, file)

    def __repr__(self):
        parts = [_STATES[self.state].lower(), f"name={self.get_name()!r}", f"coro={self.coroutine!r}"]
        if self.must_cancel:
            parts[0] = "cancelling"
        if self.waits_on is not None:
            parts.append(f"wait_for={self.waits_on!r}")
        if self.has_failed and self.state == FINISHED:
            parts.append(f"exception={self.outcome!r}")
        return f"<HandlerTask {' '.join(parts)}>"

    # What asyncio's task has under these names is used by asyncio itself, and by libraries such as anyio.

    @property
    def _loop(self):
        return self.loop

    @property
    def _coro(self):
        return self.coroutine

    @property
    def _state(self):
        return _STATES[self.state]

    @property
    def _fut_waiter(self):
        return self.waits_on

    @property
    def _must_cancel(self):
        return self.must_cancel

    @property
    def _cancel_message(self):
        return self.cancel_text

    @_cancel_message.setter
    def _cancel_message(self, value):
        self.cancel_text = value

    @property
    def _log_traceback(self):
        # A handler's errors are logged as such.
        return False

    @_log_traceback.setter
    def _log_traceback(self, value):
        pass

    @property
    def _log_destroy_pending(self):
        return False

    @_log_destroy_pending.setter
    def _log_destroy_pending(self, value):
        pass

    @property
    def _callbacks(self):
        return self.callbacks

    @property
    def _exception(self):
        return self.outcome if self.has_failed and self.state == FINISHED else None

    @property
    def _result(self):
        return None if self.has_failed else self.outcome

    @property
    def _source_traceback(self):
        return None

    @property
    def _asyncio_awaited_by(self):
        return None

    # As on asyncio's, anything may be set on it.

    def __getattr__(self, name):
        if self.attributes is not None and name in self.attributes:
            return self.attributes[name]
        raise AttributeError(f"'HandlerTask' object has no attribute {name!r}")

    def __setattr__(self, name, value):
        if hasattr(HandlerTask, name):
            PyObject_GenericSetAttr(self, name, value)
            return
        if self.attributes is None:
            self.attributes = {}
        self.attributes[name] = value

    def __delattr__(self, name):
        if self.attributes is None or name not in self.attributes:
            raise AttributeError(name)
        del self.attributes[name]


def _waiting_for(HandlerTask task):
    if task.state == PENDING:
        task.blocking = True
        yield task
    if task.state == PENDING:
        raise RuntimeError("await wasn't used with future")
    return task.result()


cdef int _wake(object waiting, Waiter waiter, bint direct) except -1:
    """What a task waits on is settled.  `direct`: no task is current, so it may be stepped at once."""
    cdef HandlerTask task = <HandlerTask>waiting
    if direct:
        try:
            PyContext_Enter(task.variables)
        except RuntimeError:
            # It is entered further up the stack already.
            direct = False
    if not direct:
        future = waiter if waiter.state == FORGOTTEN else waiter.home.done_future
        task.loop.call_soon(task._wakeup, future, context=task.variables)
        return 0
    try:
        task._timed_step(None)
    except BaseException as exc:
        task.loop.call_soon(_raise, exc)
    finally:
        PyContext_Exit(task.variables)
    return 0


cdef HandlerTask new_task(object loop, object coroutine, object variables, Handler handler, Context context,
                          double limit):
    cdef HandlerTask self = HandlerTask.__new__(HandlerTask)
    self.loop = loop
    self.coroutine = coroutine
    self.variables = variables
    self.handler = handler
    self.context = context
    self.limit = limit
    return self


cdef int blame(Handler handler, Context context, double seconds) except -1:
    return context.unit.log(
        logging.WARNING,
        "handler %s of role '%s', event '%s' held the event loop for %.2f s: remote peers that hear "
        "nothing for that long may close their connections; await asyncio.to_thread() what blocks",
        (name_of(handler.function), handler.role.name, context.event, seconds), None)


cdef str name_of(object function):
    return getattr(function, "__qualname__", None) or repr(function)[:200]


def _raise(exc):
    raise exc
