# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Glue over csrc/merge.h: batches in order of time. Described in _merge.pyi."""

from libc.stdint cimport INT64_MIN, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from pcaptools.core._core cimport NativeBatch, pt_batch


cdef extern from "merge.h" nogil:
    ctypedef struct pt_merger:
        size_t n
        uint64_t dry, late
        int64_t latest
        void *heap

    enum: PT_MERGE_EMPTY, PT_MERGE_FULL, PT_MERGE_DRY, PT_MERGE_LIMIT, PT_MERGE_NO_MEMORY
    int pt_merge_add(pt_merger *m, const pt_batch *batch, uint64_t order)
    int pt_merge(pt_merger *m, pt_batch *out, int limited, int64_t time, uint64_t order)
    int pt_sort_records(pt_batch *b)
    uint32_t pt_drop_outside(pt_batch *b, int64_t first, int64_t last)

EMPTY = PT_MERGE_EMPTY
FULL = PT_MERGE_FULL
DRY = PT_MERGE_DRY
LIMIT = PT_MERGE_LIMIT


cdef class Merger:
    cdef pt_merger c
    cdef dict batches

    def __cinit__(self):
        memset(&self.c, 0, sizeof(pt_merger))
        self.c.latest = INT64_MIN
        self.batches = {}

    def __dealloc__(self):
        free(self.c.heap)

    def __len__(self):
        return self.c.n

    def add(self, uint64_t order, NativeBatch batch):
        if not batch.c.n or order in self.batches:
            raise ValueError("a source has at least one record, and its own order")
        if pt_merge_add(&self.c, &batch.c, order):
            raise MemoryError("no memory to merge")
        self.batches[order] = batch

    def move(self, NativeBatch out, limit=None):
        cdef int verdict, limited = limit is not None
        cdef int64_t time = limit[0] if limited else 0
        cdef uint64_t order = limit[1] if limited else 0
        cdef NativeBatch batch
        if not out.c.n:
            for batch in self.batches.values():
                out.c.format = batch.c.format
                out.c.swapped = batch.c.swapped
                out.c.nanoseconds = batch.c.nanoseconds
                out.c.header = batch.c.header
                out.c.swapped_lengths = 0
                out.c.located = 0
                out.c.interfaces = batch.c.interfaces
                out.interfaces_owner = batch.interfaces_owner
                break
        with nogil:
            verdict = pt_merge(&self.c, &out.c, limited, time, order)
        if verdict == PT_MERGE_NO_MEMORY:
            raise MemoryError("no memory to merge")
        if verdict == PT_MERGE_DRY:
            del self.batches[self.c.dry]
        return verdict

    @property
    def dry(self):
        return self.c.dry

    @property
    def late(self):
        return self.c.late


def sort_records(NativeBatch batch):
    cdef int verdict
    with nogil:
        verdict = pt_sort_records(&batch.c)
    if verdict:
        raise MemoryError("no memory to sort")


def drop_outside(NativeBatch batch, int64_t first, int64_t last):
    return pt_drop_outside(&batch.c, first, last)
