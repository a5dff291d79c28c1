/* All edits that keep lengths, of one located batch: one pass, in the order that the manual states. */
#ifndef PT_EDITS_H
#define PT_EDITS_H

#include "direction.h"
#include "dns.h"
#include "shape.h"

enum pt_which { PT_OUTER, PT_INNER, PT_ALL_LAYERS };
enum { PT_NO_CUT = 0x7fffffff, PT_CUT_WIRE = 0x40000000 }; /* pt_job.cut: captured length, and the wire length likewise */

typedef struct {
    pt_edits e;
    uint8_t which;              /* IP layers: enum pt_which */
    uint8_t addresses;          /* something maps addresses */
    /* fields */
    uint8_t ttl_mode;
    uint16_t ttl;
    int16_t tos, tclass;
    int32_t flowlabel;
    uint8_t any_field;
    /* MAC addresses */
    uint8_t any_mac, set_mac[2][2], mac[2][2][6]; /* [destination, source][c2s, s2c] */
    uint8_t (*swap)[12];
    uint32_t swaps;
    uint8_t mac_seeded, mac_keep, mac_mask[6], skip_l2_broadcast;
    /* the rest */
    uint8_t fuzzing;
    uint32_t fuzz_state, fuzz_factor;
    uint8_t map_dns, fix_lengths;
    pt_payloads payload;
    pt_dns dns;
    uint32_t *cut;              /* per packet of the batch; NULL: nothing can cut */
    /* what happened */
    uint8_t relocate, any_cut, skip_soft;
    uint64_t fuzzed, leaking, relengthened, macs_changed, fields_changed, soft, soft_dropped, fuzz_dropped;
} pt_job;

/* ---- one IP layer ---- */

/* TOS or traffic class, flow label, TTL or hop limit. ip: a whole header. Returns whether any changed. */
static inline int pt_edit_ip_fields(pt_job *j, uint8_t *ip, int version)
{
    const uint32_t size = version == 4 ? 10 : 8;
    uint8_t old[10], *ttl = ip + (version == 4 ? 8 : 7), was[4];
    memcpy(old, ip, size);
    memcpy(was, ip, 4);
    if (version == 4 && j->tos >= 0) ip[1] = (uint8_t)j->tos;
    if (version == 4 && ip[1] != was[1]) pt_count_for(&j->e, PT_BY_TOS);
    if (version == 6 && j->tclass >= 0) pt_put_tclass(ip, (uint8_t)j->tclass);
    if (version == 6 && memcmp(ip, was, 4)) pt_count_for(&j->e, PT_BY_TCLASS);
    memcpy(was, ip, 4);
    if (version == 6 && j->flowlabel >= 0) pt_put_flowlabel(ip, (uint32_t)j->flowlabel);
    if (version == 6 && memcmp(ip, was, 4)) pt_count_for(&j->e, PT_BY_FLOWLABEL);
    if (j->ttl_mode && j->ttl) *ttl = pt_new_ttl(*ttl, j->ttl_mode, j->ttl);
    if (*ttl != old[ttl - ip]) pt_count_for(&j->e, PT_BY_TTL);
    if (!memcmp(old, ip, size)) return 0;
    if (version == 4) pt_update(ip + 10, pt_delta(old, ip, 10), 0);
    return 1;
}

static inline int pt_edit_fields(pt_job *j, uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    uint32_t limit = caplen < l->end ? caplen : l->end;
    uint64_t delta = 0;
    int changed;
    if (l->status == PT_MALFORMED || caplen < l->ip + (l->version == 4 ? 20 : 40)) return 0;
    changed = pt_edit_ip_fields(j, p + l->ip, l->version);
    if (l->transport == PT_NONE || limit < l->transport + 8) return changed;
    if (j->e.ports && (l->protocol == PT_TCP || l->protocol == PT_UDP))
        changed |= pt_rewrite_ports(&j->e, p + l->transport, &delta);
    if (j->e.sequence && l->protocol == PT_TCP && limit >= l->transport + 20 &&
        pt_shift_sequence(p, limit, l->transport, j->e.sequence, &delta))
        pt_count_for(&j->e, PT_BY_SEQUENCE), changed = 1;
    pt_update_transport(p, limit, l, delta);
    return changed;
}

