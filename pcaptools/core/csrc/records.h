/* Cutting a stream into whole records: pcap and pcapng.
 *
 * Sources: the PCAP and PCAPNG capture file formats (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng) and, for
 * the modified and the old pcap variants, what libpcap accepts. */
#ifndef PT_RECORDS_H
#define PT_RECORDS_H

#include "batch.h"

enum {
    PT_BLOCK_SECTION = 0x0A0D0D0A,
    PT_BLOCK_INTERFACE = 1,
    PT_BLOCK_OLD_PACKET = 2,
    PT_BLOCK_SIMPLE_PACKET = 3,
    PT_BLOCK_PACKET = 6,
    PT_BYTE_ORDER_MAGIC = 0x1A2B3C4D,
    PT_MAX_BLOCK = 16 << 20,     /* bytes of a block that is no packet */
    PT_MAX_INTERFACES = 1 << 20, /* of all sections together */
};

/* What is wrong at pt_cutter.damage_at; damage_value is the offending number. */
enum pt_damage {
    PT_SOUND,
    PT_TOO_LONG,         /* captured length beyond the limit */
    PT_BAD_BLOCK_LENGTH, /* total length below 12, no multiple of 4, beyond the limit, or unlike its repetition */
    PT_BLOCK_TOO_SHORT,  /* total length too small for the block's fields */
    PT_NO_SECTION,       /* no section header where the first block must be */
    PT_BAD_BYTE_ORDER,   /* section header without a byte-order magic */
    PT_BAD_VERSION,      /* section of an unknown major version */
    PT_NO_INTERFACE,     /* packet of an interface that was not described */
    PT_TOO_MANY_INTERFACES,
    PT_BAD_OPTION,       /* option reaches beyond its block */
    PT_NO_MEMORY,
};

typedef struct {
    pt_interfaces interfaces;
    uint32_t section;       /* index of the current section's first interface */
    uint32_t limit;         /* largest captured length, bytes */
    uint8_t format, swapped, nanoseconds, header, swapped_lengths;
    uint8_t in_section;     /* pcapng: a section header was read */
    uint8_t damage;         /* enum pt_damage */
    size_t damage_at;       /* offset in the batch */
    uint64_t damage_value;
    size_t need;            /* bytes that the record behind the last whole one takes, as far as known */
} pt_cutter;

/* Largest captured length, bytes, by link type: as Wireshark's reader has it. */
static inline uint32_t pt_packet_limit(uint16_t linktype)
{
    switch (linktype) {
    case 189: case 220: case 249: /* USB */
    case 231:                     /* D-Bus */
        return 128u << 20;
    case 279: /* EBHSCR */
        return 32u << 20;
    }
    return 262144;
}

static inline int64_t pt_ticks_to_ns(const pt_interface *i, uint64_t ticks)
{
    unsigned __int128 ns = (unsigned __int128)ticks * i->multiply;
    __int128 total;
    if (i->divide != 1) ns = i->divide ? ns / i->divide : 0;
    total = (__int128)(ns >> i->shift) + (__int128)i->offset * 1000000000;
    if (total > INT64_MAX) return INT64_MAX;
    if (total < INT64_MIN) return INT64_MIN;
    return (int64_t)total;
}

/* if_tsresol: a power of ten, or of two with the high bit set. */
static inline void pt_set_resolution(pt_interface *i, uint8_t resolution)
{
    int power = resolution & 0x7f;
    i->resolution = resolution;
    i->multiply = i->divide = 1;
    i->shift = 0;
    if (resolution & 0x80) {
        i->multiply = 1000000000;
        i->shift = (uint8_t)power;
        return;
    }
    for (; power < 9; power++) i->multiply *= 10;
    for (; power > 9; power--) {
        if (i->divide > UINT64_MAX / 10) {
            i->divide = 0;
            return;
        }
        i->divide *= 10;
    }
}

static inline int pt_damaged(pt_cutter *c, int damage, size_t at, uint64_t value)
{
    c->damage = (uint8_t)damage;
    c->damage_at = at;
    c->damage_value = value;
    return -1;
}

