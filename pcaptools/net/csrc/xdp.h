/* Sending through an AF_XDP socket (af_xdp.rst of the kernel's documentation), by system calls alone.
 *
 * Packets are copied into frames of a memory area that the kernel shares; a descriptor in the transmit ring says that
 * one is ready, the completion ring gives it back. Where the driver reads frames itself ("zero copy"), the ring is all
 * that there is to know. Elsewhere ("copy mode") sendto() sends what is in the ring, up to a budget, and tells when the
 * device dropped one: which one is worked out from the ring's consumer index, which the kernel publishes only when a
 * call sent something. Nothing is received; the fill ring is there because bind() wants one. */
#ifndef PT_XDP_H
#define PT_XDP_H

#include <errno.h>
#include <linux/if_xdp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define PT_XDP_FRAME 4096   /* bytes: the largest that the kernel allows, a page */
#define PT_XDP_LEAST 14     /* bytes: an Ethernet header */
#define PT_XDP_FRAMES 1024  /* 4 MiB; entries of the rings as well, so that these never are full */
#define PT_XDP_BATCH 256    /* messages of a call at most */
#define PT_XDP_BUDGET 9     /* XDP_MAX_TX_SKB_BUDGET: Linux 6.17 */
#define PT_XDP_LINGER 100   /* ms that closing waits for packets under way, times 10 ms that opening waits for a queue */

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

enum pt_xdp_stage { PT_XDP_OK, PT_XDP_MEMORY, PT_XDP_RINGS, PT_XDP_BIND };

typedef struct {
    uint8_t *map;
    size_t size;
    uint32_t *producer, *consumer, *flags;
    uint8_t *entry;
} pt_xdp_ring;

typedef struct {
    int fd;
    uint8_t zero_copy;
    uint32_t largest;     /* bytes of a packet: the device would drop a larger one without a word */
    uint32_t tag;         /* so many more with an 802.1Q tag */
    uint8_t *area;
    pt_xdp_ring tx, done;
    uint32_t put, gone;   /* descriptors written, and those that the kernel has taken */
    uint32_t owed;        /* of those not taken, at the front: the caller has given up the packet */
    uint32_t lost[PT_XDP_BATCH], n_lost; /* messages of the last call that the device dropped */
    uint32_t unused[PT_XDP_FRAMES], n_unused;
} pt_xdp;

static inline int pt_xdp_map(pt_xdp_ring *r, int fd, const struct xdp_ring_offset *at, size_t entry, off_t what)
{
    r->size = at->desc + PT_XDP_FRAMES * entry;
    r->map = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
    if (r->map == MAP_FAILED) {
        r->map = NULL;
        return -1;
    }
    r->producer = (uint32_t *)(r->map + at->producer);
    r->consumer = (uint32_t *)(r->map + at->consumer);
    r->flags = (uint32_t *)(r->map + at->flags);
    r->entry = r->map + at->desc;
    return 0;
}

static inline int pt_xdp_set(int fd, int option, const void *value, socklen_t size)
{
    return setsockopt(fd, SOL_XDP, option, value, size);
}

