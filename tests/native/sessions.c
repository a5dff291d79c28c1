/* The session table alone, under AddressSanitizer and UBSan: segments at random, cut, mutated and fragmented, in
 * batches of exactly their size. What is asserted: every packet is in one book, sessions have all segments, none is
 * handed out twice, and the numbers of bytes agree. */
#include <stdio.h>

#include "sessions.h"

static uint64_t failed;

static void check(int ok, const char *what)
{
    if (ok || failed++ >= 20) return;
    fprintf(stderr, "FAILED: %s\n", what);
}

/* xorshift64*: the same numbers on every machine. */
static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t chance(uint32_t below)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545f4914f6cdd1du >> 32) % below);
}

enum { HEADERS = 54, ROOM = 256, BATCH = 40 };

/* A frame of one of a few connections. Returns its length. */
static uint32_t make_frame(uint8_t *p)
{
    static const uint8_t head[34] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, 6, 0, 0,
                                     10, 0, 0, 1, 10, 0, 0, 2};
    static const uint8_t flags[] = {2, 18, 16, 16, 16, 16, 24, 24, 24, 17, 4, 20, 0, 0xff};
    const uint32_t options = chance(4) ? 0 : chance(11) * 4, payload = chance(3) ? chance(60) : 0;
    static uint32_t next[2][6];
    const uint32_t n = HEADERS + options + payload, port = chance(6);
    const int back = (int)chance(2);
    const uint32_t seq = chance(4) ? next[back][port] : 0xffffff80u + chance(512);
    const uint32_t ack = chance(4) ? next[!back][port] : 0xffffff80u + chance(512);
    memcpy(p, head, sizeof head);
    for (uint32_t k = sizeof head; k < n; k++) p[k] = (uint8_t)chance(256);
    pt_put_net16(p + 16, (uint16_t)(n - 14));
    if (!chance(8)) pt_put_net16(p + 20, (uint16_t)(chance(2) << 13 | chance(4)));
    p[29] = p[33] = 1;
    p[back ? 29 : 33] = 2;
    pt_put_net16(p + 34, 0);
    pt_put_net16(p + 36, 0);
    p[back ? 37 : 35] = (uint8_t)(1 + port);
    pt_put_net32(p + 38, seq);
    pt_put_net32(p + 42, ack);
    p[46] = (uint8_t)((5 + options / 4) << 4);
    p[47] = flags[chance(sizeof flags)];
    next[back][port] = seq + payload + (p[47] & 3 ? 1 : 0);
    pt_put_net16(p + 48, (uint16_t)(chance(3) ? chance(200) : 0));
    if (!chance(20)) p[14 + chance(n - 14)] = (uint8_t)chance(256);
    return n;
}

/* A batch whose buffer ends with its last packet. */
static void make_batch(pt_batch *b, int64_t *now)
{
    uint8_t frame[ROOM];
    b->n = 1 + chance(BATCH);
    b->used = b->filled = 0;
    b->located = 0;
    free(b->bytes);
    b->bytes = NULL;
    b->capacity = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        const uint32_t n = make_frame(frame), cut = chance(6) ? n : chance(n + 1);
        pt_record *r = &b->record[k];
        if (pt_batch_reserve(b, b->used + cut + !(b->used + cut))) abort();
        memcpy(b->bytes + b->used, frame, cut);
        memset(r, 0, sizeof *r);
        *now += chance(50000000);
        r->time = chance(500) ? *now : (int64_t)((uint64_t)chance(UINT32_MAX) << 32);
        r->start = r->data = (uint32_t)b->used;
        r->end = r->start + cut;
        r->caplen = cut;
        r->wirelen = n;
        r->flags = chance(50) ? 0 : PT_DROP;
        b->used += cut;
    }
}