static inline int pt_edit_layer(pt_job *j, uint8_t *p, uint32_t caplen, const pt_layer *l, uint32_t ethernet)
{
    const uint32_t destination = l->ip + (l->version == 4 ? 20 : 40);
    uint8_t group[6];
    int follows, changed = 0;
    if (j->any_field) {
        int some = pt_edit_fields(j, p, caplen, l);
        changed |= some;
        j->fields_changed += (uint64_t)some;
    }
    if (!j->addresses) return changed;
    follows = ethernet != PT_NONE && l->status != PT_MALFORMED && caplen >= destination &&
              pt_group_of(p + l->ip, l->version, group) && !memcmp(p + ethernet, group, 6);
    changed |= pt_rewrite_layer(&j->e, p, caplen, l);
    if (follows) pt_group_mac(p + ethernet, p + l->ip, l->version);
    return changed;
}

/* ---- tunnels ---- */

/* One's complement sum of what an outer transport header covers; 0 where there is no checksum to follow. */
static inline uint64_t pt_cover(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    uint32_t limit = pt_covered_end(p, caplen, l);
    if (l->transport == PT_NONE || limit <= l->transport) return 0;
    if (l->protocol == PT_UDP && limit >= l->transport + 8 && (p[l->transport + 6] || p[l->transport + 7]))
        return pt_sum_bytes(p + l->transport, limit - l->transport);
    if (l->protocol == PT_GRE && limit >= l->transport + 8 && p[l->transport] & 0x80)
        return pt_sum_bytes(p + l->transport, limit - l->transport);
    return 0;
}

/* Follow a change of what the outer layer carries. */
static inline void pt_follow_cover(uint8_t *p, uint32_t caplen, const pt_layer *l, uint64_t before)
{
    uint64_t after = pt_cover(p, caplen, l);
    uint16_t old = (uint16_t)~pt_fold(before);
    if (!before || pt_fold(before) == pt_fold(after)) return;
    pt_update(p + l->transport + (l->protocol == PT_UDP ? 6 : 4), (uint64_t)old + pt_fold(after), l->protocol == PT_UDP);
}

static inline int pt_edit_layers(pt_job *j, uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o)
{
    pt_layer layers[PT_MAX_DEPTH];
    uint64_t before[PT_MAX_DEPTH];
    uint32_t depth, network;
    uint16_t ethertype;
    int changed = 0;
    pt_walk w;
    if (o->depth == 1 || j->which == PT_OUTER) return pt_edit_layer(j, p, r->caplen, &o->outer, o->ethernet);
    pt_walk_start(&w, p, r->caplen, r->wirelen);
    depth = pt_layers(&w, linktype, layers, PT_MAX_DEPTH, &network, &ethertype);
    for (uint32_t k = 0; k < depth; k++) before[k] = pt_cover(p, r->caplen, &layers[k]);
    for (uint32_t k = depth; k--;) {
        if (k + 1 < depth) pt_follow_cover(p, r->caplen, &layers[k], before[k]);
        if (k + 1 == depth || j->which == PT_ALL_LAYERS)
            changed |= pt_edit_layer(j, p, r->caplen, &layers[k], k ? PT_NONE : o->ethernet);
    }
    return changed;
}

/* ---- MAC addresses ---- */

static inline int pt_fixed_mac(const uint8_t *m)
{
    return !memcmp(m, "\xff\xff\xff\xff\xff\xff", 6) || !memcmp(m, "\x01\x00\x5e", 3) || !memcmp(m, "\x33\x33", 2) ||
           (!memcmp(m, "\x00\x00\x5e\x00", 4) && (m[4] == 1 || m[4] == 2));
}

