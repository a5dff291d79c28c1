/* Edits that change lengths: link layer, VLAN tags, tunnels taken away, padding and cutting. Records are built anew in
 * another batch; blocks that are no packets go along. */
#ifndef PT_SHAPE_H
#define PT_SHAPE_H

#include "mangle.h"
#include "records.h"

enum pt_fixlen { PT_FIXLEN_NONE, PT_FIXLEN_PAD, PT_FIXLEN_TRUNC, PT_FIXLEN_DEL };
enum { PT_SKIP = 4, PT_RESUM = 8, PT_FROM_SERVER = 16 }; /* pt_record.flags: pass unedited; compute checksums anew; its direction */
enum { PT_MAX_HEAD = 1024, PT_TAGS_ADDED = 16 };

/* pt_record.reason of a packet that shaping leaves out */
enum pt_unshaped { PT_SHAPED, PT_UNSHAPED_LINK, PT_UNSHAPED_CUT, PT_UNSHAPED_REASONS };

typedef struct {
    uint16_t first, last, to;
    uint64_t matched;
} pt_vlan_rule;

typedef struct {
    /* link layer */
    int32_t out_type;           /* -1: stays */
    uint8_t is_user;            /* out_type is a number for link[] */
    uint8_t set_mac[2][2];      /* [destination, source][c2s, s2c]: of a new Ethernet header */
    uint8_t mac[2][2][6];
    int16_t hdlc_address, hdlc_control;
    uint8_t link[2][256], links;
    uint16_t link_size;
    /* tags and tunnels */
    uint8_t decap, vlan;        /* vlan: enum pt_vlan */
    int32_t vlan_tag, vlan_cfi, vlan_pri;
    uint16_t vlan_proto;
    uint32_t push[PT_TAGS_ADDED]; /* TPID << 16 | TCI, the last one becomes the outermost */
    uint32_t pushes, pops;
    pt_vlan_rule *translate;
    uint32_t translations;
    /* lengths */
    uint8_t efcs, fixlen, mtu_trunc;
    uint32_t mtu, snaplen;      /* snaplen 0: none */
    int32_t chop[2];            /* bytes from the start, bytes from the end */
    uint32_t chop_at[2];
    uint8_t chop_wire;
    uint8_t drop_soft;
    uint8_t *scratch;           /* room for any packet, to be freed by the owner; NULL: nothing is taken out of tunnels */
    uint32_t scratch_room;
    /* what happened */
    uint64_t shaped, cut, padded, unshaped, dropped[PT_UNSHAPED_REASONS];
} pt_shape;

/* The packet being built. */
typedef struct {
    uint8_t head[PT_MAX_HEAD];
    uint32_t heads;             /* bytes of head */
    const uint8_t *tail;
    uint32_t tails, pad;        /* bytes behind head; zero bytes behind them */
    uint32_t wirelen;
    uint8_t ethernet;           /* head begins with an Ethernet header */
    uint8_t resum;
    int reason;                 /* enum pt_unshaped */
} pt_made;

/* Room for size more bytes and a record. 0: there is. */
static inline int pt_out_room(pt_batch *out, size_t size)
{
    return out->used + size > out->capacity && pt_batch_reserve(out, (out->used + size) * 3 / 2);
}

static inline int pt_copy_bytes(pt_batch *out, const uint8_t *p, size_t size)
{
    if (!size) return 0;
    if (pt_out_room(out, size)) return -1;
    memcpy(out->bytes + out->used, p, size);
    out->used = out->filled = out->used + size;
    return 0;
}

/* What follows the packet's bytes in its block, up to the trailing length. */
static inline uint32_t pt_block_options(const pt_batch *b, const pt_record *r)
{
    uint32_t behind = r->data + ((r->caplen + 3) & ~3u);
    if (b->format != PT_PCAPNG || pt_get32(b->bytes + r->start, b->swapped) == PT_BLOCK_SIMPLE_PACKET) return 0;
    return behind < r->end - 4 ? r->end - 4 - behind : 0;
}

