/* A mix of traffic: flows of heavy-tailed sizes, TCP with what goes wrong on it, HTTP, DNS, UDP.
 *
 * How many packets a flow has is drawn when it begins, from what is left for all flows to come; so the number of
 * packets and of flows come out exactly, and nothing is remembered but the flows that are going on. These live in a
 * table of PT_ACTIVE slots with a heap of when each one's next packet is due; when it is full, the next flow waits.
 *
 * What is counted is what was made so, and what an analyser finds: a retransmission is a segment sent again, with
 * nothing sent since, after a timeout (RFC 6298); out of order is a segment sent behind its successor at once. */
#ifndef PT_MIX_H
#define PT_MIX_H

#include "traffic.h"

/* ---- what a flow does next -------------------------------------------------------------------------------- */

/* How long an answer of so many packets is: question, perhaps its acknowledgement, segments with an acknowledgement for
 * every two, retransmissions; the bytes follow. */
static inline void pt_plan_answer(pt_mix *m, pt_talk *f, uint32_t packets)
{
    pt_random *r = &m->maker.random;
    uint64_t expected = (packets - 1) * 2 / 3 * m->loss;
    uint32_t resend = (uint32_t)(expected >> 32) + pt_happens(r, expected & 0xffffffff), rest;
    while (resend && (resend + PT_EXCHANGE_LEAST > packets || resend > (packets - resend - 1) / 3)) resend--;
    rest = packets - resend - 1;
    f->resend = resend;
    f->segments = rest / 3 * 2 + (rest % 3 == 2);
    f->heard = rest % 3 == 1;
    f->sent = 0;
    f->head = 0;
    f->tail = PT_TAIL_LEAST + pt_below(r, f->mss - PT_TAIL_LEAST + 1);
    if (f->pair.kind == PT_KIND_HTTP) {
        uint8_t head[PT_HTTP_ROOM];
        uint32_t others = (f->segments - 1) * f->mss, least = f->segments == 1 ? PT_HTTP_ROOM : PT_TAIL_LEAST;
        f->tail = least + pt_below(r, f->mss - least - 8);
        f->exists = (uint8_t)(f->segments > 1 || !pt_happens(r, PT_SHARE(8)));
        f->head = (uint16_t)pt_http_response(head, 0, f->exists);
        f->body = others + f->tail - f->head;
        f->head = (uint16_t)pt_http_response(head, f->body, f->exists);
        f->tail = f->head + f->body - others;
    }
}

/* The next question and answer, or the end of the connection. Returns how long the hosts think about it, ns. */
static inline uint32_t pt_plan_exchange(pt_mix *m, pt_talk *f)
{
    pt_random *r = &m->maker.random;
    uint64_t room = f->left - f->closing, wish;
    if (!room) {
        f->stage = f->closing == 1 ? PT_STAGE_RESET : PT_STAGE_FIN;
        f->asker = (uint8_t)pt_below(r, 2);
        return f->rtt;
    }
    wish = PT_EXCHANGE_LEAST + (pt_pareto(r, (uint64_t)3 << 16) >> 16);
    if (wish > PT_EXCHANGE) wish = PT_EXCHANGE;
    if (wish + PT_EXCHANGE_LEAST > room) wish = room;
    f->key = pt_next(r);
    f->asker = f->pair.kind == PT_KIND_TCP && pt_happens(r, PT_SHARE(25));
    pt_plan_answer(m, f, (uint32_t)wish);
    f->stage = PT_STAGE_QUESTION;
    return f->rtt / 2 << pt_below(r, 5);
}

