/* The sessions: found by their key, waiting in queues for their end, handed out, and used again.
 *
 * A queue is in the order in which its sessions were last looked at, so that a packet costs it nothing: who was active
 * since goes behind the others when its turn comes (second chance). */
#ifndef PT_SESSION_TABLE_H
#define PT_SESSION_TABLE_H

#include <sys/mman.h>

#include "session_figures.h"
#include "session_heads.h"
#include "session_hush.h"

enum { PT_SESSION_CHUNK = 4096, PT_HUGE_PAGE = 1 << 21 };

/* Rows that are kept, each without the unused part of its options; page[start..used). */
typedef struct pt_page {
    struct pt_page *following;
    uint32_t start, used, room;
    uint8_t bytes[];
} pt_page;

/* Which sessions are handed out: engines.sessions has the words. */
typedef struct {
    uint64_t bits;
    int64_t connect, delay, retransmit, handshake, rtt;
    uint8_t incomplete, no_reply, rst, everything;
} pt_choice;

typedef struct {
    uint64_t sessions, complete, one_sided, chosen, reason[PT_REASONS];
    uint64_t packets, bytes, payload, unique, repeated, missing, rows_dropped, notes_dropped;
    uint64_t segments[PT_ANALYSIS_BITS], with[PT_ANALYSIS_BITS];
} pt_totals;

typedef struct {
    uint32_t head, tail;
} pt_queue;

/* A datagram whose first fragment was seen: what its later fragments continue. */
typedef struct {
    pt_flow_key key;
    int64_t time;
    uint32_t seq, ack, slot, id; /* seq: of the byte at offset 0; id: of the session */
    uint16_t window;
    uint8_t way, fin, used;
} pt_cut_segment;

enum { PT_CUT_SEGMENTS = 1024 };

typedef struct {
    pt_session **chunk;
    pt_slot *slot;
    uint32_t slots, used, chunks, made, free, live, next_id;
    uint32_t unhanded; /* the first ended session that was not handed out; PT_NONE: there is none */
    uint64_t seed, unacked;
    pt_queue queue[PT_QUEUES], ended;
    int64_t limit[PT_QUEUES];  /* ns of idleness, 0: none */
    uint32_t sessions, segments, notes;
    uint64_t held, held_rows;
    int64_t latest;
    uint64_t packet;
    uint64_t tcp, fragments, not_tcp, malformed, truncated, bad_checksum, filtered;
    uint8_t keep, rows, heads, checksum, payload_rows, chooses, began;
    uint64_t heads_held;       /* bytes of payload kept */
    const uint8_t *bytes;      /* of the batch */
    pt_choice choice;
    pt_hush *hush;             /* PT_HUSHED of them, by their hash; NULL: nothing is hushed */
    uint32_t hushed;           /* how many are in use */
    pt_totals totals;
    pt_segment *row;
    uint32_t row_count, row_room;
    pt_cut_segment *cut;       /* PT_CUT_SEGMENTS of them, by the hash of their key */
} pt_tracker;

static inline pt_session *pt_session_at(const pt_tracker *t, uint32_t slot)
{
    return &t->chunk[slot / PT_SESSION_CHUNK][slot % PT_SESSION_CHUNK];
}

/* ---- found by key -------------------------------------------------------------------------------------------- */

static inline uint32_t pt_find_session(const pt_tracker *t, const pt_flow_key *key, uint32_t hash)
{
    uint32_t at = hash & (t->slots - 1);
    if (!t->slots) return PT_NONE;
    for (; t->slot[at].row; at = (at + 1) & (t->slots - 1)) {
        if (t->slot[at].hash == hash && pt_same_key(&pt_session_at(t, t->slot[at].row - 1)->key, key, sizeof *key))
            return t->slot[at].row - 1;
    }
    return PT_NONE;
}

static inline int pt_enter_session(pt_tracker *t, uint32_t slot, uint32_t hash)
{
    uint32_t at;
    if (t->used + 1 > t->slots / 2 && pt_more_slots(&t->slot, &t->slots)) return -1;
    at = hash & (t->slots - 1);
    while (t->slot[at].row) at = (at + 1) & (t->slots - 1);
    t->slot[at].hash = hash;
    t->slot[at].row = slot + 1;
    t->used++;
    return 0;
}

