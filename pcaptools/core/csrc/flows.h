/* Which flow each packet belongs to: a flow table with exact keys, and an index of where each flow's packets are.
 *
 * Flows are numbered in order of their first packet. A flow that a fragment began may turn out to be another one when
 * the first fragment comes: its row then points there (`same`). */
#ifndef PT_FLOWS_H
#define PT_FLOWS_H

#include "flowkey.h"

enum pt_by {
    PT_BY_CONNECTION, PT_BY_HOSTS, PT_BY_SOURCE, PT_BY_DESTINATION, PT_BY_VLAN, PT_BY_LINK, PT_BY_INTERFACE,
    PT_BY_PROTOCOL, PT_BY_COUNT, PT_BY_SIZE, PT_BY_TIME, PT_BY_FILTER,
};

/* Which flows share a file. */
enum pt_grouping { PT_GROUP_FLOW, PT_GROUP_CLIENT, PT_GROUP_SERVER, PT_GROUP_CLIENT_PORT, PT_GROUP_SERVER_PORT,
                   PT_GROUP_FILES };

enum {
    PT_NO_FLOW = 0,              /* row 0: packets without a flow */
    PT_FRAGMENT_PATIENCE = 60,   /* s of capture time: RFC 8200 section 4.5 */
    PT_DATAGRAMS = 1 << 20,      /* rows at which old datagrams are forgotten */
};

/* pt_flow.seen */
enum {
    PT_SEEN_SYN = 1, PT_SEEN_SYN_ACK = 2, PT_SEEN_FIN_0 = 4, PT_SEEN_FIN_1 = 8, PT_SEEN_RST = 16,
    PT_SEEN_MORE = 32, /* something behind the handshake */
};

/* pt_flow.known: how seq[side] was learnt */
enum { PT_SEQ_SYN = 1, PT_SEQ_FIRST = 2, PT_SEQ_ACKED = 4 };

enum pt_flow_end { PT_STILL_OPEN, PT_ENDED_IDLE, PT_ENDED_REUSED };
enum pt_flow_start { PT_BEGAN_MIDDLE, PT_BEGAN_SYN, PT_BEGAN_SYN_ACK };

typedef struct {
    pt_flow_key key;      /* must stand first */
    int64_t first, last;  /* ns */
    uint64_t packets[2], bytes[2]; /* from the first end of the key, and from the second; bytes on the wire */
    uint64_t ordinal;     /* of its first packet, from 0 */
    uint32_t seq[2];      /* initial sequence number of each end */
    uint32_t same;        /* the flow that this one turned out to be; PT_NONE: itself */
    uint32_t parent;      /* set by pt_relate(): the flow of its group nearer to the root; itself: the root */
    uint32_t cause;       /* the flow that caused it; PT_NONE: none */
    uint32_t group;       /* whose file it goes to; PT_NONE: not yet known */
    uint8_t flags[2];     /* TCP flags seen */
    uint8_t known[2];
    uint8_t seen, start, end, relation;
    uint8_t client, sender; /* ends of the key: who opened it, and who sent the first packet */
} pt_flow;

typedef struct {
    pt_flow_key key; /* directed: source first */
    int64_t time;    /* of its last fragment */
    uint32_t flow;
    uint32_t pending; /* no first fragment yet: `flow` is provisional */
} pt_datagram;

/* Where a packet's record lies in the stream, and whose it is. */
typedef struct {
    uint64_t at;
    uint32_t size, flow;
} pt_place;

/* A packet that tells of other flows. */
enum pt_telling { PT_TELLS_DNS = 1, PT_TELLS_SIP = 2, PT_TELLS_FTP = 4, PT_TELLS_HTTP = 8 };
typedef struct {
    uint64_t ordinal;
    uint32_t record, flow, start, end; /* start, end: its payload, offsets in the packet */
    uint8_t kind, way, tcp;
} pt_told;

