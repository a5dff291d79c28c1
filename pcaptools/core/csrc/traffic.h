/* Flows of a mix of traffic (mix.h): what is known of each, what is counted, and their packets. */
#ifndef PT_TRAFFIC_H
#define PT_TRAFFIC_H

#include "messages.h"

enum {
    PT_ACTIVE = 1 << 14,      /* flows going on at a time, at most */
    PT_CLOSED = 256,          /* connections that ended and whose addresses and ports may be used again, at most */
    PT_LARGEST = 16,          /* flows that are remembered for the truth */
    PT_SIZE_CLASSES = 48,     /* class k: flows of 2^k packets and more, below 2^(k+1) */
    PT_PORTS = 1 << 12,       /* source ports of a client; from PT_FIRST_PORT on: analysers know no protocol there */
    PT_FIRST_PORT = 50048,
    PT_CLIENT_FLOWS = 64,     /* flows of a client, about */
    PT_CLIENT_BITS = 24,      /* 10.0.0.0/8 */
    PT_FIRST_CLIENT = 0x10001, /* from 10.1.0.1 on */
    PT_EXCHANGE = 768,        /* packets of an exchange, at most about */
    PT_EXCHANGE_LEAST = 3,    /* question, answer, acknowledgement */
    PT_MIX_OPTIONS = 12,      /* bytes of TCP options of a SYN */
    PT_MIX_WINDOW = 64240,
    PT_TAIL_LEAST = 24,       /* bytes of the last segment of an answer, at least; one alone: of its body */
    PT_VLANS = 16,
    PT_FIRST_VLAN = 100,
};

#define PT_SHARE(percent) ((uint64_t)(percent) * 42949673u) /* as a probability in 2^-32 */
#define PT_MS 1000000u

enum pt_kind { PT_KIND_TCP, PT_KIND_HTTP, PT_KIND_REFUSED, PT_KIND_UNANSWERED, PT_KIND_DNS, PT_KIND_UDP, PT_KINDS };

enum pt_stage {
    PT_STAGE_SYN, PT_STAGE_SYN_ACK, PT_STAGE_ACK, PT_STAGE_REFUSE,
    PT_STAGE_QUESTION, PT_STAGE_HEARD, PT_STAGE_ANSWER, PT_STAGE_SECOND, PT_STAGE_AGAIN, PT_STAGE_TAKEN,
    PT_STAGE_RESET, PT_STAGE_FIN, PT_STAGE_FIN_BACK, PT_STAGE_LAST_ACK,
    PT_STAGE_DNS, PT_STAGE_UDP,
};

/* Who talks to whom. Index 0 is the client, 1 the server. */
typedef struct {
    uint32_t host[2];
    uint16_t port[2];
    uint16_t vlan;  /* 0: no tag */
    uint8_t v6, kind;
} pt_pair;

typedef struct {
    pt_pair pair;
    uint64_t number;        /* 0 for the first flow */
    uint64_t packets, left; /* of the flow: all, to come */
    uint64_t bytes;
    int64_t begun;          /* ns after the start */
    uint64_t key;           /* what the current question and answer are made from */
    uint32_t sum;           /* of addresses, ports and protocol */
    uint32_t rtt;           /* ns */
    uint32_t seq[2];        /* next sequence number */
    uint32_t answer;        /* sequence number of the answer's first byte */
    uint32_t segments, sent; /* of the answer: all, acknowledged */
    uint32_t tail;          /* bytes of its last segment */
    uint32_t body;          /* HTTP: bytes of its body */
    uint32_t resend;        /* retransmissions to come in this answer */
    uint16_t ident[2], mss, head; /* head: HTTP: bytes in front of the body */
    uint8_t stage, closing, asker, heard, swapped, again, exists;
} pt_talk;