/* Take a session out; those behind it that it had pushed on move up. */
static inline void pt_leave_session(pt_tracker *t, uint32_t slot, uint32_t hash)
{
    const uint32_t mask = t->slots - 1;
    uint32_t at = hash & mask, next;
    while (t->slot[at].row != slot + 1) at = (at + 1) & mask;
    for (next = (at + 1) & mask; t->slot[next].row; next = (next + 1) & mask) {
        if (((next - t->slot[next].hash) & mask) >= ((next - at) & mask)) {
            t->slot[at] = t->slot[next];
            at = next;
        }
    }
    t->slot[at].row = 0;
    t->used--;
}

/* ---- queues -------------------------------------------------------------------------------------------------- */

static inline void pt_append(pt_tracker *t, pt_queue *q, uint32_t slot)
{
    pt_session *s = pt_session_at(t, slot);
    s->previous = q->tail;
    s->following = PT_NONE;
    if (q->tail == PT_NONE) q->head = slot;
    else pt_session_at(t, q->tail)->following = slot;
    q->tail = slot;
}

static inline void pt_unlink(pt_tracker *t, pt_queue *q, uint32_t slot)
{
    const pt_session *s = pt_session_at(t, slot);
    if (s->previous == PT_NONE) q->head = s->following;
    else pt_session_at(t, s->previous)->following = s->following;
    if (s->following == PT_NONE) q->tail = s->previous;
    else pt_session_at(t, s->following)->previous = s->previous;
}

static inline void pt_requeue(pt_tracker *t, uint32_t slot, int queue, int64_t stamp)
{
    pt_session *s = pt_session_at(t, slot);
    pt_unlink(t, &t->queue[s->queue], slot);
    s->queue = (uint8_t)queue;
    s->stamp = stamp;
    pt_append(t, &t->queue[queue], slot);
}

/* ---- rows that are kept -------------------------------------------------------------------------------------- */

#define PT_KEPT_HEAD offsetof(pt_segment, options)

static inline uint32_t pt_kept_size(const uint8_t *row)
{
    return (uint32_t)((PT_KEPT_HEAD + row[PT_KEPT_HEAD - 1] + 7) & ~(size_t)7);
}

static inline void pt_drop_oldest_row(pt_tracker *t, pt_session *s)
{
    pt_page *page = s->oldest;
    if (!page) return;
    page->start += pt_kept_size(page->bytes + page->start);
    s->rows--;
    s->rows_dropped++;
    t->held_rows--;
    if (page->start < page->used) return;
    s->oldest = page->following;
    if (!s->oldest) s->newest = NULL;
    free(page);
}

static inline void pt_drop_rows(pt_tracker *t, pt_session *s)
{
    t->held_rows -= s->rows;
    s->rows_dropped += s->rows;
    s->rows = 0;
    while (s->oldest) {
        pt_page *page = s->oldest;
        s->oldest = page->following;
        free(page);
    }
    s->newest = NULL;
}

/* 0: done, -1: no memory. */
static inline int pt_keep_row(pt_tracker *t, pt_session *s, const pt_segment *row)
{
    const uint32_t size = pt_kept_size((const uint8_t *)row);
    pt_page *page = s->newest;
    if (!page || page->room - page->used < size) {
        const uint32_t room = !page ? 640 - sizeof *page : 4096 - sizeof *page;
        page = malloc(sizeof *page + room);
        if (!page) return -1;
        page->following = NULL;
        page->start = page->used = 0;
        page->room = room;
        if (s->newest) s->newest->following = page;
        else s->oldest = page;
        s->newest = page;
    }
    memcpy(page->bytes + page->used, row, PT_KEPT_HEAD + row->options_length);
    page->used += size;
    s->rows++;
    t->held_rows++;
    if ((t->segments && s->rows > t->segments) || (t->held && t->held_rows > t->held)) pt_drop_oldest_row(t, s);
    return 0;
}

/* All rows of a session, one behind the other. */
static inline void pt_kept_rows(const pt_session *s, pt_segment *out)
{
    for (const pt_page *page = s->oldest; page; page = page->following) {
        for (uint32_t at = page->start; at < page->used; at += pt_kept_size(page->bytes + at), out++) {
            memcpy(out, page->bytes + at, PT_KEPT_HEAD);
            memset(out->options, 0, sizeof out->options);
            memcpy(out->options, page->bytes + at + PT_KEPT_HEAD, out->options_length);
        }
    }
}

