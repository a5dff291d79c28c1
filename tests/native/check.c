/* The native core alone, under AddressSanitizer and UBSan: cut, mutated and random bytes through every function.
 *
 * Every packet and every stream is copied to a block of exactly its size, at all four alignments, so that a read one
 * byte too far is caught. What is asserted besides: offsets stay inside, a second look finds what the first one left,
 * a fixed checksum is right and stays right under every edit, pieces give what the whole gives. */
#include <stdarg.h>
#include <stdio.h>

#include "convert.h"
#include "embedded.h"
#include "filter.h"
#include "pace.h"
#include "records.h"

static uint64_t passed, failed;

static void check(int ok, const char *format, ...)
{
    va_list arguments;
    if (ok) {
        passed++;
        return;
    }
    if (failed++ >= 20) return;
    va_start(arguments, format);
    fputs("FAILED: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

/* xorshift64*: the same numbers on every machine. */
static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t chance(uint32_t below)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (uint32_t)((seed * 0x2545f4914f6cdd1du >> 32) % below);
}

/* ---- packets ---------------------------------------------------------------------------------------------- */

enum { ROOM = 2048 };

typedef struct {
    uint8_t p[ROOM];
    uint32_t n;
} made;

static void add_hex(made *m, const char *hex)
{
    unsigned value;
    int used;
    while (sscanf(hex, " %2x%n", &value, &used) == 1) {
        m->p[m->n++] = (uint8_t)value;
        hex += used;
    }
}

static void add_noise(made *m, uint32_t n)
{
    while (n--) m->p[m->n++] = (uint8_t)chance(256);
}

/* Headers whose length field is set by close_*() once what they carry is there. */
static uint32_t open_ipv4(made *m, uint8_t protocol, const char *options)
{
    uint32_t at = m->n;
    add_hex(m, "45 00 0000 1234 0000 40 00 0000 0a000001 0a000002");
    m->p[at + 9] = protocol;
    add_hex(m, options);
    m->p[at] = (uint8_t)(0x40 | (m->n - at) / 4);
    return at;
}

static uint32_t open_ipv6(made *m, uint8_t next)
{
    uint32_t at = m->n;
    add_hex(m, "60000000 0000 00 40 20010db8000000000000000000000001 20010db8000000000000000000000002");
    m->p[at + 6] = next;
    return at;
}

static void close_ip(made *m, uint32_t at)
{
    if (m->p[at] >> 4 == 4) pt_put_net16(m->p + at + 2, (uint16_t)(m->n - at));
    else pt_put_net16(m->p + at + 4, (uint16_t)(m->n - at - 40));
}

static uint32_t open_udp(made *m, uint16_t port)
{
    uint32_t at = m->n;
    add_hex(m, "c000 0000 0000 1111");
    pt_put_net16(m->p + at + 2, port);
    return at;
}

static void close_udp(made *m, uint32_t at) { pt_put_net16(m->p + at + 4, (uint16_t)(m->n - at)); }

static void add_tcp(made *m, uint32_t n)
{
    add_hex(m, "c000 0050 00000001 00000002 5010 2000 0000 0000");
    add_noise(m, n);
}

static void add_tcp4(made *m)
{
    uint32_t ip = open_ipv4(m, PT_TCP, "");
    add_tcp(m, 5);
    close_ip(m, ip);
}

static void add_tcp6(made *m)
{
    uint32_t ip = open_ipv6(m, PT_TCP);
    add_tcp(m, 4);
    close_ip(m, ip);
}

static void udp4(made *m)
{
    uint32_t ip = open_ipv4(m, PT_UDP, "94040000"), udp = open_udp(m, 53);
    add_noise(m, 7);
    close_udp(m, udp);
    close_ip(m, ip);
    add_noise(m, 3); /* padding behind the IP packet */
}

static void udp_none(made *m)
{
    uint32_t ip = open_ipv4(m, PT_UDP, ""), udp = open_udp(m, 53);
    m->p[m->n - 1] = m->p[m->n - 2] = 0;
    close_udp(m, udp);
    close_ip(m, ip);
}

static void udplite(made *m)
{
    uint32_t ip = open_ipv4(m, PT_UDPLITE, "");
    add_hex(m, "c000 0035 000a 0000");
    add_noise(m, 9);
    close_ip(m, ip);
}

static void source_routed(made *m)
{
    uint32_t ip = open_ipv4(m, PT_TCP, "01 830b04 0a000009 0a00000a");
    add_tcp(m, 1);
    close_ip(m, ip);
}

static void authenticated(made *m)
{
    uint32_t ip = open_ipv4(m, PT_AH, "");
    add_hex(m, "06 04 0000 00000001 00000001 000000000000000000000000");
    add_tcp(m, 2);
    close_ip(m, ip);
}

static void sctp(made *m)
{
    uint32_t ip = open_ipv4(m, PT_SCTP, "");
    add_hex(m, "c000 0050 00000001 00000000");
    add_noise(m, 9);
    close_ip(m, ip);
}

static void icmp_error(made *m)
{
    uint32_t ip = open_ipv4(m, PT_ICMP, "");
    add_hex(m, "0301 0000 00000000");
    add_tcp4(m);
    close_ip(m, ip);
}

static void first_fragment(made *m)
{
    uint32_t ip = open_ipv4(m, PT_UDP, "");
    m->p[ip + 6] = 0x20;
    open_udp(m, 4789);
    add_noise(m, 16);
    close_ip(m, ip);
}

static void later_fragment(made *m)
{
    uint32_t ip = open_ipv4(m, PT_TCP, "");
    m->p[ip + 7] = 5;
    add_noise(m, 16);
    close_ip(m, ip);
}

static void extended(made *m)
{
    uint32_t ip = open_ipv6(m, 0);
    add_hex(m, "2b 00 0502000001 00"); /* hop by hop, then routing type 0 with one address left */
    add_hex(m, "33 02 00 01 00000000 20010db80000000000000000000000ff");
    add_hex(m, "2c 04 0000 00000001 00000001 000000000000000000000000"); /* authentication */
    add_hex(m, "06 00 0000 00000007"); /* atomic fragment */
    add_tcp(m, 3);
    close_ip(m, ip);
}

static void later_fragment6(made *m)
{
    uint32_t ip = open_ipv6(m, PT_FRAGMENT_HEADER);
    add_hex(m, "11 00 0009 00000007");
    add_noise(m, 16);
    close_ip(m, ip);
}

static void icmpv6_error(made *m)
{
    uint32_t ip = open_ipv6(m, PT_ICMPV6);
    add_hex(m, "0104 0000 00000000");
    add_tcp6(m);
    close_ip(m, ip);
}

static void redirect6(made *m)
{
    uint32_t ip = open_ipv6(m, PT_ICMPV6);
    add_hex(m, "8900 0000 00000000 20010db8000000000000000000000003 20010db8000000000000000000000004");
    close_ip(m, ip);
}

static void advertisement(made *m)
{
    uint32_t ip = open_ipv6(m, PT_ICMPV6);
    add_hex(m, "8800 0000 60000000 20010db8000000000000000000000003 0201020000000001");
    close_ip(m, ip);
}

static void ospf6(made *m)
{
    uint32_t ip = open_ipv6(m, PT_OSPF);
    add_hex(m, "03010010 00000001 00000000 0000 0000");
    close_ip(m, ip);
}

static void six_in_four(made *m)
{
    uint32_t ip = open_ipv4(m, PT_IPV6_IN_IP, "");
    add_tcp6(m);
    close_ip(m, ip);
}

static void gre(made *m)
{
    uint32_t ip = open_ipv4(m, PT_GRE, "");
    add_hex(m, "b000 0800 0000 0000 00000001 00000002");
    add_tcp4(m);
    close_ip(m, ip);
}

static void erspan(made *m)
{
    uint32_t ip = open_ipv4(m, PT_GRE, "");
    add_hex(m, "1000 22eb 00000001 2000 0001 0000 0000 0000 0001 0000000000000000");
    add_hex(m, "020000000001 020000000002 0800");
    add_tcp4(m);
    close_ip(m, ip);
}

static void pptp(made *m)
{
    uint32_t ip = open_ipv4(m, PT_GRE, "");
    add_hex(m, "3081 880b 0030 0001 00000001 00000002 ff03 0021");
    add_tcp4(m);
    close_ip(m, ip);
}

static void over_udp(made *m, uint16_t port, const char *header)
{
    uint32_t ip = open_ipv4(m, PT_UDP, ""), udp = open_udp(m, port);
    add_hex(m, header);
    if (port == 3544) add_tcp6(m);
    else add_tcp4(m);
    close_udp(m, udp);
    close_ip(m, ip);
}

static void vxlan(made *m) { over_udp(m, 4789, "0800000000000100 020000000001 020000000002 8100 0001 0800"); }
static void geneve(made *m) { over_udp(m, 6081, "0140 0800 00000100 0102 0000"); }
static void gtp(made *m) { over_udp(m, 2152, "34ff 0000 00000001 0000 00 85 01 0000 00"); }
static void teredo(made *m) { over_udp(m, 3544, "0001 0102 aabbcc 0000000000000000 00 0000 1234 01020304"); }

static void nested(made *m)
{
    uint32_t ip[10];
    for (int k = 0; k < 10; k++) ip[k] = open_ipv4(m, PT_IPIP, "");
    add_tcp4(m);
    for (int k = 0; k < 10; k++) close_ip(m, ip[k]);
}

static void no_length(made *m)
{
    open_ipv4(m, PT_TCP, "");
    add_tcp(m, 9);
}

static void arp(made *m) { add_hex(m, "0001 0800 06 04 0001 020000000001 0a000001 020000000002 0a000002"); }

/* Stacks, by what the link layer must announce. */
static void (*const stacks4[])(made *) = {
    add_tcp4, udp4, udp_none, udplite, source_routed, authenticated, sctp, icmp_error, first_fragment, later_fragment,
    six_in_four, gre, erspan, pptp, vxlan, geneve, gtp, teredo, nested, no_length,
};
static void (*const stacks6[])(made *) = {
    add_tcp6, extended, later_fragment6, icmpv6_error, redirect6, advertisement, ospf6,
};

/* Link layers: what stands before the network header. */
static const struct {
    uint16_t linktype;
    uint8_t version; /* of IP behind it; 0: both, 1: ARP */
    const char *header;
} links[] = {
    {1, 4, "020000000001 020000000002 0800"},
    {1, 6, "020000000001 020000000002 88a8 0001 8100 0002 86dd"},
    {1, 1, "020000000001 020000000002 0806"},
    {1, 4, "020000000001 020000000002 0040 aaaa03 000000 0800"},
    {1, 0, "020000000001 020000000002 8847 00001000 00002140"},
    {1, 4, "020000000001 020000000002 8847 00002140 00000000 020000000001 020000000002 0800"},
    {1, 4, "020000000001 020000000002 8864 1100 0001 0040 0021"},
    {101, 0, ""}, {12, 0, ""}, {14, 0, ""}, {228, 4, ""}, {229, 6, ""},
    {0, 4, "00000002"}, {0, 4, "02000000"}, {0, 6, "1e000000"}, {108, 6, "00000018"},
    {113, 4, "0000 0001 0006 020000000001 0000 0800"},
    {113, 4, "0000 0001 0006 020000000001 0000 0004 aaaa03 000000 0800"},
    {276, 6, "86dd 0000 00000001 0001 00 06 020000000001 0000"},
    {9, 4, "ff03 0021"}, {50, 6, "0057"}, {9, 4, "21"}, {204, 4, "00 ff03 0021"}, {51, 4, "1100 0001 0040 0021"},
    {104, 4, "0f00 0800"}, {10, 4, "50 020000000001 020000000002 aaaa03 000000 0800"}, {100, 4, "060603"},
    {105, 4, "0801 0000 020000000001 020000000002 020000000003 0000 aaaa03 000000 0800"},
    {105, 6, "8883 0000 020000000001 020000000002 020000000003 0000 020000000004 0000 00000000 aaaa03 000000 86dd"},
    {127, 4, "0000 1c00 2f000080 00000000 00000000 0000000000000000 20000000 "
             "8801 0000 020000000001 020000000002 020000000003 0000 0000 0000 aaaa03 000000 0800"},
    {192, 4, "0000 0800 69000000 0801 0000 020000000001 020000000002 020000000003 0000 aaaa03 000000 0800"},
    {163, 4, "80211001 00000008 0801 0000 020000000001 020000000002 020000000003 0000 aaaa03 000000 0800"},
    {107, 4, "1841 03cc"}, {107, 6, "1841 0300 80 000000 86dd"},
    {129, 4, "01 02 0000 d4 00 0001"}, {129, 4, "01 02 0000 f0"}, {7, 4, "01 02 d4 00 0001"}, {7, 1, "01 02 f1"},
    {239, 4, "02 00 0000 0800 0100 08000100 1000 0900"},
    {242, 4, "0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0800 0000"},
    {109, 0, "02000000 00000001 00000000"}, {219, 0, "00002140"}, {147, 0, ""},
};

enum { LINKS = sizeof links / sizeof *links, STACKS4 = sizeof stacks4 / sizeof *stacks4,
       STACKS6 = sizeof stacks6 / sizeof *stacks6 };

/* Combination number k of a link and a stack; 0 when there is no such number any more. */
static int make(made *m, uint32_t k, uint16_t *linktype)
{
    for (uint32_t l = 0; l < LINKS; l++) {
        int v = links[l].version;
        uint32_t four = v == 4 || v == 0 ? STACKS4 : 0, six = v == 6 || v == 0 ? STACKS6 : 0;
        uint32_t n = v == 1 ? 1 : four + six;
        if (k >= n) {
            k -= n;
            continue;
        }
        m->n = 0;
        *linktype = links[l].linktype;
        add_hex(m, links[l].header);
        if (v == 1) arp(m);
        else if (k < four) stacks4[k](m);
        else stacks6[k - four](m);
        return 1;
    }
    return 0;
}

static void mutate(uint8_t *p, uint32_t n, int changes)
{
    static const uint8_t telling[] = {0, 1, 4, 6, 0x7f, 0x80, 0xff, 0x45, 0x4f, 0x60, 17, 43, 44, 51, 58};
    while (n && changes--) {
        uint32_t at = chance(n);
        if (chance(2)) p[at] = telling[chance(sizeof telling)];
        else p[at] ^= (uint8_t)(1u << chance(8));
    }
}

/* ---- what must hold --------------------------------------------------------------------------------------- */

static void check_layer(const pt_layer *l, const pt_record *r)
{
    if (l->ip == PT_NONE) {
        check(l->transport == PT_NONE, "transport without IP");
        return;
    }
    check(l->ip < r->caplen || l->status == PT_TRUNCATED, "IP header at %u of %u", l->ip, r->caplen);
    check(l->status < PT_STATUSES, "status %u", l->status);
    check(l->version == 4 || l->version == 6, "version %u", l->version);
    if (l->status == PT_OK || l->status == PT_BAD_LENGTH) {
        check(l->end >= l->ip, "end %u before the header at %u", l->end, l->ip);
        if (l->status == PT_OK) check(l->transport != PT_NONE, "no transport header");
    }
    if (l->transport == PT_NONE) return;
    check(l->transport <= r->caplen && l->transport <= l->end, "transport at %u, end %u, captured %u", l->transport,
          l->end, r->caplen);
    check(l->transport >= l->ip + (l->version == 4 ? 20 : 40), "transport at %u inside the IP header", l->transport);
}

static void check_where(const pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_where *o = &b->where[k];
        const pt_record *r = &b->record[k];
        check(o->status < PT_STATUSES && o->depth <= PT_MAX_DEPTH, "status %u, depth %u", o->status, o->depth);
        check((o->depth > 0) == (o->outer.ip != PT_NONE), "depth %u, IP at %u", o->depth, o->outer.ip);
        check(o->network == PT_NONE || o->ethertype, "network header of no type");
        if (o->depth) check(o->outer.ip == o->network, "outermost IP at %u, network at %u", o->outer.ip, o->network);
        if (o->depth == 1) check(!memcmp(&o->outer, &o->inner, sizeof o->outer), "one layer, two locations");
        if (o->depth > 1) check(o->inner.ip > o->outer.ip, "inner before outer");
        check_layer(&o->outer, r);
        check_layer(&o->inner, r);
    }
}

