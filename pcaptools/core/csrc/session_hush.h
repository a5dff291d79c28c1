/* Sessions that went wrong like others which were shown: only counted, so that a flood of them costs little. */
#ifndef PT_SESSION_HUSH_H
#define PT_SESSION_HUSH_H

#include "session.h"
#include "keytable.h"

enum { PT_HUSHED = 8192 }; /* places; half of them are used at most */

/* Who: a server, or a client, whose port is 0; and what: see pt_kind_of(). */
typedef struct {
    uint8_t address[16];
    uint64_t kind;
    uint16_t port;
    uint8_t version, client, unused[4];
} pt_hush_key;

typedef struct {
    pt_hush_key key;
    uint64_t count;
    uint32_t number; /* from 1; 0: the place is free */
} pt_hush;

static inline void pt_make_hush_key(const pt_flow_key *from, int end, int client, uint64_t kind, pt_hush_key *key)
{
    memset(key, 0, sizeof *key);
    memcpy(key->address, from->address[end], from->version == 6 ? 16 : 4);
    key->kind = kind;
    key->port = client ? 0 : from->port[end];
    key->version = from->version;
    key->client = (uint8_t)client;
}

/* Where it is, or would be. */
static inline pt_hush *pt_find_hush(pt_hush *hush, const pt_hush_key *key, uint64_t seed)
{
    uint32_t at = pt_key_hash(key, sizeof *key, seed) % PT_HUSHED;
    while (hush[at].number && memcmp(&hush[at].key, key, sizeof *key)) at = (at + 1) % PT_HUSHED;
    return &hush[at];
}

/* Whether such a session is counted only; it is counted. client: which of the ends. */
static inline int pt_is_hushed(pt_hush *hush, const pt_flow_key *from, int client, uint64_t kind, uint64_t seed)
{
    for (int by_client = 0; by_client < 2; by_client++) {
        pt_hush_key key;
        pt_hush *found;
        pt_make_hush_key(from, by_client ? client : !client, by_client, kind, &key);
        found = pt_find_hush(hush, &key, seed);
        if (!found->number) continue;
        found->count++;
        return 1;
    }
    return 0;
}

#endif
