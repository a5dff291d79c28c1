# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Glue over the headers of pcaprewrite's edits. Described in _edits.pyi."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from pcaptools.core._core cimport PT_PCAP, NativeBatch, pt_batch, pt_interface, pt_interfaces, pt_record


cdef extern from "rewrite.h" nogil:
    ctypedef struct pt_map_rule:
        uint32_t mask[4]
        uint32_t to[4]
        uint32_t keep[4]
        uint64_t matched, packets
    ctypedef struct pt_map:
        pt_map_rule *rule
        uint32_t n
    enum: PT_LONG_LIST
    int pt_map_index(pt_map *map, uint32_t size)
    void pt_map_drop_index(pt_map *map)

cdef extern from "mangle.h" nogil:
    ctypedef struct pt_port_rule:
        uint16_t first, last, to
        uint64_t matched, packets, packet
    uint32_t pt_tr_mixed(uint32_t seed, uint32_t *last)
    void pt_mac_mask(uint32_t seed, uint8_t *mask)

cdef extern from "compat.h" nogil:
    ctypedef struct pt_tcprewrite:
        pt_map map4[4]
        pt_map map6[4]
        uint8_t pnat, seeded, skip_broadcast, ttl_mode, sequenced, fix_checksums, fix_lengths, fixlen, mtu_trunc, efcs
        uint32_t seed, ports, sequence, mtu, swaps, fuzz_state, fuzz_factor
        pt_port_rule *port
        uint16_t ttl, in_type, out_type, vlan_proto, link_size
        int16_t tos, tclass, hdlc_address, hdlc_control
        int32_t flowlabel, vlan_tag, vlan_cfi, vlan_pri
        uint8_t set_mac[2][2]
        uint8_t mac[2][2][6]
        void *swap
        uint8_t mac_seeded, mac_keep, skip_l2_broadcast, vlan, links, fuzzing, skip_soft_errors, overrun
        uint8_t mac_mask[6]
        uint8_t link[2][256]
        const uint8_t *cache
        uint64_t cached, soft_errors, dropped
    int pt_tr_batch(pt_tcprewrite *t, const pt_batch *b, pt_batch *out)


def seed_mix(uint32_t seed):
    cdef uint32_t last = 0
    cdef uint32_t state = pt_tr_mixed(seed, &last)
    return state, last


def seed_mac_mask(uint32_t seed):
    cdef uint8_t mask[6]
    pt_mac_mask(seed, mask)
    return (<const char *>mask)[:6]


cdef int copy_map(pt_map *map, rules) except -1:
    """rules: four byte strings a rule (from, mask, to, keep), of 4 or of 16 bytes each."""
    cdef size_t k, n = len(rules)
    cdef const unsigned char *field
    if not n:
        return 0
    map.rule = <pt_map_rule *>PyMem_Malloc(n * sizeof(pt_map_rule))
    if not map.rule:
        raise MemoryError()
    memset(map.rule, 0, n * sizeof(pt_map_rule))
    map.n = n
    for k in range(n):
        net, mask, to, keep = rules[k]
        size = len(net)
        if size not in (4, 16) or not len(mask) == len(to) == len(keep) == size:
            raise ValueError("an address has 4 or 16 bytes")
        # the first member of pt_map_rule is named `from`, which Cython cannot spell: it is where the struct begins
        field = net
        memcpy(<char *>&map.rule[k], field, size)
        field = mask
        memcpy(<char *>map.rule[k].mask, field, size)
        field = to
        memcpy(<char *>map.rule[k].to, field, size)
        field = keep
        memcpy(<char *>map.rule[k].keep, field, size)
    if n >= PT_LONG_LIST and pt_map_index(map, size):
        raise MemoryError()
    return 0


cdef void free_map(pt_map *map) noexcept:
    pt_map_drop_index(map)
    PyMem_Free(map.rule)


cdef void *copied(data) except? NULL:
    """A copy of bytes that outlives them; NULL where there are none."""
    cdef const unsigned char *field = data
    cdef void *copy
    if not len(data):
        return NULL
    copy = PyMem_Malloc(len(data))
    if not copy:
        raise MemoryError()
    memcpy(copy, field, len(data))
    return copy


