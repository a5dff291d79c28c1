/* What generated hosts say to each other: text, DNS (RFC 1035), HTTP/1.1 (RFC 9112). */
#ifndef PT_MESSAGES_H
#define PT_MESSAGES_H

#include "generate.h"

enum {
    PT_POOL = 1 << 15,           /* bytes of text; a power of two */
    PT_POOL_MORE = 1536,         /* bytes that a slice may reach beyond: at least a payload's largest size */
    PT_WORDS = 64,
    PT_HTTP_ROOM = 256,          /* bytes of an HTTP message's head, at most */
    PT_DNS_ROOM = 256,           /* bytes of a DNS message, at most */
    PT_DNS_ADDRESSES = 4,        /* in an answer, at most */
};

static const char *const pt_words[PT_WORDS] = {
    "able", "acid", "amber", "anchor", "apple", "arrow", "autumn", "badge", "basin", "beacon", "birch", "bridge",
    "bronze", "cabin", "candle", "canyon", "cedar", "chalk", "cinder", "clover", "coast", "copper", "coral", "cotton",
    "delta", "ember", "falcon", "fern", "flint", "forest", "garnet", "glacier", "granite", "harbor", "hazel", "heron",
    "island", "ivory", "jasper", "juniper", "lagoon", "lantern", "laurel", "linen", "maple", "marble", "meadow", "mint",
    "north", "ocean", "olive", "orchard", "pebble", "pine", "prairie", "quartz", "raven", "river", "saddle", "silver",
    "stone", "timber", "violet", "willow",
};

/* Text to take payloads from, and what its 16-bit words sum up to. */
typedef struct {
    uint8_t bytes[PT_POOL + PT_POOL_MORE];
    uint32_t sums[(PT_POOL + PT_POOL_MORE) / 2 + 1]; /* sums[k]: of the first k words; at most 2^30 */
} pt_pool;

static inline void pt_pool_fill(pt_pool *pool, pt_random *r)
{
    const uint32_t size = sizeof pool->bytes;
    uint32_t at = 0;
    while (at < size) {
        const char *word = pt_words[pt_below(r, PT_WORDS)];
        while (*word && at < size) pool->bytes[at++] = (uint8_t)*word++;
        if (at < size) pool->bytes[at++] = pt_below(r, 12) ? ' ' : '\n';
    }
    pool->sums[0] = 0;
    for (uint32_t k = 0; k < size / 2; k++) pool->sums[k + 1] = pool->sums[k] + pt_net16(pool->bytes + 2 * k);
}

/* Copy n bytes of the pool from offset `from`, even and below PT_POOL; returns their sum. */
static inline uint64_t pt_pool_take(const pt_pool *pool, uint8_t *to, uint32_t from, uint32_t n)
{
    uint64_t sum = pool->sums[(from + n) / 2] - pool->sums[from / 2];
    memcpy(to, pool->bytes + from, n);
    return n & 1 ? sum + (uint32_t)(pool->bytes[from + n - 1] << 8) : sum;
}

/* ---- text ------------------------------------------------------------------------------------------------- */

static inline uint8_t *pt_add_text(uint8_t *p, const char *text)
{
    while (*text) *p++ = (uint8_t)*text++;
    return p;
}

static inline uint8_t *pt_add_number(uint8_t *p, uint32_t v)
{
    uint8_t digits[10];
    int n = 0;
    do digits[n++] = (uint8_t)('0' + v % 10);
    while (v /= 10);
    while (n) *p++ = digits[--n];
    return p;
}

/* ---- HTTP ------------------------------------------------------------------------------------------------- */

