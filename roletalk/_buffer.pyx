"""Memory for compiled code, which uses it through ``_buffer.pxd``: what grows, and what is read into."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.string cimport memcpy, memmove, memset

__all__ = ["MAX_STRANGERS_BYTES", "Account", "ReadSpace", "WriteBuffer"]

MAX_STRANGERS_BYTES = 32 << 20      # parts of messages, of all of them together

cdef extern from *:
    const Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    FIRST_CAPACITY = 512             # bytes; nothing is allocated before the first append()
    READ_SPACE = 262144              # bytes


cdef class WriteBuffer:
    """A growable byte buffer that owns its memory.

    Compiled code writes into it through C pointers.  The methods below are the
    same operations for tests; nothing else calls them.
    """

    def __cinit__(self):
        self.data = NULL
        self.size = 0
        self.capacity = 0

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    cdef char* append(self, Py_ssize_t n) except NULL:
        cdef char* at = self.reserve(n)
        self.size += n
        return at

    cdef char* reserve(self, Py_ssize_t n) except NULL:
        cdef Py_ssize_t needed, grown
        cdef void* moved
        if n < 0 or n > PY_SSIZE_T_MAX - self.size:
            raise MemoryError
        needed = self.size + n
        # The second half: a pointer is owed for n = 0 on a buffer without memory, too.
        if needed > self.capacity or self.data == NULL:
            grown = self.capacity * 2 if self.capacity <= PY_SSIZE_T_MAX // 2 else needed
            grown = max(grown, needed, <Py_ssize_t> FIRST_CAPACITY)
            moved = PyMem_RawRealloc(self.data, <size_t> grown)
            if moved == NULL:
                raise MemoryError
            self.data = <char*> moved
            self.capacity = grown
        return self.data + self.size

    cdef void consume(self, Py_ssize_t n) noexcept:
        assert 0 <= n <= self.size
        self.size -= n
        if self.size > 0:
            memmove(self.data, self.data + n, <size_t> self.size)

    cdef void clear(self) noexcept:
        self.size = 0

    cdef void release(self) noexcept:
        PyMem_RawFree(self.data)
        self.data = NULL
        self.size = 0
        self.capacity = 0

    def __len__(self):
        return self.size

    @property
    def allocated(self):
        """Bytes of memory held, written or not."""
        return self.capacity

    def write(self, bytes data not None):
        """Appends `data`.  Raises MemoryError, with the buffer unchanged."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        memcpy(self.append(size), PyBytes_AS_STRING(data), <size_t> size)

    def write_zeros(self, Py_ssize_t count):
        """Appends `count` zero bytes.  Raises MemoryError, with the buffer unchanged."""
        cdef char* at = self.append(count)
        memset(at, 0, <size_t> count)

    def getvalue(self):
        """A copy of the written bytes."""
        return PyBytes_FromStringAndSize(self.data, self.size)

    def drop(self, Py_ssize_t count):
        """Drops the first `count` bytes.  Raises ValueError when there are fewer."""
        if count < 0 or count > self.size:
            raise ValueError("count is not within the written bytes")
        self.consume(count)

    def reset(self, *, free=False):
        """Drops all bytes; with ``free=True`` gives the memory back too."""
        if free:
            self.release()
        else:
            self.clear()


cdef class Account:
    def __cinit__(self, Py_ssize_t max_kept=128 << 20):
        self.max_kept = self.windows = max_kept


cdef class ReadSpace:
    """What the connections of one event loop read into, one after the other.

    A read is taken apart before the next one begins, so they need no memory of their own but for a
    frame that is not whole yet.  Pages that were never read into cost nothing.
    """

    def __cinit__(self, Py_ssize_t size=READ_SPACE):
        self.data = <char*> PyMem_RawMalloc(<size_t> size)
        if self.data == NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        PyMem_RawFree(self.data)
