/* Where the headers of a packet are: link layer, IP, transport, tunnels.
 *
 * One walk per packet. Nothing is read beyond the captured length; what is cut or cannot be is a status, never an
 * error. Offsets count from the first byte of the packet. */
#ifndef PT_HEADERS_H
#define PT_HEADERS_H

#include "batch.h"

enum {
    PT_MAX_DEPTH = 8, /* IP layers walked; deeper ones are payload */
    PT_MAX_SHIM = 64, /* VLAN tags, labels or extension headers in a row */
};

enum {
    PT_TYPE_IPV4 = 0x0800,
    PT_TYPE_ARP = 0x0806,
    PT_TYPE_TEB = 0x6558, /* transparent Ethernet bridging */
    PT_TYPE_VLAN = 0x8100,
    PT_TYPE_IPV6 = 0x86DD,
    PT_TYPE_MPLS = 0x8847,
    PT_TYPE_MPLS_MULTICAST = 0x8848,
    PT_TYPE_PPPOE = 0x8864,
    PT_TYPE_QINQ = 0x88A8,
    PT_TYPE_OLD_QINQ = 0x9100,
    PT_TYPE_PPP = 0x880B,
    PT_TYPE_ERSPAN2 = 0x88BE,
    PT_TYPE_ERSPAN3 = 0x22EB,
    PT_TYPE_RAW_IP = 1, /* ours: IPv4 or IPv6 by its first nibble */
    PT_TYPE_LLC = 2,    /* ours: an IEEE 802.2 header */
};

enum {
    PT_ICMP = 1,
    PT_IPIP = 4,
    PT_TCP = 6,
    PT_UDP = 17,
    PT_DCCP = 33,
    PT_IPV6_IN_IP = 41,
    PT_ROUTING = 43,
    PT_FRAGMENT_HEADER = 44,
    PT_GRE = 47,
    PT_AH = 51,
    PT_ICMPV6 = 58,
    PT_OSPF = 89,
    PT_PIM = 103,
    PT_SCTP = 132,
    PT_UDPLITE = 136,
};

/* One packet being walked. */
typedef struct {
    const uint8_t *p;
    uint32_t caplen, wirelen;
    uint32_t at;      /* offset of the next header */
    uint16_t type;    /* what it is: an EtherType or one of ours; 0: unknown */
    uint32_t ethernet; /* first Ethernet header met; PT_NONE: none */
    uint8_t status;   /* why there is no next header */
} pt_walk;

static inline int pt_has(const pt_walk *w, uint32_t n)
{
    return w->at <= w->caplen && w->caplen - w->at >= n;
}

/* The walk ends here. */
static inline void pt_stop(pt_walk *w, int status)
{
    w->type = 0;
    w->status = (uint8_t)status;
}

static inline uint16_t pt_af_type(uint32_t family)
{
    switch (family) {
    case 2:
        return PT_TYPE_IPV4;
    case 10: case 24: case 28: case 30: /* AF_INET6 of Linux, NetBSD, FreeBSD, macOS */
        return PT_TYPE_IPV6;
    }
    return 0;
}

static inline uint16_t pt_ppp_type(uint16_t protocol)
{
    switch (protocol) {
    case 0x0021: return PT_TYPE_IPV4;
    case 0x0057: return PT_TYPE_IPV6;
    case 0x0281: return PT_TYPE_MPLS;
    case 0x0283: return PT_TYPE_MPLS_MULTICAST;
    }
    return 0;
}

/* An EtherType where no length can stand: small numbers mean nothing to us. */
static inline uint16_t pt_known_type(uint16_t type) { return type < 1536 ? 0 : type; }

