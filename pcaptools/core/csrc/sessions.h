/* The pass over a batch: every TCP segment goes to its session.
 *
 * Segments are taken in groups: first all of a group are parsed and the memory that they need is called for, then each
 * is worked on. */
#ifndef PT_SESSIONS_H
#define PT_SESSIONS_H

#include "checksums.h"
#include "session_table.h"

enum { PT_GROUP = 24, PT_AHEAD = 6 }; /* packets; and how far ahead their headers are called for */

/* What a packet is to the tracker. */
enum pt_kind { PT_SKIP, PT_TAKE, PT_CONTINUE };

/* ---- parsing ------------------------------------------------------------------------------------------------- */

/* Where a fragment's bytes lie in their datagram: offset there, start in the packet, whether more come. */
typedef struct {
    uint32_t offset, start, identity;
    uint8_t protocol, more;
} pt_place_in_datagram;

/* 0: it was not captured. */
static inline int pt_fragment_place(const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_place_in_datagram *f)
{
    uint32_t at = l->ip + 40;
    uint8_t kind = p[l->ip + 6], next;
    if (!pt_fragment_identity(p, caplen, l, &f->identity, &f->protocol)) return 0;
    if (l->version == 4) {
        const uint16_t word = pt_net16(p + l->ip + 6);
        f->offset = (word & 0x1fffu) * 8;
        f->more = word >> 13 & 1;
        f->start = l->ip + (p[l->ip] & 15u) * 4;
        return 1;
    }
    while (kind != PT_FRAGMENT_HEADER) { /* it is there: pt_fragment_identity() found it */
        const uint32_t size = pt_ipv6_extension_size(p + at, kind, &next);
        kind = next;
        at += size;
    }
    f->offset = pt_net16(p + at + 2) & 0xfff8u;
    f->more = p[at + 3] & 1;
    f->start = at + 8;
    return 1;
}

static inline void pt_ip_marks(const uint8_t *p, const pt_layer *l, pt_arrival *g)
{
    const uint8_t *ip = p + l->ip;
    g->ce = l->version == 6 ? (ip[1] >> 4 & 3) == 3 : (ip[1] & 3) == 3;
    g->ttl = ip[l->version == 6 ? 7 : 8];
}

/* Payload from `start` to the end of the IP packet; offsets in the packet. */
static inline void pt_segment_payload(const pt_record *r, const pt_layer *l, uint32_t start, pt_arrival *g)
{
    const uint32_t wire = r->wirelen < r->caplen ? r->caplen : r->wirelen;
    const uint32_t end = l->end < wire ? l->end : wire, captured = end < r->caplen ? end : r->caplen;
    g->length = end > start ? end - start : 0;
    g->captured = captured > start ? captured - start : 0;
    g->at = r->data + (start < r->caplen ? start : r->caplen);
    g->wire = wire;
}

/* Key and header of a segment that is all there. Returns whether it is one. */
static inline int pt_parse_segment(const pt_record *r, const pt_layer *l, const uint8_t *p, pt_arrival *g)
{
    const uint8_t *h = p + l->transport;
    const uint32_t header = (h[12] >> 4) * 4u, options = l->transport + 20;
    uint32_t length = header - 20;
    int way;
    if (header < 20 || l->transport + header > l->end) return 0;
    memset(&g->key, 0, sizeof g->key);
    if (!pt_key_ports(p, r->caplen, l, &g->key, &way)) return 0;
    g->way = (uint8_t)way;
    g->seq = pt_net32(h + 4);
    g->ack = pt_net32(h + 8);
    g->flags = (uint16_t)((h[12] & 1) << 8 | h[13]);
    g->window = pt_net16(h + 14);
    if (options + length > r->caplen) length = r->caplen - options;
    g->options = p + options;
    g->options_length = (uint8_t)length;
    pt_ip_marks(p, l, g);
    pt_segment_payload(r, l, l->transport + header, g);
    return 1;
}

