/* The states of both ends of a session (RFC 9293 section 3.3.2), from what each of them was seen to send.
 *
 *     opening   SYN >      SYN_SENT     SYN_RECEIVED      closing   FIN >      FIN_WAIT_1   CLOSE_WAIT
 *               < SYN+ACK  ESTABLISHED  SYN_RECEIVED                < ACK      FIN_WAIT_2   CLOSE_WAIT
 *               ACK >      ESTABLISHED  ESTABLISHED                 < FIN+ACK  TIME_WAIT    LAST_ACK
 *                                                                   ACK >      TIME_WAIT    CLOSED
 *     both      SYN >      SYN_SENT     SYN_RECEIVED      both      FIN >      FIN_WAIT_1   CLOSE_WAIT
 *     at        < SYN      SYN_RECEIVED SYN_RECEIVED      at        < FIN      CLOSING      CLOSING
 *     once      SYN+ACK >  SYN_RECEIVED ESTABLISHED       once      ACK >      CLOSING      TIME_WAIT
 *               < SYN+ACK  ESTABLISHED  ESTABLISHED                 < ACK      TIME_WAIT    TIME_WAIT
 *
 * A RST that lies in the receiver's window closes both. An end whose SYN was not seen but that sends must have sent it.
 */
#ifndef PT_SESSION_STATES_H
#define PT_SESSION_STATES_H

#include "session.h"

/* The state of an end, `mine` and `other` being what happened to it and to its peer. */
static inline int pt_closing_state(uint8_t mine, uint8_t other)
{
    if (!(mine & PT_IS_FIN)) return PT_CLOSE_WAIT;
    if (!(other & PT_IS_FIN)) return mine & PT_IS_FIN_ACKED ? PT_FIN_WAIT_2 : PT_FIN_WAIT_1;
    if (mine & PT_IS_PASSIVE) return mine & PT_IS_FIN_ACKED ? PT_CLOSED : PT_LAST_ACK;
    return mine & PT_IS_FIN_ACKED ? PT_TIME_WAIT : PT_CLOSING;
}

static inline int pt_end_state(const pt_session *s, int way)
{
    const uint8_t mine = s->end[way].is, other = s->end[!way].is;
    if (s->reset) return PT_CLOSED;
    if ((mine | other) & PT_IS_FIN) return pt_closing_state(mine, other);
    if (mine & PT_IS_SYN_ACKED) return PT_ESTABLISHED;
    if (other & PT_IS_SYN) return other & PT_IS_SYN_ACKED && !(mine & PT_IS_SYN) ? PT_ESTABLISHED : PT_SYN_RECEIVED;
    return mine & PT_IS_SYN ? PT_SYN_SENT : PT_ESTABLISHED;
}

/* Of a session that is closed, everything begins anew: the same SYN comes again. */
static inline void pt_reopen(pt_session *s)
{
    const uint8_t forgotten = PT_IS_SYN | PT_IS_SYN_ACKED | PT_IS_FIN | PT_IS_FIN_ACKED | PT_IS_PASSIVE;
    s->reset = s->closed = 0;
    s->end[0].is &= (uint8_t)~forgotten;
    s->end[1].is &= (uint8_t)~forgotten;
}

/* RFC 9293 section 3.5.3: a RST must lie in its receiver's window, or acknowledge its SYN. */
static inline int pt_rst_is_acceptable(const pt_session *s, const pt_arrival *g)
{
    const pt_end *to = &s->end[!g->way];
    uint32_t window;
    if (!(to->has & PT_HAS_ACK)) return !(to->has & PT_HAS_ISN) || !(g->flags & PT_FLAG_ACK) || g->ack == to->next;
    window = to->scale > 0 ? to->window << to->scale : to->window;
    if (to->scale == PT_UNKNOWN_SCALE) window = (window + 1) << 14;
    return g->seq - to->last_ack <= window;
}

static inline void pt_follow_rst(pt_session *s, pt_arrival *g)
{
    const pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    int kind = PT_RST_PLAIN;
    if (g->length) g->bits |= PT_BIT(PT_RST_WITH_DATA);
    if (!pt_rst_is_acceptable(s, g)) {
        g->bits |= PT_BIT(PT_RST_IGNORED);
        return;
    }
    if ((from->is | to->is) & PT_IS_FIN) {
        kind = PT_AFTER_FIN;
        g->bits |= PT_BIT(PT_RST_AFTER_FIN);
    } else if (to->is & PT_IS_SYN && !(from->is & PT_IS_SYN)) {
        kind = PT_REFUSED;
        g->bits |= PT_BIT(PT_RST_REFUSED);
    } else if (from->payload | to->payload) {
        kind = PT_AFTER_DATA;
        g->bits |= PT_BIT(PT_RST_AFTER_DATA);
    }
    if (!s->rst_kind) {
        s->rst_kind = (uint8_t)kind;
        s->rst_by = g->way;
        s->rst_packet = g->packet;
        s->rst_time = g->time;
    }
    s->reset = 1;
}