cdef pt_port_rule *port_rules(rules) except? NULL:
    cdef pt_port_rule *rule
    if not rules:
        return NULL
    rule = <pt_port_rule *>PyMem_Malloc(len(rules) * sizeof(pt_port_rule))
    if not rule:
        raise MemoryError()
    for k, (first, last, to) in enumerate(rules):
        rule[<size_t>k].first = first
        rule[<size_t>k].last = last
        rule[<size_t>k].to = to
        rule[<size_t>k].matched = rule[<size_t>k].packets = rule[<size_t>k].packet = 0
    return rule


cdef class Tcprewrite:
    cdef pt_tcprewrite c
    cdef object cache

    def __cinit__(self, fields, *, maps, ports, macs, swaps, links, seed, fuzz, sequence, mac_mask, cache):
        cdef const unsigned char *field
        memset(&self.c, 0, sizeof(pt_tcprewrite))
        for k in range(4):
            copy_map(&self.c.map4[k], maps[k][0])
            copy_map(&self.c.map6[k], maps[k][1])
        self.c.port = port_rules(ports)
        self.c.ports = len(ports)
        for side in range(2):
            for way in range(2):
                if macs[side][way] is not None:
                    field = macs[side][way]
                    memcpy(self.c.mac[side][way], field, 6)
                    self.c.set_mac[side][way] = 1
        self.c.swap = copied(b"".join(swaps))
        self.c.swaps = len(swaps)
        for k, link in enumerate(links):
            field = link
            memcpy(self.c.link[<int>k], field, len(link))
            self.c.link_size = len(link)
        self.c.links = len(links)
        self.set_fields(fields)
        self.c.seeded = seed is not None
        self.c.seed = seed or 0
        self.c.fuzzing = fuzz is not None
        self.c.fuzz_state = fuzz or 0
        self.c.sequenced = sequence is not None
        self.c.sequence = sequence or 0
        if mac_mask is not None:
            field = mac_mask
            memcpy(self.c.mac_mask, field, 6)
            self.c.mac_seeded = 1
        if cache is not None:
            self.cache = cache
            self.c.cache = <const unsigned char *>cache
            self.c.cached = len(cache)

    cdef set_fields(self, fields):
        self.c.in_type, self.c.out_type = fields["in_type"], fields["out_type"]
        self.c.pnat, self.c.skip_broadcast = fields["pnat"], fields["skip_broadcast"]
        self.c.ttl_mode, self.c.ttl = fields["ttl_mode"], fields["ttl"]
        self.c.tos, self.c.tclass, self.c.flowlabel = fields["tos"], fields["tclass"], fields["flowlabel"]
        self.c.fix_checksums, self.c.fix_lengths = fields["fix_checksums"], fields["fix_lengths"]
        self.c.fixlen, self.c.mtu_trunc, self.c.mtu = fields["fixlen"], fields["mtu_trunc"], fields["mtu"]
        self.c.efcs, self.c.vlan = fields["efcs"], fields["vlan"]
        self.c.vlan_tag, self.c.vlan_cfi, self.c.vlan_pri = fields["vlan_tag"], fields["vlan_cfi"], fields["vlan_pri"]
        self.c.vlan_proto = fields["vlan_proto"]
        self.c.hdlc_address, self.c.hdlc_control = fields["hdlc_address"], fields["hdlc_control"]
        self.c.skip_l2_broadcast, self.c.skip_soft_errors = fields["skip_l2_broadcast"], fields["skip_soft_errors"]
        self.c.mac_keep, self.c.fuzz_factor = fields["mac_keep"], fields["fuzz_factor"]

    def __dealloc__(self):
        for k in range(4):
            free_map(&self.c.map4[k])
            free_map(&self.c.map6[k])
        PyMem_Free(self.c.port)
        PyMem_Free(self.c.swap)

    def edit(self, NativeBatch batch, NativeBatch out, bint nanoseconds):
        cdef int verdict
        out.c.format = PT_PCAP
        out.c.swapped = 0
        out.c.nanoseconds = nanoseconds
        out.c.header = 16
        out.c.swapped_lengths = 0
        out.c.located = 0
        out.c.interfaces = batch.c.interfaces
        out.interfaces_owner = batch.interfaces_owner
        with nogil:
            verdict = pt_tr_batch(&self.c, &batch.c, &out.c)
        if verdict:
            raise MemoryError("no memory for records")

    @property
    def out_type(self):
        return self.c.out_type

    @property
    def dropped(self):
        return self.c.dropped

    @property
    def overrun(self):
        return bool(self.c.overrun)


# The real edits.

