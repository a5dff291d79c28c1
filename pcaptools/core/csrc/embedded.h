/* The addresses of one IP layer, and those that packets hold beside its header: source routes, what ICMP, IGMP, MLD and
 * neighbour discovery speak of, the packets that errors quote, ARP. Every checksum follows.
 *
 * What a sender says of itself follows the map for sources, what it says of others that for destinations. An address
 * of zeros means nobody here and stays. */
#ifndef PT_EMBEDDED_H
#define PT_EMBEDDED_H

#include "rewrite.h"

enum { PT_IGMP = 2 };

/* A sum of bytes whose first one stands at an odd place is swapped: RFC 1071 section 2B. */
static inline uint64_t pt_placed(uint64_t delta, uint32_t offset)
{
    uint16_t sum = pt_fold(delta);
    return offset & 1 ? (uint16_t)(sum << 8 | sum >> 8) : delta;
}

/* Map an address that no IP header holds; nothing tells whose side it is on. */
static inline int pt_map_embedded(pt_edits *e, int side, int version, uint8_t *a, uint64_t *delta)
{
    static const uint8_t nobody[16];
    int changed;
    if (!memcmp(a, nobody, version == 4 ? 4 : 16)) return 0;
    e->no_side = 1;
    changed = pt_map_address(e, side, version, a, delta);
    e->no_side = 0;
    return changed;
}

/* n addresses from `at` on, as far as they are there. */
static inline int pt_map_list(pt_edits *e, int side, int version, uint8_t *p, uint32_t at, uint32_t n, uint32_t limit,
                              uint64_t *delta)
{
    const uint32_t size = version == 4 ? 4 : 16;
    int changed = 0;
    for (; n && at + size <= limit; n--, at += size) changed |= pt_map_embedded(e, side, version, p + at, delta);
    return changed;
}

/* The first `bits` bits of the address whose first `have` bytes stand at a. */
static inline int pt_map_prefix(pt_edits *e, int version, uint8_t *a, uint32_t have, uint32_t bits, uint64_t *delta)
{
    uint8_t old[16] = {0}, new[16];
    uint64_t ignored = 0;
    memcpy(old, a, have);
    memcpy(new, old, 16);
    if (!bits || bits > have * 8 || !pt_map_embedded(e, PT_SOURCE, version, new, &ignored)) return 0;
    for (uint32_t k = 0; k < 16; k++) {
        uint8_t mask = (uint8_t)(0xff00u >> (bits >= 8 * k + 8 ? 8 : bits > 8 * k ? bits - 8 * k : 0));
        new[k] = (uint8_t)((new[k] & mask) | (old[k] & ~mask));
    }
    memcpy(a, new, have);
    *delta += pt_delta(old, new, 16);
    return memcmp(old, new, 16) != 0;
}

/* ---- source routes ---- */

/* What changes when addresses do: the sum of the IP header with its options, and that of the pseudo header. */
typedef struct {
    uint64_t header, pseudo;
    uint32_t final; /* offset of the address that the pseudo header takes as its destination, if the header has it not */
} pt_change;

static inline int pt_map_routed(pt_edits *e, int version, uint8_t *p, uint32_t at, uint32_t ip, pt_change *c)
{
    uint64_t delta = 0;
    int changed = pt_map_embedded(e, PT_DESTINATION, version, p + at, &delta);
    if (!changed) return 0;
    c->header += pt_placed(delta, at - ip);
    if (at == c->final) c->pseudo += delta;
    return 1;
}

