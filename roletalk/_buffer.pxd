cdef class WriteBuffer:
    """A growable byte buffer that owns its memory."""

    cdef:
        char* data                   # owned; moves when reserve() grows it
        Py_ssize_t size              # bytes written
        Py_ssize_t capacity

    # A pointer to `n` writable bytes after the written ones, which become part of them.
    # Borrowed: valid until the next append(), clear() or release().
    cdef char* append(self, Py_ssize_t n) except NULL
    # The same, but they are no part of it until `size` is raised.
    cdef char* reserve(self, Py_ssize_t n) except NULL
    cdef void consume(self, Py_ssize_t n) noexcept    # drops the first n bytes, n <= size
    cdef void clear(self) noexcept                    # size = 0, memory kept
    cdef void release(self) noexcept                  # size = 0, memory given back


cdef class Account:
    """What a peer keeps of what it received, in bytes, and how much that may be."""

    cdef:
        readonly Py_ssize_t kept       # parts of messages, and payload that running async handlers keep
        readonly Py_ssize_t max_kept
        readonly Py_ssize_t strangers  # parts of messages from those that have not authenticated
        readonly Py_ssize_t windows    # what stream windows beyond the smallest may still take


cdef class ReadSpace:
    """Memory that a transport reads into, for one connection after the other."""

    cdef:
        char* data                   # owned
        readonly Py_ssize_t size
        bint busy                    # what was read is being taken apart
