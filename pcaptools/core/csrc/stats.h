/* Figures of a capture, batch by batch: counts, sums, times, sizes.
 *
 * pt_stats_batch() is what every report needs; pt_stats_detail() adds what only the detailed ones show. */
#ifndef PT_STATS_H
#define PT_STATS_H

#include "records.h"

enum {
    PT_STAT_EXACT = 65536, /* packet sizes below are counted one by one */
    PT_STAT_STEPS = 64,     /* and those above in so many steps for each doubling */
    PT_STAT_CLASSES = PT_STAT_EXACT + 16 * PT_STAT_STEPS,
};

/* Of one interface. Bytes: on the wire. */
typedef struct {
    uint64_t packets, bytes;
} pt_share;

typedef struct {
    uint64_t packets, bytes, captured; /* bytes: on the wire */
    uint64_t cut;                      /* packets captured in part */
    uint64_t overlong;                 /* packets of which more was captured than there was */
    uint64_t untimed;                  /* simple packet blocks carry no time; what follows is about the others */
    uint64_t backward;                 /* packets earlier than the one before */
    uint32_t least_cut, most_cut;      /* captured length of the packets captured in part */
    uint32_t most_captured;
    uint32_t first_interface, last_interface; /* of the earliest and the latest packet */
    int64_t first, last, previous;     /* earliest, latest, and that of the packet before; ns */
    uint64_t gap;                      /* longest time without a packet, in file order; ns */
    uint64_t gap_before;               /* number of the packet that ended it, from 1 */
    int64_t latest;                    /* latest so far, for the gap */
    uint64_t seen;                     /* packets that pt_stats_detail() has seen */
    pt_share *share;                   /* by interface */
    uint32_t shares;
    uint8_t timed, timed_detail;
    uint64_t status[PT_STATUSES];      /* packets by the status of their outermost layer */
    uint64_t least_size, most_size;    /* on the wire; valid when seen */
    uint64_t *sizes;                   /* packets by size class; NULL until wanted */
} pt_stats;

/* Simple packet blocks have a header of 12 bytes, the other packet blocks one of 28. */
static inline int pt_is_untimed(const pt_batch *b, const pt_record *r)
{
    return b->format == PT_PCAPNG && r->data - r->start == 12;
}

/* Room for every interface that the batch knows. 0: done, -1: no memory. */
static inline int pt_stats_shares(pt_stats *s, const pt_batch *b)
{
    pt_share *share;
    uint32_t n = b->interfaces->n;
    if (n <= s->shares) return 0;
    share = realloc(s->share, n * sizeof *share);
    if (!share) return -1;
    memset(share + s->shares, 0, (n - s->shares) * sizeof *share);
    s->share = share;
    s->shares = n;
    return 0;
}

/* A packet captured in part. */
static inline void pt_stats_cut(pt_stats *s, const pt_record *r)
{
    if (!s->cut++ || r->caplen < s->least_cut) s->least_cut = r->caplen;
    if (r->caplen > s->most_cut) s->most_cut = r->caplen;
}

static inline void pt_stats_time(pt_stats *s, const pt_record *r)
{
    if (PT_UNLIKELY(!s->timed)) {
        s->timed = 1;
        s->first = s->last = s->previous = r->time;
        s->first_interface = s->last_interface = r->interface;
    }
    if (PT_UNLIKELY(r->time < s->previous)) s->backward++;
    s->previous = r->time;
    if (PT_UNLIKELY(r->time < s->first)) {
        s->first = r->time;
        s->first_interface = r->interface;
    }
    if (r->time > s->last) {
        s->last = r->time;
        s->last_interface = r->interface;
    }
}

/* 0: done, -1: no memory. */
static inline int pt_stats_batch(pt_stats *s, const pt_batch *b)
{
    uint64_t bytes = 0, captured = 0;
    uint32_t most = s->most_captured;
    if (!b->n) return 0;
    if (pt_stats_shares(s, b)) return -1;
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        bytes += r->wirelen;
        captured += r->caplen;
        if (r->caplen > most) most = r->caplen;
        if (PT_UNLIKELY(r->caplen < r->wirelen)) pt_stats_cut(s, r);
        if (PT_UNLIKELY(r->caplen > r->wirelen)) s->overlong++;
        if (PT_UNLIKELY(pt_is_untimed(b, r))) s->untimed++;
        else pt_stats_time(s, r);
    }
    if (s->shares == 1) {
        s->share[0].packets += b->n;
        s->share[0].bytes += bytes;
    } else {
        for (uint32_t k = 0; k < b->n; k++) {
            s->share[b->record[k].interface].packets++;
            s->share[b->record[k].interface].bytes += b->record[k].wirelen;
        }
    }
    s->packets += b->n;
    s->bytes += bytes;
    s->captured += captured;
    s->most_captured = most;
    return 0;
}

