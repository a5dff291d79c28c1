/* A large map of networks: the longest prefix that contains an address decides. */
#ifndef PT_NETMAP_H
#define PT_NETMAP_H

#include <arpa/inet.h>

#include "batch.h"

/* One IP version: the pairs, their prefix lengths, and a hash index over (network, length). */
typedef struct {
    uint8_t *pair;          /* of 2 * size bytes each */
    uint8_t *lengths;       /* two a pair: from, to */
    uint32_t n, room, slots, *slot; /* slot: number of a pair + 1 */
    uint8_t size;           /* bytes of an address */
    uint8_t present[129];   /* prefix lengths that occur */
    uint8_t order[129];     /* those, the longest first */
    uint32_t orders;
} pt_netmap_part;

typedef struct {
    pt_netmap_part v4, v6;
    uint64_t overlaps, line; /* entries of the same network as an earlier one; line of the first bad entry, 0: none */
} pt_netmap;

static inline void pt_netmap_mask(uint8_t *a, uint32_t size, uint32_t bits)
{
    for (uint32_t k = 0; k < size; k++) {
        uint32_t keep = bits >= 8 * k + 8 ? 8 : bits > 8 * k ? bits - 8 * k : 0;
        a[k] &= (uint8_t)(0xff00u >> keep);
    }
}

static inline uint32_t *pt_netmap_slot(const pt_netmap_part *t, const uint8_t *net, uint32_t length)
{
    uint64_t h = length * 0x9e3779b97f4a7c15u;
    uint32_t at;
    for (uint32_t k = 0; k < t->size; k += 4) {
        uint32_t w;
        memcpy(&w, net + k, 4);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 29;
    }
    for (at = (uint32_t)(h >> 16) & (t->slots - 1);; at = (at + 1) & (t->slots - 1)) {
        uint32_t pair = t->slot[at];
        if (!pair) return &t->slot[at];
        if (t->lengths[2 * (pair - 1)] == length && !memcmp(t->pair + (size_t)(pair - 1) * 2 * t->size, net, t->size))
            return &t->slot[at];
    }
}

static inline int pt_netmap_grow(pt_netmap_part *t)
{
    if (t->n == t->room) {
        uint32_t room = t->room ? t->room * 2 : 1024;
        uint8_t *pair = realloc(t->pair, (size_t)room * 2 * t->size), *lengths;
        if (!pair) return -1;
        t->pair = pair;
        lengths = realloc(t->lengths, (size_t)room * 2);
        if (!lengths) return -1;
        t->lengths = lengths;
        t->room = room;
    }
    if ((uint64_t)t->n * 2 >= t->slots) {
        uint32_t slots = t->slots ? t->slots * 2 : 2048;
        free(t->slot);
        t->slot = calloc(slots, sizeof *t->slot);
        t->slots = slots;
        if (!t->slot) return -1;
        for (uint32_t k = 0; k < t->n; k++)
            *pt_netmap_slot(t, t->pair + (size_t)k * 2 * t->size, t->lengths[2 * k]) = k + 1;
    }
    return 0;
}

/* 0: added, 1: there was one for this network (which stays), -1: no memory. */
static inline int pt_netmap_add(pt_netmap_part *t, const uint8_t *from, uint32_t from_length, const uint8_t *to,
                                uint32_t to_length)
{
    uint8_t *pair;
    uint32_t *slot;
    if (pt_netmap_grow(t)) return -1;
    slot = pt_netmap_slot(t, from, from_length);
    if (*slot) return 1;
    pair = t->pair + (size_t)t->n * 2 * t->size;
    memcpy(pair, from, t->size);
    memcpy(pair + t->size, to, t->size);
    t->lengths[2 * t->n] = (uint8_t)from_length;
    t->lengths[2 * t->n + 1] = (uint8_t)to_length;
    *slot = ++t->n;
    if (t->present[from_length]) return 0;
    t->present[from_length] = 1;
    t->orders = 0;
    for (int bits = 128; bits >= 0; bits--)
        if (t->present[bits]) t->order[t->orders++] = (uint8_t)bits;
    return 0;
}

