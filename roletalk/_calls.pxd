from libc.stdint cimport uint64_t

from ._debug cimport Token

# WAITING ──settle()──▶ ANSWERED | FAILED
#    └──────forget()──▶ FORGOTTEN
cdef enum CallState:
    WAITING
    ANSWERED
    FAILED
    FORGOTTEN

# How a task of ours is woken.  `direct`: no task is current, so it may be stepped at once.
ctypedef int (*wake_function)(object waiting, Waiter waiter, bint direct) except -1


cdef class Home:
    """What those who wait on one loop share."""

    cdef:
        object loop
        object done_future             # of asyncio's own, done: what a task is woken with
        object get_loop                # a method of that, which gives the loop for less than one of ours
        object unseen                  # called with an error that nobody awaited


cdef class Waiter:
    """An entry of the call table, and the future-like object that a task waits on."""

    cdef:
        CallTable table                # None once it is out of the table
        uint64_t correlation
        double deadline                # s on the monotonic clock; infinity: none
        double sent_at                 # s
        CallState state
        bint ignore_close              # stays when the unit goes, until its deadline
        bint goes_on                   # also when nobody awaits it
        object keeps                   # what has to live while it waits
        object stream                  # the Stream that the answer opens, or None
        bint blocking                  # asyncio's `_asyncio_future_blocking`
        object outcome                 # a Context, or the exception
        Home home
        object role, event             # for errors
        Token token                    # of the debug build
        object wakeup                  # of the task that waits, and its contextvars.Context
        object context
        wake_function wake             # set when `wakeup` is what this takes, not a callable

    # `direct`: no task is current, so the waiting one may be stepped at once.
    cdef int settle(self, CallState state, object outcome, bint direct) except -1
    cdef int forget(self) except -1


cdef class CallTable:
    """What one unit has been asked and has not answered: slots indexed by correlation."""

    cdef:
        list slots                     # a power of two of them; Waiter or None
        uint64_t mask
        public uint64_t next           # the correlation to try next
        readonly Py_ssize_t used
        Py_ssize_t limit
        public object unit             # whose it is, for errors
        readonly double earliest       # s, no deadline is before it
        bint swept                     # whoever sweeps knows of it

    cdef uint64_t add(self, Waiter waiter) except 0
    cdef Waiter take(self, uint64_t correlation)
    cdef int discard(self, Waiter waiter) except -1
    cdef int _grow(self) except -1


cdef class Call:
    """What `request` returns: awaitable once, and good wherever a coroutine is."""

    cdef:
        Waiter waiter                  # None once its result was delivered
        Token token                    # of the debug build


cdef Waiter new_waiter(Home home, double sent_at, double deadline, object role, object event)
cdef Call new_call(Waiter waiter)
cdef Call failed_call(object error, Home home)
cdef object done_call()