static inline void pt_put_payload(uint8_t *to, const pt_made *m)
{
    memcpy(to, m->head, m->heads);
    memcpy(to + m->heads, m->tail, m->tails);
    memset(to + m->heads + m->tails, 0, m->pad);
}

/* Append record r of b with other bytes. 0: done, -1: no memory. */
static inline int pt_emit(const pt_batch *b, const pt_record *r, const pt_made *m, pt_batch *out)
{
    const uint32_t caplen = m->heads + m->tails + m->pad;
    const uint32_t header = r->data - r->start;
    uint8_t *p;
    pt_record *copy;
    if (pt_out_room(out, (size_t)caplen + (r->end - r->start) + 64)) return -1;
    copy = pt_add_record(out);
    if (!copy) return -1;
    *copy = *r;
    p = out->bytes + out->used;
    copy->start = (uint32_t)out->used;
    copy->caplen = caplen;
    copy->wirelen = m->wirelen;
    if (b->format == PT_PCAP) {
        int old = b->swapped_lengths == 2 || (b->swapped_lengths == 1 && caplen != m->wirelen);
        memcpy(p, b->bytes + r->start, header);
        pt_put32(p + 8, old ? m->wirelen : caplen, b->swapped);
        pt_put32(p + 12, old ? caplen : m->wirelen, b->swapped);
        pt_put_payload(p + header, m);
        copy->data = copy->start + header;
        copy->end = copy->data + caplen;
    } else {
        uint32_t padded = (caplen + 3) & ~3u, options = pt_block_options(b, r), total, head = 28;
        int simple = pt_get32(b->bytes + r->start, b->swapped) == PT_BLOCK_SIMPLE_PACKET;
        if (simple && caplen == m->wirelen) head = 12;
        total = head + padded + options + 4;
        if (simple && head == 28) {
            pt_put32(p, PT_BLOCK_PACKET, b->swapped);
            memset(p + 8, 0, 12);
        } else {
            memcpy(p, b->bytes + r->start, head);
        }
        pt_put32(p + 4, total, b->swapped);
        if (head == 28) {
            pt_put32(p + 20, caplen, b->swapped);
            pt_put32(p + 24, m->wirelen, b->swapped);
        } else {
            pt_put32(p + 8, m->wirelen, b->swapped);
        }
        pt_put_payload(p + head, m);
        memset(p + head + caplen, 0, padded - caplen);
        memcpy(p + head + padded, b->bytes + r->end - 4 - options, options);
        pt_put32(p + total - 4, total, b->swapped);
        copy->data = copy->start + head;
        copy->end = copy->start + total;
    }
    copy->flags |= PT_EDITED;
    if (m->resum) copy->flags |= PT_RESUM;
    out->used = out->filled = copy->end;
    return 0;
}

/* ---- link layers ---- */

/* MAC addresses of a frame, as far as its link type has them. */
static inline void pt_link_macs(const uint8_t *p, uint32_t caplen, uint16_t linktype, uint8_t *destination, uint8_t *source)
{
    memset(destination, 0, 6);
    memset(source, 0, 6);
    if (linktype == 1 && caplen >= 12) {
        memcpy(destination, p, 6);
        memcpy(source, p + 6, 6);
    } else if (linktype == 10 && caplen >= 13) {
        memcpy(destination, p + 1, 6);
        memcpy(source, p + 7, 6);
    } else if (linktype == 113 && caplen >= 16 && pt_net16(p + 4) == 6) {
        memcpy(source, p + 6, 6);
        if (p[1] == 1) memset(destination, 0xff, 6);
    } else if (linktype == 276 && caplen >= 20 && p[11] == 6) {
        memcpy(source, p + 12, 6);
        if (p[10] == 1) memset(destination, 0xff, 6);
    } else if (linktype == 105 || linktype == 127) {
        uint32_t at = linktype == 127 && caplen >= 4 ? (uint32_t)p[2] | (uint32_t)p[3] << 8 : 0;
        static const uint8_t where[4][2] = {{4, 10}, {16, 10}, {4, 16}, {16, 24}}; /* by ToDS, FromDS */
        const uint8_t *w;
        if (caplen < at + 30) return;
        w = where[p[at + 1] & 3];
        memcpy(destination, p + at + w[0], 6);
        memcpy(source, p + at + w[1], 6);
    }
}

