# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/*.h: buffers in, GIL released, C called. The types are described in _core.pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memcpy, memset


cdef extern from "records.h" nogil:
    ctypedef struct pt_cutter:
        pt_interfaces interfaces
        uint32_t section, limit
        uint8_t format, swapped, nanoseconds, header, swapped_lengths, damage
        size_t damage_at, need
        uint64_t damage_value

    enum: PT_MAX_BLOCK
    uint32_t pt_packet_limit(uint16_t linktype)
    void pt_set_resolution(pt_interface *i, uint8_t resolution)
    pt_interface *pt_add_interface(pt_interfaces *all)
    void pt_free_interfaces(pt_interfaces *all)
    int pt_cut(pt_cutter *c, pt_batch *b)
    void pt_compact(pt_batch *b)
    void pt_drop_stale_options(pt_batch *b)
    void pt_forget_section_length(pt_batch *b)
    int pt_batch_reserve(pt_batch *b, size_t capacity)
    void pt_batch_free(pt_batch *b)

cdef extern from "headers.h" nogil:
    int pt_locate(pt_batch *b)

cdef extern from "checksums.h" nogil:
    enum: PT_SUMS
    ctypedef struct pt_sum_counts:
        uint64_t header[6]
        uint64_t transport[6]
    void pt_batch_sums(pt_batch *b, int fix, pt_sum_counts *counts)

cdef extern from "convert.h" nogil:
    uint64_t pt_to_pcap(pt_batch *b, int nanoseconds, uint64_t *outside)
    size_t pt_pcapng_size(const pt_batch *b)
    int pt_to_pcapng(pt_batch *b, pt_batch *out, const uint32_t *interface, uint64_t *outside)

cdef extern from "filter.h" nogil:
    ctypedef struct pt_instruction:
        pass
    int pt_filter_valid(const pt_instruction *f, uint32_t n)
    uint64_t pt_filter(pt_batch *b, uint16_t linktype, const pt_instruction *f)

cdef extern from "fit.h" nogil:
    enum: PT_UNFIT_LINKTYPE, PT_UNFIT_EMPTY, PT_UNFIT_SHORT, PT_UNFIT_LONG, PT_UNFITS
    ctypedef struct pt_carrier:
        uint16_t linktype[8]
        uint32_t linktypes, least, largest, tag
    void pt_mark_unfit(const pt_carrier *c, pt_batch *b, uint32_t start, uint32_t stop, uint64_t *counts)


cdef tuple layer_tuple(const pt_layer *l):
    return (None if l.ip == PT_NONE else l.ip, None if l.transport == PT_NONE else l.transport, l.end, l.version,
            l.protocol, l.status, l.flags)


