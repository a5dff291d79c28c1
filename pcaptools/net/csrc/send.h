/* The paced sender: records of a batch out of sockets, each at its due time on one absolute schedule.
 *
 * A packet that is due far away is slept for, the last stretch (the margin, about what the kernel oversleeps) is
 * spun away. Whatever is due at that moment goes out in one sendmmsg. A late packet goes at once and moves no other.
 * No call lasts longer than a slice: Python must see its signals, and one that arrives just before a system call
 * would not wake it. */
#ifndef PT_SEND_H
#define PT_SEND_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "batch.h"
#include "xdp.h"

#define PT_CHUNK 256         /* packets a system call */
#define PT_SLICE 20000000    /* ns */
#define PT_NAP 2000000       /* ns: the longest sleep, so that the time at which the process was stopped is known */
#define PT_GAP 50000000      /* ns */
#define PT_TRIES 100         /* for a packet that the device has no room for: about 90 ms */
#define PT_ERRNOS 134        /* Linux: EHWPOISON is the last, 133 */
#define PT_SUB_BUCKETS 128   /* of a power of two: the middle of one is within 0.4 % of all its values */
#define PT_BUCKETS (57 * PT_SUB_BUCKETS)
#define PT_LEAST_MARGIN 10000    /* ns */
#define PT_LARGEST_MARGIN 100000

enum pt_send_status {
    PT_SEND_DONE,
    PT_SEND_PAUSED, /* a signal came or the slice is over: call again from *next */
    PT_SEND_FATAL,  /* the device is gone or down: see pt_sender.error */
    PT_SEND_ON,     /* internal: go on */
};

enum pt_way {
    PT_SENDMMSG, /* sockets */
    PT_WRITE,    /* TAP and TUN devices: one packet a call */
    PT_XDP,      /* AF_XDP sockets */
};

/* Where packets of one lane go, and what became of them. */
typedef struct {
    int fd;
    pt_xdp *xdp; /* with PT_XDP */
    uint64_t sent, bytes, cut, failed, no_room, again;
} pt_lane_of;

typedef struct {
    int error;
    uint8_t way;               /* enum pt_way */
    uint8_t spin;              /* spin for the margin; else sleep until the very time */
    uint8_t skip_late;         /* leave out what is later than `tolerance` */
    int only;                  /* -1, or the only lane that this sender sees to */
    pt_lane_of *lane;
    uint32_t lanes;            /* 1: pt_record.lane is not looked at */
    int64_t margin;            /* ns */
    int64_t tolerance;         /* ns: a packet is late beyond that */
    int64_t alive;             /* when the clock was last read */
    int64_t gap[2];            /* the last two readings that were far apart */
    uint8_t jumped;            /* such a gap since the call began: the process may have been stopped */
    uint64_t delayed, skipped; /* late packets: sent and not sent */
    uint64_t unheard;          /* datagrams that nobody listened for: told with the next one */
    uint32_t tries;            /* of the packet in front */
    uint64_t sent, bytes;      /* what the kernel took */
    uint64_t cut;              /* of those sent, shorter than they were on the wire */
    uint64_t retried;          /* tries that found no room */
    uint64_t failed[PT_ERRNOS]; /* packets, by errno */
    uint64_t timed;            /* packets in late[] */
    uint64_t late[PT_BUCKETS]; /* how late the kernel had taken them */
    int64_t latest;            /* ns */
    struct sockaddr_ll to[2];  /* IPv4 and IPv6, for devices without a link header */
    int headerless;
    struct mmsghdr message[PT_CHUNK];
    struct iovec part[PT_CHUNK];
    uint32_t of[PT_CHUNK];     /* the record that a message carries */
} pt_sender;

