/* Flows as lines of text. */
#ifndef PT_LISTING_H
#define PT_LISTING_H

#include <arpa/inet.h>

#include "flows.h"

enum { PT_LINE = 512, PT_NAME = 24 }; /* bytes that a line may take, and the name of a protocol with a zero behind */

static inline const char *pt_flow_ending(const pt_flow *f)
{
    static const char *const end[] = {"open", "timeout", "reused"};
    const uint8_t both = PT_SEEN_FIN_0 | PT_SEEN_FIN_1;
    if (f->seen & PT_SEEN_RST) return "rst";
    if (f->seen & both) return (f->seen & both) == both ? "fin" : "half";
    return end[f->end];
}

static inline char *pt_put_text(char *out, const char *text)
{
    while (*text) *out++ = *text++;
    return out;
}

/* A number with so many digits at least. */
static inline char *pt_put_number(char *out, uint64_t number, int digits)
{
    char reversed[20];
    int n = 0;
    for (; number || n < digits; number /= 10) reversed[n++] = (char)('0' + number % 10);
    while (n) *out++ = reversed[--n];
    return out;
}

static inline char *pt_put_hex(char *out, uint32_t number)
{
    for (int shift = 28; shift >= 0; shift -= 4) *out++ = "0123456789abcdef"[number >> shift & 15];
    return out;
}

static inline char *pt_put_end(char *out, const pt_flow *f, int end)
{
    const uint8_t *address = f->key.address[end];
    const int six = f->key.version == 6, ports = f->key.kind == PT_KEY_PORTS;
    if (six) {
        char text[INET6_ADDRSTRLEN];
        if (ports) *out++ = '[';
        if (inet_ntop(AF_INET6, address, text, sizeof text)) out = pt_put_text(out, text);
        if (ports) *out++ = ']';
    } else {
        for (int k = 0; k < 4; k++) {
            if (k) *out++ = '.';
            out = pt_put_number(out, address[k], 1);
        }
    }
    if (!ports) return out;
    *out++ = ':';
    return pt_put_number(out, f->key.port[end], 1);
}

/* A stack of VLANs, the outermost first. */
static inline char *pt_put_vlans(char *out, const pt_split *s, uint32_t node)
{
    uint64_t vlan[PT_MAX_SHIM];
    int n = 0;
    for (; node && n < PT_MAX_SHIM; n++) {
        const pt_vlan_node *one = pt_row(&s->vlans, node);
        vlan[n] = one->vlan;
        node = (uint32_t)one->parent;
    }
    while (n) {
        out = pt_put_number(out, vlan[--n], 1);
        if (n) *out++ = '.';
    }
    return out;
}

/* Number, packets, bytes, seconds, how it began and ended, key; between tabs. name: of its protocol. Returns what is
 * behind the line; `out` itself: a flow that needs more words than these (calls, causes, what is no flow between two
 * addresses). out has PT_LINE bytes. */
static inline char *pt_put_flow(char *out, const pt_split *s, uint32_t row, uint32_t number, const char *name)
{
    static const char *const start[] = {"middle-", "syn-", "syn-ack-"};
    const pt_flow *f = pt_flow_at(s, row);
    const uint64_t duration = (uint64_t)f->last - (uint64_t)f->first;
    const int tcp = f->key.protocol == PT_TCP && f->key.kind == PT_KEY_PORTS;
    if (pt_link_of(s, row).cause != PT_NONE || f->key.kind > PT_KEY_SPI || !f->key.version ||
        (f->key.kind == PT_KEY_PORTS && f->key.extra))
        return out;
    out = pt_put_number(out, number, 1);
    *out++ = '\t';
    out = pt_put_number(out, f->packets[0] + f->packets[1], 1);
    *out++ = '\t';
    out = pt_put_number(out, f->bytes[0] + f->bytes[1], 1);
    *out++ = '\t';
    out = pt_put_number(out, duration / 1000000000, 1);
    *out++ = '.';
    out = pt_put_number(out, duration / 1000 % 1000000, 6);
    *out++ = '\t';
    if (tcp) out = pt_put_text(out, start[f->start]);
    out = pt_put_text(out, pt_flow_ending(f));
    *out++ = '\t';
    out = pt_put_text(out, name);
    *out++ = ' ';
    out = pt_put_end(out, f, f->client);
    *out++ = ' ';
    out = pt_put_end(out, f, !f->client);
    if (f->key.kind == PT_KEY_ECHO) out = pt_put_number(pt_put_text(out, " id "), f->key.extra, 1);
    if (f->key.kind == PT_KEY_SPI) out = pt_put_hex(pt_put_text(out, " spi 0x"), f->key.extra);
    if (f->key.vlan) out = pt_put_vlans(pt_put_text(out, " vlan "), s, f->key.vlan);
    *out++ = '\n';
    return out;
}

#endif
