/* The first payload of sessions in which names may be found: TLS hellos, kept so that only the sessions that are shown
 * need be read (engines/contents.py). A stream that begins with something else is not kept. RFC 8446, 4 and 5.1. */
#ifndef PT_SESSION_HEADS_H
#define PT_SESSION_HEADS_H

#include "session_figures.h"

enum {
    PT_MOST_HEAD = 1 << 14,  /* bytes kept of a session */
    PT_MOST_HEADS = 1 << 26, /* and of all */
    PT_TLS_CHANGE = 20, PT_TLS_HANDSHAKE = 22, PT_PORT_DNS = 53,
};

/* A segment with payload. */
typedef struct pt_head {
    struct pt_head *following;
    uint64_t packet;
    int64_t time;
    uint32_t seq, ack, rel_seq, rel_ack, payload, captured;
    uint16_t flags;
    uint8_t way;
    uint8_t bytes[];
} pt_head;

/* DNS has names anywhere in its streams: all rows are made of these, and of no others. */
static inline void pt_begin_heads(pt_session *s)
{
    s->watched = s->key.port[0] == PT_PORT_DNS || s->key.port[1] == PT_PORT_DNS;
    s->heads = s->watched ? 0 : 3;
    s->head_want[0] = s->head_want[1] = PT_MOST_HEAD;
}

static inline void pt_drop_heads(pt_session *s, uint64_t *held)
{
    *held -= s->head_size;
    s->head_size = 0;
    s->heads = 0;
    while (s->head) {
        pt_head *head = s->head;
        s->head = head->following;
        free(head);
    }
    s->head_end = NULL;
}

/* How many bytes of a stream that begins so are wanted. 0: it begins with no handshake. */
static inline uint32_t pt_wanted_head(const uint8_t *p, uint32_t n)
{
    uint32_t record, message;
    if (p[0] != PT_TLS_HANDSHAKE && p[0] != PT_TLS_CHANGE) return 0;
    if (n > 1 && p[1] != 3) return 0;
    if (p[0] == PT_TLS_CHANGE || n < 9) return PT_MOST_HEAD;
    if (p[5] != 1 && p[5] != 2) return 0;
    record = (uint32_t)p[3] << 8 | p[4];
    message = (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];
    return message + 4 <= record && record + 5 < PT_MOST_HEAD ? record + 5 : PT_MOST_HEAD;
}

/* Keep a segment with payload, if it is of use; data: its payload. 0: done, -1: no memory. */
static inline int pt_keep_head(pt_session *s, const pt_arrival *g, const uint8_t *data, uint64_t *held)
{
    const uint32_t base = s->end[g->way].base, start = g->seq + (g->flags & PT_FLAG_SYN ? 1 : 0) - base - 1;
    const uint32_t size = (uint32_t)sizeof(pt_head) + g->captured;
    pt_head *head;
    if (!start && g->captured && !(s->head_want[g->way] = pt_wanted_head(data, g->captured))) {
        s->heads = 0; /* and what the other end said stays */
        return 0;
    }
    if (start >= s->head_want[g->way]) {
        if (start < UINT32_MAX / 2) s->heads &= (uint8_t)~(1 << g->way);
        return 0;
    }
    if (s->head_size + size > PT_MOST_HEAD || *held + size > PT_MOST_HEADS) return 0;
    head = malloc(size);
    if (!head) return -1;
    *head = (pt_head){NULL, g->packet, g->time, g->seq, g->ack, g->seq - base,
                      g->flags & PT_FLAG_ACK ? g->ack - s->end[!g->way].base : 0, g->length, g->captured, g->flags,
                      g->way};
    memcpy(head->bytes, data, g->captured);
    if (s->head_end) s->head_end->following = head;
    else s->head = head;
    s->head_end = head;
    s->head_size += size;
    *held += size;
    return 0;
}

#endif