cdef extern from "edits.h" nogil:
    ctypedef struct pt_anon_entry:
        pass
    ctypedef struct pt_anonymizer:
        uint64_t key[2]
        uint8_t mode, macs
        pt_anon_entry *cache
        uint64_t *cache4
    enum: PT_ANON_CACHE, PT_ANON_CACHE4
    void pt_anon(pt_anonymizer *z, uint8_t *a, int size)
    ctypedef struct pt_netmap_part:
        uint32_t n
    ctypedef struct pt_netmap:
        pt_netmap_part v4, v6
        uint64_t overlaps, line
    int pt_netmap_read(pt_netmap *t, const char *text, size_t size)
    void pt_netmap_free(pt_netmap *t)
    ctypedef struct pt_leaks:
        uint8_t address[1][16]
        uint8_t *size
        uint32_t n
        uint64_t full
    enum: PT_LEAK_SLOTS, PT_COUNTED
    ctypedef struct pt_payloads:
        uint8_t mode
        uint64_t key[2]
        uint64_t unbalanced
    ctypedef struct pt_dns:
        uint64_t mapped, partial, names
    ctypedef struct pt_tally:
        uint64_t packets
    ctypedef struct pt_edits:
        pt_map v4[2]
        pt_map v6[2]
        pt_map pnat4[2]
        pt_map pnat6[2]
        pt_map both4, both6
        uint64_t edited, cut, malformed, no_ethernet, seen, unmapped, ports_matched
        uint64_t matched[2]
        uint8_t more, seeded, skip_broadcast, s2c, no_side, fields
        pt_netmap *table
        uint32_t seed, ports, sequence
        pt_anonymizer *anonymizer
        pt_port_rule *port
        pt_leaks *leaks
        pt_leaks *met
        pt_leaks *missed
        pt_tally *tally
    ctypedef struct pt_job:
        pt_edits e
        uint8_t which, addresses, ttl_mode, any_field, any_mac, mac_seeded, mac_keep, skip_l2_broadcast, fuzzing
        uint8_t map_dns, fix_lengths, relocate, any_cut, skip_soft
        pt_payloads payload
        pt_dns dns
        uint16_t ttl
        int16_t tos, tclass
        int32_t flowlabel
        uint8_t set_mac[2][2]
        uint8_t mac[2][2][6]
        uint8_t mac_mask[6]
        void *swap
        uint32_t swaps, fuzz_state, fuzz_factor
        uint32_t *cut
        uint64_t fuzzed, leaking, relengthened, macs_changed, fields_changed, soft, soft_dropped, fuzz_dropped
    enum: PT_SUMS
    ctypedef struct pt_sum_counts:
        uint64_t header[6]
        uint64_t transport[6]
    void pt_batch_sums(pt_batch *b, int fix, pt_sum_counts *counts)
    void pt_edit_batch(pt_job *j, pt_batch *b)
    void pt_edit_and_sum(pt_job *j, pt_batch *b, int fix, pt_sum_counts *counts)
    void pt_resum(pt_batch *b)
    int pt_cut_batch(const pt_batch *b, pt_batch *out, const uint32_t *cut)
    int pt_map_address(pt_edits *e, int side, int version, uint8_t *a, uint64_t *delta)

cdef extern from "direction.h" nogil:
    enum: PT_DIRECTION_SETS, PT_DIRECTION_WAYS
    ctypedef struct pt_direction_entry:
        pass
    ctypedef struct pt_directions:
        pt_direction_entry *entry
    void pt_direct(pt_directions *d, pt_batch *b)
    void pt_direct_cached(pt_batch *b, const uint8_t *cache)

cdef extern from "shape.h" nogil:
    enum: PT_SKIP, PT_UNSHAPED_REASONS
    ctypedef struct pt_vlan_rule:
        uint16_t first, last, to
        uint64_t matched
    ctypedef struct pt_shape:
        int32_t out_type, vlan_tag, vlan_cfi, vlan_pri
        uint8_t is_user, links, decap, vlan, efcs, fixlen, mtu_trunc, chop_wire
        uint8_t set_mac[2][2]
        uint8_t mac[2][2][6]
        int16_t hdlc_address, hdlc_control
        uint8_t link[2][256]
        uint16_t link_size, vlan_proto
        uint32_t push[16]
        uint32_t pushes, pops, translations, mtu, snaplen
        pt_vlan_rule *translate
        int32_t chop[2]
        uint32_t chop_at[2]
        uint64_t shaped, cut, padded
        uint8_t *scratch
        uint64_t dropped[3]
    int pt_shape_batch(pt_shape *s, const pt_batch *b, pt_batch *out, const uint8_t *s2c)