typedef struct {
    pt_keytable flows, datagrams, groups, vlans;
    pt_place *place;
    pt_told *told;
    uint32_t places, place_room, tolds, told_room;
    uint64_t packets;      /* indexed so far, those of row 0 included */
    uint64_t filtered;     /* left out because they were marked PT_DROP */
    int64_t timeout, open_timeout; /* ns, 0: none */
    uint64_t limit;        /* of PT_BY_COUNT packets, PT_BY_SIZE bytes, PT_BY_TIME ns */
    uint64_t chunk, chunk_used;
    int64_t origin, latest; /* ns: time of the first packet, and the latest */
    uint64_t stream;       /* bytes of the stream before the batch */
    uint32_t files, head;  /* head: bytes of a file before its packets, for PT_BY_SIZE */
    uint8_t by, grouping, inner, ignore_vlan, own_icmp_errors, keep, tells, began, filter;
    pt_flow_key scratch;
} pt_split;

static inline pt_flow *pt_flow_at(const pt_split *s, uint32_t flow) { return pt_row(&s->flows, flow); }

/* The flow that a row stands for, after all merging. */
static inline uint32_t pt_flow_resolved(const pt_split *s, uint32_t flow)
{
    while (pt_flow_at(s, flow)->same != PT_NONE) flow = pt_flow_at(s, flow)->same;
    return flow;
}

/* ---- flows -------------------------------------------------------------------------------------------------- */

static inline int pt_flow_is_closed(const pt_flow *f)
{
    const uint8_t both = PT_SEEN_FIN_0 | PT_SEEN_FIN_1;
    return (f->seen & PT_SEEN_RST) || (f->seen & both) == both;
}

/* Flags, sequence and acknowledgement number of a TCP header. */
typedef struct {
    uint32_t seq, ack;
    uint8_t flags, there;
} pt_tcp_head;

enum { PT_FLAG_FIN = 1, PT_FLAG_SYN = 2, PT_FLAG_RST = 4, PT_FLAG_ACK = 16 };

static inline pt_tcp_head pt_tcp_of(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    pt_tcp_head h = {0, 0, 0, 0};
    if (l->protocol != PT_TCP || !pt_has_transport(l, caplen, 14)) return h;
    h.seq = pt_net32(p + l->transport + 4);
    h.ack = pt_net32(p + l->transport + 8);
    h.flags = p[l->transport + 13];
    h.there = 1;
    return h;
}

/* Whether a SYN from one end begins another connection than f (RFC 9293 section 3.5): another initial sequence number
 * does; the same one does when the connection was used and closed, else it is sent again. */
static inline int pt_syn_is_new(const pt_flow *f, int way, const pt_tcp_head *h)
{
    if (f->known[way]) return h->seq != f->seq[way] || (pt_flow_is_closed(f) && f->seen & PT_SEEN_MORE);
    return pt_flow_is_closed(f) || !(f->seen & PT_SEEN_SYN); /* else both open at once */
}

/* The same of a SYN with ACK: it belongs to the SYN that it acknowledges. */
static inline int pt_syn_ack_is_new(const pt_flow *f, int way, const pt_tcp_head *h)
{
    if (f->known[!way] & (PT_SEQ_SYN | PT_SEQ_ACKED) && h->ack - 1 == f->seq[!way]) return 0;
    if (f->known[way]) return h->seq != f->seq[way];
    return pt_flow_is_closed(f);
}

/* Why a packet does not continue flow f: enum pt_flow_end; 0: it does. */
static inline int pt_flow_is_over(const pt_split *s, const pt_flow *f, int way, const pt_tcp_head *h, int64_t time)
{
    const int64_t idle = time - f->last;
    if (f->key.protocol != PT_TCP || f->key.kind != PT_KEY_PORTS)
        return s->timeout && idle > s->timeout ? PT_ENDED_IDLE : 0;
    if (pt_flow_is_closed(f) || (h->flags & PT_FLAG_SYN && !(f->seen & PT_SEEN_MORE))) {
        if (s->timeout && idle > s->timeout) return PT_ENDED_IDLE;
    }
    if (!pt_flow_is_closed(f) && s->open_timeout && idle > s->open_timeout) return PT_ENDED_IDLE;
    if ((h->flags & (PT_FLAG_SYN | PT_FLAG_RST)) != PT_FLAG_SYN) return 0;
    if (h->flags & PT_FLAG_ACK) return pt_syn_ack_is_new(f, way, h) ? PT_ENDED_REUSED : 0;
    return pt_syn_is_new(f, way, h) ? PT_ENDED_REUSED : 0;
}

