# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/flows.h and assemble.h: splitting a capture by flow. The types are described in _flows.pyi."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from pcaptools.core._core cimport NativeBatch, pt_batch, pt_record, PT_NONE


cdef extern from "groups.h" nogil:
    enum: PT_NO_FLOW
    ctypedef struct pt_flow_key:
        uint8_t address[2][16]
        uint16_t port[2]
        uint8_t version, protocol, kind
        uint32_t vlan, extra
    ctypedef struct pt_flow:
        pt_flow_key key
        int64_t first, last
        uint64_t packets[2]
        uint64_t bytes[2]
        uint64_t ordinal
        uint32_t same, group
        uint8_t flags[2]
        uint8_t seen, start, end, client, sender
    ctypedef struct pt_link:
        uint32_t cause
        uint8_t relation
    ctypedef struct pt_vlan_node:
        uint64_t parent, vlan
    ctypedef struct pt_text_node:
        uint64_t parent, word
    ctypedef struct pt_keytable:
        uint32_t n
        uint64_t seed
    ctypedef struct pt_place:
        uint64_t at
        uint32_t size, flow
    ctypedef struct pt_told:
        uint64_t ordinal
        uint32_t record, flow, start, end
        uint8_t kind, way, tcp
    ctypedef struct pt_split:
        pt_keytable flows, datagrams, groups, vlans, texts
        pt_place *place
        pt_told *told
        uint32_t places, tolds
        uint64_t packets, filtered, limit, stream
        int64_t timeout, open_timeout, latest
        uint32_t files, head
        uint8_t by, grouping, inner, ignore_vlan, own_icmp_errors, keep, tells
    void *pt_row(const pt_keytable *t, uint32_t row)
    pt_flow *pt_flow_at(const pt_split *s, uint32_t flow)
    pt_link pt_link_of(const pt_split *s, uint32_t flow)
    uint32_t pt_flow_resolved(const pt_split *s, uint32_t flow)
    int pt_split_begin(pt_split *s)
    int pt_split_batch(pt_split *s, const pt_batch *b)
    int pt_relate(pt_split *s, uint32_t flow, uint32_t cause, int relation)
    int pt_forget_datagrams(pt_split *s, int64_t time)
    int pt_assign_groups(pt_split *s, int finish)
    uint32_t pt_group_count(const pt_split *s)
    int pt_sort_places(const pt_split *s, uint32_t n, uint32_t *order, uint32_t *first)
    uint32_t pt_settled(const pt_split *s)
    void pt_split_free(pt_split *s)

cdef extern from "assemble.h" nogil:
    ctypedef struct pt_section:
        uint32_t size
    ctypedef struct pt_description:
        uint32_t size
    ctypedef struct pt_heads:
        pt_section *section
        pt_description *interface
        uint32_t sections, interfaces
        uint64_t others
        uint8_t pcapng
    ctypedef struct pt_piece:
        size_t n
    ctypedef struct pt_cursor:
        pass
    ctypedef struct pt_stream:
        const uint8_t *bytes
        uint64_t at, size
    int pt_keep_heads(pt_heads *h, const pt_batch *b, uint64_t stream)
    void pt_heads_free(pt_heads *h)
    ctypedef struct pt_numbered:
        uint32_t number
    ctypedef struct pt_numbers:
        pt_numbered *interface
    int pt_numbers_begin(pt_numbers *numbers, const pt_heads *h)
    void pt_cursor_begin(pt_cursor *c, pt_numbers *numbering, const uint32_t *order, uint32_t next, uint32_t end, int append)
    size_t pt_assemble(const pt_split *s, const pt_heads *h, pt_cursor *c, const pt_stream *stream, pt_piece *left,
                       uint8_t *out, size_t room)
    uint64_t pt_assembled_size(const pt_split *s, const pt_heads *h, pt_cursor c, const pt_stream *stream)

cdef extern from "listing.h" nogil:
    enum: PT_LINE, PT_NAME
    char *pt_put_flow(char *out, const pt_split *s, uint32_t row, uint32_t number, const char *name)

# What files/_many.pyx takes out of the capsule.
cdef extern from "parts.h" nogil:
    ctypedef struct pt_parts:
        pt_split split
        pt_heads heads
        pt_stream stream
        uint32_t *order
        uint32_t *first
        uint32_t groups