cdef class NativeBatch:
    def __cinit__(self, capacity=1 << 20):
        memset(&self.c, 0, sizeof(pt_batch))
        self.reserve(capacity)

    def __dealloc__(self):
        pt_batch_free(&self.c)

    @property
    def n(self):
        return self.c.n

    @property
    def used(self):
        return self.c.used

    @property
    def filled(self):
        return self.c.filled

    @property
    def capacity(self):
        return self.c.capacity

    @property
    def pcapng(self):
        return self.c.format == PT_PCAPNG

    @property
    def swapped(self):
        return bool(self.c.swapped)

    def reserve(self, size_t capacity):
        if pt_batch_reserve(&self.c, capacity):
            raise MemoryError(f"no memory for a record of {capacity} bytes")

    def clear(self):
        self.c.n = 0
        self.c.used = self.c.filled = 0
        self.c.located = 0

    def swap(self, NativeBatch other):
        self.c, other.c = other.c, self.c
        self.interfaces_owner, other.interfaces_owner = other.interfaces_owner, self.interfaces_owner

    def give_bytes(self, NativeBatch other):
        cdef uint8_t *bytes = other.c.bytes
        cdef size_t capacity = other.c.capacity
        other.c.bytes, other.c.capacity = self.c.bytes, self.c.capacity
        other.c.used, other.c.filled, other.c.n, other.c.located = self.c.used, self.c.filled, 0, 0
        self.c.bytes, self.c.capacity = bytes, capacity
        self.clear()

    def append(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.reserve(self.c.filled + view.len)
            memcpy(self.c.bytes + self.c.filled, view.buf, view.len)
            self.c.filled += view.len
        finally:
            PyBuffer_Release(&view)

    def room(self):
        return PyMemoryView_FromMemory(<char *>self.c.bytes + self.c.filled, self.c.capacity - self.c.filled, PyBUF_WRITE)

    def fill(self, size_t size):
        if size > self.c.capacity - self.c.filled:
            raise ValueError(f"{size} bytes do not fit")
        self.c.filled += size

    def skip(self, size_t size):
        if size > self.c.filled - self.c.used or self.c.n:
            raise ValueError(f"{size} bytes are not there to skip")
        self.c.used += size

    def view(self):
        return PyMemoryView_FromMemory(<char *>self.c.bytes, self.c.used, PyBUF_WRITE)

    def rest(self):
        return (<const char *>self.c.bytes)[self.c.used:self.c.filled]

    def record(self, size_t k):
        if k >= self.c.n:
            raise IndexError(f"record {k} of {self.c.n}")
        cdef const pt_record *r = &self.c.record[k]
        return (r.time, r.start, r.end, r.data, r.caplen, r.wirelen, r.interface, r.flags, r.reason)

    def time(self, size_t k):
        if k >= self.c.n:
            raise IndexError(f"record {k} of {self.c.n}")
        return self.c.record[k].time

    def run(self, size_t start, int64_t until, bint inclusive):
        cdef size_t k = start + 1
        while k < self.c.n and (self.c.record[k].time < until or (inclusive and self.c.record[k].time == until)):
            k += 1
        return k

    def time_range(self):
        cdef uint32_t k
        cdef int64_t first, last
        if not self.c.n:
            return ()
        first = last = self.c.record[0].time
        for k in range(1, self.c.n):
            first = min(first, self.c.record[k].time)
            last = max(last, self.c.record[k].time)
        return first, last

    def packet(self, size_t k):
        if k >= self.c.n:
            raise IndexError(f"record {k} of {self.c.n}")
        cdef const pt_record *r = &self.c.record[k]
        return PyMemoryView_FromMemory(<char *>self.c.bytes + r.data, r.caplen, PyBUF_WRITE)

    def linktype(self, size_t k):
        if k >= self.c.n:
            raise IndexError(f"record {k} of {self.c.n}")
        return self.c.interfaces.of[self.c.record[k].interface].linktype

    @property
    def linktypes(self):
        if self.c.interfaces == NULL:
            return []
        return [self.c.interfaces.of[k].linktype for k in range(self.c.interfaces.n)]

    def drop(self, size_t k):
        if k >= self.c.n:
            raise IndexError(f"record {k} of {self.c.n}")
        self.c.record[k].flags |= PT_DROP

    def locate(self):
        cdef int verdict
        with nogil:
            verdict = pt_locate(&self.c)
        if verdict:
            raise MemoryError("no memory for header locations")

    def where(self, size_t k):
        self.locate()
        if k >= self.c.n:
            raise IndexError(f"record {k} of {self.c.n}")
        cdef const pt_where *o = &self.c.where[k]
        return (None if o.ethernet == PT_NONE else o.ethernet, None if o.network == PT_NONE else o.network, o.ethertype,
                o.status, o.depth, layer_tuple(&o.outer), layer_tuple(&o.inner))

    def compact(self):
        with nogil:
            pt_compact(&self.c)

    def drop_stale_options(self):
        with nogil:
            pt_drop_stale_options(&self.c)

    def forget_section_length(self):
        pt_forget_section_length(&self.c)

    def sums(self, bint fix):
        cdef pt_sum_counts counts
        memset(&counts, 0, sizeof(counts))
        with nogil:
            pt_batch_sums(&self.c, fix, &counts)
        return [counts.header[k] for k in range(PT_SUMS)], [counts.transport[k] for k in range(PT_SUMS)]

    def mark_unfit(self, uint32_t start, uint32_t stop, linktypes, uint32_t largest, uint32_t least, uint32_t tag):
        cdef pt_carrier carrier
        cdef uint64_t counts[PT_UNFITS]
        if stop > self.c.n or start > stop or len(linktypes) > 8:
            raise ValueError(f"records {start} to {stop} of {self.c.n}, {len(linktypes)} link types of at most 8")
        carrier.linktypes = len(linktypes)
        for k, linktype in enumerate(linktypes):
            carrier.linktype[<int>k] = linktype
        carrier.largest = largest
        carrier.least = least
        carrier.tag = tag
        memset(counts, 0, sizeof(counts))
        with nogil:
            pt_mark_unfit(&carrier, &self.c, start, stop, counts)
        return {"linktype": counts[PT_UNFIT_LINKTYPE], "empty": counts[PT_UNFIT_EMPTY], "short": counts[PT_UNFIT_SHORT],
                "long": counts[PT_UNFIT_LONG]}

    def drop_other_linktypes(self, uint32_t linktype):
        cdef uint32_t k, dropped = 0
        for k in range(self.c.n):
            if self.c.interfaces.of[self.c.record[k].interface].linktype != linktype:
                self.c.record[k].flags |= PT_DROP
                dropped += 1
        return dropped

    def to_pcap(self, bint nanoseconds):
        cdef uint64_t inexact, outside = 0
        with nogil:
            inexact = pt_to_pcap(&self.c, nanoseconds, &outside)
        return inexact, outside

    def to_pcapng(self, NativeBatch out, numbers):
        cdef size_t k, n = len(numbers)
        cdef uint64_t outside = 0
        cdef int verdict
        if not self.c.n:
            return 0
        if n < self.c.interfaces.n:
            raise ValueError("an interface has no number")
        cdef uint32_t *interface = <uint32_t *>PyMem_Malloc(n * sizeof(uint32_t))
        if not interface:
            raise MemoryError()
        try:
            for k in range(n):
                interface[k] = numbers[k]
            out.reserve(out.c.used + pt_pcapng_size(&self.c))
            out.c.format = PT_PCAPNG
            out.c.swapped = 0
            out.c.located = 0
            out.c.interfaces = self.c.interfaces
            out.interfaces_owner = self.interfaces_owner
            with nogil:
                verdict = pt_to_pcapng(&self.c, &out.c, interface, &outside)
            if verdict:
                raise MemoryError("no memory for records")
            return outside
        finally:
            PyMem_Free(interface)


cdef class Cutter:
    cdef pt_cutter c

    def __cinit__(self, format, *, swapped=False, nanoseconds=False, header=16, swapped_lengths=0, linktype=None,
                  snaplen=0):
        cdef pt_interface *interface
        memset(&self.c, 0, sizeof(pt_cutter))
        self.c.format = {"pcap": PT_PCAP, "pcapng": PT_PCAPNG}[format]
        self.c.swapped = swapped
        self.c.nanoseconds = nanoseconds
        self.c.header = header
        self.c.swapped_lengths = swapped_lengths
        if linktype is not None:
            interface = pt_add_interface(&self.c.interfaces)
            if not interface:
                raise MemoryError()
            interface.linktype = linktype
            interface.snaplen = snaplen
            pt_set_resolution(interface, 9 if nanoseconds else 6)
            self.c.limit = pt_packet_limit(linktype)

    def __dealloc__(self):
        pt_free_interfaces(&self.c.interfaces)

    def cut(self, NativeBatch batch):
        cdef int verdict
        batch.interfaces_owner = self
        with nogil:
            verdict = pt_cut(&self.c, &batch.c)
        return verdict == 0

    @property
    def need(self):
        return self.c.need

    @property
    def limit(self):
        return self.c.limit

    @property
    def damage(self):
        return (self.c.damage, self.c.damage_at, self.c.damage_value) if self.c.damage else None

    @property
    def interfaces(self):
        return [self.interface(k) for k in range(self.c.interfaces.n)]

    @property
    def interface_count(self):
        return self.c.interfaces.n

    def interface(self, size_t k):
        if k >= self.c.interfaces.n:
            raise IndexError(f"interface {k} of {self.c.interfaces.n}")
        cdef const pt_interface *i = &self.c.interfaces.of[k]
        return (i.linktype, i.snaplen, i.resolution, i.offset)


cdef class Program:
    cdef pt_instruction *code
    cdef uint32_t n
    cdef uint16_t of_linktype

    def __cinit__(self, linktype, instructions):
        cdef const unsigned char *field = instructions
        cdef size_t size = len(instructions)
        self.of_linktype = linktype
        self.n = size // sizeof(pt_instruction)
        self.code = <pt_instruction *>PyMem_Malloc(size)
        if not self.code:
            raise MemoryError()
        memcpy(self.code, field, size)
        if not pt_filter_valid(self.code, self.n):
            raise ValueError("not a valid BPF program")

    def __dealloc__(self):
        PyMem_Free(self.code)

    def drop_others(self, NativeBatch batch):
        cdef uint64_t dropped
        with nogil:
            dropped = pt_filter(&batch.c, self.of_linktype, self.code)
        return dropped
