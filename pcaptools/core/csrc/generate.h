/* Packets that are made here: random numbers, frames with right checksums, and a SYN flood.
 *
 * Integer arithmetic only: the same seed gives the same packets on every machine. Sums are kept as numbers in network
 * byte order here, because most of what is summed is numbers (RFC 1071). */
#ifndef PT_GENERATE_H
#define PT_GENERATE_H

#include "checksums.h"
#include "convert.h"

enum {
    PT_LINK_ROOM = 64,    /* bytes of a link layer header, at most */
    PT_FRAME_ROOM = 1700, /* bytes of a record that is made here, at most: link header, 1500 bytes of IP, padding */
    PT_RECORD_HEADER = 16,
    PT_MTU = 1500,
    PT_TTL = 64,
};

/* ---- random numbers --------------------------------------------------------------------------------------- */

/* xoshiro256** (D. Blackman, S. Vigna: Scrambled linear pseudorandom number generators, 2021). */
typedef struct {
    uint64_t s[4];
} pt_random;

/* splitmix64 (the same authors): a step of a counter that is well mixed. */
static inline uint64_t pt_scrambled(uint64_t v)
{
    v += 0x9e3779b97f4a7c15u;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

static inline void pt_seed(pt_random *r, uint64_t seed)
{
    for (int k = 0; k < 4; k++) r->s[k] = pt_scrambled(seed + (uint64_t)k * 0x9e3779b97f4a7c15u);
}

static inline uint64_t pt_rotated(uint64_t v, int by) { return v << by | v >> (64 - by); }

static inline uint64_t pt_next(pt_random *r)
{
    uint64_t *s = r->s, result = pt_rotated(s[1] * 5, 7) * 9, moved = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= moved;
    s[3] = pt_rotated(s[3], 45);
    return result;
}

/* A number below n, which is 1 or more. */
static inline uint32_t pt_below(pt_random *r, uint32_t n) { return (uint32_t)((pt_next(r) >> 32) * n >> 32); }

/* Whether something of this probability, in 2^-32, happens. */
static inline int pt_happens(pt_random *r, uint64_t probability) { return pt_next(r) >> 32 < probability; }

/* ---- sums ------------------------------------------------------------------------------------------------- */

static inline uint16_t pt_swapped_sum(uint16_t sum) { return (uint16_t)(sum << 8 | sum >> 8); }

/* The sum of n bytes as a number, folded. */
static inline uint32_t pt_number_sum(const uint8_t *p, size_t n) { return pt_hton16(pt_fold(pt_sum_bytes(p, n))); }

static inline uint64_t pt_halves(uint32_t v) { return (v >> 16) + (v & 0xffff); }

static inline void pt_write_net32(uint8_t *p, uint32_t v)
{
    pt_put_net16(p, (uint16_t)(v >> 16));
    pt_put_net16(p + 2, (uint16_t)v);
}

/* ---- frames ----------------------------------------------------------------------------------------------- */

/* What stands in front of an IP packet. */
typedef struct {
    uint8_t bytes[PT_LINK_ROOM];
    uint8_t size;
    uint8_t tag; /* offset of the VLAN tag's number; 0: there is none */
} pt_link;

/* What all generators have in common. */
typedef struct {
    pt_interfaces interfaces; /* exactly one */
    pt_random random;
    int64_t start;            /* time of the first packet, ns since the epoch */
    uint32_t least;           /* frames are padded to so many bytes */
    uint8_t nanoseconds;
} pt_maker;

/* Make a batch ready for classic pcap records in host byte order. */
static inline void pt_make_begin(const pt_maker *m, pt_batch *b)
{
    b->n = 0;
    b->used = b->filled = 0;
    b->format = PT_PCAP;
    b->swapped = b->swapped_lengths = b->located = 0;
    b->nanoseconds = m->nanoseconds;
    b->header = PT_RECORD_HEADER;
    b->interfaces = &m->interfaces;
}

static inline int pt_make_room(const pt_batch *b) { return b->capacity - b->used >= PT_FRAME_ROOM; }

/* Write the link layer of the next frame; returns where the IP packet goes. The batch has the room. */
static inline uint8_t *pt_make_frame(pt_batch *b, const pt_link *l)
{
    uint8_t *p = b->bytes + b->used + PT_RECORD_HEADER;
    memcpy(p, l->bytes, PT_LINK_ROOM); /* a fixed size is one the compiler unrolls */
    return p + l->size;
}

/* The frame's IP packet has so many bytes: add the record. time: ns after the start. Returns the bytes of the frame. */
static inline uint32_t pt_make_record(const pt_maker *m, pt_batch *b, const pt_link *l, uint32_t ip_bytes, int64_t time)
{
    uint32_t size = l->size + ip_bytes;
    uint8_t *p = b->bytes + b->used;
    pt_record *r = pt_add_record(b);
    if (!r) return 0;
    if (size < m->least) {
        memset(p + PT_RECORD_HEADER + size, 0, m->least - size);
        size = m->least;
    }
    time += m->start;
    if (!m->nanoseconds) time -= time % 1000;
    pt_put_record_header(p, time, size, size, m->nanoseconds);
    r->time = time;
    r->start = (uint32_t)b->used;
    r->data = r->start + PT_RECORD_HEADER;
    r->caplen = r->wirelen = size;
    r->end = r->data + size;
    r->interface = 0;
    r->flags = r->reason = 0;
    b->used = b->filled = r->end;
    return size;
}

/* RFC 791: no options, do not fragment. length: of the whole packet. */
static inline void pt_put_ipv4(uint8_t *p, uint32_t length, uint16_t ident, uint8_t protocol, uint32_t source,
                               uint32_t target)
{
    uint64_t sum = 0x4500 + length + ident + 0x4000 + (PT_TTL << 8 | protocol) + pt_halves(source) + pt_halves(target);
    pt_put_net16(p, 0x4500);
    pt_put_net16(p + 2, (uint16_t)length);
    pt_put_net16(p + 4, ident);
    pt_put_net16(p + 6, 0x4000);
    p[8] = PT_TTL;
    p[9] = protocol;
    pt_put_net16(p + 10, (uint16_t)~pt_fold(sum));
    pt_write_net32(p + 12, source);
    pt_write_net32(p + 16, target);
}

/* RFC 8200: no extension headers. length: of what follows the header. */
static inline void pt_put_ipv6(uint8_t *p, uint32_t length, uint8_t protocol, const uint8_t *source,
                               const uint8_t *target)
{
    pt_write_net32(p, 0x60000000);
    pt_put_net16(p + 4, (uint16_t)length);
    p[6] = protocol;
    p[7] = PT_TTL;
    memcpy(p + 8, source, 16);
    memcpy(p + 24, target, 16);
}

enum { PT_FIN = 1, PT_SYN = 2, PT_RST = 4, PT_PSH = 8, PT_ACK = 16 };

/* A TCP header's fields (RFC 9293). sum: of addresses, ports, protocol, and of what follows the 20 bytes. */
typedef struct {
    uint16_t sport, dport, window;
    uint32_t seq, ack;
    uint8_t flags, words; /* words: of 32 bits, options included */
    uint64_t sum;
} pt_tcp;

/* length: header and payload. */
static inline void pt_put_tcp(uint8_t *p, const pt_tcp *t, uint32_t length)
{
    uint16_t control = (uint16_t)(t->words << 12 | t->flags);
    uint64_t sum = t->sum + length + pt_halves(t->seq) + pt_halves(t->ack) + control + t->window;
    pt_put_net16(p, t->sport);
    pt_put_net16(p + 2, t->dport);
    pt_write_net32(p + 4, t->seq);
    pt_write_net32(p + 8, t->ack);
    pt_put_net16(p + 12, control);
    pt_put_net16(p + 14, t->window);
    pt_put_net16(p + 16, (uint16_t)~pt_fold(sum));
    pt_put_net16(p + 18, 0);
}

/* RFC 768. length: header and payload; sum: of addresses, ports, protocol and payload. */
static inline void pt_put_udp(uint8_t *p, uint16_t sport, uint16_t dport, uint32_t length, uint64_t sum)
{
    uint16_t value = (uint16_t)~pt_fold(sum + length + length); /* it stands in the pseudo header too */
    pt_put_net16(p, sport);
    pt_put_net16(p + 2, dport);
    pt_put_net16(p + 4, (uint16_t)length);
    pt_put_net16(p + 6, value ? value : 0xffff);
}

/* ---- the flood -------------------------------------------------------------------------------------------- */

enum { PT_SYN_OPTIONS = 4, PT_SYN_WINDOW = 64240 };

/* One SYN per source address, then the next port. */
typedef struct {
    pt_maker maker;
    pt_link link;
    uint8_t source[16], target[16]; /* the first source address; IPv4: the first 4 bytes */
    uint64_t addresses;             /* how many source addresses there are, 1 or more */
    uint64_t left;                  /* packets to come */
    uint64_t index;                 /* of the next source address */
    uint64_t whole, part, divisor;  /* from packet to packet: whole + part / divisor ns */
    uint64_t remainder;
    int64_t time;                   /* of the next packet, ns after the start */
    uint32_t port, first_port, last_port; /* the next source port, and their range */
    uint16_t dport, ident;
    uint8_t version;
} pt_flood;

static inline void pt_flood_advance(pt_flood *f)
{
    f->left--;
    f->time += (int64_t)f->whole;
    f->remainder += f->part;
    if (f->remainder >= f->divisor) {
        f->remainder -= f->divisor;
        f->time++;
    }
    if (++f->index < f->addresses) return;
    f->index = 0;
    f->port = f->port == f->last_port ? f->first_port : f->port + 1;
}

/* The source address `index` places behind the first one. */
static inline void pt_flood_source(const pt_flood *f, uint8_t address[16])
{
    uint64_t carry = f->index;
    memcpy(address, f->source, 16);
    for (int k = f->version == 4 ? 3 : 15; carry && k >= 0; k--) {
        carry += address[k];
        address[k] = (uint8_t)carry;
        carry >>= 8;
    }
}

/* IP header around a TCP header with the maximum segment size as its option. Returns the bytes of the IP packet. */
static inline uint32_t pt_flood_packet(pt_flood *f, uint8_t *p, uint64_t random)
{
    static const uint8_t segment_size[2][PT_SYN_OPTIONS] = {{2, 4, 1460 >> 8, 1460 & 255},
                                                              {2, 4, 1440 >> 8, 1440 & 255}};
    const uint32_t v6 = f->version == 6, address = v6 ? 16 : 4, header = v6 ? 40 : 20, length = 20 + PT_SYN_OPTIONS;
    uint8_t source[16];
    pt_tcp t = {.sport = (uint16_t)f->port, .dport = f->dport, .window = PT_SYN_WINDOW, .flags = PT_SYN,
                .words = (20 + PT_SYN_OPTIONS) / 4, .seq = (uint32_t)random};
    pt_flood_source(f, source);
    if (v6) pt_put_ipv6(p, length, PT_TCP, source, f->target);
    else pt_put_ipv4(p, header + length, f->ident++, PT_TCP, pt_net32(source), pt_net32(f->target));
    memcpy(p + header + 20, segment_size[v6], PT_SYN_OPTIONS);
    t.sum = pt_number_sum(source, address) + pt_number_sum(f->target, address) + PT_TCP + t.sport + t.dport +
            pt_number_sum(segment_size[v6], PT_SYN_OPTIONS);
    pt_put_tcp(p + header, &t, length);
    return header + length;
}

/* Fill the batch. 0: done (nothing is left when it holds no record), -1: no memory. */
static inline int pt_flood_fill(pt_flood *f, pt_batch *b)
{
    pt_make_begin(&f->maker, b);
    while (f->left && pt_make_room(b)) {
        uint8_t *p = pt_make_frame(b, &f->link);
        uint32_t length = pt_flood_packet(f, p, pt_next(&f->maker.random));
        if (!pt_make_record(&f->maker, b, &f->link, length, f->time)) return -1;
        pt_flood_advance(f);
    }
    return 0;
}

#endif
