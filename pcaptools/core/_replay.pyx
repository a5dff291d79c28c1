# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Replaying: when packets are due, several captures on one timeline, faults on purpose.

Glue over csrc/pace.h, interleave.h, impair.h and unique.h. Described in _replay.pyi.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pcaptools.core._core cimport PT_DROP, NativeBatch, pt_batch, pt_interfaces, pt_record


cdef extern from "pace.h" nogil:
    ctypedef struct pt_pace:
        uint8_t measure, started
        uint64_t up, down, group, packets, bytes
        int64_t most, limit, base, first, last, widest
    uint32_t pt_pace_batch(pt_pace *s, const pt_batch *b, uint32_t start, uint32_t stop, int64_t *due)
    void pt_pace_rewind(pt_pace *s, int64_t delay)

cdef extern from "interleave.h" nogil:
    enum: PT_LEAVE_NO_MEMORY
    ctypedef struct pt_joined:
        const pt_batch *b
        uint32_t at
    ctypedef struct pt_timetable:
        pt_interfaces interfaces
        uint32_t *source_of
        pt_joined *source
        uint32_t sources, n, hold_source
        uint32_t *heap
        int64_t hold
        uint8_t holding
    void pt_begin_copies(pt_batch *out, const pt_interfaces *interfaces)
    int pt_push(pt_batch *out, const pt_batch *b, uint32_t k, uint32_t interface, uint32_t zeros)
    void pt_timetable_feed(pt_timetable *m, uint32_t source, const pt_batch *b)
    int64_t pt_interleave(pt_timetable *m, pt_batch *out, size_t full)
    void pt_timetable_free(pt_timetable *m)

cdef extern from "impair.h" nogil:
    ctypedef struct pt_impairment:
        uint64_t state, loss, dup, swap, lost, duplicated, swapped
    ctypedef struct pt_jitter:
        uint64_t state
        uint8_t distribution
        double a, b
    int pt_impair(pt_impairment *f, const pt_batch *b, pt_batch *out)
    void pt_jitter_batch(pt_jitter *j, uint32_t start, uint32_t stop, int64_t *due)

cdef extern from "unique.h" nogil:
    uint64_t pt_shift_addresses(pt_batch *b, uint32_t shift)


cdef int check_range(NativeBatch batch, uint32_t start, uint32_t stop) except -1:
    if stop > batch.c.n or start > stop:
        raise ValueError(f"records {start} to {stop} of {batch.c.n}")
    return 0


cdef class Schedule:
    cdef pt_pace c

    def __cinit__(self, measure, up, down, *, group=1, most=0, limit=None):
        memset(&self.c, 0, sizeof(pt_pace))
        self.c.measure = measure
        if not (0 < up < 1 << 62 and 0 < down < 1 << 62 and group > 0 and most >= 0):
            raise ValueError("speed out of range")
        self.c.up = up
        self.c.down = down
        self.c.group = group
        self.c.most = most
        self.c.limit = INT64_MAX if limit is None else limit

    def due(self, NativeBatch batch, uint32_t start, uint32_t stop, out):
        cdef Py_buffer view
        cdef uint32_t reached
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            if stop > batch.c.n or start > stop or view.len < <Py_ssize_t>(stop * sizeof(int64_t)):
                raise ValueError(f"records {start} to {stop} of {batch.c.n}")
            with nogil:
                reached = pt_pace_batch(&self.c, &batch.c, start, stop, <int64_t *>view.buf)
            return reached
        finally:
            PyBuffer_Release(&view)

    def rewind(self, int64_t delay=0):
        pt_pace_rewind(&self.c, delay)

    @property
    def last(self):
        return self.c.last

    @property
    def packets(self):
        return self.c.packets

    @property
    def widest(self):
        return self.c.widest


