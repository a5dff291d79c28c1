/* The figures of a session: what each end sent, which bytes were seen how often, round trips, anomalies, kept rows. */
#ifndef PT_SESSION_FIGURES_H
#define PT_SESSION_FIGURES_H

#include "analysis.h"
#include "session_states.h"

/* ---- options (RFC 9293 section 3.2, RFC 7323, RFC 2018, RFC 7413) -------------------------------------------- */

enum { PT_OPTION_MSS = 2, PT_OPTION_SCALE = 3, PT_OPTION_SACK_OK = 4, PT_OPTION_SACK = 5, PT_OPTION_TIMESTAMPS = 8,
       PT_OPTION_FAST_OPEN = 34, PT_OPTION_EXPERIMENT = 254, PT_FAST_OPEN_MAGIC = 0xF989 };

/* The SACK blocks of an option of n bytes behind kind and length. RFC 2883: the first one may be a duplicate. */
static inline void pt_sack_option(pt_arrival *g, const uint8_t *p, uint32_t n)
{
    uint32_t blocks = n / 8;
    g->sacks = (uint8_t)blocks;
    for (uint32_t k = 0; k < blocks && k < PT_MAX_SACKS; k++) {
        g->sack[k][0] = pt_net32(p + 8 * k);
        g->sack[k][1] = pt_net32(p + 8 * k + 4);
    }
    if (!blocks) return;
    g->bits |= PT_BIT(PT_SACK);
    if (pt_not_after(g->sack[0][1], g->ack) ||
        (blocks > 1 && pt_not_after(g->sack[1][0], g->sack[0][0]) && pt_not_after(g->sack[0][1], g->sack[1][1])))
        g->bits |= PT_BIT(PT_DSACK);
}

/* Whether an option of n bytes, kind and length included, is what it should be; what it says goes to the end. */
static inline int pt_take_option(pt_end *e, pt_arrival *g, const uint8_t *p, uint32_t n)
{
    const int syn = g->flags & PT_FLAG_SYN;
    switch (p[0]) {
    case PT_OPTION_MSS:
        if (n != 4) return 0;
        if (!syn) break;
        e->mss = pt_net16(p + 2);
        e->offers |= PT_OFFERS_MSS;
        break;
    case PT_OPTION_SCALE:
        if (n != 3) return 0;
        if (!syn) break;
        e->scale = e->offered_scale = (int8_t)(p[2] > 14 ? 14 : p[2]);
        e->offers |= PT_OFFERS_SCALE;
        break;
    case PT_OPTION_SACK_OK:
        if (n != 2) return 0;
        if (syn) e->offers |= PT_OFFERS_SACK;
        break;
    case PT_OPTION_SACK:
        if (n < 10 || (n - 2) % 8) return 0;
        pt_sack_option(g, p + 2, n - 2);
        break;
    case PT_OPTION_TIMESTAMPS:
        if (n != 10) return 0;
        e->offers |= PT_OFFERS_TIMESTAMPS;
        break;
    case PT_OPTION_EXPERIMENT:
        if (n < 4 || pt_net16(p + 2) != PT_FAST_OPEN_MAGIC) break;
        /* fall through */
    case PT_OPTION_FAST_OPEN:
        e->offers |= PT_OFFERS_FAST_OPEN;
        if (syn) g->bits |= PT_BIT(PT_FAST_OPEN);
    }
    return 1;
}

static inline void pt_take_options(pt_end *e, pt_arrival *g)
{
    const uint8_t *p = g->options;
    const uint32_t n = g->options_length;
    uint32_t at = 0;
    if (n == 12 && p[0] == 1 && p[1] == 1 && p[2] == PT_OPTION_TIMESTAMPS && p[3] == 10) {
        e->offers |= PT_OFFERS_TIMESTAMPS;
        return;
    }
    while (at < n && p[at] != 0) {
        uint32_t size;
        if (p[at] == 1) {
            at++;
            continue;
        }
        size = at + 1 < n ? p[at + 1] : 0;
        if (size < 2 || at + size > n || !pt_take_option(e, g, p + at, size)) {
            g->bits |= PT_BIT(PT_BAD_OPTIONS);
            e->options_bad++;
            return;
        }
        at += size;
    }
}

