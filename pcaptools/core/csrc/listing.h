/* A flow as a line of text. */
#ifndef PT_LISTING_H
#define PT_LISTING_H

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>

#include "flows.h"

enum { PT_LINE = 512 }; /* bytes that a line may take */

static inline const char *pt_flow_ending(const pt_flow *f)
{
    static const char *const end[] = {"open", "timeout", "reused"};
    const uint8_t both = PT_SEEN_FIN_0 | PT_SEEN_FIN_1;
    if (f->seen & PT_SEEN_RST) return "rst";
    if (f->seen & both) return (f->seen & both) == both ? "fin" : "half";
    return end[f->end];
}

static inline int pt_end_text(char *out, const pt_flow *f, int end)
{
    char address[INET6_ADDRSTRLEN];
    const int six = f->key.version == 6, ports = f->key.kind == PT_KEY_PORTS;
    if (!inet_ntop(six ? AF_INET6 : AF_INET, f->key.address[end], address, sizeof address)) return 0;
    if (!ports) return sprintf(out, "%s", address);
    return sprintf(out, six ? "[%s]:%u" : "%s:%u", address, f->key.port[end]);
}

/* Number, packets, bytes, seconds, how it began and ended, key; between tabs. Returns its length; 0: a flow that needs
 * more words than these (VLANs, causes, what is no flow between two addresses). out has PT_LINE bytes. */
static inline int pt_flow_line(char *out, const pt_flow *f, uint32_t number, const char *protocol)
{
    static const char *const start[] = {"middle-", "syn-", "syn-ack-"};
    const uint64_t duration = (uint64_t)f->last - (uint64_t)f->first;
    const int tcp = f->key.protocol == PT_TCP && f->key.kind == PT_KEY_PORTS;
    int n;
    if (f->key.vlan || f->cause != PT_NONE || f->key.kind > PT_KEY_SPI || !f->key.version) return 0;
    n = sprintf(out, "%" PRIu32 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 ".%06" PRIu64 "\t%s%s\t%.64s ", number,
                f->packets[0] + f->packets[1], f->bytes[0] + f->bytes[1], duration / 1000000000,
                duration / 1000 % 1000000, tcp ? start[f->start] : "", pt_flow_ending(f), protocol);
    n += pt_end_text(out + n, f, f->client);
    out[n++] = ' ';
    n += pt_end_text(out + n, f, !f->client);
    if (f->key.kind == PT_KEY_ECHO) n += sprintf(out + n, " id %" PRIu32, f->key.extra);
    if (f->key.kind == PT_KEY_SPI) n += sprintf(out + n, " spi 0x%08" PRIx32, f->key.extra);
    out[n++] = '\n';
    return n;
}

#endif