/* What came out. */
typedef struct {
    uint64_t packets, bytes, tcp, udp, ipv6, vlan;
    uint64_t ipv6_flows, vlan_flows, flows[PT_KINDS];
    uint64_t syn, syn_ack, fin, rst, retransmissions, syn_retransmissions, out_of_order, reused;
    uint64_t dns_queries, dns_responses, dns_missing, http_requests, http_responses;
    uint64_t classes[PT_SIZE_CLASSES];
} pt_counts;

typedef struct {
    pt_pair pair;
    uint64_t packets, bytes;
    int64_t begun, ended; /* ns after the start */
} pt_large;

typedef struct {
    int64_t due; /* ns after the start */
    uint32_t slot;
} pt_turn;

typedef struct {
    pt_maker maker;
    pt_link link[2][2][2];     /* [IPv6][from the server][with a tag] */
    uint64_t flows, packets;   /* wanted */
    int64_t duration;          /* ns */
    uint64_t vlan_share, ipv6_share, loss, reorder; /* probabilities in 2^-32 */
    uint32_t clients;          /* a power of two */
    uint32_t scale;            /* natural gaps are multiplied by scale / 2^16 */
    uint64_t begun, assigned, tuples; /* flows begun, packets that they have, addresses and ports given out */
    int64_t arrival, now;      /* of the next flow; of the last packet */
    pt_batch *batch;
    pt_counts counts;
    pt_large largest[PT_LARGEST];
    pt_pair closed[PT_CLOSED];
    uint32_t largest_n, closed_n, active;
    uint32_t slot[PT_ACTIVE];  /* free slots from `active` on */
    pt_turn heap[PT_ACTIVE];
    pt_talk flow[PT_ACTIVE];
    pt_pool pool;
} pt_mix;

/* ---- distributions ---------------------------------------------------------------------------------------- */

static inline uint64_t pt_square_root(uint64_t v)
{
    uint64_t root = 0, bit = (uint64_t)1 << 62;
    while (bit > v) bit >>= 2;
    for (; bit; bit >>= 2) {
        int fits = v >= root + bit;
        if (fits) v -= root + bit;
        root = (root >> 1) + (fits ? bit : 0);
    }
    return root;
}

/* A heavy-tailed number: Pareto with exponent 4/3, whose mean is four times its least. In 2^-16, as `least` is. */
static inline uint64_t pt_pareto(pt_random *r, uint64_t least)
{
    uint64_t u = (pt_next(r) >> 32) | 1, root = pt_square_root(u << 32), fourth = pt_square_root(root << 32);
    uint64_t ratio = ((uint64_t)1 << 48) / (root * fourth >> 32); /* (2^32 / u)^(3/4), in 2^-16 */
    unsigned __int128 value = (unsigned __int128)least * ratio >> 16;
    return value > UINT64_MAX >> 1 ? UINT64_MAX >> 1 : (uint64_t)value;
}

/* Between half and one and a half times that. */
static inline uint32_t pt_around(pt_random *r, uint32_t v) { return v / 2 + pt_below(r, v | 1); }

/* ---- the heap of due times -------------------------------------------------------------------------------- */