static inline void pt_edit_mac(pt_job *j, uint8_t *m, int side)
{
    const int way = j->e.s2c;
    for (uint32_t k = 0; k < j->swaps; k++)
        if (!memcmp(m, j->swap[k], 6)) memcpy(m, j->swap[k] + 6, 6);
    if (j->mac_seeded) pt_seed_mac(m, j->mac_mask, j->mac_keep, pt_fixed_mac(m));
    if (j->e.anonymizer && j->e.anonymizer->macs) pt_anon(j->e.anonymizer, m, 6);
    if (j->set_mac[side][way] && !(j->skip_l2_broadcast && pt_fixed_mac(m))) memcpy(m, j->mac[side][way], 6);
}

/* Offsets of the Ethernet headers of a packet, outermost first. */
static inline uint32_t pt_ethernets(const uint8_t *p, const pt_record *r, uint16_t linktype, uint32_t *found, uint32_t max)
{
    uint32_t n = 0, depth = 0;
    pt_layer l;
    pt_walk w;
    pt_walk_start(&w, p, r->caplen, r->wirelen);
    pt_link_layer(&w, linktype);
    if (w.ethernet != PT_NONE) found[n++] = w.ethernet;
    for (int steps = 0; steps < 4 * PT_MAX_SHIM && w.type && n < max; steps++) {
        w.ethernet = PT_NONE;
        switch (w.type) {
        case PT_TYPE_VLAN: case PT_TYPE_QINQ: case PT_TYPE_OLD_QINQ: pt_ethertype(&w, 4); break;
        case PT_TYPE_LLC: pt_llc(&w); break;
        case PT_TYPE_MPLS: case PT_TYPE_MPLS_MULTICAST: pt_mpls(&w); break;
        case PT_TYPE_PPPOE: pt_pppoe(&w); break;
        case PT_TYPE_PPP: pt_ppp(&w); break;
        case PT_TYPE_TEB: pt_ethernet(&w); break;
        default:
            if (depth++ == PT_MAX_DEPTH || !pt_ip_layer(&w, &l) || l.transport == PT_NONE ||
                (l.status != PT_OK && l.status != PT_BAD_LENGTH))
                return n;
            pt_tunnel(&w, &l);
        }
        if (w.ethernet != PT_NONE) found[n++] = w.ethernet;
    }
    return n;
}

/* The addresses of an 802.11 header of which `size` bytes are there: three, of control frames one or two, of frames
 * from one access point to another four (IEEE 802.11-2020, 9.2.3). */
static inline void pt_anon_ieee80211(pt_anonymizer *z, uint8_t *p, uint32_t size)
{
    const uint32_t most = size && (p[0] & 0x0c) == 0x04 ? 2 : 3;
    for (uint32_t k = 0; k < most && 10 + 6 * k <= size; k++) pt_anon(z, p + 4 + 6 * k, 6);
    if (size >= 30 && (p[0] & 0x0c) == 0x08 && (p[1] & 3) == 3) pt_anon(z, p + 24, 6);
}

/* Hardware addresses inside ARP, neighbour discovery and other link layers, for anonymity. */
static inline void pt_anon_hardware(pt_job *j, uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o)
{
    pt_anonymizer *z = j->e.anonymizer;
    uint32_t at = o->network, limit = r->caplen, monitor = pt_monitor_size(p, limit, linktype);
    const pt_layer *l = &o->inner;
    if (linktype == 113 && limit >= 16 && pt_net16(p + 4) == 6) pt_anon(z, p + 6, 6);
    if (linktype == 276 && limit >= 20 && p[11] == 6) pt_anon(z, p + 12, 6);
    if (linktype == 10 && limit >= 13) pt_anon(z, p + 1, 6), pt_anon(z, p + 7, 6);
    if (monitor != PT_NONE) pt_anon_ieee80211(z, p + monitor, limit - monitor);
    if (!o->depth && o->ethertype == PT_TYPE_ARP && at != PT_NONE && limit >= at + 28 && p[at + 4] == 6 && p[at + 5] == 4) {
        pt_anon(z, p + at + 8, 6);
        pt_anon(z, p + at + 18, 6);
    }
    if (!o->depth || l->protocol != PT_ICMPV6 || l->version != 6 || l->transport == PT_NONE) return;
    if (limit > l->end) limit = l->end;
    at = l->transport;
    if (limit < at + 8 || p[at] < 133 || p[at] > 137) return;
    {
        static const uint8_t fixed[5] = {8, 16, 24, 24, 40};
        uint64_t delta = 0;
        uint32_t option = at + fixed[p[at] - 133];
        for (; option + 8 <= limit && p[option + 1]; option += p[option + 1] * 8u) { /* RFC 4861 section 4.6.1 */
            uint8_t old[6];
            if ((p[option] != 1 && p[option] != 2) || p[option + 1] != 1) continue;
            memcpy(old, p + option + 2, 6);
            pt_anon(z, p + option + 2, 6);
            delta += pt_delta(old, p + option + 2, 6);
        }
        pt_update_transport(p, limit, l, delta);
    }
}

