# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/many.h: many files written natively with the GIL released. Described in _many.pyi."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memset


cdef extern from "many.h" nogil:
    enum: PT_MANY_BUFFER, PT_MANY_DONE, PT_MANY_MORE, PT_MANY_FAILED
    ctypedef struct pt_parts:
        uint32_t groups
    ctypedef struct pt_numbered:
        uint32_t number
    ctypedef struct pt_numbers:
        pt_numbered *interface
    ctypedef struct pt_many:
        pt_parts *parts
        const char *const *name
        const uint32_t *group
        const uint8_t *append
        uint32_t n, next
        int fd, error
        uint8_t created, failed
        uint8_t *buffer
        pt_numbers numbers
    int pt_many_write(pt_many *m, size_t budget)
    void pt_many_abandon(pt_many *m)


cdef class ManyFiles:
    cdef pt_many c
    cdef object parts, names
    cdef const char **name
    cdef uint32_t *group
    cdef uint8_t *append

    def __cinit__(self, parts, names, groups, append):
        cdef uint32_t k, n = len(names)
        memset(&self.c, 0, sizeof(pt_many))
        self.c.fd = -1
        self.parts = parts
        self.names = list(names)
        self.c.parts = <pt_parts *>PyCapsule_GetPointer(parts.capsule(), "pcaptools.parts")
        self.c.n = n
        self.name = <const char **>PyMem_Malloc((n + 1) * sizeof(char *))
        self.group = <uint32_t *>PyMem_Malloc((n + 1) * sizeof(uint32_t))
        self.append = <uint8_t *>PyMem_Malloc(n + 1)
        self.c.buffer = <uint8_t *>PyMem_Malloc(PT_MANY_BUFFER)
        if not self.name or not self.group or not self.append or not self.c.buffer:
            raise MemoryError()
        for k in range(n):
            self.name[k] = <bytes>self.names[k]
            self.group[k] = groups[k]
            self.append[k] = append[k]
            if self.group[k] >= self.c.parts.groups:
                raise IndexError(f"group {groups[k]} of {self.c.parts.groups}")
        self.c.name = self.name
        self.c.group = self.group
        self.c.append = self.append

    def __dealloc__(self):
        pt_many_abandon(&self.c)
        PyMem_Free(self.name)
        PyMem_Free(self.group)
        PyMem_Free(self.append)
        PyMem_Free(self.c.buffer)
        free(self.c.numbers.interface)

    def write(self, size_t budget):
        cdef int verdict
        with nogil:
            verdict = pt_many_write(&self.c, budget)
        return verdict == PT_MANY_DONE

    def retry(self):
        self.c.error = 0

    def abandon(self):
        pt_many_abandon(&self.c)
        return bool(self.c.failed)

    @property
    def done(self):
        return self.c.next

    @property
    def error(self):
        return self.c.error