/* What a SYN agrees to: windows are scaled only where both ends offer it (RFC 7323 section 1.3). */
static inline void pt_agree(pt_session *s, const pt_arrival *g)
{
    pt_end *from = &s->end[g->way], *to = &s->end[!g->way];
    if (g->flags & PT_FLAG_ECE) from->offers |= PT_OFFERS_ECN;
    if (!(from->offers & PT_OFFERS_SCALE)) from->scale = to->scale = PT_NO_SCALE;
    else if (to->scale == PT_NO_SCALE) from->scale = PT_NO_SCALE;
}

/* ---- bytes seen, repeated and missing ------------------------------------------------------------------------ */

/* A gap opened in front of a segment. 0: done, -1: no memory. */
static inline int pt_open_hole(pt_end *e, uint32_t left, uint32_t right)
{
    pt_holes *h = e->holes;
    if (right - left > 1u << 30) return 0; /* no window is that large: the numbers jumped */
    if (!h && !(h = e->holes = calloc(1, sizeof *h))) return -1;
    if (h->n == PT_MAX_HOLES) { /* the oldest one is not waited for any longer */
        h->n--;
        memmove(h->left, h->left + 1, h->n * sizeof *h->left);
        memmove(h->right, h->right + 1, h->n * sizeof *h->right);
    }
    h->left[h->n] = left;
    h->right[h->n++] = right;
    e->missing += right - left;
    return 0;
}

static inline void pt_remove_hole(pt_holes *h, uint32_t k)
{
    h->n--;
    memmove(h->left + k, h->left + k + 1, (h->n - k) * sizeof *h->left);
    memmove(h->right + k, h->right + k + 1, (h->n - k) * sizeof *h->right);
}

/* Bytes of [a, b) cut out of hole k; when it falls in two and there is no room for both, the first one is given up. */
static inline uint32_t pt_fill_hole(pt_holes *h, uint32_t k, uint32_t a, uint32_t b)
{
    const uint32_t left = h->left[k], right = h->right[k];
    const uint32_t from = pt_before(left, a) ? a : left, to = pt_before(b, right) ? b : right;
    if (!pt_before(from, to)) return 0;
    if (from == left && to == right) {
        pt_remove_hole(h, k);
    } else if (from == left) {
        h->left[k] = to;
    } else if (to == right) {
        h->right[k] = from;
    } else if (h->n < PT_MAX_HOLES) {
        memmove(h->left + k + 1, h->left + k, (h->n - k) * sizeof *h->left);
        memmove(h->right + k + 1, h->right + k, (h->n - k) * sizeof *h->right);
        h->n++;
        h->right[k] = from;
        h->left[k + 1] = to;
    } else {
        h->left[k] = to;
    }
    return to - from;
}

/* Take note of payload [a, b); g->fresh: how many bytes of it are new. 0: done, -1: no memory. */
static inline int pt_cover(pt_end *e, uint32_t a, uint32_t b, pt_arrival *g)
{
    uint32_t fresh = 0, filled = 0;
    if (!(e->has & PT_HAS_TOP)) {
        e->has |= PT_HAS_TOP;
        e->top = a;
    }
    if (PT_LIKELY(a == e->top)) {
        e->top = b;
        e->unique += g->fresh = b - a;
        return 0;
    }
    if (pt_before(e->top, a)) {
        if (pt_open_hole(e, e->top, a)) return -1;
        e->top = b;
        e->unique += g->fresh = b - a;
        return 0;
    }
    if (pt_before(e->top, b)) {
        fresh = b - e->top;
        b = e->top;
        e->top += fresh;
    }
    if (e->holes) {
        for (uint32_t k = e->holes->n; k-- > 0;) filled += pt_fill_hole(e->holes, k, a, b);
    }
    g->fresh = fresh + filled;
    e->missing -= filled;
    e->unique += g->fresh;
    if (filled) g->bits |= PT_BIT(PT_FILLED_GAP);
    if (g->fresh == g->length || g->bits & (PT_BIT(PT_KEEP_ALIVE) | PT_BIT(PT_ZERO_WINDOW_PROBE))) return 0;
    e->repeated += g->length - g->fresh;
    if (g->fresh) g->bits |= PT_BIT(PT_PARTIAL_OVERLAP);
    return 0;
}

/* ---- round trips --------------------------------------------------------------------------------------------- */

