/* Writing to a socket past its transport, which holds nothing: what the socket does not take at once,
   or whatever goes wrong, is left to the transport. */

#ifndef ROLETALK_SOCKET_H
#define ROLETALK_SOCKET_H

#include <Python.h>

#ifdef _WIN32

/* A socket there is a handle, not an int; everything goes through the transport. */
#define ROLETALK_WRITES_PAST 0

static inline Py_ssize_t roletalk_send(int fd, const char *data, Py_ssize_t size) {
    (void)fd, (void)data, (void)size;
    return 0;
}

static inline Py_ssize_t roletalk_send_both(int fd, const char *first, Py_ssize_t first_size,
                                            const char *second, Py_ssize_t second_size) {
    (void)fd, (void)first, (void)first_size, (void)second, (void)second_size;
    return 0;
}

#else

#include <sys/socket.h>
#include <sys/uio.h>

#define ROLETALK_WRITES_PAST 1

/* Without it Python ignores SIGPIPE for the whole process. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static inline Py_ssize_t roletalk_send(int fd, const char *data, Py_ssize_t size) {
    Py_ssize_t sent = send(fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? 0 : sent;
}

static inline Py_ssize_t roletalk_send_both(int fd, const char *first, Py_ssize_t first_size,
                                            const char *second, Py_ssize_t second_size) {
    struct iovec parts[2] = {{(void *)first, (size_t)first_size}, {(void *)second, (size_t)second_size}};
    struct msghdr message = {0};
    Py_ssize_t sent;
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? 0 : sent;
}

#endif
#endif