static inline int pt_xdp_rings(pt_xdp *x)
{
    int frames = PT_XDP_FRAMES, budget = PT_XDP_BATCH;
    struct xdp_mmap_offsets at;
    socklen_t size = sizeof at;
    if (pt_xdp_set(x->fd, XDP_UMEM_FILL_RING, &frames, sizeof frames)
        || pt_xdp_set(x->fd, XDP_UMEM_COMPLETION_RING, &frames, sizeof frames)
        || pt_xdp_set(x->fd, XDP_TX_RING, &frames, sizeof frames)
        || getsockopt(x->fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &size)) return -1;
    pt_xdp_set(x->fd, PT_XDP_BUDGET, &budget, sizeof budget); /* fewer calls, where it exists */
    return pt_xdp_map(&x->tx, x->fd, &at.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING)
        || pt_xdp_map(&x->done, x->fd, &at.cr, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
}

/* Make a socket ready to send packets of at most `largest` bytes (and a tag) out of a queue of a device, without copies where the
 * driver can do that. Returns at what it failed, with errno; pt_xdp_close() is due in any case. */
static inline int pt_xdp_open(pt_xdp *x, int fd, uint32_t interface, uint32_t queue, uint32_t largest, uint32_t tag)
{
    struct xdp_umem_reg memory = {.len = (uint64_t)PT_XDP_FRAME * PT_XDP_FRAMES, .chunk_size = PT_XDP_FRAME};
    struct sockaddr_xdp to = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_USE_NEED_WAKEUP, .sxdp_ifindex = interface,
                              .sxdp_queue_id = queue};
    struct timespec pause = {.tv_nsec = 10000000};
    struct xdp_options options = {0};
    socklen_t size = sizeof options;
    memset(x, 0, sizeof *x);
    x->fd = fd;
    x->largest = largest;
    x->tag = tag;
    x->area = mmap(NULL, memory.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (x->area == MAP_FAILED) {
        x->area = NULL;
        return PT_XDP_MEMORY;
    }
    for (uint32_t k = 0; k < PT_XDP_FRAMES; k++) x->unused[x->n_unused++] = k;
    memory.addr = (uint64_t)(uintptr_t)x->area;
    if (pt_xdp_set(fd, XDP_UMEM_REG, &memory, sizeof memory)) return PT_XDP_MEMORY;
    if (pt_xdp_rings(x)) return PT_XDP_RINGS;
    /* A socket that was closed just now keeps its queue until the kernel finds the time to tidy up. */
    for (int k = 0; bind(fd, (struct sockaddr *)&to, sizeof to); k++)
        if (errno != EBUSY || k == PT_XDP_LINGER || nanosleep(&pause, NULL)) return PT_XDP_BIND;
    if (!getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &size)) x->zero_copy = options.flags & XDP_OPTIONS_ZEROCOPY;
    return PT_XDP_OK;
}

/* Take back the frames of packets that are sent. */
static inline void pt_xdp_reclaim(pt_xdp *x)
{
    uint32_t from = *x->done.consumer, to = __atomic_load_n(x->done.producer, __ATOMIC_ACQUIRE);
    if (from == to) return;
    for (; from != to; from++) {
        uint64_t address;
        memcpy(&address, x->done.entry + (from % PT_XDP_FRAMES) * sizeof address, sizeof address);
        if (x->n_unused < PT_XDP_FRAMES) x->unused[x->n_unused++] = (uint32_t)(address / PT_XDP_FRAME % PT_XDP_FRAMES);
    }
    __atomic_store_n(x->done.consumer, from, __ATOMIC_RELEASE);
}

/* Messages in front of the next call that are in the ring already. */
static inline uint32_t pt_xdp_queued(const pt_xdp *x) { return x->put - x->gone - x->owed; }

/* Write descriptors for messages [from, n), as many as there are frames for. */
static inline void pt_xdp_put(pt_xdp *x, const struct iovec *part, uint32_t from, uint32_t n)
{
    for (; from < n && x->n_unused; from++) {
        uint64_t address = (uint64_t)x->unused[--x->n_unused] * PT_XDP_FRAME;
        struct xdp_desc desc = {.addr = address, .len = (uint32_t)part[from].iov_len};
        memcpy(x->area + address, part[from].iov_base, part[from].iov_len);
        memcpy(x->tx.entry + (x->put++ % PT_XDP_FRAMES) * sizeof desc, &desc, sizeof desc);
    }
    __atomic_store_n(x->tx.producer, x->put, __ATOMIC_RELEASE);
}

/* The device dropped the packet that was taken last; `since`: x->gone when the call began. */
static inline void pt_xdp_note_loss(pt_xdp *x, uint32_t since)
{
    uint32_t message = x->gone - 1 - since;
    if (message < x->owed) return;
    if (x->n_lost < PT_XDP_BATCH) x->lost[x->n_lost++] = message - x->owed;
}