/* Returns whether any MAC address changed; `none` counts packets without an Ethernet header. */
static inline int pt_edit_macs(pt_job *j, uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o)
{
    uint32_t at[PT_MAX_DEPTH + 1], n = 1, first = 0;
    int changed = 0;
    uint8_t old[12];
    at[0] = o->ethernet;
    if (j->which != PT_OUTER) n = pt_ethernets(p, r, linktype, at, PT_MAX_DEPTH + 1);
    if (j->which == PT_INNER && n > 1) first = n - 1;
    if (!n || at[0] == PT_NONE) {
        if (j->any_mac > 1) j->e.no_ethernet++;
        n = 0;
    }
    for (uint32_t k = first; k < n; k++) {
        uint8_t *m = p + at[k];
        if (r->caplen < at[k] + 12) {
            j->e.cut++;
            continue;
        }
        if (j->any_mac == 3) { /* nothing but set addresses */
            for (int side = 0; side < 2; side++)
                if (j->set_mac[side][j->e.s2c]) changed |= pt_set_mac(m + 6 * side, j->mac[side][j->e.s2c]);
            continue;
        }
        memcpy(old, m, 12);
        pt_edit_mac(j, m, 0);
        pt_edit_mac(j, m + 6, 1);
        changed |= memcmp(old, m, 12) != 0;
    }
    return changed;
}

/* ---- payloads ---- */

static inline int pt_edit_payload(pt_job *j, uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o, uint32_t k)
{
    uint32_t at = pt_payload_at(p, r->caplen, o);
    if (!o->depth && !at) at = pt_bare_link(p, r->caplen, linktype);
    if (at >= r->caplen) return 0;
    if (j->payload.mode != PT_PAYLOAD_DROP) pt_overwrite(&j->payload, p, r->caplen, o, at);
    else if (j->cut) j->cut[k] = at, j->any_cut = 1;
    return 1;
}

/* ---- fuzzing, lengths ---- */

static inline int pt_edit_fuzz(pt_job *j, uint8_t *p, pt_record *r, const pt_where *o, uint32_t k)
{
    uint32_t random = pt_tr_random(&j->fuzz_state), at, n, limit = r->caplen, cut = 0;
    int verdict;
    if (random % j->fuzz_factor) return 0;
    if (o->depth && o->inner.flags & PT_FRAGMENT) return 0; /* its checksum covers other packets */
    if (o->depth && o->inner.end < limit) limit = o->inner.end;
    at = pt_payload_at(p, limit, o);
    if (at >= limit) return 0;
    n = limit - at;
    if (n <= 1) return 0;
    verdict = pt_fuzz(p + at, n, n, random, r->wirelen <= r->caplen, r->caplen, &cut);
    if (verdict == PT_FUZZ_NOTHING) return 0;
    j->fuzzed++;
    if (verdict == PT_FUZZ_DROP) r->flags |= PT_DROP, j->fuzz_dropped++;
    else if (verdict == PT_FUZZ_CUT && j->cut) j->cut[k] = (at + cut) | PT_CUT_WIRE, j->any_cut = 1;
    else if (verdict == PT_FUZZ_BYTES) r->flags |= PT_RESUM;
    return 1;
}