cdef class Timetable:
    cdef pt_timetable c
    cdef list batches

    def __cinit__(self, uint32_t sources):
        memset(&self.c, 0, sizeof(pt_timetable))
        self.batches = [None] * sources
        self.c.source = <pt_joined *>calloc(max(sources, 1), sizeof(pt_joined))
        self.c.heap = <uint32_t *>calloc(max(sources, 1), sizeof(uint32_t))
        if not self.c.source or not self.c.heap:
            raise MemoryError()
        self.c.sources = sources

    def __dealloc__(self):
        pt_timetable_free(&self.c)

    def feed(self, uint32_t source, NativeBatch batch):
        if source >= self.c.sources or self.c.source[source].b or not batch.c.n:
            raise ValueError(f"source {source} has records, or gets none")
        self.batches[source] = batch
        pt_timetable_feed(&self.c, source, &batch.c)

    def hold(self, until, source=0):
        self.c.holding = until is not None
        if until is not None:
            self.c.hold = until
            self.c.hold_source = source

    def begin(self, NativeBatch out):
        pt_begin_copies(&out.c, &self.c.interfaces)
        out.interfaces_owner = self

    def fill(self, NativeBatch out, size_t full):
        cdef int64_t status
        with nogil:
            status = pt_interleave(&self.c, &out.c, full)
        if status == PT_LEAVE_NO_MEMORY:
            raise MemoryError("no memory for records")
        if status >= 0:
            self.batches[status] = None
        return status

    def source_of(self, uint32_t interface):
        if interface >= self.c.interfaces.n:
            raise IndexError(f"interface {interface} of {self.c.interfaces.n}")
        return self.c.source_of[interface]


def shift_times(NativeBatch batch, int64_t shift):
    cdef uint32_t k
    for k in range(batch.c.n):
        batch.c.record[k].time += shift


def copy_records(NativeBatch batch, NativeBatch out, bint pad=False):
    cdef uint32_t k, zeros
    cdef int verdict = 0
    pt_begin_copies(&out.c, batch.c.interfaces)
    out.interfaces_owner = batch.interfaces_owner
    with nogil:
        for k in range(batch.c.n):
            if batch.c.record[k].flags & PT_DROP:
                continue
            zeros = 0
            if pad and batch.c.record[k].wirelen > batch.c.record[k].caplen:
                zeros = batch.c.record[k].wirelen - batch.c.record[k].caplen
            verdict = pt_push(&out.c, &batch.c, k, batch.c.record[k].interface, zeros)
            if verdict:
                break
    if verdict:
        raise MemoryError("no memory for records")


cdef class Impairment:
    cdef pt_impairment c

    def __cinit__(self, seed, *, loss, dup, swap):
        memset(&self.c, 0, sizeof(pt_impairment))
        self.c.state = seed
        self.c.loss, self.c.dup, self.c.swap = loss, dup, swap

    def apply(self, NativeBatch batch, NativeBatch out):
        cdef int verdict
        pt_begin_copies(&out.c, batch.c.interfaces)
        out.interfaces_owner = batch.interfaces_owner
        with nogil:
            verdict = pt_impair(&self.c, &batch.c, &out.c)
        if verdict:
            raise MemoryError("no memory for records")

    @property
    def counts(self):
        return self.c.lost, self.c.duplicated, self.c.swapped


cdef class Jitter:
    cdef pt_jitter c

    def __cinit__(self, seed, distribution, double a, double b):
        memset(&self.c, 0, sizeof(pt_jitter))
        self.c.state = seed
        self.c.distribution = {"uniform": 0, "normal": 1, "exponential": 2}[distribution]
        self.c.a, self.c.b = a, b

    def apply(self, uint32_t start, uint32_t stop, out):
        cdef Py_buffer view
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            if start > stop or view.len < <Py_ssize_t>(stop * sizeof(int64_t)):
                raise ValueError(f"{view.len} bytes are no due times of {stop} records")
            with nogil:
                pt_jitter_batch(&self.c, start, stop, <int64_t *>view.buf)
        finally:
            PyBuffer_Release(&view)


def shift_addresses(NativeBatch batch, uint32_t shift):
    cdef uint64_t without
    batch.locate()
    with nogil:
        without = pt_shift_addresses(&batch.c, shift)
    return without