static inline void pt_learn_seq(pt_flow *f, int end, uint32_t seq, int how)
{
    if (f->known[end] & PT_SEQ_SYN || (f->known[end] && how != PT_SEQ_SYN)) return;
    f->seq[end] = seq;
    f->known[end] = (uint8_t)how;
}

static inline void pt_tcp_follow(pt_flow *f, int way, const pt_tcp_head *h)
{
    f->flags[way] |= h->flags;
    if (h->flags & PT_FLAG_RST) f->seen |= PT_SEEN_RST;
    if (h->flags & PT_FLAG_FIN) f->seen |= way ? PT_SEEN_FIN_1 : PT_SEEN_FIN_0;
    if (!(h->flags & PT_FLAG_SYN)) {
        if (!(h->flags & PT_FLAG_RST)) {
            f->seen |= PT_SEEN_MORE;
            pt_learn_seq(f, way, h->seq - 1, PT_SEQ_FIRST);
        }
    } else if (h->flags & PT_FLAG_ACK) {
        f->seen |= PT_SEEN_SYN_ACK;
        pt_learn_seq(f, way, h->seq, PT_SEQ_SYN);
        pt_learn_seq(f, !way, h->ack - 1, PT_SEQ_ACKED);
    } else {
        if (!(f->seen & PT_SEEN_SYN)) f->client = (uint8_t)way;
        f->seen |= PT_SEEN_SYN;
        f->start = PT_BEGAN_SYN;
        pt_learn_seq(f, way, h->seq, PT_SEQ_SYN);
    }
}

/* The end that opened a flow, as far as its first packet tells: what sends a SYN or a query; among ports the one that
 * is no server's, below 1024 or just the lower one of TCP; else who speaks first. */
static inline int pt_client_of(const pt_flow_key *key, int way, const pt_tcp_head *h, int reply)
{
    const uint16_t from = key->port[way], to = key->port[!way];
    if (key->kind == PT_KEY_ECHO) return reply ? !way : way;
    if (key->kind != PT_KEY_PORTS) return way;
    if (h->there && h->flags & PT_FLAG_SYN) return h->flags & PT_FLAG_ACK ? !way : way;
    if ((from < 1024) != (to < 1024)) return from < 1024 ? !way : way;
    if (key->protocol == PT_TCP && from != to) return from < to ? !way : way;
    return way;
}

/* A new flow that no key leads to; PT_NONE: no memory. */
static inline uint32_t pt_provisional_flow(pt_split *s, const pt_flow_key *key, int64_t time, int way)
{
    uint32_t row = pt_add_row(&s->flows);
    pt_flow *f;
    if (row == PT_NONE) return PT_NONE;
    f = pt_flow_at(s, row);
    f->key = *key;
    f->first = f->last = time;
    f->ordinal = s->packets;
    f->same = f->cause = f->group = PT_NONE;
    f->parent = row;
    f->client = f->sender = (uint8_t)way;
    return row;
}

/* A new flow that its key leads to; PT_NONE: no memory. */
static inline uint32_t pt_open_flow(pt_split *s, const pt_flow_key *key, int64_t time, int way)
{
    uint32_t row = pt_provisional_flow(s, key, time, way);
    return row == PT_NONE || pt_enter(&s->flows, row) ? PT_NONE : row;
}

static inline void pt_count_packet(pt_flow *f, int way, const pt_record *r)
{
    f->packets[way]++;
    f->bytes[way] += r->wirelen;
    if (r->time < f->first) f->first = r->time;
    if (r->time > f->last) f->last = r->time;
}

