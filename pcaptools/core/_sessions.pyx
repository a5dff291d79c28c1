# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/sessions.h: the TCP session table. The types are described in _sessions.pyi."""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, UINT32_MAX
from libc.string cimport memset

from pcaptools.core._core cimport NativeBatch, pt_batch, PT_NONE


cdef extern from "sessions.h" nogil:
    enum: PT_ANALYSIS_BITS, PT_QUEUES, PT_REASONS, PT_ENDED, PT_OPENING, PT_ESTABLISHED_QUEUE
    enum: PT_CLOSING_QUEUE, PT_CLOSED_QUEUE, PT_HUSHED
    enum: PT_HAS_ISN, PT_OFFERS_SACK, PT_OFFERS_TIMESTAMPS, PT_OFFERS_ECN, PT_OFFERS_FAST_OPEN, PT_OFFERS_MSS
    enum: PT_OFFERS_SCALE, PT_OPEN
    uint64_t PT_NOTED
    const char *PT_SEGMENT_FORMAT
    ctypedef struct pt_flow_key:
        uint8_t address[2][16]
        uint16_t port[2]
        uint8_t version
    ctypedef struct pt_segment:
        pass
    ctypedef struct pt_note:
        uint64_t packet, bits
        int64_t time
    ctypedef struct pt_rtts:
        uint32_t n
        int64_t min, max
        uint64_t sum
    ctypedef struct pt_head:
        pt_head *following
        uint64_t packet
        int64_t time
        uint32_t seq, ack, rel_seq, rel_ack, payload, captured
        uint16_t flags
        uint8_t way
        uint8_t *bytes
    ctypedef struct pt_hush:
        uint64_t count
        uint32_t number
    ctypedef struct pt_end:
        uint64_t packets, bytes, payload, unique, window_sum, repeated, missing, snapped
        int64_t first, ack_time, idle_max, first_data, last_data
        uint32_t window, data_packets, acks, pure_acks, pushes, window_max, window_min, segment_max, segment_min
        uint32_t isn, urgents
        uint32_t syns, fins, rsts, options_bad, dup_ack_max, initial_bytes, initial_packets
        uint16_t mss
        int8_t scale, offered_scale
        uint8_t has, offers, ttl_min, ttl_max, sack_blocks_max
        pt_rtts rtt
    ctypedef struct pt_session:
        pt_flow_key key
        int64_t first, last, handshake, syn_time, delta_max, gap_max, rst_time
        uint64_t first_packet, last_packet, bits, rst_packet
        uint32_t id, notes, notes_dropped, rows, rows_dropped
        uint8_t queue, client, sender, guessed, start, reason, simultaneous, closed, watched, rst_kind, rst_by
        int8_t ended_by
        pt_note *note
        pt_head *head
        uint32_t (*count)[38]
        pt_end end[2]
    ctypedef struct pt_choice:
        uint64_t bits
        int64_t connect, delay, retransmit, handshake, rtt
        uint8_t incomplete, no_reply, rst, everything
    ctypedef struct pt_totals:
        uint64_t reason[6]
        uint64_t sessions, complete, one_sided, chosen, packets, payload, unique, repeated, missing, bytes
        uint64_t rows_dropped, notes_dropped
        uint64_t segments[38]
        uint64_t with_ "with"[38]
    ctypedef struct pt_tracker:
        uint32_t made, live
        uint64_t seed, held, tcp, fragments, not_tcp, malformed, truncated, bad_checksum, filtered, packet
        int64_t limit[4]
        uint32_t sessions, segments, notes, row_count
        int64_t latest
        uint8_t keep, rows, heads, checksum, payload_rows, chooses
        uint32_t hushed
        pt_hush *hush
        pt_choice choice
        pt_totals totals
        pt_segment *row
    pt_session *pt_session_at(const pt_tracker *t, uint32_t slot)
    int pt_end_state(const pt_session *s, int way)
    int64_t pt_rtt_quantile(const pt_rtts *r, double part)
    void pt_kept_rows(const pt_session *s, pt_segment *out)
    void pt_end_session(pt_tracker *t, uint32_t slot, int reason)
    void pt_add_to_totals(pt_totals *a, const pt_session *s)
    uint32_t pt_hand_out(pt_tracker *t)
    uint32_t pt_hush_like(pt_tracker *t, const pt_session *s, int by_client)
    void pt_expire(pt_tracker *t, int64_t now)
    int pt_track(pt_tracker *t, pt_batch *b)
    void pt_tracker_begin(pt_tracker *t)
    void pt_tracker_free(pt_tracker *t)

ROW_SIZE = sizeof(pt_segment)
ROW_FORMAT = PT_SEGMENT_FORMAT.decode()
NOTED = PT_NOTED

_REASONS = ("open", "fin", "rst", "idle", "reused", "evicted")
assert len(_REASONS) == PT_REASONS and PT_ANALYSIS_BITS == 38 and PT_QUEUES == 4


