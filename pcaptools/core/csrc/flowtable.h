/* The flow table: rows with exact keys, in order of their first packet.
 *
 * A flow that a fragment began may turn out to be another one when the first fragment comes: its row then points there
 * (`same`). */
#ifndef PT_FLOWTABLE_H
#define PT_FLOWTABLE_H

#include <stddef.h>

#include "flowkey.h"

enum pt_by {
    PT_BY_CONNECTION, PT_BY_HOSTS, PT_BY_SOURCE, PT_BY_DESTINATION, PT_BY_VLAN, PT_BY_LINK, PT_BY_INTERFACE,
    PT_BY_PROTOCOL, PT_BY_COUNT, PT_BY_SIZE, PT_BY_TIME, PT_BY_FILTER,
};

/* Which flows share a file. */
enum pt_grouping { PT_GROUP_FLOW, PT_GROUP_CLIENT, PT_GROUP_SERVER, PT_GROUP_CLIENT_PORT, PT_GROUP_SERVER_PORT,
                   PT_GROUP_FILES };

enum {
    PT_NO_FLOW = 0,              /* row 0: packets without a flow */
    PT_FRAGMENT_PATIENCE = 60,   /* s of capture time: RFC 8200 section 4.5 */
    PT_DATAGRAMS = 1 << 20,      /* rows at which old datagrams are forgotten */
    PT_TOGETHER = 16,            /* packets that are looked at together */
};

/* pt_flow.seen */
enum {
    PT_SEEN_SYN = 1, PT_SEEN_SYN_ACK = 2, PT_SEEN_FIN_0 = 4, PT_SEEN_FIN_1 = 8, PT_SEEN_RST = 16,
    PT_SEEN_MORE = 32, /* something behind the handshake */
};

/* pt_flow.known: how seq[side] was learnt */
enum { PT_SEQ_SYN = 1, PT_SEQ_FIRST = 2, PT_SEQ_ACKED = 4 };

enum pt_flow_end { PT_STILL_OPEN, PT_ENDED_IDLE, PT_ENDED_REUSED };
enum pt_flow_start { PT_BEGAN_MIDDLE, PT_BEGAN_SYN, PT_BEGAN_SYN_ACK };

/* Two cache lines: what every packet needs to find its flow, and what it counts. */
typedef struct {
    pt_flow_key key;      /* must stand first */
    int64_t last;         /* ns */
    uint8_t flags[2];     /* TCP flags seen */
    uint8_t known[2];
    uint8_t seen;
    uint8_t start, end;
    uint8_t client : 1, sender : 1; /* ends of the key: who opened it, and who sent the first packet */
    int64_t first;        /* ns */
    uint64_t packets[2], bytes[2]; /* from the first end of the key, and from the second; bytes on the wire */
    uint64_t ordinal;     /* of its first packet, from 0 */
    uint32_t seq[2];      /* initial sequence number of each end */
    uint32_t same;        /* the flow that this one turned out to be; PT_NONE: itself */
    uint32_t group;       /* whose file it goes to; PT_NONE: not yet known */
} pt_flow;

/* What pt_relate() knows of a row. */
typedef struct {
    uint32_t parent;      /* the flow of its group nearer to the root; itself: the root */
    uint32_t cause;       /* the flow that caused it; PT_NONE: none */
    uint8_t relation;
} pt_link;

typedef struct {
    pt_flow_key key; /* directed: source first */
    int64_t time;    /* of its last fragment */
    uint32_t flow;
    uint32_t pending; /* no first fragment yet: `flow` is provisional */
} pt_datagram;

/* Where a packet's record lies in the stream, and whose it is. */
typedef struct {
    uint64_t at;
    uint32_t size, flow;
} pt_place;

/* Up to 8 bytes of a text behind those of its parent. */
typedef struct {
    uint64_t parent; /* its node; in the upper half how many bytes there are in word */
    uint64_t word;
    uint64_t call;   /* whether the text up to here is the Call-ID of a call */
} pt_text_node;

