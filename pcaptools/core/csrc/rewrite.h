/* Edits in place: addresses, ports, sequence numbers, MAC addresses. Every checksum that covers an edit follows it incrementally. */
#ifndef PT_REWRITE_H
#define PT_REWRITE_H

#include "anonymize.h"
#include "leaks.h"
#include "mangle.h"
#include "netmap.h"

/* address & mask == from: becomes to | (address & keep). All in memory order; IPv4 uses the first word only. */
typedef struct {
    uint32_t from[4], mask[4], to[4], keep[4];
    uint64_t matched;
} pt_map_rule;

/* The first rule that fits decides. */
typedef struct {
    pt_map_rule *rule;
    uint32_t n;
} pt_map;

enum { PT_SOURCE, PT_DESTINATION };

typedef struct {
    pt_map v4[2], v6[2];    /* by PT_SOURCE, PT_DESTINATION */
    uint8_t mac[2][6];
    uint8_t set_mac[2];
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
    struct pt_leaks *leaks; /* addresses that were changed, to be looked for in payloads */
} pt_edits;

static inline const pt_map_rule *pt_map_find4(const pt_map *map, uint32_t address)
{
    for (uint32_t k = 0; k < map->n; k++)
        if ((address & map->rule[k].mask[0]) == map->rule[k].from[0]) return &map->rule[k];
    return NULL;
}

static inline const pt_map_rule *pt_map_find6(const pt_map *map, const uint32_t *address)
{
    for (uint32_t k = 0; k < map->n; k++) {
        const pt_map_rule *r = &map->rule[k];
        uint32_t differ = 0;
        for (int w = 0; w < 4; w++) differ |= (address[w] & r->mask[w]) ^ r->from[w];
        if (!differ) return r;
    }
    return NULL;
}

static inline int pt_map_apply(const pt_map *map, int version, uint32_t *address)
{
    const uint32_t words = version == 4 ? 1 : 4;
    pt_map_rule *r = (pt_map_rule *)(version == 4 ? pt_map_find4(map, address[0]) : pt_map_find6(map, address));
    if (!r) return 0;
    r->matched++;
    for (uint32_t w = 0; w < words; w++) address[w] = r->to[w] | (address[w] & r->keep[w]);
    return 1;
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
        int fits = pt_map_apply(&pnat[which], version, address);
        if (!fits && e->no_side) fits = pt_map_apply(&pnat[!which], version, address);
        matched |= fits;
    }
    matched |= pt_map_apply(version == 4 ? &e->both4 : &e->both6, version, address);
    if (e->table) matched |= pt_netmap_map(version == 4 ? &e->table->v4 : &e->table->v6, bytes);
    if (e->seeded && !kept) pt_seed_address(bytes, version, e->seed), matched = 1;
    if (e->anonymizer) pt_anon(e->anonymizer, bytes, version == 4 ? 4 : 16), matched = 1;
    return matched;
}

