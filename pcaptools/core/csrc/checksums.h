/* Checksums: verify, recompute, update.
 *
 * Sums are kept in memory order, which one's complement arithmetic allows (RFC 1071 section 2B): nothing is swapped
 * but the few numbers that are not taken from the packet. */
#ifndef PT_CHECKSUMS_H
#define PT_CHECKSUMS_H

#include "fcs.h"

/* What can be said of one checksum. */
enum pt_sum {
    PT_SUM_RIGHT,
    PT_SUM_WRONG,
    PT_SUM_NONE,       /* the protocol has none, or the sender left it out (UDP over IPv4) */
    PT_SUM_FRAGMENT,   /* covers more than this fragment */
    PT_SUM_SNAPPED,    /* covers more than was captured */
    PT_SUM_MALFORMED,  /* its headers contradict themselves */
    PT_SUMS
};

/* A sum in 16 bits; 0 only for 0. Adding a number to itself with its halves exchanged leaves in the upper half the sum
 * of the halves with the carry taken around. */
static inline uint16_t pt_fold(uint64_t sum)
{
    uint32_t half;
    sum += sum << 32 | sum >> 32;
    half = (uint32_t)(sum >> 32);
    half += half << 16 | half >> 16;
    return (uint16_t)(half >> 16);
}

static inline uint16_t pt_hton16(uint16_t v)
{
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    memcpy(&v, b, 2);
    return v;
}

/* Four 32-bit lanes: what a compiler turns into vector instructions wherever there are any. */
#if defined(__GNUC__)
typedef uint32_t pt_lanes __attribute__((vector_size(16)));
#endif

enum { PT_SUM_CHUNK = 1 << 16 }; /* bytes that the lanes can take without overflow, and a few more */

/* One's complement sum of n bytes, a multiple of 32 and at most PT_SUM_CHUNK. */
static inline uint64_t pt_sum_lanes(const uint8_t *p, size_t n)
{
#if defined(__GNUC__)
    pt_lanes even = {0}, odd = {0};
    for (; n; p += 32, n -= 32) {
        pt_lanes v, w;
        memcpy(&v, p, 16);
        memcpy(&w, p + 16, 16);
        even += (v & 0xffff) + (v >> 16);
        odd += (w & 0xffff) + (w >> 16);
    }
    return (uint64_t)even[0] + even[1] + even[2] + even[3] + odd[0] + odd[1] + odd[2] + odd[3];
#else
    uint64_t sum = 0;
    for (; n; p += 4, n -= 4) sum += pt_get32(p, 0);
    return sum;
#endif
}

/* One's complement sum of n bytes, unfolded; n below 2^32. */
static inline uint64_t pt_sum_bytes(const uint8_t *p, size_t n)
{
    uint64_t sum = 0, wide = 0, word;
    uint32_t w;
    uint16_t narrow;
    while (n >= 64) {
        size_t part = n < PT_SUM_CHUNK ? n & ~(size_t)31 : PT_SUM_CHUNK;
        sum += pt_sum_lanes(p, part);
        p += part;
        n -= part;
    }
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        wide += word;
        wide += wide < word; /* the carry, taken around */
    }
    sum += (wide & 0xffffffffu) + (wide >> 32);
    if (n & 4) {
        memcpy(&w, p, 4);
        sum += w;
        p += 4;
    }
    if (n & 2) {
        memcpy(&narrow, p, 2);
        sum += narrow;
        p += 2;
    }
    if (n & 1) {
        narrow = 0;
        memcpy(&narrow, p, 1);
        sum += narrow;
    }
    return sum;
}

/* Whether a zero in the field means "none", so that a sum of zero is sent as its other form (RFC 768, RFC 3828). */
static inline int pt_zero_is_none(const pt_layer *l) { return l->protocol == PT_UDP || l->protocol == PT_UDPLITE; }

/* RFC 1624, equation 3: the change of a sum when bytes change. n is even, at an even place of what is summed. */
static inline uint64_t pt_delta(const uint8_t *old, const uint8_t *new, uint32_t n)
{
    uint64_t sum = 0;
    uint32_t k = 0;
    for (; k + 4 <= n; k += 4) {
        uint32_t a, b;
        memcpy(&a, old + k, 4);
        memcpy(&b, new + k, 4);
        sum += (uint64_t)(uint32_t)~a + b;
    }
    for (; k < n; k += 2) {
        uint16_t a, b;
        memcpy(&a, old + k, 2);
        memcpy(&b, new + k, 2);
        sum += (uint64_t)(uint16_t)~a + b;
    }
    return sum;
}