/* IPv4 has 12 bytes that tell sessions apart. */
static inline uint32_t pt_hash_of_session(const pt_tracker *t, const pt_flow_key *key)
{
    uint64_t h;
    uint32_t ports;
    if (key->version == 6) return pt_key_hash(key, sizeof *key, t->seed);
    memcpy(&ports, key->port, 4);
    h = ((pt_key_word(key->address[0], 0) << 32 | pt_key_word(key->address[1], 0)) ^ t->seed) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 32 ^ ports) * 0xc4ceb9fe1a85ec53u;
    h = (h ^ h >> 29 ^ t->seed >> 7) * 0x9fb21c651e98df25u;
    return (uint32_t)(h ^ h >> 32);
}

static inline void pt_begin_arrival(const pt_tracker *t, const pt_record *r, uint32_t k, const uint8_t *p,
                                    pt_arrival *g)
{
    g->p = p;
    g->packet = t->packet + k + 1;
    g->time = r->time;
    g->bits = g->original = 0;
    g->gap = 0;
    g->rtt = -1;
    g->dup_ack = g->fresh = 0;
    g->met = NULL;
    g->sacks = 0;
}

/* What a packet is: enum pt_kind; those skipped are counted. */
static inline int pt_parse(pt_tracker *t, pt_batch *b, uint32_t k, pt_arrival *g)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = &b->where[k].inner;
    uint8_t *p = b->bytes + r->data;
    if (PT_UNLIKELY(r->flags & PT_DROP)) {
        t->filtered++;
        return PT_SKIP;
    }
    if (PT_UNLIKELY(!b->where[k].depth || l->protocol != PT_TCP)) {
        t->not_tcp++;
        return PT_SKIP;
    }
    pt_begin_arrival(t, r, k, p, g);
    if (PT_UNLIKELY(l->status == PT_LATER_FRAGMENT)) return PT_CONTINUE;
    if (PT_UNLIKELY(l->status == PT_TRUNCATED || (l->transport != PT_NONE && l->transport + 20 > r->caplen))) {
        t->truncated++;
        return PT_SKIP;
    }
    if (PT_UNLIKELY(l->transport == PT_NONE || l->transport + 20 > l->end || !pt_parse_segment(r, l, p, g))) {
        t->malformed++;
        return PT_SKIP;
    }
    if (PT_UNLIKELY(t->checksum) && (pt_transport_sum(p, r->caplen, l, 0) == PT_SUM_WRONG ||
                                     pt_header_sum(p, r->caplen, l, 0) == PT_SUM_WRONG)) {
        t->bad_checksum++;
        return PT_SKIP;
    }
    if (l->status == PT_BAD_LENGTH || l->flags & PT_NO_LENGTH) g->bits |= PT_BIT(PT_UNCHECKED_LENGTH);
    g->hash = pt_hash_of_session(t, &g->key);
    return PT_TAKE;
}

/* ---- segments in fragments ----------------------------------------------------------------------------------- */

static inline pt_cut_segment *pt_cut_of(const pt_tracker *t, const pt_flow_key *key)
{
    return &t->cut[pt_key_hash(key, sizeof *key, t->seed) % PT_CUT_SEGMENTS];
}

/* The key of a fragment's datagram: source first. 0: there is none. */
static inline int pt_cut_key(const uint8_t *p, uint32_t caplen, const pt_layer *l, uint32_t identity, pt_flow_key *key)
{
    memset(key, 0, sizeof *key);
    if (!pt_key_addresses(p, caplen, l, key)) return 0;
    key->kind = PT_KEY_DATAGRAM;
    key->protocol = PT_TCP;
    key->extra = identity;
    return 1;
}