/* ---- beginning and end --------------------------------------------------------------------------------------- */

static inline void pt_free_ends(pt_tracker *t, pt_session *s)
{
    for (int way = 0; way < 2; way++) {
        pt_end *e = &s->end[way];
        t->unacked -= pt_unacked_count(&e->unacked);
        free(e->unacked.of);
        memset(&e->unacked, 0, sizeof e->unacked);
    }
}

static inline void pt_free_session(pt_tracker *t, uint32_t slot)
{
    pt_session *s = pt_session_at(t, slot);
    pt_free_ends(t, s);
    for (int way = 0; way < 2; way++) {
        free(s->end[way].holes);
        free(s->end[way].rtt.of.sample);
    }
    free(s->note);
    free(s->count);
    pt_drop_rows(t, s);
    pt_drop_heads(s, &t->heads_held);
    s->queue = PT_FREE;
    s->following = t->free;
    t->free = slot;
}

static inline int pt_one_sided(const pt_session *s) { return !s->end[0].packets || !s->end[1].packets; }

static inline int pt_is_complete(const pt_session *s) { return s->start == PT_BEGAN_SYN && s->closed; }

static inline int pt_rtt_reaches(const pt_session *s, int64_t ns)
{
    return (s->end[0].rtt.n && s->end[0].rtt.max >= ns) || (s->end[1].rtt.n && s->end[1].rtt.max >= ns);
}

static inline int pt_is_chosen(const pt_tracker *t, const pt_session *s)
{
    const pt_choice *c = &t->choice;
    if (!t->chooses || c->everything) return 1;
    return (s->bits & c->bits) != 0 || (c->incomplete && !pt_is_complete(s)) ||
           (c->no_reply && pt_one_sided(s)) || (c->connect && pt_since(s->last, s->first) > c->connect) ||
           (c->delay && s->delta_max > c->delay) || (c->retransmit && s->gap_max >= c->retransmit) ||
           (c->handshake && s->handshake >= c->handshake) || (c->rtt && pt_rtt_reaches(s, c->rtt)) ||
           (c->rst && s->rst_kind && (c->rst > 1 || s->rst_kind != PT_AFTER_FIN));
}

static inline void pt_add_to_totals(pt_totals *a, const pt_session *s)
{
    a->sessions++;
    a->reason[s->closed ? s->closed : s->reason]++;
    a->complete += (uint64_t)pt_is_complete(s);
    a->one_sided += (uint64_t)pt_one_sided(s);
    a->notes_dropped += s->notes_dropped;
    for (int way = 0; way < 2; way++) {
        const pt_end *e = &s->end[way];
        a->packets += e->packets;
        a->bytes += e->bytes;
        a->payload += e->payload;
        a->unique += e->unique;
        a->repeated += e->repeated;
        a->missing += e->missing;
    }
    if (!s->count) return;
    for (int k = 0; k < PT_ANALYSIS_BITS; k++) {
        a->segments[k] += s->count[0][k] + s->count[1][k];
        a->with[k] += s->bits >> k & 1;
    }
}

/* All that the words for a choice depend on. */
static inline uint64_t pt_kind_of(const pt_tracker *t, const pt_session *s)
{
    const pt_choice *c = &t->choice;
    const uint32_t *to = s->count ? s->count[0] : NULL, *fro = s->count ? s->count[1] : NULL;
    const uint32_t again = to ? to[PT_RETRANSMISSION] + fro[PT_RETRANSMISSION] : 0;
    const uint32_t syns = to ? to[PT_SYN_RETRANSMISSION] + fro[PT_SYN_RETRANSMISSION] : 0;
    const uint64_t flags[] = {
        !s->end[s->client].packets, !s->end[!s->client].packets, s->rst_kind && s->rst_by != s->client,
        syns > 0, again > 0, again > syns, c->retransmit && s->gap_max >= c->retransmit,
        c->handshake && s->handshake >= c->handshake, c->rtt && pt_rtt_reaches(s, c->rtt),
        c->delay && s->delta_max > c->delay, c->connect && pt_since(s->last, s->first) > c->connect,
    };
    uint64_t kind = (uint64_t)s->start | (uint64_t)s->reason << 2 | (uint64_t)s->rst_kind << 5;
    for (uint32_t k = 0; k < sizeof flags / sizeof *flags; k++) kind |= flags[k] << (8 + k);
    return kind | (s->bits & c->bits) << 20;
}

