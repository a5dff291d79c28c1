/* Putting together one capture of the packets of one file, from a stream that holds those of all files.
 *
 * Records are copied as they are. In front of them stands the stream's file header; in pcapng each section that a
 * packet comes from begins again with its own header and with the descriptions of those interfaces that are used,
 * each just before its first packet. Interfaces are numbered anew, so a file does not grow with those that it does not use. */
#ifndef PT_ASSEMBLE_H
#define PT_ASSEMBLE_H

#include "groups.h"
#include "records.h"

typedef struct {
    uint64_t at;        /* where it begins in the stream */
    size_t offset;      /* of its header in pt_heads.bytes */
    uint32_t size;
    uint32_t interface; /* index of its first interface */
    uint8_t swapped;
    uint8_t simple;     /* has packets that belong to interface 0 without saying so */
} pt_section;

typedef struct {
    size_t offset; /* in pt_heads.bytes */
    uint32_t size;
} pt_description;

/* What number an interface has in the section that is being written, when `stamp` is that section's. Each writer has
 * its own. */
typedef struct {
    uint32_t stamp, number;
} pt_numbered;
typedef struct {
    pt_numbered *interface;
    uint32_t n, stamp;
} pt_numbers;

/* File header, section headers and interface descriptions of the stream. */
typedef struct {
    uint8_t *bytes;
    size_t n, room;
    pt_section *section;
    pt_description *interface;
    uint32_t sections, section_room, interfaces, interface_room;
    uint64_t others; /* blocks that are neither these nor packets */
    uint8_t pcapng;
} pt_heads;

typedef struct {
    const uint8_t *p;
    size_t n;
} pt_piece;

enum { PT_PIECES = 5, PT_PATCH = 12 };

/* One file being put together. */
typedef struct {
    pt_numbers *numbering;
    const uint32_t *order; /* places */
    uint32_t next, end;
    uint32_t section;      /* the one that the file is in; PT_NONE: none yet */
    uint32_t numbers;      /* interfaces described there */
    uint32_t queued, taken;
    uint8_t headed;        /* the file header is written */
    uint8_t patch[PT_PATCH];
    pt_piece queue[PT_PIECES];
} pt_cursor;

/* The stream, or the part of it that is at hand. */
typedef struct {
    const uint8_t *bytes;
    uint64_t at, size; /* where it begins, and how much there is */
} pt_stream;

static inline int pt_grow(void *array, uint32_t n, uint32_t *room, size_t size)
{
    void *old, *grown;
    uint32_t wanted = *room ? *room * 2 : 8;
    if (n < *room) return 0;
    memcpy(&old, array, sizeof old);
    grown = wanted > *room ? realloc(old, wanted * size) : NULL;
    if (!grown) return -1;
    memcpy(array, &grown, sizeof grown);
    *room = wanted;
    return 0;
}

/* Keep n bytes. Returns their offset, SIZE_MAX: no memory. */
static inline size_t pt_keep_head(pt_heads *h, const uint8_t *p, size_t n)
{
    size_t at = h->n;
    if (h->n + n > h->room) {
        size_t room = (h->n + n) * 2;
        uint8_t *bytes = realloc(h->bytes, room);
        if (!bytes) return SIZE_MAX;
        h->bytes = bytes;
        h->room = room;
    }
    memcpy(h->bytes + at, p, n);
    h->n += n;
    return at;
}

static inline int pt_keep_section(pt_heads *h, const uint8_t *p, uint32_t total, uint64_t at, int swapped)
{
    pt_section *section;
    if (pt_grow(&h->section, h->sections, &h->section_room, sizeof *section)) return -1;
    section = &h->section[h->sections];
    section->offset = pt_keep_head(h, p, total);
    if (section->offset == SIZE_MAX) return -1;
    memset(h->bytes + section->offset + 16, 0xff, 8); /* its length is another one in every file */
    section->at = at;
    section->size = total;
    section->interface = h->interfaces;
    section->swapped = (uint8_t)swapped;
    section->simple = 0;
    h->sections++;
    return 0;
}

