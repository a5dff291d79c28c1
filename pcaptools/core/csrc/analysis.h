/* What is odd about a segment, by the rules of Wireshark's TCP analysis (Wireshark User's Guide, section 7.5): they
 * look at what was captured of both directions before it, never ahead.
 *
 * Sequence numbers are compared modulo 2^32, and what is known is known by a flag: where Wireshark takes the number 0
 * for "not known yet", a stream may pass through 0 here. On purpose other than in Wireshark 4.0: a segment that still
 * waits for its acknowledgement and comes again is a retransmission however soon it comes, never out of order; the byte
 * of a zero window probe that was taken counts as sent. */
#ifndef PT_ANALYSIS_H
#define PT_ANALYSIS_H

#include "session.h"

enum {
    PT_FAST_AFTER = 20000000,       /* ns: a fast retransmission comes within this of the duplicate ACK */
    PT_REORDERED_WITHIN = 3000000,  /* ns: out of order within this of the highest segment, when no RTT is known */
    PT_TIMER_LEAST = 200000000,     /* ns: no retransmission timer is shorter in practice (RFC 6298 says 1 s) */
    /* pt_end.last: what its last segment was; and an acknowledgement of what was not seen was told since it
     * acknowledged something else */
    PT_LAST_KEEP_ALIVE = 1, PT_LAST_PROBE = 2, PT_LAST_KIND = 3, PT_LAST_TOLD = 4,
};

#define PT_SPECIAL (PT_FLAG_SYN | PT_FLAG_FIN | PT_FLAG_RST)

/* ---- segments not acknowledged yet --------------------------------------------------------------------------- */

static inline uint32_t pt_unacked_count(const pt_unacked_list *l) { return l->n - l->head; }

/* Room for one more behind the last. 0: done, -1: no memory. */
static inline int pt_unacked_room(pt_unacked_list *l)
{
    uint32_t room;
    pt_unacked *of;
    if (l->n < l->room) return 0;
    if (l->head > l->room / 2) {
        l->n -= l->head;
        memmove(l->of, l->of + l->head, l->n * sizeof *l->of);
        l->head = 0;
        return 0;
    }
    room = l->room ? l->room * 2 : 4;
    of = realloc(l->of, room * sizeof *of);
    if (!of) return -1;
    l->of = of;
    l->room = room;
    return 0;
}

/* Remember a segment; all: how many there are of all ends. 0: done, -1: no memory. */
static inline int pt_remember(pt_unacked_list *l, uint32_t seq, uint32_t next, int64_t time, uint64_t packet, int again,
                              uint64_t *all)
{
    pt_unacked *u;
    if (pt_unacked_room(l)) return -1;
    u = &l->of[l->n];
    if (l->n == l->head) l->sorted = 1;
    else if (pt_before(seq, u[-1].next)) l->sorted = 0;
    u->seq = seq;
    u->next = next;
    u->time = time;
    u->packet = packet * 2 + (again != 0);
    l->n++;
    ++*all;
    return 0;
}

/* What an acknowledgement says about one of them: 0 keep it, 1 it is done; rtt: of the segment, if it was sent once. */
static inline int pt_acknowledge_one(pt_unacked *u, uint32_t ack, int64_t time, int64_t *rtt)
{
    if (pt_before(ack, u->next)) {
        if (pt_before(u->seq, ack)) u->seq = ack;
        return 0;
    }
    if (u->next == ack && !(u->packet & 1)) *rtt = pt_since(time, u->time);
    return 1;
}

/* Forget what is acknowledged. Returns the RTT of the newest segment that ends there and was sent once; -1: none. */
static inline int64_t pt_acknowledge(pt_unacked_list *l, uint32_t ack, int64_t time, uint64_t *all)
{
    const uint32_t n = l->n;
    uint32_t k = l->head;
    int64_t rtt = -1;
    if (l->sorted) {
        while (k < n && pt_acknowledge_one(&l->of[k], ack, time, &rtt)) k++;
        *all -= k - l->head;
        l->head = k;
    } else {
        uint32_t left = l->head;
        for (; k < n; k++) {
            if (!pt_acknowledge_one(&l->of[k], ack, time, &rtt)) l->of[left++] = l->of[k];
        }
        *all -= n - left;
        l->n = left;
    }
    if (l->head == l->n) {
        l->head = l->n = 0;
        l->sorted = 1;
    }
    return rtt;
}

