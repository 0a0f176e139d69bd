cdef class Steps:
    """The coroutine of an async handler, each of whose steps is timed."""

    cdef:
        object coroutine
        object function                # the handler
        str role
        object event
        double limit                   # s


cdef Steps watch_steps(object coroutine, object function, str role, object event, double limit)

# Logs a warning that names the handler which held the event loop for `seconds`.
cdef int blame(object function, str role, object event, double seconds) except -1
cdef str name_of(object function)
