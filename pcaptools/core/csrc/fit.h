/* Which packets a network device can carry. */
#ifndef PT_FIT_H
#define PT_FIT_H

#include "batch.h"

/* pt_record.reason of a packet that the device cannot carry */
enum pt_unfit {
    PT_FITS,
    PT_UNFIT_LINKTYPE,
    PT_UNFIT_EMPTY,
    PT_UNFIT_SHORT, /* shorter than the link header */
    PT_UNFIT_LONG,  /* longer than the MTU and the link header */
    PT_UNFITS
};

typedef struct {
    uint16_t linktype[8];
    uint32_t linktypes;
    uint32_t least, largest; /* bytes, link header included */
    uint32_t tag;            /* bytes that an 802.1Q tag may add */
} pt_carrier;

static inline enum pt_unfit pt_fits(const pt_carrier *c, const pt_record *r, const uint8_t *data, uint16_t linktype)
{
    uint32_t k = 0, largest = c->largest;
    while (k < c->linktypes && c->linktype[k] != linktype) k++;
    if (k == c->linktypes) return PT_UNFIT_LINKTYPE;
    if (!r->caplen) return PT_UNFIT_EMPTY;
    if (r->caplen < c->least) return PT_UNFIT_SHORT;
    if (r->caplen > largest && c->tag && r->caplen >= 14 && pt_net16(data + 12) == 0x8100) largest += c->tag;
    return r->caplen > largest ? PT_UNFIT_LONG : PT_FITS;
}

/* Mark those of records [start, stop) that the device cannot carry as dropped; count them in counts[enum pt_unfit]. */
static inline void pt_mark_unfit(const pt_carrier *c, pt_batch *b, uint32_t start, uint32_t stop, uint64_t *counts)
{
    for (uint32_t k = start; k < stop; k++) {
        pt_record *r = &b->record[k];
        enum pt_unfit why;
        if (r->flags & PT_DROP) continue;
        why = pt_fits(c, r, b->bytes + r->data, b->interfaces->of[r->interface].linktype);
        if (why == PT_FITS) continue;
        r->flags |= PT_DROP;
        r->reason = (uint8_t)why;
        counts[why]++;
    }
}

#endif