/* The first fragment of a segment: what its later ones continue. 0: done, -1: no memory. */
static inline int pt_begin_cut(pt_tracker *t, const pt_batch *b, uint32_t k, uint32_t slot, pt_arrival *g)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = &b->where[k].inner;
    const uint8_t *p = b->bytes + r->data;
    pt_place_in_datagram f;
    pt_flow_key key;
    pt_cut_segment *c;
    g->bits |= PT_BIT(PT_FRAGMENTED);
    if (!t->cut && !(t->cut = calloc(PT_CUT_SEGMENTS, sizeof *t->cut))) return -1;
    if (!pt_fragment_place(p, r->caplen, l, &f) || !pt_cut_key(p, r->caplen, l, f.identity, &key)) return 0;
    c = pt_cut_of(t, &key);
    c->key = key;
    c->time = g->time;
    c->slot = slot;
    c->id = pt_session_at(t, slot)->id;
    c->seq = g->seq + (g->flags & PT_FLAG_SYN ? 1 : 0) - (g->at - r->data - f.start);
    c->ack = g->ack;
    c->window = g->window;
    c->way = g->way;
    c->used = 1;
    c->fin = g->flags & PT_FLAG_FIN; /* comes behind the last fragment */
    g->flags &= (uint16_t)~PT_FLAG_FIN;
    return 0;
}

/* A later fragment as a segment of its own, its flags ACK alone, but for FIN at the end. Returns its session's slot;
 * PT_NONE: no first fragment is known. */
static inline uint32_t pt_continue_cut(pt_tracker *t, const pt_batch *b, uint32_t k, pt_arrival *g)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = &b->where[k].inner;
    pt_place_in_datagram f;
    pt_flow_key key;
    pt_cut_segment *c;
    if (!t->cut || !pt_fragment_place(g->p, r->caplen, l, &f) || !pt_cut_key(g->p, r->caplen, l, f.identity, &key))
        return PT_NONE;
    c = pt_cut_of(t, &key);
    if (!c->used || memcmp(&c->key, &key, sizeof key) || pt_session_at(t, c->slot)->id != c->id) return PT_NONE;
    if (pt_session_at(t, c->slot)->queue >= PT_QUEUES) return PT_NONE;
    if (pt_since(g->time, c->time) > (int64_t)PT_FRAGMENT_PATIENCE * 1000000000) return PT_NONE;
    g->key = pt_session_at(t, c->slot)->key;
    g->way = c->way;
    g->seq = c->seq + f.offset;
    g->ack = c->ack;
    g->window = c->window;
    g->flags = (uint16_t)(PT_FLAG_ACK | (f.more ? 0 : c->fin));
    g->options = g->p;
    g->options_length = 0;
    g->bits |= PT_BIT(PT_FRAGMENTED);
    pt_ip_marks(g->p, l, g);
    pt_segment_payload(r, l, f.start, g);
    return c->slot;
}

/* ---- one segment --------------------------------------------------------------------------------------------- */

/* Whether a segment begins another session than s, as tshark tells them apart: by a SYN of another number. */
static inline int pt_begins_another(pt_session *s, pt_arrival *g)
{
    pt_end *from = &s->end[g->way];
    if (!(from->has & PT_HAS_BASE)) return 0;
    if (g->seq == from->base) {
        if (!(g->flags & PT_FLAG_ACK) && from->has & PT_HAS_TO_ACK) from->next = from->to_ack;
        return 0;
    }
    g->bits |= PT_BIT(PT_REUSED_PORTS);
    if (!(g->flags & PT_FLAG_ACK)) return 1;
    from->base = g->seq;
    return 0;
}

/* The session of a segment, made if need be. PT_NONE: no memory. */
static inline uint32_t pt_session_of(pt_tracker *t, pt_arrival *g)
{
    uint32_t slot = g->slot;
    pt_session *s = g->met;
    if (!s || s->queue >= PT_QUEUES || !pt_same_key(&s->key, &g->key, sizeof g->key)) {
        slot = pt_find_session(t, &g->key, g->hash);
        if (slot != PT_NONE) s = pt_session_at(t, slot);
    }
    if (PT_LIKELY(slot != PT_NONE)) {
        if (PT_UNLIKELY(t->limit[s->queue] && pt_since(g->time, s->last) > t->limit[s->queue])) {
            pt_end_session(t, slot, PT_IDLE);
        } else if (PT_LIKELY(!(g->flags & PT_FLAG_SYN)) || !pt_begins_another(s, g)) {
            return slot;
        } else {
            pt_end_session(t, slot, PT_REUSED);
        }
    }
    return pt_open_session(t, g);
}

