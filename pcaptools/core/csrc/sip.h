/* Which call a SIP message is of: two proxies put all their calls into one pair of ports, and tell them apart by
 * Call-ID. Messages that are of no call (registrations, keep-alives) stay with their flow.
 *
 * RFC 3261: sections 7 (messages), 7.3.3 (compact names), 8.1.1.4 (Call-ID). */
#ifndef PT_SIP_H
#define PT_SIP_H

#include "flowtable.h"

enum { PT_MAX_CALL_ID = 256 }; /* bytes; a longer one tells nothing apart */

static inline int pt_starts(const uint8_t *p, uint32_t n, const char *text)
{
    const size_t size = strlen(text);
    return n >= size && !memcmp(p, text, size);
}

static inline int pt_is_sip(const uint8_t *p, uint32_t n)
{
    uint32_t k = 0;
    if (pt_starts(p, n, "SIP/2.0 ")) return 1;
    while (k < n && k < 12 && p[k] >= 'A' && p[k] <= 'Z') k++;
    if (k < 3 || k == n || p[k++] != ' ') return 0;
    return pt_starts(p + k, n - k, "sip:") || pt_starts(p + k, n - k, "sips:") || pt_starts(p + k, n - k, "tel:");
}

/* Whether a header line has this name, given in small letters; *at: where its value begins. */
static inline int pt_sip_named(const uint8_t *line, uint32_t n, const char *name, uint32_t *at)
{
    uint32_t k = 0;
    while (name[k] && k < n && (line[k] | 0x20) == name[k]) k++;
    if (name[k]) return 0;
    while (k < n && (line[k] == ' ' || line[k] == '\t')) k++;
    if (k == n || line[k++] != ':') return 0;
    while (k < n && (line[k] == ' ' || line[k] == '\t')) k++;
    *at = k;
    return 1;
}

/* Call-ID and method of a SIP message, as far as it has them; of a response, the method that it answers (CSeq). */
typedef struct {
    const uint8_t *id, *method;
    uint32_t id_size, method_size;
} pt_sip;

static inline uint32_t pt_word_size(const uint8_t *p, uint32_t n)
{
    uint32_t size = 0;
    while (size < n && p[size] > ' ') size++;
    return size;
}

static inline pt_sip pt_sip_of(const uint8_t *p, uint32_t n)
{
    pt_sip m = {NULL, NULL, 0, 0};
    if (!pt_starts(p, n, "SIP/2.0 ")) {
        m.method = p;
        m.method_size = pt_word_size(p, n);
    }
    while (n && !(m.id && m.method)) {
        const uint8_t *newline = memchr(p, '\n', n);
        const uint32_t size = newline ? (uint32_t)(newline - p) : n;
        uint32_t at;
        if (size <= 1) break; /* behind the headers */
        if (pt_sip_named(p, size, "call-id", &at) || pt_sip_named(p, size, "i", &at)) {
            m.id = p + at;
            m.id_size = pt_word_size(p + at, size - at);
        } else if (pt_sip_named(p, size, "cseq", &at)) {
            while (at < size && p[at] > ' ') at++;
            while (at < size && p[at] == ' ') at++;
            m.method = p + at;
            m.method_size = pt_word_size(p + at, size - at);
        }
        p += newline ? size + 1 : size;
        n -= newline ? size + 1 : size;
    }
    return m;
}

/* Whether only calls have messages of this method. */
static inline int pt_sip_is_of_call(const pt_sip *m)
{
    static const char *const methods[] = {"INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO"};
    for (size_t k = 0; k < sizeof methods / sizeof *methods; k++) {
        if (m->method_size == strlen(methods[k]) && !memcmp(m->method, methods[k], m->method_size)) return 1;
    }
    return 0;
}

/* The node of a text: a chain of nodes of 8 bytes each. make: when it is not there; else *node is 0 then. -1: no
 * memory. */
static inline int pt_text(pt_split *s, const uint8_t *p, uint32_t n, int make, uint32_t *node)
{
    *node = 0;
    for (uint32_t at = 0; at < n; at += 8) {
        const uint32_t part = n - at < 8 ? n - at : 8;
        pt_text_node key = {(uint64_t)part << 32 | *node, 0, 0};
        memcpy(&key.word, p + at, part);
        *node = make ? pt_obtain(&s->texts, &key) : pt_find(&s->texts, &key);
        if (*node == PT_NONE) {
            *node = 0;
            return make ? -1 : 0;
        }
    }
    return 0;
}

/* The call of a message, as a node of texts; 0: it is of none. -1: no memory. */
static inline int pt_call_of(pt_split *s, const uint8_t *p, uint32_t n, uint32_t *node)
{
    pt_sip m;
    int verdict, known;
    pt_text_node *last;
    *node = 0;
    if (!pt_is_sip(p, n)) return 0;
    m = pt_sip_of(p, n);
    if (!m.id_size || m.id_size > PT_MAX_CALL_ID) return 0;
    known = pt_sip_is_of_call(&m);
    verdict = pt_text(s, m.id, m.id_size, known, node);
    if (verdict || !*node) return verdict;
    last = pt_row(&s->texts, *node);
    if (known) last->call = 1;
    if (!last->call) *node = 0;
    return 0;
}

#endif
