/* What is known of a TCP session: of both its ends, and of each of its segments.
 *
 * Ends are numbered as in the key (`way`); who of the two is the client is a field of the session. What is seen is
 * taken as having arrived. */
#ifndef PT_SESSION_H
#define PT_SESSION_H

#include <stddef.h>

#include "flowrules.h"

/* RFC 9293 section 3.3.2, in the order of engines.sessions.STATES. */
enum pt_tcp_state {
    PT_STATE_NONE, PT_CLOSED, PT_LISTEN, PT_SYN_SENT, PT_SYN_RECEIVED, PT_ESTABLISHED, PT_FIN_WAIT_1, PT_FIN_WAIT_2,
    PT_CLOSE_WAIT, PT_CLOSING, PT_LAST_ACK, PT_TIME_WAIT,
};

/* What is odd about a segment, in the order of engines.sessions.BITS. */
enum pt_analysis {
    PT_RETRANSMISSION, PT_FAST_RETRANSMISSION, PT_SPURIOUS_RETRANSMISSION, PT_OUT_OF_ORDER, PT_LOST_SEGMENT,
    PT_ACK_LOST_SEGMENT, PT_DUPLICATE_ACK, PT_KEEP_ALIVE, PT_KEEP_ALIVE_ACK, PT_ZERO_WINDOW, PT_ZERO_WINDOW_PROBE,
    PT_ZERO_WINDOW_PROBE_ACK, PT_WINDOW_UPDATE, PT_WINDOW_FULL, PT_REUSED_PORTS,
    PT_SYN_RETRANSMISSION, PT_FIN_RETRANSMISSION, PT_TIMEOUT_RETRANSMISSION, PT_PARTIAL_OVERLAP, PT_FILLED_GAP, PT_SACK,
    PT_DSACK, PT_ECN_CE, PT_ECN_ECE, PT_ECN_CWR, PT_SNAPPED, PT_FRAGMENTED, PT_RST_REFUSED, PT_RST_AFTER_FIN,
    PT_RST_AFTER_DATA, PT_RST_WITH_DATA, PT_RST_IGNORED, PT_FAST_OPEN, PT_BAD_OPTIONS, PT_AFTER_CLOSE, PT_URGENT,
    PT_NO_FLAGS, PT_UNCHECKED_LENGTH,
    PT_ANALYSIS_BITS
};

#define PT_BIT(name) ((uint64_t)1 << (name))

#define PT_AGAIN PT_BIT(PT_RETRANSMISSION) /* fast and spurious ones have this bit too */

/* What makes a segment an anomaly, to be listed. */
#define PT_NOTED (PT_AGAIN | PT_BIT(PT_FAST_RETRANSMISSION) | PT_BIT(PT_SPURIOUS_RETRANSMISSION) | \
    PT_BIT(PT_OUT_OF_ORDER) | PT_BIT(PT_LOST_SEGMENT) | PT_BIT(PT_ACK_LOST_SEGMENT) | \
    PT_BIT(PT_DUPLICATE_ACK) | PT_BIT(PT_KEEP_ALIVE) | PT_BIT(PT_ZERO_WINDOW) | PT_BIT(PT_ZERO_WINDOW_PROBE) | \
    PT_BIT(PT_WINDOW_FULL) | PT_BIT(PT_REUSED_PORTS) | PT_BIT(PT_SYN_RETRANSMISSION) | \
    PT_BIT(PT_FIN_RETRANSMISSION) | PT_BIT(PT_TIMEOUT_RETRANSMISSION) | PT_BIT(PT_PARTIAL_OVERLAP) | \
    PT_BIT(PT_DSACK) | PT_BIT(PT_ECN_CE) | PT_BIT(PT_RST_REFUSED) | PT_BIT(PT_RST_AFTER_FIN) | \
    PT_BIT(PT_RST_AFTER_DATA) | PT_BIT(PT_RST_WITH_DATA) | PT_BIT(PT_RST_IGNORED) | PT_BIT(PT_BAD_OPTIONS) | \
    PT_BIT(PT_AFTER_CLOSE) | PT_BIT(PT_NO_FLAGS))

/* engines.sessions.STARTS is enum pt_flow_start; REASONS and RST_KINDS are these. */
enum pt_reason { PT_OPEN, PT_BY_FIN, PT_BY_RST, PT_IDLE, PT_REUSED, PT_EVICTED, PT_REASONS };
enum pt_rst_kind { PT_RST_NONE, PT_REFUSED, PT_AFTER_FIN, PT_AFTER_DATA, PT_RST_PLAIN };