/* One flow turns out to be part of another. */
static inline void pt_merge_flow(pt_split *s, uint32_t flow, uint32_t into)
{
    pt_flow *a = pt_flow_at(s, flow), *b = pt_flow_at(s, into);
    if (flow == into) return;
    a->same = into;
    for (int way = 0; way < 2; way++) {
        b->packets[way] += a->packets[way];
        b->bytes[way] += a->bytes[way];
    }
    if (a->first < b->first) b->first = a->first;
    if (a->last > b->last) b->last = a->last;
    if (a->ordinal < b->ordinal) b->ordinal = a->ordinal;
}

/* ---- fragments ---------------------------------------------------------------------------------------------- */

/* The first fragment of a datagram never came: its fragments belong to their address pair. */
static inline int pt_give_up_datagram(pt_split *s, pt_datagram *d)
{
    pt_flow_key key = pt_flow_at(s, d->flow)->key;
    uint32_t row;
    d->pending = 0;
    key.kind = PT_KEY_PAIR;
    key.extra = 0;
    row = pt_find(&s->flows, &key);
    if (row != PT_NONE) {
        pt_merge_flow(s, d->flow, row);
        d->flow = row;
        return 0;
    }
    pt_flow_at(s, d->flow)->key = key;
    return pt_enter(&s->flows, d->flow);
}

/* Forget the datagrams whose last fragment came before `time`. 0: done, -1: no memory. */
static inline int pt_forget_datagrams(pt_split *s, int64_t time)
{
    pt_keytable *t = &s->datagrams;
    uint32_t kept = 0;
    for (uint32_t k = 0; k < t->n; k++) {
        pt_datagram *d = pt_row(t, k);
        if (d->time >= time) {
            if (kept != k) memcpy(pt_row(t, kept), d, sizeof *d);
            kept++;
        } else if (d->pending && pt_give_up_datagram(s, d)) {
            return -1;
        }
    }
    t->n = kept;
    t->used = 0;
    if (t->slots) memset(t->slot, 0, t->slots * sizeof *t->slot);
    for (uint32_t k = 0; k < kept; k++) {
        if (pt_enter(t, k)) return -1;
    }
    return 0;
}

static inline int pt_room_for_datagrams(pt_split *s, int64_t time)
{
    const int64_t patience = (int64_t)PT_FRAGMENT_PATIENCE * 1000000000;
    if (s->datagrams.n < PT_DATAGRAMS) return 0;
    if (pt_forget_datagrams(s, time - patience)) return -1;
    return s->datagrams.n < PT_DATAGRAMS / 2 ? 0 : pt_forget_datagrams(s, INT64_MAX);
}

/* The datagram of a fragment, its key directed; a stale one of the same identification is forgotten. NULL: no
 * memory. */
static inline pt_datagram *pt_datagram_of(pt_split *s, const pt_flow_key *key, int64_t time, int *fresh)
{
    const int64_t patience = (int64_t)PT_FRAGMENT_PATIENCE * 1000000000;
    uint32_t row;
    pt_datagram *d;
    if (pt_room_for_datagrams(s, time)) return NULL;
    row = pt_find(&s->datagrams, key);
    *fresh = row == PT_NONE;
    if (*fresh) row = pt_obtain(&s->datagrams, key);
    if (row == PT_NONE) return NULL;
    d = pt_row(&s->datagrams, row);
    if (!*fresh && time - d->time > patience) {
        if (d->pending && pt_give_up_datagram(s, d)) return NULL;
        *fresh = 1;
    }
    d->time = time;
    return d;
}

static inline void pt_datagram_key(const pt_flow_key *addresses, uint32_t identity, uint8_t protocol, pt_flow_key *key)
{
    *key = *addresses;
    key->port[0] = key->port[1] = 0;
    key->kind = PT_KEY_DATAGRAM;
    key->protocol = protocol;
    key->extra = identity;
}

