/* Loaded into a measured process: counts the allocations made through Python's three allocator
   domains, and marks for callgrind where one part of the measurement ends and the next begins. */

#include <Python.h>

unsigned long long guard_allocations;

static PyMemAllocatorEx below[3];

static void count(void)
{
    __atomic_fetch_add(&guard_allocations, 1, __ATOMIC_RELAXED);
}

static void *counted_malloc(void *context, size_t size)
{
    PyMemAllocatorEx *next = context;
    count();
    return next->malloc(next->ctx, size);
}

static void *counted_calloc(void *context, size_t items, size_t size)
{
    PyMemAllocatorEx *next = context;
    count();
    return next->calloc(next->ctx, items, size);
}

static void *counted_realloc(void *context, void *old, size_t size)
{
    PyMemAllocatorEx *next = context;
    count();
    return next->realloc(next->ctx, old, size);
}

static void uncounted_free(void *context, void *old)
{
    PyMemAllocatorEx *next = context;
    next->free(next->ctx, old);
}

/* Once a process. */
void guard_count_allocations(void)
{
    static const PyMemAllocatorDomain domains[3] = {
        PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    for (int i = 0; i < 3; i++) {
        PyMemAllocatorEx counted = {
            &below[i], counted_malloc, counted_calloc, counted_realloc, uncounted_free};
        PyMem_GetAllocator(domains[i], &below[i]);
        PyMem_SetAllocator(domains[i], &counted);
    }
}

/* callgrind's own header comes with it, in some distributions in a package apart. */
#if defined(__has_include)
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define HAS_CALLGRIND 1
#endif
#endif

#ifdef HAS_CALLGRIND
const int guard_has_callgrind = 1;

void guard_start_instructions(void)
{
    CALLGRIND_START_INSTRUMENTATION;
}

/* callgrind writes down what it counted since the last mark. */
void guard_mark_instructions(void)
{
    CALLGRIND_DUMP_STATS;
}
#else
const int guard_has_callgrind = 0;

void guard_start_instructions(void) {}
void guard_mark_instructions(void) {}
#endif