cdef extern from "records.h" nogil:
    pt_interface *pt_add_interface(pt_interfaces *all)
    void pt_free_interfaces(pt_interfaces *all)
    int pt_batch_reserve(pt_batch *b, size_t capacity)

cdef extern from "stdlib.h":
    void *c_calloc "calloc"(size_t n, size_t size)
    void *c_realloc "realloc"(void *p, size_t size)
    void c_free "free"(void *p)


cdef void *zeroed(size_t n, size_t size) except NULL:
    cdef void *p = c_calloc(n, size)
    if not p:
        raise MemoryError()
    return p


cdef class Anonymizer:
    cdef pt_anonymizer c

    def __cinit__(self, key, int mode, int macs):
        cdef const unsigned char *field = key
        memset(&self.c, 0, sizeof(pt_anonymizer))
        if len(key) != 16:
            raise ValueError("a key has 16 bytes")
        memcpy(self.c.key, field, 16)
        self.c.mode = mode
        self.c.macs = macs
        self.c.cache = <pt_anon_entry *>zeroed(PT_ANON_CACHE, sizeof(pt_anon_entry))
        self.c.cache4 = <uint64_t *>zeroed(PT_ANON_CACHE4, sizeof(uint64_t))

    def __dealloc__(self):
        c_free(self.c.cache)
        c_free(self.c.cache4)

    def address(self, data):
        cdef uint8_t a[16]
        cdef const unsigned char *field = data
        cdef int size = len(data)
        if size not in (4, 6, 16):
            raise ValueError("an address has 4, 6 or 16 bytes")
        memcpy(a, field, size)
        pt_anon(&self.c, a, size)
        return (<const char *>a)[:size]


cdef class Table:
    cdef pt_netmap c

    def __cinit__(self, data):
        cdef const char *text = data
        cdef size_t size = len(data)
        cdef int verdict
        memset(&self.c, 0, sizeof(pt_netmap))
        with nogil:
            verdict = pt_netmap_read(&self.c, text, size)
        if verdict < 0:
            raise MemoryError("no memory for the map")
        if verdict:
            raise ValueError(f"line {self.c.line} is not FROM,TO (two addresses or networks of one IP version)")

    def __dealloc__(self):
        pt_netmap_free(&self.c)

    @property
    def n(self):
        return self.c.v4.n + self.c.v6.n

    @property
    def overlaps(self):
        return self.c.overlaps


cdef class Directions:
    cdef pt_directions c

    def __cinit__(self):
        self.c.entry = <pt_direction_entry *>zeroed(PT_DIRECTION_SETS * PT_DIRECTION_WAYS, sizeof(pt_direction_entry))

    def __dealloc__(self):
        c_free(self.c.entry)

    def note(self, NativeBatch batch):
        batch.locate()
        with nogil:
            pt_direct(&self.c, &batch.c)


def note_cached(NativeBatch batch, cache):
    cdef const unsigned char *way = cache
    if len(cache) < batch.c.n:
        raise ValueError("a direction for every packet")
    pt_direct_cached(&batch.c, way)


cdef int set_macs(uint8_t[2][2][6] mac, uint8_t[2][2] set_mac, macs) except -1:
    """macs: for destination and source, from the client and from the server: 6 bytes or None."""
    cdef const unsigned char *field
    for side in range(2):
        for way in range(2):
            if macs[side][way] is not None:
                field = macs[side][way]
                memcpy(mac[side][way], field, 6)
                set_mac[side][way] = 1
    return 0