enum { PT_FLAG_PSH = 8, PT_FLAG_URG = 32, PT_FLAG_ECE = 64, PT_FLAG_CWR = 128, PT_FLAG_AE = 256 };

enum {
    PT_MAX_UNACKED = 10000,       /* segments remembered of one end until they are acknowledged, as Wireshark does */
    PT_MAX_UNACKED_ALL = 1 << 21, /* of all ends */
    PT_MAX_HOLES = 32,            /* gaps of one end that may still be filled */
    PT_MAX_SACKS = 4,
    PT_MAX_OPTIONS = 40,
    PT_EXACT_RTTS = 64,           /* samples kept as they are; more become a histogram */
    PT_RTT_BINS = 33 * 16,        /* 16 to an octave, from 1 us */
    PT_UNKNOWN_SCALE = -1,
    PT_NO_SCALE = -2,             /* the handshake agreed on none */
    PT_NO_WINDOW = UINT32_MAX,    /* none seen */
};

/* One segment, as Python and stream consumers get it: engines.sessions.Segment. */
typedef struct {
    uint64_t packet;
    int64_t time, delta, gap, rtt;
    uint64_t original, bits;
    uint32_t session, slot, seq, ack, rel_seq, rel_ack, window, wire, payload, captured, at, dup_ack;
    uint16_t flags, raw_window;
    uint8_t direction, client_state, server_state, options_length;
    uint8_t options[PT_MAX_OPTIONS];
} pt_segment;

#define PT_SEGMENT_FORMAT "=QqqqqQQ12IHHBBBB40s"

/* An anomaly that is listed. */
typedef struct {
    uint64_t packet;
    int64_t time;
    uint64_t bits; /* the uppermost one: from the end 1 */
} pt_note;

/* A segment that is not acknowledged yet. */
typedef struct {
    uint32_t seq, next;
    int64_t time;
    uint64_t packet; /* times 2, plus 1 when it was sent more than once */
} pt_unacked;

typedef struct {
    pt_unacked *of;       /* of[head..n), in order of sending */
    uint32_t head, n, room;
    uint8_t sorted;       /* each begins where the one before it ends, or later */
} pt_unacked_list;

/* Ranges of bytes below `top` that were not seen, in order. */
typedef struct {
    uint32_t left[PT_MAX_HOLES], right[PT_MAX_HOLES], n;
} pt_holes;

typedef struct {
    uint32_t n;
    uint8_t room;    /* of sample, 0: none yet */
    uint8_t binned;  /* `bin` instead of `sample` */
    int64_t min, max;
    uint64_t sum;
    union {
        float *sample;
        uint32_t *bin;
    } of;
} pt_rtts;

/* pt_end.is: what happened to it */
enum {
    PT_IS_SYN = 1,        /* sent SYN, or must have */
    PT_IS_SYN_ACKED = 2,
    PT_IS_FIN = 4,
    PT_IS_FIN_ACKED = 8,
    PT_IS_PASSIVE = 16,   /* its FIN acknowledged the other's */
    PT_SAW_SYN = 32,      /* SYN without ACK was seen */
    PT_SAW_SYN_ACK = 64,
};

/* pt_end.has: what is known */
enum { PT_HAS_BASE = 1, PT_HAS_NEXT = 2, PT_HAS_TO_ACK = 4, PT_HAS_TOP = 8, PT_HAS_ISN = 16, PT_HAS_ACK = 32,
       PT_INITIAL_WINDOW_OVER = 64, PT_PAST_SYN = 128 };

/* pt_end.offers */
enum { PT_OFFERS_SACK = 1, PT_OFFERS_TIMESTAMPS = 2, PT_OFFERS_ECN = 4, PT_OFFERS_FAST_OPEN = 8, PT_OFFERS_MSS = 16,
       PT_OFFERS_SCALE = 32 };

