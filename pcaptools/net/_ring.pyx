# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/receive.h: a batch's room in, GIL released, C called. Described in _ring.pyi."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef extern from "receive.h" nogil:
    enum: PT_HOMES, PT_RECORD_HEADER, PT_COOKED_HEADER, PT_TAG

    ctypedef struct pt_home:
        uint64_t flow

    ctypedef struct pt_receiver:
        uint8_t *blocks
        uint32_t block_size, count, snaplen
        uint8_t cooked, once, tagged
        uint64_t again
        pt_home *home

    size_t pt_receive(pt_receiver *r, uint8_t *out, size_t room)


cdef class Blocks:
    cdef pt_receiver c
    cdef Py_buffer memory

    def __cinit__(self, memory, uint32_t block_size, *, uint32_t snaplen, bint cooked=False, bint once=False,
                  bint tagged=False):
        PyObject_GetBuffer(memory, &self.memory, PyBUF_WRITABLE)
        if not block_size or self.memory.len < <Py_ssize_t>block_size or self.memory.len % block_size:
            raise ValueError(f"{self.memory.len} bytes are no blocks of {block_size}")
        self.c.blocks = <uint8_t *>self.memory.buf
        self.c.block_size = block_size
        self.c.count = self.memory.len // block_size
        self.c.snaplen = snaplen
        self.c.cooked = cooked
        self.c.once = once
        self.c.tagged = tagged
        if once:
            self.c.home = <pt_home *>calloc(PT_HOMES, sizeof(pt_home))
            if not self.c.home:
                raise MemoryError()

    def __dealloc__(self):
        free(self.c.home)
        PyBuffer_Release(&self.memory)

    def close(self):
        self.c.count = 0
        PyBuffer_Release(&self.memory)

    def take(self, room):
        cdef Py_buffer out
        cdef size_t size
        if not self.c.count:
            raise ValueError("the ring is closed")
        PyObject_GetBuffer(room, &out, PyBUF_WRITABLE)
        try:
            if out.len < self.least:
                raise ValueError(f"{out.len} bytes are no room for a frame: {self.least} are")
            with nogil:
                size = pt_receive(&self.c, <uint8_t *>out.buf, out.len)
        finally:
            PyBuffer_Release(&out)
        return size

    @property
    def least(self):
        return self.c.block_size + PT_RECORD_HEADER + PT_COOKED_HEADER + PT_TAG

    @property
    def again(self):
        return self.c.again