static void check_records(const pt_batch *b)
{
    size_t last = 0;
    check(b->used <= b->filled && b->filled <= b->capacity, "used %zu, filled %zu", b->used, b->filled);
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        check(last <= r->start && r->start <= r->data && (uint64_t)r->data + r->caplen <= r->end && r->end <= b->used,
              "record %u: %u %u +%u %u, used %zu", k, r->start, r->data, r->caplen, r->end, b->used);
        check(r->interface < b->interfaces->n, "record %u: interface %u", k, r->interface);
        last = r->end;
    }
}

static uint64_t sums(pt_batch *b, int fix)
{
    pt_sum_counts counts;
    uint64_t header = 0, transport = 0, layers = 0;
    memset(&counts, 0, sizeof counts);
    pt_batch_sums(b, fix, &counts);
    for (int k = 0; k < PT_SUMS; k++) header += counts.header[k], transport += counts.transport[k];
    for (uint32_t k = 0; k < b->n; k++) layers += b->where[k].depth;
    check(header == layers && transport == layers, "%llu layers, %llu header and %llu transport sums",
          (unsigned long long)layers, (unsigned long long)header, (unsigned long long)transport);
    return counts.header[PT_SUM_WRONG] + counts.transport[PT_SUM_WRONG];
}

/* Rules that fit every address, some, and none. */
static void edit(pt_batch *b)
{
    static pt_map_rule rules[2][2];
    pt_edits e;
    memset(&e, 0, sizeof e);
    for (int side = 0; side < 2; side++) {
        memset(rules[side][0].mask, chance(2) ? 0xff : 0, 16); /* the host 0.0.0.0, or every one */
        memset(rules[side][0].to, (int)chance(256), 16);
        memset(rules[side][0].keep, chance(2) ? 0x0f : 0, 16);
        for (int w = 0; w < 4; w++) rules[side][1].to[w] = chance(UINT32_MAX);
        e.v4[side].rule = e.v6[side].rule = rules[side];
        e.v4[side].n = chance(3);
        e.v6[side].n = chance(3);
    }
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_where *o = &b->where[k];
        uint8_t *p = b->bytes + b->record[k].data;
        if (o->depth) pt_rewrite_layer(&e, p, b->record[k].caplen, &o->outer);
        else if (o->ethertype == PT_TYPE_ARP) pt_rewrite_arp(&e, p, b->record[k].caplen, o->network);
    }
    check(e.unmapped <= e.seen, "%llu of %llu not mapped", (unsigned long long)e.unmapped, (unsigned long long)e.seen);
}