/* The bin of a time: 16 to an octave, the first from 1 us down. */
static inline uint32_t pt_rtt_bin(float ns)
{
    const uint32_t first = (127u + 10u) << 4; /* 2^10 ns */
    uint32_t bits, bin;
    memcpy(&bits, &ns, 4);
    bin = bits >> 19;
    if (ns < 1024 || bin < first) return 0;
    bin -= first;
    return bin < PT_RTT_BINS ? bin : PT_RTT_BINS - 1;
}

/* The middle of a bin, ns. */
static inline double pt_rtt_of_bin(uint32_t bin)
{
    return (double)((uint64_t)1 << (10 + bin / 16)) * (1.0 + (bin % 16 + 0.5) / 16);
}

static inline int pt_rtt_to_bins(pt_rtts *r)
{
    uint32_t *bin = calloc(PT_RTT_BINS, sizeof *bin);
    if (!bin) return -1;
    for (uint32_t k = 0; k < r->n; k++) bin[pt_rtt_bin(r->of.sample[k])]++;
    free(r->of.sample);
    r->of.bin = bin;
    r->binned = 1;
    return 0;
}

/* One more sample, ns. 0: done, -1: no memory. */
static inline int pt_add_rtt(pt_rtts *r, int64_t ns)
{
    if (ns < 0) return 0; /* the clock went back */
    if (!r->n || ns < r->min) r->min = ns;
    if (!r->n || ns > r->max) r->max = ns;
    r->sum += (uint64_t)ns;
    if (!r->binned && r->n == r->room) {
        if (r->n == PT_EXACT_RTTS) {
            if (pt_rtt_to_bins(r)) return -1;
        } else {
            uint8_t room = (uint8_t)(r->room ? r->room * 2 : 4);
            float *sample = realloc(r->of.sample, room * sizeof *sample);
            if (!sample) return -1;
            r->of.sample = sample;
            r->room = room;
        }
    }
    if (r->binned) r->of.bin[pt_rtt_bin((float)ns)]++;
    else r->of.sample[r->n] = (float)ns;
    r->n++;
    return 0;
}

static inline int pt_compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The sample that `part` (0 to 1) of all are not above (nearest rank), ns; n must not be 0. */
static inline int64_t pt_rtt_quantile(const pt_rtts *r, double part)
{
    uint32_t rank = (uint32_t)(part * r->n), k = 0;
    uint64_t seen = 0;
    double ns;
    if (rank >= r->n) rank = r->n - 1;
    if (r->binned) {
        while (k < PT_RTT_BINS - 1 && (seen += r->of.bin[k]) <= rank) k++;
        ns = pt_rtt_of_bin(k);
    } else {
        float sorted[PT_EXACT_RTTS];
        memcpy(sorted, r->of.sample, r->n * sizeof *sorted);
        qsort(sorted, r->n, sizeof *sorted, pt_compare_floats);
        ns = sorted[rank];
    }
    return ns < (double)r->min ? r->min : ns > (double)r->max ? r->max : (int64_t)ns;
}

/* ---- counting ------------------------------------------------------------------------------------------------ */

static inline void pt_count_window(pt_end *e, const pt_arrival *g)
{
    const uint32_t window = pt_scaled_window(e, g);
    if (g->flags & (PT_FLAG_RST | PT_FLAG_SYN)) return;
    e->window_sum += window;
    if (window > e->window_max) e->window_max = window;
    if (window < e->window_min) e->window_min = window;
}

static inline void pt_count_specials(pt_end *e, const pt_arrival *g)
{
    e->syns += (g->flags & PT_FLAG_SYN) != 0;
    e->fins += (g->flags & PT_FLAG_FIN) != 0;
    e->rsts += (g->flags & PT_FLAG_RST) != 0;
    e->urgents += (g->flags & PT_FLAG_URG) != 0;
}

/* Payload of a segment. 0: done, -1: no memory. */
static inline int pt_count_payload(pt_end *e, pt_arrival *g)
{
    const uint32_t a = g->seq + (g->flags & PT_FLAG_SYN ? 1 : 0);
    if (pt_cover(e, a, a + g->length, g)) return -1;
    e->payload += g->length;
    e->data_packets++;
    if (g->length > e->segment_max) e->segment_max = g->length;
    if (g->length < e->segment_min) e->segment_min = g->length;
    if (e->first_data == INT64_MIN) e->first_data = g->time;
    e->last_data = g->time;
    if (PT_UNLIKELY(!(e->has & PT_INITIAL_WINDOW_OVER))) {
        e->initial_bytes += g->fresh;
        e->initial_packets++;
    }
    if (PT_UNLIKELY(g->captured < g->length)) {
        e->snapped += g->length - g->captured;
        g->bits |= PT_BIT(PT_SNAPPED);
    }
    return 0;
}

