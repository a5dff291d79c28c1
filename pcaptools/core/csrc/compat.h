/* tcprewrite's edits as tcprewrite 4.5/4.6 does them, byte for byte, its mistakes included (pcaprewrite --compat).
 *
 * Nothing here is shared with the real edits of rewrite.h and edits.h on purpose: what is wrong here stays here. */
#ifndef PT_COMPAT_H
#define PT_COMPAT_H

#include "convert.h"
#include "mangle.h"
#include "rewrite.h"

enum { PT_TR_PAD = 1, PT_TR_TRUNC, PT_TR_DEL };
enum { PT_TR_UNUSED, PT_TR_PRIMARY, PT_TR_SECONDARY, PT_TR_NO_SEND };
enum { PT_TR_ROOM = 2048 }; /* bytes that a packet may grow by */

typedef struct {
    /* addresses */
    pt_map map4[4], map6[4];    /* source, destination, pnat's first and second */
    uint8_t pnat, seeded, skip_broadcast;
    uint32_t seed;              /* mixed */
    /* header fields */
    pt_port_rule *port;
    uint32_t ports;
    uint8_t ttl_mode;
    uint16_t ttl;
    int16_t tos, tclass;
    int32_t flowlabel;
    uint8_t sequenced;
    uint32_t sequence;
    /* lengths and checksums */
    uint8_t fix_checksums, fix_lengths, fixlen, mtu_trunc, efcs;
    uint32_t mtu;
    /* link layer */
    uint16_t in_type, out_type;
    uint8_t set_mac[2][2];      /* [destination, source][c2s, s2c] */
    uint8_t mac[2][2][6];
    uint8_t (*swap)[12];        /* old, new */
    uint32_t swaps;
    uint8_t mac_seeded, mac_keep, mac_mask[6], skip_l2_broadcast;
    uint8_t vlan;               /* enum pt_vlan */
    int32_t vlan_tag, vlan_cfi, vlan_pri;
    uint16_t vlan_proto;
    int16_t hdlc_address, hdlc_control;
    uint8_t link[2][256], links; /* --user-dlink */
    uint16_t link_size;
    /* fuzzing */
    uint8_t fuzzing;
    uint32_t fuzz_state, fuzz_factor;
    /* the run */
    uint8_t skip_soft_errors;
    const uint8_t *cache;       /* enum of directions, one byte a packet */
    uint64_t cached, packet, soft_errors, dropped;
    uint8_t overrun;            /* packets beyond the cache */
} pt_tcprewrite;

/* One packet on its way. */
typedef struct {
    uint8_t *p;
    uint32_t caplen, wirelen;
    uint32_t l2;     /* bytes in front of the network header */
    uint32_t mac;    /* offset of the Ethernet header that is edited */
    uint16_t type;   /* EtherType of the network header; 0: none */
    uint8_t ethernet, s2c, sums;
} pt_tr_packet;

/* The link layer as tcprewrite sees it. 0: known. */
static inline int pt_tr_parse(pt_tr_packet *k, uint16_t linktype)
{
    pt_walk w;
    uint32_t at;
    k->ethernet = linktype == 1;
    k->mac = 0;
    if (!k->ethernet) {
        pt_walk_start(&w, k->p, k->caplen, k->wirelen);
        pt_link_layer(&w, linktype);
        if (!w.type || w.at > k->caplen) return -1;
        if (w.type == PT_TYPE_RAW_IP && w.at < k->caplen)
            w.type = k->p[w.at] >> 4 == 6 ? PT_TYPE_IPV6 : PT_TYPE_IPV4;
        k->l2 = w.at;
        k->type = w.type;
        return 0;
    }
    if (k->caplen <= 18) return -1;
    for (at = 12; at + 2 <= k->caplen;) {
        uint16_t type = pt_net16(k->p + at);
        at += 2;
        if (type == PT_TYPE_VLAN || type == PT_TYPE_QINQ || type == PT_TYPE_OLD_QINQ) {
            at += 2;
            continue;
        }
        if (type == PT_TYPE_MPLS || type == PT_TYPE_MPLS_MULTICAST) {
            int bottom = 0;
            while (!bottom && at + 4 <= k->caplen) {
                bottom = k->p[at + 2] & 1;
                at += 4;
            }
            if (!bottom || at >= k->caplen) return -1;
            if (k->p[at] >> 4 == 4) type = PT_TYPE_IPV4;
            else if (k->p[at] >> 4 == 6) type = PT_TYPE_IPV6;
            else if (k->p[at] >> 4 == 0) {
                k->mac = at + 4;
                at += 4 + 12;
                continue;
            } else return -1;
        }
        if (type < 1536) return -1;
        k->l2 = at;
        k->type = type;
        return at <= k->caplen ? 0 : -1;
    }
    return -1;
}