static inline void pt_follow_syn(pt_session *s, pt_arrival *g)
{
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    if (s->closed && !(g->flags & PT_FLAG_ACK)) pt_reopen(s);
    if (from->is & PT_IS_SYN && from->has & PT_HAS_ISN && from->isn == g->seq) g->bits |= PT_BIT(PT_SYN_RETRANSMISSION);
    from->is |= PT_IS_SYN;
    from->isn = g->seq;
    from->has |= PT_HAS_ISN;
    if (g->flags & PT_FLAG_ACK) {
        from->is |= PT_SAW_SYN_ACK;
        if (!(to->is & PT_IS_SYN)) {
            to->is |= PT_IS_SYN;
            to->isn = g->ack - 1;
        }
        if (s->syn_time < 0 && to->is & PT_SAW_SYN) s->syn_time = pt_since(g->time, s->last_syn);
        if (g->length) g->bits |= PT_BIT(PT_FAST_OPEN);
        return;
    }
    if (!(from->is & PT_SAW_SYN)) {
        if (to->is & PT_SAW_SYN) s->simultaneous |= PT_SEEN_BOTH_OPEN;
        else s->first_syn = g->time;
    }
    from->is |= PT_SAW_SYN;
    if (!(s->simultaneous & PT_SEEN_BOTH_OPEN)) s->last_syn = g->time;
    if (g->length) g->bits |= PT_BIT(PT_FAST_OPEN);
}

/* What an acknowledgement says of the other end. */
static inline void pt_follow_ack(pt_session *s, const pt_arrival *g)
{
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    if ((to->is & (PT_IS_SYN | PT_IS_SYN_ACKED)) == PT_IS_SYN && pt_before(to->isn, g->ack)) {
        to->is |= PT_IS_SYN_ACKED;
        if (!(g->flags & PT_FLAG_SYN) && s->handshake < 0 && to->is & PT_SAW_SYN_ACK && from->is & PT_SAW_SYN)
            s->handshake = pt_since(g->time, s->first_syn);
    }
    if ((to->is & (PT_IS_FIN | PT_IS_FIN_ACKED)) == PT_IS_FIN && pt_before(to->fin_seq, g->ack))
        to->is |= PT_IS_FIN_ACKED;
}

static inline void pt_follow_fin(pt_session *s, pt_arrival *g)
{
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    const uint32_t seq = g->seq + g->length;
    if (from->is & PT_IS_FIN) {
        if (from->fin_seq == seq) g->bits |= PT_BIT(PT_FIN_RETRANSMISSION);
        return;
    }
    from->is |= PT_IS_FIN;
    from->fin_seq = seq;
    if (to->is & PT_IS_FIN) {
        if (to->is & PT_IS_FIN_ACKED) from->is |= PT_IS_PASSIVE;
        else s->simultaneous |= PT_SEEN_BOTH_CLOSE;
    } else if (s->ended_by < 0) {
        s->ended_by = (int8_t)g->way;
    }
}

/* Advance the states of both ends by a segment. */
static inline void pt_follow(pt_session *s, pt_arrival *g)
{
    const uint8_t both = PT_IS_FIN | PT_IS_FIN_ACKED;
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    if (s->closed) g->bits |= PT_BIT(PT_AFTER_CLOSE);
    if (g->flags & PT_FLAG_RST) {
        if (!s->closed) pt_follow_rst(s, g);
        else if (s->closed == PT_BY_FIN) g->bits |= PT_BIT(PT_RST_AFTER_FIN);
    } else {
        if (g->flags & PT_FLAG_SYN) {
            pt_follow_syn(s, g);
        } else if (to->is & PT_IS_SYN && !(from->is & PT_IS_SYN)) {
            from->is |= PT_IS_SYN | PT_IS_SYN_ACKED; /* its SYN was not captured */
            from->isn = g->seq - 1;
        }
        if (g->flags & PT_FLAG_ACK) pt_follow_ack(s, g);
        if (g->flags & PT_FLAG_FIN) pt_follow_fin(s, g);
    }
    if (s->closed) return;
    if (s->reset) {
        s->closed = PT_BY_RST;
        s->ended_by = (int8_t)s->rst_by;
    } else if ((from->is & to->is & both) == both) {
        s->closed = PT_BY_FIN;
    }
}

#endif
