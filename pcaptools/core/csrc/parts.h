/* A stream, what is known of it, and its packets sorted by file: what a writer of many files needs. */
#ifndef PT_PARTS_H
#define PT_PARTS_H

#include "assemble.h"

typedef struct {
    pt_split split;
    pt_heads heads;
    pt_stream stream;
    uint32_t *order, *first; /* as pt_sort_places() makes them */
    uint32_t groups;         /* 0: not sorted */
} pt_parts;

#endif