static inline uint16_t pt_ppp_number(uint16_t type)
{
    switch (type) {
    case PT_TYPE_IPV4: return 0x0021;
    case PT_TYPE_IPV6: return 0x0057;
    case PT_TYPE_MPLS: return 0x0281;
    case PT_TYPE_MPLS_MULTICAST: return 0x0283;
    }
    return 0;
}

/* Write a link header of out_type for what w stands at. Returns its size; UINT32_MAX: that cannot be. */
static inline uint32_t pt_make_link(const pt_shape *s, uint8_t *h, uint16_t type, uint32_t payload, const uint8_t *dst,
                                    const uint8_t *src, int known)
{
    static const uint8_t none[6];
    const int ip = type == PT_TYPE_IPV4 || type == PT_TYPE_IPV6;
    memset(h, 0, 20);
    switch (s->out_type) {
    case 1:
        memcpy(h, dst, 6);
        memcpy(h + 6, src, 6);
        pt_put_net16(h + 12, type == PT_TYPE_LLC ? (uint16_t)(payload < 1500 ? payload : 1500) : type);
        return 14;
    case 101: return ip ? 0 : UINT32_MAX;
    case 0: case 108:
        if (!ip) return UINT32_MAX;
        h[s->out_type ? 3 : 0] = type == PT_TYPE_IPV4 ? 2 : 24;
        return 4;
    case 104:
        if (type == PT_TYPE_LLC) return UINT32_MAX;
        h[0] = (uint8_t)(s->hdlc_address >= 0 ? s->hdlc_address : dst[0] & 1 ? 0x8f : 0x0f);
        h[1] = (uint8_t)(s->hdlc_control >= 0 ? s->hdlc_control : 0);
        pt_put_net16(h + 2, type);
        return 4;
    case 9: case 50:
        if (!pt_ppp_number(type)) return UINT32_MAX;
        h[0] = 0xff;
        h[1] = 0x03;
        pt_put_net16(h + 2, pt_ppp_number(type));
        return 4;
    case 113:
        h[1] = (uint8_t)(!memcmp(dst, "\xff\xff\xff\xff\xff\xff", 6) ? 1 : dst[0] & 1 ? 2 : 0);
        known = known && memcmp(src, none, 6);
        pt_put_net16(h + 2, known ? 1 : 0xfffe);
        h[5] = known ? 6 : 0;
        memcpy(h + 6, src, 6);
        pt_put_net16(h + 14, type == PT_TYPE_LLC ? 4 : type);
        return 16;
    case 276:
        pt_put_net16(h, type == PT_TYPE_LLC ? 4 : type);
        known = known && memcmp(src, none, 6);
        pt_put_net16(h + 8, known ? 1 : 0xfffe);
        h[10] = (uint8_t)(!memcmp(dst, "\xff\xff\xff\xff\xff\xff", 6) ? 1 : dst[0] & 1 ? 2 : 0);
        h[11] = known ? 6 : 0;
        memcpy(h + 12, src, 6);
        return 20;
    }
    return UINT32_MAX;
}

/* Whether two link types have the same headers. */
static inline int pt_same_link(int32_t a, uint16_t b)
{
    if (a == 101) return b == 101 || b == 12 || b == 14 || b == 228 || b == 229;
    return a == b;
}