static inline int pt_edit_length(pt_job *j, uint8_t *p, pt_record *r, const pt_layer *l)
{
    uint32_t length = r->wirelen - l->ip;
    uint8_t old[8], *ip = p + l->ip;
    if (r->wirelen < l->ip || l->status == PT_MALFORMED || l->flags & PT_FRAGMENT || r->caplen < l->ip + 8 || length > 65535) return 0;
    memcpy(old, ip, 8);
    if (l->version == 4) pt_put_net16(ip + 2, (uint16_t)length);
    else if (length >= 40) pt_put_net16(ip + 4, (uint16_t)(length - 40));
    if (!memcmp(old, ip, 8)) return 0;
    if (l->version == 4 && r->caplen >= l->ip + 12) pt_update(ip + 10, pt_delta(old, ip, 8), 0);
    j->relengthened++;
    j->relocate = 1;
    r->flags |= PT_RESUM;
    return 1;
}

/* ---- the pass ---- */

/* What may change inside of tunnels apart from IP layers: names, hardware addresses, payload. */
static inline int pt_edit_inside(pt_job *j, uint8_t *p, pt_record *r, uint16_t linktype, const pt_where *o, uint32_t k)
{
    int changed = 0;
    if (j->map_dns) changed |= pt_edit_dns(&j->e, &j->dns, p, r->caplen, o);
    if (j->e.anonymizer && j->e.anonymizer->macs) pt_anon_hardware(j, p, r, linktype, o), changed = 1;
    if (j->payload.mode) changed |= pt_edit_payload(j, p, r, linktype, o, k);
    if (j->any_mac) {
        int some = pt_edit_macs(j, p, r, linktype, o);
        changed |= some;
        j->macs_changed += (uint64_t)some;
    }
    return changed;
}

static inline int pt_edit_tunnel(pt_job *j, uint8_t *p, pt_record *r, uint16_t linktype, const pt_where *o, uint32_t k)
{
    pt_layer layers[PT_MAX_DEPTH];
    uint64_t before[PT_MAX_DEPTH];
    uint32_t depth, network;
    uint16_t ethertype;
    int changed;
    pt_walk w;
    pt_walk_start(&w, p, r->caplen, r->wirelen);
    depth = pt_layers(&w, linktype, layers, PT_MAX_DEPTH, &network, &ethertype);
    for (uint32_t i = 0; i + 1 < depth; i++) before[i] = pt_cover(p, r->caplen, &layers[i]);
    changed = pt_edit_inside(j, p, r, linktype, o, k);
    for (uint32_t i = depth - 1; i--;) pt_follow_cover(p, r->caplen, &layers[i], before[i]);
    return changed;
}

/* Whether a job asks for nothing but mapped addresses and set MAC addresses, so that most packets can go the short way.
 * Whoever adds an edit adds it here. */
static inline int pt_is_plain_job(const pt_job *j)
{
    const int macs = !j->any_mac || (j->any_mac == 3 && j->which == PT_OUTER);
    const int notes = j->e.leaks || j->e.met || j->e.missed || (j->e.anonymizer && j->e.anonymizer->macs);
    return macs && !notes && !(j->any_field || j->fuzzing || j->payload.mode || j->map_dns || j->fix_lengths);
}

/* Map the addresses of the short way's packets; they are of TCP or, if `udp`, of UDP. */
static inline int pt_edit_plain_addresses(pt_job *j, uint8_t *p, const pt_layer *l, uint8_t *field, int udp)
{
    pt_edits *e = &j->e;
    const int v4 = l->version == 4, listed = v4 && !e->more;
    uint8_t *source = p + l->ip + (v4 ? 12 : 8), *destination = source + (v4 ? 4 : 16);
    uint64_t delta = 0;
    int changed = 0;
    if (listed) {
        if (e->v4[PT_SOURCE].n) changed = pt_map_listed4(e, PT_SOURCE, source, &delta);
        if (e->v4[PT_DESTINATION].n) changed |= pt_map_listed4(e, PT_DESTINATION, destination, &delta);
    } else {
        changed = pt_map_address(e, PT_SOURCE, l->version, source, &delta);
        changed |= pt_map_address(e, PT_DESTINATION, l->version, destination, &delta);
    }
    if (!changed) return 0;
    if (v4) pt_update(p + l->ip + 10, delta, 0);
    pt_update(field, delta, udp);
    return 1;
}

