/* Checksums: verify, recompute, update.
 *
 * Sums are kept in memory order, which one's complement arithmetic allows (RFC 1071 section 2B): nothing is swapped
 * but the few numbers that are not taken from the packet. */
#ifndef PT_CHECKSUMS_H
#define PT_CHECKSUMS_H

#include "headers.h"

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

static inline uint16_t pt_fold(uint64_t sum)
{
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint16_t pt_hton16(uint16_t v)
{
    uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    memcpy(&v, b, 2);
    return v;
}

/* One's complement sum of n bytes, unfolded; n below 2^32. */
static inline uint64_t pt_sum_bytes(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    uint32_t last = 0;
    for (; n >= 64; p += 64, n -= 64) {
        uint32_t w[16];
        uint64_t part = 0;
        memcpy(w, p, 64);
        for (int k = 0; k < 16; k++) part += w[k];
        sum += part;
    }
    for (; n >= 4; p += 4, n -= 4) {
        uint32_t w;
        memcpy(&w, p, 4);
        sum += w;
    }
    memcpy(&last, p, n);
    return sum + last;
}

/* CRC32c (RFC 3309, Castagnoli), as it stands in an SCTP packet's checksum field. */
static inline uint32_t pt_crc32c(uint32_t crc, const uint8_t *p, size_t n)
{
    static uint32_t table[256];
    static volatile int ready; /* filling it twice at once writes the same values */
    if (!ready) {
        for (uint32_t k = 0; k < 256; k++) {
            uint32_t v = k;
            for (int bit = 0; bit < 8; bit++) v = v & 1 ? v >> 1 ^ 0x82f63b78u : v >> 1;
            table[k] = v;
        }
        ready = 1;
    }
    while (n--) crc = table[(crc ^ *p++) & 0xff] ^ crc >> 8;
    return crc;
}

/* Whether a zero in the field means "none", so that a sum of zero is sent as its other form (RFC 768, RFC 3828). */
static inline int pt_zero_is_none(const pt_layer *l) { return l->protocol == PT_UDP || l->protocol == PT_UDPLITE; }

/* RFC 1624, equation 3: the change of a sum when bytes change. n is even, at an even place of what is summed. */
static inline uint64_t pt_delta(const uint8_t *old, const uint8_t *new, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t k = 0; k < n; k += 2) {
        uint16_t a, b;
        memcpy(&a, old + k, 2);
        memcpy(&b, new + k, 2);
        sum += (uint16_t)~a;
        sum += b;
    }
    return sum;
}

/* Update the checksum at field: right stays right, wrong stays wrong. Returns the field's own change. */
static inline uint64_t pt_update(uint8_t *field, uint64_t delta, int zero_is_none)
{
    uint16_t old, new;
    memcpy(&old, field, 2);
    if (zero_is_none && old == 0) return 0;
    new = (uint16_t)~pt_fold((uint16_t)~old + (uint64_t)pt_fold(delta));
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
        uint32_t crc = pt_crc32c(~0u, p + l->transport, 8);
        uint8_t bytes[4];
        crc = ~pt_crc32c(pt_crc32c(crc, zero, 4), p + l->transport + 12, s->length - 12);
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

/* Verify, or with fix recompute, every checksum of a located batch. */
static inline void pt_batch_sums(pt_batch *b, int fix, pt_sum_counts *counts)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        uint16_t linktype = b->interfaces->of[r->interface].linktype;
        if (b->where[k].depth && pt_packet_sums(b->bytes + r->data, r, linktype, &b->where[k], fix, counts) && fix)
            r->flags |= PT_EDITED;
    }
}

#endif