/* RFC 791 section 3.1: source routes, recorded routes, timestamps with addresses. */
static inline int pt_rewrite_options(pt_edits *e, uint8_t *p, uint32_t ip, uint32_t limit, pt_change *c)
{
    uint32_t at = ip + 20, end = ip + (p[ip] & 15u) * 4;
    int changed = 0;
    if (end > limit) end = limit;
    while (at + 3 < end && p[at]) {
        uint8_t kind = p[at], length = p[at + 1], pointer = p[at + 2], stamps = p[at + 3] & 15;
        uint32_t first = at + 3, step = 4, last = at + length;
        if (kind == 1) {
            at++;
            continue;
        }
        if (length < 2 || last > end) break;
        if (kind == 68) first = at + 4, step = stamps == 1 || stamps == 3 ? 8 : 0;
        else if ((kind != 7 && kind != 131 && kind != 137) || (length & 3) != 3) step = 0;
        /* what is not recorded yet is no address */
        if ((kind == 7 || (kind == 68 && stamps == 1)) && last + 1 > at + pointer) last = pointer ? at + pointer - 1 : at;
        for (; step && first + 4 <= last; first += step) changed |= pt_map_routed(e, 4, p, first, ip, c);
        at += length;
    }
    return changed;
}

/* Routing headers of types 0 (RFC 2460), 2 (RFC 6275) and 4 (RFC 8754). */
static inline int pt_rewrite_routing_headers(pt_edits *e, uint8_t *p, uint32_t ip, uint32_t limit, pt_change *c)
{
    uint32_t at = ip + 40;
    uint8_t kind = p[ip + 6], next;
    int changed = 0;
    for (int headers = 0; headers < PT_MAX_SHIM && pt_ipv6_extension(kind) && at + 8 <= limit; headers++) {
        uint32_t size = pt_ipv6_extension_size(p + at, kind, &next), n = p[at + 1] / 2u;
        if (size > limit - at) break;
        if (kind == PT_ROUTING && (p[at + 2] == 0 || p[at + 2] == 2 || p[at + 2] == 4)) {
            if (p[at + 2] == 2 && n > 1) n = 1;
            if (p[at + 2] == 4 && n > p[at + 4] + 1u) n = p[at + 4] + 1u;
            for (uint32_t k = 0; k < n; k++) changed |= pt_map_routed(e, 6, p, at + 8 + 16 * k, ip, c);
        }
        if (kind == PT_FRAGMENT_HEADER && pt_net16(p + at + 2) & 0xfff8) break;
        kind = next;
        at += size;
    }
    return changed;
}

/* Source, destination and routes; the header checksum follows, and c->header has its change too. caplen holds the
 * addresses. */
static inline int pt_rewrite_header(pt_edits *e, uint8_t *p, uint32_t caplen, const pt_layer *l, pt_change *c)
{
    const int version = l->version;
    const uint32_t size = version == 4 ? 4 : 16, source = l->ip + (version == 4 ? 12 : 8);
    int changed;
    c->header = 0;
    c->final = l->flags & PT_ROUTED ? pt_final_destination(p, l) : PT_NONE;
    changed = pt_map_address(e, PT_SOURCE, version, p + source, &c->header);
    c->pseudo = c->header;
    changed |= pt_map_address(e, PT_DESTINATION, version, p + source + size, &c->header);
    if (c->final == PT_NONE) c->pseudo = c->header;
    if (version == 4) {
        if ((p[l->ip] & 15) > 5) changed |= pt_rewrite_options(e, p, l->ip, caplen, c);
        if (changed) c->header += pt_update(p + l->ip + 10, c->header, 0);
    } else if (pt_ipv6_extension(p[l->ip + 6])) {
        changed |= pt_rewrite_routing_headers(e, p, l->ip, caplen < l->end ? caplen : l->end, c);
    }
    return changed;
}

/* ---- ICMP ---- */