/* Where relative sequence numbers count from: the first number seen of each end, SYN or guessed. */
static inline void pt_learn_bases(pt_session *s, const pt_arrival *g)
{
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    if (PT_UNLIKELY(!(from->has & PT_HAS_BASE))) {
        from->base = g->flags & PT_FLAG_SYN ? g->seq : g->seq - 1;
        from->has |= PT_HAS_BASE;
    }
    if (PT_UNLIKELY(!(to->has & PT_HAS_BASE)) && g->flags & PT_FLAG_ACK) {
        to->base = g->ack - 1;
        to->has |= PT_HAS_BASE;
    }
}

/* Which queue a session waits in. */
static inline int pt_queue_of(const pt_session *s)
{
    if (s->closed) return PT_CLOSED_QUEUE;
    if ((s->end[0].is | s->end[1].is) & PT_IS_FIN) return PT_CLOSING_QUEUE;
    if ((s->end[0].is & s->end[1].is) & PT_IS_SYN_ACKED || !((s->end[0].is | s->end[1].is) & PT_IS_SYN))
        return PT_ESTABLISHED_QUEUE;
    return PT_OPENING;
}

/* What the first_rtt of Wireshark is: from the last SYN to the ACK of its answer. */
static inline void pt_learn_first_rtt(pt_session *s, const pt_arrival *g)
{
    if (s->first_rtt >= 0 || (g->flags & (PT_FLAG_SYN | PT_FLAG_ACK)) != PT_FLAG_ACK) return;
    if (s->end[g->way].is & PT_SAW_SYN && s->end[!g->way].is & PT_SAW_SYN_ACK)
        s->first_rtt = pt_since(g->time, s->last_syn);
}

/* All but what is behind the options. */
static inline void pt_write_row(pt_segment *o, const pt_session *s, uint32_t slot, const pt_arrival *g, int64_t delta)
{
    const pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    const int client = s->client;
    o->packet = g->packet;
    o->time = g->time;
    o->delta = delta;
    o->gap = g->gap;
    o->rtt = g->rtt;
    o->original = g->original;
    o->bits = g->bits;
    o->session = s->id;
    o->slot = slot;
    o->seq = g->seq;
    o->ack = g->flags & PT_FLAG_ACK ? g->ack : 0;
    o->rel_seq = g->seq - from->base;
    o->rel_ack = g->flags & PT_FLAG_ACK ? g->ack - to->base : 0;
    o->window = pt_scaled_window(from, g);
    o->wire = g->wire;
    o->payload = g->length;
    o->captured = g->captured;
    o->at = g->at;
    o->dup_ack = g->dup_ack;
    o->flags = g->flags;
    o->raw_window = g->window;
    o->direction = g->way != client;
    o->client_state = s->settled ? PT_ESTABLISHED : (uint8_t)pt_end_state(s, client);
    o->server_state = s->settled ? PT_ESTABLISHED : (uint8_t)pt_end_state(s, !client);
    o->options_length = g->options_length;
    memcpy(o->options, g->options, g->options_length);
}

/* Rows of a segment, where they are asked for. 0: done, -1: no memory. */
static inline int pt_make_row(pt_tracker *t, pt_session *s, uint32_t slot, const pt_arrival *g, int64_t delta)
{
    const int wanted = t->rows && s->watched && (!t->payload_rows || g->length || g->flags & PT_SPECIAL);
    pt_segment kept, *row = &kept;
    if (wanted) {
        if (t->row_count == t->row_room) {
            const uint32_t room = t->row_room ? t->row_room * 2 : 1024;
            pt_segment *rows = realloc(t->row, room * sizeof *rows);
            if (!rows) return -1;
            t->row = rows;
            t->row_room = room;
        }
        row = &t->row[t->row_count++];
        memset(row->options, 0, sizeof row->options);
    }
    pt_write_row(row, s, slot, g, delta);
    return t->keep ? pt_keep_row(t, s, row) : 0;
}

