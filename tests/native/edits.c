/* The edits on random and hostile packets, under the sanitizers: nothing outside a packet is touched. */
#include <assert.h>
#include <stdio.h>

#include "choose.h"
#include "compat.h"
#include "edits.h"
#include "retime.h"

static uint64_t state = 88172645463325252u;
static uint32_t chance(uint32_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 11) % n;
}

static const uint16_t types[] = {0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x8847, 0x8864, 0x6558, 38, 0x880b};
static const uint8_t protocols[] = {6, 17, 1, 58, 47, 4, 41, 50, 132, 0, 44, 43, 51, 136, 2};
static const uint16_t linktypes[] = {1, 1, 1, 1, 101, 0, 108, 113, 276, 104, 9, 50, 105, 127, 10, 228, 7, 129, 239, 147};

static void make(uint8_t *p, uint32_t n, uint16_t linktype)
{
    uint32_t at = linktype == 1 ? 12 : 0;
    for (uint32_t k = 0; k < n; k++) p[k] = (uint8_t)(chance(4) ? chance(4) : chance(256));
    if (linktype == 1) {
        uint16_t type = types[chance(10)];
        if (n < 14) return;
        pt_put_net16(p + 12, type);
        at = 14;
        for (; at + 4 <= n && (type == 0x8100 || type == 0x88a8); at += 4) pt_put_net16(p + at + 2, type = types[chance(10)]);
    }
    while (at + 48 <= n && chance(8)) {
        uint8_t protocol = protocols[chance(15)];
        if (chance(2)) {
            p[at] = 0x45;
            pt_put_net16(p + at + 2, (uint16_t)(chance(5) ? n - at : chance(1600)));
            if (chance(4)) p[at + 6] = p[at + 7] = 0;
            p[at + 9] = protocol;
            at += 20;
        } else {
            p[at] = 0x60;
            pt_put_net16(p + at + 4, (uint16_t)(chance(5) ? n - at - 40 : chance(1600)));
            p[at + 6] = protocol;
            at += 40;
        }
        if (protocol == 17) {
            static const uint16_t ports[] = {4789, 2152, 53, 6081, 3544, 5353};
            if (at + 20 > n) return;
            pt_put_net16(p + at, ports[chance(6)]);
            pt_put_net16(p + at + 2, ports[chance(6)]);
            pt_put_net16(p + at + 4, (uint16_t)(n - at));
            p[at + 8] = 8;
            at += 16;
            if (chance(2) && at + 14 <= n) pt_put_net16(p + at + 12, types[chance(10)]), at += 14;
        } else if (protocol == 47) {
            if (at + 4 > n) return;
            pt_put_net16(p + at, (uint16_t)(chance(2) ? 0 : 0x8000));
            pt_put_net16(p + at + 2, types[chance(10)]);
            at += 4;
        } else if (protocol != 4 && protocol != 41) return;
    }
}

static void fill(pt_batch *b, pt_interfaces *all)
{
    memset(b, 0, sizeof *b);
    b->header = 16;
    b->interfaces = all;
    for (int k = 0; k < 8; k++) {
        uint32_t n = chance(200);
        pt_record *r = pt_add_record(b);
        assert(r && !pt_batch_reserve(b, b->used + 16 + n));
        memset(r, 0, sizeof *r);
        r->interface = chance(all->n);
        r->start = (uint32_t)b->used;
        r->data = r->start + 16;
        r->caplen = n;
        r->wirelen = chance(4) ? n : n + chance(300);
        r->end = r->data + n;
        r->time = chance(1000);
        pt_put_record_header(b->bytes + r->start, r->time, n, r->wirelen, 0);
        make(b->bytes + r->data, n, all->of[r->interface].linktype);
        b->used = b->filled = r->end;
    }
    /* no byte to spare, so that the sanitizer sees the smallest step too far */
    b->bytes = realloc(b->bytes, b->used ? b->used : 1);
    b->capacity = b->used;
    assert(!pt_locate(b));
}

