/* What tcprewrite's options mean for single fields, apart from where those stand: ports, TTL, the generators behind
 * --seed, --enet-mac-seed, --tcp-sequence and --fuzz-seed, group MAC addresses. */
#ifndef PT_MANGLE_H
#define PT_MANGLE_H

#include "checksums.h"

enum pt_ttl { PT_TTL_KEEP, PT_TTL_SET, PT_TTL_ADD, PT_TTL_SUBTRACT };
enum pt_vlan { PT_VLAN_KEEP, PT_VLAN_ADD, PT_VLAN_DEL };
enum pt_fuzzed { PT_FUZZ_NOTHING, PT_FUZZ_DROP, PT_FUZZ_CUT, PT_FUZZ_BYTES };

/* Ports first to last become `to`. */
typedef struct {
    uint16_t first, last, to;
    uint64_t matched, packets, packet; /* ports; packets; number of the last one */
} pt_port_rule;

/* The first rule that fits decides. packet: number of the packet, from 1. */
static inline uint16_t pt_new_port(pt_port_rule *rule, uint32_t n, uint16_t port, uint64_t packet, uint64_t *matched)
{
    for (uint32_t k = 0; k < n; k++) {
        if (port < rule[k].first || port > rule[k].last) continue;
        rule[k].matched++;
        if (rule[k].packet != packet) rule[k].packet = packet, rule[k].packets++;
        ++*matched;
        return rule[k].to;
    }
    return port;
}

static inline uint8_t pt_new_ttl(uint8_t ttl, int mode, uint32_t by)
{
    if (mode == PT_TTL_SET) return (uint8_t)by;
    if (mode == PT_TTL_ADD) return (uint8_t)(ttl + by > 255 ? 255 : ttl + by);
    if (mode == PT_TTL_SUBTRACT) return (uint8_t)(ttl <= by ? 1 : ttl - by);
    return ttl;
}

static inline void pt_put_tclass(uint8_t *ip, uint8_t value)
{
    ip[0] = (uint8_t)((ip[0] & 0xf0) | value >> 4);
    ip[1] = (uint8_t)((ip[1] & 0x0f) | value << 4);
}

static inline void pt_put_flowlabel(uint8_t *ip, uint32_t value)
{
    ip[1] = (uint8_t)((ip[1] & 0xf0) | (value >> 16 & 15));
    pt_put_net16(ip + 2, (uint16_t)value);
}

/* Add to the sequence numbers of the TCP header at `at`, to those of SACK (RFC 2018) too; of a header that is not all
 * there, to what is. At least 8 bytes are. */
static inline int pt_shift_sequence(uint8_t *p, uint32_t limit, uint32_t at, uint32_t by, uint64_t *delta)
{
    uint8_t old[60];
    uint32_t size = 8, option = at + 20, end;
    if (limit >= at + 20) {
        size = (p[at + 12] >> 4) * 4u;
        if (size < 20 || at + size > limit) size = 20;
    }
    end = at + size;
    memcpy(old, p + at, size);
    pt_put_net32(p + at + 4, pt_net32(p + at + 4) + by);
    if (size >= 20 && !((p[at + 13] & 2) && !(p[at + 13] & 16))) pt_put_net32(p + at + 8, pt_net32(p + at + 8) + by);
    while (option + 1 < end && p[option]) {
        uint32_t length = p[option] == 1 ? 1 : p[option + 1];
        if (!length || (p[option] != 1 && length < 2) || option + length > end) break;
        if (p[option] == 5)
            for (uint32_t edge = option + 2; edge + 4 <= option + length; edge += 4)
                pt_put_net32(p + edge, pt_net32(p + edge) + by);
        option += length;
    }
    *delta += pt_delta(old, p + at, size);
    return memcmp(old, p + at, size) != 0;
}

/* tcprewrite's generator of random numbers. */
static inline uint32_t pt_tr_random(uint32_t *state)
{
    uint32_t result = 0;
    for (int k = 0; k < 3; k++) {
        uint32_t value;
        *state = *state * 1103515245u + 12345u;
        value = *state / 65536u;
        result = k ? result << 10 ^ value % 1024u : value % 2048u;
    }
    return result;
}