/* Who opened it, once a SYN is seen. */
static inline void pt_learn_client(pt_session *s, const pt_arrival *g)
{
    if (!s->guessed) return;
    s->guessed = 0;
    s->client = g->flags & PT_FLAG_ACK ? !g->way : g->way;
}

/* Whether all that a handshake tells is known, and none of the ends is closing. */
static inline int pt_is_settled(const pt_session *s)
{
    const uint8_t known = PT_HAS_BASE | PT_HAS_NEXT | PT_HAS_TO_ACK | PT_PAST_SYN | PT_HAS_ACK;
    const uint8_t is = s->end[0].is | s->end[1].is;
    if (s->queue != PT_ESTABLISHED_QUEUE || (s->end[0].has & s->end[1].has & known) != known) return 0;
    return s->first_rtt >= 0 || (is & (PT_SAW_SYN | PT_SAW_SYN_ACK)) != (PT_SAW_SYN | PT_SAW_SYN_ACK);
}

/* A segment by all the rules. 0: done, -1: no memory. */
static inline int pt_take_unusual(pt_tracker *t, pt_session *s, uint32_t slot, pt_arrival *g)
{
    int queue;
    pt_learn_bases(s, g);
    if (g->flags & PT_FLAG_SYN) pt_learn_client(s, g);
    if (pt_analyse(s, g, &t->unacked)) return -1;
    pt_follow(s, g);
    if (g->flags & PT_FLAG_SYN) pt_agree(s, g);
    if (pt_count_arrival(s, g)) return -1;
    if (s->first_rtt < 0) pt_learn_first_rtt(s, g);
    queue = pt_queue_of(s);
    if (queue != s->queue) {
        pt_requeue(t, slot, queue, s->last_packet ? s->last : g->time);
        if (queue == PT_CLOSED_QUEUE) pt_free_ends(t, s);
    }
    s->settled = (uint8_t)pt_is_settled(s);
    return 0;
}

/* All that a segment does to its session. 0: done, -1: no memory. */
static inline int pt_take_segment(pt_tracker *t, uint32_t slot, pt_arrival *g)
{
    pt_session *s = pt_session_at(t, slot);
    pt_end *e = &s->end[g->way];
    const int64_t delta = s->last_packet ? pt_since(g->time, s->last) : 0;
    const uint8_t queue = s->queue;
    g->pause = pt_since(g->time, e->ack_time);
    if (g->options_length) pt_take_options(e, g);
    pt_mark_plain(g);
    if (PT_LIKELY(s->settled) && PT_LIKELY(pt_is_ordinary(e, &s->end[!g->way], g))) {
        if (pt_pass_ordinary(e, &s->end[!g->way], g, &t->unacked) || pt_count_arrival(s, g)) return -1;
    } else if (pt_take_unusual(t, s, slot, g)) {
        return -1;
    }
    if (g->rtt >= 0 && pt_add_rtt(&s->end[!g->way].rtt, g->rtt)) return -1;
    if (PT_UNLIKELY(g->bits) && pt_note_bits(s, g, t->notes)) return -1;
    if (delta > s->delta_max) s->delta_max = delta;
    if (g->gap > s->gap_max) s->gap_max = g->gap;
    s->last = g->time;
    s->last_packet = g->packet;
    t->tcp++;
    /* Nobody will want the rows of a session that ended well: room for those that did not. */
    if (PT_UNLIKELY(s->queue != queue) && s->queue == PT_CLOSED_QUEUE && !pt_is_chosen(t, s)) {
        pt_drop_rows(t, s);
        if (t->chooses) pt_drop_heads(s, &t->heads_held);
    }
    if (s->heads >> g->way & 1 && g->length && pt_keep_head(s, g, t->bytes + g->at, &t->heads_held)) return -1;
    return t->rows | t->keep ? pt_make_row(t, s, slot, g, delta) : 0;
}

/* ---- a batch ------------------------------------------------------------------------------------------------- */

