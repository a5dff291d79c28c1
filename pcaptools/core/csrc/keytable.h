/* Rows that a key finds: open addressing over (hash, row) pairs. The hash only chooses where to look, the whole key is
 * compared. */
#ifndef PT_KEYTABLE_H
#define PT_KEYTABLE_H

#include "batch.h"

typedef struct {
    uint32_t hash, row; /* row + 1; 0: free */
} pt_slot;

typedef struct {
    uint8_t *rows;
    pt_slot *slot;
    size_t stride, key; /* bytes of a row and of the key at its start, a multiple of 8 */
    uint32_t n, room, slots, used;
    uint64_t seed;
} pt_keytable;

static inline uint32_t pt_key_hash(const void *key, size_t size, uint64_t seed)
{
    const uint8_t *p = key;
    uint64_t h = seed ^ 0x9e3779b97f4a7c15u, word;
    for (size_t k = 0; k < size; k += 8) {
        memcpy(&word, p + k, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (uint32_t)(h ^ h >> 29);
}

static inline void *pt_row(const pt_keytable *t, uint32_t row) { return t->rows + (size_t)row * t->stride; }

static inline pt_slot *pt_find_slot(const pt_keytable *t, const void *key, uint32_t hash)
{
    uint32_t at = hash & (t->slots - 1);
    while (t->slot[at].row) {
        if (t->slot[at].hash == hash && !memcmp(pt_row(t, t->slot[at].row - 1), key, t->key)) break;
        at = (at + 1) & (t->slots - 1);
    }
    return &t->slot[at];
}

/* PT_NONE: not there. */
static inline uint32_t pt_find(const pt_keytable *t, const void *key)
{
    const pt_slot *slot;
    if (!t->slots) return PT_NONE;
    slot = pt_find_slot(t, key, pt_key_hash(key, t->key, t->seed));
    return slot->row ? slot->row - 1 : PT_NONE;
}

/* Twice as many slots. */
static inline int pt_more_slots(pt_keytable *t)
{
    uint32_t slots = t->slots ? t->slots * 2 : 1024;
    pt_slot *slot;
    if (!slots || !(slot = calloc(slots, sizeof *slot))) return -1;
    for (uint32_t k = 0; k < t->slots; k++) {
        uint32_t at = t->slot[k].hash & (slots - 1);
        if (!t->slot[k].row) continue;
        while (slot[at].row) at = (at + 1) & (slots - 1);
        slot[at] = t->slot[k];
    }
    free(t->slot);
    t->slot = slot;
    t->slots = slots;
    return 0;
}

/* A zeroed row that no key leads to yet; PT_NONE: no memory. */
static inline uint32_t pt_add_row(pt_keytable *t)
{
    if (t->n == t->room) {
        uint32_t room = t->room ? t->room * 2 : 256;
        uint8_t *rows = room > t->room ? realloc(t->rows, (size_t)room * t->stride) : NULL;
        if (!rows) return PT_NONE;
        t->rows = rows;
        t->room = room;
    }
    memset(pt_row(t, t->n), 0, t->stride);
    return t->n++;
}

/* Let the key at the start of a row lead to it, instead of to whatever it led to. 0: done, -1: no memory. */
static inline int pt_enter(pt_keytable *t, uint32_t row)
{
    const void *key = pt_row(t, row);
    uint32_t hash = pt_key_hash(key, t->key, t->seed);
    pt_slot *slot;
    if (t->used + 1 > t->slots / 2 && pt_more_slots(t)) return -1;
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
    free(t->rows);
    free(t->slot);
}

#endif