static inline int pt_tr_fixed_mac(const uint8_t *m)
{
    static const uint8_t vrrp[5] = {0, 0, 0x5e, 0, 1};
    return !memcmp(m, "\xff\xff\xff\xff\xff\xff", 6) || !memcmp(m, "\x01\x00\x5e", 3) || !memcmp(m, "\x33\x33", 2) ||
           (!memcmp(m, vrrp, 4) && (m[4] == 1 || m[4] == 2));
}

static inline void pt_tr_macs(const pt_tcprewrite *t, pt_tr_packet *k)
{
    uint8_t *eth = k->p + k->mac;
    if (k->caplen < k->mac + 12) return;
    for (uint32_t s = 0; s < t->swaps; s++)
        for (int side = 0; side < 2; side++)
            if (!memcmp(eth + 6 * side, t->swap[s], 6)) memcpy(eth + 6 * side, t->swap[s] + 6, 6);
    for (int side = 0; side < 2 && t->mac_seeded; side++)
        pt_seed_mac(eth + 6 * side, t->mac_mask, t->mac_keep, pt_tr_fixed_mac(eth + 6 * side));
    for (int side = 0; side < 2; side++)
        if (t->set_mac[side][k->s2c] && !(t->skip_l2_broadcast && pt_tr_fixed_mac(eth + 6 * side)))
            memcpy(eth + 6 * side, t->mac[side][k->s2c], 6);
}

/* Replace the bytes [at, at + old) by size bytes. */
static inline void pt_tr_splice(pt_tr_packet *k, uint32_t at, uint32_t old, const uint8_t *bytes, uint32_t size)
{
    memmove(k->p + at + size, k->p + at + old, k->caplen - at - old);
    memcpy(k->p + at, bytes, size);
    k->caplen += size - old;
    k->wirelen += size - old;
    k->l2 += size - old;
}

static inline void pt_tr_vlan(const pt_tcprewrite *t, pt_tr_packet *k)
{
    uint32_t at = k->mac + 12;
    uint16_t type = pt_net16(k->p + at), old = 0, tci;
    int tagged = type == PT_TYPE_VLAN || type == PT_TYPE_QINQ || type == PT_TYPE_OLD_QINQ;
    uint8_t tag[4] = {0};
    if (tagged && k->caplen >= at + 4) old = pt_net16(k->p + at + 2);
    if (t->vlan == PT_VLAN_DEL) {
        if (tagged && k->caplen >= at + 6) pt_tr_splice(k, at, 4, tag, 0);
        return;
    }
    tci = (uint16_t)(t->vlan_tag >= 0 ? t->vlan_tag : old & 0xfff);
    tci |= (uint16_t)(t->vlan_cfi >= 0 ? t->vlan_cfi << 12 : old & 0x1000);
    tci |= (uint16_t)(t->vlan_pri >= 0 ? t->vlan_pri << 13 : old & 0xe000);
    pt_put_net16(tag, t->vlan_proto);
    pt_put_net16(tag + 2, tci);
    pt_tr_splice(k, at, 0, tag, 4);
}

/* Whether tcprewrite can write the link type; of the others packets stay wholly as they are. */
static inline int pt_tr_writes(const pt_tcprewrite *t)
{
    if (t->links || t->out_type == 1 || t->out_type == 101 || t->out_type == 12) return 1;
    return t->out_type == 104 && t->hdlc_address >= 0 && t->hdlc_control >= 0;
}