/* The packet that an error quotes is edited as it was itself, as far as it is quoted and captured. */
static inline int pt_rewrite_quote(pt_edits *e, uint8_t *p, uint32_t at, uint32_t limit, int version, uint64_t *delta)
{
    uint64_t inside = 0;
    uint32_t transport;
    int changed;
    pt_change c;
    pt_layer l;
    pt_walk w;
    if (limit < at + (version == 4 ? 20 : 40) || p[at] >> 4 != version) return 0;
    pt_walk_start(&w, p, limit, limit);
    w.at = at;
    w.type = version == 4 ? PT_TYPE_IPV4 : PT_TYPE_IPV6;
    if (!pt_ip_layer(&w, &l) || l.status == PT_MALFORMED) return 0;
    if (l.transport == PT_NONE && version == 4 && l.status == PT_BAD_LENGTH) { /* some hosts quote with another length */
        l.transport = at + (p[at] & 15u) * 4;
        l.end = limit;
    }
    e->s2c ^= 1; /* it went the other way */
    changed = pt_rewrite_header(e, p, limit, &l, &c);
    e->s2c ^= 1;
    *delta += c.header;
    transport = l.transport;
    if (e->fields && transport != PT_NONE && limit >= transport + 8) {
        if (e->ports && (l.protocol == PT_TCP || l.protocol == PT_UDP)) changed |= pt_rewrite_ports(e, p + transport, &inside);
        if (e->sequence && l.protocol == PT_TCP) changed |= pt_shift_sequence(p, limit, transport, e->sequence, &inside);
    }
    *delta += inside;
    if (changed) *delta += pt_update_transport(p, limit, &l, c.pseudo + inside);
    return changed;
}

/* RFC 792, RFC 1256. */
static inline int pt_rewrite_icmp4(pt_edits *e, uint8_t *p, uint32_t limit, uint32_t at, uint64_t *delta)
{
    int changed = 0;
    switch (p[at]) {
    case 5: changed = pt_map_embedded(e, PT_DESTINATION, 4, p + at + 4, delta); /* fall through */
    case 3: case 4: case 11: case 12: return changed | pt_rewrite_quote(e, p, at + 8, limit, 4, delta);
    case 9:
        for (uint32_t k = 0, size = p[at + 5] * 4u; k < p[at + 4] && size >= 4; k++)
            changed |= pt_map_list(e, PT_SOURCE, 4, p, at + 8 + k * size, 1, limit, delta);
    }
    return changed;
}

/* RFC 4861 section 4.6, RFC 4191 (route information), RFC 8106 (name servers). */
static inline int pt_rewrite_nd_options(pt_edits *e, uint8_t *p, uint32_t limit, uint32_t at, uint64_t *delta)
{
    int changed = 0;
    for (uint32_t size; at + 8 <= limit && p[at + 1]; at += size) {
        size = p[at + 1] * 8u;
        if (p[at] == 4) changed |= pt_rewrite_quote(e, p, at + 8, limit < at + size ? limit : at + size, 6, delta);
        if (limit < at + size) break;
        if (p[at] == 3 && size == 32) changed |= pt_map_prefix(e, 6, p + at + 16, 16, p[at + 2], delta);
        if (p[at] == 24 && size <= 24) changed |= pt_map_prefix(e, 6, p + at + 8, size - 8, p[at + 2], delta);
        if (p[at] == 25) changed |= pt_map_list(e, PT_DESTINATION, 6, p, at + 8, (size - 8) / 16, at + size, delta);
    }
    return changed;
}

/* Reports of IGMPv3 (RFC 3376 section 4.2) and MLDv2 (RFC 3810 section 5.2): records from `at` on. */
static inline int pt_rewrite_group_records(pt_edits *e, int version, uint8_t *p, uint32_t at, uint32_t n, uint32_t limit,
                                           uint64_t *delta)
{
    const uint32_t size = version == 4 ? 4 : 16;
    int changed = 0;
    for (; n && at + 4 + size <= limit; n--) {
        uint32_t sources = pt_net16(p + at + 2), aux = p[at + 1] * 4u;
        changed |= pt_map_list(e, PT_DESTINATION, version, p, at + 4, 1, limit, delta);
        changed |= pt_map_list(e, PT_SOURCE, version, p, at + 4 + size, sources, limit, delta);
        at += 4 + size + sources * size + aux;
    }
    return changed;
}

