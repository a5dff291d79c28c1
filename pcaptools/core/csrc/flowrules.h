/* What a packet says about the connection that it is of: whether it continues it, and what becomes of it.
 *
 * TCP: RFC 9293. */
#ifndef PT_FLOWRULES_H
#define PT_FLOWRULES_H

#include "flowtable.h"

static inline int pt_flow_is_closed(const pt_flow *f)
{
    const uint8_t both = PT_SEEN_FIN_0 | PT_SEEN_FIN_1;
    return (f->seen & PT_SEEN_RST) || (f->seen & both) == both;
}

/* Flags, sequence and acknowledgement number of a TCP header. */
typedef struct {
    uint32_t seq, ack;
    uint8_t flags, there;
} pt_tcp_head;

enum { PT_FLAG_FIN = 1, PT_FLAG_SYN = 2, PT_FLAG_RST = 4, PT_FLAG_ACK = 16 };

static inline pt_tcp_head pt_tcp_of(const uint8_t *p, uint32_t caplen, const pt_layer *l)
{
    pt_tcp_head h = {0, 0, 0, 0};
    if (l->protocol != PT_TCP || !pt_has_transport(l, caplen, 14)) return h;
    h.seq = pt_net32(p + l->transport + 4);
    h.ack = pt_net32(p + l->transport + 8);
    h.flags = p[l->transport + 13];
    h.there = 1;
    return h;
}

/* Whether a SYN from one end begins another connection than f (RFC 9293 section 3.5): another initial sequence number
 * does; the same one does when the connection was used and closed, else it is sent again. */
static inline int pt_syn_is_new(const pt_flow *f, int way, const pt_tcp_head *h)
{
    if (f->known[way]) return h->seq != f->seq[way] || (pt_flow_is_closed(f) && f->seen & PT_SEEN_MORE);
    return pt_flow_is_closed(f) || !(f->seen & PT_SEEN_SYN); /* else both open at once */
}

/* The same of a SYN with ACK: it belongs to the SYN that it acknowledges. */
static inline int pt_syn_ack_is_new(const pt_flow *f, int way, const pt_tcp_head *h)
{
    if (f->known[!way] & (PT_SEQ_SYN | PT_SEQ_ACKED) && h->ack - 1 == f->seq[!way]) return 0;
    if (f->known[way]) return h->seq != f->seq[way];
    return pt_flow_is_closed(f);
}

/* Why a packet does not continue flow f: enum pt_flow_end; 0: it does. */
static inline int pt_flow_is_over(const pt_split *s, const pt_flow *f, int way, const pt_tcp_head *h, int64_t time)
{
    const int64_t idle = time - f->last;
    if (f->key.protocol != PT_TCP || f->key.kind != PT_KEY_PORTS)
        return s->timeout && idle > s->timeout ? PT_ENDED_IDLE : 0;
    if (pt_flow_is_closed(f) || (h->flags & PT_FLAG_SYN && !(f->seen & PT_SEEN_MORE))) {
        if (s->timeout && idle > s->timeout) return PT_ENDED_IDLE;
    }
    if (!pt_flow_is_closed(f) && s->open_timeout && idle > s->open_timeout) return PT_ENDED_IDLE;
    if ((h->flags & (PT_FLAG_SYN | PT_FLAG_RST)) != PT_FLAG_SYN) return 0;
    if (h->flags & PT_FLAG_ACK) return pt_syn_ack_is_new(f, way, h) ? PT_ENDED_REUSED : 0;
    return pt_syn_is_new(f, way, h) ? PT_ENDED_REUSED : 0;
}

static inline void pt_learn_seq(pt_flow *f, int end, uint32_t seq, int how)
{
    if (f->known[end] & PT_SEQ_SYN || (f->known[end] && how != PT_SEQ_SYN)) return;
    f->seq[end] = seq;
    f->known[end] = (uint8_t)how;
}

static inline void pt_tcp_follow(pt_flow *f, int way, const pt_tcp_head *h)
{
    f->flags[way] |= h->flags;
    if (h->flags & PT_FLAG_RST) f->seen |= PT_SEEN_RST;
    if (h->flags & PT_FLAG_FIN) f->seen |= way ? PT_SEEN_FIN_1 : PT_SEEN_FIN_0;
    if (!(h->flags & PT_FLAG_SYN)) {
        if (!(h->flags & PT_FLAG_RST)) {
            f->seen |= PT_SEEN_MORE;
            pt_learn_seq(f, way, h->seq - 1, PT_SEQ_FIRST);
        }
    } else if (h->flags & PT_FLAG_ACK) {
        f->seen |= PT_SEEN_SYN_ACK;
        pt_learn_seq(f, way, h->seq, PT_SEQ_SYN);
        pt_learn_seq(f, !way, h->ack - 1, PT_SEQ_ACKED);
    } else {
        if (!(f->seen & PT_SEEN_SYN)) f->client = way & 1;
        f->seen |= PT_SEEN_SYN;
        f->start = PT_BEGAN_SYN;
        pt_learn_seq(f, way, h->seq, PT_SEQ_SYN);
    }
}

/* The end that opened a flow, as far as its first packet tells: what sends a SYN or a query; among ports the one that
 * is no server's, below 1024 or just the lower one of TCP; else who speaks first. */
static inline int pt_client_of(const pt_flow_key *key, int way, const pt_tcp_head *h, int reply)
{
    const uint16_t from = key->port[way], to = key->port[!way];
    if (key->kind == PT_KEY_ECHO) return reply ? !way : way;
    if (key->kind != PT_KEY_PORTS) return way;
    if (h->there && h->flags & PT_FLAG_SYN) return h->flags & PT_FLAG_ACK ? !way : way;
    if ((from < 1024) != (to < 1024)) return from < 1024 ? !way : way;
    if (key->protocol == PT_TCP && from != to) return from < to ? !way : way;
    return way;
}

#endif
