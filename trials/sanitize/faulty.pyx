"""Faults on purpose, compiled as the package is: each must be reported, or no report means nothing.

Sizes are arguments, so that the compiler cannot know what happens.
"""

from libc.limits cimport INT_MAX
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef extern from "_mask.h":
    void roletalk_mask_copy(char* to, const char* data, Py_ssize_t size, uint32_t mask) nogil


def read_beyond_the_end(Py_ssize_t size):
    cdef char* data = <char*>calloc(size, 1)
    return data[size]


cdef void release(char** data) noexcept:
    free(data[0])


def read_after_free(Py_ssize_t size):
    cdef char* data = <char*>calloc(size, 1)
    release(&data)
    return data[size - 1]


def write_beyond_bytes(bytes data):
    cdef char* at = data
    at[len(data) + 1] = 0


def mask_beyond_the_end(Py_ssize_t size):
    """The widest registers of _mask.h read one byte that is not there."""
    cdef char* data = <char*>calloc(size, 1)
    cdef char* to = <char*>calloc(size + 1, 1)
    roletalk_mask_copy(to, data, size + 1, 1)


def read_a_misaligned_word(Py_ssize_t size):
    cdef char* data = <char*>calloc(size, 1)
    cdef uint64_t* word = <uint64_t*>(data + 1)
    return word[0]


def overflow(int more):
    cdef int most = INT_MAX
    return most + more


def shift_too_far(int by):
    cdef int one = 1
    return one << by


def cast_too_large(double seconds):
    return <int>seconds
