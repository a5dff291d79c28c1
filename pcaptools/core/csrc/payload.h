/* Where the payload of a packet begins, and what --anonymize-payload makes of it. */
#ifndef PT_PAYLOAD_H
#define PT_PAYLOAD_H

#include "anonymize.h"
#include "checksums.h"

enum pt_payload { PT_PAYLOAD_KEEP, PT_PAYLOAD_ZERO, PT_PAYLOAD_RANDOM, PT_PAYLOAD_DROP };

enum { PT_EIGRP = 88, PT_VRRP = 112 };

typedef struct {
    uint8_t mode;               /* enum pt_payload */
    uint64_t key[2], packets;   /* packets: overwritten so far */
    uint64_t unbalanced;        /* later fragments after which the checksum of their datagram is wrong */
} pt_payloads;

/* First byte behind what a transport checksum covers, as far as it was captured. */
static inline uint32_t pt_covered_end(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    uint32_t limit = caplen < l->end ? caplen : l->end;
    if ((l->protocol == PT_UDP || l->protocol == PT_UDPLITE) && l->transport != PT_NONE && limit >= l->transport + 8) {
        uint32_t said = pt_net16(p + l->transport + 4);
        if (said >= 8 && said < limit - l->transport) return l->transport + said;
    }
    if (l->protocol == PT_DCCP && l->transport != PT_NONE && limit >= l->transport + 12 && p[l->transport + 5] & 15) {
        uint32_t covered = p[l->transport + 4] * 4u + ((p[l->transport + 5] & 15u) - 1) * 4; /* RFC 4340 section 9.2 */
        if (covered < limit - l->transport) return l->transport + covered;
    }
    return limit;
}

/* Offset of the data of a later fragment. */
static inline uint32_t pt_fragment_data(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    uint32_t at = l->ip + 40;
    if (l->version == 4) return l->ip + (p[l->ip] & 15u) * 4;
    for (uint8_t next = p[l->ip + 6]; pt_ipv6_extension(next) && at + 8 <= caplen;) {
        int last = next == PT_FRAGMENT_HEADER;
        at += pt_ipv6_extension_size(p + at, next, &next);
        if (last) break;
    }
    return at;
}

/* The packet that an ICMP or ICMPv6 error quotes. Returns whether there is one. */
static inline int pt_quoted(const uint8_t *p, uint32_t limit, const pt_layer *l, pt_layer *quote)
{
    const uint32_t at = l->transport;
    int version = 0;
    pt_walk w;
    if (at == PT_NONE || limit <= at + 8) return 0;
    if (l->protocol == PT_ICMP && (p[at] == 3 || p[at] == 4 || p[at] == 5 || p[at] == 11 || p[at] == 12)) version = 4;
    if (l->protocol == PT_ICMPV6 && p[at] < 128) version = 6;
    if (!version) return 0;
    pt_walk_start(&w, p, limit, limit);
    w.at = at + 8;
    w.type = version == 4 ? PT_TYPE_IPV4 : PT_TYPE_IPV6;
    return pt_ip_layer(&w, quote) && quote->status != PT_MALFORMED;
}

/* RFC 2784, RFC 2890, RFC 2637. */
static inline uint32_t pt_gre_size(const uint8_t *p, uint32_t caplen, uint32_t at)
{
    uint16_t flags = caplen >= at + 2 ? pt_net16(p + at) : 0;
    return 4 + (flags & 0xc000 ? 4 : 0) + (flags & 0x2000 ? 4 : 0) + (flags & 0x1000 ? 4 : 0) +
           ((flags & 7) == 1 && flags & 0x80 ? 4 : 0);
}

/* Bytes of the headers of a transport protocol, with the addresses that its messages hold; UINT32_MAX: all of them. */
static inline uint32_t pt_header_size(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    const uint32_t at = l->transport;
    switch (l->protocol) {
    case PT_TCP: return caplen >= at + 13 && p[at + 12] >> 4 > 5 ? (p[at + 12] >> 4) * 4u : 20;
    case PT_SCTP: return 12;
    case PT_UDP: case PT_UDPLITE: return 8;
    case PT_DCCP: return caplen > at + 4 && p[at + 4] > 3 ? p[at + 4] * 4u : 12; /* RFC 4340 section 5.1 */
    case PT_GRE: return pt_gre_size(p, caplen, at);
    case PT_EIGRP: return 20; /* RFC 7868 section 6.3.1 */
    case PT_VRRP: return 8;   /* RFC 5798 section 5.1 */
    case 2: return UINT32_MAX;
    case PT_ICMP: return caplen <= at || p[at] == 9 ? UINT32_MAX : 8;
    case PT_ICMPV6: return caplen <= at || p[at] >= 130 ? UINT32_MAX : 8;
    }
    return 0;
}

/* The same, and of an error with the headers of what it quotes. */
static inline uint32_t pt_transport_size(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    uint32_t size;
    pt_layer quote;
    if (!pt_quoted(p, caplen, l, &quote)) return pt_header_size(p, caplen, l);
    if (quote.transport == PT_NONE)
        return (quote.status == PT_LATER_FRAGMENT ? pt_fragment_data(p, caplen, &quote) : caplen) - l->transport;
    size = pt_header_size(p, caplen, &quote);
    return size == UINT32_MAX ? size : quote.transport + size - l->transport;
}