/* The new link layer. 0: done, -1: a soft error. */
static inline int pt_tr_link(const pt_tcprewrite *t, pt_tr_packet *k)
{
    uint8_t head[16];
    if (!pt_tr_writes(t) || pt_tr_parse(k, t->in_type)) return -1;
    if (t->links) {
        const uint8_t *link = t->links > 1 && !k->s2c ? t->link[1] : t->link[0];
        pt_tr_splice(k, 0, k->l2, link, t->link_size);
        k->ethernet = 0;
        return 0;
    }
    if (t->out_type == 1 && !k->ethernet) {
        int s2c = k->s2c;
        memcpy(head, t->mac[0][s2c], 6);
        memcpy(head + 6, t->mac[1][s2c], 6);
        pt_put_net16(head + 12, k->type);
        pt_tr_splice(k, 0, k->l2, head, 14);
        k->mac = 0;
        return 0;
    }
    if (t->out_type == 104) {
        head[0] = (uint8_t)t->hdlc_address;
        head[1] = (uint8_t)t->hdlc_control;
        /* the type behind the MAC addresses, even where that is a tag's or a label's */
        pt_put_net16(head + 2, k->ethernet ? pt_net16(k->p + k->mac + 12) : k->type);
        pt_tr_splice(k, 0, k->l2, head, 4);
        k->ethernet = 0;
        return 0;
    }
    if (t->out_type == 101 && t->in_type != 101 && t->in_type != 12) {
        if (k->type != PT_TYPE_IPV4 && k->type != PT_TYPE_IPV6) return -1;
        pt_tr_splice(k, 0, k->l2, head, 0);
        k->ethernet = 0;
        return 0;
    }
    if (!k->ethernet) return 0;
    if (t->vlan) pt_tr_vlan(t, k);
    pt_tr_macs(t, k);
    return 0;
}

/* Update the checksums that cover an IPv4 or IPv6 address, or bytes of a transport header (`inside`). */
static inline void pt_tr_follow(pt_tr_packet *k, uint64_t delta, int inside)
{
    uint8_t *ip = k->p + k->l2;
    uint32_t left = k->caplen - k->l2, header = 40;
    uint8_t protocol = ip[6];
    if (k->type == PT_TYPE_IPV4) {
        header = (ip[0] & 15u) * 4;
        protocol = ip[9];
        if (!inside) pt_update(ip + 10, delta, 0);
        if (!inside && pt_net16(ip + 6) & 0x1fff) return;
    }
    if (left < header) return;
    left -= header;
    ip += header;
    if (protocol == PT_TCP && left >= 20) pt_update(ip + 16, delta, 0);
    if (protocol == PT_UDP && left >= 8 && (ip[6] || ip[7])) pt_update(ip + 6, delta, 0);
    if (protocol == PT_ICMPV6 && k->type == PT_TYPE_IPV6 && left >= 4) pt_update(ip + 2, delta, 0);
}

/* tcprewrite takes whole bytes only of an IPv6 target's prefix. */
static inline int pt_tr_map(const pt_map *map, uint8_t *a, int version, uint64_t *delta)
{
    const uint32_t size = version == 4 ? 4 : 16;
    const pt_map_rule *r;
    uint32_t old[4] = {0}, new[4];
    memcpy(old, a, size);
    r = version == 4 ? pt_map_find4(map, old[0]) : pt_map_find6(map, old);
    if (!r) return 0;
    for (uint32_t w = 0; w < size / 4; w++) new[w] = r->to[w] | (old[w] & r->keep[w]);
    if (version == 6) {
        uint8_t *bytes = (uint8_t *)new, keep[16], was[16];
        memcpy(keep, r->keep, 16);
        memcpy(was, old, 16);
        for (int i = 0; i < 16; i++)
            if (keep[i] && keep[i] != 0xff) bytes[i] = was[i];
    }
    *delta += pt_delta((const uint8_t *)old, (const uint8_t *)new, size);
    memcpy(a, new, size);
    return 1;
}

