/* What makes packets be of one flow: keys of addresses, ports and the like, with their two ends in order, so that both
 * directions of a flow have the same one; `way` says which direction a packet goes. */
#ifndef PT_FLOWKEY_H
#define PT_FLOWKEY_H

#include "ends.h"
#include "headers.h"
#include "keytable.h"

/* What a key is made of. */
enum pt_key_kind {
    PT_KEY_PORTS,    /* addresses, ports, protocol */
    PT_KEY_PAIR,     /* addresses, protocol */
    PT_KEY_ECHO,     /* addresses, protocol, identifier of ICMP queries in extra */
    PT_KEY_SPI,      /* addresses, protocol, SPI in extra */
    PT_KEY_DATAGRAM, /* a datagram whose first fragment has not come: source, destination, protocol, identification */
    PT_KEY_HOSTS,    /* addresses alone */
    PT_KEY_HOST,     /* one address */
    PT_KEY_PORT,     /* one port */
    PT_KEY_NUMBER,   /* a number in the first 8 bytes of the first address */
    PT_KEY_VLAN,     /* a stack of VLANs */
};

typedef struct {
    uint8_t address[2][16]; /* IPv4 in the first 4 bytes */
    uint16_t port[2];
    uint8_t version, protocol, kind, unused;
    uint32_t vlan;          /* node of the VLAN tree; 0: no tag */
    uint32_t extra;         /* of PT_KEY_PORTS: the call that a SIP message is of, a node of texts; 0: none */
} pt_flow_key;

typedef struct {
    uint64_t parent, vlan; /* one tag inside another; node 0 is no tag */
} pt_vlan_node;

/* Put the ends of a directed key in order. Returns the way that it went. */
static inline int pt_order_ends(pt_flow_key *key)
{
    const int way = pt_ends_reversed(key->address, key->port);
    if (way) pt_swap_ends(key->address, key->port);
    return way;
}

static inline void pt_number_key(pt_flow_key *key, int kind, uint64_t number)
{
    memset(key, 0, sizeof *key);
    key->kind = (uint8_t)kind;
    memcpy(key->address[0], &number, 8);
}

/* The stack of VLANs behind the outermost link layer, as a node; a priority tag (VLAN 0) is none. -1: no memory. */
static inline int pt_vlan_stack(pt_keytable *vlans, const uint8_t *p, uint32_t caplen, const pt_where *w,
                                uint16_t linktype, uint32_t *node)
{
    uint32_t at = linktype == 1 ? 12 : linktype == 113 ? 14 : linktype == 276 ? 0 : PT_NONE;
    uint32_t tag = linktype == 276 ? 20 : at + 2;
    *node = 0;
    if (at == PT_NONE || (linktype == 1 && (w->ethernet != 0 || w->network == at + 2))) return 0;
    for (int tags = 0; tags < PT_MAX_SHIM; tags++) {
        pt_vlan_node key;
        uint16_t type;
        if (at + 2 > caplen || tag + 4 > caplen) return 0;
        type = pt_net16(p + at);
        if (type != PT_TYPE_VLAN && type != PT_TYPE_QINQ && type != PT_TYPE_OLD_QINQ) return 0;
        key.parent = *node;
        key.vlan = pt_net16(p + tag) & 0xfff;
        at = tag + 2;
        tag += 4;
        if (!key.vlan) continue;
        *node = pt_obtain(vlans, &key);
        if (*node == PT_NONE) return -1;
    }
    return 0;
}

/* Whether a layer has addresses; *at: where the source's stands, the destination's being right behind it. */
static inline int pt_has_addresses(uint32_t caplen, const pt_layer *l, uint32_t *at)
{
    *at = l->ip + (l->version == 6 ? 8 : 12);
    if (!l->version || l->ip == PT_NONE || *at + (l->version == 6 ? 32 : 8) > caplen) return 0;
    return l->status != PT_MALFORMED && (l->status != PT_BAD_LENGTH || l->transport != PT_NONE);
}

/* Addresses into a cleared key, the source becoming end `way`. IPv4 as 8 bytes: who reads them right away as 8 need not
 * wait. */
static inline void pt_put_addresses(pt_flow_key *key, const uint8_t *p, uint8_t version, int way)
{
    key->version = version;
    if (version == 6) {
        memcpy(key->address[way], p, 16);
        memcpy(key->address[!way], p + 16, 16);
    } else {
        uint64_t source = 0, destination = 0;
        memcpy(&source, p, 4);
        memcpy(&destination, p + 4, 4);
        memcpy(key->address[way], &source, 8);
        memcpy(key->address[!way], &destination, 8);
    }
}

/* Addresses of a layer, source first, into a cleared key. 0: there are none. */
static inline int pt_key_addresses(const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_flow_key *key)
{
    uint32_t at;
    if (!pt_has_addresses(caplen, l, &at)) return 0;
    pt_put_addresses(key, p + at, l->version, 0);
    return 1;
}

