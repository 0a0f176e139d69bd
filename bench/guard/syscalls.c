/* Preloaded into a measured process: counts the system calls that its libraries make through libc.

   What libc calls for itself (the mmap of a large malloc, a futex) is not seen, and neither are the
   clocks, which need no system call. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/types.h>

/* Opaque here: only passed on. */
struct msghdr;
struct mmsghdr;
struct iovec;
struct sockaddr;
struct epoll_event;
struct pollfd;
struct timespec;

#define ALL(DO)                                                                                    \
    DO(read) DO(write) DO(readv) DO(writev) DO(recv) DO(send) DO(recvfrom) DO(sendto)              \
    DO(recvmsg) DO(sendmsg) DO(recvmmsg) DO(sendmmsg) DO(epoll_ctl) DO(epoll_wait) DO(epoll_pwait) \
    DO(poll) DO(fcntl) DO(ioctl) DO(getsockopt) DO(setsockopt) DO(getpid) DO(madvise) DO(mmap)     \
    DO(munmap) DO(getrandom) DO(syscall)

#define NUMBER(name) NUMBER_##name,
enum { ALL(NUMBER) KINDS };

#define NAME(name) #name,
const char *const guard_syscall_names[KINDS + 1] = {ALL(NAME) NULL};
unsigned long long guard_syscalls[KINDS];

#define COUNTED(result, name, parameters, arguments)                                               \
    result name parameters                                                                         \
    {                                                                                              \
        static result(*next) parameters;                                                           \
        if (next == NULL)                                                                          \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                             \
        __atomic_fetch_add(&guard_syscalls[NUMBER_##name], 1, __ATOMIC_RELAXED);                   \
        return next arguments;                                                                     \
    }

COUNTED(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size))
COUNTED(ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size))
COUNTED(ssize_t, readv, (int fd, const struct iovec *parts, int count), (fd, parts, count))
COUNTED(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
COUNTED(ssize_t, recv, (int fd, void *to, size_t size, int flags), (fd, to, size, flags))
COUNTED(ssize_t, send, (int fd, const void *from, size_t size, int flags), (fd, from, size, flags))
COUNTED(ssize_t, recvfrom,
        (int fd, void *to, size_t size, int flags, struct sockaddr *address, void *length),
        (fd, to, size, flags, address, length))
COUNTED(ssize_t, sendto,
        (int fd, const void *from, size_t size, int flags, const struct sockaddr *address,
         unsigned length),
        (fd, from, size, flags, address, length))
COUNTED(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
COUNTED(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
COUNTED(int, recvmmsg,
        (int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout),
        (fd, messages, count, flags, timeout))
COUNTED(int, sendmmsg, (int fd, struct mmsghdr *messages, unsigned count, int flags),
        (fd, messages, count, flags))
COUNTED(int, epoll_ctl, (int fd, int operation, int other, struct epoll_event *event),
        (fd, operation, other, event))
COUNTED(int, epoll_wait, (int fd, struct epoll_event *events, int count, int timeout),
        (fd, events, count, timeout))
COUNTED(int, epoll_pwait,
        (int fd, struct epoll_event *events, int count, int timeout, const void *signals),
        (fd, events, count, timeout, signals))
COUNTED(int, poll, (struct pollfd *events, unsigned long count, int timeout),
        (events, count, timeout))
/* These three are variadic; further arguments than those given are never read. */
COUNTED(int, fcntl, (int fd, int command, long argument), (fd, command, argument))
COUNTED(int, ioctl, (int fd, unsigned long request, void *argument), (fd, request, argument))
COUNTED(long, syscall, (long number, long a, long b, long c, long d, long e, long f),
        (number, a, b, c, d, e, f))
COUNTED(int, getsockopt, (int fd, int level, int option, void *value, unsigned *size),
        (fd, level, option, value, size))
COUNTED(int, setsockopt, (int fd, int level, int option, const void *value, unsigned size),
        (fd, level, option, value, size))
COUNTED(pid_t, getpid, (void), ())
COUNTED(int, madvise, (void *at, size_t size, int advice), (at, size, advice))
COUNTED(void *, mmap, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
        (at, size, protection, flags, fd, offset))
COUNTED(int, munmap, (void *at, size_t size), (at, size))
COUNTED(ssize_t, getrandom, (void *to, size_t size, unsigned flags), (to, size, flags))