static const pt_instruction port80[] = { /* IPv4 over Ethernet, TCP or UDP, port 80; and a division by a loaded zero */
    {0x28, 0, 0, 12}, {0x15, 0, 10, 0x800}, {0x30, 0, 0, 23}, {0x15, 1, 0, 6}, {0x15, 0, 7, 17}, {0xb1, 0, 0, 14},
    {0x48, 0, 0, 14}, {0x15, 3, 0, 80}, {0x48, 0, 0, 16}, {0x15, 1, 0, 80}, {0x3c, 0, 0, 0}, {0x06, 0, 0, 262144},
    {0x06, 0, 0, 0},
};

/* Everything that can be done to a batch that was cut, in the order in which commands do it. */
static void pipeline(pt_batch *b)
{
    pt_batch out;
    uint32_t *interface = calloc(b->interfaces->n + 1, sizeof *interface), marked = 0, n = b->n;
    pt_pace pace;
    int64_t *due = malloc((b->n + 1) * sizeof *due);
    uint64_t wrong, outside = 0;
    check_records(b);
    check(pt_locate(b) == 0, "no memory");
    check_where(b);
    wrong = sums(b, 0);
    check(sums(b, 0) == wrong, "looking changed something");
    sums(b, 1);
    check(sums(b, 0) == 0, "wrong after the fix");
    edit(b);
    check(sums(b, 0) == 0, "wrong after an edit");
    pt_drop_stale_options(b);
    check_records(b);
    memset(&pace, 0, sizeof pace);
    pace.measure = (uint8_t)chance(4);
    pace.up = 1 + chance(1000);
    pace.down = 1 + chance(1000);
    pace.group = 1 + chance(5);
    pace.most = chance(2) ? 1 + chance(1000) : 0;
    pace.limit = INT64_MAX;
    pt_pace_batch(&pace, b, 0, b->n, due);
    for (uint32_t k = 0; k < b->n; k++) check(due[k] >= 0 && due[k] <= pace.last, "due %lld", (long long)due[k]);
    pt_filter(b, 1, port80);
    for (uint32_t k = 0; k < b->n; k++) {
        if (!chance(4)) b->record[k].flags |= PT_DROP;
        marked += b->record[k].flags & PT_DROP ? 1 : 0;
    }
    memset(&out, 0, sizeof out);
    check(pt_batch_reserve(&out, pt_pcapng_size(b)) == 0, "no memory");
    out.interfaces = b->interfaces;
    check(pt_to_pcapng(b, &out, interface, &outside) == 0, "no memory");
    check(out.n == n - marked && out.used <= out.capacity, "%u of %u packets as pcapng", out.n, n - marked);
    check_records(&out);
    pt_to_pcap(&out, 1, &outside);
    check_records(&out);
    if (chance(2)) {
        pt_forget_section_length(b);
        pt_compact(b);
        check_records(b);
        check_where(b);
    }
    pt_to_pcap(b, (int)chance(2), &outside);
    check(b->n == n - marked, "%u of %u packets as pcap", b->n, n - marked);
    check_records(b);
    check_where(b);
    pt_batch_free(&out);
    free(interface);
    free(due);
}

