#include "base/log_queue.h"

#include <stdlib.h>
#include <string.h>

/* What stands before each line's text in the ring. */
struct head {
    int64_t wall_us;
    enum log_level level;
    uint32_t n;
};

struct log_queue {
    size_t capacity, start, used; /* octets */
    uint64_t in, out;             /* lines */
    char ring[];
};

struct log_queue *
log_queue_new(size_t capacity_bytes)
{
    struct log_queue *q = malloc(sizeof *q + capacity_bytes);

    if (!q)
        return NULL;
    *q = (struct log_queue){.capacity = capacity_bytes};
    /* Written to, so that it is there: a flood of lines finds its memory paid for, and no line
     * waits for a page while it holds the lock. */
    memset(q->ring, 0, capacity_bytes);
    return q;
}

void
log_queue_free(struct log_queue **q)
{
    free(*q);
    *q = NULL;
}

/* N octets behind AT, which may be as many as there are. */
static size_t
ahead(const struct log_queue *q, size_t at, size_t n)
{
    return at + n < q->capacity ? at + n : at + n - q->capacity;
}

static size_t
octets_to_end(const struct log_queue *q, size_t at, size_t n)
{
    return n < q->capacity - at ? n : q->capacity - at;
}

static void
ring_put(struct log_queue *q, const void *data, size_t n)
{
    size_t at = ahead(q, q->start, q->used), first = octets_to_end(q, at, n);

    memcpy(q->ring + at, data, first);
    memcpy(q->ring, (const char *)data + first, n - first);
    q->used += n;
}

static void
ring_take(struct log_queue *q, void *data, size_t n)
{
    size_t first = octets_to_end(q, q->start, n);

    memcpy(data, q->ring + q->start, first);
    memcpy((char *)data + first, q->ring, n - first);
    q->used -= n;
    /* An empty ring begins anew, where the processor's cache still has it. */
    q->start = q->used > 0 ? ahead(q, q->start, n) : 0;
}

bool
log_queue_put(struct log_queue *q, const struct log_record *r)
{
    struct head head = {r->wall_us, r->level, (uint32_t)r->text.n};

    if (sizeof head + r->text.n > q->capacity - q->used)
        return false;
    ring_put(q, &head, sizeof head);
    ring_put(q, r->text.p, r->text.n);
    q->in++;
    return true;
}

bool
log_queue_take(struct log_queue *q, struct log_record *r, char text[LOG_LINE_MAX])
{
    struct head head;

    if (q->used == 0)
        return false;
    ring_take(q, &head, sizeof head);
    ring_take(q, text, head.n);
    *r = (struct log_record){head.wall_us, head.level, span_of(text, head.n)};
    q->out++;
    return true;
}

uint64_t
log_queue_in(const struct log_queue *q)
{
    return q->in;
}

uint64_t
log_queue_out(const struct log_queue *q)
{
    return q->out;
}
