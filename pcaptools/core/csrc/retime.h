/* Other times for packets, exact to the ns, written where the file has them. */
#ifndef PT_RETIME_H
#define PT_RETIME_H

#include "convert.h"

typedef struct {
    int64_t shift;              /* ns */
    uint64_t up, down;          /* gaps times up / down; 0: as they are */
    uint8_t anchored;           /* the first packet goes to start */
    int64_t start;
    uint8_t monotonic;
    int64_t least_gap;          /* ns between packets */
    /* the run */
    uint8_t begun;
    int64_t first, base, last;
    uint64_t changed, inexact, raised; /* packets; inexact: the file cannot hold the digits or the second */
} pt_retime;

/* Ticks of an interface's clock for a time, the nearest not above. */
static inline uint64_t pt_ns_to_ticks(const pt_interface *i, int64_t time)
{
    __int128 ns = (__int128)time - (__int128)i->offset * 1000000000;
    if (ns < 0 || !i->divide) return 0;
    if (i->resolution & 0x80) return (uint64_t)((((unsigned __int128)ns << i->shift) + 999999999) / 1000000000);
    return (uint64_t)((unsigned __int128)ns * i->divide / i->multiply);
}

/* Write the time of a record into the file's bytes. Returns whether it is exact. */
static inline int pt_put_time(pt_batch *b, pt_record *r, int64_t old)
{
    uint8_t *p = b->bytes + r->start;
    const pt_interface *i = &b->interfaces->of[r->interface];
    uint64_t ticks, was;
    uint32_t type;
    if (b->format == PT_PCAP) {
        int64_t seconds = r->time / 1000000000, fraction = r->time % 1000000000;
        if (fraction < 0) seconds--, fraction += 1000000000;
        pt_put32(p, (uint32_t)seconds, b->swapped);
        pt_put32(p + 4, (uint32_t)(b->nanoseconds ? fraction : fraction / 1000), b->swapped);
        return seconds >= 0 && seconds <= UINT32_MAX && (b->nanoseconds || fraction % 1000 == 0);
    }
    type = pt_get32(p, b->swapped);
    if (type == PT_BLOCK_SIMPLE_PACKET) return 0;
    was = (uint64_t)pt_get32(p + 12, b->swapped) << 32 | pt_get32(p + 16, b->swapped);
    ticks = pt_ns_to_ticks(i, r->time);
    if (!(i->resolution & 0x80) && i->divide > 1) ticks += was - pt_ns_to_ticks(i, old); /* digits below a ns stay */
    pt_put32(p + 12, (uint32_t)(ticks >> 32), b->swapped);
    pt_put32(p + 16, (uint32_t)ticks, b->swapped);
    return pt_ticks_to_ns(i, ticks) == r->time;
}

static inline void pt_retime_batch(pt_retime *t, pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        int64_t old = r->time, time = old;
        if (r->flags & (PT_DROP | 4)) continue;
        if (b->format == PT_PCAPNG && pt_get32(b->bytes + r->start, b->swapped) == PT_BLOCK_SIMPLE_PACKET) continue;
        if (!t->begun) {
            t->first = old;
            t->base = (t->anchored ? t->start : old) + t->shift;
        }
        if (t->down) time = t->base + (int64_t)((__int128)(old - t->first) * (__int128)t->up / (__int128)t->down);
        else time = t->base + (old - t->first);
        if (t->begun && (t->monotonic || t->least_gap) && time < t->last + t->least_gap) {
            time = t->last + t->least_gap;
            t->raised++;
        }
        t->begun = 1;
        t->last = time;
        if (time == old) continue;
        r->time = time;
        t->changed++;
        t->inexact += (uint64_t)!pt_put_time(b, r, old);
    }
}

/* ---- sorting within a window ---- */

/* Order of records by time; equal ones keep their order. */
static inline void pt_merge_sort(const pt_record *r, uint32_t *order, uint32_t *spare, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) order[k] = k;
    for (uint32_t width = 1; width < n; width *= 2) {
        for (uint32_t low = 0; low < n; low += 2 * width) {
            uint32_t middle = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n;
            uint32_t a = low, c = middle;
            for (uint32_t to = low; to < high; to++)
                spare[to] = a < middle && (c >= high || r[order[a]].time <= r[order[c]].time) ? order[a++] : order[c++];
        }
        memcpy(order, spare, n * sizeof *order);
    }
}

static inline int pt_move_record(const pt_batch *b, const pt_record *r, pt_batch *out)
{
    uint32_t size = r->end - r->start;
    pt_record *copy;
    if (out->used + size > out->capacity && pt_batch_reserve(out, (out->used + size) * 3 / 2)) return -1;
    copy = pt_add_record(out);
    if (!copy) return -1;
    memcpy(out->bytes + out->used, b->bytes + r->start, size);
    *copy = *r;
    copy->start = (uint32_t)out->used;
    copy->data = copy->start + (r->data - r->start);
    copy->end = copy->start + size;
    out->used = out->filled = copy->end;
    return 0;
}

/* What a window for sorting does. */
typedef struct {
    size_t most;           /* bytes that it may keep back */
    uint8_t begun;
    int64_t last;          /* time of the latest packet given out */
    uint64_t late, early;  /* packets behind a later one; packets given out before their time, for want of room */
} pt_window;

static inline void pt_window_given(pt_window *w, const pt_record *r)
{
    if (w->begun && r->time < w->last) w->late++;
    else w->last = r->time;
    w->begun = 1;
}

/* Take the records of `held` up to time `until` out in order, and as many more as there is no room for, into out; the
 * others into rest. Both are empty. 0: done, -1: no memory. */
static inline int pt_release(pt_window *w, const pt_batch *held, int64_t until, pt_batch *out, pt_batch *rest)
{
    uint32_t *order = malloc((size_t)held->n * 2 * sizeof *order + 8);
    size_t left = held->used;
    int verdict = 0;
    if (!order) return -1;
    pt_merge_sort(held->record, order, order + held->n, held->n);
    for (uint32_t k = 0; k < held->n && !verdict; k++) {
        const pt_record *r = &held->record[order[k]];
        const int due = r->time <= until, full = left > w->most;
        verdict = pt_move_record(held, r, due || full ? out : rest);
        if (due || full) pt_window_given(w, r);
        w->early += (uint64_t)(full && !due);
        left -= r->end - r->start;
    }
    free(order);
    return verdict;
}

/* Append the records of b to held, and all its other bytes to out. 0: done, -1: no memory. */
static inline int pt_hold(const pt_batch *b, pt_batch *held, pt_batch *out)
{
    uint32_t at = 0;
    for (uint32_t k = 0; k <= b->n; k++) {
        uint32_t stop = k < b->n ? b->record[k].start : (uint32_t)b->used;
        uint32_t size = stop - at;
        if (out->used + size > out->capacity && pt_batch_reserve(out, (out->used + size) * 3 / 2)) return -1;
        memcpy(out->bytes + out->used, b->bytes + at, size);
        out->used = out->filled = out->used + size;
        if (k == b->n) break;
        if (pt_move_record(b, &b->record[k], held)) return -1;
        at = b->record[k].end;
    }
    return 0;
}

#endif
