/* From one capture format to another.
 *
 * To classic pcap: in place, since no record grows (a simple packet block of 16 bytes + padded data becomes a record
 * of 16 bytes + data). To pcapng: into another batch. */
#ifndef PT_CONVERT_H
#define PT_CONVERT_H

#include "records.h"

/* Write the header of a little-endian or big-endian (swapped) pcap record. */
static inline void pt_put_record_header(uint8_t *p, int64_t time, uint32_t caplen, uint32_t wirelen, int nanoseconds)
{
    int64_t seconds = time / 1000000000, fraction = time % 1000000000;
    if (fraction < 0) {
        seconds--;
        fraction += 1000000000;
    }
    pt_put32(p, (uint32_t)seconds, 0);
    pt_put32(p + 4, (uint32_t)(nanoseconds ? fraction : fraction / 1000), 0);
    pt_put32(p + 8, caplen, 0);
    pt_put32(p + 12, wirelen, 0);
}

/* What no timestamp of a format can say becomes the nearest that it can; *outside counts. */
static inline void pt_hold_time(pt_record *r, int64_t last, uint64_t *outside)
{
    if (r->time >= 0 && r->time <= last) return;
    r->time = r->time < 0 ? 0 : last;
    ++*outside;
}

/* Turn a batch into classic pcap records in host byte order. Records marked PT_DROP and every byte that belongs to
 * no record go; locations stay valid. Returns how many timestamps lost digits; *outside are before 1970 or do not fit
 * 32-bit seconds. */
static inline uint64_t pt_to_pcap(pt_batch *b, int nanoseconds, uint64_t *outside)
{
    const int64_t last = (int64_t)UINT32_MAX * 1000000000 + 999999999;
    uint8_t *bytes = b->bytes;
    uint32_t kept = 0, at = 0;
    uint64_t inexact = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record r = b->record[k];
        if (r.flags & PT_DROP) continue;
        pt_hold_time(&r, last, outside);
        memmove(bytes + at + 16, bytes + r.data, r.caplen);
        pt_put_record_header(bytes + at, r.time, r.caplen, r.wirelen, nanoseconds);
        if (!nanoseconds && r.time % 1000) inexact++;
        r.start = at;
        r.data = at + 16;
        at += 16 + r.caplen;
        r.end = at;
        b->record[kept] = r;
        if (b->located) b->where[kept] = b->where[k];
        kept++;
    }
    b->n = kept;
    b->used = b->filled = at;
    b->format = PT_PCAP;
    b->swapped = 0;
    b->nanoseconds = (uint8_t)nanoseconds;
    b->header = 16;
    b->swapped_lengths = 0;
    return inexact;
}

/* Bytes that pt_to_pcapng() needs. */
static inline size_t pt_pcapng_size(const pt_batch *b)
{
    size_t size = 0;
    for (uint32_t k = 0; k < b->n; k++) size += 32 + (((size_t)b->record[k].caplen + 3) & ~(size_t)3);
    return size;
}

/* Append the records of b to out as enhanced packet blocks in host byte order. interface[i] is the number that
 * b's interface i has in out's only section; timestamps are in ns, and *outside of them were before 1970. out has the
 * room. */
static inline int pt_to_pcapng(pt_batch *b, pt_batch *out, const uint32_t *interface, uint64_t *outside)
{
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        uint32_t padded = (r->caplen + 3) & ~3u, total = 32 + padded;
        uint8_t *p = out->bytes + out->used;
        pt_record *copy;
        if (r->flags & PT_DROP) continue;
        copy = pt_add_record(out);
        if (!copy) return -1;
        pt_hold_time(r, INT64_MAX, outside);
        pt_put32(p, PT_BLOCK_PACKET, 0);
        pt_put32(p + 4, total, 0);
        pt_put32(p + 8, interface[r->interface], 0);
        pt_put32(p + 12, (uint32_t)((uint64_t)r->time >> 32), 0);
        pt_put32(p + 16, (uint32_t)r->time, 0);
        pt_put32(p + 20, r->caplen, 0);
        pt_put32(p + 24, r->wirelen, 0);
        memcpy(p + 28, b->bytes + r->data, r->caplen);
        memset(p + 28 + r->caplen, 0, padded - r->caplen);
        pt_put32(p + 28 + padded, total, 0);
        *copy = *r;
        copy->start = (uint32_t)out->used;
        copy->data = copy->start + 28;
        copy->end = copy->start + total;
        out->used = out->filled = copy->end;
    }
    return 0;
}

#endif
