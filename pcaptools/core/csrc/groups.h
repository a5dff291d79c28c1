/* Which flows share a file, and the packets of each file in order. */
#ifndef PT_GROUPS_H
#define PT_GROUPS_H

#include "flows.h"

/* The root of the group that pt_relate() made. */
static inline uint32_t pt_root(pt_split *s, uint32_t flow)
{
    while (flow < s->links && s->link[flow].parent != flow) {
        s->link[flow].parent = s->link[s->link[flow].parent].parent;
        flow = s->link[flow].parent;
    }
    return flow;
}

/* Links for all flows that there are. 0: done, -1: no memory. */
static inline int pt_more_links(pt_split *s)
{
    const uint32_t room = s->flows.n < PT_NONE / 2 ? s->flows.n * 2 : PT_NONE;
    pt_link *link = realloc(s->link, room * sizeof *link);
    if (!link) return -1;
    s->link = link;
    for (; s->links < room; s->links++) {
        const pt_link none = {s->links, PT_NONE, 0};
        link[s->links] = none;
    }
    return 0;
}

/* A flow was caused by another one: they share a file. 1: done, 0: they do already, or it has a cause; -1: no memory. */
static inline int pt_relate(pt_split *s, uint32_t flow, uint32_t cause, int relation)
{
    uint32_t a, b;
    flow = pt_flow_resolved(s, flow);
    cause = pt_flow_resolved(s, cause);
    a = pt_root(s, flow);
    b = pt_root(s, cause);
    if (a == b || pt_link_of(s, flow).cause != PT_NONE) return 0;
    if ((flow >= s->links || cause >= s->links) && pt_more_links(s)) return -1;
    s->link[flow].cause = cause;
    s->link[flow].relation = (uint8_t)relation;
    if (a < b) s->link[b].parent = a;
    else s->link[a].parent = b;
    return 1;
}

/* The key of the file that a flow goes to; 0: it has none. */
static inline int pt_group_key(const pt_split *s, const pt_flow *f, pt_flow_key *key)
{
    const int server = s->grouping == PT_GROUP_SERVER || s->grouping == PT_GROUP_SERVER_PORT;
    const int end = server ? !f->client : f->client;
    memset(key, 0, sizeof *key);
    if (s->grouping == PT_GROUP_FILES) {
        pt_flow_key plain = f->key;
        plain.vlan = 0; /* a node's number depends on the capture */
        pt_number_key(key, PT_KEY_NUMBER, pt_key_hash(&plain, sizeof plain, 0) % s->files);
        return 1;
    }
    if (s->grouping == PT_GROUP_CLIENT || s->grouping == PT_GROUP_SERVER) {
        memcpy(key->address[0], f->key.address[end], 16);
        key->version = f->key.version;
        key->kind = PT_KEY_HOST;
        return 1;
    }
    if (f->key.kind != PT_KEY_PORTS) return 0;
    key->port[0] = f->key.port[end];
    key->kind = PT_KEY_PORT;
    return 1;
}

/* Give every flow its file; a file has the number of its first flow, or of its row in `groups`. With finish, also those
 * that wait for a first fragment. 0: done, -1: no memory. */
static inline int pt_assign_groups(pt_split *s, int finish)
{
    if (finish && pt_forget_datagrams(s, INT64_MAX)) return -1;
    for (uint32_t k = 1; k < s->flows.n; k++) {
        uint32_t row = pt_flow_resolved(s, k);
        pt_flow *f = pt_flow_at(s, row);
        pt_flow_key key;
        if (row != k) {
            pt_flow_at(s, k)->group = f->group;
            if (f->group != PT_NONE) continue;
        }
        if (f->group != PT_NONE || f->key.kind == PT_KEY_DATAGRAM) continue;
        if (s->grouping == PT_GROUP_FLOW) {
            f->group = pt_root(s, row);
        } else if (pt_group_key(s, f, &key)) {
            uint32_t group = pt_obtain(&s->groups, &key);
            if (group == PT_NONE) return -1;
            f->group = group + 1;
        } else {
            f->group = PT_NO_FLOW;
        }
        pt_flow_at(s, k)->group = f->group;
    }
    pt_flow_at(s, PT_NO_FLOW)->group = PT_NO_FLOW;
    return 0;
}

static inline uint32_t pt_group_count(const pt_split *s)
{
    return s->grouping == PT_GROUP_FLOW ? s->flows.n : s->groups.n + 1;
}

static inline uint32_t pt_group_of(const pt_split *s, uint32_t flow)
{
    return pt_flow_at(s, pt_flow_resolved(s, flow))->group;
}

/* Sort the first n places by file, keeping their order in each. first[g] to first[g + 1] of `order` are those of file
 * g; first has room for one more than there are files and one more still. 0: done, -1: a flow has no file. */
static inline int pt_sort_places(const pt_split *s, uint32_t n, uint32_t *order, uint32_t *first)
{
    const uint32_t groups = pt_group_count(s);
    memset(first, 0, ((size_t)groups + 2) * sizeof *first);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t group = pt_group_of(s, s->place[k].flow);
        if (group >= groups) return -1;
        first[group + 2]++;
    }
    for (uint32_t g = 0; g < groups; g++) first[g + 2] += first[g + 1];
    for (uint32_t k = 0; k < n; k++) order[first[pt_group_of(s, s->place[k].flow) + 1]++] = k;
    return 0;
}

/* How many places there are before the first packet whose flow is still provisional. */
static inline uint32_t pt_settled(const pt_split *s)
{
    for (uint32_t k = 0; k < s->places && s->datagrams.n; k++) {
        if (pt_flow_at(s, pt_flow_resolved(s, s->place[k].flow))->key.kind == PT_KEY_DATAGRAM) return k;
    }
    return s->places;
}

#endif