static inline int64_t pt_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* 0, or EINTR. */
static inline int pt_sleep_until(int64_t when)
{
    struct timespec t = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* interface: 0, or the index of a device whose frames begin with the IP header, so that nothing in them tells the
 * kernel their protocol. */
static inline void pt_sender_init(pt_sender *s, pt_lane_of *lane, uint32_t lanes, int64_t margin, int interface)
{
    memset(s, 0, sizeof *s);
    s->lane = lane;
    s->lanes = lanes;
    s->only = -1;
    s->spin = 1;
    s->tolerance = 1000000;
    s->margin = margin;
    s->headerless = interface != 0;
    for (int k = 0; k < 2; k++) {
        s->to[k].sll_family = AF_PACKET;
        s->to[k].sll_ifindex = interface;
        s->to[k].sll_protocol = htons(k ? ETH_P_IPV6 : ETH_P_IP);
    }
    for (int k = 0; k < PT_CHUNK; k++) {
        s->message[k].msg_hdr.msg_iov = &s->part[k];
        s->message[k].msg_hdr.msg_iovlen = 1;
    }
}

/* Read the clock. */
static inline int64_t pt_tick(pt_sender *s)
{
    int64_t now = pt_now();
    if (s->alive && now - s->alive > PT_GAP) {
        s->gap[0] = s->alive;
        s->gap[1] = now;
        s->jumped = 1;
    }
    return s->alive = now;
}

static inline uint32_t pt_bucket(uint64_t v)
{
    if (v < PT_SUB_BUCKETS) return (uint32_t)v;
    uint32_t shift = 56 - (uint32_t)__builtin_clzll(v);
    return (shift + 1) * PT_SUB_BUCKETS + (uint32_t)(v >> shift) - PT_SUB_BUCKETS;
}

/* The middle of a bucket, ns. */
static inline int64_t pt_bucket_value(uint32_t bucket)
{
    if (bucket < PT_SUB_BUCKETS) return bucket;
    uint32_t shift = bucket / PT_SUB_BUCKETS - 1;
    int64_t low = (int64_t)(PT_SUB_BUCKETS + bucket % PT_SUB_BUCKETS) << shift;
    return low + ((int64_t)1 << shift) / 2;
}

static inline void pt_note_lateness(pt_sender *s, int64_t late)
{
    if (late < 0) late = 0;
    s->late[pt_bucket((uint64_t)late)]++;
    s->timed++;
    if (late > s->latest) s->latest = late;
    if (late > s->tolerance) s->delayed++;
}

/* The least lateness, ns, that `rank` packets do not exceed; 1 <= rank <= timed. */
static inline int64_t pt_lateness(const pt_sender *s, uint64_t rank)
{
    uint32_t bucket = 0;
    int64_t value;
    if (rank >= s->timed) return s->latest;
    for (uint64_t seen = s->late[0]; seen < rank; seen += s->late[bucket]) bucket++;
    value = pt_bucket_value(bucket);
    return value < s->latest ? value : s->latest;
}

/* struct sched_attr of sched_setattr(2), first version; older C libraries have none. */
typedef struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} pt_scheduling;

/* Let this thread be woken on time, and get the processor back soon when others want it too: the least timer slack,
 * the shortest time slice (Linux 6.12; older ones ignore it). Both are free to any user; what fails is not needed. */
static inline void pt_be_prompt(void)
{
    pt_scheduling s;
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (syscall(SYS_sched_getattr, 0, &s, sizeof s, 0) || s.policy != SCHED_OTHER) return;
    s.runtime = 100000;
    syscall(SYS_sched_setattr, 0, &s, 0);
}

static inline int64_t pt_oversleep(void)
{
    int64_t target = pt_now() + 100000;
    pt_sleep_until(target);
    return pt_now() - target;
}

/* The margin for this thread, ns: half as much again as the best quarter of a few sleeps lasts too long. The rest
 * tells of other processes; spinning against those makes the scheduler send the spinner away for longer. */
static inline int64_t pt_calibrate(void)
{
    int64_t over[20], margin;
    for (int k = 0; k < 20; k++) {
        int64_t value = pt_oversleep();
        int at = k;
        for (; at && over[at - 1] > value; at--) over[at] = over[at - 1];
        over[at] = value;
    }
    margin = over[4] * 3 / 2;
    if (margin < PT_LEAST_MARGIN) return PT_LEAST_MARGIN;
    return margin > PT_LARGEST_MARGIN ? PT_LARGEST_MARGIN : margin;
}

static inline uint32_t pt_lane_number(const pt_sender *s, const pt_record *r)
{
    return s->lanes > 1 && r->lane < s->lanes ? r->lane : 0;
}

/* Whether this sender has nothing to do with a record. */
static inline int pt_passes(const pt_sender *s, const pt_record *r)
{
    return r->flags & PT_DROP || (s->only >= 0 && r->lane != s->only);
}

