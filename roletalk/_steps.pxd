from ._context cimport Context
from ._dispatch cimport Handler


cdef class Steps:
    """A handler's coroutine for a task that the loop makes: it times each step and takes the result."""

    cdef:
        object coroutine
        Handler handler
        Context context                # what the handler was called with; its unit takes the result
        double limit                   # s that a step may take before a warning names the handler
        object task                    # None until it is made; an eager one may be over before
        bint is_over

    cdef int _done(self, object value, object error) except -1


cdef Steps new_steps(object coroutine, Handler handler, Context context, double limit)
