/* The maps of addresses and ports, applied to one address or transport header; checksums follow incrementally. */
#ifndef PT_REWRITE_H
#define PT_REWRITE_H

#include "anonymize.h"
#include "leaks.h"
#include "mangle.h"
#include "netmap.h"
#include "payload.h"

/* address & mask == from: becomes to | (address & keep). All in memory order; IPv4 uses the first word only. */
typedef struct {
    uint32_t from[4], mask[4], to[4], keep[4];
    uint64_t matched, packets, last; /* addresses; packets; number of the last one */
} pt_map_rule;

/* The first rule that fits decides. */
typedef struct {
    pt_map_rule *rule;
    uint32_t n;
    pt_netmap_part *index; /* of a long list, rules by their network; NULL: none */
} pt_map;

enum { PT_LONG_LIST = 64 };

/* Index a map whose masks are those of prefixes. 0: done, -1: no memory. */
static inline int pt_map_index(pt_map *map, uint32_t size)
{
    pt_netmap_part *t = calloc(1, sizeof *t);
    map->index = t;
    if (!t) return -1;
    t->size = (uint8_t)size;
    for (uint32_t k = 0; k < map->n; k++) {
        const uint32_t number[4] = {k, 0, 0, 0};
        uint32_t bits = 0;
        for (uint32_t w = 0; w < size / 4; w++) bits += (uint32_t)__builtin_popcount(map->rule[k].mask[w]);
        if (pt_netmap_add(t, (const uint8_t *)map->rule[k].from, bits, (const uint8_t *)number, 0) < 0) return -1;
    }
    return 0;
}

static inline void pt_map_drop_index(pt_map *map)
{
    if (!map->index) return;
    free(map->index->pair), free(map->index->lengths), free(map->index->slot);
    free(map->index);
}

/* The lowest rule that contains an address; of networks that are there twice the index has the first. */
static inline const pt_map_rule *pt_map_find_long(const pt_map *map, const uint32_t *address)
{
    const pt_netmap_part *t = map->index;
    uint32_t first = UINT32_MAX;
    for (uint32_t k = 0; k < t->orders; k++) {
        uint8_t net[16];
        uint32_t pair, rule;
        memcpy(net, address, t->size);
        pt_netmap_mask(net, t->size, t->order[k]);
        pair = *pt_netmap_slot(t, net, t->order[k]);
        if (!pair) continue;
        memcpy(&rule, t->pair + (size_t)(pair - 1) * 2 * t->size + t->size, 4); /* the target is the rule's number */
        if (rule < first) first = rule;
    }
    return first < map->n ? &map->rule[first] : NULL;
}

enum { PT_SOURCE, PT_DESTINATION };

/* Options whose packets are counted, apart from those that are lists of rules. */
enum pt_counted { PT_BY_TABLE, PT_BY_SEED, PT_BY_KEY, PT_BY_TTL, PT_BY_TOS, PT_BY_TCLASS, PT_BY_FLOWLABEL, PT_BY_SEQUENCE, PT_COUNTED };

typedef struct {
    uint64_t packets, last; /* last: number of the last one, from 1 */
} pt_tally;

typedef struct {
    pt_map v4[2], v6[2];    /* by PT_SOURCE, PT_DESTINATION */
    uint64_t edited;        /* packets */
    uint64_t cut;           /* packets whose addresses were not (wholly) captured */
    uint64_t malformed;     /* packets whose IP header cannot be one */
    uint64_t no_ethernet;   /* packets that have no MAC address to set */
    uint64_t matched[2];    /* addresses that a rule changed or confirmed */
    /* More ways to map an address, applied in this order after the above; `more` tells that there is one. */
    uint8_t more;
    pt_map pnat4[2], pnat6[2]; /* the client's side, the server's side */
    pt_map both4, both6;
    pt_netmap *table;
    uint8_t seeded, skip_broadcast;
    uint32_t seed;
    pt_anonymizer *anonymizer;
    uint8_t s2c;            /* the packet being edited comes from the server */
    uint8_t no_side;        /* nothing tells whose address it is: ARP and neighbour discovery */
    uint8_t fields;         /* ports and sequence numbers of quotes too */
    pt_port_rule *port;
    uint32_t ports, sequence;
    uint64_t seen, unmapped, ports_matched; /* addresses; ports */
    uint64_t packet;        /* number of the one being edited, from 1 */
    pt_tally tally[PT_COUNTED];
    struct pt_leaks *leaks; /* addresses that were changed, to be looked for in payloads */
    struct pt_leaks *met, *missed; /* addresses seen, and those of them that nothing mapped; NULL: not noted */
} pt_edits;