/* Messages for the packets of [k, stop) of one lane that are due `elapsed` ns after the start; how many. */
static inline uint32_t pt_gather(pt_sender *s, const pt_batch *b, uint32_t k, uint32_t stop, const int64_t *due,
                                 int64_t elapsed)
{
    uint32_t n = 0, lane = 0;
    for (; k < stop && n < PT_CHUNK; k++) {
        const pt_record *r = &b->record[k];
        if (pt_passes(s, r)) continue;
        if (due && due[k] > elapsed) break;
        if (s->lanes > 1 && s->only < 0) {
            if (n && pt_lane_number(s, r) != lane) break;
            lane = pt_lane_number(s, r);
        }
        s->part[n].iov_base = b->bytes + r->data;
        s->part[n].iov_len = r->caplen;
        if (s->headerless) {
            s->message[n].msg_hdr.msg_name = &s->to[r->caplen && b->bytes[r->data] >> 4 == 6];
            s->message[n].msg_hdr.msg_namelen = sizeof s->to[0];
        }
        s->of[n++] = k;
    }
    return n;
}

static inline void pt_account(pt_sender *s, const pt_batch *b, uint32_t n, const int64_t *due, int64_t t0)
{
    int64_t elapsed = due ? pt_tick(s) - t0 : 0;
    pt_lane_of *lane = &s->lane[s->only >= 0 ? 0 : pt_lane_number(s, &b->record[s->of[0]])];
    uint64_t sent = 0, bytes = 0, cut = 0;
    for (uint32_t i = 0; i < n; i++) {
        const pt_record *r = &b->record[s->of[i]];
        if (r->flags & PT_DROP) continue; /* lost: see pt_transmit() */
        sent++;
        bytes += r->caplen;
        cut += r->caplen < r->wirelen;
        if (due) pt_note_lateness(s, elapsed - due[s->of[i]]);
    }
    s->sent += sent;
    s->bytes += bytes;
    s->cut += cut;
    lane->sent += sent;
    lane->bytes += bytes;
    lane->cut += cut;
    s->tries = 0;
}

/* PT_SEND_ON when it is time. */
static inline int pt_wait(pt_sender *s, int64_t t0, int64_t due, int64_t slice_end)
{
    int64_t when = due > INT64_MAX - t0 ? INT64_MAX : t0 + due;
    for (;;) {
        int64_t now = pt_tick(s), until = s->spin ? when - s->margin : when;
        if (now >= when) return PT_SEND_ON;
        if (now >= slice_end) return PT_SEND_PAUSED;
        if (until > slice_end) until = slice_end;
        if (until > now + PT_NAP) until = now + PT_NAP;
        if (until > now && pt_sleep_until(until)) return PT_SEND_PAUSED;
    }
}

/* Wait for room in the device: 20 us at first, 1 ms at last. */
static inline int pt_back_off(const pt_sender *s)
{
    int64_t pause = s->tries < 6 ? (int64_t)20000 << s->tries : 1000000;
    return pt_sleep_until(pt_now() + pause) ? PT_SEND_PAUSED : PT_SEND_ON;
}

static inline void pt_fail(pt_sender *s, pt_lane_of *lane, int error)
{
    s->failed[error > 0 && error < PT_ERRNOS ? error : 0]++;
    lane->failed++;
}

/* The kernel refused the packet in front; *skip: it is given up. A device that had no room for one packet during all
 * its tries gets one try for each of those behind it, until it takes one. */
static inline int pt_refused(pt_sender *s, pt_lane_of *lane, int error, int *skip)
{
    *skip = 0;
    lane->no_room += error == ENOBUFS;
    lane->again += error == EAGAIN;
    switch (error) {
    case EINTR:
        return PT_SEND_PAUSED;
    case ENETDOWN: case ENXIO: case ENODEV: case EBADF: case ENOTSOCK:
        s->error = error;
        return PT_SEND_FATAL;
    case ECONNREFUSED: /* of a connected socket: it is about an earlier packet */
        s->unheard++;
        return PT_SEND_ON;
    case ENOBUFS: case EAGAIN: case ENOMEM:
        if (s->tries < PT_TRIES) {
            int verdict = pt_back_off(s);
            s->tries++;
            s->retried++;
            return verdict;
        }
    }
    pt_fail(s, lane, error);
    *skip = 1;
    return PT_SEND_ON;
}

/* As sendmmsg(2), by a write for each: how many went, or -1 with errno. */
static inline int pt_write_all(pt_sender *s, int fd, uint32_t n)
{
    uint32_t done = 0;
    while (done < n && write(fd, s->part[done].iov_base, s->part[done].iov_len) >= 0) done++;
    return done || !n ? (int)done : -1;
}