static inline int pt_tr_multicast(const uint8_t *a, int version) { return version == 4 ? a[0] >> 4 == 14 : a[0] == 0xff; }

static inline void pt_tr_pnat(const pt_tcprewrite *t, pt_tr_packet *k, uint8_t *a, int which, int version, int *changed,
                              uint64_t *delta)
{
    const pt_map *map = version == 4 ? &t->map4[2 + which] : &t->map6[2 + which];
    (void)k;
    if (t->skip_broadcast && pt_tr_multicast(a, version)) return;
    *changed |= pt_tr_map(map, a, version, delta);
}

/* Addresses of the IP header, or of ARP. Returns whether any map or seed was applied. */
static inline int pt_tr_addresses(const pt_tcprewrite *t, pt_tr_packet *k)
{
    const int version = k->type == PT_TYPE_IPV4 ? 4 : 6;
    const uint32_t size = version == 4 ? 4 : 16, source = version == 4 ? 12 : 8;
    uint8_t *a = k->p + k->l2 + source, *b = a + size;
    const pt_map *maps = version == 4 ? t->map4 : t->map6;
    uint64_t delta = 0;
    int changed = 0;
    if (k->caplen < k->l2 + source + 2 * size) return 0;
    changed |= pt_tr_map(&maps[0], a, version, &delta);
    changed |= pt_tr_map(&maps[1], b, version, &delta);
    if (t->pnat) {
        pt_tr_pnat(t, k, b, !k->s2c, version, &changed, &delta);
        pt_tr_pnat(t, k, a, k->s2c, version, &changed, &delta);
    }
    if (t->seeded) {
        for (int side = 1; side >= 0; side--) {
            uint8_t *x = side ? b : a, old[16];
            if (t->skip_broadcast && pt_tr_multicast(x, version)) continue;
            memcpy(old, x, size);
            pt_seed_address(x, version, t->seed);
            delta += pt_delta(old, x, size);
        }
        changed = 1;
    }
    if (delta) pt_tr_follow(k, delta, 0);
    return changed;
}

static inline void pt_tr_arp(const pt_tcprewrite *t, pt_tr_packet *k)
{
    uint8_t *arp = k->p + k->l2, *sender, *target;
    uint64_t ignored = 0;
    int changed = 0, operation;
    if (k->caplen < k->l2 + 8 || pt_net16(arp + 2) != PT_TYPE_IPV4 || arp[5] != 4) return;
    if (k->caplen < k->l2 + 8 + 2 * (arp[4] + 4u)) return;
    operation = pt_net16(arp + 6);
    if (operation != 1 && operation != 2) return;
    sender = arp + 8 + arp[4];
    target = sender + 4 + arp[4];
    if (t->pnat) { /* the sender of a request is looked up as a destination */
        int first = operation == 1 ? !k->s2c : k->s2c;
        pt_tr_pnat(t, k, sender, first, 4, &changed, &ignored);
        pt_tr_pnat(t, k, target, !first, 4, &changed, &ignored);
    }
    for (int side = 0; t->seeded && side < 2; side++) {
        uint8_t *x = side ? target : sender;
        if (!(t->skip_broadcast && pt_tr_multicast(x, 4))) pt_seed_address(x, 4, t->seed);
    }
}

static inline void pt_tr_put16(pt_tr_packet *k, uint8_t *field, uint16_t value, int header)
{
    uint8_t old[2];
    uint64_t delta;
    memcpy(old, field, 2);
    pt_put_net16(field, value);
    delta = pt_delta(old, field, 2);
    if (header) pt_update(k->p + k->l2 + 10, delta, 0);
    else pt_tr_follow(k, delta, 1);
}

static inline void pt_tr_ttl(const pt_tcprewrite *t, pt_tr_packet *k, uint8_t *field)
{
    uint8_t value = pt_new_ttl(*field, t->ttl_mode, t->ttl);
    if (t->ttl_mode && t->ttl && value != *field) {
        uint8_t old[2], *pair = k->p + k->l2 + 8;
        memcpy(old, pair, 2);
        *field = value;
        if (k->type == PT_TYPE_IPV4) pt_update(pair + 2, pt_delta(old, pair, 2), 0);
        k->sums = 1;
    }
    if (t->ttl && t->ttl_mode > PT_TTL_SET) k->sums = 1; /* even where 255 or 1 is reached already */
}

