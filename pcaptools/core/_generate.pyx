# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Glue over csrc/generate.h and mix.h: batches of packets that are made. Described in _generate.pyi."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pcaptools.core._core cimport NativeBatch, pt_batch, pt_interface, pt_interfaces


cdef extern from "records.h" nogil:
    void pt_set_resolution(pt_interface *i, uint8_t resolution)
    pt_interface *pt_add_interface(pt_interfaces *all)
    void pt_free_interfaces(pt_interfaces *all)

cdef extern from "mix.h" nogil:
    enum: PT_LINK_ROOM, PT_KINDS, PT_SIZE_CLASSES
    ctypedef struct pt_random:
        pass
    ctypedef struct pt_link:
        uint8_t bytes[64]
        uint8_t size, tag
    ctypedef struct pt_maker:
        pt_interfaces interfaces
        pt_random random
        int64_t start
        uint32_t least
        uint8_t nanoseconds
    ctypedef struct pt_flood:
        pt_maker maker
        pt_link link
        uint8_t source[16]
        uint8_t target[16]
        uint64_t addresses, left, whole, part, divisor
        uint32_t port, first_port, last_port
        uint16_t dport
        uint8_t version
    ctypedef struct pt_pair:
        uint16_t port[2]
        uint16_t vlan
        uint8_t v6, kind
    ctypedef struct pt_counts:
        uint64_t packets, bytes, tcp, udp, ipv6, vlan, ipv6_flows, vlan_flows
        uint64_t flows[6]
        uint64_t syn, syn_ack, fin, rst, retransmissions, syn_retransmissions, out_of_order, reused
        uint64_t dns_queries, dns_responses, dns_missing, http_requests, http_responses
        uint64_t classes[48]
    ctypedef struct pt_large:
        pt_pair pair
        uint64_t packets, bytes
        int64_t begun, ended
    ctypedef struct pt_mix:
        pt_maker maker
        pt_link link[2][2][2]
        uint64_t flows, packets, vlan_share, ipv6_share, loss, reorder
        int64_t duration
        pt_counts counts
        pt_large largest[16]
        uint32_t largest_n
    void pt_seed(pt_random *r, uint64_t seed)
    int pt_flood_fill(pt_flood *f, pt_batch *b)
    void pt_mix_begin(pt_mix *m, uint64_t seed)
    int pt_mix_fill(pt_mix *m, pt_batch *b)
    void pt_host_address(const pt_pair *pair, int side, uint8_t *address)


cdef int set_maker(pt_maker *maker, linktype, start, least, nanoseconds) except -1:
    cdef pt_interface *interface = pt_add_interface(&maker.interfaces)
    if not interface:
        raise MemoryError()
    interface.linktype = linktype
    pt_set_resolution(interface, 9 if nanoseconds else 6)
    maker.start = start
    maker.least = least
    maker.nanoseconds = nanoseconds
    return 0


cdef int set_link(pt_link *link, header, bint tagged) except -1:
    """header: a link layer header; tagged: its last four bytes are the number of a VLAN and a type."""
    cdef const unsigned char *field = header
    if len(header) > PT_LINK_ROOM:
        raise ValueError("link layer header too long")
    memcpy(link.bytes, field, len(header))
    link.size = len(header)
    link.tag = len(header) - 4 if tagged else 0
    return 0


cdef class Flood:
    cdef pt_flood c

    def __cinit__(self, *, linktype, header, source, target, addresses, ports, dport, packets, interval, start, seed,
                  least=0, nanoseconds=False):
        cdef const unsigned char *field
        memset(&self.c, 0, sizeof(pt_flood))
        set_maker(&self.c.maker, linktype, start, least, nanoseconds)
        set_link(&self.c.link, header, False)
        if len(source) not in (4, 16) or len(source) != len(target):
            raise ValueError("an address has 4 or 16 bytes")
        field = source
        memcpy(self.c.source, field, len(source))
        field = target
        memcpy(self.c.target, field, len(target))
        self.c.version = 4 if len(source) == 4 else 6
        self.c.addresses = addresses
        self.c.first_port, self.c.last_port = ports
        self.c.port = self.c.first_port
        self.c.dport = dport
        self.c.left = packets
        self.c.whole, self.c.part, self.c.divisor = interval
        pt_seed(&self.c.maker.random, seed)

    def __dealloc__(self):
        pt_free_interfaces(&self.c.maker.interfaces)

    def fill(self, NativeBatch batch):
        cdef int verdict
        batch.interfaces_owner = self
        with nogil:
            verdict = pt_flood_fill(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for records")
        return batch.c.n > 0


cdef class Mix:
    cdef pt_mix *c

    def __cinit__(self, *, linktype, headers, flows, packets, duration, start, seed, vlan_share, ipv6_share, loss, reorder,
                  least=0, nanoseconds=False):
        self.c = <pt_mix *>PyMem_Malloc(sizeof(pt_mix))
        if not self.c:
            raise MemoryError()
        memset(self.c, 0, sizeof(pt_mix))
        set_maker(&self.c.maker, linktype, start, least, nanoseconds)
        for (v6, side, tagged), header in headers.items():
            set_link(&self.c.link[v6][side][tagged], header, tagged)
        if not 0 < flows <= packets or duration <= 0:
            raise ValueError("a flow has a packet, and they take time")
        self.c.flows = flows
        self.c.packets = packets
        self.c.duration = duration
        self.c.vlan_share = vlan_share
        self.c.ipv6_share = ipv6_share
        self.c.loss = loss
        self.c.reorder = reorder
        pt_mix_begin(self.c, seed)

    def __dealloc__(self):
        if self.c:
            pt_free_interfaces(&self.c.maker.interfaces)
        PyMem_Free(self.c)

    def fill(self, NativeBatch batch):
        cdef int verdict
        batch.interfaces_owner = self
        with nogil:
            verdict = pt_mix_fill(self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for records")
        return batch.c.n > 0

    @property
    def counts(self):
        counts = dict(self.c.counts)
        counts["flows"] = [self.c.counts.flows[k] for k in range(PT_KINDS)]
        counts["classes"] = [self.c.counts.classes[k] for k in range(PT_SIZE_CLASSES)]
        return counts

    @property
    def largest(self):
        cdef uint8_t address[16]
        cdef const pt_large *one
        found = []
        for k in range(self.c.largest_n):
            one = &self.c.largest[k]
            size = 16 if one.pair.v6 else 4
            ends = []
            for side in range(2):
                pt_host_address(&one.pair, side, address)
                ends.append(((<const char *>address)[:size], one.pair.port[side]))
            found.append((one.pair.kind, *ends, one.pair.vlan, one.packets, one.bytes, one.begun, one.ended))
        return found
