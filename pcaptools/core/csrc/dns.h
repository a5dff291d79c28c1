/* Addresses in DNS, mDNS and LLMNR messages follow the maps: A and AAAA records (RFC 1035, RFC 3596), hints of SVCB and
 * HTTPS (RFC 9460), client subnets (RFC 7871), and reverse names where they keep their length. */
#ifndef PT_DNS_H
#define PT_DNS_H

#include "embedded.h"
#include "payload.h"

typedef struct {
    uint64_t mapped;    /* packets in which an address or name changed */
    uint64_t partial;   /* packets, captured wholly, with a part of a message */
    uint64_t names;     /* reverse names that stayed, because the new ones have another length */
} pt_dns;

enum { PT_DNS_CUT = 0, PT_DNS_BAD = 0xffffffff };

/* One message: bytes msg to end of p. */
typedef struct {
    pt_edits *e;
    pt_dns *d;
    uint8_t *p;
    uint32_t msg, end;
    int apply, changed;
} pt_dns_walk;

/* Offset behind a name (RFC 1035 section 4.1.4), PT_DNS_CUT or PT_DNS_BAD. */
static inline uint32_t pt_dns_name(const pt_dns_walk *w, uint32_t at)
{
    while (at < w->end) {
        uint8_t n = w->p[at];
        if (n == 0) return at + 1;
        if (n >= 0xc0) return at + 2 <= w->end ? at + 2 : PT_DNS_CUT;
        if (n > 63) return PT_DNS_BAD;
        at += n + 1u;
    }
    return PT_DNS_CUT;
}

/* Whether the name at `at` is this one (labels with their lengths, small letters), through compression too. */
static inline int pt_dns_is(const pt_dns_walk *w, uint32_t at, const char *name)
{
    for (int jumps = 0; at < w->end;) {
        uint8_t n = w->p[at];
        if (n >= 0xc0) {
            if (jumps++ == 8 || at + 2 > w->end) return 0;
            at = w->msg + ((n & 63u) << 8 | w->p[at + 1]);
            continue;
        }
        if (n != (uint8_t)*name || at + 1 + n > w->end) return 0;
        if (!n) return 1;
        for (uint32_t k = 1; k <= n; k++) {
            uint8_t c = w->p[at + k];
            if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != (uint8_t)name[k]) return 0;
        }
        at += n + 1u;
        name += n + 1;
    }
    return 0;
}

/* Whether some name may continue inside the bytes between from and to: then their labels cannot move. */
static inline int pt_dns_pointed(const pt_dns_walk *w, uint32_t from, uint32_t to)
{
    for (uint32_t at = w->msg + 12; at + 2 <= w->end; at++) {
        uint32_t target = w->msg + ((w->p[at] & 63u) << 8 | w->p[at + 1]);
        if (w->p[at] >= 0xc0 && target > from && target < to) return 1;
    }
    return 0;
}

/* Labels of the decimal or hexadecimal digits of an address, last part first. Returns how many bytes. */
static inline uint32_t pt_dns_labels(const uint8_t *address, int version, uint8_t *out)
{
    uint32_t n = 0;
    for (int k = 32; version == 6 && k--;) {
        uint8_t nibble = address[k / 2] >> (k & 1 ? 0 : 4) & 15;
        out[n++] = 1;
        out[n++] = "0123456789abcdef"[nibble];
    }
    for (int k = 4; version == 4 && k--;) {
        uint8_t v = address[k];
        out[n++] = v > 99 ? 3 : v > 9 ? 2 : 1;
        if (v > 99) out[n++] = (uint8_t)('0' + v / 100);
        if (v > 9) out[n++] = (uint8_t)('0' + v / 10 % 10);
        out[n++] = (uint8_t)('0' + v % 10);
    }
    return n;
}