/* The frame from its network header on, or from the outermost tag that the new link layer can carry. */
static inline void pt_convert_link(const pt_shape *s, pt_made *m, const uint8_t *p, const pt_record *r, uint16_t linktype,
                                   const pt_where *o, int s2c)
{
    uint8_t dst[6], src[6];
    uint32_t size, at;
    uint16_t type;
    pt_walk w;
    if (s->is_user) {
        at = o->network;
        if (at == PT_NONE) { /* LLC and the like: what is behind the link header proper */
            pt_walk_start(&w, p, r->caplen, r->wirelen);
            pt_link_layer(&w, linktype);
            if (w.type) at = w.at;
        }
        if (at == PT_NONE || at > r->caplen) {
            m->reason = PT_UNSHAPED_LINK;
            return;
        }
        m->heads = s->link_size;
        memcpy(m->head, s->link[s->links > 1 && !s2c], s->link_size);
        m->ethernet = linktype == 1 && (s->out_type == 1 || s->out_type < 0) && s->link_size >= 14;
    } else {
        pt_walk_start(&w, p, r->caplen, r->wirelen);
        pt_link_layer(&w, linktype);
        type = w.type;
        at = w.at;
        if ((s->out_type == 101 || s->out_type == 0 || s->out_type == 108 || s->out_type == 9 || s->out_type == 50) &&
            o->depth) { /* these carry IP only: tags and labels go */
            at = o->outer.ip;
            type = o->outer.version == 6 ? PT_TYPE_IPV6 : PT_TYPE_IPV4;
        }
        if (type == PT_TYPE_RAW_IP && at < r->caplen) type = p[at] >> 4 == 6 ? PT_TYPE_IPV6 : PT_TYPE_IPV4;
        if (!type || type == PT_TYPE_RAW_IP || at > r->caplen) {
            m->reason = PT_UNSHAPED_LINK;
            return;
        }
        pt_link_macs(p, r->caplen, linktype, dst, src);
        if (s->set_mac[0][s2c]) memcpy(dst, s->mac[0][s2c], 6);
        if (s->set_mac[1][s2c]) memcpy(src, s->mac[1][s2c], 6);
        size = pt_make_link(s, m->head, type, r->wirelen - at, dst, src, 1);
        if (size == UINT32_MAX) {
            m->reason = PT_UNSHAPED_LINK;
            return;
        }
        m->heads = size;
        m->ethernet = s->out_type == 1;
    }
    m->tail = p + at;
    m->tails = r->caplen - at;
    m->wirelen = r->wirelen - at + m->heads;
}

/* ---- tags ---- */

static inline int pt_is_tag(uint16_t type) { return type == PT_TYPE_VLAN || type == PT_TYPE_QINQ || type == PT_TYPE_OLD_QINQ; }

/* Move the first n bytes of the tail into the head. 0 when they are not there. */
static inline int pt_pull(pt_made *m, uint32_t n)
{
    if (m->tails < n || m->heads + n > PT_MAX_HEAD - 64) return 0;
    memcpy(m->head + m->heads, m->tail, n);
    m->heads += n;
    m->tail += n;
    m->tails -= n;
    return 1;
}

static inline void pt_insert_tag(pt_made *m, uint16_t proto, uint16_t tci)
{
    memmove(m->head + 16, m->head + 12, m->heads - 12);
    pt_put_net16(m->head + 12, proto);
    pt_put_net16(m->head + 14, tci);
    m->heads += 4;
    m->wirelen += 4;
}

static inline void pt_remove_tag(pt_made *m)
{
    memmove(m->head + 12, m->head + 16, m->heads - 16);
    m->heads -= 4;
    m->wirelen -= 4;
}

/* Whether the outermost tag stands in the head, with the type behind it. */
static inline int pt_tagged(pt_made *m)
{
    return m->heads >= 14 && pt_is_tag(pt_net16(m->head + 12)) && (m->heads >= 18 || pt_pull(m, 18 - m->heads));
}