cdef tuple end_of(const pt_session *s, int way):
    cdef const pt_end *e = &s.end[way]
    cdef const pt_rtts *r = &e.rtt
    cdef bint syn = e.syns and e.has & PT_HAS_ISN
    cdef uint32_t only = e.window if e.packets else 0  # nothing but SYN or RST was sent
    counts = tuple([s.count[way][k] for k in range(PT_ANALYSIS_BITS)]) if s.count else (0,) * PT_ANALYSIS_BITS
    return (
        e.packets, e.bytes, e.payload, e.data_packets, e.unique, e.repeated, e.missing, e.snapped, e.acks, e.pure_acks,
        e.pushes, e.urgents, e.syns, e.fins, e.rsts, e.isn if syn else None,
        e.mss if e.offers & PT_OFFERS_MSS else None, scale_of(e), bool(e.offers & PT_OFFERS_SACK),
        bool(e.offers & PT_OFFERS_TIMESTAMPS), bool(e.offers & PT_OFFERS_ECN), bool(e.offers & PT_OFFERS_FAST_OPEN),
        e.segment_max, e.segment_min if e.data_packets else 0, e.window_max if e.window_min != UINT32_MAX else only,
        e.window_min if e.window_min != UINT32_MAX else only, e.window_sum, e.initial_bytes, e.initial_packets,
        e.sack_blocks_max, e.dup_ack_max, e.unique + e.missing if e.syns and e.fins else None,
        e.first if e.packets else None, e.ack_time if e.packets else None,
        e.first_data if e.data_packets else None, e.last_data if e.data_packets else None, e.idle_max,
        r.n, r.min if r.n else None, pt_rtt_quantile(r, 0.5) if r.n else None,
        pt_rtt_quantile(r, 0.95) if r.n else None, r.max if r.n else None, r.sum,
        e.ttl_min if e.packets else None, e.ttl_max if e.packets else None,
        e.options_bad, counts,
    )


cdef object scale_of(const pt_end *e):
    return e.offered_scale if e.offers & PT_OFFERS_SCALE else None


cdef tuple session_of(const pt_session *s, uint32_t slot):
    cdef int a = s.client, b = 1 - s.client, size = 16 if s.key.version == 6 else 4
    cdef const char *first = <const char *>s.key.address[a]
    cdef const char *second = <const char *>s.key.address[b]
    cdef uint64_t way = <uint64_t>1 << 63
    notes = [
        (s.note[k].packet, s.note[k].time, s.note[k].bits & ~way, <int>(<int>(s.note[k].bits >> 63) != a))
        for k in range(s.notes)
    ]
    return (
        s.id, slot, s.key.version, first[:size], s.key.port[a], second[:size], s.key.port[b], s.first, s.last,
        s.first_packet, s.last_packet, s.start, s.closed or s.reason,
        None if s.ended_by < 0 else <int>(s.ended_by != a), pt_end_state(s, a), pt_end_state(s, b),
        None if s.handshake < 0 else s.handshake,
        None if s.syn_time < 0 else s.syn_time, s.bits, s.rst_packet if s.rst_kind else None,
        s.rst_time if s.rst_kind else None, <int>(s.rst_by != a) if s.rst_kind else None, s.rst_kind, s.delta_max,
        s.gap_max, s.simultaneous, bool(s.guessed), <int>(s.sender != a), notes, s.notes_dropped, s.rows,
        s.rows_dropped, (end_of(s, a), end_of(s, b)),
    )