/* The address that labels from `at` on spell; returns the offset behind them, 0: none. */
static inline uint32_t pt_dns_address_of(const pt_dns_walk *w, uint32_t at, int version, uint8_t *address)
{
    memset(address, 0, 16);
    for (int k = version == 4 ? 4 : 32; k--;) {
        uint32_t v = 0, n = at < w->end ? w->p[at] : 0, base = version == 4 ? 10 : 16;
        if (!n || n > (version == 4 ? 3 : 1) || at + 1 + n > w->end) return 0;
        for (uint32_t i = 1; i <= n; i++) {
            uint8_t c = w->p[at + i];
            uint32_t digit = c >= '0' && c <= '9' ? c - 0u - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10u : 99;
            if (digit >= base) return 0;
            v = v * base + digit;
        }
        if (v > 255) return 0;
        address[version == 4 ? k : k / 2] |= (uint8_t)(version == 4 || k & 1 ? v : v << 4);
        at += n + 1;
    }
    return pt_dns_is(w, at, version == 4 ? "\7in-addr\4arpa" : "\3ip6\4arpa") ? at : 0;
}

static inline void pt_dns_reverse_at(pt_dns_walk *w, uint32_t at, uint32_t end, int version, uint8_t *address)
{
    uint8_t labels[64];
    uint64_t ignored = 0;
    uint32_t n;
    if (!pt_map_embedded(w->e, PT_DESTINATION, version, address, &ignored)) return;
    n = pt_dns_labels(address, version, labels);
    if (n != end - at || (version == 4 && pt_dns_pointed(w, at, end))) {
        w->d->names++;
        return;
    }
    memcpy(w->p + at, labels, n);
    w->changed = 1;
}

/* A name that ends in an address below in-addr.arpa or ip6.arpa. */
static inline void pt_dns_reverse(pt_dns_walk *w, uint32_t at)
{
    uint8_t address[16];
    while (at < w->end && w->p[at] && w->p[at] < 64) {
        for (int version = 4; version <= 6; version += 2) {
            uint32_t end = pt_dns_address_of(w, at, version, address);
            if (!end) continue;
            pt_dns_reverse_at(w, at, end, version, address);
            return;
        }
        at += w->p[at] + 1u;
    }
}

/* Hints of SVCB and HTTPS. */
static inline void pt_dns_hints(pt_dns_walk *w, uint32_t at, uint32_t end)
{
    uint64_t ignored = 0;
    at = pt_dns_name(w, at + 2);
    while (at != PT_DNS_CUT && at != PT_DNS_BAD && at + 4 <= end) {
        uint32_t key = pt_net16(w->p + at), size = pt_net16(w->p + at + 2);
        at += 4;
        if (size > end - at) return;
        if (key == 4) w->changed |= pt_map_list(w->e, PT_DESTINATION, 4, w->p, at, size / 4, end, &ignored);
        if (key == 6) w->changed |= pt_map_list(w->e, PT_DESTINATION, 6, w->p, at, size / 16, end, &ignored);
        at += size;
    }
}

/* Client subnets among the options of EDNS. */
static inline void pt_dns_subnets(pt_dns_walk *w, uint32_t at, uint32_t end)
{
    uint64_t ignored = 0;
    while (at + 4 <= end) {
        uint32_t code = pt_net16(w->p + at), size = pt_net16(w->p + at + 2), family;
        at += 4;
        if (size > end - at) return;
        family = size > 4 ? pt_net16(w->p + at) : 0;
        if (code == 8 && (family == 1 || family == 2) && size - 4 <= (family == 1 ? 4u : 16u))
            w->changed |= pt_map_prefix(w->e, family == 1 ? 4 : 6, w->p + at + 4, size - 4, w->p[at + 2], &ignored);
        at += size;
    }
}

