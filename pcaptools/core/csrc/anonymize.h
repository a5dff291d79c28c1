/* Keyed one-to-one mappings of addresses.
 *
 * Prefix-preserving, in the manner of Crypto-PAn (Xu, Fan, Ammar, Moon: Prefix-Preserving IP Address Anonymization, 2002):
 * bit i is flipped by a pseudo-random function of bits 0..i-1. That function is SipHash-2-4 (Aumasson, Bernstein, 2012),
 * one 64-bit value for a subtree of 6 levels. Random: a Feistel network of SipHash, repeated until the result is of the
 * same kind as the address. The kind of an address (class, multicast, link-local, unspecified) stays. */
#ifndef PT_ANONYMIZE_H
#define PT_ANONYMIZE_H

#include <stdint.h>
#include <string.h>

#include "batch.h"

enum pt_anonymity { PT_ANON_OFF, PT_ANON_PREFIX, PT_ANON_RANDOM };
enum pt_mac_anonymity { PT_MAC_KEEP, PT_MAC_VENDOR, PT_MAC_FULL };
enum { PT_ANON_CACHE = 1 << 13, PT_ANON_CACHE4 = 1 << 18, PT_ROUNDS = 8 };

typedef struct {
    uint8_t old[16], new[16];
    uint8_t size; /* 0: empty; 6: a MAC address */
} pt_anon_entry;

typedef struct {
    uint64_t key[2];
    uint8_t mode, macs;
    pt_anon_entry *cache; /* PT_ANON_CACHE of them */
    uint64_t *cache4;     /* PT_ANON_CACHE4 IPv4 addresses, old and new; NULL: none */
} pt_anonymizer;

static inline uint64_t pt_rotate(uint64_t v, int by) { return v << by | v >> (64 - by); }

static inline void pt_sip_round(uint64_t *v)
{
    v[0] += v[1], v[1] = pt_rotate(v[1], 13) ^ v[0], v[0] = pt_rotate(v[0], 32);
    v[2] += v[3], v[3] = pt_rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = pt_rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = pt_rotate(v[1], 17) ^ v[2], v[2] = pt_rotate(v[2], 32);
}

