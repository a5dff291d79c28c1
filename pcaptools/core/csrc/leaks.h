/* Addresses that were changed, and whether a payload still holds one of them, as bytes or as text. */
#ifndef PT_LEAKS_H
#define PT_LEAKS_H

#include <arpa/inet.h>

#include "batch.h"

enum { PT_LEAK_SLOTS = 1 << 16 };

typedef struct pt_leaks {
    uint8_t address[PT_LEAK_SLOTS][16];
    uint8_t size[PT_LEAK_SLOTS];   /* 0: empty */
    uint8_t starts[1 << 13];       /* a bit for each possible first 16 bits */
    uint32_t n;
    uint64_t full;                 /* addresses that found no room */
} pt_leaks;

static inline uint32_t pt_leak_hash(const uint8_t *a, uint32_t size)
{
    uint32_t first, last;
    memcpy(&first, a, 4);
    memcpy(&last, a + size - 4, 4);
    return (uint32_t)((first * 0x9e3779b97f4a7c15u ^ last * 0xc2b2ae3d27d4eb4fu) >> 20) & (PT_LEAK_SLOTS - 1);
}

static inline int pt_leaks_has(const pt_leaks *k, const uint8_t *a, uint32_t size)
{
    for (uint32_t at = pt_leak_hash(a, size); k->size[at]; at = (at + 1) & (PT_LEAK_SLOTS - 1))
        if (k->size[at] == size && !memcmp(k->address[at], a, size)) return 1;
    return 0;
}

static inline void pt_leaks_add(pt_leaks *k, const uint8_t *a, uint32_t size)
{
    uint32_t at = pt_leak_hash(a, size);
    uint16_t start = (uint16_t)(a[0] << 8 | a[1]);
    if (pt_leaks_has(k, a, size)) return;
    if (k->n >= PT_LEAK_SLOTS * 3 / 4) {
        k->full++;
        return;
    }
    while (k->size[at]) at = (at + 1) & (PT_LEAK_SLOTS - 1);
    memcpy(k->address[at], a, size);
    k->size[at] = (uint8_t)size;
    k->starts[start >> 3] |= (uint8_t)(1 << (start & 7));
    k->n++;
}

static inline int pt_is_address_text(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '.' || c == ':';
}

static inline int pt_leaks_text(const pt_leaks *k, const uint8_t *p, uint32_t n)
{
    for (uint32_t at = 0; at < n; at++) {
        char word[46];
        uint8_t address[16];
        uint32_t size = 0;
        while (at + size < n && pt_is_address_text(p[at + size])) size++;
        if (size >= 2 && size < 46) {
            memcpy(word, p + at, size);
            while (size && (word[size - 1] == '.' || (word[size - 1] == ':' && (size < 2 || word[size - 2] != ':')))) size--;
            word[size] = 0;
            if (inet_pton(AF_INET, word, address) == 1 && pt_leaks_has(k, address, 4)) return 1;
            if (inet_pton(AF_INET6, word, address) == 1 && pt_leaks_has(k, address, 16)) return 1;
            if (strchr(word, '.') && strchr(word, ':')) { /* address:port */
                *strchr(word, ':') = 0;
                if (inet_pton(AF_INET, word, address) == 1 && pt_leaks_has(k, address, 4)) return 1;
            }
        }
        at += size;
    }
    return 0;
}

/* Whether n bytes hold a changed address. */
static inline int pt_leaks_in(const pt_leaks *k, const uint8_t *p, uint32_t n)
{
    for (uint32_t at = 0; at + 4 <= n; at++) {
        uint16_t start = (uint16_t)(p[at] << 8 | p[at + 1]);
        if (!(k->starts[start >> 3] >> (start & 7) & 1)) continue;
        if (pt_leaks_has(k, p + at, 4) || (at + 16 <= n && pt_leaks_has(k, p + at, 16))) return 1;
    }
    return pt_leaks_text(k, p, n);
}

#endif