/* Map the address at a; adds what that changes in a checksum to delta. Returns whether bytes changed. */
static inline int pt_map_address(pt_edits *e, int side, int version, uint8_t *a, uint64_t *delta)
{
    const pt_map *map = version == 4 ? &e->v4[side] : &e->v6[side];
    const uint32_t words = version == 4 ? 1 : 4;
    uint32_t old[4] = {0}, new[4], differ = 0;
    int matched;
    if (!map->n && !e->more) return 0;
    if (version == 4) memcpy(old, a, 4);
    else memcpy(old, a, 16);
    memcpy(new, old, 16);
    matched = pt_map_apply(map, version, new);
    if (e->more) matched |= pt_map_more(e, side, version, new);
    e->seen++;
    if (!matched) {
        e->unmapped++;
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

/* Ports of a TCP or UDP header. Returns whether any changed. */
static inline int pt_rewrite_ports(pt_edits *e, uint8_t *l4, uint64_t *delta)
{
    int changed = 0;
    for (int side = 0; side < 4; side += 2) {
        uint16_t old = pt_net16(l4 + side), new = pt_new_port(e->port, e->ports, old, &e->ports_matched);
        uint8_t was[2];
        if (new == old) continue;
        memcpy(was, l4 + side, 2);
        pt_put_net16(l4 + side, new);
        *delta += pt_delta(was, l4 + side, 2);
        changed = 1;
    }
    return changed;
}

/* Addresses inside ICMP: the packet that an error quotes is edited as it was itself, with its checksums, as far as
 * they are quoted and captured. Returns the change of the enclosing checksum in delta. */
static inline int pt_rewrite_quote(pt_edits *e, uint8_t *p, uint32_t at, uint32_t caplen, int version, uint64_t *delta)
{
    uint32_t header = version == 4 ? 20 : 40, size = version == 4 ? 4 : 16;
    uint32_t source = at + (version == 4 ? 12 : 8), transport, field;
    uint64_t change = 0, inside = 0;
    int changed;
    pt_layer l;
    if (caplen < at + header || p[at] >> 4 != version) return 0;
    e->s2c ^= 1; /* it went the other way */
    changed = pt_map_address(e, PT_SOURCE, version, p + source, &change);
    changed |= pt_map_address(e, PT_DESTINATION, version, p + source + size, &change);
    e->s2c ^= 1;
    l.version = (uint8_t)version;
    l.protocol = p[at + (version == 4 ? 9 : 6)];
    if (changed && version == 4) *delta += pt_update(p + at + 10, change, 0);
    *delta += change;
    if (version == 4) {
        header = (p[at] & 15u) * 4;
        if (header < 20 || pt_net16(p + at + 6) & 0x1fff) return changed;
    }
    transport = at + header;
    if (e->fields && (l.protocol == PT_TCP || l.protocol == PT_UDP) && caplen >= transport + 8) {
        if (e->ports) changed |= pt_rewrite_ports(e, p + transport, &inside);
        if (e->sequence && l.protocol == PT_TCP) {
            uint8_t old[4];
            memcpy(old, p + transport + 4, 4);
            pt_put_net32(p + transport + 4, pt_net32(old) + e->sequence);
            inside += pt_delta(old, p + transport + 4, 4);
            changed = 1;
        }
        *delta += inside;
    }
    if (!changed) return 0;
    field = pt_pseudo_field(&l);
    if (field && caplen >= transport + field + 2)
        *delta += pt_update(p + transport + field, change + inside, pt_zero_is_none(&l));
    return 1;
}

/* ICMP errors (RFC 792, RFC 4443) and neighbour discovery (RFC 4861). */
static inline int pt_rewrite_icmp(pt_edits *e, uint8_t *p, uint32_t caplen, const pt_layer *l, uint64_t *delta)
{
    uint32_t at = l->transport;
    int changed = 0;
    uint8_t type;
    if (caplen < at + 8) return 0;
    type = p[at];
    if (l->protocol == PT_ICMP && type == 5 && e->more) changed = pt_map_address(e, PT_DESTINATION, 4, p + at + 4, delta);
    if (l->protocol == PT_ICMP && (type == 3 || type == 4 || type == 5 || type == 11 || type == 12))
        return changed | pt_rewrite_quote(e, p, at + 8, caplen, 4, delta);
    if (l->protocol != PT_ICMPV6 || l->version != 6) return 0;
    if (type >= 1 && type <= 4) return pt_rewrite_quote(e, p, at + 8, caplen, 6, delta);
    e->no_side = 1;
    if ((type == 135 || type == 136 || type == 137) && caplen >= at + 24)
        changed = pt_map_address(e, type == 136 ? PT_SOURCE : PT_DESTINATION, 6, p + at + 8, delta);
    if (type == 137 && caplen >= at + 40) changed |= pt_map_address(e, PT_DESTINATION, 6, p + at + 24, delta);
    e->no_side = 0;
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

/* Update the transport checksum that covers the addresses of a layer, if it stands before `end`. */
static inline void pt_update_transport(uint8_t *p, uint32_t end, const pt_layer *l, uint64_t delta)
{
    uint32_t field = pt_pseudo_field(l), at = PT_NONE;
    if (!field || !delta) return;
    if (l->transport != PT_NONE) at = l->transport + field;
    else if (l->status == PT_LATER_FRAGMENT) at = pt_split_field(p, l, field);
    if (at < end && end - at >= 2) pt_update(p + at, delta, pt_zero_is_none(l));
}

/* The addresses of one IP layer. */
static inline int pt_rewrite_layer(pt_edits *e, uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    const int version = l->version;
    const uint32_t size = version == 4 ? 4 : 16, source = l->ip + (version == 4 ? 12 : 8);
    const uint32_t limit = caplen < l->end ? caplen : l->end; /* what is behind it is padding */
    uint64_t header = 0, pseudo = 0, inside = 0;
    int changed;
    if (l->status == PT_MALFORMED) {
        e->malformed++;
        return 0;
    }
    if (caplen < source + 2 * size) {
        e->cut++;
        return 0;
    }
    changed = pt_map_address(e, PT_SOURCE, version, p + source, &header);
    pseudo = header;
    changed |= pt_map_address(e, PT_DESTINATION, version, p + source + size, &header);
    if (!(l->flags & PT_ROUTED)) pseudo = header;
    if (changed && version == 4) pt_update(p + l->ip + 10, header, 0);
    if (l->transport != PT_NONE && (l->protocol == PT_ICMP || l->protocol == PT_ICMPV6)) {
        if (pt_rewrite_icmp(e, p, limit, l, &inside)) {
            changed = 1;
            if (l->protocol == PT_ICMP) pt_update(p + l->transport + 2, inside, 0);
        }
        pseudo += inside;
    }
    pt_update_transport(p, limit, l, pseudo);
    return changed;
}

/* RFC 826, IPv4 over hardware addresses of any length. */
static inline int pt_rewrite_arp(pt_edits *e, uint8_t *p, uint32_t caplen, uint32_t at)
{
    uint32_t sender, target;
    uint64_t delta = 0;
    int changed;
    if (caplen < at + 8) {
        e->cut++;
        return 0;
    }
    if (pt_net16(p + at + 2) != PT_TYPE_IPV4 || p[at + 5] != 4) return 0;
    sender = at + 8 + p[at + 4];
    target = sender + 4 + p[at + 4];
    if (caplen < target + 4) {
        e->cut++;
        return 0;
    }
    e->no_side = 1;
    changed = pt_map_address(e, PT_SOURCE, 4, p + sender, &delta);
    changed |= pt_map_address(e, PT_DESTINATION, 4, p + target, &delta);
    e->no_side = 0;
    return changed;
}

static inline int pt_set_mac(uint8_t *field, const uint8_t *mac)
{
    if (!memcmp(field, mac, 6)) return 0;
    memcpy(field, mac, 6);
    return 1;
}

static inline int pt_rewrite_macs(pt_edits *e, uint8_t *p, uint32_t caplen, const pt_where *o)
{
    int changed = 0;
    if (o->ethernet == PT_NONE) {
        e->no_ethernet++;
        return 0;
    }
    if (caplen < o->ethernet + 12) {
        e->cut++;
        return 0;
    }
    if (e->set_mac[PT_DESTINATION]) changed |= pt_set_mac(p + o->ethernet, e->mac[PT_DESTINATION]);
    if (e->set_mac[PT_SOURCE]) changed |= pt_set_mac(p + o->ethernet + 6, e->mac[PT_SOURCE]);
    return changed;
}

/* Edit every packet of a located batch. */
static inline void pt_rewrite(pt_edits *e, pt_batch *b)
{
    const int macs = e->set_mac[PT_SOURCE] || e->set_mac[PT_DESTINATION];
    const int maps = e->v4[0].n || e->v4[1].n || e->v6[0].n || e->v6[1].n;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        const pt_where *o = &b->where[k];
        uint8_t *p = b->bytes + r->data;
        int changed = 0;
        if (macs) changed |= pt_rewrite_macs(e, p, r->caplen, o);
        if (maps && o->depth) changed |= pt_rewrite_layer(e, p, r->caplen, &o->outer);
        else if (maps && o->ethertype == PT_TYPE_ARP) changed |= pt_rewrite_arp(e, p, r->caplen, o->network);
        if (!changed) continue;
        e->edited++;
        r->flags |= PT_EDITED;
    }
}

#endif
