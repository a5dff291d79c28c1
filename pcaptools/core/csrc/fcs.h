/* The frame check sequence (IEEE 802.3 section 3.2.9, IEEE 802.11 section 9.2.4.8) that some captures have behind their
 * Ethernet and 802.11 frames. Nothing in most captures says so: a frame whose last four bytes are the right one has one. */
#ifndef PT_FCS_H
#define PT_FCS_H

#include "headers.h"

enum pt_crc_kind { PT_CRC32, PT_CRC32C, PT_CRCS };

/* CRC-32 of Ethernet, or CRC-32C (Castagnoli, RFC 3309); crc: ~0 at first, to be inverted at the end. */
static inline uint32_t pt_crc(enum pt_crc_kind kind, uint32_t crc, const uint8_t *p, size_t n)
{
    static uint32_t tables[PT_CRCS][256];
    static volatile int ready[PT_CRCS]; /* filling one twice at once writes the same values */
    uint32_t *table = tables[kind];
    if (!ready[kind]) {
        const uint32_t polynomial = kind == PT_CRC32 ? 0xedb88320u : 0x82f63b78u;
        for (uint32_t k = 0; k < 256; k++) {
            uint32_t v = k;
            for (int bit = 0; bit < 8; bit++) v = v & 1 ? v >> 1 ^ polynomial : v >> 1;
            table[k] = v;
        }
        ready[kind] = 1;
    }
    while (n--) crc = table[(crc ^ *p++) & 0xff] ^ crc >> 8;
    return crc;
}

static inline void pt_fcs_of(const uint8_t *p, uint32_t start, uint32_t end, uint8_t *fcs)
{
    uint32_t crc = ~pt_crc(PT_CRC32, ~0u, p + start, end - start);
    for (int k = 0; k < 4; k++) fcs[k] = (uint8_t)(crc >> 8 * k);
}

/* First byte of the frame that an FCS would cover; PT_NONE: this packet can have none. */
static inline uint32_t pt_fcs_start(const uint8_t *p, uint32_t caplen, uint16_t linktype, const pt_where *o)
{
    if (linktype == 1) return o->depth && o->outer.end + 4 > caplen ? PT_NONE : 0;
    return pt_monitor_size(p, caplen, linktype);
}

/* The same for a packet that does have one, which is right. */
static inline uint32_t pt_fcs_find(const uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o)
{
    const uint32_t start = pt_fcs_start(p, r->caplen, linktype, o);
    uint8_t fcs[4];
    if (start == PT_NONE || r->caplen != r->wirelen || r->caplen < start + 14) return PT_NONE;
    if (!memcmp(p + r->caplen - 4, "\0\0\0", 4)) return PT_NONE; /* padding */
    pt_fcs_of(p, start, r->caplen - 4, fcs);
    return memcmp(p + r->caplen - 4, fcs, 4) ? PT_NONE : start;
}

/* Set it anew, of a frame that changed. start: what pt_fcs_find() said before. */
static inline void pt_fcs_follow(uint8_t *p, uint32_t caplen, uint32_t start)
{
    if (start != PT_NONE && caplen >= start + 4) pt_fcs_of(p, start, caplen - 4, p + caplen - 4);
}

#endif