static inline void pt_dns_data(pt_dns_walk *w, uint16_t type, uint32_t at, uint32_t length)
{
    uint64_t ignored = 0;
    if (type == 1 && length == 4) w->changed |= pt_map_embedded(w->e, PT_DESTINATION, 4, w->p + at, &ignored);
    if (type == 28 && length == 16) w->changed |= pt_map_embedded(w->e, PT_DESTINATION, 6, w->p + at, &ignored);
    if (type == 64 || type == 65) pt_dns_hints(w, at, at + length);
    if (type == 41) pt_dns_subnets(w, at, at + length);
}

/* Walk a message of at least 12 bytes. Returns 1: to its end; PT_DNS_CUT, PT_DNS_BAD. */
static inline uint32_t pt_dns_message(pt_dns_walk *w)
{
    const uint8_t *head = w->p + w->msg;
    uint32_t at = w->msg + 12, questions = pt_net16(head + 4), all = questions + pt_net16(head + 6) + pt_net16(head + 8) + pt_net16(head + 10);
    for (uint32_t k = 0; k < all; k++) {
        uint32_t name = at, length;
        at = pt_dns_name(w, at);
        if (at == PT_DNS_CUT || at == PT_DNS_BAD) return at;
        if (w->apply) pt_dns_reverse(w, name);
        if (k < questions) {
            at += 4;
            continue;
        }
        if (at + 10 > w->end) return PT_DNS_CUT;
        length = pt_net16(w->p + at + 8);
        if (at + 10 + length > w->end) return PT_DNS_CUT;
        if (w->apply) pt_dns_data(w, pt_net16(w->p + at), at + 10, length);
        at += 10 + length;
    }
    return at <= w->end;
}

/* Messages over TCP, each behind its length (RFC 1035 section 4.2.2): those that are wholly in this segment. */
static inline void pt_dns_segment(pt_dns_walk *w, uint32_t at, uint32_t end, int whole)
{
    while (at < end) {
        uint32_t length = at + 2 <= end ? pt_net16(w->p + at) : 0;
        w->msg = at + 2;
        w->end = w->msg + length;
        w->apply = 0;
        if (length < 12 || w->end > end || pt_dns_message(w) != 1) {
            w->d->partial += (uint64_t)whole;
            return;
        }
        w->apply = 1;
        pt_dns_message(w);
        at = w->end;
    }
}

static inline int pt_dns_port(uint16_t port) { return port == 53 || port == 5353 || port == 5355; }

/* The packet's messages, if it is from or to a name server. */
static inline int pt_edit_dns(pt_edits *e, pt_dns *d, uint8_t *p, uint32_t caplen, const pt_where *o)
{
    const pt_layer *l = &o->inner;
    uint32_t limit = o->depth ? pt_covered_end(p, caplen, l) : 0, at = l->transport, field = l->protocol == PT_TCP ? 16 : 6;
    uint64_t before;
    pt_dns_walk w = {e, d, p, 0, limit, 0, 0};
    if (!o->depth || at == PT_NONE || (l->protocol != PT_UDP && l->protocol != PT_TCP)) return 0;
    if (limit < at + 20 || !(pt_dns_port(pt_net16(p + at)) || pt_dns_port(pt_net16(p + at + 2)))) return 0;
    before = pt_sum_bytes(p + at, limit - at);
    if (l->protocol == PT_TCP) {
        pt_dns_segment(&w, at + pt_header_size(p, caplen, l), limit, caplen >= l->end);
    } else {
        uint32_t verdict;
        w.msg = at + 8;
        verdict = pt_dns_message(&w);
        if (verdict == PT_DNS_BAD) return 0;
        d->partial += verdict == PT_DNS_CUT && caplen >= l->end;
        w.apply = 1;
        pt_dns_message(&w);
    }
    if (!w.changed) return 0;
    d->mapped++;
    pt_update(p + at + field, (uint64_t)(uint16_t)~pt_fold(before) + pt_fold(pt_sum_bytes(p + at, limit - at)), pt_zero_is_none(l));
    return 1;
}

#endif
