# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What is in a capture: figures, timeline, conversations, protocols, blocks that are no packets. Thin glue over
csrc/stats.h, timeline.h, talkers.h and protocols.h, described in _info.pyi."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pcaptools.core._core cimport NativeBatch, pt_batch, pt_record


cdef extern from "records.h" nogil:
    uint32_t pt_packet_limit(uint16_t linktype)

cdef extern from "stdlib.h":
    void *c_calloc "calloc"(size_t n, size_t size)
    void c_free "free"(void *p)

cdef extern from "stats.h" nogil:
    enum: PT_STATUSES
    ctypedef struct pt_share:
        uint64_t packets, bytes
    ctypedef struct pt_stats:
        uint64_t packets, bytes, captured, cut, overlong, untimed, backward, gap, gap_before, seen
        uint32_t least_cut, most_cut, most_captured, first_interface, last_interface, shares
        int64_t first, last
        pt_share *share
        uint8_t timed
        uint64_t status[6]
        uint64_t least_size, most_size
    ctypedef struct pt_other_block:
        uint32_t type, start, total
    int pt_stats_batch(pt_stats *s, const pt_batch *b)
    int pt_stats_detail(pt_stats *s, const pt_batch *b)
    uint32_t pt_stats_size_at(const pt_stats *s, uint64_t rank)
    void pt_stats_free(pt_stats *s)
    int pt_next_other_block(const pt_batch *b, size_t *at, uint32_t *k, pt_other_block *found)
    void pt_packet_options(const pt_batch *b, const pt_record *r, uint32_t *start, uint32_t *end)

cdef extern from "timeline.h" nogil:
    enum: PT_BIN_KINDS, PT_BURST
    ctypedef struct pt_bin:
        uint64_t packets[6]
        uint64_t bytes[6]
        uint64_t burst_packets, burst_bytes
    ctypedef struct pt_timeline:
        uint32_t used
        pt_bin *bin
    void pt_timeline_batch(pt_timeline *t, const pt_batch *b)
    void pt_timeline_end(pt_timeline *t, int64_t *origin, int64_t *width)

cdef extern from "talkers.h" nogil:
    ctypedef struct pt_talk_key:
        uint8_t address[2][16]
        uint16_t port[2]
        uint8_t version, protocol, flipped, timed
    ctypedef struct pt_talk:
        pt_talk_key key
        uint64_t packets[2]
        uint64_t bytes[2]
        int64_t first, last
    ctypedef struct pt_talkers:
        pt_talk *row
        uint32_t n, limit
        uint64_t seed, other_rows, lost, no_ip_packets, no_ip_bytes
        uint64_t other_packets[2]
        uint64_t other_bytes[2]
        uint8_t endpoints, by
    int pt_talkers_batch(pt_talkers *t, const pt_batch *b)
    uint64_t pt_talk_measure(const pt_talk *row, int by)
    void pt_talkers_free(pt_talkers *t)

cdef extern from "protocols.h" nogil:
    ctypedef struct pt_protocol:
        uint32_t parent, code
        uint64_t packets, bytes
    ctypedef struct pt_protocols:
        pt_protocol *node
        uint32_t n
        uint64_t overflow
        uint8_t *service
    void pt_protocols_batch(pt_protocols *t, const pt_batch *b)


