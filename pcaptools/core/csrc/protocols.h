/* The hierarchy of protocols: a tree whose nodes count packets and bytes. Its size is bounded: a packet that would
 * need a new node when there is none left is counted down to the last node that there is. */
#ifndef PT_PROTOCOLS_H
#define PT_PROTOCOLS_H

#include "headers.h"

enum { PT_PROTOCOL_NODES = 4096, PT_PROTOCOL_SLOTS = 16384 };

/* What a node's number means. */
enum pt_protocol_kind {
    PT_PROTOCOL_LINK,    /* link type */
    PT_PROTOCOL_ETHER,   /* EtherType, or one of enum PT_TYPE_... */
    PT_PROTOCOL_IP,      /* protocol number of IPv4 and IPv6 */
    PT_PROTOCOL_TUNNEL,  /* UDP port of a tunnel */
    PT_PROTOCOL_SERVICE, /* port, of those that were named */
    PT_PROTOCOL_STATUS,  /* enum pt_status: why it goes no further */
};

typedef struct {
    uint32_t parent, code; /* parent: index, itself for the root; code: kind << 16 | number */
    uint64_t packets, bytes;
} pt_protocol;

typedef struct {
    pt_protocol node[PT_PROTOCOL_NODES];
    uint16_t slot[PT_PROTOCOL_SLOTS]; /* 1 + index; 0: free */
    uint32_t n;
    uint64_t overflow;                /* packets that needed a node too many */
    uint8_t service[8192];            /* a bit for each port that has a name */
} pt_protocols;

/* One packet on its way down the tree. */
typedef struct {
    pt_protocols *tree;
    uint32_t at, wirelen;
    uint8_t stopped;
} pt_descent;

static inline void pt_descend(pt_descent *d, int kind, uint16_t number)
{
    pt_protocols *t = d->tree;
    const uint32_t code = (uint32_t)kind << 16 | number;
    uint32_t slot = (d->at * 0x9e3779b1u ^ code * 0x85ebca6bu) >> 7;
    pt_protocol *node;
    if (d->stopped) return;
    for (slot %= PT_PROTOCOL_SLOTS; t->slot[slot]; slot = (slot + 1) % PT_PROTOCOL_SLOTS) {
        node = &t->node[t->slot[slot] - 1];
        if (node->parent == d->at && node->code == code) break;
    }
    if (!t->slot[slot]) {
        if (t->n == PT_PROTOCOL_NODES) {
            t->overflow++;
            d->stopped = 1;
            return;
        }
        node = &t->node[t->n++];
        node->parent = d->at;
        node->code = code;
        t->slot[slot] = (uint16_t)t->n;
    }
    d->at = t->slot[slot] - 1u;
    node = &t->node[d->at];
    node->packets++;
    node->bytes += d->wirelen;
}

/* Tags and labels between Ethernet and the network header. */
static inline void pt_descend_shims(pt_descent *d, const uint8_t *p, const pt_where *o)
{
    uint32_t at = o->ethernet + 12;
    if (o->ethernet == PT_NONE || o->network == PT_NONE) return;
    for (int tags = 0; tags < PT_MAX_SHIM && at + 2 <= o->network; tags++, at += 4) {
        uint16_t type = pt_net16(p + at);
        if (type != PT_TYPE_VLAN && type != PT_TYPE_QINQ && type != PT_TYPE_OLD_QINQ) {
            if (at + 2 < o->network && type != o->ethertype && type >= 1536) pt_descend(d, PT_PROTOCOL_ETHER, type);
            return;
        }
        pt_descend(d, PT_PROTOCOL_ETHER, type);
    }
}

static inline void pt_descend_service(pt_descent *d, const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    uint16_t source, target, port;
    if ((l->protocol != PT_TCP && l->protocol != PT_UDP) || l->transport == PT_NONE || l->transport + 4 > caplen) return;
    source = pt_net16(p + l->transport);
    target = pt_net16(p + l->transport + 2);
    for (int k = 0; k < 2; k++) {
        port = (k == 0) == (source < target) ? source : target; /* the lower one first */
        if (d->tree->service[port >> 3] >> (port & 7) & 1) {
            pt_descend(d, PT_PROTOCOL_SERVICE, port);
            return;
        }
    }
}

/* From one IP layer to the one inside it. */
static inline void pt_descend_tunnel(pt_descent *d, const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    static const uint16_t ports[] = {4789, 8472, 6081, 2152, 3544};
    uint16_t source, target;
    if (l->protocol != PT_UDP || l->transport == PT_NONE || l->transport + 4 > caplen) return;
    source = pt_net16(p + l->transport);
    target = pt_net16(p + l->transport + 2);
    for (unsigned k = 0; k < sizeof ports / sizeof *ports; k++) {
        if (target == ports[k] || (k >= 3 && source == ports[k])) {
            pt_descend(d, PT_PROTOCOL_TUNNEL, ports[k]);
            return;
        }
    }
}

static inline void pt_descend_layers(pt_descent *d, const uint8_t *p, uint32_t caplen, const pt_layer *layer, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        const pt_layer *l = &layer[k];
        pt_descend(d, PT_PROTOCOL_ETHER, l->version == 6 ? PT_TYPE_IPV6 : PT_TYPE_IPV4);
        if (l->status != PT_OK && l->status != PT_BAD_LENGTH && l->transport == PT_NONE) {
            if (l->status == PT_LATER_FRAGMENT) pt_descend(d, PT_PROTOCOL_IP, l->protocol);
            pt_descend(d, PT_PROTOCOL_STATUS, l->status);
            return;
        }
        pt_descend(d, PT_PROTOCOL_IP, l->protocol);
        if (k + 1 < n) pt_descend_tunnel(d, p, caplen, l);
        else pt_descend_service(d, p, caplen, l);
    }
}

/* The headers of the batch must be located. */
static inline void pt_protocols_batch(pt_protocols *t, const pt_batch *b)
{
    for (uint32_t k = 0; k < b->n; k++) {
        const pt_record *r = &b->record[k];
        const pt_where *o = &b->where[k];
        const uint8_t *p = b->bytes + r->data;
        const uint16_t linktype = b->interfaces->of[r->interface].linktype;
        pt_descent d = {t, 0, r->wirelen, 0};
        if (!t->n) t->n = 1; /* the root */
        t->node[0].packets++;
        t->node[0].bytes += r->wirelen;
        pt_descend(&d, PT_PROTOCOL_LINK, linktype);
        pt_descend_shims(&d, p, o);
        if (!o->depth) {
            if (o->ethertype) pt_descend(&d, PT_PROTOCOL_ETHER, o->ethertype);
            else if (o->status != PT_NOT_IP) pt_descend(&d, PT_PROTOCOL_STATUS, o->status);
        } else if (o->depth <= 2) {
            pt_layer layer[2] = {o->outer, o->inner};
            pt_descend_layers(&d, p, r->caplen, layer, o->depth);
        } else {
            pt_layer layer[PT_MAX_DEPTH];
            pt_walk w;
            uint32_t network, depth;
            uint16_t ethertype;
            pt_walk_start(&w, p, r->caplen, r->wirelen);
            depth = pt_layers(&w, linktype, layer, PT_MAX_DEPTH, &network, &ethertype);
            pt_descend_layers(&d, p, r->caplen, layer, depth);
        }
    }
}

#endif
