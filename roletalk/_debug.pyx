"""The clock, and counters of live objects, kept by the debug build only."""

cimport cython

_NAMES = ("buffer", "connection", "call", "waiter", "context", "stream", "task")

cdef long[COUNT_KINDS] _live


stands_at = -1.0


def set_clock(double at):
    """Have the clock of the whole process stand at `at` seconds, until the next call; below 0 it goes."""
    global stands_at
    stands_at = at


cdef void count(Counted kind, int by) noexcept:
    _live[<int>kind] += by


@cython.final
cdef class Token:
    def __dealloc__(self):
        count(<Counted>self.kind, -1)


cdef Token token(Counted kind):
    cdef Token self = Token.__new__(Token)
    self.kind = kind
    count(kind, 1)
    return self


def is_debug_build() -> bool:
    """Whether the compiled modules carry the debug build's checks and counters."""
    return bool(DEBUG)


def live_objects() -> dict[str, int]:
    """How many objects of each compiled kind are alive; all zero in the release build."""
    return {name: _live[i] for i, name in enumerate(_NAMES)}
