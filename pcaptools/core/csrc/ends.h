/* The two ends of a conversation: addresses of 16 bytes (IPv4 in the first 4, zeros behind) and ports. */
#ifndef PT_ENDS_H
#define PT_ENDS_H

#include "batch.h"

static inline uint64_t pt_net64(const uint8_t *p) { return (uint64_t)pt_net32(p) << 32 | pt_net32(p + 4); }

/* Whether the second end comes before the first one in order of addresses, then of ports. */
static inline int pt_ends_reversed(uint8_t address[2][16], const uint16_t port[2])
{
    uint64_t one = pt_net64(address[0]), other = pt_net64(address[1]);
    if (one == other) {
        one = pt_net64(address[0] + 8);
        other = pt_net64(address[1] + 8);
    }
    return one > other || (one == other && port[0] > port[1]);
}

static inline void pt_swap_ends(uint8_t address[2][16], uint16_t port[2])
{
    uint8_t end[16];
    const uint16_t number = port[0];
    memcpy(end, address[0], 16);
    memcpy(address[0], address[1], 16);
    memcpy(address[1], end, 16);
    port[0] = port[1];
    port[1] = number;
}

#endif