/* The flow of a later fragment: its datagram's, or a provisional one. key: addresses as sent. PT_NONE: no memory. */
static inline uint32_t pt_later_fragment(pt_split *s, const uint8_t *p, uint32_t caplen, const pt_layer *l,
                                         const pt_flow_key *addresses, int64_t time, int *way)
{
    pt_flow_key key, ordered;
    uint32_t identity;
    uint8_t protocol;
    pt_datagram *d;
    int fresh;
    ordered = *addresses;
    *way = pt_order_ends(&ordered);
    if (!pt_fragment_identity(p, caplen, l, &identity, &protocol)) {
        ordered.kind = PT_KEY_PAIR;
        ordered.protocol = protocol;
        identity = pt_find(&s->flows, &ordered);
        return identity != PT_NONE ? identity : pt_open_flow(s, &ordered, time, *way);
    }
    pt_datagram_key(addresses, identity, protocol, &key);
    d = pt_datagram_of(s, &key, time, &fresh);
    if (!d) return PT_NONE;
    if (fresh) {
        ordered.kind = PT_KEY_DATAGRAM;
        ordered.protocol = protocol;
        d->flow = pt_provisional_flow(s, &ordered, time, *way); /* its datagram leads to it */
        d->pending = 1;
    }
    return d->flow;
}

/* A first fragment was found to belong to `flow`: so do those that came before it. 0: done, -1: no memory. */
static inline int pt_first_fragment(pt_split *s, const uint8_t *p, uint32_t caplen, const pt_layer *l,
                                    const pt_flow_key *addresses, int64_t time, uint32_t flow)
{
    pt_flow_key key;
    uint32_t identity;
    uint8_t protocol;
    pt_datagram *d;
    int fresh;
    if (!pt_fragment_identity(p, caplen, l, &identity, &protocol)) return 0;
    pt_datagram_key(addresses, identity, protocol, &key);
    d = pt_datagram_of(s, &key, time, &fresh);
    if (!d) return -1;
    if (!fresh && d->pending) pt_merge_flow(s, d->flow, flow);
    d->flow = flow;
    d->pending = 0;
    return 0;
}

/* ---- packets ------------------------------------------------------------------------------------------------ */

/* The flow that an ICMP error quotes; PT_NONE: not known. */
static inline uint32_t pt_quoted_flow(const pt_split *s, const uint8_t *p, uint32_t end, const pt_layer *l,
                                      uint32_t vlan, int *way)
{
    const uint32_t at = l->transport + 8;
    pt_layer layers[PT_MAX_DEPTH];
    const pt_layer *quoted;
    pt_flow_key key;
    pt_walk w;
    uint32_t depth, network, identity;
    uint16_t ethertype;
    uint8_t protocol;
    if (at >= end) return PT_NONE;
    pt_walk_start(&w, p + at, end - at, end - at);
    depth = pt_layers(&w, 101, layers, PT_MAX_DEPTH, &network, &ethertype);
    if (!depth) return PT_NONE;
    quoted = s->inner ? &layers[depth - 1] : &layers[0];
    memset(&key, 0, sizeof key);
    if (!pt_key_addresses(p + at, end - at, quoted, &key)) return PT_NONE;
    key.vlan = vlan;
    if (quoted->status == PT_LATER_FRAGMENT) {
        pt_flow_key datagram;
        uint32_t row;
        if (!pt_fragment_identity(p + at, end - at, quoted, &identity, &protocol)) return PT_NONE;
        pt_datagram_key(&key, identity, protocol, &datagram);
        *way = !pt_order_ends(&key);
        row = pt_find(&s->datagrams, &datagram);
        return row == PT_NONE ? PT_NONE : ((const pt_datagram *)pt_row(&s->datagrams, row))->flow;
    }
    pt_key_transport(p + at, end - at, quoted, &key);
    *way = !pt_order_ends(&key);
    return pt_find(&s->flows, &key);
}

