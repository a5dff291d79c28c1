/* When each packet is due: one absolute schedule in integer ns, so that no error adds up. */
#ifndef PT_PACE_H
#define PT_PACE_H

#include "batch.h"

enum pt_measure {
    PT_BY_TIME,    /* due = (time - first time) * up / down */
    PT_BY_PACKET,  /* due = packets before it * up / down */
    PT_BY_BYTE,    /* due = bytes before it * up / down */
    PT_AT_ONCE,    /* due = 0 */
};

typedef struct {
    uint8_t measure; /* enum pt_measure */
    uint64_t up, down;
    int64_t base;    /* ns added to every due time: the end of the loop before */
    int64_t first;   /* time of the first packet, ns since the epoch; valid once started */
    uint64_t packets, bytes; /* so far, loops before included */
    int64_t last;    /* largest due time so far, ns */
    uint8_t started;
} pt_pace;

static inline int64_t pt_scaled(__int128 value, const pt_pace *s)
{
    __int128 due = value * (__int128)s->up / (__int128)s->down + s->base;
    if (due > INT64_MAX) return INT64_MAX;
    return due < 0 ? 0 : (int64_t)due;
}

/* due[k]: when record k of [from, to) is due, in ns after the start of the replay. Those marked PT_DROP take no time. */
static inline void pt_pace_batch(pt_pace *s, const pt_batch *b, uint32_t from, uint32_t to, int64_t *due)
{
    for (uint32_t k = from; k < to; k++) {
        const pt_record *r = &b->record[k];
        int64_t d = 0;
        if (r->flags & PT_DROP) {
            due[k] = s->last;
            continue;
        }
        if (!s->started) {
            s->started = 1;
            s->first = r->time;
        }
        if (s->measure == PT_BY_TIME) d = pt_scaled((__int128)r->time - s->first, s);
        else if (s->measure == PT_BY_PACKET) d = pt_scaled((__int128)s->packets, s);
        else if (s->measure == PT_BY_BYTE) d = pt_scaled((__int128)s->bytes, s);
        s->packets++;
        s->bytes += r->caplen;
        if (d > s->last) s->last = d;
        due[k] = d;
    }
}

#endif
