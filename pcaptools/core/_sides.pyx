# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Which way packets of a replay go, by lanes of records. Glue over csrc/sides.h. Described in _sides.pyi."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from pcaptools.core._core cimport PT_DROP, NativeBatch, pt_batch, pt_record


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


def drop_lane(NativeBatch batch, uint16_t lane):
    cdef uint32_t k
    cdef uint64_t dropped = 0
    for k in range(batch.c.n):
        if not batch.c.record[k].flags & PT_DROP and batch.c.record[k].lane == lane:
            batch.c.record[k].flags |= PT_DROP
            dropped += 1
    return dropped
