/* Who talks to whom: a table of conversations, or of endpoints, with exact keys and bounded memory.
 *
 * When the table is full, the half that is smallest by the chosen measure moves into `other`: totals stay exact, and
 * what a row may lack is at most the sum of the measures at which the table was cut (`lost`). */
#ifndef PT_TALKERS_H
#define PT_TALKERS_H

#include "ends.h"
#include "headers.h"
#include "stats.h"

enum pt_talk_measures { PT_TALK_BYTES, PT_TALK_PACKETS, PT_TALK_TIME };

enum { PT_TALK_KEY = 38 }; /* bytes that tell two rows apart */

typedef struct {
    uint8_t address[2][16]; /* IPv4 in the first 4 bytes; of endpoints only the first one */
    uint16_t port[2];
    uint8_t version, protocol;
    uint8_t flipped;        /* the first packet went from the second to the first */
    uint8_t timed;          /* a packet had a time: first and last mean something */
} pt_talk_key;

typedef struct {
    pt_talk_key key;
    uint64_t packets[2], bytes[2]; /* from the first to the second, and back; of endpoints: sent and received */
    int64_t first, last;           /* ns */
} pt_talk;

typedef struct {
    pt_talk *row;
    uint32_t *slot;           /* 1 + index into row; 0: free */
    uint32_t n, room, slots, limit;
    uint64_t seed;
    uint64_t other_rows, other_packets[2], other_bytes[2], lost;
    uint64_t no_ip_packets, no_ip_bytes;
    uint8_t endpoints, by;    /* enum pt_talk_measures */
} pt_talkers;