/* The last rule that fits decides; a range ends with a rule of its own from 0 to 0. */
static inline uint16_t pt_tr_port(const pt_tcprewrite *t, uint16_t port)
{
    for (uint32_t k = t->ports; k--;) {
        if (!port && t->port[k].first < t->port[k].last) return 0;
        if (port >= t->port[k].first && port <= t->port[k].last) return t->port[k].to;
    }
    return port;
}

/* TOS, TTL, ports, sequence numbers; the fragment offset is not looked at. */
static inline void pt_tr_fields(const pt_tcprewrite *t, pt_tr_packet *k)
{
    uint8_t *ip = k->p + k->l2, *l4;
    uint32_t left = k->caplen - k->l2, header = 40;
    uint8_t protocol;
    if (k->type == PT_TYPE_IPV4) {
        if (left < 20) return;
        header = (ip[0] & 15u) * 4;
        protocol = ip[9];
        if (t->tos >= 0) pt_tr_put16(k, ip, (uint16_t)(ip[0] << 8 | t->tos), 1);
        pt_tr_ttl(t, k, ip + 8);
    } else {
        if (left < 40) return;
        protocol = ip[6];
        if (t->tclass >= 0) pt_put_tclass(ip, (uint8_t)t->tclass);
        if (t->flowlabel >= 0) pt_put_flowlabel(ip, (uint32_t)t->flowlabel);
        pt_tr_ttl(t, k, ip + 7);
    }
    l4 = ip + header;
    if (left < header + (protocol == PT_TCP ? 20 : 8)) return;
    if ((protocol == PT_TCP || protocol == PT_UDP) && t->ports) {
        for (int side = 0; side < 4; side += 2) {
            uint16_t old = pt_net16(l4 + side), new = pt_tr_port(t, old);
            if (new != old) pt_tr_put16(k, l4 + side, new, 0);
        }
    }
    if (protocol == PT_TCP && t->sequenced) {
        uint8_t old[8];
        memcpy(old, l4 + 4, 8);
        pt_put_net32(l4 + 4, pt_net32(l4 + 4) + t->sequence);
        if (!((l4[13] & 2) && !(l4[13] & 16))) pt_put_net32(l4 + 8, pt_net32(l4 + 8) + t->sequence);
        pt_tr_follow(k, pt_delta(old, l4 + 4, 8), 1);
    }
}

/* Offset of the transport header from the network header, and its protocol. */
static inline uint32_t pt_tr_transport(const pt_tr_packet *k, uint8_t *protocol)
{
    const uint8_t *ip = k->p + k->l2;
    uint32_t left = k->caplen - k->l2, at = 40;
    if (k->type == PT_TYPE_IPV4) {
        *protocol = ip[9];
        return (ip[0] & 15u) * 4;
    }
    *protocol = ip[6];
    while ((*protocol == 0 || *protocol == PT_ROUTING || *protocol == PT_FRAGMENT_HEADER || *protocol == PT_AH ||
            *protocol == 60) && at + 8 <= left) {
        uint8_t next;
        at += pt_ipv6_extension_size(ip + at, *protocol, &next);
        *protocol = next;
    }
    return at;
}

static inline int pt_tr_is_ip(const pt_tr_packet *k)
{
    return (k->type == PT_TYPE_IPV4 && k->caplen >= k->l2 + 20) || (k->type == PT_TYPE_IPV6 && k->caplen >= k->l2 + 40);
}

