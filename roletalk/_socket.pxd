# Declarations only.

cdef extern from "_socket.h":
    enum: WRITES_PAST "ROLETALK_WRITES_PAST"    # whether sockets can be written to here at all
    # How many bytes the socket took at once; 0 also for an error, which the transport will meet itself.
    Py_ssize_t send_now "roletalk_send"(int fd, const char* data, Py_ssize_t size)
    Py_ssize_t send_both "roletalk_send_both"(int fd, const char* first, Py_ssize_t first_size,
                                              const char* second, Py_ssize_t second_size)