/* The newest that has the first byte of a segment; those that overlap it are sent more than once now. NULL: none. */
static inline const pt_unacked *pt_sent_before(pt_unacked_list *l, uint32_t seq, uint32_t next)
{
    const pt_unacked *found = NULL;
    for (uint32_t k = l->n; k-- > l->head;) {
        pt_unacked *u = &l->of[k];
        if (!pt_before(seq, u->next) || !pt_before(u->seq, next)) continue;
        u->packet |= 1;
        if (!found && pt_not_after(u->seq, seq)) found = u;
    }
    return found;
}

/* Whether one of them has all bytes of a segment. */
static inline int pt_waits(const pt_unacked_list *l, uint32_t seq, uint32_t next)
{
    for (uint32_t k = l->n; k-- > l->head;) {
        if (pt_not_after(l->of[k].seq, seq) && pt_not_after(next, l->of[k].next)) return 1;
    }
    return 0;
}

/* ---- the rules ----------------------------------------------------------------------------------------------- */

/* What is told by sequence number and window. */
static inline void pt_judge_window(const pt_end *from, const pt_end *to, pt_arrival *g)
{
    const int at_next = from->has & PT_HAS_NEXT && g->seq == from->next;
    const int plain = !(g->flags & PT_SPECIAL);
    if (g->window == 0 && plain) g->bits |= PT_BIT(PT_ZERO_WINDOW);
    if (from->has & PT_HAS_NEXT && pt_before(from->next, g->seq) && !(g->flags & PT_FLAG_RST))
        g->bits |= PT_BIT(PT_LOST_SEGMENT);
    if (!plain) return;
    if (g->length <= 1 && from->has & PT_HAS_NEXT && g->seq == from->next - 1) g->bits |= PT_BIT(PT_KEEP_ALIVE);
    if (g->length) {
        const int scale = to->has & PT_PAST_SYN && to->scale > 0 ? to->scale : 0;
        if (to->scale != PT_UNKNOWN_SCALE && g->seq + g->length == to->last_ack + (to->window << scale))
            g->bits |= PT_BIT(PT_WINDOW_FULL);
    } else if (at_next && g->window && g->window != from->window && g->ack == from->last_ack) {
        g->bits |= PT_BIT(PT_WINDOW_UPDATE);
    }
}

/* What a segment without payload is that repeats the acknowledgement before it. */
static inline void pt_judge_repeated_ack(pt_end *from, pt_end *to, pt_arrival *g)
{
    const int same = g->ack == from->last_ack, next = g->ack == from->last_ack + 1;
    if (g->length || g->flags & PT_SPECIAL || g->window != from->window || !(from->has & PT_HAS_ACK)) return;
    if (!(from->has & PT_HAS_NEXT) || g->seq != from->next || !(same || next)) return;
    if (!g->window) {
        if (!(to->last & PT_LAST_PROBE)) return;
        g->bits |= PT_BIT(PT_ZERO_WINDOW_PROBE_ACK);
        if (next) to->next = to->to_ack = g->ack; /* the byte of the probe was taken */
        return;
    }
    if (!same) return;
    if (to->last & PT_LAST_KEEP_ALIVE) {
        g->bits |= PT_BIT(PT_KEEP_ALIVE_ACK);
    } else {
        g->bits |= PT_BIT(PT_DUPLICATE_ACK);
        g->dup_ack = ++from->dup_acks;
    }
}

/* An acknowledgement of what was not seen: told once for each gap that it left open, and once after the other end
 * acknowledged something else. */