/* Returns 1 when the packet is to be dropped. */
static inline int pt_tr_fuzz(pt_tcprewrite *t, pt_tr_packet *k)
{
    uint32_t n, p, r = pt_tr_random(&t->fuzz_state);
    uint8_t protocol = 0;
    if (r % t->fuzz_factor) return 0;
    n = k->caplen - k->l2;
    p = k->l2;
    if (pt_tr_is_ip(k)) {
        p = n = k->l2 + pt_tr_transport(k, &protocol);
        if (protocol == PT_TCP) n -= 20, p += 20;
        if (protocol == PT_UDP) n -= 8, p += 8;
    }
    if ((int32_t)n <= 1 || p > k->caplen) return 0;
    switch (pt_fuzz(k->p + p, k->caplen - p, n, r, k->wirelen >= k->caplen, k->caplen, &k->caplen)) {
    case PT_FUZZ_NOTHING: return 0;
    case PT_FUZZ_DROP: return 1;
    case PT_FUZZ_CUT: k->wirelen = k->caplen; break;
    }
    k->sums = 1;
    return 0;
}

static inline void pt_tr_set_length(pt_tr_packet *k, uint32_t frame, int both)
{
    uint8_t *ip = k->p + k->l2;
    if (k->type == PT_TYPE_IPV4) pt_put_net16(ip + 2, (uint16_t)(frame - k->l2));
    else if (both && k->type == PT_TYPE_IPV6) pt_put_net16(ip + 4, (uint16_t)(frame - k->l2 - 40));
}

static inline void pt_tr_lengths(const pt_tcprewrite *t, pt_tr_packet *k)
{
    int ip = pt_tr_is_ip(k);
    if (t->fixlen && ip && k->caplen != k->wirelen) {
        if (t->fixlen == PT_TR_TRUNC) {
            pt_tr_set_length(k, k->caplen, 0);
            k->wirelen = k->caplen;
        } else if (t->fixlen == PT_TR_PAD && k->wirelen > k->caplen) {
            memset(k->p + k->caplen, 0, k->wirelen - k->caplen);
            k->caplen = k->wirelen;
        }
        k->sums = 1;
    }
    if (!t->mtu_trunc) return;
    if (k->wirelen > t->mtu + k->l2) {
        k->wirelen = t->mtu + k->l2;
        if (k->caplen > k->wirelen) k->caplen = k->wirelen;
        if (pt_tr_is_ip(k)) pt_tr_set_length(k, k->wirelen, 1);
    }
    if (ip && !(k->type == PT_TYPE_IPV4 && pt_net16(k->p + k->l2 + 6) & 0x3fff)) k->sums = 1;
}

/* A checksum of `length` bytes at l4 with its pseudo header; zero is written as zero. */
static inline void pt_tr_sum(const pt_tr_packet *k, uint8_t *l4, uint32_t length, uint32_t field, uint8_t protocol, int pseudo)
{
    const uint8_t *ip = k->p + k->l2;
    uint64_t sum;
    uint16_t value;
    memset(l4 + field, 0, 2);
    sum = pt_sum_bytes(l4, length);
    if (pseudo) {
        sum += k->type == PT_TYPE_IPV4 ? pt_sum_bytes(ip + 12, 8) : pt_sum_bytes(ip + 8, 32);
        sum += pt_hton16(protocol) + pt_hton16((uint16_t)length);
    }
    value = (uint16_t)~pt_fold(sum);
    memcpy(l4 + field, &value, 2);
}

static inline void pt_tr_transport_sum(const pt_tr_packet *k, uint32_t length)
{
    uint8_t protocol, *l4;
    uint32_t header = pt_tr_transport(k, &protocol);
    if (length < header || k->caplen < k->l2 + length) return;
    l4 = k->p + k->l2 + header;
    length -= header;
    if (protocol == PT_TCP && length >= 20) pt_tr_sum(k, l4, length, 16, protocol, 1);
    if (protocol == PT_UDP && length >= 8 && (l4[6] || l4[7])) pt_tr_sum(k, l4, length, 6, protocol, 1);
    if (protocol == PT_ICMP && length >= 8) pt_tr_sum(k, l4, length, 2, protocol, 0);
    if (protocol == PT_ICMPV6 && length >= 8) pt_tr_sum(k, l4, length, 2, protocol, 1);
}