/* A seed after mixing: the state, and in last the number that was drawn last. */
static inline uint32_t pt_tr_mixed(uint32_t seed, uint32_t *last)
{
    uint32_t state = seed;
    for (int k = 0; k < 5; k++) *last = pt_tr_random(&state);
    return state;
}

static inline uint32_t pt_seed_word(uint32_t word, uint32_t seed) { return (word ^ seed) - (word & seed); }

/* --seed. An address stays of the group kind or of the other. */
static inline void pt_seed_address(uint8_t *a, int version, uint32_t seed)
{
    const uint32_t k = pt_swap32(seed);
    const int words = version == 4 ? 1 : 4;
    const int group = version == 4 ? a[0] >> 4 == 14 : a[0] == 0xff;
    for (int w = 0; w < words; w++) {
        uint8_t *b = a + 4 * w;
        uint32_t x = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        x = pt_seed_word(x, k);
        for (int i = 0; i < 4; i++) b[i] = (uint8_t)(x >> 8 * i);
    }
    if (version == 4) {
        if (group && a[0] >> 4 != 14) a[0] = (uint8_t)(0xe0 | (a[0] & 15));
        if (!group && a[0] >> 4 == 14) a[0] &= 0x7f;
    } else {
        if (group && a[0] != 0xff) a[0] = 0xff;
        if (!group && a[0] == 0xff) a[0] = 0xaa;
    }
}

static inline void pt_mac_mask(uint32_t seed, uint8_t *mask)
{
    for (int k = 0; k < 6; k++) {
        int again;
        do {
            again = 0;
            mask[k] = (uint8_t)pt_tr_random(&seed);
            for (int j = 0; j < k; j++) again |= mask[j] == mask[k];
        } while (again);
    }
}

/* --enet-mac-seed. */
static inline void pt_seed_mac(uint8_t *mac, const uint8_t *mask, int keep, int fixed)
{
    for (int k = keep; k < 6; k++) {
        uint8_t m = fixed ? 0 : mask[k];
        mac[k] = (uint8_t)((mac[k] ^ m) - (mac[k] & m));
    }
    if (!keep && !fixed) mac[0] &= 0xfe;
}

/* --fuzz-seed: what r does to a payload of n bytes of which `have` are there. whole: the packet was not cut. */
static inline int pt_fuzz(uint8_t *p, uint32_t have, uint32_t n, uint32_t r, int whole, uint32_t caplen, uint32_t *cut)
{
    uint32_t at = 0, size, action;
    uint8_t x;
    r ^= r >> 16;
    action = r % 11;
    x = (uint8_t)(r >> 4);
    if (action == 0) return whole ? PT_FUZZ_DROP : PT_FUZZ_NOTHING;
    if (action == 1) {
        uint32_t length = r % (n - 1) + 1;
        if (length > caplen) return PT_FUZZ_NOTHING;
        *cut = length;
        return PT_FUZZ_CUT;
    }
    if (action >= 5 && action <= 7) {
        if (action != 6 && n <= 2) return PT_FUZZ_NOTHING;
        at = (r >> 16) % (n - 1) + 1;
    }
    size = n - at;
    size = !size ? 0 : size <= 16 ? 1 : 1 + r % 15;
    if (action >= 8) at = n - size;
    for (uint32_t k = at; k < at + size && k < have; k++)
        p[k] = (uint8_t)((action - 2) % 3 == 0 ? 0 : (action - 2) % 3 == 1 ? p[k] ^ x : 0xff);
    return PT_FUZZ_BYTES;
}

/* The Ethernet address of a multicast destination: RFC 1112, RFC 2464. Returns 1 and changes it, if the address is one. */
static inline int pt_group_of(const uint8_t *ip, int version, uint8_t *mac)
{
    if (version == 4) {
        if (ip[16] >> 4 != 14) return 0;
        memcpy(mac, "\x01\x00\x5e", 3);
        mac[3] = ip[17] & 0x7f;
        memcpy(mac + 4, ip + 18, 2);
        return 1;
    }
    if (ip[24] != 0xff) return 0;
    memcpy(mac, "\x33\x33", 2);
    memcpy(mac + 2, ip + 36, 4);
    return 1;
}

static inline void pt_group_mac(uint8_t *ethernet, const uint8_t *ip, int version)
{
    uint8_t mac[6];
    if (pt_group_of(ip, version, mac)) memcpy(ethernet, mac, 6);
}

#endif
