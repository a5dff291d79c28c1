/* The flow table on random and hostile packets, under the sanitizers; a million keys; fragments. */
#include <assert.h>
#include <stdio.h>

#include "listing.h"
#include "parts.h"

static uint64_t state = 88172645463325252u;
static uint32_t chance(uint32_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 11) % n;
}

static const uint16_t linktypes[] = {1, 1, 1, 101, 113, 276, 0, 105};
static const char *const texts[] = {
    "INVITE sip:b SIP/2.0\r\nCall-ID: one\r\nCSeq: 1 INVITE\r\n\r\n", "SIP/2.0 200 OK\r\ni:one\r\nCSeq: 1 INVITE\r\n",
    "BYE sip:b SIP/2.0\r\nCall-ID:", "227 Entering (1,2,3,4,5,6)", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "SIP/2.0 ",
};

/* A packet with few addresses, ports and identifications, so that flows and datagrams meet. */
static void make(uint8_t *p, uint32_t n, uint16_t linktype)
{
    uint32_t at = linktype == 1 ? 14 : linktype == 113 ? 16 : linktype == 276 ? 20 : 0;
    const int six = chance(3) == 0;
    static const uint8_t protocols[] = {6, 17, 17, 1, 58, 50, 132, 44, 4};
    uint8_t protocol = protocols[chance(9)];
    for (uint32_t k = 0; k < n; k++) p[k] = (uint8_t)(chance(6) ? 0 : chance(256));
    if (at >= 2 && at <= n) pt_put_net16(p + (linktype == 276 ? 0 : at - 2), six ? 0x86dd : 0x0800);
    if (linktype == 1 && chance(3) == 0 && at + 4 <= n) {
        pt_put_net16(p + 12, 0x8100);
        pt_put_net16(p + 14, (uint16_t)chance(3));
        pt_put_net16(p + 16, six ? 0x86dd : 0x0800);
        at += 4;
    }
    if (at + (six ? 48 : 28) > n) return;
    if (six) {
        p[at] = 0x60;
        pt_put_net16(p + at + 4, (uint16_t)(chance(5) ? n - at - 40 : chance(1600)));
        p[at + 6] = protocol;
        p[at + 23] = (uint8_t)chance(3), p[at + 39] = (uint8_t)chance(3);
        if (protocol == 44) p[at + 40] = 17, p[at + 43] = (uint8_t)(chance(2) ? 1 : 8), p[at + 47] = (uint8_t)chance(3);
        at += protocol == 44 ? 48 : 40;
    } else {
        p[at] = 0x45;
        pt_put_net16(p + at + 2, (uint16_t)(chance(5) ? n - at : chance(1600)));
        p[at + 5] = (uint8_t)chance(3);
        if (chance(3) == 0) p[at + 6] = (uint8_t)(chance(2) ? 0x20 : 0), p[at + 7] = (uint8_t)chance(2);
        p[at + 9] = protocol;
        p[at + 15] = (uint8_t)chance(3), p[at + 19] = (uint8_t)chance(3);
        at += 20;
    }
    if (at + 20 > n) return;
    pt_put_net16(p + at, (uint16_t)chance(3));
    pt_put_net16(p + at + 2, (uint16_t)chance(3));
    if (protocol == 6) p[at + 12] = 0x50, p[at + 13] = (uint8_t)chance(32);
    at += protocol == 6 ? 20 : 8;
    if (at < n && chance(2)) {
        const char *text = texts[chance(6)];
        const size_t size = strlen(text) < n - at ? strlen(text) : n - at;
        memcpy(p + at, text, size);
    }
}

static void fill(pt_batch *b, pt_interfaces *all)
{
    memset(b, 0, sizeof *b);
    b->header = 16;
    b->interfaces = all;
    for (int k = 0; k < 40; k++) {
        uint32_t n = chance(160);
        pt_record *r = pt_add_record(b);
        assert(r && !pt_batch_reserve(b, b->used + 16 + n));
        memset(r, 0, sizeof *r);
        r->interface = chance(all->n);
        r->start = (uint32_t)b->used;
        r->data = r->start + 16;
        r->caplen = n;
        r->wirelen = n + chance(20);
        r->end = r->data + n;
        r->time = (int64_t)chance(1000) * 1000000000;
        r->flags = chance(9) ? 0 : PT_DROP;
        make(b->bytes + r->data, n, all->of[r->interface].linktype);
        b->used = b->filled = r->end;
    }
}

/* Every packet is in one flow, every flow in one file, and every flow has words. */
static void finish(pt_split *s, uint64_t packets)
{
    uint64_t counted = 0;
    uint32_t *order = malloc((s->places + 1) * sizeof *order), *first;
    for (uint32_t k = 0; s->flows.n > 2 && k < 20; k++) assert(pt_relate(s, chance(s->flows.n), chance(s->flows.n), 1) >= 0);
    assert(!pt_assign_groups(s, 1));
    first = malloc((pt_group_count(s) + 2) * sizeof *first);
    assert(order && first && !pt_sort_places(s, s->places, order, first));
    assert(first[pt_group_count(s)] == s->places);
    for (uint32_t row = 0; row < s->flows.n; row++) {
        const pt_flow *f = pt_flow_at(s, row);
        char line[PT_LINE];
        if (f->same != PT_NONE) continue;
        counted += f->packets[0] + f->packets[1];
        assert(f->first <= f->last && f->group < pt_group_count(s));
        assert(pt_put_flow(line, s, row, row, "protocol") < line + PT_LINE);
    }
    assert(counted == s->packets && counted == s->places && counted + s->filtered == packets);
    free(order);
    free(first);
}

static void hostile(int by, int grouping)
{
    pt_interface interfaces[8];
    pt_interfaces all = {interfaces, 8, 8, NULL};
    pt_split s;
    uint64_t packets = 0;
    memset(interfaces, 0, sizeof interfaces);
    for (int k = 0; k < 8; k++) interfaces[k].linktype = linktypes[k];
    memset(&s, 0, sizeof s);
    s.by = (uint8_t)by;
    s.grouping = (uint8_t)grouping;
    s.files = 3;
    s.limit = 100;
    s.inner = chance(2), s.ignore_vlan = chance(2), s.own_icmp_errors = chance(2);
    s.timeout = chance(2) ? 100000000000 : 0;
    s.keep = 1;
    s.tells = grouping ? 0 : 15;
    s.flows.seed = state;
    assert(!pt_split_begin(&s));
    for (int k = 0; k < 20; k++) {
        pt_batch b;
        fill(&b, &all);
        assert(!pt_locate(&b) && !pt_split_batch(&s, &b));
        packets += b.n;
        pt_batch_free(&b);
    }
    finish(&s, packets);
    pt_split_free(&s);
}

static void many_keys(uint32_t n)
{
    pt_keytable t = {.stride = sizeof(pt_flow_key), .key = sizeof(pt_flow_key), .seed = 7};
    pt_flow_key key;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t k = 0; k < n; k++) {
            pt_number_key(&key, PT_KEY_NUMBER, (uint64_t)k << 20);
            assert(pt_obtain(&t, &key) == k);
        }
    }
    assert(t.n == n && t.used == n);
    pt_keytable_free(&t);
}

int main(void)
{
    for (int k = 0; k < 200; k++) hostile(k % 3 ? PT_BY_CONNECTION : k % (PT_BY_FILTER + 1), k % 3 == 1 ? k % (PT_GROUP_FILES + 1) : 0);
    many_keys(1000000);
    puts("flows: ok");
    return 0;
}