static inline void pt_shape_vlan(pt_shape *s, pt_made *m)
{
    uint32_t at;
    for (at = 12; at + 2 <= m->heads && pt_is_tag(pt_net16(m->head + at)); at += 4) { /* all of them into the head */
        if (m->heads < at + 6 && !pt_pull(m, at + 6 - m->heads)) return;
        for (uint32_t k = 0; k < s->translations; k++) {
            uint16_t tci = pt_net16(m->head + at + 2), id = tci & 0xfff;
            if (id < s->translate[k].first || id > s->translate[k].last) continue;
            s->translate[k].matched++;
            pt_put_net16(m->head + at + 2, (uint16_t)((tci & 0xf000) | ((s->translate[k].to + id - s->translate[k].first) & 0xfff)));
            break;
        }
    }
    for (uint32_t k = 0; k < s->pops && pt_tagged(m); k++) pt_remove_tag(m);
    if (s->vlan == PT_VLAN_DEL && pt_tagged(m)) pt_remove_tag(m);
    if (s->vlan == PT_VLAN_ADD) {
        uint16_t old = pt_tagged(m) ? pt_net16(m->head + 14) : 0, tci;
        tci = (uint16_t)(s->vlan_tag >= 0 ? s->vlan_tag : old & 0xfff);
        tci |= (uint16_t)(s->vlan_cfi >= 0 ? s->vlan_cfi << 12 : old & 0x1000);
        tci |= (uint16_t)(s->vlan_pri >= 0 ? s->vlan_pri << 13 : old & 0xe000);
        pt_insert_tag(m, s->vlan_proto, tci);
    }
    for (uint32_t k = 0; k < s->pushes && m->heads < PT_MAX_HEAD - 8; k++)
        pt_insert_tag(m, (uint16_t)(s->push[k] >> 16), (uint16_t)s->push[k]);
}

/* ---- tunnels ---- */

/* Take all tunnels, labels and PPPoE away: what remains is the innermost packet behind the link layer that is nearest
 * to it: its own Ethernet header with tags, or else the outermost header with its own. */
static inline void pt_shape_decap(pt_made *m, const uint8_t *p, const pt_record *r, uint16_t linktype, const pt_where *o)
{
    pt_layer layers[PT_MAX_DEPTH];
    uint32_t depth = 0, frame = 0, kept = 0, ip = PT_NONE;
    uint16_t type = 0;
    pt_walk w;
    if (!o->depth) return;
    pt_walk_start(&w, p, r->caplen, r->wirelen);
    pt_link_layer(&w, linktype);
    kept = w.at; /* frame .. kept: link header and tags */
    if (linktype == 1 && w.type == PT_TYPE_LLC) return;
    for (int steps = 0; steps < 4 * PT_MAX_SHIM && w.type; steps++) {
        uint32_t before = w.at;
        if (w.type == PT_TYPE_IPV4 || w.type == PT_TYPE_IPV6 || w.type == PT_TYPE_RAW_IP) {
            if (depth == PT_MAX_DEPTH || !pt_ip_layer(&w, &layers[depth])) break;
            ip = before;
            type = layers[depth].version == 6 ? PT_TYPE_IPV6 : PT_TYPE_IPV4;
            if ((layers[depth].status != PT_OK && layers[depth].status != PT_BAD_LENGTH) || layers[depth].transport == PT_NONE)
                break;
            pt_tunnel(&w, &layers[depth++]);
            continue;
        }
        if (pt_is_tag(w.type)) {
            pt_ethertype(&w, 4);
            if (kept == before) kept = w.at;
            continue;
        }
        if (w.type == PT_TYPE_TEB || w.type == PT_TYPE_MPLS || w.type == PT_TYPE_MPLS_MULTICAST) {
            w.ethernet = PT_NONE;
            if (w.type == PT_TYPE_TEB) pt_ethernet(&w);
            else pt_mpls(&w);
            if (w.ethernet != PT_NONE) {
                if (linktype != 1) continue; /* a frame cannot stand behind another link type */
                if (!w.type && w.status == PT_TRUNCATED) break;
                frame = w.ethernet;
                kept = w.at;
                ip = PT_NONE;
            }
            continue;
        }
        if (w.type == PT_TYPE_PPPOE) pt_pppoe(&w);
        else if (w.type == PT_TYPE_PPP) pt_ppp(&w);
        else if (w.type == PT_TYPE_LLC) pt_llc(&w);
        else break;
    }
    if (ip == PT_NONE && frame && frame < r->caplen) { /* a frame without IP: all of it */
        m->tail = p + frame;
        m->tails = r->caplen - frame;
        m->wirelen = r->wirelen - frame;
        return;
    }
    if (ip == PT_NONE || ip < kept || ip > r->caplen || (frame == 0 && ip == kept)) return;
    if (kept - frame > PT_MAX_HEAD - 64) return;
    m->heads = kept - frame;
    memcpy(m->head, p + frame, m->heads);
    m->tail = p + ip;
    m->tails = r->caplen - ip;
    m->wirelen = r->wirelen - ip + m->heads;
    if (linktype == 1 || linktype == 113 || linktype == 104) pt_put_net16(m->head + m->heads - 2, type);
    else if (linktype == 276) pt_put_net16(m->head, type);
    else if (linktype == 0) m->head[0] = type == PT_TYPE_IPV6 ? 24 : 2;
    else if (linktype == 108) m->head[3] = type == PT_TYPE_IPV6 ? 24 : 2;
    else if ((linktype == 9 || linktype == 50) && m->heads >= 2) pt_put_net16(m->head + m->heads - 2, pt_ppp_number(type));
    m->ethernet = linktype == 1;
}