/* RFC 4443, RFC 4861, RFC 2710, RFC 3810. */
static inline int pt_rewrite_icmp6(pt_edits *e, uint8_t *p, uint32_t limit, uint32_t at, uint64_t *delta)
{
    static const uint8_t nd_options[5] = {8, 16, 24, 24, 40};
    const uint8_t type = p[at];
    int changed = 0;
    if (type >= 1 && type <= 4) return pt_rewrite_quote(e, p, at + 8, limit, 6, delta);
    if (type >= 130 && type <= 132) {
        changed = pt_map_list(e, PT_DESTINATION, 6, p, at + 8, 1, limit, delta);
        if (type == 130 && limit >= at + 28)
            changed |= pt_map_list(e, PT_SOURCE, 6, p, at + 28, pt_net16(p + at + 26), limit, delta);
    }
    if (type == 143) return pt_rewrite_group_records(e, 6, p, at + 8, pt_net16(p + at + 6), limit, delta);
    if (type < 133 || type > 137) return changed;
    if (type >= 135) changed = pt_map_list(e, type == 136 ? PT_SOURCE : PT_DESTINATION, 6, p, at + 8, 1, limit, delta);
    if (type == 137) changed |= pt_map_list(e, PT_DESTINATION, 6, p, at + 24, 1, limit, delta);
    return changed | pt_rewrite_nd_options(e, p, limit, at + nd_options[type - 133], delta);
}

/* RFC 2236, RFC 3376. */
static inline int pt_rewrite_igmp(pt_edits *e, uint8_t *p, uint32_t limit, uint32_t at, uint64_t *delta)
{
    int changed;
    if (p[at] == 0x22) return pt_rewrite_group_records(e, 4, p, at + 8, pt_net16(p + at + 6), limit, delta);
    if (p[at] != 0x11 && p[at] != 0x12 && p[at] != 0x16 && p[at] != 0x17) return 0;
    changed = pt_map_list(e, PT_DESTINATION, 4, p, at + 4, 1, limit, delta);
    if (p[at] == 0x11 && limit >= at + 12)
        changed |= pt_map_list(e, PT_SOURCE, 4, p, at + 12, pt_net16(p + at + 10), limit, delta);
    return changed;
}

/* What the control protocols of IP say; delta: the change of their checksum. */
static inline int pt_rewrite_control(pt_edits *e, uint8_t *p, uint32_t limit, const pt_layer *l, uint64_t *delta)
{
    const uint32_t at = l->transport;
    int changed;
    if (at == PT_NONE || limit < at + 8) return 0;
    if (l->protocol == PT_ICMPV6) return l->version == 6 ? pt_rewrite_icmp6(e, p, limit, at, delta) : 0;
    if (l->protocol == PT_ICMP) changed = pt_rewrite_icmp4(e, p, limit, at, delta);
    else changed = l->version == 4 ? pt_rewrite_igmp(e, p, limit, at, delta) : 0;
    if (changed) pt_update(p + at + 2, *delta, 0);
    *delta = 0; /* no pseudo header */
    return changed;
}

/* ---- layers ---- */

/* The addresses of one IP layer. */
static inline int pt_rewrite_layer(pt_edits *e, uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    const uint32_t limit = caplen < l->end ? caplen : l->end; /* what is behind it is padding */
    uint64_t inside = 0;
    int changed;
    pt_change c;
    if (l->status == PT_MALFORMED) {
        e->malformed++;
        return 0;
    }
    if (caplen < l->ip + (l->version == 4 ? 20 : 40)) {
        e->cut++;
        return 0;
    }
    changed = pt_rewrite_header(e, p, caplen, l, &c);
    if (l->protocol == PT_ICMP || l->protocol == PT_ICMPV6 || l->protocol == PT_IGMP)
        changed |= pt_rewrite_control(e, p, limit, l, &inside);
    pt_update_transport(p, limit, l, c.pseudo + inside);
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

#endif
