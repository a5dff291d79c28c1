# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Glue over choosing, retiming and sorting. Described in _choose.pyi."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pcaptools.core._core cimport NativeBatch, pt_batch


cdef extern from "choose.h" nogil:
    ctypedef struct pt_number_range:
        uint64_t first, last
    ctypedef struct pt_choice:
        pt_number_range *range
        uint32_t ranges, sample
        int64_t begin "from"
        int64_t until
    uint64_t pt_choose(pt_choice *c, pt_batch *b)
    uint64_t pt_spare(pt_batch *b)
    ctypedef struct pt_dedup:
        void *seen
        uint64_t packets, duplicates, forgotten
        int64_t time
    int pt_drop_duplicates(pt_dedup *d, pt_batch *b)

cdef extern from "retime.h" nogil:
    ctypedef struct pt_retime:
        int64_t shift, start, least_gap
        uint64_t up, down, changed, inexact, raised
        uint8_t anchored, monotonic
    void pt_retime_batch(pt_retime *t, pt_batch *b)
    int pt_hold(const pt_batch *b, pt_batch *held, pt_batch *out)
    ctypedef struct pt_window:
        size_t most
        uint8_t begun
        uint64_t late, early
    int pt_release(pt_window *w, const pt_batch *held, int64_t until, pt_batch *out, pt_batch *rest)

cdef extern from "stdlib.h":
    void *c_calloc "calloc"(size_t n, size_t size)
    void c_free "free"(void *p)


def spare(NativeBatch batch):
    return pt_spare(&batch.c)


cdef class Choice:
    cdef pt_choice c

    def __cinit__(self, ranges, begin, until, sample):
        memset(&self.c, 0, sizeof(pt_choice))
        if ranges:
            self.c.range = <pt_number_range *>c_calloc(len(ranges), sizeof(pt_number_range))
            if self.c.range == NULL:
                raise MemoryError()
            self.c.ranges = len(ranges)
            for k, (first, last) in enumerate(ranges):
                self.c.range[<int>k].first = first
                self.c.range[<int>k].last = last
        self.c.begin, self.c.until, self.c.sample = begin, until, sample

    def __dealloc__(self):
        c_free(self.c.range)

    def drop_others(self, NativeBatch batch):
        return pt_choose(&self.c, &batch.c)


cdef enum:
    MOST_SEEN = 120000  # packets that a window in time holds: half of 2^18 slots and some room

cdef class Duplicates:
    cdef pt_dedup c

    def __cinit__(self, packets, time):
        memset(&self.c, 0, sizeof(pt_dedup))
        self.c.packets, self.c.time = packets or MOST_SEEN, time

    def __dealloc__(self):
        c_free(self.c.seen)

    def drop(self, NativeBatch batch):
        cdef uint64_t before = self.c.duplicates
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_drop_duplicates(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for the window of duplicates")
        return self.c.duplicates - before

    @property
    def forgotten(self):
        return self.c.forgotten


cdef class Retime:
    cdef pt_retime c

    def __cinit__(self, *, shift=0, scale=None, start=None, monotonic=False, least_gap=0):
        memset(&self.c, 0, sizeof(pt_retime))
        self.c.shift = shift
        if scale is not None:
            self.c.up, self.c.down = scale
        if start is not None:
            self.c.anchored, self.c.start = 1, start
        self.c.monotonic = monotonic
        self.c.least_gap = least_gap

    def apply(self, NativeBatch batch):
        with nogil:
            pt_retime_batch(&self.c, &batch.c)

    @property
    def counts(self):
        return {"retimed": self.c.changed, "inexact": self.c.inexact, "raised": self.c.raised}


cdef int same_kind(NativeBatch batch, NativeBatch other) except -1:
    other.c.format, other.c.swapped, other.c.nanoseconds = batch.c.format, batch.c.swapped, batch.c.nanoseconds
    other.c.header, other.c.swapped_lengths, other.c.located = batch.c.header, batch.c.swapped_lengths, 0
    other.c.interfaces = batch.c.interfaces
    other.interfaces_owner = batch.interfaces_owner
    return 0


cdef class Window:
    cdef pt_window c

    def __cinit__(self, size_t most):
        memset(&self.c, 0, sizeof(pt_window))
        self.c.most = most

    def hold(self, NativeBatch batch, NativeBatch held, NativeBatch out):
        same_kind(batch, held)
        same_kind(batch, out)
        if pt_hold(&batch.c, &held.c, &out.c):
            raise MemoryError("no memory for records")

    def release(self, NativeBatch held, int64_t until, NativeBatch out, NativeBatch rest):
        cdef int verdict
        same_kind(held, out)
        same_kind(held, rest)
        with nogil:
            verdict = pt_release(&self.c, &held.c, until, &out.c, &rest.c)
        if verdict:
            raise MemoryError("no memory for records")

    def restart(self):
        self.c.begun = 0

    @property
    def late(self):
        return self.c.late

    @property
    def early(self):
        return self.c.early