/* Segments go in twos, each two acknowledged together. The first of them, or the only one; or the second before it. */
static inline int pt_step_answer(pt_mix *m, pt_talk *f, uint32_t *gap)
{
    const uint32_t left = f->segments - f->sent, twos = (left + 1) / 2;
    f->again = f->resend && pt_below(&m->maker.random, twos) < f->resend;
    f->resend -= f->again;
    f->swapped = left > 1 && !f->again && pt_happens(&m->maker.random, m->reorder);
    m->counts.out_of_order += f->swapped;
    f->stage = left > 1 ? PT_STAGE_SECOND : f->again ? PT_STAGE_AGAIN : PT_STAGE_TAKEN;
    *gap = f->stage == PT_STAGE_AGAIN ? 200 * PT_MS + 2 * f->rtt : f->swapped ? f->rtt / 64 : f->rtt / 16;
    return pt_flow_answer(m, f, f->sent + f->swapped);
}

static inline int pt_step_second(pt_mix *m, pt_talk *f, uint32_t *gap)
{
    f->stage = f->again ? PT_STAGE_AGAIN : PT_STAGE_TAKEN;
    *gap = f->again ? 200 * PT_MS + 2 * f->rtt : f->rtt / 32;
    return pt_flow_answer(m, f, f->sent + !f->swapped);
}

static inline int pt_step_again(pt_mix *m, pt_talk *f, uint32_t *gap)
{
    uint32_t last = f->sent + 1 < f->segments ? f->sent + 1 : f->sent;
    m->counts.retransmissions++;
    f->stage = PT_STAGE_TAKEN;
    *gap = f->rtt / 2;
    return pt_flow_answer(m, f, last);
}

/* Acknowledge one or two segments. */
static inline int pt_step_taken(pt_mix *m, pt_talk *f, uint32_t *gap)
{
    uint32_t next = f->sent + 2 < f->segments ? f->sent + 2 : f->segments;
    int verdict;
    f->sent = next;
    f->seq[!f->asker] = f->answer + (next < f->segments ? next * f->mss : (next - 1) * f->mss + f->tail);
    verdict = pt_flow_control(m, f, f->asker, PT_ACK);
    f->stage = PT_STAGE_ANSWER;
    *gap = f->rtt / 16;
    if (next < f->segments) return verdict;
    m->counts.http_responses += f->pair.kind == PT_KIND_HTTP;
    *gap = pt_plan_exchange(m, f);
    return verdict;
}

static inline int pt_step_syn(pt_mix *m, pt_talk *f, uint32_t *gap)
{
    if (f->pair.kind == PT_KIND_UNANSWERED) {
        if (f->left + 1 < f->packets) {
            f->seq[0]--; /* the same one again */
            m->counts.syn_retransmissions++;
        }
        *gap = 1000 * PT_MS;
    } else {
        f->stage = f->pair.kind == PT_KIND_REFUSED ? PT_STAGE_REFUSE : PT_STAGE_SYN_ACK;
        *gap = f->rtt;
    }
    return pt_flow_control(m, f, 0, PT_SYN);
}

/* A segment without payload, and what follows it after so long. */
static inline int pt_step_control(pt_mix *m, pt_talk *f, int side, uint8_t flags, uint8_t stage)
{
    f->stage = stage;
    return pt_flow_control(m, f, side, flags);
}

