/* Rows that a key finds: open addressing over (hash, row) pairs. The hash only chooses where to look, the whole key is
 * compared. Rows stay where they are, at multiples of a cache line where their size is one. */
#ifndef PT_KEYTABLE_H
#define PT_KEYTABLE_H

#include "batch.h"

#if defined(__GNUC__)
#define PT_PREFETCH(p) __builtin_prefetch(p)
#else
#define PT_PREFETCH(p) ((void)(p))
#endif

enum { PT_CHUNK_BITS = 10, PT_CHUNK_ROWS = 1 << PT_CHUNK_BITS, PT_CACHE_LINE = 64 };

typedef struct {
    uint32_t hash, row; /* row + 1; 0: free */
} pt_slot;

typedef struct {
    uint8_t **chunk;    /* of PT_CHUNK_ROWS rows each */
    pt_slot *slot;
    size_t stride, key; /* bytes of a row and of the key at its start, multiples of 8 */
    uint32_t n, chunks, chunk_room, slots, used;
    uint64_t seed;
} pt_keytable;

static inline uint64_t pt_key_word(const void *key, size_t at)
{
    uint64_t word;
    memcpy(&word, (const uint8_t *)key + at, 8);
    return word;
}

/* Two lanes, because each step waits for the one before. */
static inline uint32_t pt_key_hash(const void *key, size_t size, uint64_t seed)
{
    uint64_t a = seed ^ 0x9e3779b97f4a7c15u, b = ~seed;
    for (size_t k = 0; k < size; k += 16) {
        a = (a ^ pt_key_word(key, k)) * 0xff51afd7ed558ccdu;
        a ^= a >> 32;
        b = (b ^ (k + 8 < size ? pt_key_word(key, k + 8) : 0)) * 0xc4ceb9fe1a85ec53u;
        b ^= b >> 29;
    }
    a = (a ^ (b << 32 | b >> 32)) * 0x9fb21c651e98df25u;
    return (uint32_t)(a ^ a >> 32);
}

static inline int pt_same_key(const void *one, const void *other, size_t size)
{
    uint64_t unlike = 0;
    for (size_t k = 0; k < size; k += 8) unlike |= pt_key_word(one, k) ^ pt_key_word(other, k);
    return !unlike;
}

static inline void *pt_row(const pt_keytable *t, uint32_t row)
{
    return t->chunk[row >> PT_CHUNK_BITS] + (row & (PT_CHUNK_ROWS - 1)) * t->stride;
}

static inline pt_slot *pt_find_slot(const pt_keytable *t, const void *key, uint32_t hash)
{
    uint32_t at = hash & (t->slots - 1);
    while (t->slot[at].row) {
        if (t->slot[at].hash == hash && pt_same_key(pt_row(t, t->slot[at].row - 1), key, t->key)) break;
        at = (at + 1) & (t->slots - 1);
    }
    return &t->slot[at];
}

/* The row of a key with a known hash; PT_NONE: not there. */
static inline uint32_t pt_find_hashed(const pt_keytable *t, const void *key, uint32_t hash)
{
    const pt_slot *slot;
    if (!t->slots) return PT_NONE;
    slot = pt_find_slot(t, key, hash);
    return slot->row ? slot->row - 1 : PT_NONE;
}

static inline uint32_t pt_find(const pt_keytable *t, const void *key)
{
    return pt_find_hashed(t, key, pt_key_hash(key, t->key, t->seed));
}

/* Twice as many slots. 0: done, -1: no memory. */
static inline int pt_more_slots(pt_slot **of, uint32_t *count)
{
    const uint32_t slots = *count ? *count * 2 : 1024;
    pt_slot *slot = slots ? calloc(slots, sizeof *slot) : NULL;
    if (!slot) return -1;
    for (uint32_t k = 0; k < *count; k++) {
        uint32_t at = (*of)[k].hash & (slots - 1);
        if (!(*of)[k].row) continue;
        while (slot[at].row) at = (at + 1) & (slots - 1);
        slot[at] = (*of)[k];
    }
    free(*of);
    *of = slot;
    *count = slots;
    return 0;
}

static inline int pt_more_rows(pt_keytable *t)
{
    void *rows;
    if (t->chunks == t->chunk_room) {
        const uint32_t room = t->chunk_room ? t->chunk_room * 2 : 16;
        uint8_t **chunk = realloc(t->chunk, room * sizeof *chunk);
        if (!chunk) return -1;
        t->chunk = chunk;
        t->chunk_room = room;
    }
    if (t->chunks == PT_NONE >> PT_CHUNK_BITS) return -1;
    if (posix_memalign(&rows, PT_CACHE_LINE, PT_CHUNK_ROWS * t->stride)) return -1;
    t->chunk[t->chunks++] = rows;
    return 0;
}

/* A zeroed row that no key leads to yet; PT_NONE: no memory. */
static inline uint32_t pt_add_row(pt_keytable *t)
{
    if (t->n == t->chunks << PT_CHUNK_BITS && pt_more_rows(t)) return PT_NONE;
    memset(pt_row(t, t->n), 0, t->stride);
    return t->n++;
}

/* Let the key at the start of a row lead to it, instead of to whatever it led to. 0: done, -1: no memory. */
static inline int pt_enter(pt_keytable *t, uint32_t row)
{
    const void *key = pt_row(t, row);
    uint32_t hash = pt_key_hash(key, t->key, t->seed);
    pt_slot *slot;
    if (t->used + 1 > t->slots / 2 && pt_more_slots(&t->slot, &t->slots)) return -1;
    slot = pt_find_slot(t, key, hash);
    t->used += !slot->row;
    slot->hash = hash;
    slot->row = row + 1;
    return 0;
}

/* The row of a key, made when it is not there; PT_NONE: no memory. */
static inline uint32_t pt_obtain(pt_keytable *t, const void *key)
{
    uint32_t row = pt_find(t, key);
    if (row != PT_NONE) return row;
    row = pt_add_row(t);
    if (row == PT_NONE) return PT_NONE;
    memcpy(pt_row(t, row), key, t->key);
    return pt_enter(t, row) ? PT_NONE : row;
}

static inline void pt_keytable_free(pt_keytable *t)
{
    for (uint32_t k = 0; k < t->chunks; k++) free(t->chunk[k]);
    free(t->chunk);
    free(t->slot);
}

#endif