cdef class Tracker:
    cdef pt_tracker c

    def __cinit__(self, *, sessions=0, segments=0, held=0, notes=100, idle_ns=0, opening_ns=0, closing_ns=0,
                  linger_ns=0, keep=False, rows=False, heads=False, checksum=False, seed=0):
        memset(&self.c, 0, sizeof(pt_tracker))
        pt_tracker_begin(&self.c)
        self.c.sessions = sessions
        self.c.segments = segments
        self.c.held = held
        self.c.notes = notes
        self.c.limit[PT_OPENING] = opening_ns or idle_ns
        self.c.limit[PT_ESTABLISHED_QUEUE] = idle_ns
        self.c.limit[PT_CLOSING_QUEUE] = closing_ns or idle_ns
        self.c.limit[PT_CLOSED_QUEUE] = linger_ns
        self.c.keep = keep
        self.c.rows = rows
        self.c.heads = heads
        self.c.checksum = checksum
        self.c.seed = seed & 0xFFFFFFFFFFFFFFFF

    def __dealloc__(self):
        pt_tracker_free(&self.c)

    def feed(self, NativeBatch batch):
        cdef int verdict
        batch.locate()
        with nogil:
            verdict = pt_track(&self.c, &batch.c)
        if verdict:
            raise MemoryError("no memory for the session table")

    def expire(self, int64_t now):
        if now > self.c.latest:
            self.c.latest = now
        pt_expire(&self.c, now)

    def choose(self, *, uint64_t bits=0, incomplete=False, no_reply=False, int64_t connect_ns=0, int64_t delay_ns=0,
               int64_t retransmit_ns=0, int64_t handshake_ns=0, int64_t rtt_ns=0, rst=0, everything=False):
        self.c.chooses = 1
        self.c.choice.bits = bits
        self.c.choice.incomplete = incomplete
        self.c.choice.no_reply = no_reply
        self.c.choice.connect = connect_ns
        self.c.choice.delay = delay_ns
        self.c.choice.retransmit = retransmit_ns
        self.c.choice.handshake = handshake_ns
        self.c.choice.rtt = rtt_ns
        self.c.choice.rst = rst
        self.c.choice.everything = everything

    def rows(self):
        if not self.c.row_count:
            return memoryview(b"")
        return memoryview(self)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.c.row, self.c.row_count * sizeof(pt_segment), 1, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    cdef pt_session *at(self, uint32_t slot, bint ended) except NULL:
        cdef pt_session *s
        if slot < self.c.made:
            s = pt_session_at(&self.c, slot)
            if s.queue < PT_QUEUES or (ended and s.queue == PT_ENDED):
                return s
        raise IndexError(f"no session in slot {slot}")

    def watch(self, uint32_t slot, bint on):
        self.at(slot, True).watched = on

    def payload_rows(self, bint on):
        self.c.payload_rows = on

    def ended(self):
        cdef uint32_t slot = pt_hand_out(&self.c)
        while slot != PT_NONE:
            yield session_of(pt_session_at(&self.c, slot), slot)
            slot = pt_hand_out(&self.c)

    def finish(self):
        cdef uint32_t k
        cdef pt_session *s
        live = []
        for k in range(self.c.made):
            s = pt_session_at(&self.c, k)
            if s.queue < PT_QUEUES:
                live.append((s.id, k))
        for _, k in sorted(live):
            pt_end_session(&self.c, k, PT_OPEN)
        return self.ended()

    def opened(self):
        return self.c.live

    def session(self, uint32_t slot):
        return session_of(self.at(slot, True), slot)

    def sessions(self):
        cdef uint32_t k
        for k in range(self.c.made):
            if pt_session_at(&self.c, k).queue < PT_QUEUES:
                yield session_of(pt_session_at(&self.c, k), k)

    def kept(self, uint32_t slot):
        cdef pt_session *s = self.at(slot, True)
        cdef bytearray out = bytearray(s.rows * sizeof(pt_segment))
        cdef uint8_t *p = out
        pt_kept_rows(s, <pt_segment *>p)
        return memoryview(out)

    def heads(self, uint32_t slot):
        cdef pt_session *s = self.at(slot, True)
        cdef const pt_head *head = s.head
        found = []
        while head:
            found.append((
                head.packet, head.time, <int>(head.way != s.client), head.seq, head.ack, head.rel_seq, head.rel_ack,
                head.flags, head.payload, head.bytes[:head.captured],
            ))
            head = head.following
        return found

    def hush(self, uint32_t slot, bint by_client):
        return pt_hush_like(&self.c, self.at(slot, True), by_client)

    def hushed(self):
        cdef uint32_t k
        counts = [0] * (self.c.hushed + 1)
        for k in range(PT_HUSHED if self.c.hush else 0):
            if self.c.hush[k].number:
                counts[self.c.hush[k].number] = self.c.hush[k].count
        return counts

    @property
    def counts(self):
        return {
            "packets": self.c.packet, "tcp": self.c.tcp, "fragment": self.c.fragments, "not_tcp": self.c.not_tcp,
            "malformed": self.c.malformed, "truncated": self.c.truncated, "bad_checksum": self.c.bad_checksum,
            "filtered": self.c.filtered,
        }

    @property
    def totals(self):
        cdef pt_totals t = self.c.totals
        cdef uint32_t k
        cdef pt_session *s
        for k in range(self.c.made):
            s = pt_session_at(&self.c, k)
            if s.queue < PT_QUEUES:
                pt_add_to_totals(&t, s)
        found = {
            "sessions": t.sessions, "complete": t.complete, "one_sided": t.one_sided, "chosen": t.chosen,
            "packets": t.packets, "bytes": t.bytes, "payload": t.payload, "unique": t.unique, "repeated": t.repeated,
            "missing": t.missing, "rows_dropped": t.rows_dropped, "notes_dropped": t.notes_dropped,
        }
        for j, name in enumerate(_REASONS):
            found[name] = t.reason[j]
        found["segments"] = [t.segments[j] for j in range(PT_ANALYSIS_BITS)]
        found["sessions_with"] = [t.with_[j] for j in range(PT_ANALYSIS_BITS)]
        return found

    @property
    def latest(self):
        return self.c.latest
