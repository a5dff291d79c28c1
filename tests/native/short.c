/* The short ways of the core do what the long ways do: headers, checksums, edits of one packet both ways, under the
 * sanitizers. Sums are compared with the plainest code that can compute them. */
#include <assert.h>
#include <stdio.h>

#include "edits.h"

static uint64_t state = 88172645463325252u;
static uint32_t chance(uint32_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 11) % n;
}

/* ---- sums ---- */

static uint16_t plain_fold(uint64_t sum)
{
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static uint16_t plain_sum(const uint8_t *p, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t k = 0; k < n; k += 2) {
        uint8_t pair[2] = {p[k], k + 1 < n ? p[k + 1] : 0};
        uint16_t word;
        memcpy(&word, pair, 2);
        sum += word;
    }
    return plain_fold(sum);
}

static void sums(void)
{
    static const uint32_t sizes[] = {0, 1, 7, 8, 31, 32, 63, 64, 65, 95, 1500, 65535, 65536, 65537, 200001};
    for (uint32_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        for (uint32_t odd = 0; odd < 4; odd++) {
            const uint32_t n = sizes[k];
            const int all_ones = (int)chance(2);
            uint8_t *p = malloc(n + odd + 1);
            for (uint32_t i = 0; i < n + odd; i++) p[i] = (uint8_t)(all_ones ? 0xff : chance(256));
            assert(pt_fold(pt_sum_bytes(p + odd, n)) == plain_sum(p + odd, n));
            free(p);
        }
    }
    for (int k = 0; k < 100000; k++) {
        uint64_t sum = (uint64_t)chance(UINT32_MAX) << 32 | chance(UINT32_MAX);
        sum = chance(3) ? sum : chance(2) ? UINT64_MAX - chance(3) : sum % 0xffff * 0xffff;
        assert(pt_fold(sum) == plain_fold(sum));
    }
}

/* ---- packets ---- */

enum { ROOM = 256 };

/* Ethernet, IP, transport; mostly sound, with right checksums; then a byte in some packets is another. Returns bytes. */
static uint32_t make(uint8_t *p)
{
    static const uint8_t protocols[] = {PT_TCP, PT_TCP, PT_TCP, PT_UDP, PT_UDP, PT_ICMP, PT_ICMPV6, PT_GRE, PT_AH, 0, 4};
    static const uint16_t ports[] = {53, 80, 4789, 2152, 3544, 6081, 8472, 0};
    const int v4 = (int)chance(3) > 0;
    const uint32_t header = v4 ? 20 : 40, payload = chance(100), n = 14 + header + 20 + payload;
    uint8_t *ip = p + 14, *at = ip + header;
    for (uint32_t k = 0; k < ROOM; k++) p[k] = (uint8_t)chance(chance(5) ? 256 : 2);
    pt_put_net16(p + 12, v4 ? PT_TYPE_IPV4 : PT_TYPE_IPV6);
    ip[0] = v4 ? 0x45 : 0x60;
    ip[v4 ? 9 : 6] = protocols[chance(sizeof protocols)];
    if (v4) pt_put_net16(ip + 2, (uint16_t)(20 + 20 + payload)), memset(ip + 6, 0, 2);
    else pt_put_net16(ip + 4, (uint16_t)(20 + payload));
    if (chance(3)) ip[v4 ? 16 : 24] = 10;
    if (chance(3)) ip[v4 ? 12 : 8] = 10;
    for (int side = 0; side < 4; side += 2)
        if (!chance(3)) pt_put_net16(at + side, ports[chance(8)]);
    if (ip[v4 ? 9 : 6] == PT_UDP && chance(5)) pt_put_net16(at + 4, (uint16_t)(20 + payload));
    return n + (chance(3) ? 0 : chance(7)); /* padding */
}

static void fix(uint8_t *p, uint32_t n)
{
    pt_where o;
    pt_sum_counts counts;
    pt_record r = {0};
    r.caplen = r.wirelen = n;
    memset(&counts, 0, sizeof counts);
    pt_locate_walk(p, n, n, 1, &o);
    if (o.depth) pt_packet_sums(p, &r, 1, &o, 1, &counts);
}

static void same_layer(const pt_layer *a, const pt_layer *b)
{
    assert(a->ip == b->ip && a->transport == b->transport && a->end == b->end && a->version == b->version);
    assert(a->protocol == b->protocol && a->status == b->status && a->flags == b->flags);
}

static int same_headers(const uint8_t *p, uint32_t n, uint32_t wirelen)
{
    pt_where a, b;
    pt_locate_walk(p, n, wirelen, 1, &b);
    if (!pt_locate_plain(p, n, wirelen, &a)) return 0;
    assert(a.ethernet == b.ethernet && a.network == b.network && a.ethertype == b.ethertype && a.status == b.status);
    assert(a.depth == b.depth);
    same_layer(&a.outer, &b.outer);
    same_layer(&a.inner, &b.inner);
    return 1;
}

static int same_verdict(uint8_t *p, uint32_t n, const pt_where *o)
{
    pt_sum_counts counts;
    if (o->depth != 1 || !pt_plainly_right(p, n, &o->outer)) return 0;
    memset(&counts, 0, sizeof counts);
    assert(!pt_layer_sums(p, n, &o->outer, 0, &counts));
    assert(counts.header[PT_SUM_RIGHT] == 1 && counts.transport[PT_SUM_RIGHT] == 1);
    return 1;
}