/* The class of a size; pt_stats_class_end() gives the largest size of a class. */
static inline uint32_t pt_stats_class(uint32_t size)
{
    int doubling = 0;
    if (size < PT_STAT_EXACT) return size;
    for (uint32_t v = size >> 17; v; v >>= 1) doubling++;
    return PT_STAT_EXACT + (uint32_t)doubling * PT_STAT_STEPS + ((size >> (10 + doubling)) & (PT_STAT_STEPS - 1));
}

static inline uint32_t pt_stats_class_end(uint32_t size_class)
{
    uint32_t doubling, step;
    if (size_class < PT_STAT_EXACT) return size_class;
    doubling = (size_class - PT_STAT_EXACT) / PT_STAT_STEPS;
    step = (size_class - PT_STAT_EXACT) % PT_STAT_STEPS;
    return (uint32_t)(((uint64_t)(PT_STAT_STEPS + step + 1) << (10 + doubling)) - 1);
}

/* Sizes, gaps and statuses of a batch whose headers are located. 0: done, -1: no memory. */
static inline int pt_stats_detail(pt_stats *s, const pt_batch *b)
{
    if (!s->sizes && !(s->sizes = calloc(PT_STAT_CLASSES, sizeof *s->sizes))) return -1;
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        s->status[b->where[k].status]++;
        s->sizes[pt_stats_class(r->wirelen)]++;
        if (!s->seen || r->wirelen < s->least_size) s->least_size = r->wirelen;
        if (r->wirelen > s->most_size) s->most_size = r->wirelen;
        s->seen++;
        if (pt_is_untimed(b, r)) continue;
        if (s->timed_detail && r->time > s->latest && (uint64_t)r->time - (uint64_t)s->latest > s->gap) {
            s->gap = (uint64_t)r->time - (uint64_t)s->latest;
            s->gap_before = s->seen;
        }
        if (!s->timed_detail || r->time > s->latest) s->latest = r->time;
        s->timed_detail = 1;
    }
    return 0;
}

/* The size that a share of `rank` of all packets does not exceed; rank counts from 1. */
static inline uint32_t pt_stats_size_at(const pt_stats *s, uint64_t rank)
{
    uint64_t sum = 0;
    if (!s->sizes) return 0;
    for (uint32_t k = 0; k < PT_STAT_CLASSES; k++) {
        sum += s->sizes[k];
        if (sum >= rank) {
            uint32_t size = pt_stats_class_end(k);
            return size < s->most_size ? size : (uint32_t)s->most_size;
        }
    }
    return (uint32_t)s->most_size;
}

static inline void pt_stats_free(pt_stats *s)
{
    free(s->share);
    free(s->sizes);
}

/* Steps over one block that is no packet: from `at`, which must be below `end`. */
typedef struct {
    uint32_t type, start, total;
} pt_other_block;

/* The next block of a batch that is no packet, from *at and record *k on. 0: there is none. */
static inline int pt_next_other_block(const pt_batch *b, size_t *at, uint32_t *k, pt_other_block *found)
{
    if (b->format != PT_PCAPNG) return 0;
    while (*k < b->n && *at == b->record[*k].start) {
        *at = b->record[*k].end;
        ++*k;
    }
    if (b->used < 12 || *at > b->used - 12) return 0;
    found->start = (uint32_t)*at;
    found->type = pt_get32(b->bytes + *at, b->swapped);
    found->total = pt_get32(b->bytes + *at + 4, b->swapped);
    if (found->total < 12 || found->total > b->used - *at) return 0;
    *at += found->total;
    return 1;
}

/* Where the options of a packet's block are; an empty span when it has none. */
static inline void pt_packet_options(const pt_batch *b, const pt_record *r, uint32_t *start, uint32_t *end)
{
    *start = *end = 0;
    if (b->format != PT_PCAPNG || pt_is_untimed(b, r)) return;
    *start = r->data + ((r->caplen + 3) & ~3u);
    *end = r->end - 4;
    if (*start + 4 > *end) *start = *end = 0;
}

#endif