static inline pt_interface *pt_add_interface(pt_interfaces *all)
{
    if (all->n == all->room) {
        uint32_t room = all->room ? all->room * 2 : 8;
        pt_interface *block = malloc((room + 1) * sizeof *block);
        if (!block) return NULL;
        memcpy(block, &all->outgrown, sizeof all->outgrown);
        if (all->n) memcpy(block + 1, all->of, all->n * sizeof *block);
        all->outgrown = block;
        all->of = block + 1;
        all->room = room;
    }
    memset(&all->of[all->n], 0, sizeof *all->of);
    return &all->of[all->n++];
}

static inline void pt_free_interfaces(pt_interfaces *all)
{
    void *block = all->outgrown;
    while (block) {
        void *before;
        memcpy(&before, block, sizeof before);
        free(block);
        block = before;
    }
}

static inline pt_record *pt_add_record(pt_batch *b)
{
    if (PT_UNLIKELY(b->n == b->room) && pt_batch_grow_records(b)) return NULL;
    return &b->record[b->n++];
}

/* Index the whole pcap records of a batch from b->used on. */
static inline int pt_cut_pcap(pt_cutter *c, pt_batch *b)
{
    size_t at = b->used;
    const size_t header = c->header;
    const int swapped = c->swapped;
    const int64_t unit = c->nanoseconds ? 1 : 1000;
    c->need = header;
    while (b->filled - at >= header) {
        const uint8_t *p = b->bytes + at;
        uint32_t caplen = pt_get32(p + 8, swapped), wirelen = pt_get32(p + 12, swapped);
        pt_record *r;
        if (c->swapped_lengths == 2 || (c->swapped_lengths == 1 && caplen > wirelen)) {
            uint32_t t = caplen;
            caplen = wirelen;
            wirelen = t;
        }
        if (PT_UNLIKELY(caplen > c->limit)) return pt_damaged(c, PT_TOO_LONG, at, caplen);
        c->need = header + caplen;
        if (b->filled - at < c->need) break;
        r = pt_add_record(b);
        if (!r) return pt_damaged(c, PT_NO_MEMORY, at, 0);
        r->time = (int64_t)pt_get32(p, swapped) * 1000000000 + (int64_t)pt_get32(p + 4, swapped) * unit;
        r->start = (uint32_t)at;
        r->data = (uint32_t)(at + header);
        r->caplen = caplen;
        r->wirelen = wirelen;
        at += c->need;
        r->end = (uint32_t)at;
        r->interface = 0;
        r->flags = r->reason = 0;
        b->used = at;
        c->need = header;
    }
    return 0;
}

/* The options of an interface description that time stamps need. */
static inline int pt_interface_options(pt_cutter *c, pt_interface *i, const uint8_t *p, size_t n, size_t at)
{
    while (n >= 4) {
        uint16_t code = pt_get16(p, c->swapped), length = pt_get16(p + 2, c->swapped);
        size_t padded = 4 + (((size_t)length + 3) & ~(size_t)3);
        if (code == 0) break;
        if (padded > n) return pt_damaged(c, PT_BAD_OPTION, at, code);
        if (code == 9 && length >= 1) pt_set_resolution(i, p[4]);
        if (code == 14 && length >= 8) i->offset = (int64_t)pt_get64(p + 4, c->swapped);
        p += padded;
        n -= padded;
    }
    return 0;
}

static inline int pt_cut_section(pt_cutter *c, const uint8_t *p, uint32_t total, size_t at)
{
    uint16_t major;
    if (total < 28) return pt_damaged(c, PT_BLOCK_TOO_SHORT, at, total);
    major = pt_get16(p + 12, c->swapped);
    if (major != 1) return pt_damaged(c, PT_BAD_VERSION, at, major);
    c->in_section = 1;
    c->section = c->interfaces.n;
    return 0;
}

static inline int pt_cut_interface(pt_cutter *c, const uint8_t *p, uint32_t total, size_t at)
{
    pt_interface *i;
    if (total < 20) return pt_damaged(c, PT_BLOCK_TOO_SHORT, at, total);
    if (c->interfaces.n >= PT_MAX_INTERFACES) return pt_damaged(c, PT_TOO_MANY_INTERFACES, at, c->interfaces.n);
    i = pt_add_interface(&c->interfaces);
    if (!i) return pt_damaged(c, PT_NO_MEMORY, at, 0);
    i->linktype = pt_get16(p + 8, c->swapped);
    i->snaplen = pt_get32(p + 12, c->swapped);
    pt_set_resolution(i, 6);
    return pt_interface_options(c, i, p + 16, total - 20, at);
}