/* ---- packets, one by one ---------------------------------------------------------------------------------- */

/* One packet in a block of exactly its size; its first byte is `odd` bytes behind an aligned one. */
static void try_packet(const uint8_t *p, uint32_t n, uint32_t wirelen, uint16_t linktype, uint32_t odd)
{
    pt_interface one;
    pt_interfaces interfaces = {&one, 1, 1};
    pt_batch b;
    pt_record *r;
    memset(&one, 0, sizeof one);
    memset(&b, 0, sizeof b);
    one.linktype = linktype;
    b.interfaces = &interfaces;
    b.capacity = b.filled = b.used = odd + n;
    b.bytes = malloc(odd + n ? odd + n : 1);
    if (n) memcpy(b.bytes + odd, p, n);
    r = pt_add_record(&b);
    memset(r, 0, sizeof *r);
    r->start = r->data = odd;
    r->end = odd + n;
    r->caplen = n;
    r->wirelen = wirelen;
    check(pt_locate(&b) == 0, "no memory");
    check_where(&b);
    sums(&b, 0);
    sums(&b, 1);
    check(sums(&b, 0) == 0, "link type %u: wrong after the fix", linktype);
    for (int k = 0; k < 3; k++) {
        edit(&b);
        check(sums(&b, 0) == 0, "link type %u: wrong after an edit", linktype);
    }
    pt_filter(&b, linktype, port80);
    pt_compact(&b);
    pt_batch_free(&b);
}