static inline const pt_map_rule *pt_map_find4(const pt_map *map, uint32_t address)
{
    if (map->index) return pt_map_find_long(map, &address);
    for (uint32_t k = 0; k < map->n; k++)
        if ((address & map->rule[k].mask[0]) == map->rule[k].from[0]) return &map->rule[k];
    return NULL;
}

static inline const pt_map_rule *pt_map_find6(const pt_map *map, const uint32_t *address)
{
    if (map->index) return pt_map_find_long(map, address);
    for (uint32_t k = 0; k < map->n; k++) {
        const pt_map_rule *r = &map->rule[k];
        uint32_t differ = 0;
        for (int w = 0; w < 4; w++) differ |= (address[w] & r->mask[w]) ^ r->from[w];
        if (!differ) return r;
    }
    return NULL;
}

static inline int pt_map_apply(const pt_map *map, int version, uint32_t *address, uint64_t packet)
{
    const uint32_t words = version == 4 ? 1 : 4;
    pt_map_rule *r = (pt_map_rule *)(version == 4 ? pt_map_find4(map, address[0]) : pt_map_find6(map, address));
    if (!r) return 0;
    r->matched++;
    if (r->last != packet) r->last = packet, r->packets++;
    for (uint32_t w = 0; w < words; w++) address[w] = r->to[w] | (address[w] & r->keep[w]);
    return 1;
}

/* The packet being edited is one that this option changed. */
static inline void pt_count_for(pt_edits *e, int option)
{
    if (e->tally[option].last == e->packet) return;
    e->tally[option].last = e->packet;
    e->tally[option].packets++;
}

static inline int pt_is_group(const uint8_t *a, int version) { return version == 4 ? a[0] >> 4 == 14 : a[0] == 0xff; }

/* What comes after the lists for one side: pseudo-NAT, lists and tables for both sides, seed, anonymity. */
static inline int pt_map_more(pt_edits *e, int side, int version, uint32_t *address)
{
    const pt_map *pnat = version == 4 ? e->pnat4 : e->pnat6;
    uint8_t *bytes = (uint8_t *)address;
    int matched = 0, kept = e->skip_broadcast && pt_is_group(bytes, version);
    if (!kept && (pnat[0].n || pnat[1].n)) {
        int which = side ^ e->s2c;
        int fits = pt_map_apply(&pnat[which], version, address, e->packet);
        if (!fits && e->no_side) fits = pt_map_apply(&pnat[!which], version, address, e->packet);
        matched |= fits;
    }
    matched |= pt_map_apply(version == 4 ? &e->both4 : &e->both6, version, address, e->packet);
    if (e->table && pt_netmap_map(version == 4 ? &e->table->v4 : &e->table->v6, bytes)) pt_count_for(e, PT_BY_TABLE), matched = 1;
    if (e->seeded && !kept) pt_seed_address(bytes, version, e->seed), pt_count_for(e, PT_BY_SEED), matched = 1;
    if (e->anonymizer) pt_anon(e->anonymizer, bytes, version == 4 ? 4 : 16), pt_count_for(e, PT_BY_KEY), matched = 1;
    return matched;
}

/* An IPv4 address about which a list alone decides. */
static inline int pt_map_listed4(pt_edits *e, int side, uint8_t *a, uint64_t *delta)
{
    uint32_t old, new;
    pt_map_rule *r;
    memcpy(&old, a, 4);
    r = (pt_map_rule *)pt_map_find4(&e->v4[side], old);
    e->seen++;
    if (!r) {
        e->unmapped++;
        return 0;
    }
    r->matched++;
    if (r->last != e->packet) r->last = e->packet, r->packets++;
    e->matched[side]++;
    new = r->to[0] | (old & r->keep[0]);
    if (new == old) return 0;
    *delta += (uint64_t)(uint32_t)~old + new;
    memcpy(a, &new, 4);
    return 1;
}