/* The short way: TCP or UDP in one IP layer, neither fragment nor multicast, for a plain job. Returns whether bytes
 * changed, or -1 and has changed nothing: the packet must go the long way. */
static inline int pt_edit_plain(pt_job *j, uint8_t *p, uint32_t caplen, const pt_where *o)
{
    const pt_layer *l = &o->outer;
    const int udp = l->protocol == PT_UDP;
    const uint32_t limit = caplen < l->end ? caplen : l->end, field = l->transport + (udp ? 6 : 16);
    int changed = 0, macs = 0;
    if (o->depth != 1 || l->flags || l->transport == PT_NONE || (l->protocol != PT_TCP && !udp)) return -1;
    if (limit < field + 2 || (j->any_mac && o->ethernet == PT_NONE)) return -1;
    if (l->transport != l->ip + (l->version == 4 ? 20u : 40u)) return -1; /* options may hold addresses */
    if (j->addresses) {
        if (pt_is_group(p + l->ip + (l->version == 4 ? 16 : 24), l->version)) return -1;
        changed = pt_edit_plain_addresses(j, p, l, p + field, udp);
    }
    if (j->any_mac) {
        for (int side = 0; side < 2; side++)
            if (j->set_mac[side][j->e.s2c]) macs |= pt_set_mac(p + o->ethernet + 6 * side, j->mac[side][j->e.s2c]);
        j->macs_changed += (uint64_t)macs;
    }
    return changed | macs;
}

/* Edit packet k of a batch. Returns whether it changed. */
static inline int pt_edit_record(pt_job *j, pt_batch *b, const pt_where *o, uint32_t k)
{
    const int inside = j->map_dns || j->payload.mode || j->any_mac || (j->e.anonymizer && j->e.anonymizer->macs);
    const uint64_t before = j->e.malformed + j->e.cut + j->e.no_ethernet;
    pt_record *r = &b->record[k];
    uint8_t *p = b->bytes + r->data;
    const uint16_t linktype = b->interfaces->of[r->interface].linktype;
    int changed = 0;
    if (j->fuzzing) changed |= pt_edit_fuzz(j, p, r, o, k);
    if (o->depth) changed |= pt_edit_layers(j, p, r, linktype, o);
    else if (j->addresses && o->ethertype == PT_TYPE_ARP) changed |= pt_rewrite_arp(&j->e, p, r->caplen, o->network);
    if (inside) changed |= o->depth > 1 ? pt_edit_tunnel(j, p, r, linktype, o, k) : pt_edit_inside(j, p, r, linktype, o, k);
    if (j->e.leaks && (!j->cut || j->cut[k] == PT_NO_CUT)) {
        uint32_t at = pt_payload_at(p, r->caplen, o);
        if (at < r->caplen) j->leaking += (uint64_t)pt_leaks_in(j->e.leaks, p + at, r->caplen - at);
    }
    if (j->fix_lengths && o->depth) changed |= pt_edit_length(j, p, r, &o->outer);
    if (j->e.malformed + j->e.cut + j->e.no_ethernet != before) {
        j->soft++;
        if (j->skip_soft) r->flags |= PT_DROP, j->soft_dropped++;
    }
    return changed;
}

/* Edit records [first, first + n), whose headers are known. */
static inline void pt_edit_records(pt_job *j, pt_batch *b, const pt_where *where, uint32_t first, uint32_t n)
{
    const int plain = pt_is_plain_job(j);
    uint64_t edited = 0;
    for (uint32_t k = first; k < first + n; k++) {
        pt_record *r = &b->record[k];
        const pt_where *o = &where[k - first];
        uint32_t frame;
        int changed = -1;
        j->e.packet++;
        if (j->cut) j->cut[k] = PT_NO_CUT;
        if (r->flags & (PT_SKIP | PT_DROP)) continue;
        j->e.s2c = (r->flags & PT_FROM_SERVER) != 0;
        frame = pt_fcs_find(b->bytes + r->data, r, b->interfaces->of[r->interface].linktype, o);
        if (plain) changed = pt_edit_plain(j, b->bytes + r->data, r->caplen, o);
        if (changed < 0) changed = pt_edit_record(j, b, o, k);
        if (!changed) continue;
        pt_fcs_follow(b->bytes + r->data, r->caplen, frame);
        edited++;
        r->flags |= PT_EDITED;
    }
    j->e.edited += edited;
}