static pt_map_rule rule4 = {{0}, {0}, {0x0a}, {~0u}, 0, 0, 0};
static pt_map_rule rule6 = {{0}, {0}, {0xfd, 0, 0, 0}, {0, ~0u, ~0u, ~0u}, 0, 0, 0};

static void edit(pt_batch *b)
{
    static pt_anon_entry cache[PT_ANON_CACHE];
    static pt_leaks leaks;
    static pt_direction_entry entries[PT_DIRECTION_SETS * PT_DIRECTION_WAYS];
    static pt_dedup dedup = {NULL, 0, 0, 0, 100, 0, 0, 0};
    pt_anonymizer z = {{1, 2}, (uint8_t)(1 + chance(2)), (uint8_t)chance(3), cache, NULL};
    pt_port_rule port = {1, 65535, 7, 0, 0, 0};
    pt_directions d = {entries, 1};
    pt_choice choice = {NULL, 0, INT64_MIN, INT64_MAX, 1 + chance(3), 0, 0};
    pt_job j;
    pt_batch out;
    uint32_t cut[64];
    memset(&j, 0, sizeof j);
    memset(cache, 0, sizeof cache);
    memset(&leaks, 0, sizeof leaks);
    memset(&out, 0, sizeof out);
    out.interfaces = b->interfaces;
    j.which = (uint8_t)chance(3);
    j.addresses = j.any_field = 1;
    j.tos = j.tclass = (int16_t)((int)chance(4) - 1);
    j.flowlabel = (int32_t)chance(4) - 1;
    j.ttl_mode = (uint8_t)chance(4);
    j.ttl = (uint16_t)chance(256);
    j.e.more = (uint8_t)chance(2);
    j.e.v4[chance(2)] = j.e.pnat4[chance(2)] = (pt_map){&rule4, 1};
    j.e.v6[chance(2)] = j.e.both6 = (pt_map){&rule6, 1};
    j.e.seeded = (uint8_t)chance(2);
    j.e.anonymizer = chance(2) ? &z : NULL;
    j.e.leaks = &leaks;
    j.e.port = &port;
    j.e.ports = chance(2);
    j.e.sequence = chance(2) * 77;
    j.e.fields = 1;
    j.any_mac = 2;
    j.set_mac[chance(2)][chance(2)] = 1;
    j.mac_seeded = (uint8_t)chance(2);
    j.fuzzing = (uint8_t)chance(2);
    j.fuzz_state = chance(1000);
    j.fuzz_factor = 1 + chance(3);
    j.payload.mode = (uint8_t)chance(4);
    j.map_dns = 1;
    j.fix_lengths = (uint8_t)chance(2);
    j.cut = cut;
    assert(!pt_drop_duplicates(&dedup, b));
    pt_choose(&choice, b);
    if (chance(2)) pt_spare(b);
    pt_direct(&d, b);
    pt_edit_batch(&j, b);
    assert(!pt_cut_batch(b, &out, cut));
    assert(!pt_locate(&out));
    pt_resum(&out);
    pt_batch_free(&out);
}