static inline int pt_keep_interface(pt_heads *h, const uint8_t *p, uint32_t total)
{
    pt_description *interface;
    if (pt_grow(&h->interface, h->interfaces, &h->interface_room, sizeof *interface)) return -1;
    interface = &h->interface[h->interfaces++];
    memset(interface, 0, sizeof *interface);
    interface->size = total;
    interface->offset = pt_keep_head(h, p, total);
    return interface->offset == SIZE_MAX ? -1 : 0;
}

static inline int pt_keep_pcapng(pt_heads *h, const pt_batch *b, uint64_t stream)
{
    size_t at = 0;
    uint32_t k = 0;
    while (at + 12 <= b->used) {
        const uint8_t *p = b->bytes + at;
        const uint32_t type = pt_get32(p, b->swapped), total = pt_get32(p + 4, b->swapped);
        if (k < b->n && at == b->record[k].start) {
            if (type == PT_BLOCK_SIMPLE_PACKET && h->sections) h->section[h->sections - 1].simple = 1;
            at = b->record[k++].end;
            continue;
        }
        if (total < 12 || total > b->used - at) return 0;
        if (type == PT_BLOCK_SECTION) {
            if (pt_keep_section(h, p, total, stream + at, b->swapped)) return -1;
        } else if (type == PT_BLOCK_INTERFACE) {
            if (pt_keep_interface(h, p, total)) return -1;
        } else {
            h->others++;
        }
        at += total;
    }
    return 0;
}

/* Take the headers out of a batch that begins at `stream`. 0: done, -1: no memory. */
static inline int pt_keep_heads(pt_heads *h, const pt_batch *b, uint64_t stream)
{
    const size_t before = b->n ? b->record[0].start : b->used;
    if (h->pcapng) return pt_keep_pcapng(h, b, stream);
    if (stream || !before) return 0;
    return pt_keep_head(h, b->bytes, before) == SIZE_MAX ? -1 : 0;
}

static inline void pt_heads_free(pt_heads *h)
{
    free(h->bytes);
    free(h->section);
    free(h->interface);
}

/* Numbers for all interfaces that there are. 0: done, -1: no memory. */
static inline int pt_numbers_begin(pt_numbers *numbers, const pt_heads *h)
{
    pt_numbered *interface;
    if (h->interfaces <= numbers->n) return 0;
    interface = realloc(numbers->interface, h->interfaces * sizeof *interface);
    if (!interface) return -1;
    memset(interface + numbers->n, 0, (h->interfaces - numbers->n) * sizeof *interface);
    numbers->interface = interface;
    numbers->n = h->interfaces;
    return 0;
}

/* Begin a file; append: its header is there already. */
static inline void pt_cursor_begin(pt_cursor *c, pt_numbers *numbering, const uint32_t *order, uint32_t next, uint32_t end,
                                   int append)
{
    memset(c, 0, sizeof *c);
    c->numbering = numbering;
    c->order = order;
    c->next = next;
    c->end = end;
    c->section = PT_NONE;
    c->headed = (uint8_t)append;
}

static inline void pt_queue(pt_cursor *c, const uint8_t *p, size_t n)
{
    c->queue[c->queued].p = p;
    c->queue[c->queued++].n = n;
}

static inline uint32_t pt_section_at(const pt_heads *h, uint32_t section, uint64_t at)
{
    uint32_t low = 0, high = h->sections;
    if (section != PT_NONE && h->section[section].at <= at &&
        (section + 1 == h->sections || at < h->section[section + 1].at))
        return section;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (h->section[middle].at <= at) low = middle;
        else high = middle;
    }
    return low;
}

static inline void pt_queue_interface(const pt_heads *h, pt_cursor *c, uint32_t interface)
{
    const pt_description *d = &h->interface[interface];
    pt_numbered *numbered = &c->numbering->interface[interface];
    if (numbered->stamp == c->numbering->stamp) return;
    numbered->stamp = c->numbering->stamp;
    numbered->number = c->numbers++;
    pt_queue(c, h->bytes + d->offset, d->size);
}