/* In cache lines: what every segment of either end needs, what one of its own needs, the rest. */
typedef struct {
    pt_unacked_list unacked;
    uint32_t base;       /* sequence number that relative ones count from */
    uint32_t next;       /* behind the highest byte sent */
    uint32_t to_ack;     /* up to where the other end may acknowledge without telling of a loss */
    uint32_t last_ack;   /* acknowledgement number of its last segment, whatever its flags */
    uint32_t window;     /* of its last segment, unscaled */
    uint32_t dup_acks;
    uint32_t top;        /* behind the highest byte of payload seen */
    uint8_t is, has, offers;
    int8_t scale, offered_scale;
    uint8_t last;        /* PT_LAST_... of analysis.h */
    uint8_t ttl_min, ttl_max;

    int64_t next_time, ack_time; /* of the segment that reached `next`, and of the last one */
    uint64_t packets, bytes, payload, unique, window_sum;
    int64_t idle_max;

    uint32_t data_packets, acks, pure_acks, pushes, window_max, window_min, segment_max, segment_min;
    int64_t first_data, last_data;
    uint64_t next_packet;
    int64_t first;

    pt_rtts rtt;
    uint64_t repeated, missing, snapped;
    pt_holes *holes;
    uint32_t fin_seq;    /* sequence number of its FIN */
    uint32_t isn, urgents, syns, fins, rsts, options_bad, dup_ack_max, initial_bytes, initial_packets;
    uint16_t mss;
    uint8_t sack_blocks_max;
    uint8_t unused[9];   /* a multiple of a cache line */
} pt_end;

/* Where a session waits for its end: each queue has a limit of idleness of its own. */
enum pt_queue_name {
    PT_OPENING, PT_ESTABLISHED_QUEUE, PT_CLOSING_QUEUE, PT_CLOSED_QUEUE, PT_QUEUES,
    PT_ENDED, PT_FREE, /* no queue: waits to be handed out; free for use */
};

/* pt_session.seen */
enum { PT_SEEN_BOTH_OPEN = 1, PT_SEEN_BOTH_CLOSE = 2 };

typedef struct {
    pt_flow_key key;
    int64_t last;
    uint64_t last_packet;

    uint64_t bits;
    int64_t delta_max, gap_max;
    int64_t first_rtt;       /* as Wireshark's initial_rtt, -1: not known */
    uint32_t id, hash;
    uint8_t queue, client, sender, guessed, start, reason, simultaneous;
    uint8_t reset, closed, watched, handed;
    int8_t ended_by;         /* way, -1: nobody */
    uint8_t rst_kind, rst_by;
    uint8_t settled;         /* established, both ends known: pt_is_ordinary() may be asked */
    uint8_t heads;           /* 1 << way: the first payload of that end is kept */
    uint32_t (*count)[PT_ANALYSIS_BITS]; /* count[way][bit]; NULL: all are 0 */

    pt_end end[2];

    int64_t first, stamp;
    uint64_t first_packet;
    uint32_t previous, following; /* of its queue */
    int64_t first_syn, last_syn;
    int64_t handshake, syn_time;  /* -1: not known */
    uint64_t rst_packet;
    int64_t rst_time;
    pt_note *note;
    uint32_t notes, note_room, notes_dropped;
    uint32_t rows, rows_dropped;
    struct pt_page *oldest, *newest; /* rows kept */
    struct pt_head *head, *head_end; /* payload kept */
    uint32_t head_size, head_want[2]; /* bytes kept; bytes of each stream that are wanted */
} pt_session;

/* A segment as it was parsed, and what is found out about it. */
typedef struct {
    const uint8_t *p, *options;
    uint64_t packet, bits, original;
    int64_t time, gap, rtt, pause; /* pause: since the last segment of the same end */
    uint32_t seq, ack, length, captured, at, wire, dup_ack;
    uint16_t flags, window;
    uint8_t way, options_length, ttl, ce, sacks;
    uint32_t sack[PT_MAX_SACKS][2];
    uint32_t fresh; /* bytes of payload not seen before */
    pt_flow_key key;
    uint32_t hash, slot;
    pt_session *met; /* its session, in `slot`, as it was a moment ago; NULL: not found yet */
} pt_arrival;

static inline int pt_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }
static inline int pt_not_after(uint32_t a, uint32_t b) { return (int32_t)(a - b) <= 0; }

/* How long b was before a, ns; clocks may say anything. */
static inline int64_t pt_since(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }

/* The window of an arrival in bytes, as far as the scale is known; that of a SYN is never scaled. */
static inline uint32_t pt_scaled_window(const pt_end *e, const pt_arrival *g)
{
    return g->flags & PT_FLAG_SYN || e->scale <= 0 ? g->window : (uint32_t)g->window << e->scale;
}

#endif