static void shape(const pt_batch *b)
{
    static const int32_t outs[] = {-1, -1, 1, 101, 0, 108, 113, 276, 104, 9, 50};
    pt_vlan_rule translate = {0, 4000, 5, 0};
    pt_shape s;
    pt_batch out;
    memset(&s, 0, sizeof s);
    memset(&out, 0, sizeof out);
    out.interfaces = b->interfaces;
    s.out_type = outs[chance(11)];
    s.vlan = (uint8_t)chance(3);
    s.vlan_tag = 7;
    s.vlan_cfi = s.vlan_pri = -1;
    s.vlan_proto = 0x8100;
    s.hdlc_address = s.hdlc_control = -1;
    s.decap = (uint8_t)chance(2);
    s.pops = chance(3);
    s.push[0] = 0x81000005;
    s.pushes = chance(2);
    s.translate = &translate;
    s.translations = 1;
    s.efcs = (uint8_t)chance(2);
    s.fixlen = (uint8_t)chance(4);
    s.mtu_trunc = (uint8_t)chance(2);
    s.mtu = 1 + chance(200);
    s.snaplen = chance(2) * chance(100);
    for (int k = 0; k < 2; k++) s.chop[k] = (int32_t)(chance(2) * chance(90));
    s.chop_at[0] = chance(2) * chance(90);
    if (!chance(4)) s.is_user = s.links = 1, s.link_size = (uint16_t)chance(100);
    assert(!pt_shape_batch(&s, b, &out, NULL));
    for (uint32_t k = 0; k < out.n; k++) assert(out.record[k].data + out.record[k].caplen <= out.record[k].end);
    assert(out.n + s.dropped[1] + s.dropped[2] == b->n);
    pt_batch_free(&out);
    free(s.scratch);
}

static void compat(const pt_batch *b, uint16_t linktype)
{
    pt_port_rule port = {1, 65535, 7, 0, 0, 0};
    pt_tcprewrite t;
    pt_batch out;
    memset(&t, 0, sizeof t);
    memset(&out, 0, sizeof out);
    t.in_type = linktype;
    t.out_type = (uint16_t)(chance(2) ? linktype : chance(2) ? 104 : 101);
    t.seeded = t.fix_checksums = t.fix_lengths = t.mtu_trunc = t.fuzzing = t.sequenced = 1;
    t.port = &port;
    t.ports = 1;
    t.ttl_mode = (uint8_t)chance(4);
    t.ttl = 9;
    t.tos = t.tclass = 3;
    t.flowlabel = 77;
    t.fixlen = (uint8_t)chance(3);
    t.mtu = 1 + chance(200);
    t.efcs = (uint8_t)chance(2);
    t.vlan = (uint8_t)chance(3);
    t.vlan_tag = 7;
    t.hdlc_address = 1;
    t.mac_seeded = 1;
    t.fuzz_factor = 1;
    t.map6[2] = (pt_map){&rule6, 1};
    t.map4[3] = (pt_map){&rule4, 1};
    t.pnat = 1;
    assert(!pt_tr_batch(&t, b, &out));
    pt_batch_free(&out);
}

static void one_to_one(void)
{
    static pt_anon_entry cache[PT_ANON_CACHE];
    static uint8_t seen[1 << 16];
    for (int mode = 1; mode < 3; mode++) {
        pt_anonymizer z = {{3, 4}, (uint8_t)mode, 2, cache, NULL};
        uint8_t top[2];
        memset(cache, 0, sizeof cache);
        memset(seen, 0, sizeof seen);
        for (uint32_t k = 0; k < 1 << 16; k++) {
            uint8_t a[4] = {10, 1, (uint8_t)(k >> 8), (uint8_t)k};
            uint32_t low;
            pt_anon(&z, a, 4);
            if (mode == 2) continue;
            if (!k) memcpy(top, a, 2);
            low = (uint32_t)a[2] << 8 | a[3];
            assert(!memcmp(top, a, 2) && !seen[low]);
            seen[low] = 1;
        }
    }
}

int main(void)
{
    pt_interfaces all;
    memset(&all, 0, sizeof all);
    for (uint32_t k = 0; k < sizeof linktypes / sizeof *linktypes; k++) {
        pt_interface *i = pt_add_interface(&all);
        i->linktype = linktypes[k];
        pt_set_resolution(i, 6);
    }
    one_to_one();
    for (int k = 0; k < 20000; k++) {
        pt_batch b;
        fill(&b, &all);
        shape(&b);
        compat(&b, linktypes[chance(20)]);
        edit(&b);
        pt_batch_free(&b);
    }
    pt_free_interfaces(&all);
    puts("edits: ok");
    return 0;
}
