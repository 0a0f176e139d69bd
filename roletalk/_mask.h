/* Masks of RFC 6455, section 5.3: each byte is XORed with one of the mask's four, in turn. */

#ifndef ROLETALK_MASK_H
#define ROLETALK_MASK_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#define ROLETALK_MASK_BLOCK 64

#if defined(__GNUC__) || defined(__clang__)

/* Two of the widest registers that the target has, or what makes them up. */
typedef uint64_t roletalk_words __attribute__((vector_size(32)));

/* Loads before it stores, so `to` may be `data`. */
__attribute__((always_inline)) static inline Py_ssize_t roletalk_mask_blocks(
    char *to, const char *data, Py_ssize_t size, uint64_t wide) {
    roletalk_words mask = {wide, wide, wide, wide}, first, second;
    Py_ssize_t i = 0;
    for (; i + ROLETALK_MASK_BLOCK <= size; i += ROLETALK_MASK_BLOCK) {
        memcpy(&first, data + i, sizeof first);
        memcpy(&second, data + i + sizeof first, sizeof second);
        first ^= mask;
        second ^= mask;
        memcpy(to + i, &first, sizeof first);
        memcpy(to + i + sizeof first, &second, sizeof second);
    }
    return i;
}

#else

static inline Py_ssize_t roletalk_mask_blocks(char *to, const char *data, Py_ssize_t size, uint64_t wide) {
    (void)to, (void)data, (void)size, (void)wide;
    return 0;
}

#endif

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define ROLETALK_MASK_AVX2
__attribute__((target("avx2"))) static Py_ssize_t roletalk_mask_blocks_avx2(
    char *to, const char *data, Py_ssize_t size, uint64_t wide) {
    return roletalk_mask_blocks(to, data, size, wide);
}
#endif

/* `mask`: its four bytes as they stand in memory. */
static void roletalk_mask_copy(char *to, const char *data, Py_ssize_t size, uint32_t mask) {
    uint64_t wide = (uint64_t)mask << 32 | mask;
    const char *bytes = (const char *)&mask;
    Py_ssize_t i = 0;
    if (size >= ROLETALK_MASK_BLOCK) {
#ifdef ROLETALK_MASK_AVX2
        i = __builtin_cpu_supports("avx2") ? roletalk_mask_blocks_avx2(to, data, size, wide)
                                           : roletalk_mask_blocks(to, data, size, wide);
#else
        i = roletalk_mask_blocks(to, data, size, wide);
#endif
    }
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = data[i] ^ bytes[i & 3];
}

#endif