/* What comes next of pcapng: at most a section header, two interface descriptions and a packet in two pieces. */
static inline void pt_queue_block(const pt_heads *h, pt_cursor *c, const uint8_t *p, const pt_place *place)
{
    const uint32_t section = pt_section_at(h, c->section, place->at);
    const pt_section *s = &h->section[section];
    const uint32_t type = pt_get32(p, s->swapped);
    uint32_t interface = 0, number;
    if (section != c->section || c->numbers > 0xffff) {
        c->section = section;
        c->numbers = 0;
        c->numbering->stamp++;
        pt_queue(c, h->bytes + s->offset, s->size);
        if (s->simple) pt_queue_interface(h, c, s->interface);
    }
    if (type == PT_BLOCK_PACKET) interface = pt_get32(p + 8, s->swapped);
    if (type == PT_BLOCK_OLD_PACKET) interface = pt_get16(p + 8, s->swapped);
    pt_queue_interface(h, c, s->interface + interface);
    number = c->numbering->interface[s->interface + interface].number;
    if (number == interface || type == PT_BLOCK_SIMPLE_PACKET) return;
    memcpy(c->patch, p, PT_PATCH);
    if (type == PT_BLOCK_PACKET) pt_put32(c->patch + 8, number, s->swapped);
    else pt_put16(c->patch + 8, (uint16_t)number, s->swapped);
    pt_queue(c, c->patch, PT_PATCH);
}

/* The next piece of the file; of no bytes at its end. */
static inline pt_piece pt_next_piece(const pt_split *s, const pt_heads *h, pt_cursor *c, const pt_stream *stream)
{
    pt_piece piece = {NULL, 0};
    const pt_place *place;
    uint64_t end;
    if (c->taken < c->queued) return c->queue[c->taken++];
    c->queued = c->taken = 0;
    if (!h->pcapng && !c->headed) {
        c->headed = 1;
        piece.p = h->bytes;
        piece.n = h->n;
        return piece;
    }
    if (c->next == c->end) return piece;
    place = &s->place[c->order[c->next++]];
    piece.p = stream->bytes + (place->at - stream->at);
    piece.n = place->size;
    if (h->pcapng) {
        pt_queue_block(h, c, piece.p, place);
        if (c->queued && c->queue[c->queued - 1].p == c->patch) {
            piece.p += PT_PATCH;
            piece.n -= PT_PATCH;
        }
        if (c->queued) {
            /* the packet goes behind what is queued: there is room, since a patch stands for a described interface */
            pt_queue(c, piece.p, piece.n);
            return c->queue[c->taken++];
        }
        return piece;
    }
    for (end = place->at + place->size; c->next < c->end; c->next++) { /* neighbours in one piece */
        place = &s->place[c->order[c->next]];
        if (place->at != end) break;
        piece.n += place->size;
        end += place->size;
    }
    return piece;
}

/* Copies of the next pieces, as many bytes as fit; *left is the rest of one that did not. Returns how many bytes. */
static inline size_t pt_assemble(const pt_split *s, const pt_heads *h, pt_cursor *c, const pt_stream *stream, pt_piece *left,
                                 uint8_t *out, size_t room)
{
    size_t done = 0;
    while (done < room) {
        size_t n;
        if (!left->n) *left = pt_next_piece(s, h, c, stream);
        if (!left->n) break;
        n = left->n < room - done ? left->n : room - done;
        memcpy(out + done, left->p, n);
        left->p += n;
        left->n -= n;
        done += n;
    }
    return done;
}

/* Bytes of a file. */
static inline uint64_t pt_assembled_size(const pt_split *s, const pt_heads *h, pt_cursor c, const pt_stream *stream)
{
    uint64_t size = 0;
    pt_piece piece;
    while ((piece = pt_next_piece(s, h, &c, stream)).n) size += piece.n;
    return size;
}

#endif