static inline void pt_judge_ack(const pt_end *from, pt_end *to, pt_arrival *g)
{
    if (!(g->flags & PT_FLAG_ACK) || !(to->has & PT_HAS_TO_ACK) || !pt_before(to->to_ack, g->ack)) return;
    if (to->last & PT_LAST_TOLD && to->to_ack == to->next) return;
    if (g->ack == from->last_ack + 1 && from->has & PT_HAS_NEXT && g->seq == from->next && to->last & PT_LAST_PROBE) {
        to->next = to->to_ack = g->ack;
        g->bits |= PT_BIT(PT_WINDOW_UPDATE);
        return;
    }
    if (to->to_ack == to->next) to->last |= PT_LAST_TOLD;
    to->to_ack = to->next;
    g->bits |= PT_BIT(PT_ACK_LOST_SEGMENT);
}

/* Which kind of repetition a segment is that does not advance: enum pt_analysis. */
static inline int pt_kind_of_repetition(const pt_session *s, const pt_end *from, const pt_end *to, const pt_arrival *g)
{
    const uint64_t since_ack = (uint64_t)pt_since(g->time, to->ack_time);
    const uint64_t since_next = (uint64_t)pt_since(g->time, from->next_time);
    const uint64_t near = s->first_rtt > 0 ? (uint64_t)s->first_rtt : PT_REORDERED_WITHIN;
    const uint32_t end = g->seq + g->length;
    if (since_ack < PT_FAST_AFTER && to->dup_acks >= 2 && to->last_ack == g->seq) return PT_FAST_RETRANSMISSION;
    if (since_next < near && !pt_waits(&from->unacked, g->seq, end) &&
        from->next != end + (g->flags & (PT_FLAG_SYN | PT_FLAG_FIN) ? 1 : 0))
        return PT_OUT_OF_ORDER;
    return PT_RETRANSMISSION;
}

/* Whether a segment was sent before, or comes late. */
static inline void pt_judge_repetition(const pt_session *s, pt_end *from, const pt_end *to, pt_arrival *g)
{
    const uint32_t next = g->seq + g->length + (g->flags & (PT_FLAG_SYN | PT_FLAG_FIN) ? 1 : 0);
    const pt_unacked *before;
    int kind;
    if (g->bits & PT_BIT(PT_KEEP_ALIVE)) return;
    if (g->length && to->last_ack && pt_not_after(g->seq + g->length, to->last_ack)) {
        kind = PT_SPURIOUS_RETRANSMISSION;
    } else {
        if (!(from->has & PT_HAS_NEXT) || !pt_before(g->seq, from->next)) return;
        if (g->length > 1 && g->seq == from->next - 1) return; /* what a zero window probe began */
        kind = pt_kind_of_repetition(s, from, to, g);
    }
    g->bits |= PT_BIT(kind);
    before = pt_sent_before(&from->unacked, g->seq, next);
    if (kind == PT_OUT_OF_ORDER) return;
    g->bits |= PT_BIT(PT_RETRANSMISSION);
    g->gap = pt_since(g->time, before ? before->time : from->next_time);
    g->original = before ? before->packet >> 1 : 0;
    if (kind == PT_RETRANSMISSION && g->gap >= PT_TIMER_LEAST && !to->dup_acks)
        g->bits |= PT_BIT(PT_TIMEOUT_RETRANSMISSION);
}

/* Whether a segment of a settled session is what most are: in order, with new bytes or a new acknowledgement of what
 * was seen, and nothing that any of the rules is about. */
static inline int pt_is_ordinary(const pt_end *from, const pt_end *to, const pt_arrival *g)
{
    const uint32_t end = g->seq + g->length;
    if ((g->flags & ~PT_FLAG_PSH) != PT_FLAG_ACK || g->bits) return 0;
    if (g->seq != from->next || from->to_ack != from->next) return 0;
    if (!g->window || !to->window || to->last & PT_LAST_KIND || pt_before(to->to_ack, g->ack)) return 0;
    if (!g->length) return g->ack != from->last_ack;
    return end != to->last_ack + (to->window << (to->scale > 0 ? to->scale : 0)) && pt_before(to->last_ack, end);
}