static inline void pt_tr_checksums(const pt_tr_packet *k)
{
    uint8_t *ip = k->p + k->l2;
    if (!pt_tr_is_ip(k) || k->caplen != k->wirelen) {
        if (k->type != PT_TYPE_IPV4 || !pt_tr_is_ip(k)) return;
    }
    if (k->type == PT_TYPE_IPV6) {
        pt_tr_transport_sum(k, pt_net16(ip + 4) + 40u);
        return;
    }
    if (k->caplen - k->l2 != pt_net16(ip + 2)) return;
    if (k->caplen == k->wirelen && !(pt_net16(ip + 6) & 0x3fff)) pt_tr_transport_sum(k, pt_net16(ip + 2));
    if (k->caplen >= k->l2 + (ip[0] & 15u) * 4) pt_tr_sum(k, ip, (ip[0] & 15u) * 4, 10, 0, 0);
}

/* One packet, from its bytes at k->p. Returns 0: write it, 1: leave it out. */
static inline int pt_tr_packet_edit(pt_tcprewrite *t, pt_tr_packet *k)
{
    if (t->efcs && k->wirelen > 4) {
        if (k->caplen == k->wirelen) k->caplen -= 4;
        k->wirelen -= 4;
    }
    if (pt_tr_link(t, k)) {
        t->soft_errors++;
        return t->skip_soft_errors;
    }
    if (pt_tr_is_ip(k)) pt_tr_fields(t, k);
    if (t->fuzzing) {
        if (pt_tr_fuzz(t, k)) return 1;
        if (t->vlan && k->ethernet && k->caplen >= k->mac + 14) pt_tr_vlan(t, k);
        if (pt_tr_is_ip(k)) pt_tr_fields(t, k);
    }
    pt_tr_lengths(t, k);
    if (pt_tr_is_ip(k)) {
        pt_tr_addresses(t, k);
        if (t->fix_lengths && !(k->type == PT_TYPE_IPV4 && pt_net16(k->p + k->l2 + 6) & 0x3fff)) {
            pt_tr_set_length(k, k->wirelen, 1);
            k->sums = 1;
        }
        if (t->fix_checksums || k->sums) pt_tr_checksums(k);
    } else if (k->type == PT_TYPE_ARP) {
        pt_tr_arp(t, k);
    }
    if (pt_tr_is_ip(k) && t->in_type == 1 && k->ethernet && t->out_type == 1)
        pt_group_mac(k->p + k->mac, k->p + k->l2, k->type == PT_TYPE_IPV4 ? 4 : 6);
    return 0;
}

/* Edit a batch into out, whose buffer is empty. 0: done, -1: no memory. */
static inline int pt_tr_batch(pt_tcprewrite *t, const pt_batch *b, pt_batch *out)
{
    for (uint32_t i = 0; i < b->n; i++) {
        const pt_record *r = &b->record[i];
        uint32_t most = (r->wirelen > r->caplen && r->wirelen <= 262144 ? r->wirelen : r->caplen) + PT_TR_ROOM;
        pt_tr_packet k = {NULL, r->caplen, r->wirelen, 0, 0, 0, 0, 0, 0};
        pt_record *copy;
        int direction = PT_TR_PRIMARY;
        uint64_t number = t->packet++;
        if (out->used + 16 + most > out->capacity && pt_batch_reserve(out, (out->used + 16 + most) * 2)) return -1;
        k.p = out->bytes + out->used + 16;
        memcpy(k.p, b->bytes + r->data, r->caplen);
        if (t->cache) {
            if (number < t->cached) direction = t->cache[number];
            else t->overrun = 1;
        }
        k.s2c = direction == PT_TR_SECONDARY;
        if (direction != PT_TR_NO_SEND && pt_tr_packet_edit(t, &k)) {
            t->dropped++;
            continue;
        }
        copy = pt_add_record(out);
        if (!copy) return -1;
        *copy = *r;
        pt_put_record_header(k.p - 16, r->time, k.caplen, k.wirelen, out->nanoseconds);
        copy->start = (uint32_t)out->used;
        copy->data = copy->start + 16;
        copy->caplen = k.caplen;
        copy->wirelen = k.wirelen;
        copy->end = copy->data + k.caplen;
        out->used = out->filled = copy->end;
    }
    return 0;
}

#endif