/* Let the kernel send what is in the ring. 0: it has taken all, or an errno. */
static inline int pt_xdp_kick(pt_xdp *x, uint32_t since)
{
    if (x->zero_copy) {
        int asleep = *(volatile uint32_t *)x->tx.flags & XDP_RING_NEED_WAKEUP;
        x->gone = x->put;
        if (!asleep || sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0) return 0;
        return errno == ENETDOWN || errno == ENXIO ? errno : 0;
    }
    while (x->gone != x->put) {
        uint32_t before = x->gone, seen;
        int error;
        if (sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0) {
            x->gone = x->put;
            return 0;
        }
        error = errno;
        seen = __atomic_load_n(x->tx.consumer, __ATOMIC_ACQUIRE);
        if ((int32_t)(seen - x->gone) > 0) x->gone = seen;
        if (error == EBUSY) {
            if (x->gone == before) x->gone++;
            pt_xdp_note_loss(x, since);
        } else if (error != EAGAIN || x->gone == before) {
            return error;
        }
    }
    return 0;
}

/* 0, or why a packet cannot be sent: an errno of packet sockets. */
static inline int pt_xdp_unfit(const pt_xdp *x, const struct iovec *part)
{
    const uint8_t *p = part->iov_base;
    if (part->iov_len < PT_XDP_LEAST) return EINVAL;
    if (part->iov_len > PT_XDP_FRAME) return EMSGSIZE;
    return part->iov_len > x->largest + (p[12] == 0x81 && !p[13] ? x->tag : 0) ? EMSGSIZE : 0;
}

/* As sendmmsg(2): how many messages were handed over, those in x->lost in vain, or -1 with errno. What was left in the
 * ring after an error are the first messages of the next call. */
static inline int pt_xdp_send(pt_xdp *x, const struct iovec *part, uint32_t n)
{
    uint32_t since = x->gone, owed = x->owed, taken;
    int error;
    x->n_lost = 0;
    if (!x->area) {
        errno = EBADF;
        return -1;
    }
    pt_xdp_reclaim(x);
    for (uint32_t k = 0; k < n && k < PT_XDP_BATCH; k++)
        if (pt_xdp_unfit(x, &part[k])) n = k; /* those in front of it first */
    if (!n && x->gone == x->put) {
        errno = pt_xdp_unfit(x, part);
        return -1;
    }
    pt_xdp_put(x, part, pt_xdp_queued(x), n < PT_XDP_BATCH ? n : PT_XDP_BATCH);
    error = pt_xdp_kick(x, since);
    taken = x->gone - since;
    x->owed -= taken < owed ? taken : owed;
    if (taken > owed) return (int)(taken - owed);
    errno = error ? error : EAGAIN;
    return -1;
}

/* The caller gives up the message in front. Should it be in the ring already, it may still go out. */
static inline void pt_xdp_give_up(pt_xdp *x)
{
    if (pt_xdp_queued(x)) x->owed++;
}

/* The file descriptor stays open. */
static inline void pt_xdp_close(pt_xdp *x)
{
    struct timespec pause = {.tv_nsec = 1000000};
    if (x->tx.map && x->done.map)
        for (int k = 0; k < PT_XDP_LINGER; k++) {
            pt_xdp_reclaim(x);
            if (x->n_unused == PT_XDP_FRAMES || pt_xdp_kick(x, x->gone) == ENXIO) break;
            nanosleep(&pause, NULL);
        }
    if (x->tx.map) munmap(x->tx.map, x->tx.size);
    if (x->done.map) munmap(x->done.map, x->done.size);
    if (x->area) munmap(x->area, (size_t)PT_XDP_FRAME * PT_XDP_FRAMES);
    memset(&x->tx, 0, sizeof x->tx);
    memset(&x->done, 0, sizeof x->done);
    x->area = NULL;
}

#endif
