/* Which side sent a packet: the client of its flow or the server. Known per flow from a SYN, else from its first packet
 * and, where that is all there is, from the ports. The table is of a fixed size; a flow that returns after others took
 * its place is judged anew. */
#ifndef PT_DIRECTION_H
#define PT_DIRECTION_H

#include "headers.h"

enum { PT_DIRECTION_SETS = 1 << 14, PT_DIRECTION_WAYS = 8 };

typedef struct {
    uint64_t key;       /* of both endpoints, whichever comes first; 0: empty */
    uint32_t seen;
    uint8_t client_low; /* the client is the lower endpoint */
} pt_direction_entry;

typedef struct {
    pt_direction_entry *entry; /* PT_DIRECTION_SETS * PT_DIRECTION_WAYS */
    uint32_t clock;
} pt_directions;

static inline uint64_t pt_mixed(uint64_t h, const uint8_t *p, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) h = (h ^ p[k]) * 0x100000001b3u;
    h ^= h >> 31;
    return h * 0x9e3779b97f4a7c15u;
}

static inline pt_direction_entry *pt_direction_find(pt_directions *d, uint64_t key, int *found)
{
    pt_direction_entry *set = d->entry + (key >> 20 & (PT_DIRECTION_SETS - 1)) * PT_DIRECTION_WAYS, *oldest = set;
    for (int k = 0; k < PT_DIRECTION_WAYS; k++) {
        if (set[k].key == key) {
            *found = 1;
            set[k].seen = ++d->clock;
            return &set[k];
        }
        if (set[k].seen < oldest->seen) oldest = &set[k];
    }
    *found = 0;
    oldest->key = key;
    oldest->seen = ++d->clock;
    return oldest;
}

/* The flow of addresses a (source) and b with ports; opens: 1 a SYN, 2 a SYN with ACK, 0 neither. Returns 1: from the server. */
static inline int pt_direction_of(pt_directions *d, const uint8_t *a, const uint8_t *b, uint32_t size, uint16_t sport, uint16_t dport,
                                  uint8_t protocol, int opens)
{
    int order = memcmp(a, b, size), found, source_low;
    uint64_t low, high, key;
    pt_direction_entry *e;
    if (!order) order = (int)sport - (int)dport;
    source_low = order <= 0;
    low = pt_mixed(0xcbf29ce484222325u + (source_low ? sport : dport), source_low ? a : b, size);
    high = pt_mixed(0x84222325cbf29ce4u + (source_low ? dport : sport), source_low ? b : a, size);
    key = (low ^ pt_mixed(high, &protocol, 1)) | 1;
    e = pt_direction_find(d, key, &found);
    if (opens == 1) e->client_low = (uint8_t)source_low;
    else if (opens == 2) e->client_low = (uint8_t)!source_low;
    else if (!found) {
        int from_server = sport != dport && sport < 1024 && dport >= 1024;
        e->client_low = (uint8_t)(from_server ? !source_low : source_low);
    }
    return e->client_low != source_low;
}

/* 0: from the client (or nobody knows), 1: from the server. */
static inline int pt_direction(pt_directions *d, const uint8_t *p, uint32_t caplen, const pt_where *o)
{
    const pt_layer *l = &o->inner;
    uint16_t sport = 0, dport = 0;
    uint32_t size, source;
    int opens = 0;
    if (!o->depth) {
        uint32_t at = o->network;
        if (o->ethertype != PT_TYPE_ARP || caplen < at + 8 || p[at + 5] != 4 || caplen < at + 16 + 2u * p[at + 4]) return 0;
        return pt_direction_of(d, p + at + 8 + p[at + 4], p + at + 12 + 2 * p[at + 4], 4, 0, 0, 0, 0);
    }
    size = l->version == 4 ? 4 : 16;
    source = l->ip + (l->version == 4 ? 12 : 8);
    if (caplen < source + 2 * size || l->status == PT_MALFORMED) return 0;
    if ((l->protocol == PT_TCP || l->protocol == PT_UDP || l->protocol == PT_SCTP) && l->transport != PT_NONE &&
        caplen >= l->transport + 4) {
        sport = pt_net16(p + l->transport);
        dport = pt_net16(p + l->transport + 2);
        if (l->protocol == PT_TCP && caplen >= l->transport + 14 && p[l->transport + 13] & 2)
            opens = p[l->transport + 13] & 16 ? 2 : 1;
    }
    return pt_direction_of(d, p + source, p + source + size, size, sport, dport, l->protocol, opens);
}

#endif