/* The flow of a connection's packet. key: addresses and VLAN, as sent. PT_NONE: no memory. */
static inline uint32_t pt_connection(pt_split *s, const uint8_t *p, const pt_record *r, const pt_layer *l,
                                     pt_flow_key *key, int *way)
{
    const pt_tcp_head h = pt_tcp_of(p, r->caplen, l);
    const uint32_t end = l->end < r->caplen ? l->end : r->caplen;
    pt_flow_key addresses;
    uint32_t row;
    pt_flow *f;
    if (l->status == PT_LATER_FRAGMENT) return pt_later_fragment(s, p, r->caplen, l, key, r->time, way);
    if (!s->own_icmp_errors && pt_has_transport(l, r->caplen, 8) && pt_icmp_error(l->protocol, p[l->transport])) {
        row = pt_quoted_flow(s, p, end, l, key->vlan, way);
        if (row != PT_NONE) return pt_flow_resolved(s, row);
    }
    addresses = *key;
    pt_key_transport(p, r->caplen, l, key);
    *way = pt_order_ends(key);
    row = pt_find(&s->flows, key);
    if (row != PT_NONE) {
        int end_of = pt_flow_is_over(s, pt_flow_at(s, row), *way, &h, r->time);
        if (end_of) {
            pt_flow_at(s, row)->end = (uint8_t)end_of;
            row = PT_NONE;
        }
    }
    if (row == PT_NONE) {
        int reply = key->kind == PT_KEY_ECHO && pt_icmp_query(key->protocol, p[l->transport]) == 2;
        row = pt_open_flow(s, key, r->time, *way);
        if (row == PT_NONE) return PT_NONE;
        f = pt_flow_at(s, row);
        f->client = (uint8_t)pt_client_of(key, *way, &h, reply);
        if (h.there && h.flags & PT_FLAG_SYN) f->start = h.flags & PT_FLAG_ACK ? PT_BEGAN_SYN_ACK : PT_BEGAN_SYN;
    }
    f = pt_flow_at(s, row);
    if (h.there) pt_tcp_follow(f, *way, &h);
    if (l->flags & PT_FRAGMENT && pt_first_fragment(s, p, r->caplen, l, &addresses, r->time, row)) return PT_NONE;
    return row;
}

/* Which part of the capture a packet falls into. */
static inline uint64_t pt_chunk(pt_split *s, const pt_record *r)
{
    const uint64_t size = s->by == PT_BY_COUNT ? 1 : r->end - r->start;
    if (s->by == PT_BY_TIME) {
        int64_t since = r->time - s->origin, limit = (int64_t)s->limit, window = since / limit;
        return (uint64_t)(since % limit < 0 ? window - 1 : window);
    }
    if (s->chunk_used && s->chunk_used + size > s->limit) {
        s->chunk++;
        s->chunk_used = 0;
    }
    if (!s->chunk_used && s->by == PT_BY_SIZE) s->chunk_used = s->head;
    s->chunk_used += size;
    return s->chunk;
}

/* The key of a packet where it does not depend on others. Returns whether it has one. */
static inline int pt_plain_key(pt_split *s, const pt_batch *b, const pt_record *r, const pt_layer *l, pt_flow_key *key,
                               int *way)
{
    const uint8_t *p = b->bytes + r->data;
    *way = 0;
    switch (s->by) {
    case PT_BY_HOSTS:
        if (!pt_key_addresses(p, r->caplen, l, key)) return 0;
        key->vlan = 0;
        key->kind = PT_KEY_HOSTS;
        *way = pt_order_ends(key);
        return 1;
    case PT_BY_SOURCE: case PT_BY_DESTINATION:
        if (!pt_key_addresses(p, r->caplen, l, key)) return 0;
        key->vlan = 0;
        key->kind = PT_KEY_HOST;
        if (s->by == PT_BY_DESTINATION) memcpy(key->address[0], key->address[1], 16);
        memset(key->address[1], 0, 16);
        return 1;
    case PT_BY_PROTOCOL:
        if (!pt_key_addresses(p, r->caplen, l, key)) return 0;
        pt_number_key(key, PT_KEY_PAIR, 0);
        key->protocol = l->protocol;
        return 1;
    case PT_BY_VLAN: key->kind = PT_KEY_VLAN; return 1;
    case PT_BY_LINK: pt_number_key(key, PT_KEY_NUMBER, b->interfaces->of[r->interface].linktype); return 1;
    case PT_BY_INTERFACE: pt_number_key(key, PT_KEY_NUMBER, r->interface); return 1;
    case PT_BY_FILTER: pt_number_key(key, PT_KEY_NUMBER, r->flags & PT_DROP ? 1 : 0); return 1;
    default: pt_number_key(key, PT_KEY_NUMBER, pt_chunk(s, r)); return 1;
    }
}