/* ---- lengths ---- */

/* Set the length fields of the outermost IP packet of a built frame to `length` bytes, IP header included. */
static inline void pt_set_ip_length(uint8_t *ip, uint32_t have, uint32_t length, const pt_layer *l)
{
    uint32_t transport = l->transport == PT_NONE ? 0 : l->transport - l->ip;
    if (l->version == 4 && have >= 20) pt_put_net16(ip + 2, (uint16_t)length);
    if (l->version == 6 && have >= 40) pt_put_net16(ip + 4, (uint16_t)(length > 40 ? length - 40 : 0));
    if (transport && l->protocol == PT_UDP && !(l->flags & PT_FRAGMENT) && have >= transport + 8 && length >= transport + 8 &&
        pt_net16(ip + transport + 4) > length - transport)
        pt_put_net16(ip + transport + 4, (uint16_t)(length - transport));
}

/* Bytes of the frame in front of its outermost IP header, once built. */
static inline uint32_t pt_made_network(const pt_made *m, const uint8_t *p, const pt_where *o)
{
    uint32_t old = (uint32_t)(m->tail - p);
    return o->outer.ip >= old ? m->heads + o->outer.ip - old : o->outer.ip;
}

static inline void pt_cut_made(pt_made *m, uint32_t caplen)
{
    if (m->heads + m->tails <= caplen) return;
    if (caplen < m->heads) m->heads = caplen;
    m->tails = caplen - m->heads;
}

/* New lengths of the IP packet, which needs its header in the head. */
static inline void pt_made_ip_length(pt_made *m, const uint8_t *p, const pt_where *o, uint32_t frame, uint32_t network)
{
    uint32_t want = network + 128, have = m->heads + m->tails;
    if (m->heads < want) pt_pull(m, (want < have ? want : have) - m->heads);
    if (m->heads > network && frame > network) pt_set_ip_length(m->head + network, m->heads - network, frame - network, &o->outer);
    (void)p;
}

static inline void pt_shape_lengths(pt_shape *s, pt_made *m, const uint8_t *p, const pt_where *o)
{
    uint32_t caplen = m->heads + m->tails, network = o->depth ? pt_made_network(m, p, o) : 0;
    if (s->fixlen == PT_FIXLEN_DEL && caplen < m->wirelen) {
        m->reason = PT_UNSHAPED_CUT;
        return;
    }
    if (s->fixlen && o->depth && caplen < m->wirelen && m->wirelen <= 262144) {
        if (s->fixlen == PT_FIXLEN_PAD) {
            m->pad = m->wirelen - caplen;
            s->padded++;
        } else {
            pt_made_ip_length(m, p, o, caplen, network);
            m->wirelen = caplen;
            s->cut++;
        }
        m->resum = 1;
    }
    if (s->mtu_trunc) {
        uint32_t link = o->depth ? network : o->network != PT_NONE && o->network <= caplen ? o->network : 14;
        if (m->wirelen > s->mtu + link) {
            if (o->depth) pt_made_ip_length(m, p, o, s->mtu + link, network);
            m->wirelen = s->mtu + link;
            m->pad = 0;
            pt_cut_made(m, m->wirelen);
            m->resum = 1;
            s->cut++;
        }
    }
}