static void every_packet(void)
{
    made m;
    uint16_t linktype;
    for (uint32_t k = 0; make(&m, k, &linktype); k++) {
        for (uint32_t n = 0; n <= m.n; n++) try_packet(m.p, n, m.n, linktype, n & 3);
        for (uint32_t odd = 0; odd < 4; odd++) try_packet(m.p, m.n, m.n, linktype, odd);
        try_packet(m.p, m.n, UINT32_MAX, linktype, 0);
        try_packet(m.p, m.n, 0, linktype, 0);
    }
}

static void mutated_packets(int rounds)
{
    made m, copy;
    uint16_t linktype;
    while (rounds--) {
        for (uint32_t k = 0; make(&m, k, &linktype); k++) {
            copy = m;
            mutate(copy.p, copy.n, 1 + (int)chance(4));
            try_packet(copy.p, chance(4) ? copy.n : chance(copy.n + 1), chance(8) ? copy.n : chance(UINT32_MAX),
                       linktype, chance(4));
        }
    }
}

static void random_packets(int rounds)
{
    made m;
    while (rounds--) {
        m.n = 0;
        add_noise(&m, chance(200));
        try_packet(m.p, m.n, m.n + chance(3), chance(300) ? links[chance(LINKS)].linktype : (uint16_t)chance(65536),
                   chance(4));
    }
}

/* What a right packet must be found to be: a walk that stops too early would pass all other checks. */
static void whole_packets_are_understood(void)
{
    made m;
    uint16_t linktype;
    for (uint32_t k = 0; make(&m, k, &linktype); k++) {
        pt_where o;
        pt_locate_packet(m.p, m.n, m.n, linktype, &o);
        if (linktype == 147) check(o.status == PT_NOT_IP && !o.depth, "link type 147 understood");
        else if (o.ethertype == PT_TYPE_ARP) check(o.network == m.n - 28, "ARP at %u", o.network);
        else check(o.depth && (o.status == PT_OK || o.status == PT_LATER_FRAGMENT),
                   "link type %u, packet %u: status %u", linktype, k, o.status);
    }
}