/* Bytes of a link header behind which nothing is known. */
static inline uint32_t pt_bare_link(const uint8_t *p, uint32_t caplen, uint16_t linktype)
{
    uint32_t start = 0;
    switch (linktype) {
    case 0: case 9: case 50: case 104: case 108: return 4;
    case 113: return 16;
    case 276: return 20;
    case 127:
        if (caplen < 4) return caplen;
        start = (uint32_t)p[2] | (uint32_t)p[3] << 8; /* fall through */
    case 105: /* control frames have one address or two */
        if (start < caplen && (p[start] & 0x0c) == 0x04) return start + ((p[start] & 0xf0) >= 0xc0 && (p[start] & 0xf0) <= 0xd0 ? 10 : 16);
        return start + 24;
    }
    return 0;
}

/* Offset of the first byte that is neither header nor addresses. */
static inline uint32_t pt_payload_at(const uint8_t *p, uint32_t caplen, const pt_where *o)
{
    const pt_layer *l = &o->inner;
    uint32_t at = l->transport;
    if (!o->depth) {
        at = o->network != PT_NONE ? o->network : o->ethernet != PT_NONE ? o->ethernet + 14 : 0;
        if (o->ethertype == PT_TYPE_ARP && caplen >= at + 8) at += 8 + 2 * (p[at + 4] + p[at + 5]);
    } else if (at != PT_NONE) {
        uint32_t size = pt_transport_size(p, caplen, l);
        at = size > caplen ? caplen : at + size;
    } else if (l->status == PT_LATER_FRAGMENT) {
        at = pt_fragment_data(p, caplen, l);
    } else {
        at = l->status == PT_TRUNCATED ? caplen : l->ip;
    }
    return at < caplen ? at : caplen;
}

/* Whether a protocol's checksum is the Internet checksum over all of a datagram. */
static inline int pt_summed(uint8_t protocol)
{
    return protocol == PT_TCP || protocol == PT_UDP || protocol == PT_ICMP || protocol == PT_ICMPV6 || protocol == PT_DCCP || protocol == 2;
}

/* Give the bytes [at, end) the sum that they had by their last word. Returns whether that can be. */
static inline int pt_balance(uint8_t *p, uint32_t at, uint32_t end, uint64_t before)
{
    uint32_t word = at + ((end - at) & ~1u) - 2;
    uint16_t sum;
    if (end < at + 2) return end == at || pt_fold(before) == pt_fold(pt_sum_bytes(p + at, end - at));
    memset(p + word, 0, 2);
    sum = pt_fold(before + (uint16_t)~pt_fold(pt_sum_bytes(p + at, end - at)));
    if (sum == 0xffff) sum = 0;
    memcpy(p + word, &sum, 2);
    return 1;
}

static inline void pt_fill_payload(pt_payloads *s, uint8_t *p, uint32_t at, uint32_t end)
{
    if (s->mode == PT_PAYLOAD_ZERO) {
        memset(p + at, 0, end - at);
        return;
    }
    s->packets++;
    for (uint32_t k = at; k < end; k += 8) {
        uint64_t word = pt_siphash(s->key, s->packets, k, 0x7061796c);
        memcpy(p + k, &word, end - k < 8 ? end - k : 8);
    }
}

/* Offset of an Internet checksum that covers a message without a pseudo header; 0: none. */
static inline uint32_t pt_plain_field(const uint8_t *p, uint32_t limit, const pt_layer *l)
{
    switch (l->protocol) {
    case PT_ICMP: case PT_EIGRP: case 2: return 2;
    case PT_VRRP: return 6;
    case PT_GRE: return limit > l->transport && p[l->transport] & 0x80 ? 4 : 0;
    }
    return 0;
}

/* Change the bytes [at, caplen). The transport checksum follows; that of a later fragment stands in the first one, so
 * its last word makes up for the change. */
static inline void pt_overwrite(pt_payloads *s, uint8_t *p, uint32_t caplen, const pt_where *o, uint32_t at)
{
    const pt_layer *l = &o->inner;
    const int covered = o->depth && l->transport != PT_NONE && l->transport <= at;
    const int later = o->depth && l->status == PT_LATER_FRAGMENT;
    uint32_t limit = o->depth ? pt_covered_end(p, caplen, l) : 0, field = pt_pseudo_field(l), from = covered ? l->transport : at;
    uint64_t before = (covered || later) && limit > from ? pt_sum_bytes(p + from, limit - from) : 0;
    int was_right = covered && l->protocol == PT_SCTP && pt_transport_sum(p, caplen, l, 0) == PT_SUM_RIGHT;
    pt_layer quote;
    int quoted = covered && pt_quoted(p, limit, l, &quote) && pt_transport_sum(p, limit, &quote, 0) == PT_SUM_RIGHT;
    if (covered && !field) field = pt_plain_field(p, limit, l);
    pt_fill_payload(s, p, at, caplen);
    if (quoted) pt_transport_sum(p, limit, &quote, 1);
    if (later && limit > at && !(pt_summed(l->protocol) && pt_balance(p, at, limit, before)))
        s->unbalanced += pt_summed(l->protocol) || l->protocol == PT_SCTP || l->protocol == PT_UDPLITE;
    if (covered && field && limit >= l->transport + field + 2) {
        pt_update(p + l->transport + field,
                  (uint64_t)(uint16_t)~pt_fold(before) + pt_fold(pt_sum_bytes(p + from, limit - from)), pt_zero_is_none(l));
        if (pt_fold(before) == 0xffff && !pt_sum_bytes(p + from, limit - from)) /* an echo reply of nothing but zeros */
            memset(p + l->transport + field, 0xff, 2);
    }
    if (covered && l->protocol == PT_SCTP && l->flags & PT_FRAGMENT) s->unbalanced++;
    if (was_right) pt_transport_sum(p, caplen, l, 1);
}

#endif
