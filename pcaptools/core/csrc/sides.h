/* Dealing packets out: by the side of a conversation that sent them, or by flow. The result is pt_record.lane. */
#ifndef PT_SIDES_H
#define PT_SIDES_H

#include <stddef.h>

#include "filter.h"
#include "headers.h"

enum pt_lane { PT_PRIMARY, PT_SECONDARY, PT_NO_LANE };

/* ---- a table of addresses, or of ends (address and port), or of flows ---------------------------------------- */

typedef struct {
    uint8_t address[16];  /* IPv4 ones fill four bytes */
    uint8_t other[16];    /* of a flow: the other end's address; else 0 */
    uint16_t port, other_port;
    uint8_t version, protocol;
    uint16_t lane;        /* what was said of it */
    uint32_t flags;       /* likewise */
    uint64_t client, server; /* packets that only a client, only a server sends */
} pt_host;

#define PT_HOST_KEY offsetof(pt_host, lane)

typedef struct {
    pt_host *of;       /* in order of appearance */
    uint32_t n, room;
    uint32_t *slot;    /* index + 1 of an entry; 0: free */
    uint32_t slots;    /* a power of two */
} pt_hosts;

static inline uint64_t pt_mix_bits(uint64_t h)
{
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static inline uint64_t pt_hash_bytes(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t h = 0x9E3779B97F4A7C15u, word;
    for (; size >= 8; size -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = pt_mix_bits(h ^ word);
    }
    word = 0;
    memcpy(&word, p, size);
    return pt_mix_bits(h ^ word);
}

static inline int pt_hosts_grow(pt_hosts *t)
{
    uint32_t slots = t->slots ? t->slots * 2 : 1024, *slot = calloc(slots, sizeof *slot);
    pt_host *of = realloc(t->of, slots / 2 * sizeof *of);
    if (of) t->of = of;
    if (!slot || !of) {
        free(slot);
        return -1;
    }
    free(t->slot);
    t->slot = slot;
    t->slots = slots;
    t->room = slots / 2;
    for (uint32_t k = 0; k < t->n; k++) {
        uint64_t at = pt_hash_bytes(&t->of[k], PT_HOST_KEY);
        while (slot[at & (slots - 1)]) at++;
        slot[at & (slots - 1)] = k + 1;
    }
    return 0;
}

/* The entry of a key, added when it is new; NULL: no memory. It moves when another one is added. */
static inline pt_host *pt_host_of(pt_hosts *t, const pt_host *key)
{
    uint64_t at;
    if (t->n == t->room && pt_hosts_grow(t)) return NULL;
    at = pt_hash_bytes(key, PT_HOST_KEY);
    for (;; at++) {
        uint32_t *slot = &t->slot[at & (t->slots - 1)];
        if (!*slot) {
            t->of[t->n] = *key;
            *slot = ++t->n;
            return &t->of[t->n - 1];
        }
        if (!memcmp(&t->of[*slot - 1], key, PT_HOST_KEY)) return &t->of[*slot - 1];
    }
}

static inline void pt_hosts_free(pt_hosts *t)
{
    free(t->of);
    free(t->slot);
}

/* Whether the packet has an IP header with its addresses. */
static inline int pt_has_addresses(const pt_record *r, const pt_where *w)
{
    return w->outer.version && w->outer.ip != PT_NONE && w->outer.ip + (w->outer.version == 4 ? 20u : 40u) <= r->caplen;
}

/* Source (end 0) or destination (end 1) address, as a key. */
static inline void pt_host_key(pt_host *key, const uint8_t *ip, int version, int end)
{
    memset(key, 0, sizeof *key);
    key->version = (uint8_t)version;
    if (version == 4) memcpy(key->address, ip + 12 + 4 * end, 4);
    else memcpy(key->address, ip + 8 + 16 * end, 16);
    key->lane = PT_NO_LANE;
}

/* Ports of TCP, UDP, UDP-Lite, SCTP and DCCP; 0: there are none. */
static inline int pt_ports(const uint8_t *p, const pt_record *r, const pt_layer *l, uint16_t *source, uint16_t *target)
{
    if (l->transport == PT_NONE || l->transport + 4u > r->caplen) return 0;
    switch (l->protocol) {
    case PT_TCP: case PT_UDP: case PT_UDPLITE: case PT_SCTP: case PT_DCCP:
        *source = pt_net16(p + l->transport);
        *target = pt_net16(p + l->transport + 2);
        return 1;
    }
    return 0;
}

/* +1: a packet that a client sends, -1: one that a server sends, 0: neither. */
static inline int pt_role(const uint8_t *p, const pt_record *r, const pt_layer *l)
{
    const uint8_t *t = p + l->transport;
    uint32_t room;
    uint8_t flags;
    if (l->transport == PT_NONE || l->transport >= r->caplen) return 0;
    room = r->caplen - l->transport;
    switch (l->protocol) {
    case PT_TCP:
        if (room < 14) return 0;
        flags = t[13];
        return flags == 0x02 ? 1 : flags == 0x12 ? -1 : 0;
    case PT_UDP:
        if (room < 12 || (pt_net16(t) != 53 && pt_net16(t + 2) != 53)) return 0;
        return t[10] & 0x80 ? -1 : 1;
    case PT_ICMP:
        return room >= 2 && t[0] == 3 && t[1] == 3 ? -1 : 0;
    case PT_ICMPV6:
        return room >= 2 && t[0] == 1 && t[1] == 4 ? -1 : 0;
    }
    return 0;
}

/* Note the hosts of a located batch: source first, then destination. known: flags bit 0 is set in those that were
 * seen as a source, bit 1: the first sight of it was as a destination. 0, or -1: no memory. */
static inline int pt_hosts_note(pt_hosts *t, const pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        const uint8_t *p = b->bytes + r->data;
        const pt_layer *l = &b->where[k].outer;
        if (r->flags & PT_DROP || !pt_has_addresses(r, &b->where[k])) continue;
        for (int end = 0; end < 2; end++) {
            pt_host key, *host;
            uint32_t before = t->n;
            pt_host_key(&key, p + l->ip, l->version, end);
            host = pt_host_of(t, &key);
            if (!host) return -1;
            if (t->n > before && end) host->flags |= 2;
            if (end) continue;
            host->flags |= 1;
            int role = pt_role(p, r, l);
            host->client += role > 0;
            host->server += role < 0;
        }
    }
    return 0;
}

