# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Replaying: when packets are due, several captures on one timeline, faults on purpose, which way a packet goes.

Glue over csrc/pace.h, interleave.h, impair.h, unique.h and sides.h. Described in _replay.pyi.
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
    int pt_window_feed(pt_batch *held, const pt_batch *b, pt_batch *rest, pt_batch *out, int64_t window, int all)

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

cdef extern from "sides.h" nogil:
    enum: PT_NO_LANE
    ctypedef struct pt_host:
        uint8_t address[16]
        uint16_t port, lane
        uint8_t version
        uint32_t flags
        uint64_t client, server
    ctypedef struct pt_hosts:
        pt_host *of
        uint32_t n
    ctypedef struct pt_flow_set:
        uint64_t n, packets, others
        uint64_t *slot
    int pt_hosts_note(pt_hosts *t, const pt_batch *b)
    int pt_lanes_by_host(pt_hosts *t, pt_batch *b, uint16_t without)
    int pt_lanes_keep_hosts(pt_hosts *t, pt_batch *b, uint32_t bit, int ends, int exclude)
    void pt_lanes_by_port(pt_batch *b, const uint8_t *servers, uint16_t without)
    void pt_lanes_by_mac(pt_batch *b, const uint8_t *list, uint32_t n, uint16_t without)
    int pt_lanes_by_flow(pt_hosts *t, pt_batch *b, uint16_t without)
    void pt_lanes_by_hash(pt_batch *b, uint32_t n)
    int pt_lanes_by_sender(pt_hosts *t, pt_batch *b, uint32_t most, uint64_t *counts)
    int pt_flow_set_add(pt_flow_set *t, const pt_batch *b)
    void pt_hosts_free(pt_hosts *t)
    ctypedef struct pt_instruction:
        pass
    int pt_filter_valid(const pt_instruction *f, uint32_t n)
    uint32_t pt_filter_run(const pt_instruction *f, const uint8_t *p, uint32_t caplen, uint32_t wirelen)


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


def sort_window(NativeBatch held, NativeBatch batch, NativeBatch rest, NativeBatch out, int64_t window):
    cdef int verdict
    cdef const pt_batch *fed = NULL
    if batch is not None:
        fed = &batch.c
        held.c.interfaces = batch.c.interfaces
        held.interfaces_owner = batch.interfaces_owner
    pt_begin_copies(&rest.c, held.c.interfaces)
    pt_begin_copies(&out.c, held.c.interfaces)
    rest.interfaces_owner = out.interfaces_owner = held.interfaces_owner
    with nogil:
        verdict = pt_window_feed(&held.c, fed, &rest.c, &out.c, window, fed == NULL)
    if verdict:
        raise MemoryError("no memory for the packets of the window")


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


def drop_outside(NativeBatch batch, int64_t begin, int64_t end):
    cdef uint32_t k
    cdef uint64_t dropped = 0
    with nogil:
        for k in range(batch.c.n):
            if not batch.c.record[k].flags & PT_DROP and not begin <= batch.c.record[k].time < end:
                batch.c.record[k].flags |= PT_DROP
                dropped += 1
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


def drop_lane(NativeBatch batch, uint16_t lane):
    cdef uint32_t k
    cdef uint64_t dropped = 0
    for k in range(batch.c.n):
        if not batch.c.record[k].flags & PT_DROP and batch.c.record[k].lane == lane:
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
            r.caplen = most
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


def reset(NativeBatch batch):
    """Undo all dropping marks: the packets are to be sent once more."""
    cdef uint32_t k
    for k in range(batch.c.n):
        batch.c.record[k].flags &= ~PT_DROP


def lanes(NativeBatch batch):
    return [batch.c.record[k].lane for k in range(batch.c.n)]


def set_lanes(NativeBatch batch, uint16_t lane, uint32_t start=0, stop=None):
    cdef uint32_t k, end = batch.c.n if stop is None else stop
    check_range(batch, start, end)
    for k in range(start, end):
        batch.c.record[k].lane = lane


def swap_lanes(NativeBatch batch):
    cdef uint32_t k
    for k in range(batch.c.n):
        if batch.c.record[k].lane < 2:
            batch.c.record[k].lane = 1 - batch.c.record[k].lane


def lanes_from_cache(NativeBatch batch, const unsigned char[:] bits, uint64_t first):
    """Lanes by two bits a packet, the first packet in the lowest ones: upper bit send, lower bit primary."""
    cdef uint32_t k
    cdef uint64_t at
    cdef int pair
    if (first + batch.c.n + 3) // 4 > <uint64_t>bits.shape[0]:
        raise ValueError(f"no word on packet {bits.shape[0] * 4 + 1}")
    for k in range(batch.c.n):
        at = first + k
        pair = bits[at >> 2] >> (at & 3) * 2 & 3
        batch.c.record[k].lane = (0 if pair & 1 else 1) if pair & 2 else PT_NO_LANE