/* A request; what it asks for follows from key. Returns its bytes. */
static inline uint32_t pt_http_request(uint8_t *start, uint32_t host, uint64_t key)
{
    uint8_t *p = pt_add_text(start, "GET /");
    p = pt_add_text(p, pt_words[key % PT_WORDS]);
    *p++ = '/';
    p = pt_add_text(p, pt_words[key >> 8 & (PT_WORDS - 1)]);
    *p++ = '-';
    p = pt_add_number(p, (uint32_t)(key >> 16 & 0xffff));
    p = pt_add_text(p, ".txt HTTP/1.1\r\nHost: ");
    p = pt_add_text(p, pt_words[host % PT_WORDS]);
    *p++ = '-';
    p = pt_add_number(p, host);
    p = pt_add_text(p, ".example\r\nUser-Agent: pcapgen\r\nAccept: text/plain, */*;q=0.1\r\n");
    if (key >> 40 & 1) p = pt_add_text(p, "Accept-Language: en\r\nCache-Control: no-cache\r\n");
    return (uint32_t)(pt_add_text(p, "\r\n") - start);
}

/* The head of a response whose body has so many bytes. */
static inline uint32_t pt_http_response(uint8_t *start, uint32_t length, int found)
{
    uint8_t *p = pt_add_text(start, found ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 404 Not Found\r\n");
    p = pt_add_text(p, "Server: pcapgen\r\nContent-Type: text/plain\r\nContent-Length: ");
    p = pt_add_number(p, length);
    return (uint32_t)(pt_add_text(p, "\r\n\r\n") - start);
}

/* ---- DNS -------------------------------------------------------------------------------------------------- */

static inline uint8_t *pt_add_label(uint8_t *p, const char *text, uint32_t number)
{
    uint8_t *size = p++;
    p = pt_add_text(p, text);
    if (number) p = pt_add_number(p, number);
    *size = (uint8_t)(p - size - 1);
    return p;
}

static inline uint8_t *pt_add_net16(uint8_t *p, uint16_t v)
{
    pt_put_net16(p, v);
    return p + 2;
}

static inline uint8_t *pt_dns_address(uint8_t *p, int v6, uint32_t host)
{
    p = pt_add_net16(p, 0xc00c); /* the name: that of the question */
    p = pt_add_net16(p, v6 ? 28 : 1);
    p = pt_add_net16(p, 1);
    pt_write_net32(p, 60 + host % 3540); /* s to live */
    p = pt_add_net16(p + 4, v6 ? 16 : 4);
    if (v6) {
        pt_write_net32(p, 0x20010db8);
        memset(p + 4, 0, 8);
        pt_write_net32(p + 12, host);
        return p + 16;
    }
    pt_write_net32(p, 0xc6120000 | (host & 0x1ffff)); /* 198.18.0.0/15 */
    return p + 4;
}

/* The query with this key, or with `response` its answer, which may be that there is no such name.
 * Returns its bytes. */
static inline uint32_t pt_dns_message(uint8_t *start, uint64_t key, int response, int exists)
{
    const uint32_t v6 = key >> 16 & 1, host = (uint32_t)(key >> 17 & 0xfffff);
    const uint32_t addresses = response && exists ? 1 + (uint32_t)(key >> 40) % PT_DNS_ADDRESSES : 0;
    uint8_t *p = pt_add_net16(start, (uint16_t)key);
    p = pt_add_net16(p, response ? exists ? 0x8180 : 0x8183 : 0x0100);
    p = pt_add_net16(p, 1);
    p = pt_add_net16(p, (uint16_t)addresses);
    p = pt_add_net16(p, 0);
    p = pt_add_net16(p, 0);
    p = pt_add_label(p, key >> 44 & 1 ? "www" : "api", 0);
    p = pt_add_label(p, pt_words[host % PT_WORDS], host);
    p = pt_add_label(p, "example", 0);
    *p++ = 0;
    p = pt_add_net16(p, v6 ? 28 : 1);
    p = pt_add_net16(p, 1);
    for (uint32_t k = 0; k < addresses; k++) p = pt_dns_address(p, (int)v6, host + k);
    return (uint32_t)(p - start);
}

#endif