cdef class Job:
    cdef pt_job c
    cdef pt_sum_counts found
    cdef object keep
    cdef uint32_t cut_room
    cdef bint may_cut

    def __cinit__(self, *, maps, pnat, both, table=None, seed=None, anonymizer=None, skip_broadcast=False, which=0,
                  ttl=(0, 0), tos=-1, tclass=-1, flowlabel=-1, ports=(), sequence=0, macs=((None, None), (None, None)),
                  swaps=(), mac_mask=None, mac_keep=0, skip_l2_broadcast=False, fuzz=None, fuzz_factor=8, payload=0,
                  payload_key=b"", dns=False, fix_lengths=False, leaks=False, note=False, skip_soft=False):
        cdef const unsigned char *field
        memset(&self.c, 0, sizeof(pt_job))
        memset(&self.found, 0, sizeof(pt_sum_counts))
        self.keep = (table, anonymizer)
        for side in range(2):
            copy_map(&self.c.e.v4[side], maps[side][0])
            copy_map(&self.c.e.v6[side], maps[side][1])
            copy_map(&self.c.e.pnat4[side], pnat[side][0])
            copy_map(&self.c.e.pnat6[side], pnat[side][1])
        copy_map(&self.c.e.both4, both[0])
        copy_map(&self.c.e.both6, both[1])
        if table is not None:
            self.c.e.table = &(<Table>table).c
        if anonymizer is not None:
            self.c.e.anonymizer = &(<Anonymizer>anonymizer).c
        self.c.e.seeded = seed is not None
        self.c.e.seed = seed or 0
        self.c.e.skip_broadcast = skip_broadcast
        self.c.e.more = bool(any(map(any, pnat)) or any(both) or table is not None or seed is not None or anonymizer is not None)
        self.c.addresses = bool(self.c.e.more or any(map(any, maps)))
        if leaks:
            self.c.e.leaks = <pt_leaks *>zeroed(1, sizeof(pt_leaks))
        if note:
            self.c.e.met = <pt_leaks *>zeroed(1, sizeof(pt_leaks))
            self.c.e.missed = <pt_leaks *>zeroed(1, sizeof(pt_leaks))
        self.c.which = which
        self.c.ttl_mode, self.c.ttl = ttl
        self.c.tos, self.c.tclass, self.c.flowlabel = tos, tclass, flowlabel
        self.c.e.port = port_rules(ports)
        self.c.e.ports = len(ports)
        self.c.e.sequence = sequence
        self.c.e.fields = bool(ports or sequence)
        if self.c.e.fields:
            self.c.addresses = 1
        self.c.any_field = bool(self.c.ttl_mode or tos >= 0 or tclass >= 0 or flowlabel >= 0 or ports or sequence)
        set_macs(self.c.mac, self.c.set_mac, macs)
        self.c.swap = copied(b"".join(swaps))
        self.c.swaps = len(swaps)
        self.c.mac_keep = mac_keep
        if mac_mask is not None:
            field = mac_mask
            memcpy(self.c.mac_mask, field, 6)
            self.c.mac_seeded = 1
        named = any(mac is not None for pair in macs for mac in pair) or len(swaps) or mac_mask is not None
        settable = mac_mask is not None or any(mac is not None for pair in macs for mac in pair)
        self.c.any_mac = 2 if settable else 1 if named or (anonymizer is not None and (<Anonymizer>anonymizer).c.macs) else 0
        self.c.skip_l2_broadcast = skip_l2_broadcast
        if named and not (swaps or mac_mask is not None or skip_l2_broadcast or (anonymizer is not None and (<Anonymizer>anonymizer).c.macs)):
            self.c.any_mac = 3
        self.c.fuzzing = fuzz is not None
        self.c.fuzz_state = fuzz or 0
        self.c.fuzz_factor = fuzz_factor
        self.c.payload.mode = payload
        if payload_key:
            field = payload_key
            memcpy(self.c.payload.key, field, 16)
        self.c.map_dns = dns
        self.c.skip_soft = skip_soft
        self.c.fix_lengths = fix_lengths
        self.may_cut = fuzz is not None or payload == 3

    def __dealloc__(self):
        for side in range(2):
            free_map(&self.c.e.v4[side])
            free_map(&self.c.e.v6[side])
            free_map(&self.c.e.pnat4[side])
            free_map(&self.c.e.pnat6[side])
        free_map(&self.c.e.both4)
        free_map(&self.c.e.both6)
        PyMem_Free(self.c.e.port)
        PyMem_Free(self.c.swap)
        c_free(self.c.e.leaks)
        c_free(self.c.e.met)
        c_free(self.c.e.missed)
        c_free(self.c.cut)

    def apply(self, NativeBatch batch, NativeBatch out, bint fix=False):
        if self.may_cut:
            return self.apply_and_cut(batch, out, fix)
        self.c.relocate = 0
        with nogil:
            pt_edit_and_sum(&self.c, &batch.c, fix, &self.found)
        if self.c.relocate:
            batch.c.located = 0
        return False

    cdef bint apply_and_cut(self, NativeBatch batch, NativeBatch out, bint fix) except -1:
        cdef int verdict = 0
        cdef pt_batch *b = &batch.c
        if self.cut_room < batch.c.n:
            c_free(self.c.cut)
            self.c.cut = NULL
            self.cut_room = 0
            self.c.cut = <uint32_t *>zeroed(batch.c.n, sizeof(uint32_t))
            self.cut_room = batch.c.n
        self.c.relocate = self.c.any_cut = 0
        out.c.interfaces = batch.c.interfaces
        out.interfaces_owner = batch.interfaces_owner
        with nogil:
            pt_edit_batch(&self.c, b)
            if self.c.relocate:
                b.located = 0
            if self.c.any_cut:
                b = &out.c
                verdict = pt_cut_batch(&batch.c, b, self.c.cut)
            if not verdict:
                pt_resum(b)
                if fix:
                    pt_batch_sums(b, 1, &self.found)
        if verdict:
            raise MemoryError("no memory for records")
        return self.c.any_cut

    def address(self, data):
        """The new form of an address that stands outside of packets."""
        cdef uint8_t a[16]
        cdef uint64_t ignored = 0
        cdef const unsigned char *field = data
        memcpy(a, field, len(data))
        self.c.e.no_side = 1
        for side in range(2):
            if pt_map_address(&self.c.e, side, 4 if len(data) == 4 else 6, a, &ignored):
                break
        self.c.e.no_side = 0
        return (<const char *>a)[:len(data)]

    @property
    def dropped(self):
        return self.c.soft_dropped, self.c.fuzz_dropped

    @property
    def counts(self):
        return {"edited": self.c.e.edited, "cut": self.c.e.cut, "malformed": self.c.e.malformed,
                "no_ethernet": self.c.e.no_ethernet, "matched": (self.c.e.matched[0], self.c.e.matched[1]),
                "seen": self.c.e.seen, "unmapped": self.c.e.unmapped, "ports": self.c.e.ports_matched,
                "fields": self.c.fields_changed, "macs": self.c.macs_changed, "fuzzed": self.c.fuzzed,
                "leaking": self.c.leaking, "soft_errors": self.c.soft, "soft_dropped": self.c.soft_dropped,
                "fuzz_dropped": self.c.fuzz_dropped, "dns": self.c.dns.mapped, "dns_partial": self.c.dns.partial,
                "dns_names": self.c.dns.names, "unbalanced": self.c.payload.unbalanced,
                "relengthened": self.c.relengthened}

    @property
    def sums(self):
        return [self.found.header[k] for k in range(PT_SUMS)], [self.found.transport[k] for k in range(PT_SUMS)]

    @property
    def leaked_addresses(self):
        if self.c.e.leaks == NULL:
            return 0, 0
        return self.c.e.leaks.n, self.c.e.leaks.full

    @property
    def addresses(self):
        """Distinct addresses seen, and those of them that nothing mapped; None: not noted."""
        if self.c.e.met == NULL:
            return None
        return address_set(self.c.e.met), address_set(self.c.e.missed)

    @property
    def packets(self):
        """Packets that an option changed, in the order of enum pt_counted."""
        return [self.c.e.tally[k].packets for k in range(PT_COUNTED)]

    def rule_counts(self):
        """How often each rule fitted, as (addresses, packets): source, destination, pseudo-NAT's two, both sides; each IPv4's, then IPv6's."""
        found = []
        for pair in range(2):
            for side in range(2):
                found.append(map_counts(&self.c.e.v4[side] if pair == 0 else &self.c.e.pnat4[side])
                             + map_counts(&self.c.e.v6[side] if pair == 0 else &self.c.e.pnat6[side]))
        found.append(map_counts(&self.c.e.both4) + map_counts(&self.c.e.both6))
        return found

    @property
    def port_counts(self):
        return [(self.c.e.port[k].matched, self.c.e.port[k].packets) for k in range(self.c.e.ports)]