/* Update the checksum at field: right stays right, wrong stays wrong. Returns the field's own change. */
static inline uint64_t pt_update(uint8_t *field, uint64_t delta, int zero_is_none)
{
    uint16_t old, new;
    memcpy(&old, field, 2);
    if (zero_is_none && old == 0) return 0;
    new = (uint16_t)~pt_fold((uint16_t)~old + delta);
    if (zero_is_none && new == 0) new = 0xffff;
    memcpy(field, &new, 2);
    return (uint64_t)(uint16_t)~old + new;
}

/* Offset of the address that a pseudo header takes as the destination: behind a source route, its last address. */
static inline uint32_t pt_final_destination(const uint8_t *p, const pt_layer *l)
{
    uint32_t at = l->ip + (l->version == 4 ? 16 : 24);
    if (!(l->flags & PT_ROUTED)) return at;
    if (l->version == 4) {
        uint32_t option = l->ip + 20, end = l->ip + (p[l->ip] & 15u) * 4;
        while (option + 1 < end && p[option] != 131 && p[option] != 137) {
            if (p[option] == 0) return at;
            option += p[option] == 1 ? 1 : p[option + 1] < 2 ? end : p[option + 1];
        }
        return option + 1 < end ? option + p[option + 1] - 4 : at;
    }
    for (uint32_t header = l->ip + 40, kind = p[l->ip + 6]; header + 8 <= l->transport;) {
        uint8_t next;
        uint32_t size = pt_ipv6_extension_size(p + header, (uint8_t)kind, &next);
        if (kind == PT_ROUTING && pt_ipv6_routed(p + header, size))
            return p[header + 2] == 0 ? header + 8 + ((size - 8) / 16 - 1) * 16 : header + 8;
        kind = next;
        header += size;
    }
    return at;
}

/* Pseudo header: RFC 9293 section 3.1, RFC 8200 section 8.1. */
static inline uint64_t pt_pseudo_header(const uint8_t *p, const pt_layer *l, uint32_t length)
{
    uint32_t size = l->version == 4 ? 4 : 16;
    uint64_t sum = pt_sum_bytes(p + l->ip + (l->version == 4 ? 12 : 8), size);
    sum += pt_sum_bytes(p + pt_final_destination(p, l), size);
    return sum + pt_hton16(l->protocol) + pt_hton16((uint16_t)length) + pt_hton16((uint16_t)(length >> 16));
}

/* Offset of the checksum in a transport header whose pseudo header holds the addresses; 0: it holds none. */
static inline uint32_t pt_pseudo_field(const pt_layer *l)
{
    switch (l->protocol) {
    case PT_TCP: return 16;
    case PT_UDP: case PT_UDPLITE: case PT_DCCP: return 6;
    case PT_ICMPV6: return l->version == 6 ? 2 : 0;
    case PT_OSPF: return l->version == 6 ? 12 : 0;
    case PT_PIM: return l->version == 6 ? 2 : 0;
    }
    return 0;
}

/* What a transport checksum covers. */
typedef struct {
    uint32_t field;   /* offset of the checksum in the packet */
    uint32_t length;  /* bytes covered, from the transport header on */
    uint32_t pseudo;  /* length in the pseudo header; 0: there is none */
} pt_span;

