# The clock, and what only the debug build does.  In the release build `DEBUG` is a C constant 0 and every
# `if DEBUG:` is compiled away.

cdef extern from "_clock.h":
    enum: DEBUG "ROLETALK_DEBUG"
    double _monotonic "roletalk_now"() noexcept nogil
    # s, monotonic to some milliseconds, and cheaper than now(): for how long something has run.
    double coarse_now "roletalk_coarse_now"() noexcept nogil


# s, what the clock of the whole process stands still at; below 0: it does not.  A test's (set_clock).
cdef double stands_at

cdef inline double now() noexcept nogil:
    """Seconds, monotonic: what every deadline is on."""
    return stands_at if stands_at >= 0 else _monotonic()


cdef enum Counted:
    COUNT_BUFFER
    COUNT_CONNECTION
    COUNT_CALL
    COUNT_WAITER
    COUNT_CONTEXT
    COUNT_STREAM
    COUNT_TASK
    COUNT_KINDS

# Called from __cinit__ with +1 and from __dealloc__ with -1.
cdef void count(Counted kind, int by) noexcept


# For objects of the hot path, whose creation and end must cost nothing in the release build: held as
# a field that the debug build sets, it is counted as long as its owner lives.
cdef class Token:
    cdef int kind


cdef Token token(Counted kind)