/* SipHash-2-4 of three words. */
static inline uint64_t pt_siphash(const uint64_t *key, uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t words[4] = {a, b, c, (uint64_t)24 << 56};
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    for (int k = 0; k < 4; k++) {
        v[3] ^= words[k];
        pt_sip_round(v);
        pt_sip_round(v);
        v[0] ^= words[k];
    }
    v[2] ^= 0xff;
    for (int k = 0; k < 4; k++) pt_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static inline int pt_bit(const uint8_t *a, int k) { return a[k >> 3] >> (7 - (k & 7)) & 1; }

/* The first n bits of an address, as a tweak. */
static inline void pt_prefix_words(const uint8_t *a, int n, uint64_t *words)
{
    uint8_t bytes[16] = {0};
    memcpy(bytes, a, (size_t)(n + 7) / 8);
    if (n & 7) bytes[n >> 3] &= (uint8_t)(0xff00u >> (n & 7));
    memcpy(words, bytes, 16);
}

/* Flip the bits from `fixed` to `bits`. */
static inline void pt_anon_prefix(const pt_anonymizer *z, const uint8_t *old, uint8_t *new, int bits, int fixed)
{
    uint64_t tree = 0, words[2];
    int node = 1;
    memcpy(new, old, (size_t)bits / 8);
    for (int k = fixed; k < bits; k++) {
        if ((k - fixed) % 6 == 0) {
            pt_prefix_words(old, k, words);
            tree = pt_siphash(z->key, words[0], words[1], (uint64_t)bits << 16 | (uint64_t)k);
            node = 1;
        }
        if (tree >> node & 1) new[k >> 3] ^= (uint8_t)(0x80 >> (k & 7));
        node = node * 2 + pt_bit(old, k);
    }
}

/* A permutation of the lowest 2 * half bits of (high, low). */
static inline void pt_feistel(const pt_anonymizer *z, uint64_t *high, uint64_t *low, int half, uint64_t tweak)
{
    const uint64_t mask = half == 64 ? ~(uint64_t)0 : ((uint64_t)1 << half) - 1;
    for (int k = 0; k < PT_ROUNDS; k++) {
        uint64_t next = (*high ^ pt_siphash(z->key, *low, tweak, (uint64_t)(half << 8 | k))) & mask;
        *high = *low;
        *low = next;
    }
}

/* Leading bits that tell the kind of an address and stay. */
static inline int pt_fixed_bits(const uint8_t *a, int version)
{
    if (version == 4) return a[0] < 0x80 ? 1 : a[0] < 0xc0 ? 2 : a[0] < 0xe0 ? 3 : 4;
    if (a[0] == 0xff) return 16;                            /* scope of a group */
    if (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) return 64;   /* link-local */
    return a[0] >> 5 == 7 ? 10 : 3;
}

/* Addresses that mean nobody or everybody. */
static inline int pt_nobody(const uint8_t *a, int version)
{
    static const uint8_t zero[16], ones[4] = {255, 255, 255, 255};
    if (version == 4) return !memcmp(a, zero, 4) || !memcmp(a, ones, 4) || (a[0] == 224 && !a[1] && !a[2]);
    return !memcmp(a, zero, 15) && a[15] <= 1;
}

static inline void pt_anon_random(const pt_anonymizer *z, const uint8_t *old, uint8_t *new, int bits, int fixed)
{
    const int half = (bits - fixed) / 2, odd = (bits - fixed) & 1, low_bits = bits - fixed - odd;
    uint64_t words[2], high = 0, low = 0;
    /* an odd bit joins the fixed ones and is permuted with the low bits as its tweak */
    for (int k = bits - low_bits; k < bits; k++) {
        uint64_t bit = (uint64_t)pt_bit(old, k);
        if (k < bits - half) high = high << 1 | bit;
        else low = low << 1 | bit;
    }
    pt_prefix_words(old, bits - low_bits, words);
    pt_feistel(z, &high, &low, half, words[0] ^ pt_rotate(words[1], 17));
    memcpy(new, old, (size_t)bits / 8);
    for (int k = 0; k < low_bits; k++) {
        int at = bits - 1 - k;
        uint64_t bit = k < half ? low >> k & 1 : high >> (k - half) & 1;
        new[at >> 3] = (uint8_t)((new[at >> 3] & ~(0x80 >> (at & 7))) | (int)bit << (7 - (at & 7)));
    }
    if (odd && (pt_siphash(z->key, high, low, 0x6f6464) & 1)) new[fixed >> 3] ^= (uint8_t)(0x80 >> (fixed & 7));
}

/* Random mode keeps no more of an address's class than that it is a group's, experimental or neither. */
static inline int pt_kind4(const uint8_t *a) { return a[0] >> 4 < 14 ? 0 : a[0] >> 4; }

static inline void pt_anon_address_slow(const pt_anonymizer *z, const uint8_t *old, uint8_t *new, int version)
{
    const int bits = version == 4 ? 32 : 128;
    uint8_t from[16];
    int fixed = pt_fixed_bits(old, version);
    memcpy(new, old, (size_t)bits / 8);
    if (pt_nobody(old, version)) return;
    if (z->mode == PT_ANON_RANDOM && version == 4 && fixed < 4) fixed = 0;
    do { /* walking the cycle keeps it one to one */
        memcpy(from, new, (size_t)bits / 8);
        if (z->mode == PT_ANON_PREFIX) pt_anon_prefix(z, from, new, bits, fixed);
        else pt_anon_random(z, from, new, bits, fixed);
    } while (pt_nobody(new, version) || (version == 4 && pt_kind4(new) != pt_kind4(old)));
}

static inline int pt_nobody_mac(const uint8_t *m)
{
    static const uint8_t zero[6];
    return (m[0] & 1) || !memcmp(m, zero, 6) || (!memcmp(m, "\x00\x00\x5e\x00", 4) && (m[4] == 1 || m[4] == 2));
}

static inline void pt_anon_mac_slow(const pt_anonymizer *z, const uint8_t *old, uint8_t *new)
{
    const int vendor = z->macs == PT_MAC_VENDOR;
    memcpy(new, old, 6);
    if (pt_nobody_mac(old)) return;
    do {
        uint64_t v = 0, high, low, tweak = 0;
        for (int k = 0; k < 6; k++) v = v << 8 | new[k];
        if (vendor) {
            tweak = v >> 24;
            high = v >> 12 & 0xfff;
            low = v & 0xfff;
            pt_feistel(z, &high, &low, 12, tweak | (uint64_t)1 << 40);
            v = (v & ~(uint64_t)0xffffff) | high << 12 | low;
        } else { /* the bits for "group" and "locally administered" stay */
            uint64_t rest = (v >> 42 << 40) | (v & 0xffffffffffu);
            high = rest >> 23;
            low = rest & 0x7fffff;
            tweak = v >> 40 & 3;
            pt_feistel(z, &high, &low, 23, tweak | (uint64_t)1 << 41);
            rest = high << 23 | low;
            v = (rest >> 40) << 42 | tweak << 40 | (rest & 0xffffffffffu);
        }
        for (int k = 5; k >= 0; k--, v >>= 8) new[k] = (uint8_t)v;
    } while (pt_nobody_mac(new));
}

/* The new address of an old one: 4 or 16 bytes, or 6 of a MAC address. */
static inline void pt_anon(pt_anonymizer *z, uint8_t *a, int size)
{
    uint64_t h = 0;
    uint32_t tail;
    pt_anon_entry *e;
    memcpy(&tail, a + size - 4, 4);
    if (size == 4 && z->cache4) {
        uint64_t *slot = &z->cache4[tail * 0x9e3779b1u >> 14];
        uint32_t new;
        if (*slot >> 32 != tail || !*slot) {
            uint8_t bytes[16];
            pt_anon_address_slow(z, a, bytes, 4);
            memcpy(&new, bytes, 4);
            *slot = (uint64_t)tail << 32 | new;
        }
        new = (uint32_t)*slot;
        memcpy(a, &new, 4);
        return;
    }
    h = (tail + (size == 16 ? (uint64_t)a[7] << 32 : 0)) * 0x9e3779b97f4a7c15u;
    e = &z->cache[(h >> 40) & (PT_ANON_CACHE - 1)];
    if (e->size != size || memcmp(e->old, a, (size_t)size)) {
        memcpy(e->old, a, (size_t)size);
        e->size = (uint8_t)size;
        if (size == 6) pt_anon_mac_slow(z, a, e->new);
        else pt_anon_address_slow(z, a, e->new, size == 4 ? 4 : 6);
    }
    memcpy(a, e->new, (size_t)size);
}

#endif