/* The flow of a packet; PT_NONE: no memory. */
static inline uint32_t pt_flow_of(pt_split *s, const pt_batch *b, uint32_t k, int *way)
{
    const pt_record *r = &b->record[k];
    const pt_where *w = &b->where[k];
    const pt_layer *l = s->inner ? &w->inner : &w->outer;
    const uint8_t *p = b->bytes + r->data;
    pt_flow_key key;
    uint32_t row;
    memset(&key, 0, sizeof key);
    if ((!s->ignore_vlan || s->by == PT_BY_VLAN) &&
        pt_vlan_stack(&s->vlans, p, r->caplen, w, b->interfaces->of[r->interface].linktype, &key.vlan))
        return PT_NONE;
    *way = 0;
    if (s->by == PT_BY_CONNECTION) {
        if (!pt_key_addresses(p, r->caplen, l, &key)) return PT_NO_FLOW;
        return pt_connection(s, p, r, l, &key, way);
    }
    if (!pt_plain_key(s, b, r, l, &key, way)) return PT_NO_FLOW;
    row = pt_find(&s->flows, &key);
    return row != PT_NONE ? row : pt_open_flow(s, &key, r->time, *way);
}

static inline int pt_starts(const uint8_t *p, const char *text)
{
    return !memcmp(p, text, strlen(text));
}

/* What the payload of a packet may tell of other flows: enum pt_telling. */
static inline int pt_tells(const pt_split *s, const uint8_t *p, uint32_t n, const pt_flow_key *key, int way)
{
    if (s->tells & PT_TELLS_DNS && n >= 12 && (key->port[way] == 53 || key->port[way] == 5353)) return PT_TELLS_DNS;
    if (n < 8) return 0;
    if (s->tells & PT_TELLS_SIP && (pt_starts(p, "SIP/2.0") || pt_starts(p, "INVITE ") || pt_starts(p, "ACK sip") ||
                                    pt_starts(p, "UPDATE ") || pt_starts(p, "PRACK ")))
        return PT_TELLS_SIP;
    if (key->protocol != PT_TCP) return 0;
    if (s->tells & PT_TELLS_FTP && (pt_starts(p, "227 ") || pt_starts(p, "229 ") || pt_starts(p, "PORT ") ||
                                    pt_starts(p, "EPRT ")))
        return PT_TELLS_FTP;
    if (s->tells & PT_TELLS_HTTP && (pt_starts(p, "GET ") || pt_starts(p, "HTTP/1.") || pt_starts(p, "POST ") ||
                                     pt_starts(p, "HEAD ") || pt_starts(p, "PUT ")))
        return PT_TELLS_HTTP;
    return 0;
}

