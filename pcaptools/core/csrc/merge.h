/* Several batches into one, in order of time.
 *
 * A heap of sources, each with a batch whose records come in that source's own order. Records are copied as bytes, so
 * all batches must be of one file format. Ties go to the source of the lower order number. */
#ifndef PT_MERGE_H
#define PT_MERGE_H

#include "batch.h"

enum pt_merge_verdict {
    PT_MERGE_EMPTY, /* no source is left */
    PT_MERGE_FULL,  /* the output has no room for the next record */
    PT_MERGE_DRY,   /* a source has no record left: it is out of the heap; `dry` names it */
    PT_MERGE_LIMIT, /* the next record does not come before the limit */
    PT_MERGE_NO_MEMORY,
};

typedef struct {
    int64_t time;   /* of the next record, ns since the epoch */
    uint64_t order; /* breaks ties */
    const pt_batch *batch;
    uint32_t at;    /* the next record */
} pt_merge_source;

typedef struct {
    pt_merge_source *heap; /* heap[0] comes first */
    size_t n, room;
    uint64_t dry;   /* order of the source that ran dry */
    int64_t latest; /* largest time that was given out */
    uint64_t late;  /* records given out that were earlier than that */
} pt_merger;

static inline int pt_merge_before(int64_t time, uint64_t order, const pt_merge_source *b)
{
    return time < b->time || (time == b->time && order < b->order);
}

static inline void pt_merge_sink(pt_merger *m)
{
    pt_merge_source moved;
    size_t k = 0;
    if (!m->n) return;
    moved = m->heap[0];
    for (;;) {
        size_t child = 2 * k + 1;
        if (child >= m->n) break;
        if (child + 1 < m->n && pt_merge_before(m->heap[child + 1].time, m->heap[child + 1].order, &m->heap[child])) child++;
        if (!pt_merge_before(m->heap[child].time, m->heap[child].order, &moved)) break;
        m->heap[k] = m->heap[child];
        k = child;
    }
    m->heap[k] = moved;
}

/* Add a source, whose batch has a record. 0: done, -1: no memory. */
static inline int pt_merge_add(pt_merger *m, const pt_batch *batch, uint64_t order)
{
    size_t k = m->n;
    int64_t time = batch->record[0].time;
    if (m->n == m->room) {
        size_t room = m->room ? m->room * 2 : 16;
        pt_merge_source *heap = realloc(m->heap, room * sizeof *heap);
        if (!heap) return -1;
        m->heap = heap;
        m->room = room;
    }
    m->n++;
    while (k && pt_merge_before(time, order, &m->heap[(k - 1) / 2])) {
        m->heap[k] = m->heap[(k - 1) / 2];
        k = (k - 1) / 2;
    }
    m->heap[k] = (pt_merge_source){time, order, batch, 0};
    return 0;
}

/* Copy records start to stop, of contiguous bytes, behind what out holds. 0: done, -1: no memory. */
static inline int pt_merge_copy(pt_batch *out, const pt_batch *b, uint32_t start, uint32_t stop)
{
    uint32_t from = b->record[start].start, shift = (uint32_t)out->used - from; /* modulo 2^32 */
    size_t size = b->record[stop - 1].end - from;
    memcpy(out->bytes + out->used, b->bytes + from, size);
    for (uint32_t k = start; k < stop; k++) {
        pt_record *r;
        if (out->n == out->room && pt_batch_grow_records(out)) return -1;
        r = &out->record[out->n++];
        *r = b->record[k];
        r->start += shift;
        r->end += shift;
        r->data += shift;
    }
    out->used += size;
    out->filled = out->used;
    return 0;
}

/* Move records to out until something else has to be done first. limited: only those before (time, order).
 * A record larger than out's buffer grows it. */
static inline int pt_merge(pt_merger *m, pt_batch *out, int limited, int64_t time, uint64_t order)
{
    while (m->n) {
        pt_merge_source *top = &m->heap[0], *next = NULL;
        const pt_batch *b = top->batch;
        uint32_t start = top->at, stop = start;
        size_t size = 0;
        if (m->n > 1) next = &m->heap[1];
        if (m->n > 2 && pt_merge_before(m->heap[2].time, m->heap[2].order, next)) next = &m->heap[2];
        while (stop < b->n) {
            const pt_record *r = &b->record[stop];
            size_t length = r->end - r->start;
            if (next && !pt_merge_before(r->time, top->order, next)) break;
            if (limited && (r->time > time || (r->time == time && top->order >= order))) break;
            if (stop > start && r->start != b->record[stop - 1].end) break;
            if (out->used + size + length > out->capacity) break;
            if (r->time < m->latest) m->late++;
            else m->latest = r->time;
            size += length;
            stop++;
        }
        if (stop == start) {
            const pt_record *r = &b->record[start];
            if (limited && (r->time > time || (r->time == time && top->order >= order))) return PT_MERGE_LIMIT;
            if (out->n) return PT_MERGE_FULL;
            if (pt_batch_reserve(out, out->used + (r->end - r->start))) return PT_MERGE_NO_MEMORY;
            continue;
        }
        if (pt_merge_copy(out, b, start, stop)) return PT_MERGE_NO_MEMORY;
        if (stop == b->n) {
            m->dry = top->order;
            m->heap[0] = m->heap[--m->n];
            pt_merge_sink(m);
            return PT_MERGE_DRY;
        }
        top->at = stop;
        top->time = b->record[stop].time;
        pt_merge_sink(m);
    }
    return PT_MERGE_EMPTY;
}

/* Put the records of a batch in order of time; equal times keep their order, the bytes stay where they are.
 * Returns 0, or -1: no memory. */
static inline int pt_sort_records(pt_batch *b)
{
    pt_record *from = b->record, *to, *spare;
    uint32_t k, width;
    for (k = 1; k < b->n && from[k - 1].time <= from[k].time; k++) {}
    if (k >= b->n) return 0;
    spare = to = malloc(b->n * sizeof *to);
    if (!spare) return -1;
    for (width = 1; width < b->n; width *= 2) {
        for (uint32_t low = 0; low < b->n; low += 2 * width) {
            uint32_t middle = low + width < b->n ? low + width : b->n, high = low + 2 * width < b->n ? low + 2 * width : b->n;
            uint32_t i = low, j = middle;
            for (k = low; k < high; k++) to[k] = i < middle && (j >= high || from[i].time <= from[j].time) ? from[i++] : from[j++];
        }
        pt_record *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != b->record) memcpy(b->record, from, b->n * sizeof *from);
    free(spare);
    b->located = 0;
    return 0;
}

/* Mark the records that are not from `first` on and before `last`; returns how many. */
static inline uint32_t pt_drop_outside(pt_batch *b, int64_t first, int64_t last)
{
    uint32_t dropped = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        int outside = b->record[k].time < first || b->record[k].time >= last;
        if (outside && !(b->record[k].flags & PT_DROP)) {
            b->record[k].flags |= PT_DROP;
            dropped++;
        }
    }
    return dropped;
}

#endif