/* ---- edits ---- */

static pt_map_rule rules[2][6];

/* The same job twice, each with rules of its own, so that the counts can be compared. */
static void make_jobs(pt_job *jobs)
{
    const int lists = (int)chance(16), macs = (int)chance(3), more = (int)chance(3);
    for (int k = 0; k < 2; k++) {
        pt_job *j = &jobs[k];
        pt_map_rule *r = rules[k];
        memset(j, 0, sizeof *j);
        memset(rules[k], 0, sizeof rules[k]);
        for (int i = 0; i < 6; i++) {
            ((uint8_t *)r[i].from)[0] = 10;
            ((uint8_t *)r[i].mask)[0] = 0xff;
            ((uint8_t *)r[i].to)[0] = (uint8_t)(20 + i);
            memset(r[i].keep, 0xff, 16);
            ((uint8_t *)r[i].keep)[0] = 0;
        }
        for (int side = 0; side < 2; side++) {
            if (lists & 1 << side) j->e.v4[side] = (pt_map){&r[side], 1};
            if (lists & 4 << side) j->e.v6[side] = (pt_map){&r[2 + side], 1};
        }
        if (!more) {
            j->e.more = 1;
            j->e.both4 = (pt_map){&r[4], 1};
            j->e.both6 = (pt_map){&r[5], 1};
        }
        j->addresses = (uint8_t)(lists || !more);
        j->tos = j->tclass = -1;
        j->flowlabel = -1;
        j->any_mac = macs ? 3 : 0;
        for (int way = 0; way < 2 && macs; way++) {
            j->set_mac[0][way] = (uint8_t)(macs != 2 || way);
            j->set_mac[1][way] = macs == 2;
            memset(j->mac[0][way], 2 + way, 6);
            memset(j->mac[1][way], 4 + way, 6);
        }
        assert(pt_is_plain_job(j));
    }
}

static void same_counts(const pt_job *a, const pt_job *b)
{
    assert(a->e.seen == b->e.seen && a->e.unmapped == b->e.unmapped && a->macs_changed == b->macs_changed);
    assert(!memcmp(a->e.matched, b->e.matched, sizeof a->e.matched) && a->e.malformed == b->e.malformed);
    assert(a->e.cut == b->e.cut && a->e.no_ethernet == b->e.no_ethernet && a->soft == b->soft);
    for (int i = 0; i < 6; i++)
        assert(rules[0][i].matched == rules[1][i].matched && rules[0][i].packets == rules[1][i].packets);
}

static int same_edit(const uint8_t *p, uint32_t n, const pt_where *o)
{
    static pt_interface ethernet = {.linktype = 1};
    static pt_interfaces interfaces = {&ethernet, 1, 1, NULL};
    uint8_t *bytes[2] = {malloc(n), malloc(n)};
    pt_record r = {0};
    pt_batch b;
    pt_job jobs[2];
    int changed, way = (int)chance(2);
    memset(&b, 0, sizeof b);
    for (int k = 0; k < 2; k++) memcpy(bytes[k], p, n);
    r.caplen = r.wirelen = r.end = n;
    b.bytes = bytes[1];
    b.record = &r;
    b.n = 1;
    b.used = b.filled = n;
    b.interfaces = &interfaces;
    make_jobs(jobs);
    jobs[0].e.s2c = jobs[1].e.s2c = (uint8_t)way;
    jobs[0].e.packet = jobs[1].e.packet = 1;
    changed = pt_edit_plain(&jobs[0], bytes[0], n, o);
    if (changed < 0) {
        assert(!memcmp(bytes[0], p, n));
    } else {
        assert(changed == pt_edit_record(&jobs[1], &b, o, 0));
        assert(!memcmp(bytes[0], bytes[1], n));
        same_counts(&jobs[0], &jobs[1]);
    }
    free(bytes[0]);
    free(bytes[1]);
    return changed >= 0;
}

int main(void)
{
    uint64_t located = 0, right = 0, edited = 0;
    sums();
    for (int round = 0; round < 60000; round++) {
        uint8_t made[ROOM], *p;
        uint32_t n = make(made), wirelen;
        pt_where o;
        if (chance(4)) fix(made, n);
        if (!chance(3)) made[12 + chance(n - 12)] = (uint8_t)chance(chance(2) ? 256 : 2);
        if (!chance(8)) memset(made + 14 + 16 + chance(40), chance(2) ? 0xff : 0, 2);
        if (!chance(3)) n = chance(n + 1);
        wirelen = chance(3) ? n : chance(300);
        p = malloc(n ? n : 1);
        memcpy(p, made, n);
        located += (uint64_t)same_headers(p, n, wirelen);
        pt_locate_walk(p, n, wirelen, 1, &o);
        right += (uint64_t)same_verdict(p, n, &o);
        edited += (uint64_t)same_edit(p, n, &o);
        free(p);
    }
    printf("short ways: %llu located, %llu right, %llu edited\n", (unsigned long long)located, (unsigned long long)right,
           (unsigned long long)edited);
    return located < 1000 || right < 1000 || edited < 1000;
}