/* Send the flow's next packet; `left` no longer counts it. *gap: ns to the one after it. 0: done, -1: no memory. */
static inline int pt_step(pt_mix *m, pt_talk *f, uint32_t *gap)
{
    int verdict;
    *gap = f->rtt;
    switch (f->stage) {
    case PT_STAGE_SYN: return pt_step_syn(m, f, gap);
    case PT_STAGE_REFUSE: return pt_flow_control(m, f, 1, PT_RST | PT_ACK);
    case PT_STAGE_SYN_ACK:
        *gap = f->rtt / 16;
        return pt_step_control(m, f, 1, PT_SYN | PT_ACK, PT_STAGE_ACK);
    case PT_STAGE_ACK:
        verdict = pt_flow_control(m, f, 0, PT_ACK);
        *gap = pt_plan_exchange(m, f) / 8;
        return verdict;
    case PT_STAGE_QUESTION:
        verdict = pt_flow_question(m, f);
        f->answer = f->seq[!f->asker];
        f->stage = f->heard ? PT_STAGE_HEARD : PT_STAGE_ANSWER;
        return verdict;
    case PT_STAGE_HEARD:
        *gap = f->rtt / 8;
        return pt_step_control(m, f, !f->asker, PT_ACK, PT_STAGE_ANSWER);
    case PT_STAGE_ANSWER: return pt_step_answer(m, f, gap);
    case PT_STAGE_SECOND: return pt_step_second(m, f, gap);
    case PT_STAGE_AGAIN: return pt_step_again(m, f, gap);
    case PT_STAGE_TAKEN: return pt_step_taken(m, f, gap);
    case PT_STAGE_RESET: return pt_flow_control(m, f, f->asker, PT_RST | PT_ACK);
    case PT_STAGE_FIN: return pt_step_control(m, f, f->asker, PT_FIN | PT_ACK, PT_STAGE_FIN_BACK);
    case PT_STAGE_FIN_BACK:
        *gap = f->rtt / 16;
        return pt_step_control(m, f, !f->asker, PT_FIN | PT_ACK, PT_STAGE_LAST_ACK);
    case PT_STAGE_LAST_ACK: return pt_flow_control(m, f, f->asker, PT_ACK);
    case PT_STAGE_DNS: return pt_flow_dns(m, f, (f->packets - f->left - 1) & 1);
    default:
        *gap = f->rtt / 2;
        return pt_flow_text(m, f, f->left + 1 < f->packets && pt_below(&m->maker.random, 3) == 0);
    }
}

/* ---- flows begin and end ---------------------------------------------------------------------------------- */

/* Packets of the next flow: from what is left, so that all flows get at least one and together all packets. */
static inline uint64_t pt_plan_packets(pt_mix *m)
{
    pt_random *r = &m->maker.random;
    uint64_t flows = m->flows - m->begun, packets = m->packets - m->assigned, mean, wish, most;
    if (flows == 1) return packets;
    if (pt_happens(r, PT_SHARE(45))) { /* a question and its answer, or an attempt */
        uint32_t chance = pt_below(r, 20);
        return chance < 4 || packets == flows ? 1 : chance < 18 || packets - flows < 2 ? 2 : 3;
    }
    mean = (uint64_t)(((unsigned __int128)packets << 16) / flows);
    wish = mean > 65536 * 2 ? (mean - 65536 * 86 / 100) / 11 * 20 : mean; /* 55 % of the flows share the others' rest */
    wish = (pt_pareto(r, wish / 4 + wish / 64) + pt_below(r, 65536)) >> 16;
    most = packets / 16 > 2 * (mean >> 16) ? packets / 16 : 2 * (mean >> 16);
    if (wish > most) wish = most;
    if (wish > packets - flows + 1) wish = packets - flows + 1;
    return wish ? wish : 1;
}

/* What a flow of so many packets can be. */
static inline uint8_t pt_plan_kind(pt_mix *m, uint64_t packets, int64_t time)
{
    pt_random *r = &m->maker.random;
    const uint32_t chance = pt_below(r, 100);
    const uint8_t tcp = pt_happens(r, PT_SHARE(65)) ? PT_KIND_HTTP : PT_KIND_TCP;
    if (packets == 1) return chance < 50 ? PT_KIND_UNANSWERED : PT_KIND_UDP;
    if (packets == 2) return chance < 80 ? PT_KIND_DNS : chance < 90 ? PT_KIND_REFUSED : PT_KIND_UDP;
    if (packets >= 9) return chance < 85 ? tcp : PT_KIND_UDP;
    if (packets <= 4 && chance < 30 && time / (int64_t)packets > 10 * PT_MS && m->scale > 1 << 10)
        return PT_KIND_UNANSWERED;
    if (packets % 2 == 0 && chance < 40) return PT_KIND_DNS;
    if (packets == 4 || packets >= 6) return chance < 75 ? tcp : PT_KIND_UDP;
    return PT_KIND_UDP;
}