/* Compute the checksums anew of those of records [first, first + n) that ask for it. */
static inline void pt_resum_records(pt_batch *b, const pt_where *where, uint32_t first, uint32_t n)
{
    pt_sum_counts ignored;
    memset(&ignored, 0, sizeof ignored);
    for (uint32_t k = first; k < first + n; k++) {
        pt_record *r = &b->record[k];
        const pt_where *o = &where[k - first];
        if (!(r->flags & PT_RESUM)) continue;
        if (o->depth) pt_frame_sums(b->bytes + r->data, r, b->interfaces->of[r->interface].linktype, o, 1, &ignored);
        r->flags &= (uint8_t)~PT_RESUM;
    }
}

static inline void pt_resum(pt_batch *b)
{
    pt_where tile[PT_TILE];
    for (uint32_t first = 0; first < b->n; first += PT_TILE)
        pt_resum_records(b, pt_tile_where(b, first, tile), first, pt_tile(b, first));
}

/* Edit every packet of a batch. */
static inline void pt_edit_batch(pt_job *j, pt_batch *b)
{
    pt_where tile[PT_TILE];
    for (uint32_t first = 0; first < b->n; first += PT_TILE)
        pt_edit_records(j, b, pt_tile_where(b, first, tile), first, pt_tile(b, first));
}

/* Edit every packet of a batch, compute checksums anew where that is asked for, and with fix all of them: all of it for
 * some records before the next ones, while they are in the cache. For a job that cannot cut. */
static inline void pt_edit_and_sum(pt_job *j, pt_batch *b, int fix, pt_sum_counts *counts)
{
    pt_where tile[PT_TILE];
    for (uint32_t first = 0; first < b->n; first += PT_TILE) {
        const uint32_t n = pt_tile(b, first);
        const pt_where *where = pt_tile_where(b, first, tile);
        pt_edit_records(j, b, where, first, n);
        if (j->relocate) {
            pt_locate_records(b, first, n, tile);
            where = tile;
        }
        pt_resum_records(b, where, first, n);
        if (fix) pt_record_sums(b, where, first, n, 1, counts);
    }
}

/* Note which packets of a located batch come from the server. */
static inline void pt_direct(pt_directions *d, pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++)
        if (pt_direction(d, b->bytes + b->record[k].data, b->record[k].caplen, &b->where[k]))
            b->record[k].flags |= PT_FROM_SERVER;
}

/* The same from a cache: enum of compat.h's directions. */
static inline void pt_direct_cached(pt_batch *b, const uint8_t *cache)
{
    for (uint32_t k = 0; k < b->n; k++)
        b->record[k].flags |= (uint8_t)(cache[k] == 2 ? PT_FROM_SERVER : cache[k] == 3 ? PT_SKIP : 0);
}

/* Build the batch anew in out (empty), each packet cut as its edit wanted. 0: done, -1: no memory. */
static inline int pt_cut_batch(const pt_batch *b, pt_batch *out, const uint32_t *cut)
{
    uint32_t at = 0;
    pt_store_like(out, b);
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        uint32_t length = cut[k] & ~(uint32_t)PT_CUT_WIRE;
        pt_made m;
        m.heads = m.pad = 0;
        m.resum = 0;
        m.tail = b->bytes + r->data;
        m.tails = cut[k] != PT_NO_CUT && length < r->caplen ? length : r->caplen;
        m.wirelen = cut[k] != PT_NO_CUT && cut[k] & PT_CUT_WIRE ? m.tails : r->wirelen;
        if (pt_copy_bytes(out, b->bytes + at, r->start - at)) return -1;
        at = r->end;
        if (!(r->flags & PT_DROP) && pt_emit(b, r, &m, out)) return -1;
    }
    return pt_copy_bytes(out, b->bytes + at, b->used - at);
}

#endif