/* A packet block: enhanced, simple or the obsolete one. */
static inline int pt_cut_packet(pt_cutter *c, pt_batch *b, const uint8_t *p, uint32_t type, uint32_t total, size_t at)
{
    const int swapped = c->swapped;
    const uint32_t header = type == PT_BLOCK_SIMPLE_PACKET ? 12 : 28;
    const pt_interface *i;
    uint32_t interface = 0, caplen, wirelen;
    pt_record *r;
    if (total < header + 4) return pt_damaged(c, PT_BLOCK_TOO_SHORT, at, total);
    if (type == PT_BLOCK_PACKET) interface = pt_get32(p + 8, swapped);
    if (type == PT_BLOCK_OLD_PACKET) interface = pt_get16(p + 8, swapped);
    if (interface >= c->interfaces.n - c->section) return pt_damaged(c, PT_NO_INTERFACE, at, interface);
    interface += c->section;
    i = &c->interfaces.of[interface];
    if (type == PT_BLOCK_SIMPLE_PACKET) {
        wirelen = pt_get32(p + 8, swapped);
        caplen = i->snaplen && i->snaplen < wirelen ? i->snaplen : wirelen;
    } else {
        caplen = pt_get32(p + 20, swapped);
        wirelen = pt_get32(p + 24, swapped);
    }
    c->limit = pt_packet_limit(i->linktype);
    if (caplen > c->limit) return pt_damaged(c, PT_TOO_LONG, at, caplen);
    if (caplen > total - header - 4) return pt_damaged(c, PT_BLOCK_TOO_SHORT, at, total);
    r = pt_add_record(b);
    if (!r) return pt_damaged(c, PT_NO_MEMORY, at, 0);
    r->time = 0;
    if (header == 28)
        r->time = pt_ticks_to_ns(i, (uint64_t)pt_get32(p + 12, swapped) << 32 | pt_get32(p + 16, swapped));
    r->start = (uint32_t)at;
    r->end = (uint32_t)(at + total);
    r->data = (uint32_t)(at + header);
    r->caplen = caplen;
    r->wirelen = wirelen;
    r->interface = interface;
    r->flags = r->reason = 0;
    return 0;
}

/* The byte order of a section. 0: known, 1: more bytes are needed, -1: damaged. */
static inline int pt_section_order(pt_cutter *c, const uint8_t *p, size_t n, size_t at)
{
    uint32_t magic;
    if (n < 12) {
        c->need = 12;
        return 1;
    }
    magic = pt_get32(p + 8, 0);
    if (magic == PT_BYTE_ORDER_MAGIC) c->swapped = 0;
    else if (magic == pt_swap32(PT_BYTE_ORDER_MAGIC)) c->swapped = 1;
    else return pt_damaged(c, PT_BAD_BYTE_ORDER, at, magic);
    return 0;
}

/* Largest sound length of a block, bytes. */
static inline uint32_t pt_block_limit(uint32_t type)
{
    int packet = type == PT_BLOCK_PACKET || type == PT_BLOCK_OLD_PACKET || type == PT_BLOCK_SIMPLE_PACKET;
    return packet ? (128u << 20) + (1u << 20) : (uint32_t)PT_MAX_BLOCK;
}