cdef class Figures:
    cdef pt_stats c

    def __cinit__(self):
        memset(&self.c, 0, sizeof(pt_stats))

    def __dealloc__(self):
        pt_stats_free(&self.c)

    def add(self, NativeBatch batch):
        cdef int verdict
        with nogil:
            verdict = pt_stats_batch(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for figures")

    def add_detail(self, NativeBatch batch):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_stats_detail(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for figures")

    def size_at(self, uint64_t rank):
        return pt_stats_size_at(&self.c, rank)

    @property
    def interfaces(self):
        return [(self.c.share[k].packets, self.c.share[k].bytes) for k in range(self.c.shares)]

    @property
    def packets(self):
        return self.c.packets

    @property
    def bytes(self):
        return self.c.bytes

    @property
    def captured(self):
        return self.c.captured

    @property
    def cut(self):
        return self.c.cut

    @property
    def overlong(self):
        return self.c.overlong

    @property
    def untimed(self):
        return self.c.untimed

    @property
    def backward(self):
        return self.c.backward

    @property
    def gap(self):
        return self.c.gap

    @property
    def gap_before(self):
        return self.c.gap_before

    @property
    def least_cut(self):
        return self.c.least_cut

    @property
    def most_cut(self):
        return self.c.most_cut

    @property
    def most_captured(self):
        return self.c.most_captured

    @property
    def first_interface(self):
        return self.c.first_interface

    @property
    def last_interface(self):
        return self.c.last_interface

    @property
    def first(self):
        return self.c.first

    @property
    def last(self):
        return self.c.last

    @property
    def least_size(self):
        return self.c.least_size

    @property
    def most_size(self):
        return self.c.most_size

    @property
    def timed(self):
        return bool(self.c.timed)

    @property
    def status(self):
        return [self.c.status[k] for k in range(PT_STATUSES)]


cdef class Timeline:
    cdef pt_timeline *c

    def __cinit__(self):
        self.c = <pt_timeline *>c_calloc(1, sizeof(pt_timeline))
        if not self.c:
            raise MemoryError()

    def __dealloc__(self):
        c_free(self.c)

    def add(self, NativeBatch batch):
        batch.locate()
        with nogil:
            pt_timeline_batch(self.c, &batch.c)

    def end(self):
        cdef int64_t origin, width
        cdef uint32_t k
        pt_timeline_end(self.c, &origin, &width)
        bins = [([self.c.bin[k].packets[i] for i in range(PT_BIN_KINDS)], [self.c.bin[k].bytes[i] for i in range(PT_BIN_KINDS)],
                 self.c.bin[k].burst_packets, self.c.bin[k].burst_bytes) for k in range(self.c.used)]
        return origin, width, PT_BURST, bins


cdef class Talkers:
    cdef pt_talkers c

    def __cinit__(self, endpoints, by, limit, seed):
        memset(&self.c, 0, sizeof(pt_talkers))
        self.c.endpoints = endpoints
        self.c.by = {"bytes": 0, "packets": 1, "time": 2}[by]
        self.c.limit = max(limit, 2)
        self.c.seed = seed & 0xFFFFFFFFFFFFFFFF

    def __dealloc__(self):
        pt_talkers_free(&self.c)

    def add(self, NativeBatch batch):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_talkers_batch(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for the table of conversations")

    def top(self, size_t n):
        cdef uint32_t k
        cdef const pt_talk *row
        found = []
        order = sorted(range(self.c.n), key=lambda k: (-self.measure(k), k))[:n]
        for k in order:
            row = &self.c.row[k]
            size = 16 if row.key.version == 6 else 4
            ends = [((<const char *>row.key.address[side])[:size], row.key.port[side]) for side in range(2)]
            found.append((row.key.protocol, bool(row.key.flipped), ends[0], ends[1], (row.packets[0], row.packets[1]),
                          (row.bytes[0], row.bytes[1]), row.first if row.key.timed else None,
                          row.last if row.key.timed else None))
        return found

    def measure(self, uint32_t k):
        return pt_talk_measure(&self.c.row[k], self.c.by) if k < self.c.n else 0

    @property
    def rows(self):
        return self.c.n

    @property
    def sums(self):
        cdef uint32_t k
        cdef uint64_t packets = 0, bytes = 0
        for k in range(self.c.n):
            packets += self.c.row[k].packets[0] + self.c.row[k].packets[1]
            bytes += self.c.row[k].bytes[0] + self.c.row[k].bytes[1]
        return packets, bytes

    @property
    def other(self):
        return (self.c.other_rows, self.c.other_packets[0] + self.c.other_packets[1],
                self.c.other_bytes[0] + self.c.other_bytes[1], self.c.lost)

    @property
    def no_ip(self):
        return self.c.no_ip_packets, self.c.no_ip_bytes


cdef class ProtocolTree:
    cdef pt_protocols *c

    def __cinit__(self, services):
        self.c = <pt_protocols *>c_calloc(1, sizeof(pt_protocols))
        if not self.c:
            raise MemoryError()
        cdef int number
        for number in services:
            self.c.service[number >> 3 & 8191] |= 1 << (number & 7)

    def __dealloc__(self):
        c_free(self.c)

    def add(self, NativeBatch batch):
        batch.locate()
        with nogil:
            pt_protocols_batch(self.c, &batch.c)

    @property
    def nodes(self):
        return [(self.c.node[k].parent, self.c.node[k].code >> 16, self.c.node[k].code & 0xFFFF, self.c.node[k].packets,
                 self.c.node[k].bytes) for k in range(self.c.n)]

    @property
    def overflow(self):
        return self.c.overflow


def packet_limit(uint16_t linktype):
    return pt_packet_limit(linktype)


def other_blocks(NativeBatch batch):
    cdef size_t at = 0
    cdef uint32_t k = 0
    cdef pt_other_block found
    blocks = []
    while pt_next_other_block(&batch.c, &at, &k, &found):
        blocks.append((found.type, found.start, found.total))
    return blocks


def packet_options(NativeBatch batch):
    cdef uint32_t k, start, end
    spans = []
    for k in range(batch.c.n):
        pt_packet_options(&batch.c, &batch.c.record[k], &start, &end)
        if end:
            spans.append((k, start, end))
    return spans
