/* The BPF virtual machine (McCanne and Jacobson, 1993), run over a batch. */
#ifndef PT_FILTER_H
#define PT_FILTER_H

#include "batch.h"

/* As libpcap's struct bpf_insn. */
typedef struct {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
} pt_instruction;

enum { PT_FILTER_MEMORY = 16 };

/* Whether a program of n instructions can be run: known codes, jumps forward and inside, a return at the end. */
static inline int pt_filter_valid(const pt_instruction *f, uint32_t n)
{
    if (!n || (f[n - 1].code & 7) != 6) return 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rest = n - i - 1;
        int kind = f[i].code & 7;
        if ((kind == 2 || kind == 3) && f[i].k >= PT_FILTER_MEMORY) return 0;
        if (kind <= 1 && (f[i].code & 0xe0) == 0x60 && f[i].k >= PT_FILTER_MEMORY) return 0;
        if (f[i].code == 0x05 && f[i].k >= rest) return 0;
        if (kind == 5 && f[i].code != 0x05 && (f[i].jt >= rest || f[i].jf >= rest)) return 0;
    }
    return 1;
}

/* A value of 4, 2 or 1 bytes at offset k; fails beyond the captured part. */
static inline int pt_filter_load(const uint8_t *p, uint32_t caplen, uint64_t k, int size, uint32_t *value)
{
    uint32_t bytes = size == 0x00 ? 4 : size == 0x08 ? 2 : 1;
    if (k + bytes > caplen) return 0;
    *value = bytes == 4 ? pt_net32(p + k) : bytes == 2 ? pt_net16(p + k) : p[k];
    return 1;
}

static inline int pt_filter_alu(uint16_t code, uint32_t *a, uint32_t v)
{
    switch (code & 0xf0) {
    case 0x00: *a += v; break;
    case 0x10: *a -= v; break;
    case 0x20: *a *= v; break;
    case 0x30:
        if (!v) return 0;
        *a /= v;
        break;
    case 0x40: *a |= v; break;
    case 0x50: *a &= v; break;
    case 0x60: *a = v < 32 ? *a << v : 0; break;
    case 0x70: *a = v < 32 ? *a >> v : 0; break;
    case 0x80: *a = 0 - *a; break;
    case 0x90:
        if (!v) return 0;
        *a %= v;
        break;
    case 0xa0: *a ^= v; break;
    default: return 0;
    }
    return 1;
}

static inline int pt_filter_jump(uint16_t code, uint32_t a, uint32_t v)
{
    switch (code & 0xf0) {
    case 0x10: return a == v;
    case 0x20: return a > v;
    case 0x30: return a >= v;
    case 0x40: return (a & v) != 0;
    }
    return 0;
}

/* Run a valid program over one packet. Returns what it returns: 0 for "no match". */
static inline uint32_t pt_filter_run(const pt_instruction *f, const uint8_t *p, uint32_t caplen, uint32_t wirelen)
{
    uint32_t a = 0, x = 0, memory[PT_FILTER_MEMORY] = {0};
    for (;; f++) {
        uint32_t v = f->code & 8 ? x : f->k;
        switch (f->code & 7) {
        case 0: /* load A */
        case 1: /* load X */
            switch (f->code & 0xe0) {
            case 0x00: v = f->k; break;
            case 0x20: if (!pt_filter_load(p, caplen, f->k, f->code & 0x18, &v)) return 0; break;
            case 0x40: if (!pt_filter_load(p, caplen, (uint64_t)x + f->k, f->code & 0x18, &v)) return 0; break;
            case 0x60: v = memory[f->k]; break;
            case 0x80: v = wirelen; break;
            case 0xa0:
                if (!pt_filter_load(p, caplen, f->k, 0x10, &v)) return 0;
                v = (v & 15) * 4;
                break;
            default: return 0;
            }
            if (f->code & 1) x = v;
            else a = v;
            break;
        case 2: memory[f->k] = a; break;
        case 3: memory[f->k] = x; break;
        case 4: if (!pt_filter_alu(f->code, &a, v)) return 0; break;
        case 5: f += f->code == 0x05 ? f->k : pt_filter_jump(f->code, a, v) ? f->jt : f->jf; break;
        case 6: return f->code & 0x10 ? a : f->k;
        case 7:
            if (f->code & 0x80) a = x;
            else x = a;
            break;
        }
    }
}

/* Mark with PT_DROP the packets of one link type that do not match. Returns how many were marked. */
static inline uint64_t pt_filter(pt_batch *b, uint16_t linktype, const pt_instruction *f)
{
    uint64_t dropped = 0;
    for (uint32_t k = 0; k < b->n; k++) {
        pt_record *r = &b->record[k];
        if (r->flags & PT_DROP || b->interfaces->of[r->interface].linktype != linktype) continue;
        if (pt_filter_run(f, b->bytes + r->data, r->caplen, r->wirelen)) continue;
        r->flags |= PT_DROP;
        dropped++;
    }
    return dropped;
}

#endif