/* How many messages of one lane went, or -1 with errno. Those of them that the device then dropped, as far as it tells,
 * have failed, as if there had been no room. */
static inline int pt_transmit(pt_sender *s, const pt_batch *b, pt_lane_of *lane, uint32_t n)
{
    int done;
    if (s->way == PT_SENDMMSG) return sendmmsg(lane->fd, s->message, n, 0);
    if (s->way == PT_WRITE) return pt_write_all(s, lane->fd, n);
    done = pt_xdp_send(lane->xdp, s->part, n);
    for (uint32_t i = 0; done > 0 && i < lane->xdp->n_lost; i++) {
        b->record[s->of[lane->xdp->lost[i]]].flags |= PT_DROP;
        pt_fail(s, lane, ENOBUFS);
    }
    return done;
}

/* Hand n messages of one lane over; *next: the first record not handled. */
static inline int pt_hand_over(pt_sender *s, const pt_batch *b, uint32_t n, const int64_t *due, int64_t t0,
                               uint32_t *next)
{
    pt_lane_of *lane = &s->lane[s->only >= 0 ? 0 : pt_lane_number(s, &b->record[s->of[0]])];
    int skip, verdict;
    int done = pt_transmit(s, b, lane, n);
    if (done > 0) {
        pt_account(s, b, (uint32_t)done, due, t0);
        *next = s->of[done - 1] + 1;
        /* A signal may have cut a blocked call short: nothing but the count tells. */
        return (uint32_t)done < n ? PT_SEND_PAUSED : PT_SEND_ON;
    }
    verdict = pt_refused(s, lane, done ? errno : EIO, &skip);
    if (skip) b->record[s->of[0]].flags |= PT_DROP;
    if (skip && lane->xdp) pt_xdp_give_up(lane->xdp);
    *next = s->of[0] + (skip != 0);
    return verdict;
}

/* Whether packets at the front are in a ring already, for which there was no room yet. */
static inline int pt_is_queued(const pt_sender *s)
{
    for (uint32_t k = 0; s->way == PT_XDP && k < s->lanes; k++)
        if (pt_xdp_queued(s->lane[k].xdp)) return 1;
    return 0;
}

/* Drop what is too late at the front of the records; the first one that is not, or stop. */
static inline uint32_t pt_skip_late(pt_sender *s, const pt_batch *b, uint32_t k, uint32_t stop, const int64_t *due,
                                    int64_t elapsed)
{
    for (; k < stop && (pt_passes(s, &b->record[k]) || elapsed - due[k] > s->tolerance); k++) {
        if (pt_passes(s, &b->record[k])) continue;
        b->record[k].flags |= PT_DROP;
        s->skipped++;
    }
    return k;
}

/* Send the records [start, stop) that are not dropped. due: for each record of the batch the time at which it is
 * due, ns after t0 (CLOCK_MONOTONIC), or NULL: all of them at once. *next: the first record not handled. Records that
 * are given up are marked PT_DROP. */
static inline int pt_send(pt_sender *s, const pt_batch *b, uint32_t start, uint32_t stop, const int64_t *due, int64_t t0,
                          uint32_t *next)
{
    int64_t slice_end = pt_tick(s) + PT_SLICE;
    int verdict = PT_SEND_ON;
    s->jumped = 0;
    *next = start;
    while (verdict == PT_SEND_ON) {
        uint32_t n;
        while (*next < stop && pt_passes(s, &b->record[*next])) ++*next;
        if (*next == stop) return PT_SEND_DONE;
        if (due && (verdict = pt_wait(s, t0, due[*next], slice_end)) != PT_SEND_ON) break;
        int64_t now = pt_tick(s);
        if (due && s->jumped) return PT_SEND_PAUSED; /* the schedule may move before anything is late */
        if (due && s->skip_late && !pt_is_queued(s)) *next = pt_skip_late(s, b, *next, stop, due, now - t0);
        n = pt_gather(s, b, *next, stop, due, now - t0);
        if (n) verdict = pt_hand_over(s, b, n, due, t0, next);
        if (verdict == PT_SEND_ON && now >= slice_end) verdict = PT_SEND_PAUSED;
    }
    return verdict == PT_SEND_PAUSED && *next == stop ? PT_SEND_DONE : verdict;
}

#endif