cdef class FlowTable:
    cdef pt_parts c
    cdef Py_buffer buffer
    cdef bint held
    cdef pt_numbers numbers
    cdef uint32_t *listed
    cdef uint32_t listed_n

    def __cinit__(self, *, by, grouping, limit=0, files=0, inner=False, ignore_vlan=False, own_icmp_errors=False, timeout=0,
                  open_timeout=0, tells=0, keep=True, pcapng=False, seed=0):
        memset(&self.c, 0, sizeof(pt_parts))
        self.c.split.by = by
        self.c.split.grouping = grouping
        self.c.split.limit = limit
        self.c.split.files = files
        self.c.split.inner = inner
        self.c.split.ignore_vlan = ignore_vlan
        self.c.split.own_icmp_errors = own_icmp_errors
        self.c.split.timeout = timeout
        self.c.split.open_timeout = open_timeout
        self.c.split.tells = tells
        self.c.split.keep = keep
        self.c.split.flows.seed = seed & 0xFFFFFFFFFFFFFFFF
        self.c.heads.pcapng = pcapng
        if pt_split_begin(&self.c.split):
            raise MemoryError()

    def __dealloc__(self):
        self.release()
        free(self.numbers.interface)
        free(self.listed)
        free(self.c.order)
        free(self.c.first)
        pt_split_free(&self.c.split)
        pt_heads_free(&self.c.heads)

    def index(self, NativeBatch batch):
        cdef int verdict
        cdef uint32_t k
        batch.locate()
        with nogil:
            verdict = pt_keep_heads(&self.c.heads, &batch.c, self.c.split.stream)
            if not verdict:
                self.c.split.head = 24
                if self.c.heads.sections:
                    self.c.split.head = self.c.heads.section[self.c.heads.sections - 1].size
                    if self.c.heads.interfaces:
                        self.c.split.head += self.c.heads.interface[self.c.heads.interfaces - 1].size
                verdict = pt_split_batch(&self.c.split, &batch.c)
        if verdict:
            raise MemoryError("no memory for the flow table")

    def told(self, NativeBatch batch):
        cdef uint32_t k
        cdef const pt_told *t
        cdef const pt_record *r
        cdef const char *p
        found = []
        for k in range(self.c.split.tolds):
            t = &self.c.split.told[k]
            r = &batch.c.record[t.record]
            p = <const char *>batch.c.bytes + r.data
            found.append((t.ordinal, t.flow, t.kind, t.way, bool(t.tcp), r.time, p[t.start:t.end]))
        return found

    @property
    def packets(self):
        return self.c.split.packets

    @property
    def tells(self):
        return self.c.split.tells

    @property
    def pcapng(self):
        return bool(self.c.heads.pcapng)

    @property
    def filtered(self):
        return self.c.split.filtered

    @property
    def stream(self):
        return self.c.split.stream

    @property
    def flows(self):
        return self.c.split.flows.n

    @property
    def places(self):
        return self.c.split.places

    @property
    def other_blocks(self):
        return self.c.heads.others

    @property
    def groups(self):
        return pt_group_count(&self.c.split)

    def ordinal(self, uint32_t flow):
        if flow >= self.c.split.flows.n:
            raise IndexError(f"flow {flow} of {self.c.split.flows.n}")
        return pt_flow_at(&self.c.split, flow).ordinal

    cdef tuple vlans(self, uint32_t node):
        stack = []
        cdef const pt_vlan_node *one
        while node:
            one = <const pt_vlan_node *>pt_row(&self.c.split.vlans, node)
            stack.append(one.vlan)
            node = one.parent
        return tuple(reversed(stack))

    cdef str call(self, uint32_t node):
        """The Call-ID of a call."""
        cdef const pt_text_node *one
        text = b""
        while node:
            one = <const pt_text_node *>pt_row(&self.c.split.texts, node)
            text = (<const char *>&one.word)[:one.parent >> 32] + text
            node = <uint32_t>one.parent
        return text.decode("latin-1")

    def row(self, uint32_t flow):
        if flow >= self.c.split.flows.n:
            raise IndexError(f"flow {flow} of {self.c.split.flows.n}")
        cdef const pt_flow *f = pt_flow_at(&self.c.split, flow)
        cdef int size = 16 if f.key.version == 6 else 4
        cdef int a = f.client, b = 1 - f.client
        cdef const char *first = <const char *>f.key.address[a]
        cdef const char *second = <const char *>f.key.address[b]
        cdef uint64_t number
        cdef pt_link link = pt_link_of(&self.c.split, flow)
        extra = self.call(f.key.extra) if f.key.kind == 0 and f.key.extra else f.key.extra
        memcpy(&number, f.key.address[0], 8)
        return (f.key.kind, f.key.version, f.key.protocol, first[:size], f.key.port[a], second[:size], f.key.port[b],
                extra, <int64_t>number, self.vlans(f.key.vlan), f.first, f.last, f.packets[a], f.packets[b],
                f.bytes[a], f.bytes[b], f.flags[a], f.flags[b], f.seen, f.start, f.end, link.relation,
                None if link.cause == PT_NONE else link.cause, f.group, f.sender == f.client)

    def is_merged(self, uint32_t flow):
        if flow >= self.c.split.flows.n:
            raise IndexError(f"flow {flow} of {self.c.split.flows.n}")
        return pt_flow_at(&self.c.split, flow).same != PT_NONE

    def resolved(self, uint32_t flow):
        if flow >= self.c.split.flows.n:
            raise IndexError(f"flow {flow} of {self.c.split.flows.n}")
        return pt_flow_resolved(&self.c.split, flow)

    def order(self):
        """The rows that are not part of others, in order of first packets."""
        self.list_rows()
        return [self.listed[k] for k in range(self.listed_n)]

    cdef list_rows(self):
        cdef uint32_t k, row, n = 0
        cdef uint8_t *met = <uint8_t *>calloc(self.c.split.flows.n, 1)
        free(self.listed)
        self.listed = <uint32_t *>malloc(self.c.split.flows.n * sizeof(uint32_t))
        if not met or not self.listed:
            free(met)
            raise MemoryError("no memory for the list of flows")
        for k in range(1, self.c.split.flows.n):
            row = pt_flow_resolved(&self.c.split, k)
            if not met[row]:
                met[row] = 1
                self.listed[n] = row
                n += 1
        free(met)
        self.listed_n = n

    def text(self, uint32_t start, size_t size, const uint8_t[::1] left_out, protocols):
        """The flows from number start + 1 on as lines, up to `size` bytes or to one that needs other words. Returns
        (lines, number of the last flow that was looked at, row of the one without a line or None)."""
        cdef char[256][PT_NAME] names
        cdef char *out
        cdef char *end
        cdef char *line
        cdef uint32_t k, row = 0, group
        cdef bint other = False
        if not start:
            self.list_rows()
        for k, name in enumerate(protocols):
            memcpy(names[k], <const char *>name, len(name) + 1)
        text = bytearray(size + PT_LINE)
        out = end = text
        k = start
        while k < self.listed_n and not other and end - out < <ptrdiff_t>size:
            row = self.listed[k]
            k += 1
            group = pt_flow_at(&self.c.split, row).group
            if group < left_out.shape[0] and left_out[group]:
                continue
            line = end
            end = pt_put_flow(line, &self.c.split, row, k, names[pt_flow_at(&self.c.split, row).key.protocol])
            other = end == line
        return out[:end - out].decode("ascii"), k, row if other else None

    def group(self, uint32_t flow):
        """The group of a row; None when it has none yet."""
        if flow >= self.c.split.flows.n:
            raise IndexError(f"flow {flow} of {self.c.split.flows.n}")
        return pt_flow_at(&self.c.split, flow).group

    def owners(self):
        """The row of every packet whose place is remembered."""
        cdef uint32_t k
        return [pt_flow_resolved(&self.c.split, self.c.split.place[k].flow) for k in range(self.c.split.places)]

    def relate(self, uint32_t flow, uint32_t cause, int relation):
        if flow >= self.c.split.flows.n or cause >= self.c.split.flows.n:
            raise IndexError(f"flow {max(flow, cause)} of {self.c.split.flows.n}")
        cdef int verdict = pt_relate(&self.c.split, flow, cause, relation)
        if verdict < 0:
            raise MemoryError("no memory for what is related")
        return bool(verdict)

    def assign(self, bint finish):
        cdef int verdict
        with nogil:
            verdict = pt_assign_groups(&self.c.split, finish)
        if verdict:
            raise MemoryError("no memory for the table of files")

    def firsts(self, uint32_t start):
        """(flow, group) of the rows from `start` on where a group has one for the first time among these."""
        cdef uint32_t k
        cdef uint32_t groups = pt_group_count(&self.c.split)
        cdef uint8_t *met = <uint8_t *>calloc(groups + 1, 1)
        cdef const pt_flow *f
        found = []
        if not met:
            raise MemoryError()
        try:
            for k in range(start, self.c.split.flows.n):
                f = pt_flow_at(&self.c.split, k)
                if f.group < groups and not met[f.group]:
                    met[f.group] = 1
                    found.append((k, f.group))
        finally:
            free(met)
        return found

    def packets_per_group(self):
        """Packets of every group, and whether a TCP connection that began and ended is in it."""
        cdef uint32_t k, groups = pt_group_count(&self.c.split)
        cdef const pt_flow *f
        cdef list packets = [0] * groups, complete = [False] * groups
        for k in range(self.c.split.flows.n):
            f = pt_flow_at(&self.c.split, k)
            if f.same != PT_NONE or f.group >= groups:
                continue
            packets[f.group] += f.packets[0] + f.packets[1]
            if f.key.protocol == 6 and f.seen & 1 and (f.seen & 16 or f.seen & 12 == 12):
                complete[f.group] = True
        return packets, complete

    def settled(self):
        """Places before the first one whose flow is not known yet."""
        return pt_settled(&self.c.split)

    def forget_datagrams(self, int64_t patience):
        if pt_forget_datagrams(&self.c.split, self.c.split.latest - patience):
            raise MemoryError()

    def hold(self, stream, uint64_t at):
        """The bytes of the stream from offset `at` on; held until released."""
        self.release()
        PyObject_GetBuffer(stream, &self.buffer, PyBUF_SIMPLE)
        self.held = True
        self.c.stream.bytes = <const uint8_t *>self.buffer.buf
        self.c.stream.at = at
        self.c.stream.size = self.buffer.len

    def release(self):
        if self.held:
            PyBuffer_Release(&self.buffer)
        self.held = False
        self.c.stream.bytes = NULL
        self.c.stream.size = 0

    def sort(self, uint32_t n):
        """Order the first n places by group. Returns the groups that have any."""
        cdef uint32_t groups = pt_group_count(&self.c.split), g
        cdef int verdict
        if n > self.c.split.places:
            raise IndexError(f"place {n} of {self.c.split.places}")
        free(self.c.order)
        free(self.c.first)
        self.c.order = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
        self.c.first = <uint32_t *>malloc((<size_t>groups + 2) * sizeof(uint32_t))
        self.c.groups = groups
        if not self.c.order or not self.c.first:
            raise MemoryError("no memory to sort the packets")
        with nogil:
            verdict = pt_sort_places(&self.c.split, n, self.c.order, self.c.first)
        if verdict:
            raise ValueError("a flow has no file")
        return [g for g in range(groups) if self.c.first[g] != self.c.first[g + 1]]

    def span(self, uint32_t n):
        """Offset behind the last byte of the first n places; and where place n begins."""
        cdef uint32_t k
        cdef uint64_t end = 0
        if n > self.c.split.places:
            raise IndexError(f"place {n} of {self.c.split.places}")
        for k in range(n):
            end = max(end, self.c.split.place[k].at + self.c.split.place[k].size)
        return end, self.c.split.place[n].at if n < self.c.split.places else self.c.split.stream

    def discard(self, uint32_t n):
        """Forget the first n places: they are written."""
        if n > self.c.split.places:
            raise IndexError(f"place {n} of {self.c.split.places}")
        memmove(self.c.split.place, self.c.split.place + n, (self.c.split.places - n) * sizeof(pt_place))
        self.c.split.places -= n
        self.c.groups = 0

    def count(self, uint32_t group):
        """Packets of a sorted group."""
        return self.c.first[group + 1] - self.c.first[group] if group < self.c.groups else 0

    def size(self, uint32_t group):
        """Bytes of the file of a sorted group."""
        cdef pt_cursor cursor
        cdef uint64_t size
        if group >= self.c.groups or not self.held:
            raise IndexError(f"group {group} of {self.c.groups}")
        if pt_numbers_begin(&self.numbers, &self.c.heads):
            raise MemoryError()
        with nogil:
            pt_cursor_begin(&cursor, &self.numbers, self.c.order, self.c.first[group], self.c.first[group + 1], 0)
            size = pt_assembled_size(&self.c.split, &self.c.heads, cursor, &self.c.stream)
        return size

    def pieces(self, uint32_t group, bint append, size_t room):
        """The file of a sorted group, in pieces of at most `room` bytes."""
        cdef FlowPieces pieces = FlowPieces(self, room)
        if group >= self.c.groups or not self.held:
            raise IndexError(f"group {group} of {self.c.groups}")
        if pt_numbers_begin(&pieces.numbers, &self.c.heads):
            raise MemoryError()
        pt_cursor_begin(&pieces.cursor, &pieces.numbers, self.c.order, self.c.first[group], self.c.first[group + 1], append)
        return pieces

    def capsule(self):
        """The native state, for files/_many.pyx. Valid as long as this object."""
        return PyCapsule_New(&self.c, "pcaptools.parts", NULL)


cdef class FlowPieces:
    cdef FlowTable table
    cdef pt_cursor cursor
    cdef pt_numbers numbers
    cdef pt_piece left
    cdef size_t room

    def __cinit__(self, FlowTable table, size_t room):
        self.table = table
        self.room = room
        memset(&self.numbers, 0, sizeof(pt_numbers))
        memset(&self.left, 0, sizeof(pt_piece))

    def __dealloc__(self):
        free(self.numbers.interface)

    def __iter__(self):
        return self

    def __next__(self):
        cdef bytearray out = bytearray(self.room)
        cdef uint8_t *p = out
        cdef size_t n
        with nogil:
            n = pt_assemble(&self.table.c.split, &self.table.c.heads, &self.cursor, &self.table.c.stream, &self.left, p,
                            self.room)
        if not n:
            raise StopIteration
        return memoryview(out)[:n]