/* Hush those that end like this session from now on. Returns a number, from 1; 0: too many kinds, or no memory. */
static inline uint32_t pt_hush_like(pt_tracker *t, const pt_session *s, int by_client)
{
    pt_hush_key key;
    pt_hush *found;
    if (!t->hush && !(t->hush = calloc(PT_HUSHED, sizeof *t->hush))) return 0;
    pt_make_hush_key(&s->key, by_client ? s->client : !s->client, by_client, pt_kind_of(t, s), &key);
    found = pt_find_hush(t->hush, &key, t->seed);
    if (found->number) return found->number;
    if (t->hushed == PT_HUSHED / 2) return 0;
    found->key = key;
    return found->number = ++t->hushed;
}

/* Whether a session that ended is only counted; it is counted. */
static inline int pt_is_hushed_session(pt_tracker *t, const pt_session *s)
{
    return t->hush && pt_is_hushed(t->hush, &s->key, s->client, pt_kind_of(t, s), t->seed);
}

/* A session leaves the table: it is handed out, or only counted. */
static inline void pt_end_session(pt_tracker *t, uint32_t slot, int reason)
{
    pt_session *s = pt_session_at(t, slot);
    s->reason = (uint8_t)(s->closed ? s->closed : reason);
    pt_leave_session(t, slot, s->hash);
    pt_unlink(t, &t->queue[s->queue], slot);
    pt_free_ends(t, s);
    pt_add_to_totals(&t->totals, s);
    t->live--;
    if (!pt_is_chosen(t, s)) {
        pt_free_session(t, slot);
        return;
    }
    t->totals.chosen++;
    t->totals.rows_dropped += s->rows_dropped;
    if (pt_is_hushed_session(t, s)) {
        pt_free_session(t, slot);
        return;
    }
    s->queue = PT_ENDED;
    pt_append(t, &t->ended, slot);
    if (t->unhanded == PT_NONE) t->unhanded = slot;
}

/* The next session to hand out; PT_NONE: there is none. */
static inline uint32_t pt_hand_out(pt_tracker *t)
{
    while (t->unhanded != PT_NONE) {
        const uint32_t slot = t->unhanded;
        pt_session *s = pt_session_at(t, slot);
        s->handed = 1;
        t->unhanded = s->following;
        if (!pt_is_hushed_session(t, s)) return slot; /* it was not when it ended */
    }
    return PT_NONE;
}

/* Free the sessions that were handed out. */
static inline void pt_forget_handed(pt_tracker *t)
{
    while (t->ended.head != PT_NONE && pt_session_at(t, t->ended.head)->handed) {
        const uint32_t slot = t->ended.head;
        pt_unlink(t, &t->ended, slot);
        pt_free_session(t, slot);
    }
}

/* Whom it was longest since anybody looked at, those active since put behind the others. PT_NONE: nobody is there. */
static inline uint32_t pt_idlest_of(pt_tracker *t, int queue)
{
    for (;;) {
        const uint32_t slot = t->queue[queue].head;
        pt_session *s;
        if (slot == PT_NONE) return PT_NONE;
        s = pt_session_at(t, slot);
        if (s->last <= s->stamp) return slot;
        pt_requeue(t, slot, queue, s->last);
    }
}

/* Room is needed: the session that was idle longest goes, a closed one first. */
static inline void pt_evict(pt_tracker *t)
{
    uint32_t found = pt_idlest_of(t, PT_CLOSED_QUEUE);
    for (int queue = 0; queue < PT_CLOSED_QUEUE && (found == PT_NONE || !pt_session_at(t, found)->closed); queue++) {
        const uint32_t slot = pt_idlest_of(t, queue);
        if (slot != PT_NONE && (found == PT_NONE || pt_session_at(t, slot)->last < pt_session_at(t, found)->last))
            found = slot;
    }
    if (found != PT_NONE) pt_end_session(t, found, PT_EVICTED);
}

/* End what was idle for too long at `now`, by capture time. */
static inline void pt_expire(pt_tracker *t, int64_t now)
{
    for (int queue = 0; queue < PT_QUEUES; queue++) {
        const int64_t limit = t->limit[queue];
        while (limit && t->queue[queue].head != PT_NONE) {
            const uint32_t slot = t->queue[queue].head;
            const pt_session *s = pt_session_at(t, slot);
            if (pt_since(now, s->stamp) <= limit / 4) break;
            if (pt_since(now, s->last) > limit) pt_end_session(t, slot, PT_IDLE);
            else pt_requeue(t, slot, queue, now);
        }
    }
}