static uint64_t hand_out(pt_tracker *t, uint8_t *met, uint64_t ids)
{
    uint64_t packets = 0;
    for (uint32_t slot = pt_hand_out(t); slot != PT_NONE; slot = pt_hand_out(t)) {
        const pt_session *s = pt_session_at(t, slot);
        pt_segment *rows = malloc(s->rows * sizeof *rows + 1);
        if (s->id < ids) check(!met[s->id]++, "a session is handed out twice");
        for (int way = 0; way < 2; way++) {
            const pt_end *e = &s->end[way];
            check(e->unique <= e->payload, "more unique bytes than bytes");
            check(e->repeated + e->unique <= e->payload, "more bytes repeated than there are");
            packets += e->packets;
            if (e->rtt.n) check(pt_rtt_quantile(&e->rtt, 0.5) >= e->rtt.min, "a median below the least");
        }
        if (t->keep) {
            pt_kept_rows(s, rows);
            check(s->rows + s->rows_dropped == s->end[0].packets + s->end[1].packets, "rows are missing");
        }
        free(rows);
    }
    return packets;
}

/* Packet by packet, and with all the rules for every segment, the rows are the same. */
static void take_again(pt_tracker *t, const pt_batch *b, const pt_tracker *first)
{
    uint32_t row = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_batch one = *b;
        one.record += k;
        one.where += k;
        one.n = 1;
        for (uint32_t slot = 0; slot < t->made; slot++) pt_session_at(t, slot)->settled = 0;
        if (pt_track(t, &one)) abort();
        while (pt_hand_out(t) != PT_NONE) continue;
        check(row + t->row_count <= first->row_count, "more rows");
        for (uint32_t j = 0; j < t->row_count && row < first->row_count; j++, row++) {
            pt_segment x = t->row[j], y = first->row[row];
            x.slot = y.slot = 0;
            check(!memcmp(&x, &y, sizeof x), "another row");
        }
    }
    check(row == first->row_count, "fewer rows");
}

static void run(uint32_t rounds)
{
    enum { IDS = 1 << 16 };
    static uint8_t met[IDS];
    static pt_record record[BATCH];
    pt_interface interface = {0};
    pt_interfaces interfaces = {&interface, 1, 1, NULL};
    pt_tracker t, again;
    pt_batch b;
    const int alike = (int)chance(2);
    int64_t now = 0;
    uint64_t packets = 0;
    memset(met, 0, sizeof met);
    memset(&t, 0, sizeof t);
    memset(&b, 0, sizeof b);
    interface.linktype = 1;
    b.record = record;
    b.room = BATCH;
    b.interfaces = &interfaces;
    pt_tracker_begin(&t);
    t.sessions = alike || chance(2) ? 0 : 1 + chance(8); /* when they end depends on batches */
    t.segments = chance(2) ? 0 : 1 + chance(30);
    t.held = chance(2) ? 0 : 50;
    t.notes = chance(20);
    t.keep = (uint8_t)chance(2);
    t.rows = alike || chance(2);
    t.checksum = !chance(8);
    for (int queue = 0; queue < PT_QUEUES; queue++) t.limit[queue] = alike || chance(2) ? 0 : 1 + chance(2000000000);
    again = t;
    while (rounds--) {
        make_batch(&b, &now);
        if (pt_locate(&b) || pt_track(&t, &b)) abort();
        if (alike) take_again(&again, &b, &t);
        packets += hand_out(&t, met, IDS);
    }
    for (uint32_t slot = 0; slot < t.made; slot++) {
        if (pt_session_at(&t, slot)->queue < PT_QUEUES) pt_end_session(&t, slot, PT_OPEN);
    }
    packets += hand_out(&t, met, IDS);
    check(packets == t.tcp, "segments are missing");
    check(t.packet == t.tcp + t.fragments + t.not_tcp + t.malformed + t.truncated + t.bad_checksum + t.filtered,
          "a packet is in no book");
    check(!t.unacked && !t.live && !t.used, "something is left");
    pt_tracker_free(&t);
    pt_tracker_free(&again);
    free(b.bytes);
    free(b.where);
}

int main(void)
{
    for (int k = 0; k < 400; k++) run(60);
    printf("sessions: %s\n", failed ? "FAILED" : "ok");
    return failed != 0;
}
