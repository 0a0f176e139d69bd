cdef class Steps:
    """The coroutine that an async handler's task runs: it times the handler's own, step by step, and is
    told how that one ends."""

    cdef:
        object coroutine               # the handler's
        object function                # the handler
        str role
        object event
        double limit                   # s that a step may take before a warning names the handler

    # Overridden: what becomes of the result.  Called in the task's last step.
    cdef int returned(self, object value) except -1
    cdef int failed(self, object error) except -1


# Logs a warning that names the handler which held the event loop for `seconds`.
cdef int blame(object function, str role, object event, double seconds) except -1
cdef str name_of(object function)