/* editcap's -C, and a snap length. */
static inline void pt_shape_chop(pt_shape *s, pt_made *m)
{
    uint32_t have = m->heads + m->tails + m->pad;
    for (int k = 0; k < 2; k++) {
        uint32_t n = (uint32_t)s->chop[k], at = s->chop_at[k];
        if (!n || at >= have) continue;
        if (n > have - at) n = have - at;
        if (k == 0) { /* from the start, behind at bytes */
            while (m->heads < at + n && m->heads < PT_MAX_HEAD - 64 && m->tails) pt_pull(m, 1);
            if (m->heads < at + n) {
                uint32_t more = at + n - m->heads;
                if (m->heads < at) continue;
                m->tail += more < m->tails ? more : m->tails;
                m->tails -= more < m->tails ? more : m->tails;
                m->heads = at;
            } else {
                memmove(m->head + at, m->head + at + n, m->heads - at - n);
                m->heads -= n;
            }
        } else {
            if (m->pad) m->pad = m->pad > n ? m->pad - n : 0;
            else pt_cut_made(m, have - n);
        }
        have -= n;
        if (s->chop_wire) m->wirelen -= n < m->wirelen ? n : m->wirelen;
    }
    if (s->snaplen && m->heads + m->tails + m->pad > s->snaplen) {
        m->pad = m->heads + m->tails < s->snaplen ? s->snaplen - m->heads - m->tails : 0;
        pt_cut_made(m, s->snaplen);
    }
}

/* Make what came out of a tunnel one piece, a packet as if captured so. */
static inline void pt_flatten(pt_shape *s, pt_made *m, pt_record *r, uint16_t linktype, pt_where *o)
{
    memcpy(s->scratch, m->head, m->heads);
    memcpy(s->scratch + m->heads, m->tail, m->tails);
    r->caplen = m->tails = m->heads + m->tails;
    r->wirelen = m->wirelen;
    m->heads = 0;
    m->tail = s->scratch;
    pt_locate_packet(s->scratch, r->caplen, r->wirelen, linktype, o);
}

/* One packet. Returns whether anything is other than it was. */
static inline int pt_shape_packet(pt_shape *s, pt_made *m, const uint8_t *p, const pt_record *r, uint16_t linktype,
                                  const pt_where *o, int s2c)
{
    pt_record fitted = *r;
    pt_where inner;
    m->heads = m->pad = 0;
    m->resum = 0;
    m->reason = PT_SHAPED;
    m->ethernet = linktype == 1;
    if (s->efcs && fitted.wirelen > 4) {
        fitted.wirelen -= 4;
        if (fitted.caplen > fitted.wirelen) fitted.caplen = fitted.wirelen;
    }
    m->tail = p;
    m->tails = fitted.caplen;
    m->wirelen = fitted.wirelen;
    if (s->decap) {
        pt_shape_decap(m, p, &fitted, linktype, o);
        if (m->tail != p && (s->out_type >= 0 || s->is_user || s->fixlen || s->mtu_trunc)) {
            pt_flatten(s, m, &fitted, linktype, &inner);
            p = s->scratch;
            o = &inner;
        }
    }
    if (s->is_user || (s->out_type >= 0 && !pt_same_link(s->out_type, linktype))) {
        pt_convert_link(s, m, p, &fitted, linktype, o, s2c);
        if (m->reason) return 1;
    }
    if (m->ethernet && (s->vlan || s->pushes || s->pops || s->translations) && (m->heads >= 14 || pt_pull(m, 14 - m->heads)))
        pt_shape_vlan(s, m);
    if (s->fixlen || s->mtu_trunc) {
        pt_shape_lengths(s, m, p, o);
        if (m->reason) return 1;
    }
    if (s->chop[0] || s->chop[1] || s->snaplen) pt_shape_chop(s, m);
    return m->heads || m->pad || m->tails != r->caplen || m->wirelen != r->wirelen;
}

