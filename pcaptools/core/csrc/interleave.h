/* Several captures on one timeline: their records, copied into one batch in order of time.
 *
 * A heap of sources, the one with the earliest next record on top; at equal times the one with the smaller number.
 * A source whose own times go backwards keeps its own order. Copies are nanosecond pcap records in host byte order. */
#ifndef PT_INTERLEAVE_H
#define PT_INTERLEAVE_H

#include "convert.h"

/* Why it stopped; a number of 0 or more is a source that has no record left. */
enum pt_interleave_status { PT_LEAVE_FULL = -1, PT_LEAVE_HELD = -2, PT_LEAVE_END = -3, PT_LEAVE_NO_MEMORY = -4 };

/* Make out an empty batch of nanosecond pcap records. */
static inline void pt_begin_copies(pt_batch *out, const pt_interfaces *interfaces)
{
    out->n = 0;
    out->used = out->filled = 0;
    out->located = out->swapped = out->swapped_lengths = 0;
    out->format = PT_PCAP;
    out->nanoseconds = 1;
    out->header = 16;
    out->interfaces = interfaces;
}

/* Append a copy of record k of b, with so many zero bytes behind the captured ones. 0, or -1: no memory. */
static inline int pt_push(pt_batch *out, const pt_batch *b, uint32_t k, uint32_t interface, uint32_t zeros)
{
    const pt_record *r = &b->record[k];
    size_t need = out->used + 16 + r->caplen + zeros;
    pt_record *copy;
    if (need > UINT32_MAX || (need > out->capacity && pt_batch_reserve(out, need + need / 2))) return -1;
    copy = pt_add_record(out);
    if (!copy) return -1;
    *copy = *r;
    copy->interface = interface;
    copy->caplen += zeros;
    copy->start = (uint32_t)out->used;
    copy->data = copy->start + 16;
    copy->end = (uint32_t)need;
    pt_put_record_header(out->bytes + copy->start, r->time, copy->caplen, r->wirelen, 1);
    memcpy(out->bytes + copy->data, b->bytes + r->data, r->caplen);
    memset(out->bytes + copy->data + r->caplen, 0, zeros);
    out->used = out->filled = need;
    return 0;
}

typedef struct {
    const pt_batch *b;   /* NULL: no record left, or not open */
    uint32_t at;         /* next record */
    uint32_t *interface; /* its interface i is number interface[i] of the joint ones */
    uint32_t interfaces;
} pt_joined;

typedef struct {
    pt_interfaces interfaces;
    uint32_t *source_of; /* of each joint interface */
    uint32_t source_of_room;
    pt_joined *source;
    uint32_t sources;
    uint32_t *heap, n;
    int64_t hold;        /* a source that is not open yet begins then: nothing behind that goes out */
    uint32_t hold_source;
    uint8_t holding;
} pt_timetable;

static inline int64_t pt_head_time(const pt_timetable *m, uint32_t source)
{
    const pt_joined *s = &m->source[source];
    return s->b->record[s->at].time;
}

static inline int pt_earlier(int64_t a, uint32_t source_a, int64_t b, uint32_t source_b)
{
    return a < b || (a == b && source_a < source_b);
}

static inline int pt_before(const pt_timetable *m, uint32_t a, uint32_t b)
{
    return pt_earlier(pt_head_time(m, a), a, pt_head_time(m, b), b);
}

static inline void pt_sift_down(pt_timetable *m, uint32_t at)
{
    uint32_t moved = m->heap[at];
    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= m->n) break;
        if (child + 1 < m->n && pt_before(m, m->heap[child + 1], m->heap[child])) child++;
        if (!pt_before(m, m->heap[child], moved)) break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = moved;
}

static inline void pt_sift_up(pt_timetable *m, uint32_t at)
{
    uint32_t moved = m->heap[at];
    while (at && pt_before(m, moved, m->heap[(at - 1) / 2])) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = moved;
}

/* Give a source, which has none left, the records of a batch that holds some. */
static inline void pt_timetable_feed(pt_timetable *m, uint32_t source, const pt_batch *b)
{
    m->source[source].b = b;
    m->source[source].at = 0;
    m->heap[m->n] = source;
    pt_sift_up(m, m->n++);
}

static inline int pt_note_source(pt_timetable *m, uint32_t source)
{
    if (m->interfaces.n > m->source_of_room) {
        uint32_t room = m->interfaces.n * 2;
        uint32_t *grown = realloc(m->source_of, room * sizeof *grown);
        if (!grown) return -1;
        m->source_of = grown;
        m->source_of_room = room;
    }
    m->source_of[m->interfaces.n - 1] = source;
    return 0;
}

/* The joint number of an interface of a source; -1: no memory. */
static inline int64_t pt_joint_interface(pt_timetable *m, uint32_t source, uint32_t interface)
{
    pt_joined *s = &m->source[source];
    pt_interface *added;
    if (interface >= s->interfaces) {
        uint32_t *grown = realloc(s->interface, (interface + 1) * sizeof *grown);
        if (!grown) return -1;
        s->interface = grown;
        while (s->interfaces <= interface) s->interface[s->interfaces++] = PT_NONE;
    }
    if (s->interface[interface] != PT_NONE) return s->interface[interface];
    added = pt_add_interface(&m->interfaces);
    if (!added || pt_note_source(m, source)) return -1;
    *added = s->b->interfaces->of[interface];
    pt_set_resolution(added, 9);
    added->offset = 0;
    return s->interface[interface] = m->interfaces.n - 1;
}

static inline int pt_join_one(pt_timetable *m, uint32_t source, pt_batch *out)
{
    const pt_joined *s = &m->source[source];
    int64_t interface = pt_joint_interface(m, source, s->b->record[s->at].interface);
    if (interface < 0) return -1;
    return pt_push(out, s->b, s->at, (uint32_t)interface, 0);
}

/* Append records to out until it holds `full` bytes, or as the status says. */
static inline int64_t pt_interleave(pt_timetable *m, pt_batch *out, size_t full)
{
    while (m->n) {
        uint32_t source = m->heap[0];
        pt_joined *s = &m->source[source];
        if (m->holding && pt_earlier(m->hold, m->hold_source, pt_head_time(m, source), source)) return PT_LEAVE_HELD;
        if (out->used >= full) return PT_LEAVE_FULL;
        if (!(s->b->record[s->at].flags & PT_DROP) && pt_join_one(m, source, out)) return PT_LEAVE_NO_MEMORY;
        if (++s->at < s->b->n) {
            pt_sift_down(m, 0);
            continue;
        }
        s->b = NULL;
        m->heap[0] = m->heap[--m->n];
        if (m->n) pt_sift_down(m, 0);
        return source;
    }
    return m->holding ? PT_LEAVE_HELD : PT_LEAVE_END;
}

static inline void pt_timetable_free(pt_timetable *m)
{
    for (uint32_t k = 0; k < m->sources; k++) free(m->source[k].interface);
    free(m->source);
    free(m->heap);
    free(m->source_of);
    pt_free_interfaces(&m->interfaces);
}

#endif