/* Lanes by what was said of the source. Packets without addresses: `without`. 0, or -1: no memory. */
static inline int pt_lanes_by_host(pt_hosts *t, pt_batch *b, uint16_t without)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        pt_host key, *host;
        r->lane = without;
        if (!pt_has_addresses(r, &b->where[k])) continue;
        pt_host_key(&key, b->bytes + r->data + b->where[k].outer.ip, b->where[k].outer.version, 0);
        host = pt_host_of(t, &key);
        if (!host) return -1;
        r->lane = host->lane;
    }
    return 0;
}

/* Rules on addresses: bits of pt_host.flags, of which the source, the destination, both or either must have one. */
enum pt_ends { PT_SOURCE, PT_DESTINATION, PT_BOTH, PT_EITHER };

/* Packets whose ends have the bit, or (exclude) have it not, keep their lane; the others get none. Those without
 * addresses pass. 0, or -1: no memory. */
static inline int pt_lanes_keep_hosts(pt_hosts *t, pt_batch *b, uint32_t bit, int ends, int exclude)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        int has[2], matches;
        if (!pt_has_addresses(r, &b->where[k])) continue;
        for (int end = 0; end < 2; end++) {
            pt_host key, *host;
            pt_host_key(&key, b->bytes + r->data + b->where[k].outer.ip, b->where[k].outer.version, end);
            host = pt_host_of(t, &key);
            if (!host) return -1;
            has[end] = (host->flags & bit) != 0;
        }
        matches = ends == PT_SOURCE ? has[0] : ends == PT_DESTINATION ? has[1]
                : ends == PT_BOTH ? has[0] && has[1] : has[0] || has[1];
        if (matches == exclude) r->lane = PT_NO_LANE;
    }
    return 0;
}

/* ---- without a table ----------------------------------------------------------------------------------------- */

/* By destination port: servers' ports (a bit each) are primary. Others, and those without a port: secondary, and
 * packets without an IP header: `without`. */
static inline void pt_lanes_by_port(pt_batch *b, const uint8_t *servers, uint16_t without)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        uint16_t source, target;
        if (!pt_has_addresses(r, &b->where[k])) {
            r->lane = without;
            continue;
        }
        r->lane = PT_SECONDARY;
        if (!pt_ports(b->bytes + r->data, r, &b->where[k].outer, &source, &target)) continue;
        if (servers[target >> 3] >> (target & 7) & 1) r->lane = PT_PRIMARY;
    }
}

/* By source MAC: those of the list (6 bytes each) are primary. */
static inline void pt_lanes_by_mac(pt_batch *b, const uint8_t *list, uint32_t n, uint16_t without)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        uint16_t linktype = b->interfaces->of[r->interface].linktype;
        r->lane = PT_SECONDARY;
        if (linktype != 1 || r->caplen < 12) r->lane = without;
        for (uint32_t i = 0; i < n && linktype == 1 && r->caplen >= 12; i++)
            if (!memcmp(b->bytes + r->data + 6, list + 6 * i, 6)) r->lane = PT_PRIMARY;
    }
}

/* ---- flows --------------------------------------------------------------------------------------------------- */

/* Both directions of a flow as one key, the smaller end first; *flipped: the packet comes from the other end. */
static inline int pt_flow_key(pt_host *key, const pt_batch *b, uint32_t k, int *flipped)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = &b->where[k].outer;
    const uint8_t *p = b->bytes + r->data;
    uint16_t source = 0, target = 0;
    size_t size;
    uint32_t at;
    int order;
    if (!pt_has_addresses(r, &b->where[k])) return 0;
    memset(key, 0, sizeof *key);
    size = l->version == 4 ? 4 : 16;
    at = l->ip + (l->version == 4 ? 12 : 8);
    pt_ports(p, r, l, &source, &target);
    order = memcmp(p + at, p + at + size, size);
    *flipped = order > 0 || (!order && source > target);
    memcpy(key->address, p + at + (*flipped ? size : 0), size);
    memcpy(key->other, p + at + (*flipped ? 0 : size), size);
    key->port = *flipped ? target : source;
    key->other_port = *flipped ? source : target;
    key->version = l->version;
    key->protocol = l->protocol;
    return 1;
}