def cache_bits(NativeBatch batch):
    """Two bits a record, one in each byte: as in a cache, not packed yet."""
    cdef uint32_t k
    out = bytearray(batch.c.n)
    cdef unsigned char[:] view = out
    for k in range(batch.c.n):
        view[k] = 3 if batch.c.record[k].lane == 0 else 2 if batch.c.record[k].lane == 1 else 0
    return out


def keep_matching(NativeBatch batch, uint16_t linktype, const unsigned char[:] program):
    """No lane for the packets of a link type that a BPF program does not match."""
    cdef uint32_t k
    cdef pt_record *r
    cdef const pt_instruction *code = <const pt_instruction *>&program[0] if program.shape[0] else NULL
    if not code or not pt_filter_valid(code, program.shape[0] // 8):
        raise ValueError("not a BPF program")
    with nogil:
        for k in range(batch.c.n):
            r = &batch.c.record[k]
            if batch.c.interfaces.of[r.interface].linktype != linktype:
                continue
            if not pt_filter_run(code, batch.c.bytes + r.data, r.caplen, r.wirelen):
                r.lane = PT_NO_LANE


def lanes_by_hash(NativeBatch batch, uint32_t n):
    batch.locate()
    with nogil:
        pt_lanes_by_hash(&batch.c, n)


def lanes_by_port(NativeBatch batch, const unsigned char[:] servers, uint16_t without):
    if servers.shape[0] != 8192:
        raise ValueError("a bit for each port")
    batch.locate()
    with nogil:
        pt_lanes_by_port(&batch.c, &servers[0], without)


def lanes_by_mac(NativeBatch batch, const unsigned char[:] macs, uint16_t without):
    cdef uint32_t n = macs.shape[0] // 6
    if not n:
        raise ValueError("no MAC address")
    with nogil:
        pt_lanes_by_mac(&batch.c, &macs[0], n, without)


cdef class Hosts:
    cdef pt_hosts c

    def __cinit__(self):
        memset(&self.c, 0, sizeof(pt_hosts))

    def __dealloc__(self):
        pt_hosts_free(&self.c)

    def __len__(self):
        return self.c.n

    cdef int check(self, int verdict) except -1:
        if verdict:
            raise MemoryError("no memory for the table of hosts")
        return 0

    def note(self, NativeBatch batch):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_hosts_note(&self.c, &batch.c)
        self.check(verdict)

    def host(self, uint32_t k):
        if k >= self.c.n:
            raise IndexError(f"host {k} of {self.c.n}")
        cdef const pt_host *h = &self.c.of[k]
        return ((<const char *>h.address)[:16 if h.version == 6 else 4], h.flags, h.client, h.server, h.port)

    def set(self, uint32_t k, uint16_t lane, uint32_t flags=0):
        if k >= self.c.n:
            raise IndexError(f"host {k} of {self.c.n}")
        self.c.of[k].lane = lane
        self.c.of[k].flags |= flags

    def lanes(self, NativeBatch batch, uint16_t without):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_lanes_by_host(&self.c, &batch.c, without)
        self.check(verdict)

    def keep(self, NativeBatch batch, uint32_t bit, ends, bint exclude):
        cdef int verdict, which = {"S": 0, "D": 1, "B": 2, "E": 3}[ends]
        batch.locate()
        with nogil:
            verdict = pt_lanes_keep_hosts(&self.c, &batch.c, bit, which, exclude)
        self.check(verdict)

    def flow_lanes(self, NativeBatch batch, uint16_t without):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_lanes_by_flow(&self.c, &batch.c, without)
        self.check(verdict)

    def sender_lanes(self, NativeBatch batch, uint32_t most):
        cdef int verdict
        cdef uint64_t counts[3]
        memset(counts, 0, sizeof(counts))
        batch.locate()
        with nogil:
            verdict = pt_lanes_by_sender(&self.c, &batch.c, most, counts)
        self.check(verdict)
        return counts[0], counts[1], counts[2]


cdef class FlowSet:
    cdef pt_flow_set c

    def __cinit__(self):
        memset(&self.c, 0, sizeof(pt_flow_set))

    def __dealloc__(self):
        free(self.c.slot)

    def add(self, NativeBatch batch):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_flow_set_add(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for the set of flows")

    @property
    def counts(self):
        return self.c.n, self.c.packets, self.c.others
