#include "proxy/ops/history.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct history {
    struct history_slot ring[HISTORY_MINUTES];
    int64_t minute; /* of the newest slot, since clock_ms's beginning */
    struct history_slot seen;
};

struct history *
history_new(int64_t now_ms)
{
    struct history *h = calloc(1, sizeof *h);
    if (h)
        h->minute = now_ms / 60000;
    return h;
}

void
history_free(struct history **h)
{
    free(*h);
    *h = NULL;
}

/* Empty the minutes that have begun since. */
static void
advance(struct history *h, int64_t minute)
{
    int64_t n = minute - h->minute;
    for (int64_t i = 1; i <= n && i <= HISTORY_MINUTES; i++)
        h->ring[(h->minute + i) % HISTORY_MINUTES] = (struct history_slot){{0}};
    h->minute = minute;
}

void
history_sample(struct history *h, const struct metrics_counts *c, int64_t now_ms)
{
    advance(h, now_ms / 60000);
    struct history_slot now = {{metrics_recipients_sum(c, METRICS_VERDICT_ACCEPT) +
                                    metrics_recipients_sum(c, METRICS_VERDICT_WOULD_REJECT),
                                metrics_recipients_sum(c, METRICS_VERDICT_REJECT),
                                metrics_recipients_sum(c, METRICS_VERDICT_DEFER)}};
    struct history_slot *slot = &h->ring[h->minute % HISTORY_MINUTES];
    for (size_t i = 0; i < HISTORY_SERIES; i++)
        slot->v[i] += now.v[i] - h->seen.v[i];
    h->seen = now;
}

void
history_read(const struct history *h, unsigned minutes, unsigned slots, struct history_slot *out)
{
    assert(minutes * slots <= HISTORY_MINUTES);
    memset(out, 0, slots * sizeof *out);
    for (unsigned back = 0; back < minutes * slots; back++) {
        /* clock_ms may begin near 0: minutes before it were never sampled. */
        int64_t minute = h->minute - back;
        if (minute < 0)
            break;
        const struct history_slot *from = &h->ring[minute % HISTORY_MINUTES];
        for (size_t i = 0; i < HISTORY_SERIES; i++)
            out[slots - 1 - back / minutes].v[i] += from->v[i];
    }
}
