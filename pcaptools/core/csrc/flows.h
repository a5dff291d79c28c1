/* Which flow each packet belongs to, and an index of where each flow's packets are. */
#ifndef PT_FLOWS_H
#define PT_FLOWS_H

#include "datagrams.h"
#include "flowrules.h"
#include "telling.h"

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

/* What is known of a packet before the flow table is asked. */
enum pt_what {
    PT_FILTERED,      /* left out */
    PT_KEYLESS,       /* has no flow */
    PT_KEYED,         /* its flow has this key */
    PT_LATER,         /* a later fragment: the key is its addresses as sent */
    PT_QUOTES,        /* an ICMP error: the same, until it is known what it quotes */
};
typedef struct {
    pt_flow_key key;
    uint32_t hash;    /* of the key, when PT_KEYED */
    uint8_t what, way;
} pt_ready;

/* What a connection's packet says of its flow; the key has its VLAN. 0: done, -1: no memory. */
static inline int pt_ready_connection(pt_split *s, const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_ready *d)
{
    uint32_t start, end;
    int way;
    if (!pt_key_ports(p, caplen, l, &d->key, &way)) {
        if (!pt_key_addresses(p, caplen, l, &d->key)) return 0;
        d->what = PT_LATER;
        if (l->status == PT_LATER_FRAGMENT) return 0;
        d->what = PT_QUOTES;
        if (!s->own_icmp_errors && pt_has_transport(l, caplen, 8) && pt_icmp_error(l->protocol, p[l->transport])) return 0;
        pt_key_transport(p, caplen, l, &d->key);
        way = pt_order_ends(&d->key);
    }
    if (s->tells & PT_TELLS_SIP && l->protocol == PT_UDP && pt_payload(p, caplen, l, &start, &end) &&
        pt_call_of(s, p + start, end - start, &d->key.extra))
        return -1;
    d->what = PT_KEYED;
    d->way = (uint8_t)way;
    return 0;
}

/* The flow of a packet with a connection's key. PT_NONE: no memory. */
static inline uint32_t pt_connection(pt_split *s, const uint8_t *p, const pt_record *r, const pt_layer *l,
                                     const pt_ready *d)
{
    const pt_tcp_head h = pt_tcp_of(p, r->caplen, l);
    uint32_t row = pt_find_hashed(&s->flows, &d->key, d->hash);
    pt_flow *f;
    if (row != PT_NONE) {
        int end_of = pt_flow_is_over(s, pt_flow_at(s, row), d->way, &h, r->time);
        if (end_of) {
            pt_flow_at(s, row)->end = (uint8_t)end_of;
            row = PT_NONE;
        }
    }
    if (row == PT_NONE) {
        int reply = d->key.kind == PT_KEY_ECHO && pt_icmp_query(d->key.protocol, p[l->transport]) == 2;
        row = pt_open_flow(s, &d->key, r->time, d->way);
        if (row == PT_NONE) return PT_NONE;
        f = pt_flow_at(s, row);
        f->client = pt_client_of(&d->key, d->way, &h, reply) & 1;
        if (h.there && h.flags & PT_FLAG_SYN) f->start = h.flags & PT_FLAG_ACK ? PT_BEGAN_SYN_ACK : PT_BEGAN_SYN;
    }
    f = pt_flow_at(s, row);
    if (h.there) pt_tcp_follow(f, d->way, &h);
    if (l->flags & PT_FRAGMENT) {
        pt_flow_key addresses = d->key;
        if (d->way) pt_swap_ends(addresses.address, addresses.port);
        if (pt_first_fragment(s, p, r->caplen, l, &addresses, r->time, row)) return PT_NONE;
    }
    return row;
}

