/* Other addresses in each loop, with all checksums as right as they were.
 *
 * The larger of the two addresses grows by what the smaller one shrinks by, so that their one's complement sum, which
 * is all that a checksum sees of them, stays the same; where one wraps around, one more or less makes up for the
 * end-around carry. Of IPv6 addresses the last 32 bits change. This is what tcpreplay's --unique-ip does. */
#ifndef PT_UNIQUE_H
#define PT_UNIQUE_H

#include "headers.h"

static inline void pt_shift_pair(uint8_t *small, uint8_t *large, uint32_t shift)
{
    uint32_t low = pt_net32(small), high = pt_net32(large);
    int wraps_low = low < shift, wraps_high = high > UINT32_MAX - shift;
    low -= shift;
    high += shift;
    if (wraps_low) low--;   /* 2^32 was borrowed: one too much in one's complement */
    if (wraps_high) high++; /* 2^32 was lost: one too little */
    pt_put_net32(small, low);
    pt_put_net32(large, high);
}

/* Shift the addresses of the outermost IP layer of every packet of a located batch. Packets without one are marked
 * PT_DROP; returns how many. */
static inline uint64_t pt_shift_addresses(pt_batch *b, uint32_t shift)
{
    uint64_t without = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        const pt_layer *l = &b->where[k].outer;
        uint8_t *header = b->bytes + r->data + l->ip;
        uint8_t *source, *target;
        uint32_t size = l->version == 4 ? 20 : 40;
        if (r->flags & PT_DROP) continue;
        if (l->ip == PT_NONE || !l->version || l->ip + size > r->caplen) {
            r->flags |= PT_DROP;
            without++;
            continue;
        }
        source = header + (l->version == 4 ? 12 : 20);
        target = header + (l->version == 4 ? 16 : 36);
        if (pt_net32(target) > pt_net32(source)) pt_shift_pair(source, target, shift);
        else pt_shift_pair(target, source, shift);
        r->flags |= PT_EDITED;
    }
    return without;
}

#endif