/* Put `entry` where the root was removed. */
static inline void pt_heap_sink(pt_turn *heap, uint32_t n, pt_turn entry)
{
    uint32_t at = 0;
    for (uint32_t child = 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= entry.due) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

/* Put `entry` in as the last of n. */
static inline void pt_heap_rise(pt_turn *heap, uint32_t n, pt_turn entry)
{
    uint32_t at = n - 1;
    while (at && heap[(at - 1) / 2].due > entry.due) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
}

/* ---- frames of a flow ------------------------------------------------------------------------------------- */

static inline void pt_host_address(const pt_pair *pair, int side, uint8_t address[16])
{
    memset(address, 0, 16);
    if (!pair->v6) {
        /* RFC 2544, RFC 1918 */
        pt_write_net32(address, side ? 0xc6120000 | pair->host[1] : 0x0a000000 | pair->host[0]);
        return;
    }
    pt_write_net32(address, 0x20010db8); /* RFC 3849 */
    address[5] = (uint8_t)(1 + side);
    pt_write_net32(address + 12, pair->host[side]);
}

static inline uint32_t pt_pair_sum(const pt_pair *pair, uint8_t protocol)
{
    uint8_t address[16];
    uint32_t sum = (uint32_t)pair->port[0] + pair->port[1] + protocol;
    for (int side = 0; side < 2; side++) {
        pt_host_address(pair, side, address);
        sum += pt_number_sum(address, 16);
    }
    return sum;
}

/* Begin the flow's next frame. Returns where its IP packet goes. */
static inline uint8_t *pt_flow_begin(pt_mix *m, const pt_talk *f, int side)
{
    const pt_link *l = &m->link[f->pair.v6][side][f->pair.vlan != 0];
    uint8_t *p = pt_make_frame(m->batch, l);
    if (f->pair.vlan) pt_put_net16(p - l->size + l->tag, f->pair.vlan);
    return p;
}

/* Write the IP header in front of `length` bytes and add the record. 0: done, -1: no memory. */
static inline int pt_flow_end(pt_mix *m, pt_talk *f, int side, uint8_t *p, uint8_t protocol, uint32_t length)
{
    const pt_link *l = &m->link[f->pair.v6][side][f->pair.vlan != 0];
    uint32_t size;
    if (f->pair.v6) {
        uint8_t address[2][16];
        pt_host_address(&f->pair, 0, address[side]);
        pt_host_address(&f->pair, 1, address[!side]);
        pt_put_ipv6(p, length, protocol, address[0], address[1]);
        length += 40;
    } else {
        uint32_t client = 0x0a000000 | f->pair.host[0], server = 0xc6120000 | f->pair.host[1];
        length += 20;
        pt_put_ipv4(p, length, f->ident[side]++, protocol, side ? server : client, side ? client : server);
    }
    size = pt_make_record(&m->maker, m->batch, l, length, m->now);
    f->bytes += size;
    m->counts.packets++;
    m->counts.bytes += size;
    m->counts.ipv6 += f->pair.v6;
    m->counts.vlan += f->pair.vlan != 0;
    return size ? 0 : -1;
}

/* One TCP segment of side; payload_sum: of `payload` bytes that stand behind the header already. */
static inline int pt_flow_tcp(pt_mix *m, pt_talk *f, int side, uint8_t *p, uint8_t flags, uint32_t seq,
                              uint32_t payload, uint64_t payload_sum)
{
    const uint32_t header = f->pair.v6 ? 40 : 20;
    pt_tcp t = {.sport = f->pair.port[side], .dport = f->pair.port[!side], .window = (uint16_t)(501 + (f->number & 7)),
                .seq = seq, .ack = flags & PT_ACK ? f->seq[!side] : 0, .flags = flags, .words = 5,
                .sum = f->sum + payload_sum};
    uint32_t length = 20 + payload;
    if (flags & PT_SYN) { /* maximum segment size, window scale 7, selective acknowledgements */
        uint8_t options[PT_MIX_OPTIONS] = {2, 4, (uint8_t)(f->mss >> 8), (uint8_t)f->mss, 1, 3, 3, 7, 1, 1, 4, 2};
        memcpy(p + header + 20, options, sizeof options);
        t.sum += pt_number_sum(options, sizeof options);
        t.words = 8;
        t.window = PT_MIX_WINDOW;
        length += PT_MIX_OPTIONS;
    }
    if (flags & PT_RST) t.window = 0;
    pt_put_tcp(p + header, &t, length);
    m->counts.tcp++;
    return pt_flow_end(m, f, side, p, PT_TCP, length);
}

/* A segment without payload. SYN and FIN count as a byte. */
static inline int pt_flow_control(pt_mix *m, pt_talk *f, int side, uint8_t flags)
{
    uint32_t seq = f->seq[side];
    if (flags & (PT_SYN | PT_FIN)) f->seq[side]++;
    m->counts.syn += (flags & (PT_SYN | PT_ACK)) == PT_SYN;
    m->counts.syn_ack += (flags & (PT_SYN | PT_ACK)) == (PT_SYN | PT_ACK);
    m->counts.fin += (flags & PT_FIN) != 0;
    m->counts.rst += (flags & PT_RST) != 0;
    return pt_flow_tcp(m, f, side, pt_flow_begin(m, f, side), flags, seq, 0, 0);
}

static inline uint32_t pt_slice(uint64_t key) { return (uint32_t)(pt_scrambled(key) & (PT_POOL - 2)); }

/* The question: an HTTP request, or some text. */
static inline int pt_flow_question(pt_mix *m, pt_talk *f)
{
    const int side = f->asker;
    uint8_t *p = pt_flow_begin(m, f, side), *payload = p + (f->pair.v6 ? 60 : 40);
    uint32_t size = 32 + (uint32_t)(f->key >> 20 & 511), seq = f->seq[side];
    uint64_t sum;
    if (f->pair.kind == PT_KIND_HTTP) {
        size = pt_http_request(payload, f->pair.host[1], f->key);
        sum = pt_number_sum(payload, size);
        m->counts.http_requests++;
    } else {
        sum = pt_pool_take(&m->pool, payload, pt_slice(f->key), size);
    }
    f->seq[side] += size;
    return pt_flow_tcp(m, f, side, p, PT_PSH | PT_ACK, seq, size, sum);
}

/* Segment `index` of the answer: the same bytes each time. */
static inline int pt_flow_answer(pt_mix *m, pt_talk *f, uint32_t index)
{
    const int side = !f->asker, last = index == f->segments - 1;
    uint8_t *p = pt_flow_begin(m, f, side), *payload = p + (f->pair.v6 ? 60 : 40);
    uint32_t size = last ? f->tail : f->mss, head = 0;
    uint64_t sum = 0, text;
    if (f->pair.kind == PT_KIND_HTTP && index == 0) {
        head = pt_http_response(payload, f->body, f->exists);
        sum = pt_number_sum(payload, head);
    }
    text = pt_pool_take(&m->pool, payload + head, pt_slice(f->key + index), size - head);
    sum += head & 1 ? pt_swapped_sum(pt_fold(text)) : text;
    return pt_flow_tcp(m, f, side, p, last ? PT_PSH | PT_ACK : PT_ACK, f->answer + index * f->mss, size, sum);
}

static inline int pt_flow_udp(pt_mix *m, pt_talk *f, int side, uint8_t *p, uint32_t payload, uint64_t payload_sum)
{
    uint8_t *header = p + (f->pair.v6 ? 40 : 20);
    pt_put_udp(header, f->pair.port[side], f->pair.port[!side], 8 + payload, f->sum + payload_sum);
    m->counts.udp++;
    return pt_flow_end(m, f, side, p, PT_UDP, 8 + payload);
}

static inline int pt_flow_dns(pt_mix *m, pt_talk *f, int side)
{
    uint8_t *p = pt_flow_begin(m, f, side), *payload = p + (f->pair.v6 ? 48 : 28);
    uint32_t size;
    if (!side) {
        f->key = pt_next(&m->maker.random);
        f->exists = (uint8_t)!pt_happens(&m->maker.random, PT_SHARE(8));
    }
    size = pt_dns_message(payload, f->key, side, f->exists);
    m->counts.dns_queries += !side;
    m->counts.dns_responses += side;
    m->counts.dns_missing += side && !f->exists;
    return pt_flow_udp(m, f, side, p, size, pt_number_sum(payload, size));
}

/* Text of sizes around one of the flow's own. */
static inline int pt_flow_text(pt_mix *m, pt_talk *f, int side)
{
    static const uint16_t usual[4] = {48, 160, 400, 900};
    uint8_t *p = pt_flow_begin(m, f, side);
    uint32_t size = pt_around(&m->maker.random, usual[f->number * 7 >> 1 & 3]);
    uint64_t sum = pt_pool_take(&m->pool, p + (f->pair.v6 ? 48 : 28), pt_slice(f->key + f->left), size);
    return pt_flow_udp(m, f, side, p, size, sum);
}

#endif