/* ---- streams ---------------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *p;
    size_t n, room;
    int swapped;
} stream;

static void put(stream *s, const void *bytes, size_t n)
{
    if (s->n + n > s->room) s->p = realloc(s->p, s->room = (s->n + n) * 2);
    if (n) memcpy(s->p + s->n, bytes, n);
    s->n += n;
}

static void put16(stream *s, uint16_t v)
{
    uint8_t bytes[2];
    pt_put16(bytes, v, s->swapped);
    put(s, bytes, 2);
}

static void put32(stream *s, uint32_t v)
{
    uint8_t bytes[4];
    pt_put32(bytes, v, s->swapped);
    put(s, bytes, 4);
}

static void put_padded(stream *s, const void *bytes, size_t n)
{
    put(s, bytes, n);
    put(s, "\0\0\0", -n & 3);
}

/* A pcapng block: the caller writes the body between the two. */
static size_t open_block(stream *s, uint32_t type)
{
    size_t at = s->n;
    put32(s, type);
    put32(s, 0);
    return at;
}

static void close_block(stream *s, size_t at)
{
    uint32_t total = (uint32_t)(s->n - at) + 4;
    put32(s, total);
    pt_put32(s->p + at + 4, total, s->swapped);
}

static void put_section(stream *s)
{
    size_t at = open_block(s, PT_BLOCK_SECTION);
    put32(s, PT_BYTE_ORDER_MAGIC);
    put16(s, 1);
    put16(s, 0);
    put32(s, 0xffffffff);
    put32(s, 0xffffffff);
    close_block(s, at);
}

static void put_interface(stream *s, uint16_t linktype, uint32_t snaplen, uint8_t resolution)
{
    size_t at = open_block(s, PT_BLOCK_INTERFACE);
    put16(s, linktype);
    put16(s, 0);
    put32(s, snaplen);
    put16(s, 9);
    put16(s, 1);
    put_padded(s, &resolution, 1);
    put16(s, 14);
    put16(s, 8);
    put32(s, chance(2) ? 0 : chance(UINT32_MAX));
    put32(s, chance(2) ? 0 : chance(UINT32_MAX));
    put32(s, 0);
    close_block(s, at);
}

static void put_packet_block(stream *s, const made *m, uint32_t type, uint32_t interface)
{
    size_t at = open_block(s, type);
    if (type == PT_BLOCK_SIMPLE_PACKET) {
        put32(s, m->n);
    } else {
        if (type == PT_BLOCK_PACKET) put32(s, interface);
        else put16(s, (uint16_t)interface), put16(s, 7);
        put32(s, chance(0x00200000));
        put32(s, chance(UINT32_MAX));
        put32(s, m->n);
        put32(s, m->n + chance(3));
    }
    put_padded(s, m->p, m->n);
    if (type != PT_BLOCK_SIMPLE_PACKET && chance(2)) {
        put16(s, 1);
        put16(s, 5);
        put_padded(s, "hello", 5);
        put16(s, 3);
        put16(s, 5);
        put_padded(s, "\2abcd", 5);
        put16(s, 2);
        put16(s, 4);
        put32(s, 1);
        if (chance(2)) put32(s, 0);
    }
    close_block(s, at);
}

static void random_packet(made *m, uint16_t *linktype)
{
    while (!make(m, chance(900), linktype));
}

/* Sections, interfaces and packets of all kinds; sections in a mixture of byte orders. */
static void pcapng_stream(stream *s, int sections, int packets)
{
    static const uint32_t types[] = {PT_BLOCK_PACKET, PT_BLOCK_PACKET, PT_BLOCK_SIMPLE_PACKET, PT_BLOCK_OLD_PACKET,
                                     5, 0x0bad};
    static const uint8_t resolutions[] = {6, 9, 0, 3, 12, 0x7f, 0x80, 0x88, 0xff, 19, 20, 27, 28, 29};
    while (sections--) {
        uint16_t linktypes[3];
        made m;
        s->swapped = (int)chance(2);
        put_section(s);
        for (int k = 0; k < 3; k++) {
            random_packet(&m, &linktypes[k]);
            put_interface(s, linktypes[k], chance(4) ? 0 : 60, resolutions[chance(sizeof resolutions)]);
        }
        for (int k = 0; k < packets; k++) {
            uint16_t linktype;
            random_packet(&m, &linktype);
            put_packet_block(s, &m, types[chance(6)], chance(3));
        }
    }
}

static void pcap_stream(stream *s, const pt_cutter *c, int packets)
{
    s->swapped = c->swapped;
    while (packets--) {
        made m;
        uint16_t linktype;
        random_packet(&m, &linktype);
        put32(s, chance(UINT32_MAX));
        put32(s, chance(1000000));
        if (c->swapped_lengths == 2) put32(s, m.n + chance(9)), put32(s, m.n);
        else put32(s, m.n), put32(s, m.n + chance(9));
        if (c->header == 24) put32(s, 1), put32(s, 0);
        put(s, m.p, m.n);
    }
}