/* One address or network of text, masked; 0: it is none. */
static inline int pt_netmap_network(const char *text, size_t n, uint8_t *address, uint32_t *length, int *version)
{
    char copy[64], *slash;
    long bits = -1;
    while (n && (*text == ' ' || *text == '\t' || *text == '"' || *text == '[')) text++, n--;
    while (n && (text[n - 1] == ' ' || text[n - 1] == '\t' || text[n - 1] == '"' || text[n - 1] == ']')) n--;
    if (!n || n >= sizeof copy) return 0;
    memcpy(copy, text, n);
    copy[n] = 0;
    slash = strchr(copy, '/');
    if (slash) {
        char *end;
        *slash = 0;
        if (slash[1] < '0' || slash[1] > '9') return 0;
        bits = strtol(slash + 1, &end, 10);
        if (*end) return 0;
        if (slash > copy && slash[-1] == ']') slash[-1] = 0;
    }
    memset(address, 0, 16);
    if (inet_pton(AF_INET, copy, address) == 1) *version = 4;
    else if (inet_pton(AF_INET6, copy, address) == 1) *version = 6;
    else return 0;
    if (bits < 0) bits = *version == 4 ? 32 : 128;
    if (bits > (*version == 4 ? 32 : 128)) return 0;
    *length = (uint32_t)bits;
    pt_netmap_mask(address, *version == 4 ? 4 : 16, *length);
    return 1;
}

/* Lines of `from,to`. 0: all of them, 1: t->line is wrong, -1: no memory. */
static inline int pt_netmap_read(pt_netmap *t, const char *text, size_t size)
{
    uint64_t line = 0;
    const char *end = text + size, *stop;
    for (const char *p = text; p < end; p = stop + 1) {
        const char *comma;
        uint8_t from[16], to[16];
        uint32_t lengths[2];
        int versions[2], verdict;
        pt_netmap_part *part;
        size_t n;
        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        n = (size_t)(stop - p);
        line++;
        while (n && (p[n - 1] == '\r' || p[n - 1] == ' ')) n--;
        if (!n || *p == '#') continue;
        comma = memchr(p, ',', n);
        if (!comma || !pt_netmap_network(p, (size_t)(comma - p), from, &lengths[0], &versions[0]) ||
            !pt_netmap_network(comma + 1, (size_t)(p + n - comma - 1), to, &lengths[1], &versions[1]) ||
            versions[0] != versions[1]) {
            if (line == 1) continue; /* a title */
            t->line = line;
            return 1;
        }
        part = versions[0] == 4 ? &t->v4 : &t->v6;
        part->size = versions[0] == 4 ? 4 : 16;
        verdict = pt_netmap_add(part, from, lengths[0], to, lengths[1]);
        if (verdict < 0) return -1;
        t->overlaps += (uint64_t)verdict;
    }
    return 0;
}

/* Map an address in place. Returns whether an entry contains it. */
static inline int pt_netmap_map(const pt_netmap_part *t, uint8_t *a)
{
    for (uint32_t k = 0; t->n && k < t->orders; k++) {
        uint8_t net[16];
        uint32_t pair;
        memcpy(net, a, t->size);
        pt_netmap_mask(net, t->size, t->order[k]);
        pair = *pt_netmap_slot(t, net, t->order[k]);
        if (!pair) continue;
        memcpy(net, t->pair + (size_t)(pair - 1) * 2 * t->size + t->size, t->size);
        for (uint32_t i = 0, bits = t->lengths[2 * (pair - 1) + 1]; i < t->size; i++) {
            uint32_t keep = bits >= 8 * i + 8 ? 8 : bits > 8 * i ? bits - 8 * i : 0;
            uint8_t mask = (uint8_t)(0xff00u >> keep);
            a[i] = (uint8_t)((net[i] & mask) | (a[i] & ~mask));
        }
        return 1;
    }
    return 0;
}

static inline void pt_netmap_free(pt_netmap *t)
{
    free(t->v4.pair), free(t->v4.lengths), free(t->v4.slot);
    free(t->v6.pair), free(t->v6.lengths), free(t->v6.slot);
}

#endif
