/* net/csrc/xdp.h against a kernel of our own: sendto() takes packets as copy mode does, with all that may go wrong, and
 * publishes the consumer index as the real one does. Each packet must be taken once and in order, and be told as sent,
 * lost, or given up. Built by tests/test_xdp.py with the sanitizers; argument: a seed. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static ssize_t kernel_takes(void);
#define sendto(fd, data, size, flags, to, length) kernel_takes()
#include "xdp.h"
#undef sendto

enum { PACKETS = 200000, MESSAGES = 300 };

static pt_xdp x;
static uint32_t cached, tx_producer, tx_consumer, tx_flags, done_producer, done_consumer;
static struct xdp_desc descriptors[PT_XDP_FRAMES];
static uint64_t completions[PT_XDP_FRAMES];
static uint64_t pending[PT_XDP_FRAMES];
static uint32_t n_pending;
static uint8_t fate[PACKETS]; /* 1: on the wire, 2: dropped */
static uint32_t last;

static uint32_t chance(uint32_t n) { return (uint32_t)random() % n; }

static void complete(uint32_t keep)
{
    while (n_pending > keep) {
        uint32_t k = chance(n_pending);
        completions[done_producer % PT_XDP_FRAMES] = pending[k];
        pending[k] = pending[--n_pending];
        done_producer++;
    }
}

static ssize_t kernel_takes(void)
{
    int budget = 32, sent = 0, error = 0;
    if (chance(3) == 0) complete(chance(PT_XDP_FRAMES));
    if (cached == tx_producer) tx_consumer = cached;
    while (cached != tx_producer) {
        struct xdp_desc *desc = &descriptors[cached % PT_XDP_FRAMES];
        uint32_t number;
        uint32_t what = chance(200);
        if (budget-- == 0 || what == 0) {
            error = EAGAIN;
            break;
        }
        if (what == 1) {
            error = ENOBUFS;
            break;
        }
        memcpy(&number, x.area + desc->addr, sizeof number);
        assert(desc->len == 14 + number % 1000 && number >= last && number < PACKETS && !fate[number]);
        last = number;
        cached++;
        pending[n_pending++] = desc->addr;
        fate[number] = what == 2 ? 2 : 1;
        if (what == 2) {
            error = EBUSY;
            break;
        }
        sent = 1;
    }
    if (cached == tx_producer && !error) tx_consumer = cached;
    if (sent) tx_consumer = cached;
    errno = error;
    return error ? -1 : 0;
}

int main(int argc, char **argv)
{
    static uint8_t area[PT_XDP_FRAMES * PT_XDP_FRAME], packet[MESSAGES][1100], told[PACKETS];
    uint32_t next = 0, tries = 0, given_up = 0, lost = 0;
    srandom(argc > 1 ? (unsigned)atoi(argv[1]) : 1);
    x.area = area;
    x.largest = 1514;
    x.tx.producer = &tx_producer, x.tx.consumer = &tx_consumer, x.tx.flags = &tx_flags;
    x.tx.entry = (uint8_t *)descriptors;
    x.done.producer = &done_producer, x.done.consumer = &done_consumer, x.done.entry = (uint8_t *)completions;
    for (uint32_t k = 0; k < PT_XDP_FRAMES; k++) x.unused[x.n_unused++] = k;
    while (next < PACKETS) {
        struct iovec part[MESSAGES];
        uint32_t n = pt_xdp_queued(&x) + chance(40);
        if (!n) n = 1;
        if (n > MESSAGES) n = MESSAGES;
        if (n > PACKETS - next) n = PACKETS - next;
        for (uint32_t k = 0; k < n; k++) {
            uint32_t number = next + k;
            memcpy(packet[k], &number, sizeof number);
            part[k] = (struct iovec){packet[k], 14 + number % 1000};
        }
        int taken = pt_xdp_send(&x, part, n);
        if (taken < 0) {
            assert(errno == EAGAIN || errno == ENOBUFS);
            complete(0);
            if (++tries % 7 == 0) { /* the caller's patience is over */
                pt_xdp_give_up(&x);
                told[next++] = 3;
                given_up++;
            }
            continue;
        }
        assert((uint32_t)taken <= n);
        for (int k = 0; k < taken; k++) told[next + k] = 1;
        for (uint32_t k = 0; k < x.n_lost; k++) {
            assert(x.lost[k] < (uint32_t)taken);
            told[next + x.lost[k]] = 2;
            lost++;
        }
        next += (uint32_t)taken;
    }
    for (uint32_t k = 0; k < PACKETS; k++) assert(told[k] == 3 || told[k] == fate[k]);
    complete(0);
    pt_xdp_reclaim(&x);
    assert(x.n_unused == PT_XDP_FRAMES - (x.put - x.gone));
    for (uint32_t k = 0; k < x.n_unused; k++)
        for (uint32_t i = 0; i < k; i++) assert(x.unused[i] != x.unused[k]);
    assert(lost > 100 && given_up > 10);
    printf("%u lost, %u given up\n", lost, given_up);
    return 0;
}