/* Addresses and ports that no flow before had. */
static inline void pt_plan_pair(pt_mix *m, pt_pair *pair)
{
    pt_random *r = &m->maker.random;
    const uint64_t number = m->tuples++, round = number / m->clients;
    const uint32_t client = (uint32_t)(number * 0x9e3779b1u + round * 0x85ebca77u) & (m->clients - 1);
    const uint64_t server = 256 + (pt_pareto(r, 1 << 16) >> 16);
    pair->host[0] = (client + PT_FIRST_CLIENT) & ((1u << PT_CLIENT_BITS) - 1);
    pair->port[0] = (uint16_t)(PT_FIRST_PORT + ((round + pt_scrambled(client)) & (PT_PORTS - 1)));
    pair->host[1] = server > 0xffff ? 0xffff : (uint32_t)server;
    pair->port[1] = (uint16_t)(33101 + (server & 15));
    pair->v6 = (uint8_t)pt_happens(r, m->ipv6_share);
    pair->vlan = pt_happens(r, m->vlan_share) ? (uint16_t)(PT_FIRST_VLAN + pt_below(r, PT_VLANS)) : 0;
    if (pair->kind == PT_KIND_HTTP) pair->port[1] = server & 3 ? 80 : 8080;
    if (pair->kind == PT_KIND_DNS) {
        pair->host[1] = 1 + (uint32_t)(server & 3);
        pair->port[1] = 53;
    }
}

/* A pair of an earlier connection of that kind; 0: there is none. */
static inline int pt_plan_reuse(pt_mix *m, pt_pair *pair)
{
    uint32_t at;
    if (!m->closed_n || !pt_happens(&m->maker.random, PT_SHARE(2))) return 0;
    at = pt_below(&m->maker.random, m->closed_n);
    if (m->closed[at].kind != pair->kind) return 0;
    *pair = m->closed[at];
    m->closed[at] = m->closed[--m->closed_n];
    m->counts.reused++;
    return 1;
}

static inline void pt_flow_open(pt_mix *m, pt_talk *f, int64_t now)
{
    pt_random *r = &m->maker.random;
    memset(f, 0, sizeof *f);
    f->number = m->begun;
    f->packets = f->left = pt_plan_packets(m);
    m->begun = f->number + 1;
    m->assigned += f->packets;
    f->begun = now;
    f->pair.kind = pt_plan_kind(m, f->packets, m->duration - now);
    if (f->pair.kind > PT_KIND_HTTP || !pt_plan_reuse(m, &f->pair)) pt_plan_pair(m, &f->pair);
    f->sum = pt_pair_sum(&f->pair, f->pair.kind < PT_KIND_DNS ? PT_TCP : PT_UDP);
    f->rtt = pt_around(r, 4 * PT_MS << pt_below(r, 6));
    f->key = pt_next(r);
    for (int side = 0; side < 2; side++) {
        uint64_t random = pt_next(r);
        f->seq[side] = (uint32_t)random;
        f->ident[side] = (uint16_t)(random >> 32);
    }
    f->mss = (uint16_t)(PT_MTU - 20 - (f->pair.v6 ? 40 : 20));
    f->closing = f->packets == 6 || (f->packets >= 9 && !pt_happens(r, PT_SHARE(8))) ? 3 : 1;
    f->stage = f->pair.kind == PT_KIND_DNS ? PT_STAGE_DNS : f->pair.kind == PT_KIND_UDP ? PT_STAGE_UDP : PT_STAGE_SYN;
    m->counts.flows[f->pair.kind]++;
    m->counts.ipv6_flows += f->pair.v6;
    m->counts.vlan_flows += f->pair.vlan != 0;
    for (int k = 0; k < PT_SIZE_CLASSES; k++) {
        if (f->packets >> k > 1) continue;
        m->counts.classes[k]++;
        break;
    }
}