/* What the next segments are compared with, after an ordinary one. 0: done, -1: no memory. */
static inline int pt_pass_ordinary(pt_end *from, pt_end *to, pt_arrival *g, uint64_t *all)
{
    if (g->length) {
        const uint32_t end = g->seq + g->length;
        if (PT_LIKELY(pt_unacked_count(&from->unacked) < PT_MAX_UNACKED && *all < PT_MAX_UNACKED_ALL) &&
            pt_remember(&from->unacked, g->seq, end, g->time, g->packet, 0, all))
            return -1;
        from->next = from->to_ack = end;
        from->next_time = g->time;
        from->next_packet = g->packet;
    }
    if (g->ack != from->last_ack) from->dup_acks = 0;
    from->last &= (uint8_t)(g->ack == from->last_ack ? PT_LAST_TOLD : 0);
    from->window = g->window;
    from->last_ack = g->ack;
    from->ack_time = g->time;
    if (pt_unacked_count(&to->unacked)) g->rtt = pt_acknowledge(&to->unacked, g->ack, g->time, all);
    return 0;
}

/* Whether a segment is the RST of an end that has no connection (RFC 9293 section 3.5.2): number 0 says nothing then. */
static inline int pt_is_of_nobody(const pt_end *from, const pt_arrival *g)
{
    return g->flags & PT_FLAG_RST && !g->seq && !(from->has & PT_HAS_NEXT);
}

static inline void pt_advance(pt_end *from, const pt_arrival *g, uint32_t next)
{
    if (!(from->has & PT_HAS_NEXT) || pt_before(from->next, next)) {
        from->next = next;
        from->next_packet = g->packet;
        from->next_time = g->time;
        from->has |= PT_HAS_NEXT;
    }
    if (!(from->has & PT_HAS_TO_ACK) || g->seq == from->to_ack) {
        from->to_ack = from->next;
        from->has |= PT_HAS_TO_ACK;
    }
}

/* Wireshark's bits of a segment, and what the next ones are compared with. all: unacknowledged segments of all
 * sessions. 0: done, -1: no memory. */
static inline int pt_analyse(pt_session *s, pt_arrival *g, uint64_t *all)
{
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    const int counts = g->length || g->flags & (PT_FLAG_SYN | PT_FLAG_FIN);
    uint32_t next = g->seq + g->length;
    int probe = 0;
    if (g->length == 1 && from->has & PT_HAS_NEXT && g->seq == from->next && to->window == 0) {
        g->bits |= PT_BIT(PT_ZERO_WINDOW_PROBE);
        probe = 1;
    } else {
        pt_judge_window(from, to, g);
        pt_judge_repeated_ack(from, to, g);
    }
    if (g->ack != from->last_ack) from->dup_acks = 0;
    pt_judge_ack(from, to, g);
    if (counts) {
        pt_judge_repetition(s, from, to, g);
        if (pt_unacked_count(&from->unacked) < PT_MAX_UNACKED && *all < PT_MAX_UNACKED_ALL) {
            next += g->flags & (PT_FLAG_SYN | PT_FLAG_FIN) ? 1 : 0;
            if (pt_remember(&from->unacked, g->seq, next, g->time, g->packet, (g->bits & PT_AGAIN) != 0, all))
                return -1;
        }
    }
    if (!probe && !pt_is_of_nobody(from, g)) pt_advance(from, g, next);
    from->last &= (uint8_t)(g->ack == from->last_ack ? PT_LAST_TOLD : 0);
    if (g->bits & PT_BIT(PT_KEEP_ALIVE)) from->last |= PT_LAST_KEEP_ALIVE;
    if (probe) from->last |= PT_LAST_PROBE;
    from->window = g->window;
    from->last_ack = g->ack;
    from->ack_time = g->time;
    if (!(g->flags & PT_FLAG_SYN)) from->has |= PT_PAST_SYN;
    if (pt_unacked_count(&to->unacked)) g->rtt = pt_acknowledge(&to->unacked, g->ack, g->time, all);
    return 0;
}

#endif