/* PT_SUM_RIGHT when s is filled and covers captured bytes only, else why it cannot be computed. */
static inline int pt_transport_span(const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_span *s)
{
    uint32_t at = l->transport, length, least = 8;
    if (l->status == PT_LATER_FRAGMENT) return PT_SUM_FRAGMENT;
    if (at == PT_NONE) return l->status == PT_TRUNCATED ? PT_SUM_SNAPPED : PT_SUM_MALFORMED;
    length = l->end - at;
    switch (l->protocol) {
    case PT_ICMP: case 2: s->field = 2; break;
    case PT_TCP: s->field = 16; least = 20; break;
    case PT_UDP: case PT_UDPLITE: s->field = 6; break;
    case PT_ICMPV6: s->field = 2; least = 4; break;
    case PT_OSPF: s->field = 12; least = 16; break;
    case PT_SCTP: s->field = 8; least = 12; break;
    default: return PT_SUM_NONE;
    }
    s->pseudo = pt_pseudo_field(l) ? length : 0;
    if (!s->pseudo && (l->protocol == PT_ICMPV6 || l->protocol == PT_OSPF)) return PT_SUM_NONE;
    if (l->version == 6 && (l->protocol == PT_ICMP || l->protocol == 2)) return PT_SUM_NONE;
    if (l->flags & PT_FRAGMENT) return PT_SUM_FRAGMENT;
    if (length < least) return PT_SUM_MALFORMED;
    if (l->status == PT_BAD_LENGTH) return PT_SUM_MALFORMED;
    s->field += at;
    s->length = length;
    if (l->protocol == PT_UDP || l->protocol == PT_UDPLITE) {
        uint32_t said;
        if (caplen < at + 8) return PT_SUM_SNAPPED;
        if (l->protocol == PT_UDP && l->version == 4 && p[at + 6] == 0 && p[at + 7] == 0) return PT_SUM_NONE;
        said = pt_net16(p + at + 4);
        if (said == 0 && (l->protocol == PT_UDPLITE || l->flags & PT_NO_LENGTH)) said = length;
        if (said < 8 || said > length) return PT_SUM_MALFORMED;
        s->length = said;
        if (l->protocol == PT_UDP) s->pseudo = said;
    }
    return caplen < at + s->length ? PT_SUM_SNAPPED : PT_SUM_RIGHT;
}

/* The right value of the checksum at s->field, in memory order: 2 bytes, or 4 for SCTP. */
static inline uint32_t pt_transport_checksum(const uint8_t *p, const pt_layer *l, const pt_span *s)
{
    uint64_t sum;
    uint16_t field, value;
    if (l->protocol == PT_SCTP) {
        static const uint8_t zero[4];
        uint32_t crc = pt_crc(PT_CRC32C, ~0u, p + l->transport, 8);
        uint8_t bytes[4];
        crc = ~pt_crc(PT_CRC32C, pt_crc(PT_CRC32C, crc, zero, 4), p + l->transport + 12, s->length - 12);
        for (int k = 0; k < 4; k++) bytes[k] = (uint8_t)(crc >> 8 * k);
        memcpy(&crc, bytes, 4);
        return crc;
    }
    memcpy(&field, p + s->field, 2);
    sum = pt_sum_bytes(p + l->transport, s->length) + (uint16_t)~field; /* the field itself counts as zero */
    if (s->pseudo) sum += pt_pseudo_header(p, l, s->pseudo);
    value = (uint16_t)~pt_fold(sum);
    if (value == 0 && pt_zero_is_none(l)) value = 0xffff;
    return value;
}

/* Verify the transport checksum of a layer; with fix, set it right. Returns what it was: enum pt_sum. */
static inline int pt_transport_sum(uint8_t *p, uint32_t caplen, const pt_layer *l, int fix)
{
    pt_span s;
    uint32_t value, size = l->protocol == PT_SCTP ? 4 : 2;
    int verdict = pt_transport_span(p, caplen, l, &s);
    if (verdict != PT_SUM_RIGHT) return verdict;
    value = pt_transport_checksum(p, l, &s);
    if (size == 2) {
        uint16_t narrow = (uint16_t)value;
        if (!memcmp(p + s.field, &narrow, 2)) return PT_SUM_RIGHT;
        if (fix) memcpy(p + s.field, &narrow, 2);
        return PT_SUM_WRONG;
    }
    if (!memcmp(p + s.field, &value, 4)) return PT_SUM_RIGHT;
    if (fix) memcpy(p + s.field, &value, 4);
    return PT_SUM_WRONG;
}

/* The same for the IPv4 header checksum. */
static inline int pt_header_sum(uint8_t *p, uint32_t caplen, const pt_layer *l, int fix)
{
    uint8_t *header = p + l->ip;
    uint32_t length;
    uint16_t field, value;
    if (l->version != 4) return PT_SUM_NONE;
    if (caplen < l->ip + 20) return PT_SUM_SNAPPED;
    length = (header[0] & 15u) * 4;
    if (l->status == PT_MALFORMED) return PT_SUM_MALFORMED;
    if (caplen < l->ip + length) return PT_SUM_SNAPPED;
    memcpy(&field, header + 10, 2);
    value = (uint16_t)~pt_fold(pt_sum_bytes(header, length) + (uint16_t)~field);
    if (value == field) return PT_SUM_RIGHT;
    if (fix) memcpy(header + 10, &value, 2);
    return PT_SUM_WRONG;
}

