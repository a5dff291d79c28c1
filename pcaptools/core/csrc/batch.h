/* A batch: one buffer of n whole records exactly as the file stores them, and what is known of each.
 *
 * Bytes that belong to no record (file header, pcapng blocks that are not packets) lie between the records
 * and travel with them: writing bytes[0..used) writes the file. bytes[used..filled) is the start of a record
 * that is not whole yet; the reader carries it into the next batch. */
#ifndef PT_BATCH_H
#define PT_BATCH_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define PT_LIKELY(x) __builtin_expect(!!(x), 1)
#define PT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define PT_LIKELY(x) (x)
#define PT_UNLIKELY(x) (x)
#endif

#define PT_NONE UINT32_MAX /* "no such offset" */

/* How the file stores its records. */
enum pt_format { PT_PCAP, PT_PCAPNG };

/* pt_record.flags */
enum {
    PT_EDITED = 1, /* packet bytes were changed: what the block says about them (epb_hash) is stale */
    PT_DROP = 2,   /* leave it out at the next pt_compact() */
};

typedef struct {
    int64_t time;       /* ns since the epoch */
    uint32_t start;     /* offset of the record or block in the batch, bytes */
    uint32_t end;       /* offset of the first byte behind it */
    uint32_t data;      /* offset of the packet */
    uint32_t caplen;    /* captured length, bytes */
    uint32_t wirelen;   /* length on the wire, bytes */
    uint32_t interface; /* index into pt_interfaces */
    uint8_t flags;
    uint8_t reason;     /* why it is dropped: a number its dropper chose */
    uint16_t lane;      /* whoever deals packets out to several senders sets and reads it; else undefined */
} pt_record;

/* One IP header and what it carries. Offsets count from the first byte of the packet. */
typedef struct {
    uint32_t ip;        /* IPv4 or IPv6 header; PT_NONE: there is none */
    uint32_t transport; /* header behind it (behind the extension headers); PT_NONE: absent or in another fragment */
    uint32_t end;       /* first byte behind the IP packet as its length field says; not clipped to what was captured */
    uint8_t version;    /* 4 or 6 */
    uint8_t protocol;   /* of the transport header */
    uint8_t status;     /* enum pt_status */
    uint8_t flags;      /* PT_FRAGMENT ... */
} pt_layer;

/* pt_layer.flags */
enum {
    PT_FRAGMENT = 1,     /* a fragment, the first one included */
    PT_ROUTED = 2,       /* a source route: the pseudo header's destination is not the IP header's */
    PT_NO_LENGTH = 4,    /* length field zero (segmentation offload, jumbogram): end is that of the frame */
};

/* What is known of a packet, or of one of its IP layers. */
enum pt_status {
    PT_OK,
    PT_NOT_IP,      /* another protocol: ARP, LLC, an unknown link type ... */
    PT_LATER_FRAGMENT, /* no transport header in it: it stands in the first fragment */
    PT_TRUNCATED,   /* the captured part ends inside a header */
    PT_BAD_LENGTH,  /* a length field contradicts the headers or the frame */
    PT_MALFORMED,   /* a header that cannot be */
    PT_STATUSES
};

/* Where the headers of one packet are. */
typedef struct {
    uint32_t ethernet;  /* outermost Ethernet header; PT_NONE: there is none */
    uint32_t network;   /* what follows the link layer, VLAN tags and labels; PT_NONE: unknown */
    uint16_t ethertype; /* of that; 0: unknown */
    uint8_t status;     /* enum pt_status of the outermost layer */
    uint8_t depth;      /* IP layers found, at most PT_MAX_DEPTH */
    pt_layer outer, inner; /* outermost and innermost IP layer; equal when depth is 1 */
} pt_where;

/* A tick of an interface's clock in ns: (ticks * multiply / divide) >> shift, divide 0 meaning "too fine: 0". */
typedef struct {
    uint64_t multiply, divide;
    int64_t offset;     /* seconds added to every timestamp (if_tsoffset) */
    uint32_t snaplen;   /* bytes, 0: no limit */
    uint16_t linktype;
    uint8_t shift;
    uint8_t resolution; /* as in if_tsresol */
} pt_interface;

