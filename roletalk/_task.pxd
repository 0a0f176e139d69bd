from ._calls cimport Waiter
from ._context cimport Context
from ._dispatch cimport Handler

# PENDING ──the coroutine is done──▶ FINISHED
#    └────────it was cancelled─────▶ CANCELLED
cdef enum TaskState:
    PENDING
    FINISHED
    CANCELLED


cdef class HandlerTask:
    """The task that an async handler runs in; to everybody else one of asyncio's."""

    cdef:
        object __weakref__
        object loop
        object coroutine
        object variables               # the contextvars.Context of each step
        Handler handler
        Context context                # what the handler was called with; its unit takes the result
        double limit                   # s that a step may take before a warning names the handler
        object waits_on                # what the coroutine awaits: a Waiter, or any future
        object outcome                 # what it returned, or the exception
        object cancel_text             # the `msg` of cancel()
        object name                    # None until somebody sets one
        list callbacks                 # of those who wait for it: (callback, context)
        dict attributes                # what others have set on it
        TaskState state
        int cancels                    # cancelling() in asyncio's words
        bint must_cancel               # in the next step
        bint has_failed                # the outcome is an exception
        bint blocking                  # asyncio's `_asyncio_future_blocking`
        bint was_suspended

    # The first step, or the next one.  Its context has been entered.  Raises KeyboardInterrupt and
    # SystemExit only, which belong to the loop.
    cdef int step(self, object error) except -1
    cdef int _wait_for(self, object yielded) except -1
    cdef object _cannot_wait(self, object yielded)
    cdef int _returned(self, object value) except -1
    cdef int _failed(self, object error) except -1
    cdef object _if_known(self)
    cdef int _timed_step(self, object error) except -1
    cdef int _end(self, TaskState state, object outcome) except -1
    cdef object _cancelled_error(self)


# Whether this interpreter lets tasks of ours be the current one.
cdef bint CAN_BE_CURRENT

cdef HandlerTask new_task(object loop, object coroutine, object variables, Handler handler, Context context,
                          double limit)

# Logs a warning that names the handler which held the event loop for `seconds`.
cdef int blame(Handler handler, Context context, double seconds) except -1
cdef str name_of(object function)
