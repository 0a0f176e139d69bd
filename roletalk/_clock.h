#ifndef ROLETALK_CLOCK_H
#define ROLETALK_CLOCK_H

/* Seconds on a monotonic clock, with no system call where the platform has a vDSO. */

#ifdef _WIN32
/* Else it brings winsock.h, which the winsock2.h of aiofastnet's declarations cannot follow. */
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
static inline double roletalk_now(void) {
    LARGE_INTEGER frequency, count;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&count);
    return (double)count.QuadPart / (double)frequency.QuadPart;
}
#else
#include <time.h>
static inline double roletalk_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#endif

#ifdef CLOCK_MONOTONIC_COARSE
static inline double roletalk_coarse_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#else
#define roletalk_coarse_now roletalk_now
#endif

#ifndef ROLETALK_DEBUG
#define ROLETALK_DEBUG 0
#endif

#endif
