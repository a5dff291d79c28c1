/* Choosing packets by number, time, share and likeness; and what becomes of those that are not chosen. */
#ifndef PT_CHOOSE_H
#define PT_CHOOSE_H

#include "checksums.h"
#include "shape.h"

/* Packets first to last, counted from 1. */
typedef struct {
    uint64_t first, last;
} pt_number_range;

typedef struct {
    pt_number_range *range;
    uint32_t ranges;
    int64_t from, until;   /* ns; from <= time < until */
    uint32_t sample;       /* every so many, the first one included; 0: all */
    uint64_t number, kept; /* packets seen, and those that passed the other tests */
} pt_choice;

/* Mark as dropped what is not chosen. Returns how many. */
static inline uint64_t pt_choose(pt_choice *c, pt_batch *b)
{
    uint64_t dropped = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        uint64_t number = ++c->number;
        int wanted = !c->ranges && r->time >= c->from && r->time < c->until;
        if (r->flags & PT_DROP) continue;
        for (uint32_t i = 0; i < c->ranges && !wanted; i++) wanted = number >= c->range[i].first && number <= c->range[i].last;
        wanted = wanted && r->time >= c->from && r->time < c->until;
        if (wanted && c->sample > 1) wanted = c->kept++ % c->sample == 0;
        if (wanted) continue;
        r->flags |= PT_DROP;
        dropped++;
    }
    return dropped;
}

/* Packets that are left out pass unedited instead. Returns how many. */
static inline uint64_t pt_spare(pt_batch *b)
{
    uint64_t spared = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        if (!(b->record[k].flags & PT_DROP)) continue;
        b->record[k].flags = (uint8_t)((b->record[k].flags & ~PT_DROP) | PT_SKIP);
        spared++;
    }
    return spared;
}

/* ---- duplicates ---- */

typedef struct {
    uint64_t hash, number; /* hash 0: empty */
    int64_t time;
} pt_seen;

typedef struct {
    pt_seen *seen;
    uint64_t slots, used, number;
    uint64_t packets;      /* window, never 0 */
    int64_t time;          /* window in ns; 0: no limit */
    uint64_t duplicates, forgotten; /* forgotten: packets of the window in time that did not fit the one in packets */
} pt_dedup;

static inline uint64_t pt_hash_bytes(uint64_t h, const uint8_t *p, uint32_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x9fb21c651e98df25u;
        h ^= h >> 29;
    }
    for (; n; n--) h = (h ^ *p++) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* Of a packet from its IP header on, TTL and header checksum left out; of another, from its network header on. */
static inline uint64_t pt_likeness(const uint8_t *p, const pt_record *r, const pt_where *o)
{
    const pt_layer *l = &o->outer;
    uint32_t at = o->network != PT_NONE && o->network < r->caplen ? o->network : 0, end = r->caplen;
    uint64_t h = 0x2545f4914f6cdd1du;
    if (o->depth && r->caplen >= l->ip + (l->version == 4 ? 20 : 40)) {
        uint8_t header[40];
        uint32_t size = l->version == 4 ? 20 : 40;
        memcpy(header, p + l->ip, size);
        if (l->version == 4) header[8] = header[10] = header[11] = 0;
        else header[7] = 0;
        h = pt_hash_bytes(h, header, size);
        at = l->ip + size;
        if (l->end > at && l->end < end) end = l->end;
    } else {
        h = (h ^ r->wirelen) * 0x9fb21c651e98df25u;
    }
    h = pt_hash_bytes(h, p + at, end - at);
    return h ? h : 1;
}

static inline int pt_dedup_live(const pt_dedup *d, const pt_seen *s, int64_t now)
{
    if (d->number - s->number > d->packets) return 0;
    return !d->time || (now - s->time <= d->time && s->time - now <= d->time);
}

static inline pt_seen *pt_dedup_slot(pt_seen *seen, uint64_t slots, uint64_t hash)
{
    uint64_t at = hash & (slots - 1);
    while (seen[at].hash && seen[at].hash != hash) at = (at + 1) & (slots - 1);
    return &seen[at];
}

/* Forget what is outside the window; grow when that is not enough. 0: done, -1: no memory. */
static inline int pt_dedup_room(pt_dedup *d, int64_t now)
{
    uint64_t live = 0, slots = d->slots ? d->slots : 4096;
    pt_seen *seen;
    if (d->slots && d->used * 4 < d->slots * 3) return 0;
    for (uint64_t k = 0; k < d->slots; k++) {
        const pt_seen *s = &d->seen[k];
        int kept = s->hash && pt_dedup_live(d, s, now);
        live += (uint64_t)kept;
        if (s->hash && !kept && d->time && now - s->time <= d->time && s->time - now <= d->time) d->forgotten++;
    }
    while (live * 2 >= slots) slots *= 2;
    seen = calloc(slots, sizeof *seen);
    if (!seen) return -1;
    for (uint64_t k = 0; k < d->slots; k++)
        if (d->seen[k].hash && pt_dedup_live(d, &d->seen[k], now)) *pt_dedup_slot(seen, slots, d->seen[k].hash) = d->seen[k];
    free(d->seen);
    d->seen = seen;
    d->slots = slots;
    d->used = live;
    return 0;
}

/* Mark as dropped what was there before within the window; the batch is located. 0: done, -1: no memory. */
static inline int pt_drop_duplicates(pt_dedup *d, pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        uint64_t hash = pt_likeness(b->bytes + r->data, r, &b->where[k]);
        pt_seen *s;
        if (r->flags & PT_DROP) continue;
        d->number++;
        if (pt_dedup_room(d, r->time)) return -1;
        s = pt_dedup_slot(d->seen, d->slots, hash);
        if (s->hash && pt_dedup_live(d, s, r->time)) {
            r->flags |= PT_DROP;
            d->duplicates++;
        } else if (!s->hash) {
            d->used++;
        }
        s->hash = hash;
        s->number = d->number;
        s->time = r->time;
    }
    return 0;
}

#endif