/* Room for the batch's largest packet, where any may be taken out of a tunnel. 0: there is, -1: no memory. */
static inline int pt_scratch(pt_shape *s, const pt_batch *b)
{
    uint32_t most = 0;
    uint8_t *scratch;
    if (!s->decap) return 0;
    for (uint32_t k = 0; k < b->n; k++) most = b->record[k].caplen > most ? b->record[k].caplen : most;
    if (s->scratch && most <= s->scratch_room) return 0;
    scratch = realloc(s->scratch, most + PT_MAX_HEAD);
    if (!scratch) return -1;
    s->scratch = scratch;
    s->scratch_room = most;
    return 0;
}

/* The frame check sequence of the packet just made, if its end is still that of the frame it was. */
static inline void pt_shape_fcs(const pt_batch *b, const pt_record *r, const pt_where *o, const pt_made *m, pt_batch *out)
{
    const uint8_t *p = b->bytes + r->data;
    const pt_record *made = &out->record[out->n - 1];
    if (!m->ethernet || m->pad || m->wirelen != m->heads + m->tails || m->tail + m->tails != p + r->caplen) return;
    if (pt_fcs_find(p, r, b->interfaces->of[r->interface].linktype, o) == PT_NONE) return;
    pt_fcs_follow(out->bytes + made->data, made->caplen, 0);
}

/* Build the batch anew in out (empty). s2c: direction of each packet, or NULL. 0: done, -1: no memory. */
static inline int pt_shape_batch(pt_shape *s, const pt_batch *b, pt_batch *out, const uint8_t *s2c)
{
    pt_made m;
    uint32_t at = 0;
    pt_store_like(out, b);
    if (pt_scratch(s, b)) return -1;
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        if (pt_copy_bytes(out, b->bytes + at, r->start - at)) return -1;
        at = r->end;
        if (r->flags & PT_DROP) continue;
        if (r->flags & PT_SKIP) {
            m.heads = m.pad = 0;
            m.resum = 0;
            m.tail = b->bytes + r->data;
            m.tails = r->caplen;
            m.wirelen = r->wirelen;
            m.reason = PT_SHAPED;
            if (s->out_type >= 0 && !s->is_user && !pt_same_link(s->out_type, b->interfaces->of[r->interface].linktype))
                pt_convert_link(s, &m, b->bytes + r->data, r, b->interfaces->of[r->interface].linktype, &b->where[k], (r->flags & PT_FROM_SERVER) != 0);
        } else if (pt_shape_packet(s, &m, b->bytes + r->data, r, b->interfaces->of[r->interface].linktype, &b->where[k],
                                   s2c ? s2c[k] : (r->flags & PT_FROM_SERVER) != 0)) {
            s->shaped++;
        }
        if (m.reason) {
            s->dropped[m.reason]++;
            continue;
        }
        if (!m.heads && !m.pad && m.tails == r->caplen && m.wirelen == r->wirelen) {
            pt_record *copy;
            uint32_t start = (uint32_t)out->used;
            if (pt_copy_bytes(out, b->bytes + r->start, r->end - r->start) || !(copy = pt_add_record(out))) return -1;
            *copy = *r;
            copy->start = start;
            copy->data = start + (r->data - r->start);
            copy->end = start + (r->end - r->start);
            continue;
        }
        if (pt_emit(b, r, &m, out)) return -1;
        pt_shape_fcs(b, r, &b->where[k], &m, out);
    }
    return pt_copy_bytes(out, b->bytes + at, b->used - at);
}

#endif
