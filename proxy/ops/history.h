#ifndef PROXY_OPS_HISTORY_H
#define PROXY_OPS_HISTORY_H

#include <stdint.h>

#include "proxy/ops/metrics.h"

/* What the counters grew by in each minute of the last day: for the status page's plots.  One
 * thread's. */

#define HISTORY_MINUTES 1440

enum history_series {
    HISTORY_ACCEPTED, /* recipients; also those that monitor = yes let pass */
    HISTORY_REFUSED,
    HISTORY_DEFERRED,
    HISTORY_SERIES
};

/* A value: one minute, or the sum of several. */
struct history_slot {
    uint64_t v[HISTORY_SERIES];
};

struct history;

/* NULL when memory is out.  NOW_MS is clock_ms's. */
struct history *history_new(int64_t now_ms);
void history_free(struct history **h); /* NULL is fine */
/* Add what the counters grew by since the last call to the minute of NOW_MS.  Call it at least once
 * a minute; a minute in which it was not called is empty. */
void history_sample(struct history *h, const struct metrics_counts *c, int64_t now_ms);
/* The last SLOTS spans of MINUTES each into OUT, oldest first, the running one last.
 * SLOTS * MINUTES is at most HISTORY_MINUTES. */
void history_read(const struct history *h, unsigned minutes, unsigned slots,
                  struct history_slot *out);

#endif