/* Whether n bytes of the transport header are there. */
static inline int pt_has_transport(const pt_layer *l, uint32_t caplen, uint32_t n)
{
    return l->transport != PT_NONE && l->transport + n <= caplen && l->transport + n <= l->end;
}

/* Where the payload of UDP or TCP begins and ends in the packet. 0: there is none. */
static inline int pt_payload(const uint8_t *p, uint32_t caplen, const pt_layer *l, uint32_t *start, uint32_t *end)
{
    *end = l->end < caplen ? l->end : caplen;
    if (l->protocol == PT_TCP && pt_has_transport(l, caplen, 20)) *start = l->transport + (p[l->transport + 12] >> 4) * 4u;
    else if (l->protocol == PT_UDP && pt_has_transport(l, caplen, 8)) *start = l->transport + 8;
    else return 0;
    return *start < *end;
}

/* ICMP messages with an identifier: RFC 792, RFC 4443, RFC 8335. Returns 0 none, 1 a query, 2 a reply. */
static inline int pt_icmp_query(uint8_t protocol, uint8_t type)
{
    if (protocol == PT_ICMP) {
        switch (type) {
        case 8: case 13: case 15: case 17: case 42: return 1;
        case 0: case 14: case 16: case 18: case 43: return 2;
        }
    } else if (protocol == PT_ICMPV6) {
        if (type == 128 || type == 160) return 1;
        if (type == 129 || type == 161) return 2;
    }
    return 0;
}

/* ICMP messages that quote the packet that they are about. */
static inline int pt_icmp_error(uint8_t protocol, uint8_t type)
{
    if (protocol == PT_ICMP) return (type >= 3 && type <= 5) || type == 11 || type == 12;
    return protocol == PT_ICMPV6 && type >= 1 && type <= 4;
}

/* The rest of a connection's key, from the transport header. */
static inline void pt_key_transport(const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_flow_key *key)
{
    const uint8_t *t = p + l->transport;
    key->protocol = l->protocol;
    key->kind = PT_KEY_PAIR;
    switch (l->protocol) {
    case PT_TCP: case PT_UDP: case PT_SCTP: case PT_DCCP: case PT_UDPLITE:
        if (!pt_has_transport(l, caplen, 4)) return;
        key->port[0] = pt_net16(t);
        key->port[1] = pt_net16(t + 2);
        key->kind = PT_KEY_PORTS;
        return;
    case PT_ICMP: case PT_ICMPV6:
        if (!pt_has_transport(l, caplen, 6) || !pt_icmp_query(l->protocol, t[0])) return;
        key->extra = pt_net16(t + 4);
        key->kind = PT_KEY_ECHO;
        return;
    case 50: /* ESP */
        if (!pt_has_transport(l, caplen, 4)) return;
        key->extra = pt_net32(t);
        key->kind = PT_KEY_SPI;
    }
}

/* Addresses and ports of a layer with ports into a cleared key, in order at once: nearly all packets are such, and a key
 * that is swapped right after it was written is waited for. 0: another kind of packet. */
static inline int pt_key_ports(const uint8_t *p, uint32_t caplen, const pt_layer *l, pt_flow_key *key, int *way)
{
    uint32_t at;
    uint16_t from, to;
    uint64_t source, destination;
    if ((l->protocol != PT_TCP && l->protocol != PT_UDP) || !pt_has_transport(l, caplen, 4)) return 0;
    if (!pt_has_addresses(caplen, l, &at)) return 0;
    from = pt_net16(p + l->transport);
    to = pt_net16(p + l->transport + 2);
    if (l->version == 6) {
        source = pt_net64(p + at);
        destination = pt_net64(p + at + 16);
        if (source == destination) {
            source = pt_net64(p + at + 8);
            destination = pt_net64(p + at + 24);
        }
    } else {
        source = pt_net32(p + at);
        destination = pt_net32(p + at + 4);
    }
    *way = source > destination || (source == destination && from > to);
    pt_put_addresses(key, p + at, l->version, *way);
    key->port[*way] = from;
    key->port[!*way] = to;
    key->protocol = l->protocol;
    key->kind = PT_KEY_PORTS;
    return 1;
}

/* The identification of a fragment's datagram. 0: it was not captured. */
static inline int pt_fragment_identity(const uint8_t *p, uint32_t caplen, const pt_layer *l, uint32_t *identity,
                                       uint8_t *protocol)
{
    uint32_t at = l->ip + 40;
    uint8_t kind, next;
    *protocol = l->protocol;
    if (l->version == 4) {
        *identity = pt_net16(p + l->ip + 4);
        *protocol = p[l->ip + 9];
        return 1;
    }
    kind = p[l->ip + 6];
    for (int headers = 0; headers < PT_MAX_SHIM && pt_ipv6_extension(kind); headers++) {
        uint32_t size;
        if (at + 8 > caplen) return 0;
        size = pt_ipv6_extension_size(p + at, kind, &next);
        if (kind == PT_FRAGMENT_HEADER) {
            *identity = pt_net32(p + at + 4);
            *protocol = next;
            return 1;
        }
        kind = next;
        at += size;
    }
    return 0;
}

#endif