/* Index the whole pcapng blocks of a batch from b->used on. A batch ends where a section begins: one byte order. */
static inline int pt_cut_pcapng(pt_cutter *c, pt_batch *b)
{
    c->need = 12;
    while (b->filled - b->used >= 8) {
        size_t at = b->used;
        const uint8_t *p = b->bytes + at;
        uint32_t type = pt_get32(p, 0), total;
        int section = type == PT_BLOCK_SECTION, verdict = 0;
        if (section) {
            if (at > 0) return 0;
            verdict = pt_section_order(c, p, b->filled - at, at);
            if (verdict) return verdict < 0 ? -1 : 0;
        } else if (!c->in_section) {
            return pt_damaged(c, PT_NO_SECTION, at, type);
        }
        b->swapped = c->swapped;
        type = pt_get32(p, c->swapped);
        total = pt_get32(p + 4, c->swapped);
        if (total < 12 || total & 3 || total > pt_block_limit(type))
            return pt_damaged(c, PT_BAD_BLOCK_LENGTH, at, total);
        c->need = total;
        if (b->filled - at < total) return 0;
        if (pt_get32(p + total - 4, c->swapped) != total)
            return pt_damaged(c, PT_BAD_BLOCK_LENGTH, at, pt_get32(p + total - 4, c->swapped));
        if (section) verdict = pt_cut_section(c, p, total, at);
        else if (type == PT_BLOCK_INTERFACE) verdict = pt_cut_interface(c, p, total, at);
        else if (type == PT_BLOCK_PACKET || type == PT_BLOCK_OLD_PACKET || type == PT_BLOCK_SIMPLE_PACKET)
            verdict = pt_cut_packet(c, b, p, type, total, at);
        if (verdict) return verdict;
        b->used = at + total;
        c->need = 12;
    }
    return 0;
}

/* Index what is whole. 0: all sound; -1: sound up to c->damage_at. Interfaces may have moved: b->interfaces is set. */
static inline int pt_cut(pt_cutter *c, pt_batch *b)
{
    int verdict;
    b->format = c->format;
    b->swapped = c->swapped;
    b->nanoseconds = c->nanoseconds;
    b->header = c->header;
    b->swapped_lengths = c->swapped_lengths;
    b->interfaces = &c->interfaces;
    b->located = 0;
    verdict = c->format == PT_PCAP ? pt_cut_pcap(c, b) : pt_cut_pcapng(c, b);
    return verdict;
}

/* Remove the records marked PT_DROP, keeping every other byte in order. */
static inline void pt_compact(pt_batch *b)
{
    uint8_t *bytes = b->bytes;
    size_t to = 0, from = 0; /* bytes[from..] is still to be moved to bytes[to..] */
    uint32_t kept = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record r = b->record[k];
        uint32_t shift;
        if (r.flags & PT_DROP) {
            memmove(bytes + to, bytes + from, r.start - from);
            to += r.start - from;
            from = r.end;
            continue;
        }
        shift = (uint32_t)(from - to);
        r.start -= shift;
        r.data -= shift;
        r.end -= shift;
        b->record[kept] = r;
        if (b->located) b->where[kept] = b->where[k];
        kept++;
    }
    memmove(bytes + to, bytes + from, b->used - from);
    b->used -= from - to;
    b->filled = b->used;
    b->n = kept;
}

/* Take the hash options (code 3) out of the blocks of edited packets. The block keeps its length: later options
 * move forward, and zero bytes, which read as the end of options, fill the rest. */
static inline void pt_drop_stale_options(pt_batch *b)
{
    if (b->format != PT_PCAPNG) return;
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        uint8_t *p = b->bytes + r->data + ((r->caplen + 3) & ~3u), *end = b->bytes + r->end - 4;
        if (!(r->flags & PT_EDITED)) continue;
        if (pt_get32(b->bytes + r->start, b->swapped) == PT_BLOCK_SIMPLE_PACKET) continue;
        while (end - p >= 4) {
            uint16_t code = pt_get16(p, b->swapped);
            size_t padded = 4 + (((size_t)pt_get16(p + 2, b->swapped) + 3) & ~(size_t)3);
            if (code == 0 || padded > (size_t)(end - p)) break;
            if (code != 3) {
                p += padded;
                continue;
            }
            memmove(p, p + padded, (size_t)(end - p) - padded);
            memset(end - padded, 0, padded);
        }
    }
}

/* Set the length of a section header at the start of the batch to "unknown", for who changes lengths. */
static inline void pt_forget_section_length(pt_batch *b)
{
    if (b->format != PT_PCAPNG || b->used < 28 || pt_get32(b->bytes, 0) != PT_BLOCK_SECTION) return;
    memset(b->bytes + 16, 0xff, 8);
}

#endif