/* How many checksums were found so; with fix, the wrong ones are right afterwards. */
typedef struct {
    uint64_t header[PT_SUMS], transport[PT_SUMS];
} pt_sum_counts;

static inline int pt_layer_sums(uint8_t *p, uint32_t caplen, const pt_layer *l, int fix, pt_sum_counts *counts)
{
    int transport = pt_transport_sum(p, caplen, l, fix), header = pt_header_sum(p, caplen, l, fix);
    counts->transport[transport]++;
    counts->header[header]++;
    return transport == PT_SUM_WRONG || header == PT_SUM_WRONG;
}

/* The short way for most packets: whether both checksums of an IPv4 packet without options that carries TCP or UDP,
 * whole, are there and right. Where it says no, they need a closer look. */
static inline int pt_plainly_right(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    const uint8_t *ip = p + l->ip, *at = p + l->transport;
    const int udp = l->protocol == PT_UDP;
    const uint32_t length = l->end - l->transport;
    uint32_t w[5];
    uint64_t addresses, sum;
    uint16_t field;
    if (l->version != 4 || l->flags || l->status != PT_OK || l->transport != l->ip + 20 || caplen < l->end) return 0;
    if (udp ? length < 8 || pt_net16(at + 4) != length : l->protocol != PT_TCP || length < 20) return 0;
    memcpy(w, ip, 20);
    addresses = (uint64_t)w[3] + w[4];
    memcpy(&field, ip + 10, 2);
    if (field == 0xffff || pt_fold(addresses + w[0] + w[1] + w[2]) != 0xffff) return 0;
    memcpy(&field, at + (udp ? 6 : 16), 2);
    if (field == (udp ? 0 : 0xffff)) return 0; /* the other form of zero */
    sum = addresses + pt_hton16(l->protocol) + pt_hton16((uint16_t)length) + pt_sum_bytes(at, length);
    return pt_fold(sum) == 0xffff;
}

/* All layers of a packet, innermost first, since an outer checksum covers the inner ones. Returns: any wrong. */
static inline int pt_packet_sums(uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o, int fix,
                                 pt_sum_counts *counts)
{
    pt_layer layers[PT_MAX_DEPTH];
    const pt_layer *all = &o->outer;
    uint32_t depth = o->depth;
    int wrong = 0;
    if (depth == 1) return pt_layer_sums(p, r->caplen, &o->outer, fix, counts);
    if (depth > 1) {
        uint32_t network;
        uint16_t ethertype;
        pt_walk w;
        pt_walk_start(&w, p, r->caplen, r->wirelen);
        depth = pt_layers(&w, linktype, layers, PT_MAX_DEPTH, &network, &ethertype);
        all = layers;
    }
    while (depth--) wrong |= pt_layer_sums(p, r->caplen, &all[depth], fix, counts);
    return wrong;
}

/* The same with the frame check sequence, which covers them all. */
static inline int pt_frame_sums(uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o, int fix,
                                pt_sum_counts *counts)
{
    const uint32_t frame = fix ? pt_fcs_find(p, r, linktype, o) : PT_NONE;
    const int wrong = pt_packet_sums(p, r, linktype, o, fix, counts);
    if (wrong) pt_fcs_follow(p, r->caplen, frame);
    return wrong;
}

/* Verify, or with fix recompute, every checksum of records [first, first + n), whose headers are known. */
static inline void pt_record_sums(pt_batch *b, const pt_where *where, uint32_t first, uint32_t n, int fix,
                                  pt_sum_counts *counts)
{
    uint64_t right = 0;
    for (uint32_t k = 0; k < n; k++) {
        pt_record *r = &b->record[first + k];
        const pt_where *o = &where[k];
        uint8_t *p = b->bytes + r->data;
        if (PT_LIKELY(o->depth == 1) && pt_plainly_right(p, r->caplen, &o->outer)) right++;
        else if (o->depth && pt_frame_sums(p, r, b->interfaces->of[r->interface].linktype, o, fix, counts) && fix)
            r->flags |= PT_EDITED;
    }
    counts->transport[PT_SUM_RIGHT] += right;
    counts->header[PT_SUM_RIGHT] += right;
}

/* The same for all records of a batch. */
static inline void pt_batch_sums(pt_batch *b, int fix, pt_sum_counts *counts)
{
    pt_where tile[PT_TILE];
    for (uint32_t first = 0; first < b->n; first += PT_TILE)
        pt_record_sums(b, pt_tile_where(b, first, tile), first, pt_tile(b, first), fix, counts);
}

#endif
