/* Packets that tell of other flows: they are few, and are looked at one by one (engines/relations.py). */
#ifndef PT_TELLING_H
#define PT_TELLING_H

#include "sip.h"

static inline int pt_starts_any(const uint8_t *p, uint32_t n, const char *const *texts)
{
    while (*texts && !pt_starts(p, n, *texts)) texts++;
    return *texts != NULL;
}

/* What the payload of a packet may tell of other flows: enum pt_telling. */
static inline int pt_tells(const pt_split *s, const uint8_t *p, uint32_t n, const pt_flow_key *key, int way)
{
    static const char *const ftp[] = {"227 ", "229 ", "PORT ", "EPRT ", NULL};
    static const char *const http[] = {"GET ", "HTTP/1.", "POST ", "HEAD ", "PUT ", NULL};
    if (s->tells & PT_TELLS_DNS && n >= 12 && (key->port[way] == 53 || key->port[way] == 5353)) return PT_TELLS_DNS;
    if (s->tells & PT_TELLS_SIP && pt_is_sip(p, n)) {
        const pt_sip message = pt_sip_of(p, n);
        if (key->extra || (key->protocol == PT_TCP && pt_sip_is_of_call(&message))) return PT_TELLS_SIP;
    }
    if (key->protocol != PT_TCP) return 0;
    if (s->tells & PT_TELLS_FTP && pt_starts_any(p, n, ftp)) return PT_TELLS_FTP;
    if (s->tells & PT_TELLS_HTTP && pt_starts_any(p, n, http)) return PT_TELLS_HTTP;
    return 0;
}

static inline int pt_listen(pt_split *s, const pt_batch *b, uint32_t k, uint32_t flow, int way)
{
    const pt_record *r = &b->record[k];
    const pt_layer *l = s->inner ? &b->where[k].inner : &b->where[k].outer;
    const pt_flow_key *key = &pt_flow_at(s, flow)->key;
    const uint8_t *p = b->bytes + r->data;
    uint32_t start, end;
    pt_told *told;
    int kind;
    if (key->kind != PT_KEY_PORTS || l->protocol != key->protocol || !pt_payload(p, r->caplen, l, &start, &end)) return 0;
    kind = pt_tells(s, p + start, end - start, key, way);
    if (!kind) return 0;
    if (s->tolds == s->told_room) {
        uint32_t room = s->told_room ? s->told_room * 2 : 64;
        told = realloc(s->told, room * sizeof *told);
        if (!told) return -1;
        s->told = told;
        s->told_room = room;
    }
    told = &s->told[s->tolds++];
    told->ordinal = s->packets;
    told->record = k;
    told->flow = flow;
    told->start = start;
    told->end = end;
    told->kind = (uint8_t)kind;
    told->way = (uint8_t)way;
    told->tcp = l->protocol == PT_TCP;
    return 0;
}

#endif
