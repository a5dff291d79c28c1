/* Faults on purpose: loss, duplicates, swapped neighbours, jitter. Seeded: the same seed gives the same faults.
 *
 * Numbers come from splitmix64 (Steele, Lea, Flood 2014). A chance is a fraction of 2^32. */
#ifndef PT_IMPAIR_H
#define PT_IMPAIR_H

#include <math.h>

#include "interleave.h"
#include "pace.h"

typedef struct {
    uint64_t state;
    uint64_t loss, dup, swap; /* chances */
    uint64_t lost, duplicated, swapped;
} pt_impairment;

static inline uint64_t pt_draw(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static inline int pt_chance(uint64_t *state, uint64_t chance)
{
    return chance && (pt_draw(state) >> 32) < chance;
}

/* Copy the records of b to out, with faults. A swapped packet goes out behind its successor, at that one's time.
 * 0, or -1: no memory. */
static inline int pt_impair(pt_impairment *f, const pt_batch *b, pt_batch *out)
{
    int64_t waiting = -1; /* a record that lets the next one pass */
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        int copies = 1;
        if (r->flags & PT_DROP) continue;
        if (pt_chance(&f->state, f->loss)) {
            f->lost++;
            continue;
        }
        if (pt_chance(&f->state, f->dup)) {
            f->duplicated++;
            copies = 2;
        }
        if (waiting < 0 && copies == 1 && k + 1 < b->n && pt_chance(&f->state, f->swap)) {
            waiting = k;
            continue;
        }
        while (copies--)
            if (pt_push(out, b, k, r->interface, 0)) return -1;
        if (waiting >= 0) {
            if (pt_push(out, b, (uint32_t)waiting, b->record[waiting].interface, 0)) return -1;
            out->record[out->n - 1].time = r->time;
            f->swapped++;
            waiting = -1;
        }
    }
    return waiting >= 0 ? pt_push(out, b, (uint32_t)waiting, b->record[waiting].interface, 0) : 0;
}

enum pt_distribution { PT_UNIFORM, PT_NORMAL, PT_EXPONENTIAL };

/* Delays, ns: uniform from a to b, normal of mean a and deviation b, exponential of mean a; never less than 0. */
typedef struct {
    uint64_t state;
    uint8_t distribution;
    double a, b;
} pt_jitter;

/* A number above 0 and at most 1. */
static inline double pt_draw_unit(uint64_t *state) { return ((pt_draw(state) >> 11) + 1) * 0x1p-53; }

static inline int64_t pt_delay(pt_jitter *j)
{
    double u = pt_draw_unit(&j->state), delay;
    if (j->distribution == PT_UNIFORM) delay = j->a + (j->b - j->a) * u;
    else if (j->distribution == PT_EXPONENTIAL) delay = -j->a * log(u);
    else delay = j->a + j->b * sqrt(-2 * log(u)) * cos(6.283185307179586 * pt_draw_unit(&j->state));
    return delay <= 0 ? 0 : delay > 1e15 ? 1000000000000000 : (int64_t)delay;
}

/* Add a delay to every due time. */
static inline void pt_jitter_batch(pt_jitter *j, uint32_t from, uint32_t to, int64_t *due)
{
    for (uint32_t k = from; k < to; k++) due[k] = pt_clamped((__int128)due[k] + pt_delay(j));
}

#endif