/* A packet that tells of other flows. */
enum pt_telling { PT_TELLS_DNS = 1, PT_TELLS_SIP = 2, PT_TELLS_FTP = 4, PT_TELLS_HTTP = 8 };
typedef struct {
    uint64_t ordinal;
    uint32_t record, flow, start, end; /* start, end: its payload, offsets in the packet */
    uint8_t kind, way, tcp;
} pt_told;

typedef struct {
    pt_keytable flows, datagrams, groups, vlans;
    pt_keytable texts;     /* Call-IDs, see sip.h */
    pt_link *link;         /* of the first rows; see pt_link_of() */
    pt_place *place;
    pt_told *told;
    uint32_t places, place_room, tolds, told_room, links;
    uint64_t packets;      /* indexed so far, those of row 0 included */
    uint64_t filtered;     /* left out because they were marked PT_DROP */
    int64_t timeout, open_timeout; /* ns, 0: none */
    uint64_t limit;        /* of PT_BY_COUNT packets, PT_BY_SIZE bytes, PT_BY_TIME ns */
    uint64_t chunk, chunk_used;
    int64_t origin, latest; /* ns: time of the first packet, and the latest */
    uint64_t stream;       /* bytes of the stream before the batch */
    uint32_t files, head;  /* head: bytes of a file before its packets, for PT_BY_SIZE */
    uint8_t by, grouping, inner, ignore_vlan, own_icmp_errors, keep, tells, began, filter;
} pt_split;

static inline pt_flow *pt_flow_at(const pt_split *s, uint32_t flow) { return pt_row(&s->flows, flow); }

/* The flow that a row stands for, after all merging. */
static inline uint32_t pt_flow_resolved(const pt_split *s, uint32_t flow)
{
    while (pt_flow_at(s, flow)->same != PT_NONE) flow = pt_flow_at(s, flow)->same;
    return flow;
}

static inline pt_link pt_link_of(const pt_split *s, uint32_t flow)
{
    const pt_link none = {flow, PT_NONE, 0};
    return flow < s->links ? s->link[flow] : none;
}

/* A new flow that no key leads to; PT_NONE: no memory. */
static inline uint32_t pt_provisional_flow(pt_split *s, const pt_flow_key *key, int64_t time, int way)
{
    uint32_t row = pt_add_row(&s->flows);
    pt_flow *f;
    if (row == PT_NONE) return PT_NONE;
    f = pt_flow_at(s, row);
    f->key = *key;
    f->first = f->last = time;
    f->ordinal = s->packets;
    f->same = f->group = PT_NONE;
    f->client = f->sender = (uint8_t)way & 1;
    return row;
}

/* A new flow that its key leads to; PT_NONE: no memory. */
static inline uint32_t pt_open_flow(pt_split *s, const pt_flow_key *key, int64_t time, int way)
{
    uint32_t row = pt_provisional_flow(s, key, time, way);
    return row == PT_NONE || pt_enter(&s->flows, row) ? PT_NONE : row;
}

static inline void pt_count_packet(pt_flow *f, int way, const pt_record *r)
{
    f->packets[way]++;
    f->bytes[way] += r->wirelen;
    if (r->time < f->first) f->first = r->time;
    if (r->time > f->last) f->last = r->time;
}

/* One flow turns out to be part of another. */
static inline void pt_merge_flow(pt_split *s, uint32_t flow, uint32_t into)
{
    pt_flow *a = pt_flow_at(s, flow), *b = pt_flow_at(s, into);
    if (flow == into) return;
    a->same = into;
    for (int way = 0; way < 2; way++) {
        b->packets[way] += a->packets[way];
        b->bytes[way] += a->bytes[way];
    }
    if (a->first < b->first) b->first = a->first;
    if (a->last > b->last) b->last = a->last;
    if (a->ordinal < b->ordinal) b->ordinal = a->ordinal;
}

#endif