static inline int pt_listen(pt_split *s, const pt_batch *b, uint32_t k, uint32_t flow, int way)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = s->inner ? &b->where[k].inner : &b->where[k].outer;
    const pt_flow_key *key = &pt_flow_at(s, flow)->key;
    const uint32_t end = l->end < r->caplen ? l->end : r->caplen;
    const uint8_t *p = b->bytes + r->data;
    uint32_t start;
    pt_told *told;
    int kind;
    if (key->kind != PT_KEY_PORTS || !pt_has_transport(l, r->caplen, 8) || l->protocol != key->protocol) return 0;
    if (l->protocol == PT_TCP) {
        if (!pt_has_transport(l, r->caplen, 20)) return 0;
        start = l->transport + (p[l->transport + 12] >> 4) * 4u;
    } else if (l->protocol == PT_UDP) {
        start = l->transport + 8;
    } else {
        return 0;
    }
    if (start >= end) return 0;
    kind = pt_tells(s, p + start, end - start, key, way);
    if (!kind) return 0;
    if (s->tolds == s->told_room) {
        uint32_t room = s->told_room ? s->told_room * 2 : 64;
        told = realloc(s->told, room * sizeof *told);
        if (!told) return -1;
        s->told = told;
        s->told_room = room;
    }
    told = &s->told[s->tolds++];
    told->ordinal = s->packets;
    told->record = k;
    told->flow = flow;
    told->start = start;
    told->end = end;
    told->kind = (uint8_t)kind;
    told->way = (uint8_t)way;
    told->tcp = l->protocol == PT_TCP;
    return 0;
}

static inline int pt_room_for_places(pt_split *s, uint32_t n)
{
    uint32_t room = s->place_room ? s->place_room : 1 << 16;
    pt_place *place;
    if (s->places + n <= s->place_room) return 0;
    if (n > UINT32_MAX - s->places) return -1;
    while (room < s->places + n) room = room < (1u << 31) ? room * 2 : UINT32_MAX;
    place = realloc(s->place, (size_t)room * sizeof *place);
    if (!place) return -1;
    s->place = place;
    s->place_room = room;
    return 0;
}

static inline int pt_split_begin(pt_split *s)
{
    pt_vlan_node none = {0, 0};
    pt_flow *f;
    s->flows.stride = sizeof(pt_flow);
    s->datagrams.stride = sizeof(pt_datagram);
    s->groups.stride = s->flows.key = s->datagrams.key = s->groups.key = sizeof(pt_flow_key);
    s->vlans.stride = s->vlans.key = sizeof(pt_vlan_node);
    if (pt_add_row(&s->flows) == PT_NONE || pt_obtain(&s->vlans, &none) == PT_NONE) return -1;
    f = pt_flow_at(s, PT_NO_FLOW);
    f->same = f->cause = f->group = PT_NONE;
    return 0;
}

/* Index the packets of a batch whose headers are located. Those marked PT_DROP are left out, unless the mark is what
 * they are told apart by. 0: done, -1: no memory. */
static inline int pt_split_batch(pt_split *s, const pt_batch *b)
{
    s->tolds = 0;
    if (s->keep && pt_room_for_places(s, b->n)) return -1;
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        uint32_t flow;
        pt_flow *f;
        int way;
        if (r->flags & PT_DROP && s->by != PT_BY_FILTER) {
            s->filtered++;
            continue;
        }
        if (!s->began) {
            s->origin = s->latest = r->time;
            s->began = 1;
        }
        if (r->time > s->latest) s->latest = r->time;
        flow = pt_flow_of(s, b, k, &way);
        if (flow == PT_NONE) return -1;
        f = pt_flow_at(s, flow);
        if (!(f->packets[0] | f->packets[1])) {
            f->first = f->last = r->time;
            f->ordinal = s->packets;
        }
        pt_count_packet(f, way, r);
        if (s->tells && pt_listen(s, b, k, flow, way)) return -1;
        if (s->keep) {
            pt_place *place = &s->place[s->places++];
            place->at = s->stream + r->start;
            place->size = r->end - r->start;
            place->flow = flow;
        }
        s->packets++;
    }
    s->stream += b->used;
    return 0;
}

static inline void pt_split_free(pt_split *s)
{
    pt_keytable_free(&s->flows);
    pt_keytable_free(&s->datagrams);
    pt_keytable_free(&s->groups);
    pt_keytable_free(&s->vlans);
    free(s->place);
    free(s->told);
}

#endif