cdef list map_counts(const pt_map *map):
    return [(map.rule[k].matched, map.rule[k].packets) for k in range(map.n)]


cdef list address_set(const pt_leaks *found):
    return [(<const char *>found.address[k])[:found.size[k]] for k in range(PT_LEAK_SLOTS) if found.size[k]]


def resum(NativeBatch batch):
    with nogil:
        pt_resum(&batch.c)


cdef class Shape:
    cdef pt_shape c
    cdef pt_interfaces interfaces
    cdef object source

    def __cinit__(self, fields, *, macs=((None, None), (None, None)), links=(), push=(), translate=()):
        cdef const unsigned char *field
        memset(&self.c, 0, sizeof(pt_shape))
        memset(&self.interfaces, 0, sizeof(pt_interfaces))
        set_macs(self.c.mac, self.c.set_mac, macs)
        for k, link in enumerate(links):
            field = link
            memcpy(self.c.link[<int>k], field, len(link))
            self.c.link_size = len(link)
        self.c.links = len(links)
        self.c.is_user = bool(links)
        for k, tag in enumerate(push):
            self.c.push[<int>k] = tag
        self.c.pushes = len(push)
        if translate:
            self.c.translate = <pt_vlan_rule *>zeroed(len(translate), sizeof(pt_vlan_rule))
            self.c.translations = len(translate)
            for k, (first, last, to) in enumerate(translate):
                self.c.translate[<int>k].first = first
                self.c.translate[<int>k].last = last
                self.c.translate[<int>k].to = to
        self.c.out_type = fields.get("out_type", -1)
        self.c.hdlc_address, self.c.hdlc_control = fields.get("hdlc_address", -1), fields.get("hdlc_control", -1)
        self.c.decap, self.c.efcs = fields.get("decap", 0), fields.get("efcs", 0)
        self.c.vlan, self.c.vlan_proto = fields.get("vlan", 0), fields.get("vlan_proto", 0x8100)
        self.c.vlan_tag, self.c.vlan_cfi, self.c.vlan_pri = fields.get("vlan_tag", -1), fields.get("vlan_cfi", -1), fields.get("vlan_pri", -1)
        self.c.pops = fields.get("pops", 0)
        self.c.fixlen, self.c.mtu_trunc, self.c.mtu = fields.get("fixlen", 0), fields.get("mtu_trunc", 0), fields.get("mtu", 1500)
        self.c.snaplen = fields.get("snaplen", 0)
        for k, (at, size) in enumerate(fields.get("chop", ((0, 0), (0, 0)))):
            self.c.chop_at[<int>k] = at
            self.c.chop[<int>k] = size
        self.c.chop_wire = fields.get("chop_wire", 0)

    def __dealloc__(self):
        c_free(self.c.translate)
        c_free(self.c.scratch)
        pt_free_interfaces(&self.interfaces)

    def apply(self, NativeBatch batch, NativeBatch out):
        cdef int verdict
        cdef pt_interface *copy
        batch.locate()
        out.c.interfaces = batch.c.interfaces
        out.interfaces_owner = batch.interfaces_owner
        if self.c.out_type >= 0 and batch.c.interfaces != NULL:
            if self.source is not batch.interfaces_owner:
                self.source = batch.interfaces_owner
                self.interfaces.n = 0
            while self.interfaces.n < batch.c.interfaces.n:
                copy = pt_add_interface(&self.interfaces)
                if not copy:
                    raise MemoryError()
                copy[0] = batch.c.interfaces.of[self.interfaces.n - 1]
                copy.linktype = self.c.out_type
            out.c.interfaces = &self.interfaces
            out.interfaces_owner = self
        with nogil:
            verdict = pt_shape_batch(&self.c, &batch.c, &out.c, NULL)
        if verdict:
            raise MemoryError("no memory for records")

    @property
    def counts(self):
        return {"shaped": self.c.shaped, "cut": self.c.cut, "padded": self.c.padded, "unconvertible": self.c.dropped[1],
                "deleted": self.c.dropped[2]}


def splice(NativeBatch batch, size_t at, size_t size, data):
    """Replace bytes of a batch that belong to no record."""
    cdef const unsigned char *field = data
    cdef size_t new = len(data)
    cdef uint32_t k
    cdef pt_record *r
    if at + size > batch.c.used:
        raise ValueError("beyond the batch")
    batch.reserve(batch.c.filled + new)
    memmove(batch.c.bytes + at + new, batch.c.bytes + at + size, batch.c.filled - at - size)
    memcpy(batch.c.bytes + at, field, new)
    batch.c.used = batch.c.used + new - size
    batch.c.filled = batch.c.filled + new - size
    for k in range(batch.c.n):
        r = &batch.c.record[k]
        if r.start >= at + size:
            r.start = r.start + new - size
            r.data = r.data + new - size
            r.end = r.end + new - size