def drop_range(NativeBatch batch, uint32_t start, uint32_t stop):
    cdef uint32_t k
    cdef uint64_t dropped = 0
    check_range(batch, start, stop)
    for k in range(start, stop):
        dropped += not batch.c.record[k].flags & PT_DROP
        batch.c.record[k].flags |= PT_DROP
    return dropped


def drop_cut(NativeBatch batch):
    cdef uint32_t k
    cdef uint64_t dropped = 0
    for k in range(batch.c.n):
        if not batch.c.record[k].flags & PT_DROP and batch.c.record[k].caplen < batch.c.record[k].wirelen:
            batch.c.record[k].flags |= PT_DROP
            dropped += 1
    return dropped


def drop_longer(NativeBatch batch, uint32_t most):
    cdef uint32_t k
    cdef uint64_t dropped = 0
    for k in range(batch.c.n):
        if not batch.c.record[k].flags & PT_DROP and batch.c.record[k].caplen > most:
            batch.c.record[k].flags |= PT_DROP
            dropped += 1
    return dropped


def cut_longer(NativeBatch batch, uint32_t start, uint32_t stop, int lane, uint32_t largest, uint32_t tag):
    cdef uint32_t k, most
    cdef uint64_t cut = 0
    cdef pt_record *r
    cdef const uint8_t *p
    check_range(batch, start, stop)
    for k in range(start, stop):
        r = &batch.c.record[k]
        if r.flags & PT_DROP or (lane >= 0 and r.lane != lane) or r.caplen <= largest:
            continue
        p = batch.c.bytes + r.data
        most = largest + (tag if r.caplen >= 14 and p[12] == 0x81 and p[13] == 0 else 0)
        if r.caplen > most:
            r.caplen = r.wirelen = most
            cut += 1
    return cut


def mark_unfit_lane(NativeBatch batch, uint32_t start, uint32_t stop, uint16_t lane, linktypes, uint32_t largest,
                    uint32_t least, uint32_t tag):
    """As NativeBatch.mark_unfit, for the records of one lane."""
    cdef uint32_t k, first
    counts = {"linktype": 0, "empty": 0, "short": 0, "long": 0}
    check_range(batch, start, stop)
    k = start
    while k < stop:
        first = k
        while k < stop and batch.c.record[k].lane == lane:
            k += 1
        if k > first:
            for name, count in batch.mark_unfit(first, k, linktypes, largest, least, tag).items():
                counts[name] += count
        else:
            k += 1
    return counts


def set_times(NativeBatch batch, uint32_t start, uint32_t stop, due, int64_t base, int64_t least):
    cdef Py_buffer view
    cdef uint32_t k
    cdef const int64_t *times
    PyObject_GetBuffer(due, &view, PyBUF_SIMPLE)
    try:
        check_range(batch, start, stop)
        if view.len < <Py_ssize_t>(stop * sizeof(int64_t)):
            raise ValueError(f"{view.len} bytes are no due times of {stop} records")
        times = <const int64_t *>view.buf
        for k in range(start, stop):
            if not batch.c.record[k].flags & PT_DROP:
                least = max(least, base + times[k])
                batch.c.record[k].time = least
        return least
    finally:
        PyBuffer_Release(&view)


def tally(NativeBatch batch, uint32_t start, uint32_t stop, dict counts):
    """Add to counts[interface] the records start to stop that are not dropped."""
    cdef uint32_t k, interface, found = 0
    check_range(batch, start, stop)
    cdef uint32_t n = batch.c.interfaces.n if batch.c.interfaces else 0
    cdef uint32_t *seen = <uint32_t *>calloc(max(n, 1), sizeof(uint32_t))
    if not seen:
        raise MemoryError()
    try:
        for k in range(start, stop):
            if not batch.c.record[k].flags & PT_DROP:
                seen[batch.c.record[k].interface] += 1
        for k in range(n):
            if seen[k]:
                counts[k] = counts.get(k, 0) + seen[k]
    finally:
        free(seen)