/* The figures of flags and options that most segments do not have. */
static inline void pt_count_rare(pt_end *e, const pt_arrival *g)
{
    if (g->flags & (PT_SPECIAL | PT_FLAG_URG)) pt_count_specials(e, g);
    if (g->dup_ack > e->dup_ack_max) e->dup_ack_max = g->dup_ack;
    if (g->sacks > e->sack_blocks_max) e->sack_blocks_max = g->sacks;
    if (g->flags & PT_FLAG_SYN && !(e->has & PT_HAS_TOP)) {
        e->has |= PT_HAS_TOP;
        e->top = g->seq + 1;
    }
}

/* The figures of an acknowledgement. */
static inline void pt_count_ack(pt_end *e, pt_end *to, const pt_arrival *g)
{
    e->acks++;
    if (!g->length && !(g->flags & PT_SPECIAL)) e->pure_acks++;
    e->has |= PT_HAS_ACK;
    if (PT_LIKELY(to->has & PT_INITIAL_WINDOW_OVER)) return;
    if (to->data_packets && g->ack - to->base > 1 && !pt_before(g->ack, to->base)) to->has |= PT_INITIAL_WINDOW_OVER;
}

/* The plain figures of an arrival. 0: done, -1: no memory. */
static inline int pt_count_arrival(pt_session *s, pt_arrival *g)
{
    pt_end *e = &s->end[g->way];
    if (!e->packets++) e->first = g->time;
    else if (g->pause > e->idle_max) e->idle_max = g->pause;
    e->bytes += g->wire;
    if (g->ttl < e->ttl_min) e->ttl_min = g->ttl;
    if (g->ttl > e->ttl_max) e->ttl_max = g->ttl;
    e->pushes += g->flags >> 3 & 1;
    if (g->flags & PT_FLAG_ACK) pt_count_ack(e, &s->end[!g->way], g);
    pt_count_window(e, g);
    if (PT_UNLIKELY(g->flags & (PT_SPECIAL | PT_FLAG_URG) || g->dup_ack | g->sacks)) pt_count_rare(e, g);
    return g->length ? pt_count_payload(e, g) : 0;
}

/* Bits of a segment that need no history. */
static inline void pt_mark_plain(pt_arrival *g)
{
    if (g->ce) g->bits |= PT_BIT(PT_ECN_CE);
    if (!(g->flags & PT_FLAG_SYN)) {
        if (g->flags & PT_FLAG_ECE) g->bits |= PT_BIT(PT_ECN_ECE);
        if (g->flags & PT_FLAG_CWR) g->bits |= PT_BIT(PT_ECN_CWR);
    }
    if (g->flags & PT_FLAG_URG) g->bits |= PT_BIT(PT_URGENT);
    if (!(g->flags & (PT_SPECIAL | PT_FLAG_ACK))) g->bits |= PT_BIT(PT_NO_FLAGS);
}

static inline int pt_lowest(uint64_t bits)
{
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int k = 0;
    while (!(bits >> k & 1)) k++;
    return k;
#endif
}

/* Count the bits of a segment, and list it if they are an anomaly; limit: of the list. 0: done, -1: no memory. */
static inline int pt_note_bits(pt_session *s, const pt_arrival *g, uint32_t limit)
{
    uint64_t left = g->bits;
    s->bits |= g->bits;
    if (!s->count && !(s->count = calloc(2, sizeof *s->count))) return -1;
    for (; left; left &= left - 1) s->count[g->way][pt_lowest(left)]++;
    if (!(g->bits & PT_NOTED)) return 0;
    if (s->notes == limit) {
        s->notes_dropped++;
        return 0;
    }
    if (s->notes == s->note_room) {
        uint32_t room = s->note_room ? s->note_room * 2 : 4;
        pt_note *note = realloc(s->note, room * sizeof *note);
        if (!note) return -1;
        s->note = note;
        s->note_room = room;
    }
    s->note[s->notes].packet = g->packet;
    s->note[s->notes].time = g->time;
    s->note[s->notes++].bits = g->bits | (uint64_t)g->way << 63;
    return 0;
}

#endif