/* The flow of an ICMP error: the one that it quotes, else its own. PT_NONE: no memory. */
static inline uint32_t pt_error_flow(pt_split *s, const uint8_t *p, const pt_record *r, const pt_layer *l, pt_ready *d,
                                     int *way)
{
    const uint32_t end = l->end < r->caplen ? l->end : r->caplen;
    const uint32_t row = pt_quoted_flow(s, p, end, l, d->key.vlan, way);
    if (row != PT_NONE) return pt_flow_resolved(s, row);
    pt_key_transport(p, r->caplen, l, &d->key);
    *way = pt_order_ends(&d->key);
    d->way = (uint8_t)*way;
    d->hash = pt_key_hash(&d->key, sizeof d->key, s->flows.seed);
    return pt_connection(s, p, r, l, d);
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

/* What a packet says of its flow. 0: done, -1: no memory. */
static inline int pt_make_ready(pt_split *s, const pt_batch *b, uint32_t k, pt_ready *d)
{
    const pt_record *r = &b->record[k];
    const pt_where *w = &b->where[k];
    const pt_layer *l = s->inner ? &w->inner : &w->outer;
    const uint8_t *p = b->bytes + r->data;
    int way;
    d->what = PT_FILTERED;
    if (r->flags & PT_DROP && s->by != PT_BY_FILTER) return 0;
    if (!s->began) {
        s->origin = s->latest = r->time;
        s->began = 1;
    }
    memset(&d->key, 0, sizeof d->key);
    d->what = PT_KEYLESS;
    d->way = 0;
    if ((!s->ignore_vlan || s->by == PT_BY_VLAN) &&
        pt_vlan_stack(&s->vlans, p, r->caplen, w, b->interfaces->of[r->interface].linktype, &d->key.vlan))
        return -1;
    if (s->by == PT_BY_CONNECTION) return pt_ready_connection(s, p, r->caplen, l, d);
    if (!pt_plain_key(s, b, r, l, &d->key, &way)) return 0;
    d->what = PT_KEYED;
    d->way = (uint8_t)way;
    return 0;
}

/* The flow of a packet; PT_NONE: no memory. */
static inline uint32_t pt_flow_of(pt_split *s, const pt_batch *b, uint32_t k, pt_ready *d, int *way)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = s->inner ? &b->where[k].inner : &b->where[k].outer;
    const uint8_t *p = b->bytes + r->data;
    uint32_t row;
    *way = d->way;
    if (d->what == PT_KEYLESS) return PT_NO_FLOW;
    if (d->what == PT_LATER) return pt_later_fragment(s, p, r->caplen, l, &d->key, r->time, way);
    if (d->what == PT_QUOTES) return pt_error_flow(s, p, r, l, d, way);
    if (s->by == PT_BY_CONNECTION) return pt_connection(s, p, r, l, d);
    row = pt_find_hashed(&s->flows, &d->key, d->hash);
    return row != PT_NONE ? row : pt_open_flow(s, &d->key, r->time, *way);
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
    const pt_vlan_node untagged = {0, 0};
    const pt_text_node empty = {0, 0, 0};
    pt_flow *f;
    s->flows.stride = sizeof(pt_flow);
    s->datagrams.stride = sizeof(pt_datagram);
    s->groups.stride = s->flows.key = s->datagrams.key = s->groups.key = sizeof(pt_flow_key);
    s->vlans.stride = s->vlans.key = sizeof(pt_vlan_node);
    s->texts.stride = sizeof(pt_text_node);
    s->texts.key = offsetof(pt_text_node, call);
    s->vlans.seed = s->texts.seed = s->datagrams.seed = s->groups.seed = s->flows.seed;
    if (pt_add_row(&s->flows) == PT_NONE || pt_obtain(&s->vlans, &untagged) == PT_NONE ||
        pt_obtain(&s->texts, &empty) == PT_NONE)
        return -1;
    f = pt_flow_at(s, PT_NO_FLOW);
    f->same = f->group = PT_NONE;
    return 0;
}

/* Book a packet. 0: done, -1: no memory. */
static inline int pt_take(pt_split *s, const pt_batch *b, uint32_t k, pt_ready *d)
{
    const pt_record *r = &b->record[k];
    uint32_t flow;
    pt_flow *f;
    int way;
    if (d->what == PT_FILTERED) {
        s->filtered++;
        return 0;
    }
    if (r->time > s->latest) s->latest = r->time;
    flow = pt_flow_of(s, b, k, d, &way);
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
    return 0;
}

/* Bring near what will be needed: the slot of the key, then the flow. */
static inline void pt_fetch_slot(const pt_split *s, pt_ready *d)
{
    if (d->what != PT_KEYED) return;
    d->hash = pt_key_hash(&d->key, sizeof d->key, s->flows.seed);
    if (s->flows.slots) PT_PREFETCH(&s->flows.slot[d->hash & (s->flows.slots - 1)]);
}

static inline void pt_fetch_flow(const pt_split *s, const pt_ready *d)
{
    const pt_slot *slot;
    if (d->what != PT_KEYED || !s->flows.slots) return;
    slot = &s->flows.slot[d->hash & (s->flows.slots - 1)];
    if (!slot->row) return;
    PT_PREFETCH(pt_row(&s->flows, slot->row - 1));
    PT_PREFETCH((uint8_t *)pt_row(&s->flows, slot->row - 1) + PT_CACHE_LINE);
}

/* Index the packets of a batch whose headers are located. Those marked PT_DROP are left out, unless the mark is what
 * they are told apart by. A few packets are looked at together, so that waiting for memory overlaps. 0: done, -1: no
 * memory. */
static inline int pt_split_batch(pt_split *s, const pt_batch *b)
{
    pt_ready ready[PT_TOGETHER];
    s->tolds = 0;
    if (s->keep && pt_room_for_places(s, b->n)) return -1;
    for (uint32_t start = 0; start < b->n; start += PT_TOGETHER) {
        const uint32_t n = b->n - start < PT_TOGETHER ? b->n - start : PT_TOGETHER;
        for (uint32_t k = 0; k < n; k++) {
            if (pt_make_ready(s, b, start + k, &ready[k])) return -1;
        }
        for (uint32_t k = 0; k < n; k++) pt_fetch_slot(s, &ready[k]);
        for (uint32_t k = 0; k < n; k++) pt_fetch_flow(s, &ready[k]);
        for (uint32_t k = 0; k < n; k++) {
            if (pt_take(s, b, start + k, &ready[k])) return -1;
        }
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
    pt_keytable_free(&s->texts);
    free(s->told);
    free(s->link);
}

#endif