/* Remember the largest flows, in order of size, and pairs of connections that may come again. */
static inline void pt_flow_close(pt_mix *m, const pt_talk *f)
{
    uint32_t at = m->largest_n;
    if (f->pair.kind <= PT_KIND_HTTP) {
        if (m->closed_n < PT_CLOSED) m->closed[m->closed_n++] = f->pair;
        else m->closed[f->number % PT_CLOSED] = f->pair;
    }
    if (at == PT_LARGEST && m->largest[at - 1].packets >= f->packets) return;
    if (at < PT_LARGEST) m->largest_n++;
    else at--;
    for (; at && m->largest[at - 1].packets < f->packets; at--) m->largest[at] = m->largest[at - 1];
    m->largest[at] = (pt_large){f->pair, f->packets, f->bytes, f->begun, m->now};
}

/* When flow `number` begins: evenly spread over nearly all of the time, with jitter. */
static inline int64_t pt_mix_arrival(pt_mix *m, uint64_t number)
{
    const int64_t span = m->duration - m->duration / 64;
    int64_t even = (int64_t)((unsigned __int128)span * number / m->flows), between = span / (int64_t)m->flows;
    if (!number) return 0;
    return even + (int64_t)((unsigned __int128)between * (pt_next(&m->maker.random) >> 32) >> 32);
}

/* Begin the next flow. */
static inline void pt_mix_begin_flow(pt_mix *m)
{
    uint32_t slot = m->slot[m->active++];
    int64_t now = m->arrival > m->now ? m->arrival : m->now;
    pt_flow_open(m, &m->flow[slot], now);
    pt_heap_rise(m->heap, m->active, (pt_turn){now, slot});
    if (m->begun < m->flows) m->arrival = pt_mix_arrival(m, m->begun);
}

/* Make the packet that is due first. 0: done, -1: no memory. */
static inline int pt_mix_packet(pt_mix *m)
{
    pt_turn due = m->heap[0];
    pt_talk *f = &m->flow[due.slot];
    uint32_t gap;
    int64_t wait, room;
    m->now = due.due > m->now ? due.due : m->now;
    if (m->counts.packets + 1 == m->packets) m->now = m->duration;
    f->left--;
    if (pt_step(m, f, &gap)) return -1;
    if (!f->left) {
        pt_flow_close(m, f);
        m->slot[--m->active] = due.slot;
        if (m->active) pt_heap_sink(m->heap, m->active, m->heap[m->active]);
        return 0;
    }
    wait = (int64_t)((uint64_t)pt_around(&m->maker.random, gap) * m->scale >> 16);
    room = (m->duration - m->now) / (int64_t)f->left;
    due.due = m->now + (wait < room ? wait : room);
    pt_heap_sink(m->heap, m->active, due);
    return 0;
}

/* Set what follows from what is wanted (maker, link, flows, packets, duration, shares). Gaps shrink where more flows
 * would go on at a time than the table holds. */
static inline void pt_mix_begin(pt_mix *m, uint64_t seed)
{
    const uint64_t mean = m->packets / m->flows, life = (uint64_t)(6 + mean / 2) * 40 * PT_MS;
    unsigned __int128 scale = ((unsigned __int128)(uint64_t)m->duration * (PT_ACTIVE / 2) << 16) / life / m->flows;
    m->scale = scale > 1 << 16 ? 1 << 16 : (uint32_t)scale;
    pt_seed(&m->maker.random, seed);
    pt_pool_fill(&m->pool, &m->maker.random);
    m->clients = 16;
    while (m->clients < m->flows / PT_CLIENT_FLOWS && m->clients < 1u << PT_CLIENT_BITS) m->clients *= 2;
    for (uint32_t k = 0; k < PT_ACTIVE; k++) m->slot[k] = k;
}

/* Fill the batch. 0: done (nothing is left when it holds no record), -1: no memory. */
static inline int pt_mix_fill(pt_mix *m, pt_batch *b)
{
    pt_make_begin(&m->maker, b);
    m->batch = b;
    while (m->counts.packets < m->packets && pt_make_room(b)) {
        if (m->begun < m->flows && m->active < PT_ACTIVE && (!m->active || m->arrival <= m->heap[0].due))
            pt_mix_begin_flow(m);
        else if (pt_mix_packet(m))
            return -1;
    }
    return 0;
}

#endif