static void start_pcap(pt_cutter *c, uint16_t linktype, int swapped, int nanoseconds, int modified, int swapped_lengths)
{
    pt_interface *i;
    memset(c, 0, sizeof *c);
    c->format = PT_PCAP;
    c->swapped = (uint8_t)swapped;
    c->nanoseconds = (uint8_t)nanoseconds;
    c->header = modified ? 24 : 16;
    c->swapped_lengths = (uint8_t)swapped_lengths;
    i = pt_add_interface(&c->interfaces);
    i->linktype = linktype;
    pt_set_resolution(i, nanoseconds ? 9 : 6);
    c->limit = pt_packet_limit(linktype);
}

static void start_pcapng(pt_cutter *c)
{
    memset(c, 0, sizeof *c);
    c->format = PT_PCAPNG;
}

/* Feed a stream in pieces of at most `piece` bytes, in blocks of exactly the size of what they hold; work on every
 * batch when `work`. Returns the number of packets, and in digest what was seen of them. */
static uint64_t feed(pt_cutter *c, const uint8_t *p, size_t n, size_t piece, int work, uint64_t *digest)
{
    size_t at = 0, rest = 0;
    uint64_t packets = 0;
    uint8_t *left = NULL;
    int sound = 1, more = 1;
    *digest = 0;
    while (sound && more) {
        pt_batch b;
        size_t take = n - at < piece ? n - at : piece;
        memset(&b, 0, sizeof b);
        b.bytes = malloc(rest + take ? rest + take : 1);
        if (rest) memcpy(b.bytes, left, rest);
        if (take) memcpy(b.bytes + rest, p + at, take);
        b.capacity = b.filled = rest + take;
        at += take;
        sound = pt_cut(c, &b) == 0;
        check_records(&b);
        check(sound || c->damage, "damage without a word");
        check(sound || c->damage_at == b.used, "damage at %zu, sound up to %zu", c->damage_at, b.used);
        for (uint32_t k = 0; k < b.n; k++) {
            const pt_record *r = &b.record[k];
            *digest = *digest * 31 + (uint64_t)r->time;
            *digest = *digest * 31 + r->caplen + ((uint64_t)r->wirelen << 32) + r->interface;
        }
        packets += b.n;
        rest = b.filled - b.used;
        more = take > 0 || b.used > 0;
        free(left);
        left = malloc(rest ? rest : 1);
        memcpy(left, b.bytes + b.used, rest);
        if (work) pipeline(&b);
        pt_batch_free(&b);
    }
    free(left);
    return packets;
}

static uint64_t feed_new(const pt_cutter *model, const uint8_t *p, size_t n, size_t piece, int work, uint64_t *digest)
{
    pt_cutter c = *model;
    uint64_t packets;
    memset(&c.interfaces, 0, sizeof c.interfaces);
    if (model->interfaces.n) *pt_add_interface(&c.interfaces) = *model->interfaces.of;
    packets = feed(&c, p, n, piece, work, digest);
    pt_free_interfaces(&c.interfaces);
    return packets;
}

/* Whole, in pieces, cut at every byte, mutated. */
static void try_stream(const pt_cutter *c, const stream *s, uint64_t packets)
{
    uint64_t whole, pieces, n = feed_new(c, s->p, s->n, s->n, 1, &whole), last = 0;
    check(packets == UINT64_MAX || n == packets, "%llu of %llu packets", (unsigned long long)n,
          (unsigned long long)packets);
    for (size_t piece = 1; piece <= 7; piece++) {
        check(feed_new(c, s->p, s->n, piece, 0, &pieces) == n && pieces == whole, "pieces of %zu differ", piece);
    }
    for (size_t cut = 0; cut < s->n; cut++) {
        uint64_t now = feed_new(c, s->p, cut, cut ? cut : 1, cut % 16 == 0, &pieces);
        check(now >= last && now <= n, "a longer stream has fewer packets");
        last = now;
    }
    for (int k = 0; k < 400; k++) {
        uint8_t *copy = malloc(s->n);
        memcpy(copy, s->p, s->n);
        mutate(copy, (uint32_t)s->n, 1 + (int)chance(5));
        feed_new(c, copy, s->n, s->n, 1, &pieces);
        free(copy);
    }
}

static void every_stream(void)
{
    for (int kind = 0; kind < 24; kind++) {
        stream s = {0};
        pt_cutter c;
        start_pcap(&c, links[chance(LINKS)].linktype, kind & 1, kind & 2, kind & 4, kind / 8);
        pcap_stream(&s, &c, 6);
        try_stream(&c, &s, 6);
        free(s.p);
        pt_free_interfaces(&c.interfaces);
    }
    for (int k = 0; k < 40; k++) {
        stream s = {0};
        pt_cutter c;
        start_pcapng(&c);
        pcapng_stream(&s, 1 + k % 3, 4);
        try_stream(&c, &s, UINT64_MAX);
        free(s.p);
    }
}

