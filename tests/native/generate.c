/* What pcapgen makes and what pcapinfo counts, under the sanitizers: any wish is met exactly, with right checksums. */
#include <assert.h>
#include <stdio.h>

#include "mix.h"
#include "stats.h"

static uint64_t state = 88172645463325252u;
static uint32_t chance(uint32_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 11) % n;
}

static void set_maker(pt_maker *m)
{
    pt_interface *interface = pt_add_interface(&m->interfaces);
    assert(interface);
    interface->linktype = 1;
    m->nanoseconds = (uint8_t)chance(2);
    pt_set_resolution(interface, m->nanoseconds ? 9 : 6);
    m->start = (int64_t)chance(2000000000) * 1000000000;
    m->least = chance(2) ? 60 : 0;
}

static void set_link(pt_link *link, int v6, int tagged)
{
    uint8_t *p = link->bytes + 12;
    if (tagged) pt_put_net16(p, 0x8100), p += 4;
    pt_put_net16(p, v6 ? 0x86dd : 0x0800);
    link->size = (uint8_t)(p + 2 - link->bytes);
    link->tag = tagged ? link->size - 4 : 0;
}

/* Count a batch as pcapinfo does; its checksums are right. */
static void count(pt_stats *s, pt_batch *b)
{
    pt_sum_counts sums;
    memset(&sums, 0, sizeof sums);
    assert(!pt_locate(b) && !pt_stats_batch(s, b) && !pt_stats_detail(s, b));
    pt_batch_sums(b, 1, &sums);
    assert(!sums.header[PT_SUM_WRONG] && sums.transport[PT_SUM_RIGHT] == b->n);
}

static void check(pt_stats *s, uint64_t packets)
{
    assert(s->packets == packets && s->seen == packets && s->share[0].packets == packets);
    assert(s->status[PT_OK] == packets && !s->cut && !s->untimed);
    assert(pt_stats_size_at(s, 1) >= s->least_size && pt_stats_size_at(s, packets) == s->most_size);
    pt_stats_free(s);
}

static void flood(pt_batch *b)
{
    pt_flood f;
    pt_stats s;
    uint64_t packets = 1 + chance(3000);
    memset(&f, 0, sizeof f);
    memset(&s, 0, sizeof s);
    set_maker(&f.maker);
    f.version = chance(2) ? 4 : 6;
    set_link(&f.link, f.version == 6, 0);
    memset(f.source, 255, 16); /* the first carry runs through all bytes */
    f.addresses = 1 + chance(500);
    f.left = packets;
    f.whole = chance(1000), f.part = chance(7), f.divisor = 7;
    f.port = f.first_port = 65530;
    f.last_port = 65535;
    pt_seed(&f.maker.random, chance(1000));
    do {
        assert(!pt_flood_fill(&f, b));
        if (b->n) count(&s, b);
    } while (b->n);
    check(&s, packets);
    pt_free_interfaces(&f.maker.interfaces);
}

static void mix(pt_mix *m, pt_batch *b)
{
    pt_stats s;
    uint64_t flows = 1 + chance(chance(4) ? 50 : 30000), packets = flows + chance(chance(2) ? 3 : 5000);
    memset(m, 0, sizeof *m);
    memset(&s, 0, sizeof s);
    set_maker(&m->maker);
    for (int k = 0; k < 8; k++) set_link(&m->link[k >> 2][k >> 1 & 1][k & 1], k >> 2, k & 1);
    m->flows = flows;
    m->packets = packets;
    m->duration = 1 + (int64_t)chance(1000000) * chance(10000);
    m->vlan_share = (uint64_t)chance(5) << 30;
    m->ipv6_share = (uint64_t)chance(5) << 30;
    m->loss = (uint64_t)chance(5) << 29;
    m->reorder = (uint64_t)chance(5) << 29;
    pt_mix_begin(m, chance(1000));
    do {
        assert(!pt_mix_fill(m, b));
        if (b->n) count(&s, b);
    } while (b->n);
    assert(m->counts.packets == packets && m->begun == flows);
    check(&s, packets);
    pt_free_interfaces(&m->maker.interfaces);
}

int main(void)
{
    pt_mix *m = malloc(sizeof *m);
    pt_batch b;
    assert(m);
    memset(&b, 0, sizeof b);
    assert(!pt_batch_reserve(&b, PT_FRAME_ROOM * 3 + 17)); /* nearly every record is near the end */
    for (int k = 0; k < 200; k++) flood(&b), mix(m, &b);
    pt_batch_free(&b);
    free(m);
    puts("generate: ok");
    return 0;
}