/* Sessions are met in no order: from the second chunk on they lie in huge pages, where the system has such. NULL: no
 * memory. */
static inline pt_session *pt_session_chunk(int huge)
{
    const size_t size = (PT_SESSION_CHUNK * sizeof(pt_session) + PT_HUGE_PAGE - 1) & ~(size_t)(PT_HUGE_PAGE - 1);
    void *chunk;
    if (posix_memalign(&chunk, PT_HUGE_PAGE, size)) return NULL;
#ifdef MADV_HUGEPAGE
    if (huge) madvise(chunk, size, MADV_HUGEPAGE); /* no matter if not */
#else
    (void)huge;
#endif
    return chunk;
}

/* Room for one more. PT_NONE: no memory. */
static inline uint32_t pt_free_slot(pt_tracker *t)
{
    uint32_t slot = t->free;
    if (slot != PT_NONE) {
        t->free = pt_session_at(t, slot)->following;
        return slot;
    }
    if (t->made == t->chunks * PT_SESSION_CHUNK) {
        pt_session **chunk = realloc(t->chunk, (t->chunks + 1) * sizeof *chunk);
        if (!chunk) return PT_NONE;
        t->chunk = chunk;
        chunk[t->chunks] = pt_session_chunk(t->chunks > 0);
        if (!chunk[t->chunks]) return PT_NONE;
        t->chunks++;
    }
    return t->made++;
}

static inline void pt_begin_end(pt_end *e)
{
    e->window = PT_NO_WINDOW;
    e->scale = PT_UNKNOWN_SCALE;
    e->window_min = e->segment_min = UINT32_MAX;
    e->first_data = INT64_MIN;
    e->ttl_min = 255;
}

/* A new session. PT_NONE: no memory. */
static inline uint32_t pt_open_session(pt_tracker *t, const pt_arrival *g)
{
    const pt_tcp_head head = {g->seq, g->ack, (uint8_t)g->flags, 1};
    uint32_t slot;
    pt_session *s;
    if (t->sessions && t->live >= t->sessions) pt_evict(t);
    slot = pt_free_slot(t);
    if (slot == PT_NONE) return PT_NONE;
    s = pt_session_at(t, slot);
    memset(s, 0, sizeof *s);
    s->key = g->key;
    s->hash = g->hash;
    s->id = t->next_id++;
    s->first = s->last = s->stamp = g->time;
    s->first_packet = g->packet;
    s->first_rtt = s->handshake = s->syn_time = -1;
    s->ended_by = -1;
    s->watched = 1;
    s->sender = g->way;
    s->client = (uint8_t)pt_client_of(&g->key, g->way, &head, 0);
    s->guessed = !(g->flags & PT_FLAG_SYN);
    if (t->heads) pt_begin_heads(s);
    if (g->flags & PT_FLAG_SYN) s->start = g->flags & PT_FLAG_ACK ? PT_BEGAN_SYN_ACK : PT_BEGAN_SYN;
    pt_begin_end(&s->end[0]);
    pt_begin_end(&s->end[1]);
    if (pt_enter_session(t, slot, g->hash)) {
        s->queue = PT_FREE;
        s->following = t->free;
        t->free = slot;
        return PT_NONE;
    }
    s->queue = s->guessed ? PT_ESTABLISHED_QUEUE : PT_OPENING;
    pt_append(t, &t->queue[s->queue], slot);
    t->live++;
    return slot;
}

static inline void pt_tracker_begin(pt_tracker *t)
{
    for (int queue = 0; queue < PT_QUEUES; queue++) t->queue[queue].head = t->queue[queue].tail = PT_NONE;
    t->ended.head = t->ended.tail = t->free = t->unhanded = PT_NONE;
}

static inline void pt_tracker_free(pt_tracker *t)
{
    for (uint32_t slot = 0; slot < t->made; slot++) {
        if (pt_session_at(t, slot)->queue != PT_FREE) pt_free_session(t, slot);
    }
    for (uint32_t k = 0; k < t->chunks; k++) free(t->chunk[k]);
    free(t->chunk);
    free(t->slot);
    free(t->row);
    free(t->cut);
    free(t->hush);
}

#endif