static inline uint64_t pt_talk_hash(const pt_talk_key *key, uint64_t seed)
{
    uint8_t bytes[40] = {0};
    uint64_t h = seed, word;
    memcpy(bytes, key, PT_TALK_KEY);
    for (int k = 0; k < 40; k += 8) {
        memcpy(&word, bytes + k, 8);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static inline uint64_t pt_talk_measure(const pt_talk *row, int by)
{
    if (by == PT_TALK_TIME) return (uint64_t)row->last - (uint64_t)row->first;
    if (by == PT_TALK_PACKETS) return row->packets[0] + row->packets[1];
    return row->bytes[0] + row->bytes[1];
}

static inline int pt_compare_measures(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static inline void pt_talkers_index(pt_talkers *t)
{
    memset(t->slot, 0, t->slots * sizeof *t->slot);
    for (uint32_t k = 0; k < t->n; k++) {
        uint32_t at = (uint32_t)pt_talk_hash(&t->row[k].key, t->seed) & (t->slots - 1);
        while (t->slot[at]) at = (at + 1) & (t->slots - 1);
        t->slot[at] = k + 1;
    }
}

/* Move the smaller half into `other`. 0: done, -1: no memory. */
static inline int pt_talkers_purge(pt_talkers *t)
{
    uint64_t *measure = malloc(t->n * sizeof *measure), limit;
    uint32_t kept = 0;
    if (!measure) return -1;
    for (uint32_t k = 0; k < t->n; k++) measure[k] = pt_talk_measure(&t->row[k], t->by);
    qsort(measure, t->n, sizeof *measure, pt_compare_measures);
    limit = measure[t->n / 2];
    free(measure);
    for (uint32_t k = 0; k < t->n; k++) {
        const pt_talk *row = &t->row[k];
        if (pt_talk_measure(row, t->by) > limit) {
            t->row[kept++] = *row;
            continue;
        }
        t->other_rows++;
        for (int way = 0; way < 2; way++) {
            t->other_packets[way] += row->packets[way];
            t->other_bytes[way] += row->bytes[way];
        }
    }
    t->n = kept;
    t->lost += limit;
    pt_talkers_index(t);
    return 0;
}

/* Room for one more row. 0: done, -1: no memory. */
static inline int pt_talkers_grow(pt_talkers *t)
{
    uint32_t room = t->room ? t->room * 2 : 256;
    pt_talk *row;
    uint32_t *slot;
    if (t->n >= t->limit) return pt_talkers_purge(t);
    if (t->n < t->room) return 0;
    row = realloc(t->row, room * sizeof *row);
    if (!row) return -1;
    t->row = row;
    slot = realloc(t->slot, 2 * room * sizeof *slot);
    if (!slot) return -1;
    t->slot = slot;
    t->room = room;
    t->slots = 2 * room;
    pt_talkers_index(t);
    return 0;
}

/* The row of a key, a new one if there is none; NULL: no memory. */
static inline pt_talk *pt_talkers_row(pt_talkers *t, const pt_talk_key *key)
{
    uint64_t hash = pt_talk_hash(key, t->seed);
    uint32_t at;
    pt_talk *row;
    if (t->slots) {
        for (at = (uint32_t)hash & (t->slots - 1); t->slot[at]; at = (at + 1) & (t->slots - 1)) {
            row = &t->row[t->slot[at] - 1];
            if (!memcmp(&row->key, key, PT_TALK_KEY)) return row;
        }
    }
    if (pt_talkers_grow(t)) return NULL;
    for (at = (uint32_t)hash & (t->slots - 1); t->slot[at];) at = (at + 1) & (t->slots - 1);
    row = &t->row[t->n++];
    t->slot[at] = t->n;
    memset(row, 0, sizeof *row);
    row->key = *key;
    return row;
}

static inline int pt_talkers_count(pt_talkers *t, const pt_talk_key *key, int way, const pt_record *r, int timed)
{
    pt_talk *row = pt_talkers_row(t, key);
    if (!row) return -1;
    row->packets[way]++;
    row->bytes[way] += r->wirelen;
    if (!timed) return 0;
    if (!row->key.timed || r->time < row->first) row->first = r->time;
    if (!row->key.timed || r->time > row->last) row->last = r->time;
    row->key.timed = 1;
    return 0;
}

/* Addresses, ports and protocol of the innermost IP layer. 0: it has none, or they were not captured. */
static inline int pt_talk_key_of(const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_talk_key *key)
{
    const uint32_t size = l->version == 6 ? 16 : 4, at = l->ip + (l->version == 6 ? 8 : 12);
    memset(key, 0, sizeof *key);
    if (!l->version || l->ip == PT_NONE || at + 2 * size > caplen) return 0;
    if (l->status == PT_MALFORMED && l->transport == PT_NONE && p[l->ip] >> 4 != l->version) return 0;
    memcpy(key->address[0], p + at, size);
    memcpy(key->address[1], p + at + size, size);
    key->version = l->version;
    key->protocol = l->protocol;
    if (l->transport != PT_NONE && l->transport + 4 <= caplen) {
        switch (l->protocol) {
        case PT_TCP: case PT_UDP: case PT_SCTP: case PT_DCCP: case PT_UDPLITE:
            key->port[0] = pt_net16(p + l->transport);
            key->port[1] = pt_net16(p + l->transport + 2);
        }
    }
    return 1;
}

static inline int pt_talkers_endpoints(pt_talkers *t, const pt_talk_key *both, const pt_record *r, int timed)
{
    for (int way = 0; way < 2; way++) {
        pt_talk_key key;
        memset(&key, 0, sizeof key);
        memcpy(key.address[0], both->address[way], 16);
        key.version = both->version;
        if (pt_talkers_count(t, &key, way, r, timed)) return -1;
    }
    return 0;
}

static inline int pt_talkers_conversation(pt_talkers *t, pt_talk_key *key, const pt_record *r, int timed)
{
    const int way = pt_ends_reversed(key->address, key->port);
    if (way) {
        pt_swap_ends(key->address, key->port);
        key->flipped = 1;
    }
    return pt_talkers_count(t, key, way, r, timed);
}

/* The headers of the batch must be located. 0: done, -1: no memory. */
static inline int pt_talkers_batch(pt_talkers *t, const pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        pt_talk_key key;
        int verdict;
        if (!pt_talk_key_of(b->bytes + r->data, r->caplen, &b->where[k].inner, &key)) {
            t->no_ip_packets++;
            t->no_ip_bytes += r->wirelen;
            continue;
        }
        if (t->endpoints) verdict = pt_talkers_endpoints(t, &key, r, !pt_is_untimed(b, r));
        else verdict = pt_talkers_conversation(t, &key, r, !pt_is_untimed(b, r));
        if (verdict) return verdict;
    }
    return 0;
}

static inline void pt_talkers_free(pt_talkers *t)
{
    free(t->row);
    free(t->slot);
}

#endif
