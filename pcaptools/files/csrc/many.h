/* Writing many captures, one after the other, each with one open and as few writes as its size allows. */
#ifndef PT_MANY_H
#define PT_MANY_H

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include "parts.h"

enum { PT_MANY_BUFFER = 1 << 20 }; /* bytes of one write, at most */
enum pt_many_verdict { PT_MANY_DONE, PT_MANY_MORE, PT_MANY_FAILED };

typedef struct {
    pt_parts *parts;
    const char *const *name; /* of every file */
    const uint32_t *group;   /* what goes into it */
    const uint8_t *append;   /* it is there already and gets more */
    uint32_t n, next;        /* files; the one that is being written or comes next */
    int fd;                  /* -1: that one is not open */
    int error;               /* errno of what failed */
    uint8_t created;         /* whether the file at fd was made here */
    uint8_t failed;          /* whether one that was made here is not complete */
    off_t before;            /* bytes of a file before it got more */
    uint8_t *buffer;
    pt_numbers numbers;
    pt_cursor cursor;
    pt_piece left;
} pt_many;

/* Close the file that is being written. What was there before stays as it was; a new one is the caller's to remove. */
static inline void pt_many_abandon(pt_many *m)
{
    if (m->fd < 0) return;
    m->failed = m->created;
    if (!m->created && ftruncate(m->fd, m->before)) m->before = 0;
    close(m->fd);
    m->fd = -1;
}

static inline int pt_many_fail(pt_many *m)
{
    m->error = errno;
    pt_many_abandon(m);
    return PT_MANY_FAILED;
}

static inline int pt_many_open(pt_many *m)
{
    const uint32_t group = m->group[m->next];
    const int append = m->append[m->next];
    const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | (append ? O_APPEND : O_CREAT | O_EXCL);
    m->created = 0;
    do m->fd = open(m->name[m->next], flags, 0666);
    while (m->fd < 0 && errno == EINTR);
    if (m->fd < 0) return -1;
    m->created = !append;
    if (append && (m->before = lseek(m->fd, 0, SEEK_END)) < 0) return -1;
    if (pt_numbers_begin(&m->numbers, &m->parts->heads)) return -1;
    pt_cursor_begin(&m->cursor, &m->numbers, m->parts->order, m->parts->first[group], m->parts->first[group + 1], append);
    memset(&m->left, 0, sizeof m->left);
    return 0;
}

static inline int pt_write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno != EINTR) return -1;
        if (done < 0) continue;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Write on, about `budget` bytes. A failure leaves `next` at the file that failed. */
static inline int pt_many_write(pt_many *m, size_t budget)
{
    size_t written = 0;
    for (; m->next < m->n; m->next++) {
        size_t n;
        if (written >= budget) return PT_MANY_MORE;
        if (m->fd < 0 && pt_many_open(m)) return pt_many_fail(m);
        do {
            if (written >= budget) return PT_MANY_MORE;
            n = pt_assemble(&m->parts->split, &m->parts->heads, &m->cursor, &m->parts->stream, &m->left, m->buffer,
                            PT_MANY_BUFFER);
            if (pt_write_all(m->fd, m->buffer, n)) return pt_many_fail(m);
            written += n;
        } while (n == PT_MANY_BUFFER);
        n = (size_t)close(m->fd);
        m->fd = -1;
        if (n) return pt_many_fail(m);
        written += 4096;
    }
    return PT_MANY_DONE;
}

#endif