/* Call for the memory that a segment's session lies in. */
static inline void pt_call_for(const pt_tracker *t, pt_arrival *g)
{
    const pt_slot *slot = &t->slot[g->hash & (t->slots - 1)];
    pt_session *s;
    const uint8_t *from, *to;
    if (!slot->row || slot->hash != g->hash) return;
    g->slot = slot->row - 1;
    g->met = s = pt_session_at(t, g->slot);
    from = (const uint8_t *)&s->end[g->way];
    to = (const uint8_t *)&s->end[!g->way];
    PT_PREFETCH(s);
    PT_PREFETCH((const uint8_t *)s + PT_CACHE_LINE);
    PT_PREFETCH(from);
    PT_PREFETCH(from + PT_CACHE_LINE);
    PT_PREFETCH(from + 2 * PT_CACHE_LINE);
    PT_PREFETCH(to);
    PT_PREFETCH(to + 3 * PT_CACHE_LINE);
}

/* And for the lists that hang on it. */
static inline void pt_call_for_lists(const pt_arrival *g)
{
    const pt_unacked_list *from = &g->met->end[g->way].unacked, *to = &g->met->end[!g->way].unacked;
    const pt_rtts *rtt = &g->met->end[!g->way].rtt;
    PT_PREFETCH(from->of + from->n);
    PT_PREFETCH(to->of + to->head);
    PT_PREFETCH(rtt->of.sample + rtt->n % PT_EXACT_RTTS);
}

static inline int pt_take_packet(pt_tracker *t, const pt_batch *b, uint32_t k, int kind, pt_arrival *g)
{
    uint32_t slot;
    if (kind == PT_CONTINUE) {
        slot = pt_continue_cut(t, b, k, g);
        if (slot == PT_NONE) {
            t->fragments++;
            return 0;
        }
        return pt_take_segment(t, slot, g);
    }
    slot = pt_session_of(t, g);
    if (slot == PT_NONE) return -1;
    if (PT_UNLIKELY(b->where[k].inner.flags & PT_FRAGMENT) && pt_begin_cut(t, b, k, slot, g)) return -1;
    return pt_take_segment(t, slot, g);
}

/* The middle one of the times of a batch's first, middle and last record: one wild timestamp moves no clock. */
static inline int64_t pt_batch_time(const pt_batch *b)
{
    const int64_t x = b->record[0].time, y = b->record[b->n / 2].time, z = b->record[b->n - 1].time;
    const int64_t low = x < y ? x : y, high = x < y ? y : x;
    return z < low ? low : z > high ? high : z;
}

/* Take a batch whose headers are located. 0: done, -1: no memory. */
static inline int pt_track(pt_tracker *t, pt_batch *b)
{
    pt_arrival g[PT_GROUP];
    uint8_t kind[PT_GROUP];
    t->row_count = 0;
    t->bytes = b->bytes;
    pt_forget_handed(t);
    for (uint32_t k = 0; k < b->n; k += PT_GROUP) {
        const uint32_t n = b->n - k < PT_GROUP ? b->n - k : PT_GROUP;
        for (uint32_t j = 0; j < n; j++) {
            if (k + j + PT_AHEAD < b->n) PT_PREFETCH(b->bytes + b->record[k + j + PT_AHEAD].data + 32);
            kind[j] = (uint8_t)pt_parse(t, b, k + j, &g[j]);
            if (kind[j] == PT_TAKE && t->slots) PT_PREFETCH(&t->slot[g[j].hash & (t->slots - 1)]);
        }
        for (uint32_t j = 0; j < n; j++) {
            if (kind[j] == PT_TAKE && t->slots) pt_call_for(t, &g[j]);
        }
        for (uint32_t j = 0; j < n; j++) {
            if (kind[j] == PT_TAKE && g[j].met) pt_call_for_lists(&g[j]);
        }
        for (uint32_t j = 0; j < n; j++) {
            if (kind[j] != PT_SKIP && pt_take_packet(t, b, k + j, kind[j], &g[j])) return -1;
        }
    }
    t->packet += b->n;
    if (!b->n) return 0;
    if (!t->began || pt_batch_time(b) > t->latest) t->latest = pt_batch_time(b);
    t->began = 1;
    pt_expire(t, t->latest);
    return 0;
}

#endif
