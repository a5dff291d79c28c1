/* Fragments belong to the flow of their datagram: to that of its first fragment, also when that comes late.
 *
 * Until then they are of a provisional flow, which no key leads to. */
#ifndef PT_DATAGRAMS_H
#define PT_DATAGRAMS_H

#include "flowtable.h"

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

#endif