/* Lanes by the side that began the flow: it is primary. A TCP SYN with ACK tells that the other one did. */
static inline int pt_lanes_by_flow(pt_hosts *t, pt_batch *b, uint16_t without)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        pt_host key, *flow;
        int flipped;
        uint32_t before = t->n;
        r->lane = without;
        if (!pt_flow_key(&key, b, k, &flipped)) continue;
        flow = pt_host_of(t, &key);
        if (!flow) return -1;
        if (t->n > before) flow->flags = (uint32_t)(flipped ^ (pt_role(b->bytes + r->data, r, &b->where[k].outer) < 0));
        r->lane = (uint16_t)flipped == flow->flags ? PT_PRIMARY : PT_SECONDARY;
    }
    return 0;
}

/* Deal flows to `n` lanes; fragments and packets without ports go by their addresses, others to lane 0. */
static inline void pt_lanes_by_hash(pt_batch *b, uint32_t n)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_host key;
        int flipped;
        b->record[k].lane = 0;
        if (!pt_flow_key(&key, b, k, &flipped)) continue;
        if (b->where[k].outer.flags & PT_FRAGMENT) key.port = key.other_port = 0;
        b->record[k].lane = (uint16_t)((pt_hash_bytes(&key, PT_HOST_KEY) >> 32) % n);
    }
}

/* How many flows there are: a set of the hashes of their keys, so that a flow takes 16 bytes at most. */
typedef struct {
    uint64_t *slot, slots, n; /* 0: free */
    uint64_t packets, others; /* of flows; without an IP header */
} pt_flow_set;

static inline int pt_flow_set_grow(pt_flow_set *t)
{
    uint64_t slots = t->slots ? t->slots * 2 : 4096, *slot = calloc(slots, sizeof *slot);
    if (!slot) return -1;
    for (uint64_t k = 0; k < t->slots; k++) {
        uint64_t at = t->slot[k];
        if (!at) continue;
        while (slot[at & (slots - 1)]) at++;
        slot[at & (slots - 1)] = t->slot[k];
    }
    free(t->slot);
    t->slot = slot;
    t->slots = slots;
    return 0;
}

static inline int pt_flow_set_add(pt_flow_set *t, const pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_host key;
        uint64_t hash, at;
        int flipped;
        if (b->record[k].flags & PT_DROP) continue;
        if (!pt_flow_key(&key, b, k, &flipped)) {
            t->others++;
            continue;
        }
        t->packets++;
        hash = pt_hash_bytes(&key, PT_HOST_KEY);
        hash += !hash;
        if (t->n * 2 >= t->slots && pt_flow_set_grow(t)) return -1;
        for (at = hash; t->slot[at & (t->slots - 1)]; at++)
            if (t->slot[at & (t->slots - 1)] == hash) break;
        if (!t->slot[at & (t->slots - 1)]) {
            t->slot[at & (t->slots - 1)] = hash;
            t->n++;
        }
    }
    return 0;
}

/* ---- UDP payloads -------------------------------------------------------------------------------------------- */

/* Narrow every packet to its UDP payload and put it in the lane of its original sender (address and port), at most
 * `most` lanes. What is no whole UDP datagram is marked PT_DROP: counts[0] not UDP, [1] a fragment, [2] cut.
 * 0, or -1: no memory. */
static inline int pt_lanes_by_sender(pt_hosts *t, pt_batch *b, uint32_t most, uint64_t *counts)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        const pt_layer *l = &b->where[k].inner;
        const uint8_t *p = b->bytes + r->data;
        pt_host key, *sender;
        uint32_t why = 3, length, before = t->n;
        if (r->flags & PT_DROP) continue;
        if (l->ip == PT_NONE || l->protocol != PT_UDP) why = 0;
        else if (l->flags & PT_FRAGMENT) why = 1;
        else if (l->transport == PT_NONE || l->transport + 8u > r->caplen) why = 2;
        else if ((length = pt_net16(p + l->transport + 4)) < 8 || l->transport + length > r->caplen) why = 2;
        if (why < 3) {
            counts[why]++;
            r->flags |= PT_DROP;
            continue;
        }
        pt_host_key(&key, p + l->ip, l->version, 0);
        key.port = pt_net16(p + l->transport);
        sender = pt_host_of(t, &key);
        if (!sender) return -1;
        if (t->n > before) sender->lane = (uint16_t)((t->n - 1) % most);
        r->lane = sender->lane;
        r->data += l->transport + 8;
        r->caplen = r->wirelen = length - 8;
    }
    b->located = 0;
    return 0;
}

#endif