/* Of all sections read so far; grows only. A record's interface is an index into it. One thread may read on while
 * another works on batches: what `of` once pointed to stays valid. */
typedef struct {
    pt_interface *of;
    uint32_t n, room;
    void *outgrown; /* earlier arrays, each beginning with the address of the one before */
} pt_interfaces;

typedef struct {
    uint8_t *bytes;
    size_t capacity, filled, used;
    pt_record *record;
    pt_where *where;    /* parallel to record; valid when located */
    uint32_t n, room, where_room;
    const pt_interfaces *interfaces;
    uint8_t format;     /* enum pt_format */
    uint8_t swapped;    /* headers in the other byte order */
    uint8_t located;
    uint8_t nanoseconds; /* pcap: the fraction of a timestamp is in ns, not us */
    uint8_t header;     /* pcap: bytes of a record header: 16, or 24 in the modified format */
    uint8_t swapped_lengths; /* pcap before 2.3: wire length before captured length */
} pt_batch;

static inline uint16_t pt_swap16(uint16_t v) { return (uint16_t)(v << 8 | v >> 8); }
static inline uint32_t pt_swap32(uint32_t v)
{
    return v << 24 | (v & 0xff00u) << 8 | (v >> 8 & 0xff00u) | v >> 24;
}
static inline uint64_t pt_swap64(uint64_t v)
{
    return (uint64_t)pt_swap32((uint32_t)v) << 32 | pt_swap32((uint32_t)(v >> 32));
}

/* Values in the file's own byte order. */
static inline uint16_t pt_get16(const uint8_t *p, int swapped)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return swapped ? pt_swap16(v) : v;
}
static inline uint32_t pt_get32(const uint8_t *p, int swapped)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return swapped ? pt_swap32(v) : v;
}
static inline uint64_t pt_get64(const uint8_t *p, int swapped)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return swapped ? pt_swap64(v) : v;
}
static inline void pt_put16(uint8_t *p, uint16_t v, int swapped)
{
    if (swapped) v = pt_swap16(v);
    memcpy(p, &v, 2);
}
static inline void pt_put32(uint8_t *p, uint32_t v, int swapped)
{
    if (swapped) v = pt_swap32(v);
    memcpy(p, &v, 4);
}
static inline void pt_put64(uint8_t *p, uint64_t v, int swapped)
{
    if (swapped) v = pt_swap64(v);
    memcpy(p, &v, 8);
}

/* Values in network byte order. */
static inline uint16_t pt_net16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t pt_net32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void pt_put_net16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void pt_put_net32(uint8_t *p, uint32_t v)
{
    pt_put_net16(p, (uint16_t)(v >> 16));
    pt_put_net16(p + 2, (uint16_t)v);
}

/* Room for capacity bytes. 0: done, -1: no memory (the batch stays as it was). */
static inline int pt_batch_reserve(pt_batch *b, size_t capacity)
{
    uint8_t *bytes;
    if (capacity <= b->capacity) return 0;
    bytes = realloc(b->bytes, capacity);
    if (!bytes) return -1;
    b->bytes = bytes;
    b->capacity = capacity;
    return 0;
}

static inline int pt_batch_grow_records(pt_batch *b)
{
    uint32_t room = b->room ? b->room * 2 : 1024;
    pt_record *record = realloc(b->record, room * sizeof *record);
    if (!record) return -1;
    b->record = record;
    b->room = room;
    return 0;
}

/* Let an empty batch store its records as another one does. */
static inline void pt_store_like(pt_batch *out, const pt_batch *b)
{
    out->format = b->format;
    out->swapped = b->swapped;
    out->nanoseconds = b->nanoseconds;
    out->header = b->header;
    out->swapped_lengths = b->swapped_lengths;
    out->located = 0;
}

static inline void pt_batch_free(pt_batch *b)
{
    free(b->bytes);
    free(b->record);
    free(b->where);
}

#endif