static void random_streams(int rounds)
{
    while (rounds--) {
        stream s = {0};
        made m = {.n = 0};
        uint64_t digest;
        pt_cutter c;
        start_pcapng(&c);
        s.swapped = (int)chance(2);
        put_section(&s);
        add_noise(&m, chance(400));
        if (chance(2)) put_interface(&s, 1, 0, (uint8_t)chance(256));
        if (chance(2)) memset(m.p, 0, 4), m.p[s.swapped ? 3 : 0] = 6, pt_put32(m.p + 4, 4 * chance(100), s.swapped);
        put(&s, m.p, m.n);
        feed(&c, s.p, s.n, 1 + chance(500), 1, &digest);
        pt_free_interfaces(&c.interfaces);
        start_pcap(&c, links[chance(LINKS)].linktype, s.swapped, 0, 0, 0);
        feed(&c, m.p, m.n, 1 + chance(500), 1, &digest);
        pt_free_interfaces(&c.interfaces);
        free(s.p);
    }
}

/* ---- the rest --------------------------------------------------------------------------------------------- */

/* Random programs: those that are accepted must run without reading elsewhere, and end. */
static void random_programs(int rounds)
{
    static const uint16_t codes[] = {
        0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x80, 0x01, 0x61, 0x81, 0xb1, 0x02, 0x03, 0x04, 0x0c, 0x14,
        0x24, 0x34, 0x3c, 0x64, 0x74, 0x84, 0x94, 0x9c, 0xa4, 0x05, 0x15, 0x1d, 0x25, 0x35, 0x45, 0x07, 0x87,
        0x06, 0x16,
    };
    uint64_t accepted = 0;
    uint8_t *packet = malloc(60);
    for (int k = 0; k < 60; k++) packet[k] = (uint8_t)chance(256);
    for (int r = 0; r < rounds; r++) {
        uint32_t n = 1 + chance(12);
        pt_instruction *f = malloc(n * sizeof *f);
        for (uint32_t k = 0; k < n; k++) {
            f[k].code = chance(20) ? codes[chance(sizeof codes / sizeof *codes)] : (uint16_t)chance(65536);
            f[k].jt = (uint8_t)chance(chance(20) ? n - k : 256);
            f[k].jf = (uint8_t)chance(chance(20) ? n - k : 256);
            f[k].k = chance(20) ? chance(f[k].code == 0x05 ? n - k : 16) : chance(UINT32_MAX);
        }
        if (chance(10)) f[n - 1].code = chance(2) ? 0x06 : 0x16;
        if (pt_filter_valid(f, n)) {
            accepted++;
            pt_filter_run(f, packet, 60, 1500);
        }
        free(f);
    }
    free(packet);
    check(accepted > (uint64_t)rounds / 10, "only %llu programs were accepted", (unsigned long long)accepted);
    check(pt_filter_valid(port80, sizeof port80 / sizeof *port80), "a good program was refused");
}

static void refused_programs(void)
{
    static const pt_instruction bad[][2] = {
        {{0x61, 0, 0, 16}, {0x06, 0, 0, 1}}, {{0x60, 0, 0, 16}, {0x06, 0, 0, 1}}, {{0x02, 0, 0, 16}, {0x06, 0, 0, 1}},
        {{0x03, 0, 0, 99}, {0x06, 0, 0, 1}}, {{0x05, 0, 0, 1}, {0x06, 0, 0, 1}}, {{0x15, 1, 0, 0}, {0x06, 0, 0, 1}},
        {{0x15, 0, 1, 0}, {0x06, 0, 0, 1}}, {{0x06, 0, 0, 1}, {0x00, 0, 0, 1}},
    };
    for (uint32_t k = 0; k < sizeof bad / sizeof *bad; k++)
        check(!pt_filter_valid(bad[k], 2), "bad program %u accepted", k);
    check(!pt_filter_valid(port80, 0), "the empty program was accepted");
}

/* The unrolled sum against one that adds word by word, at all lengths and alignments. */
static void plain_sums(void)
{
    for (uint32_t n = 0; n < 300; n++) {
        uint32_t odd = n & 3, sum = 0;
        uint8_t *block = malloc(odd + n + !(odd + n)), *p = block + odd;
        for (uint32_t k = 0; k < n; k++) p[k] = n % 7 ? (uint8_t)chance(256) : 0xff;
        for (uint32_t k = 0; k < n; k++) sum += k & 1 ? p[k] : (uint32_t)p[k] << 8;
        while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
        check(pt_hton16(pt_fold(pt_sum_bytes(p, n))) == sum, "sum of %u bytes", n);
        free(block);
    }
    check(pt_fold(UINT64_MAX) == 0xffff && pt_fold(0) == 0 && pt_fold(0x1ffff) == 1, "fold");
    check((uint32_t)~pt_crc(PT_CRC32C, ~0u, (const uint8_t *)"123456789", 9) == 0xe3069283u, "CRC32c of its check string");
}

#ifndef PT_NO_MAIN
int main(void)
{
    plain_sums();
    refused_programs();
    whole_packets_are_understood();
    every_packet();
    mutated_packets(500);
    random_packets(300000);
    every_stream();
    random_streams(50000);
    random_programs(1000000);
    printf("%llu passed, %llu failed\n", (unsigned long long)passed, (unsigned long long)failed);
    return failed != 0;
}
#endif