/* An address by all maps that there are. */
static inline int pt_map_any(pt_edits *e, int side, int version, uint8_t *a, uint64_t *delta)
{
    const pt_map *map = version == 4 ? &e->v4[side] : &e->v6[side];
    const uint32_t words = version == 4 ? 1 : 4;
    uint32_t old[4] = {0}, new[4], differ = 0;
    int matched;
    if (version == 4) memcpy(old, a, 4);
    else memcpy(old, a, 16);
    memcpy(new, old, 16);
    matched = pt_map_apply(map, version, new, e->packet);
    if (e->more) matched |= pt_map_more(e, side, version, new);
    e->seen++;
    if (e->met) pt_leaks_add(e->met, a, words * 4);
    if (!matched) {
        e->unmapped++;
        if (e->missed) pt_leaks_add(e->missed, a, words * 4);
        return 0;
    }
    e->matched[side]++;
    for (int w = 0; w < 4; w++) differ |= old[w] ^ new[w];
    if (!differ) return 0;
    *delta += pt_delta((const uint8_t *)old, (const uint8_t *)new, words * 4);
    if (e->leaks) pt_leaks_add(e->leaks, a, words * 4);
    if (version == 4) memcpy(a, new, 4);
    else memcpy(a, new, 16);
    return 1;
}

/* Map the address at a; adds what that changes in a checksum to delta. Returns whether bytes changed. */
static inline int pt_map_address(pt_edits *e, int side, int version, uint8_t *a, uint64_t *delta)
{
    const pt_map *map = version == 4 ? &e->v4[side] : &e->v6[side];
    if (!map->n && !e->more) return 0;
    if (version == 4 && !(e->more || e->leaks || e->met || e->missed)) return pt_map_listed4(e, side, a, delta);
    return pt_map_any(e, side, version, a, delta);
}

/* Ports of a TCP or UDP header. Returns whether any changed. */
static inline int pt_rewrite_ports(pt_edits *e, uint8_t *l4, uint64_t *delta)
{
    int changed = 0;
    for (int side = 0; side < 4; side += 2) {
        uint16_t old = pt_net16(l4 + side), new = pt_new_port(e->port, e->ports, old, e->packet, &e->ports_matched);
        uint8_t was[2];
        if (new == old) continue;
        memcpy(was, l4 + side, 2);
        pt_put_net16(l4 + side, new);
        *delta += pt_delta(was, l4 + side, 2);
        changed = 1;
    }
    return changed;
}

/* Where byte `field` of the transport header stands in a later fragment; PT_NONE: in an earlier one. */
static inline uint32_t pt_split_field(const uint8_t *p, const pt_layer *l, uint32_t field)
{
    uint32_t at = l->ip + (p[l->ip] & 15u) * 4, offset = (pt_net16(p + l->ip + 6) & 0x1fffu) * 8;
    if (l->version == 6) {
        uint8_t next = p[l->ip + 6];
        for (at = l->ip + 40; next != PT_FRAGMENT_HEADER; at += pt_ipv6_extension_size(p + at, next, &next)) ;
        offset = pt_net16(p + at + 2) & 0xfff8u;
        at += 8;
    }
    return field < offset ? PT_NONE : at + field - offset;
}

/* Offset of the checksum of VRRP if it covers the addresses, else 0: over IPv6 it does; over IPv4 that of version 3 does
 * by RFC 5798 and does not by RFC 9568, and the message tells by which it was made. */
static inline uint32_t pt_vrrp_field(const uint8_t *p, uint32_t end, const pt_layer *l)
{
    const uint32_t at = l->transport;
    if (at == PT_NONE || end < at + 8) return 0;
    if (l->version == 6) return 6;
    if (p[at] >> 4 != 3) return 0;
    return end < l->end || pt_fold(pt_sum_bytes(p + at, l->end - at)) != 0xffff ? 6 : 0;
}

/* Update the transport checksum that covers the addresses of a layer, if it stands before `end`. Returns its change. */
static inline uint64_t pt_update_transport(uint8_t *p, uint32_t end, const pt_layer *l, uint64_t delta)
{
    uint32_t field = l->protocol == PT_VRRP ? pt_vrrp_field(p, end, l) : pt_pseudo_field(l), at = PT_NONE;
    if (!field || !delta) return 0;
    if (l->transport != PT_NONE) at = l->transport + field;
    else if (l->status == PT_LATER_FRAGMENT) at = pt_split_field(p, l, field);
    return at < end && end - at >= 2 ? pt_update(p + at, delta, pt_zero_is_none(l)) : 0;
}

static inline int pt_set_mac(uint8_t *field, const uint8_t *mac)
{
    if (!memcmp(field, mac, 6)) return 0;
    memcpy(field, mac, 6);
    return 1;
}

#endif
