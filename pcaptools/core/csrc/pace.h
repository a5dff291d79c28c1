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
    uint8_t started;
    uint64_t up, down;
    uint64_t group;  /* packets that are due together, by packet; at least 1 */
    int64_t most;    /* longest wait, ns: what is longer is taken out of the schedule; 0: any */
    int64_t limit;   /* no packet is due later, ns */
    int64_t base;    /* ns added to every due time: where the loop before ended */
    __int128 cut;    /* ns taken out of it by `most` */
    int64_t first;   /* time of the first packet, ns since the epoch; valid once started */
    uint64_t packets, bytes; /* so far, loops before included */
    int64_t last;    /* largest due time so far, ns */
    int64_t widest;  /* longest wait that the capture asked for, ns */
} pt_pace;

static inline int64_t pt_clamped(__int128 due)
{
    if (due > INT64_MAX) return INT64_MAX;
    return due < 0 ? 0 : (int64_t)due;
}

static inline __int128 pt_measured(const pt_pace *s, const pt_record *r)
{
    if (s->measure == PT_BY_TIME) return (__int128)r->time - s->first;
    if (s->measure == PT_BY_PACKET) return (__int128)(s->packets / s->group * s->group);
    return s->measure == PT_BY_BYTE ? (__int128)s->bytes : 0;
}

static inline int64_t pt_due(pt_pace *s, const pt_record *r)
{
    int begins = !s->started;
    __int128 due;
    if (begins) {
        s->started = 1;
        s->first = r->time;
    }
    due = pt_measured(s, r) * (__int128)s->up / (__int128)s->down + s->base - s->cut;
    if (!begins && due > s->last) {
        __int128 wait = due - s->last;
        if (wait > s->widest) s->widest = pt_clamped(wait);
        if (s->most && wait > s->most) {
            s->cut += wait - s->most;
            due = (__int128)s->last + s->most;
        }
    }
    return pt_clamped(due);
}

/* due[k]: when record k of [from, to) is due, in ns after the start of the replay. Those marked PT_DROP take no time.
 * Returns the first record beyond the limit, or `to`. */
static inline uint32_t pt_pace_batch(pt_pace *s, const pt_batch *b, uint32_t from, uint32_t to, int64_t *due)
{
    for (uint32_t k = from; k < to; k++) {
        const pt_record *r = &b->record[k];
        if (r->flags & PT_DROP) {
            due[k] = s->last;
            continue;
        }
        due[k] = pt_due(s, r);
        if (due[k] > s->limit) return k;
        s->packets++;
        s->bytes += r->caplen;
        if (due[k] > s->last) s->last = due[k];
    }
    return to;
}

/* The next packet begins the capture anew, `delay` ns after the last one was due. */
static inline void pt_pace_rewind(pt_pace *s, int64_t delay)
{
    if (s->measure == PT_BY_TIME) {
        s->base = pt_clamped((__int128)s->last + delay);
        s->cut = 0;
        s->started = 0;
    } else {
        s->base = pt_clamped((__int128)s->base + delay);
    }
}

#endif