/* What an Ethernet type field announces: below 1536 it is a length and LLC follows. */
static inline void pt_ethertype(pt_walk *w, uint32_t skip)
{
    if (!pt_has(w, skip)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    w->type = pt_net16(w->p + w->at + skip - 2);
    w->at += skip;
    if (w->type < 1536) w->type = PT_TYPE_LLC;
}

static inline void pt_ethernet(pt_walk *w)
{
    if (w->ethernet == PT_NONE) w->ethernet = w->at;
    pt_ethertype(w, 14);
}

/* RFC 1661, RFC 1662: address and control may be left out, and so may the protocol's first byte. */
static inline void pt_ppp(pt_walk *w)
{
    if (pt_has(w, 2) && w->p[w->at] == 0xff && w->p[w->at + 1] == 0x03) w->at += 2;
    if (!pt_has(w, 2)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    if (w->p[w->at] & 1) {
        w->type = pt_ppp_type(w->p[w->at]);
        w->at += 1;
    } else {
        w->type = pt_ppp_type(pt_net16(w->p + w->at));
        w->at += 2;
    }
}

/* IEEE 802.2 LLC, with SNAP. */
static inline void pt_llc(pt_walk *w)
{
    const uint8_t *p = w->p + w->at;
    if (!pt_has(w, 3)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    if (p[0] == 0xaa && p[1] == 0xaa && p[2] == 0x03) {
        if (!pt_has(w, 8)) {
            pt_stop(w, PT_TRUNCATED);
            return;
        }
        w->type = pt_known_type(pt_net16(p + 6));
        w->at += 8;
        if ((p[3] | p[4]) == 0 && (p[5] == 0 || p[5] == 0xf8)) return;
        pt_stop(w, PT_NOT_IP);
    } else if (p[0] == 0x06 && p[1] == 0x06 && p[2] == 0x03) {
        w->type = PT_TYPE_IPV4;
        w->at += 3;
    } else {
        pt_stop(w, PT_NOT_IP);
    }
}

/* Whether a radiotap header says that the 802.11 header is padded to 4 bytes. */
static inline int pt_radiotap_pads(const uint8_t *p, uint32_t length)
{
    uint32_t at = 8, present = (uint32_t)p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
    uint32_t word = present;
    while (word & 0x80000000u) {
        if (at + 4 > length) return 0;
        word = (uint32_t)p[at + 3] << 24;
        at += 4;
    }
    if (present & 1) at = ((at + 7) & ~7u) + 8;
    return (present & 2) && at < length && (p[at] & 0x20);
}

/* IEEE 802.11: data frames that carry a plain LLC payload. */
static inline void pt_ieee80211(pt_walk *w, int padded)
{
    const uint8_t *p = w->p + w->at;
    uint32_t length = 24;
    int subtype;
    if (!pt_has(w, 24)) {
        pt_stop(w, pt_has(w, 1) && (p[0] & 0x0c) != 0x08 ? PT_NOT_IP : PT_TRUNCATED);
        return;
    }
    subtype = p[0] >> 4;
    if ((p[0] & 0x0c) != 0x08 || (subtype & 4) || (p[1] & 0x40)) { /* no data frame, no data, or encrypted */
        pt_stop(w, PT_NOT_IP);
        return;
    }
    if ((p[1] & 3) == 3) length += 6;
    if (subtype & 8) {
        if (!pt_has(w, length + 2)) {
            pt_stop(w, PT_TRUNCATED);
            return;
        }
        if (p[length] & 0x80) { /* aggregated frames */
            pt_stop(w, PT_NOT_IP);
            return;
        }
        length += 2;
        if (p[1] & 0x80) length += 4;
    }
    if (padded) length = (length + 3) & ~3u;
    w->at += length;
    w->type = PT_TYPE_LLC;
}

static inline uint32_t pt_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Bytes in front of an 802.11 header: none, radiotap, PPI, AVS or Prism. PT_NONE: they are cut, they lie about their
 * size, or what follows is no 802.11. AVS and Prism are told apart as libpcap does, by AVS's cookie. */
static inline uint32_t pt_monitor_size(const uint8_t *p, uint32_t size, uint16_t linktype)
{
    const int counted = linktype == 127 || linktype == 192;
    uint32_t length;
    if (linktype == 105) return 0;
    if (size < 8 || (!counted && linktype != 119 && linktype != 163)) return PT_NONE;
    if (linktype == 192 && pt_le32(p + 4) != 105) return PT_NONE;
    if (counted) length = pt_le32(p) >> 16;
    else length = linktype == 163 || (pt_net32(p) & 0xfffff000u) == 0x80211000u ? pt_net32(p + 4) : 144;
    return length >= (counted ? 8u : 1u) && length <= size ? length : PT_NONE;
}

static inline void pt_monitor(pt_walk *w, uint16_t linktype)
{
    const uint8_t *p = w->p + w->at;
    uint32_t length = pt_monitor_size(p, w->caplen - w->at, linktype);
    if (length == PT_NONE) {
        pt_stop(w, linktype == 192 && pt_has(w, 8) && pt_le32(p + 4) != 105 ? PT_NOT_IP : PT_TRUNCATED);
        return;
    }
    w->at += length;
    pt_ieee80211(w, linktype == 127 && pt_radiotap_pads(p, length));
}

/* NULL and LOOP: an address family of 4 bytes in some host's byte order. */
static inline void pt_loopback(pt_walk *w)
{
    uint32_t family;
    if (!pt_has(w, 4)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    family = pt_net32(w->p + w->at);
    if (family & 0xffff0000u) family = pt_swap32(family);
    w->type = pt_af_type(family);
    w->at += 4;
}

/* NFLOG: attributes of type, length, value in the writer's byte order; attribute 9 is the packet. */
static inline void pt_nflog(pt_walk *w)
{
    uint16_t type;
    if (!pt_has(w, 4)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    type = pt_af_type(w->p[w->at]);
    w->at += 4;
    while (pt_has(w, 4)) {
        uint32_t length = pt_get16(w->p + w->at, 0);
        uint16_t attribute = pt_get16(w->p + w->at + 2, 0) & 0x7fff;
        if (length < 4) break;
        if (attribute == 9) {
            w->at += 4;
            w->type = type;
            return;
        }
        w->at += (length + 3) & ~3u;
    }
    pt_stop(w, PT_TRUNCATED);
}

/* Frame relay with a 2-byte address: RFC 2427. */
static inline void pt_frame_relay(pt_walk *w)
{
    const uint8_t *p = w->p + w->at;
    if (!pt_has(w, 10)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    if (!(p[1] & 1)) pt_stop(w, PT_NOT_IP);
    else if (p[2] == 0x03 && p[3] == 0xcc) w->type = PT_TYPE_IPV4, w->at += 4;
    else if (p[2] == 0x03 && p[3] == 0x8e) w->type = PT_TYPE_IPV6, w->at += 4;
    else if (p[2] == 0x03 && p[3] == 0x00 && p[4] == 0x80 && !(p[5] | p[6] | p[7])) pt_ethertype(w, 10);
    else pt_ethertype(w, 4); /* Cisco's encapsulation */
}

/* A header of a fixed length with nothing to learn from it. */
static inline void pt_skip(pt_walk *w, uint32_t length, uint16_t type)
{
    w->at += length;
    w->type = type;
}

/* ARCNET: source, destination, in Linux's form an offset of 2 bytes, type; and RFC 1201's fragmentation. */
static inline void pt_arcnet(pt_walk *w, uint32_t type_at)
{
    const uint8_t *p = w->p + w->at + type_at;
    if (!pt_has(w, type_at + 1)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    if (p[0] == 240 || p[0] == 241) { /* RFC 1051: no fragmentation header */
        pt_skip(w, type_at + 1, p[0] == 240 ? PT_TYPE_IPV4 : PT_TYPE_ARP);
    } else if (p[0] != 212 && p[0] != 213) {
        pt_stop(w, PT_NOT_IP);
    } else if (!pt_has(w, type_at + 4)) {
        pt_stop(w, PT_TRUNCATED);
    } else if (p[1] && !(p[1] & 1)) { /* a later fragment */
        pt_stop(w, PT_NOT_IP);
    } else {
        pt_skip(w, type_at + 4, p[0] == 212 ? PT_TYPE_IPV4 : PT_TYPE_ARP);
    }
}

/* Linux cooked capture, versions 1 and 2: an EtherType, or 4 for LLC, at a fixed place. */
static inline void pt_linux_cooked(pt_walk *w, uint32_t type_at, uint32_t length)
{
    uint16_t type;
    if (!pt_has(w, length)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    type = pt_net16(w->p + w->at + type_at);
    pt_skip(w, length, type == 4 ? PT_TYPE_LLC : pt_known_type(type));
}

/* Link types: https://www.tcpdump.org/linktypes.html. The table in linktype.py says which ones are located. */
static inline void pt_link_layer(pt_walk *w, uint16_t linktype)
{
    switch (linktype) {
    case 1: pt_ethernet(w); break;
    case 12: case 14: case 101: case 228: case 229: w->type = PT_TYPE_RAW_IP; break;
    case 0: case 108: pt_loopback(w); break;
    case 113: pt_linux_cooked(w, 14, 16); break;
    case 276: pt_linux_cooked(w, 0, 20); break;
    case 9: case 50: pt_ppp(w); break;
    case 204:
        pt_skip(w, 1, 0);
        pt_ppp(w);
        break;
    case 51: pt_skip(w, 0, PT_TYPE_PPPOE); break;
    case 104: pt_ethertype(w, 4); break;
    case 105: case 119: case 127: case 163: case 192: pt_monitor(w, linktype); break;
    case 10: pt_skip(w, 13, PT_TYPE_LLC); break;
    case 100: pt_skip(w, 0, PT_TYPE_LLC); break;
    case 107: pt_frame_relay(w); break;
    case 129: pt_arcnet(w, 4); break;
    case 7: pt_arcnet(w, 2); break;
    case 239: pt_nflog(w); break;
    case 242: pt_ethertype(w, 42); w->at += 2; break; /* IP over InfiniBand: type, then 2 reserved bytes */
    case 109: pt_skip(w, 12, PT_TYPE_RAW_IP); break; /* OpenBSD enc */
    case 219: pt_skip(w, 0, PT_TYPE_MPLS); break;
    default: pt_stop(w, PT_NOT_IP);
    }
}

/* MPLS label stack: RFC 3032; a pseudowire with control word (RFC 4448) carries Ethernet. */
static inline void pt_mpls(pt_walk *w)
{
    uint8_t nibble;
    for (int labels = 0; labels < PT_MAX_SHIM; labels++) {
        int bottom;
        if (!pt_has(w, 4)) {
            pt_stop(w, PT_TRUNCATED);
            return;
        }
        bottom = w->p[w->at + 2] & 1;
        w->at += 4;
        if (bottom) break;
    }
    if (!pt_has(w, 1)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    nibble = w->p[w->at] >> 4;
    if (nibble == 4 || nibble == 6) {
        w->type = PT_TYPE_RAW_IP;
    } else if (nibble == 0 && pt_has(w, 4)) {
        w->at += 4;
        pt_ethernet(w);
    } else {
        pt_stop(w, PT_NOT_IP);
    }
}

/* PPPoE session: RFC 2516. */
static inline void pt_pppoe(pt_walk *w)
{
    if (!pt_has(w, 6)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    if (w->p[w->at] != 0x11 || w->p[w->at + 1] != 0) {
        pt_stop(w, PT_NOT_IP);
        return;
    }
    w->at += 6;
    pt_ppp(w);
}

/* From a type to the network header behind all tags, labels and shims. */
static inline void pt_shims(pt_walk *w)
{
    for (int steps = 0; steps < PT_MAX_SHIM; steps++) {
        switch (w->type) {
        case PT_TYPE_VLAN: case PT_TYPE_QINQ: case PT_TYPE_OLD_QINQ: pt_ethertype(w, 4); break;
        case PT_TYPE_LLC: pt_llc(w); break;
        case PT_TYPE_MPLS: case PT_TYPE_MPLS_MULTICAST: pt_mpls(w); break;
        case PT_TYPE_PPPOE: pt_pppoe(w); break;
        case PT_TYPE_PPP: pt_ppp(w); break;
        case PT_TYPE_TEB: pt_ethernet(w); break;
        default: return;
        }
    }
    pt_stop(w, PT_MALFORMED);
}

static inline int pt_layer_status(pt_layer *l, int status)
{
    l->status = (uint8_t)status;
    return status;
}

/* LSRR or SSRR (RFC 791) that has not reached its last address. */
static inline int pt_ipv4_routed(const uint8_t *p, uint32_t options)
{
    uint32_t at = 20, end = 20 + options;
    while (at + 1 < end) {
        uint8_t kind = p[at], length = p[at + 1];
        if (kind == 0) break;
        if (kind == 1) {
            at++;
            continue;
        }
        if (length < 2 || at + length > end) break;
        if ((kind == 131 || kind == 137) && length >= 7) return p[at + 2] + 3u <= length;
        at += length;
    }
    return 0;
}

/* Bytes of the extension header at p, and what follows it. */
static inline uint32_t pt_ipv6_extension_size(const uint8_t *p, uint8_t kind, uint8_t *next)
{
    *next = p[0];
    return kind == PT_FRAGMENT_HEADER ? 8 : kind == PT_AH ? (p[1] + 2u) * 4 : (p[1] + 1u) * 8;
}

/* Steps over an authentication header (RFC 4302) of IPv4. */
static inline int pt_ipv4_ah(pt_walk *w, pt_layer *l)
{
    uint32_t size;
    uint8_t next;
    if (w->at + 8 > l->end) return pt_layer_status(l, PT_BAD_LENGTH);
    if (!pt_has(w, 8)) return pt_layer_status(l, PT_TRUNCATED);
    size = pt_ipv6_extension_size(w->p + w->at, PT_AH, &next);
    if (w->at + size > l->end) return pt_layer_status(l, PT_BAD_LENGTH);
    if (!pt_has(w, size)) return pt_layer_status(l, PT_TRUNCATED);
    l->protocol = next;
    w->at += size;
    return PT_OK;
}

/* RFC 791. Fills l, and leaves the walk at the transport header. */
static inline int pt_ipv4(pt_walk *w, pt_layer *l)
{
    const uint8_t *p = w->p + w->at;
    uint32_t header, length, fragment;
    l->version = 4;
    if (!pt_has(w, 20)) return pt_layer_status(l, PT_TRUNCATED);
    header = (p[0] & 15u) * 4;
    length = pt_net16(p + 2);
    fragment = pt_net16(p + 6);
    l->protocol = p[9];
    if (p[0] >> 4 != 4 || header < 20) return pt_layer_status(l, PT_MALFORMED);
    if (length == 0) {
        l->flags |= PT_NO_LENGTH;
        l->end = w->wirelen;
    } else {
        l->end = l->ip + length;
    }
    if (fragment & 0x3fff) l->flags |= PT_FRAGMENT;
    if (l->end < l->ip + header) return pt_layer_status(l, PT_BAD_LENGTH);
    if (!pt_has(w, header)) return pt_layer_status(l, PT_TRUNCATED);
    if (header > 20 && pt_ipv4_routed(p, header - 20)) l->flags |= PT_ROUTED;
    w->at += header;
    if (fragment & 0x1fff) return pt_layer_status(l, PT_LATER_FRAGMENT);
    if (l->protocol == PT_AH && pt_ipv4_ah(w, l) != PT_OK) return l->status;
    l->transport = w->at;
    return pt_layer_status(l, l->end > w->wirelen ? PT_BAD_LENGTH : PT_OK);
}

/* Extension headers: RFC 8200 section 4, RFC 4302 (AH), RFC 6275, RFC 7401, RFC 5533. */
static inline int pt_ipv6_extension(uint8_t next)
{
    return next == 0 || next == PT_ROUTING || next == PT_FRAGMENT_HEADER || next == PT_AH || next == 60 || next == 135 ||
           next == 139 || next == 140;
}

/* Whether a routing header of n bytes still leads elsewhere: types 0 (RFC 2460), 2 (RFC 6275), 4 (RFC 8754). */
static inline int pt_ipv6_routed(const uint8_t *p, uint32_t n)
{
    return n >= 24 && p[3] > 0 && (p[2] == 0 || p[2] == 2 || p[2] == 4);
}

static inline int pt_ipv6(pt_walk *w, pt_layer *l)
{
    const uint8_t *p = w->p + w->at;
    uint32_t length;
    l->version = 6;
    if (!pt_has(w, 40)) return pt_layer_status(l, PT_TRUNCATED);
    if (p[0] >> 4 != 6) return pt_layer_status(l, PT_MALFORMED);
    length = pt_net16(p + 4);
    l->protocol = p[6];
    if (length == 0) {
        l->flags |= PT_NO_LENGTH;
        l->end = w->wirelen < l->ip + 40 ? l->ip + 40 : w->wirelen;
    } else {
        l->end = l->ip + 40 + length;
    }
    w->at += 40;
    for (int headers = 0; pt_ipv6_extension(l->protocol); headers++) {
        uint8_t kind = l->protocol, next;
        uint32_t size;
        if (headers == PT_MAX_SHIM) return pt_layer_status(l, PT_MALFORMED);
        if (w->at + 8 > l->end) return pt_layer_status(l, PT_BAD_LENGTH);
        if (!pt_has(w, 8)) return pt_layer_status(l, PT_TRUNCATED);
        p = w->p + w->at;
        size = pt_ipv6_extension_size(p, kind, &next);
        if (w->at + size > l->end) return pt_layer_status(l, PT_BAD_LENGTH);
        if (!pt_has(w, size)) return pt_layer_status(l, PT_TRUNCATED);
        if (kind == PT_ROUTING && pt_ipv6_routed(p, size)) l->flags |= PT_ROUTED;
        l->protocol = next;
        w->at += size;
        if (kind == PT_FRAGMENT_HEADER) {
            uint16_t fragment = pt_net16(p + 2);
            if (fragment & 0xfff9) l->flags |= PT_FRAGMENT; /* an atomic fragment is a whole packet */
            if (fragment & 0xfff8) return pt_layer_status(l, PT_LATER_FRAGMENT);
        }
    }
    l->transport = w->at;
    return pt_layer_status(l, l->end > w->wirelen ? PT_BAD_LENGTH : PT_OK);
}

/* GRE: RFC 2784, RFC 2890; version 1 is PPTP's (RFC 2637). */
static inline void pt_gre(pt_walk *w)
{
    const uint8_t *p = w->p + w->at;
    uint16_t flags, type;
    uint32_t header = 4;
    if (!pt_has(w, 4)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    flags = pt_net16(p);
    type = pt_net16(p + 2);
    if (flags & 0x4000) { /* source routing, long gone */
        pt_stop(w, PT_NOT_IP);
        return;
    }
    if (flags & 0x8000) header += 4;
    if (flags & 0x2000) header += 4;
    if (flags & 0x1000) header += 4;
    if ((flags & 7) == 1 && flags & 0x0080) header += 4;
    w->at += header;
    w->type = pt_known_type(type);
    if (type == PT_TYPE_ERSPAN2) {
        w->at += flags & 0x1000 ? 8 : 0; /* type I has neither sequence number nor header */
        w->type = PT_TYPE_TEB;
    } else if (type == PT_TYPE_ERSPAN3) {
        if (pt_has(w, 12)) w->at += w->p[w->at + 11] & 1 ? 20 : 12;
        w->type = PT_TYPE_TEB;
    }
}

/* GTP-U: 3GPP TS 29.281; user packets only. */
static inline void pt_gtp(pt_walk *w)
{
    const uint8_t *p = w->p + w->at;
    uint8_t next;
    if (!pt_has(w, 8) || p[0] >> 5 != 1 || !(p[0] & 0x10) || p[1] != 255) {
        pt_stop(w, PT_NOT_IP);
        return;
    }
    if (!(p[0] & 7)) {
        pt_skip(w, 8, PT_TYPE_RAW_IP);
        return;
    }
    if (!pt_has(w, 12)) {
        pt_stop(w, PT_TRUNCATED);
        return;
    }
    next = p[0] & 4 ? p[11] : 0;
    w->at += 12;
    for (int steps = 0; next; steps++) {
        uint32_t size;
        if (steps == PT_MAX_SHIM || !pt_has(w, 4) || w->p[w->at] == 0 || !pt_has(w, w->p[w->at] * 4u)) {
            pt_stop(w, PT_TRUNCATED);
            return;
        }
        size = w->p[w->at] * 4u;
        next = w->p[w->at + size - 1];
        w->at += size;
    }
    w->type = PT_TYPE_RAW_IP;
}

/* Teredo: RFC 4380, authentication and origin before the IPv6 packet, whose length must fit exactly. */
static inline void pt_teredo(pt_walk *w, uint32_t end)
{
    if (pt_has(w, 4) && pt_net16(w->p + w->at) == 1) w->at += 13u + w->p[w->at + 2] + w->p[w->at + 3];
    if (pt_has(w, 8) && pt_net16(w->p + w->at) == 0) w->at += 8;
    if (pt_has(w, 40) && w->p[w->at] >> 4 == 6 && w->at + 40u + pt_net16(w->p + w->at + 4) == end)
        w->type = PT_TYPE_IPV6;
    else
        pt_stop(w, PT_NOT_IP);
}

/* Tunnels over UDP, by their registered ports: VXLAN (RFC 7348), GENEVE (RFC 8926), GTP-U, Teredo. */
static inline void pt_udp_tunnel(pt_walk *w, uint32_t end)
{
    const uint8_t *p = w->p + w->at;
    uint16_t sport, dport;
    if (!pt_has(w, 16)) {
        pt_stop(w, PT_NOT_IP);
        return;
    }
    sport = pt_net16(p);
    dport = pt_net16(p + 2);
    w->at += 8;
    if ((dport == 4789 || dport == 8472) && p[8] & 0x08) {
        pt_skip(w, 8, PT_TYPE_TEB);
    } else if (dport == 6081 && p[8] >> 6 == 0) {
        pt_skip(w, 8 + (p[8] & 63u) * 4, pt_known_type(pt_net16(p + 10)));
    } else if (dport == 2152 || sport == 2152) {
        pt_gtp(w);
    } else if (dport == 3544 || sport == 3544) {
        pt_teredo(w, end);
    } else {
        pt_stop(w, PT_NOT_IP);
    }
}

/* Behind an IP layer: the next header inside a tunnel, or the end of the walk. */
static inline void pt_tunnel(pt_walk *w, const pt_layer *l)
{
    if (l->flags & PT_FRAGMENT) {
        pt_stop(w, PT_NOT_IP);
        return;
    }
    switch (l->protocol) {
    case PT_UDP: pt_udp_tunnel(w, l->end); break;
    case PT_IPIP: w->type = PT_TYPE_IPV4; break;
    case PT_IPV6_IN_IP: w->type = PT_TYPE_IPV6; break;
    case PT_GRE: pt_gre(w); break;
    default: pt_stop(w, PT_NOT_IP);
    }
}

/* The IP header at the walk's place, if there is one. */
static inline int pt_ip_layer(pt_walk *w, pt_layer *l)
{
    int version = 0;
    if (w->type == PT_TYPE_IPV4) version = 4;
    if (w->type == PT_TYPE_IPV6) version = 6;
    if (w->type == PT_TYPE_RAW_IP && pt_has(w, 1)) version = w->p[w->at] >> 4;
    if (version != 4 && version != 6) return 0;
    memset(l, 0, sizeof *l);
    l->ip = l->end = w->at;
    l->transport = PT_NONE;
    if (version == 4) pt_ipv4(w, l);
    else pt_ipv6(w, l);
    return 1;
}

/* All IP layers of a packet, outermost first, into layers[max]. Returns how many; w tells of the link layer. */
static inline uint32_t pt_layers(pt_walk *w, uint16_t linktype, pt_layer *layers, uint32_t max, uint32_t *network,
                                 uint16_t *ethertype)
{
    uint32_t depth = 0;
    pt_link_layer(w, linktype);
    pt_shims(w);
    *network = w->type ? w->at : PT_NONE;
    *ethertype = w->type;
    while (depth < max && w->type && pt_ip_layer(w, &layers[depth])) {
        const pt_layer *l = &layers[depth++];
        if (l->status != PT_OK && l->status != PT_BAD_LENGTH) break;
        if (l->transport == PT_NONE) break;
        pt_tunnel(w, l);
        pt_shims(w);
    }
    return depth;
}

static inline void pt_walk_start(pt_walk *w, const uint8_t *p, uint32_t caplen, uint32_t wirelen)
{
    w->p = p;
    w->caplen = caplen;
    w->wirelen = wirelen < caplen ? caplen : wirelen;
    w->at = 0;
    w->type = 0;
    w->ethernet = PT_NONE;
    w->status = PT_NOT_IP;
}

/* Whether pt_udp_tunnel() may find a tunnel between two ports. */
static inline int pt_tunnel_port(uint16_t sport, uint16_t dport)
{
    return dport == 4789 || dport == 8472 || dport == 6081 || dport == 2152 || sport == 2152 || dport == 3544 ||
           sport == 3544;
}

/* The short way for most packets: Ethernet, IPv4 without options or IPv6 without extension headers, unfragmented, then
 * TCP, UDP or ICMP and no tunnel. Returns 0 for all others; else it tells what the walk would. */
static inline int pt_locate_plain(const uint8_t *p, uint32_t caplen, uint32_t wirelen, pt_where *o)
{
    pt_layer l;
    uint16_t type;
    if (caplen < 34 + 4) return 0;
    type = pt_net16(p + 12);
    l.ip = 14;
    l.flags = 0;
    if (type == PT_TYPE_IPV4) {
        uint32_t length = pt_net16(p + 16);
        if (p[14] != 0x45 || length < 20 || pt_net16(p + 20) & 0x3fff) return 0;
        l.version = 4;
        l.protocol = p[23];
        l.end = 14 + length;
        l.transport = 34;
    } else if (type == PT_TYPE_IPV6) {
        uint32_t length = pt_net16(p + 18);
        if (caplen < 54 + 4 || p[14] >> 4 != 6 || length == 0) return 0;
        l.version = 6;
        l.protocol = p[20];
        l.end = 54 + length;
        l.transport = 54;
    } else {
        return 0;
    }
    if (l.protocol == PT_UDP) {
        if (pt_tunnel_port(pt_net16(p + l.transport), pt_net16(p + l.transport + 2))) return 0;
    } else if (l.protocol != PT_TCP && l.protocol != PT_ICMP && l.protocol != PT_ICMPV6) {
        return 0;
    }
    l.status = l.end > (wirelen < caplen ? caplen : wirelen) ? PT_BAD_LENGTH : PT_OK;
    o->ethernet = 0;
    o->network = 14;
    o->ethertype = type;
    o->status = l.status;
    o->depth = 1;
    o->outer = o->inner = l;
    return 1;
}

/* The long way, for all packets. */
static inline void pt_locate_walk(const uint8_t *p, uint32_t caplen, uint32_t wirelen, uint16_t linktype, pt_where *o)
{
    pt_layer layers[PT_MAX_DEPTH];
    pt_walk w;
    pt_walk_start(&w, p, caplen, wirelen);
    o->depth = (uint8_t)pt_layers(&w, linktype, layers, PT_MAX_DEPTH, &o->network, &o->ethertype);
    o->ethernet = w.ethernet < o->network ? w.ethernet : PT_NONE; /* not one inside a tunnel */
    if (o->depth) {
        o->outer = layers[0];
        o->inner = layers[o->depth - 1];
        o->status = o->outer.status;
        return;
    }
    memset(&o->outer, 0, sizeof o->outer);
    o->outer.ip = o->outer.transport = PT_NONE;
    o->inner = o->outer;
    o->status = o->ethertype ? PT_NOT_IP : w.status;
    o->outer.status = o->inner.status = o->status;
    if (o->ethertype == PT_TYPE_RAW_IP) o->status = w.at < caplen ? PT_MALFORMED : PT_TRUNCATED;
}

static inline void pt_locate_packet(const uint8_t *p, uint32_t caplen, uint32_t wirelen, uint16_t linktype, pt_where *o)
{
    if (linktype != 1 || !pt_locate_plain(p, caplen, wirelen, o)) pt_locate_walk(p, caplen, wirelen, linktype, o);
}

/* Find the headers of records [first, first + n) of a batch. */
static inline void pt_locate_records(const pt_batch *b, uint32_t first, uint32_t n, pt_where *where)
{
    const pt_interface *of = b->interfaces->of;
    for (uint32_t k = 0; k < n; k++) {
        const pt_record *r = &b->record[first + k];
        pt_locate_packet(b->bytes + r->data, r->caplen, r->wirelen, of[r->interface].linktype, &where[k]);
    }
}

/* Records that one pass after another works on while they are in the nearest cache. */
enum { PT_TILE = 32 };

static inline uint32_t pt_tile(const pt_batch *b, uint32_t first) { return b->n - first < PT_TILE ? b->n - first : PT_TILE; }

/* Where the headers of the tile from `first` on are: what the batch knows, or found now, into tile[PT_TILE]. */
static inline const pt_where *pt_tile_where(const pt_batch *b, uint32_t first, pt_where *tile)
{
    if (b->located) return b->where + first;
    pt_locate_records(b, first, pt_tile(b, first), tile);
    return tile;
}

/* Fill b->where. 0: done, -1: no memory. */
static inline int pt_locate(pt_batch *b)
{
    if (b->located) return 0;
    if (b->n > b->where_room) {
        pt_where *where = realloc(b->where, b->room * sizeof *where);
        if (!where) return -1;
        b->where = where;
        b->where_room = b->room;
    }
    if (b->n) pt_locate_records(b, 0, b->n, b->where);
    b->located = 1;
    return 0;
}

#endif
