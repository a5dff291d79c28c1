/* Packets and bytes over time, in a fixed number of equal bins: when the time is up, their width doubles. */
#ifndef PT_TIMELINE_H
#define PT_TIMELINE_H

#include "headers.h"
#include "stats.h"

enum {
    PT_BINS = 2048,
    PT_FIRST_WIDTH = 1000,     /* ns */
    PT_BURST = 10000000,       /* ns: the interval of a burst */
};

/* What a packet is counted as. */
enum pt_bin_kind_of { PT_BIN_TCP, PT_BIN_UDP, PT_BIN_ICMP, PT_BIN_IP, PT_BIN_ARP, PT_BIN_OTHER, PT_BIN_KINDS };

typedef struct {
    uint64_t packets[PT_BIN_KINDS], bytes[PT_BIN_KINDS];
    uint64_t burst_packets, burst_bytes; /* the most in one burst interval that began here */
} pt_bin;

typedef struct {
    __int128 origin, width; /* ns */
    __int128 burst;         /* number of the current burst interval */
    uint64_t burst_packets, burst_bytes;
    uint32_t used;          /* bins up to the last one in use */
    uint8_t started;
    pt_bin bin[PT_BINS];
} pt_timeline;

static inline void pt_add_bin(pt_bin *to, const pt_bin *from)
{
    for (int k = 0; k < PT_BIN_KINDS; k++) {
        to->packets[k] += from->packets[k];
        to->bytes[k] += from->bytes[k];
    }
    if (from->burst_packets > to->burst_packets) to->burst_packets = from->burst_packets;
    if (from->burst_bytes > to->burst_bytes) to->burst_bytes = from->burst_bytes;
}

/* Double the width; the bins become the first half, or the second one to make room before them. */
static inline void pt_timeline_fold(pt_timeline *t, int before)
{
    const int half = PT_BINS / 2;
    for (int k = 0; k < half; k++) {
        pt_bin sum = t->bin[2 * k];
        pt_add_bin(&sum, &t->bin[2 * k + 1]);
        t->bin[k] = sum;
    }
    if (before) {
        memmove(t->bin + half, t->bin, half * sizeof *t->bin);
        memset(t->bin, 0, half * sizeof *t->bin);
        t->origin -= t->width * PT_BINS;
        t->used = PT_BINS;
    } else {
        memset(t->bin + half, 0, half * sizeof *t->bin);
        t->used = (t->used + 1) / 2;
    }
    t->width *= 2;
}

static inline pt_bin *pt_timeline_bin(pt_timeline *t, int64_t time)
{
    uint32_t at;
    while (time < t->origin) pt_timeline_fold(t, 1);
    while (time - t->origin >= t->width * PT_BINS) pt_timeline_fold(t, 0);
    at = (uint32_t)((uint64_t)(time - t->origin) / (uint64_t)t->width);
    if (at >= t->used) t->used = at + 1;
    return &t->bin[at];
}

static inline int pt_bin_kind(const pt_where *o)
{
    if (o->outer.version) {
        switch (o->inner.protocol) {
        case PT_TCP: return PT_BIN_TCP;
        case PT_UDP: return PT_BIN_UDP;
        case PT_ICMP: case PT_ICMPV6: return PT_BIN_ICMP;
        }
        return PT_BIN_IP;
    }
    return o->ethertype == PT_TYPE_ARP ? PT_BIN_ARP : PT_BIN_OTHER;
}

/* The burst interval is over. */
static inline void pt_timeline_burst(pt_timeline *t)
{
    __int128 start = t->burst * PT_BURST;
    pt_bin *bin = pt_timeline_bin(t, start < t->origin ? (int64_t)t->origin : (int64_t)start);
    if (t->burst_packets > bin->burst_packets) bin->burst_packets = t->burst_packets;
    if (t->burst_bytes > bin->burst_bytes) bin->burst_bytes = t->burst_bytes;
    t->burst_packets = t->burst_bytes = 0;
}

/* The headers of the batch must be located. */
static inline void pt_timeline_batch(pt_timeline *t, const pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        int kind = pt_bin_kind(&b->where[k]);
        __int128 burst = (r->time - (r->time < 0 ? PT_BURST - 1 : 0)) / PT_BURST;
        pt_bin *bin;
        if (pt_is_untimed(b, r)) continue;
        if (!t->started) {
            t->started = 1;
            t->origin = r->time;
            t->width = PT_FIRST_WIDTH;
            t->burst = burst;
        }
        if (burst != t->burst) {
            pt_timeline_burst(t);
            t->burst = burst;
        }
        bin = pt_timeline_bin(t, r->time);
        bin->packets[kind]++;
        bin->bytes[kind] += r->wirelen;
        t->burst_packets++;
        t->burst_bytes += r->wirelen;
    }
}

/* No more packets come. origin, width: in ns. */
static inline void pt_timeline_end(pt_timeline *t, int64_t *origin, int64_t *width)
{
    if (t->started) pt_timeline_burst(t);
    *origin = t->origin < INT64_MIN ? INT64_MIN : (int64_t)t->origin;
    *width = (int64_t)t->width;
}

#endif
