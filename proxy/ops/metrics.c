#include "proxy/ops/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>

/* The counters are those of struct metrics_counts, in its order, so that reading them is one loop.
 */
#define SLOTS       (sizeof(struct metrics_counts) / sizeof(uint64_t))
#define SLOT(field) (offsetof(struct metrics_counts, field) / sizeof(uint64_t))

/* Threads count in lanes of their own, so that no cache line goes to and fro between two that
 * refuse recipients; more threads than lanes share them. */
#define LANES      16u
#define CACHE_LINE 64

struct lane {
    _Atomic uint64_t v[SLOTS];
    char apart[CACHE_LINE];
};

struct metrics {
    struct lane lanes[LANES];
};

#define US 1000ll
#define MS (1000 * US)
#define S  (1000 * MS)

const int64_t metrics_lookup_limits_ns[METRICS_BUCKETS - 1] = {
    1 * US,  5 * US,  10 * US,  50 * US,  100 * US, 500 * US,  1 * MS, 5 * MS,
    10 * MS, 50 * MS, 100 * MS, 500 * MS, 1 * S,    2500 * MS, 5 * S};
const int64_t metrics_delivery_limits_ns[METRICS_BUCKETS - 1] = {
    5 * MS,    10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1 * S,
    2500 * MS, 5 * S,   10 * S,  30 * S,  60 * S,   300 * S,  540 * S};

/* metrics_refusal_text and the like, each with its table. */
/* clang-format off */
#define METRICS_BEGIN(SET, set) static const char *const set##_texts[] = {
#define METRICS_LABEL(SET, id, text) text,
#define METRICS_END(SET, set) \
    }; \
    const char *metrics_##set##_text(enum metrics_##set value) { return set##_texts[value]; }
/* clang-format on */
#include "proxy/ops/metrics_label.def"
#undef METRICS_BEGIN
#undef METRICS_LABEL
#undef METRICS_END

struct metrics *
metrics_new(void)
{
    return calloc(1, sizeof(struct metrics));
}

void
metrics_free(struct metrics **m)
{
    free(*m);
    *m = NULL;
}

static struct lane *
my_lane(struct metrics *m)
{
    static _Atomic unsigned threads;
    static _Thread_local unsigned number; /* of this thread, from 1 */

    if (number == 0)
        number = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
    return &m->lanes[number % LANES];
}

static void
add(struct metrics *m, size_t slot, uint64_t n)
{
    atomic_fetch_add_explicit(&my_lane(m)->v[slot], n, memory_order_relaxed);
}

static void
observe(struct metrics *m, size_t slot, const int64_t limits[METRICS_BUCKETS - 1], int64_t ns)
{
    size_t i = 0;
    while (i < METRICS_BUCKETS - 1 && ns > limits[i])
        i++;
    add(m, slot + offsetof(struct metrics_histogram, buckets) / sizeof(uint64_t) + i, 1);
    add(m, slot + offsetof(struct metrics_histogram, sum_ns) / sizeof(uint64_t),
        ns > 0 ? (uint64_t)ns : 0);
}

void
metrics_connection(struct metrics *m)
{
    add(m, SLOT(connections), 1);
}

void
metrics_refused(struct metrics *m, enum metrics_refusal reason)
{
    add(m, SLOT(refused) + reason, 1);
}

void
metrics_tls(struct metrics *m, enum metrics_leg leg, int version)
{
    static const int first = 0x0301;
    if (version >= first && version < first + METRICS_TLS_COUNT)
        add(m, SLOT(tls) + leg * (size_t)METRICS_TLS_COUNT + (size_t)(version - first), 1);
}

void
metrics_recipient(struct metrics *m, enum metrics_verdict verdict, enum policy_reason reason)
{
    add(m, SLOT(recipients) + verdict * (size_t)POLICY_REASON_COUNT + reason, 1);
}

void
metrics_message(struct metrics *m, enum metrics_status status, uint64_t size)
{
    add(m, SLOT(messages) + status, 1);
    if (status == METRICS_STATUS_DELIVERED)
        add(m, SLOT(message_bytes), size);
}

static void
lookup(struct metrics *m, enum metrics_source source, enum dir_status status, int64_t ns)
{
    enum metrics_result result = METRICS_RESULT_UNAVAILABLE;
    switch (status) {
    case DIR_UNAVAILABLE:
        break;
    case DIR_ABSENT:
        result = METRICS_RESULT_ABSENT;
        break;
    case DIR_FOUND:
        result = METRICS_RESULT_FOUND;
        break;
    case DIR_PENDING:
        return;
    }
    add(m, SLOT(lookups) + source * (size_t)METRICS_RESULT_COUNT + result, 1);
    observe(m, SLOT(lookup), metrics_lookup_limits_ns, ns);
}

void
metrics_lookup(struct metrics *m, enum dir_source source, enum dir_status status, int64_t ns)
{
    enum metrics_source s = METRICS_SOURCE_NONE;
    switch (source) {
    case DIR_SOURCE_NONE:
        break;
    case DIR_SOURCE_CACHE:
        s = METRICS_SOURCE_CACHE;
        break;
    case DIR_SOURCE_SNAPSHOT:
        s = METRICS_SOURCE_SNAPSHOT;
        break;
    case DIR_SOURCE_LDAP:
        s = METRICS_SOURCE_LDAP;
        break;
    case DIR_SOURCE_FILE:
        s = METRICS_SOURCE_FILE;
        break;
    }
    lookup(m, s, status, ns);
}

void
metrics_lookup_downstream(struct metrics *m, enum dir_status status, int64_t ns)
{
    lookup(m, METRICS_SOURCE_DOWNSTREAM, status, ns);
}

void
metrics_delivery_ns(struct metrics *m, int64_t ns)
{
    observe(m, SLOT(delivery), metrics_delivery_limits_ns, ns);
}

void
metrics_drift(struct metrics *m)
{
    add(m, SLOT(drift), 1);
}

void
metrics_code(struct metrics *m, const struct status_code *code)
{
    if (code)
        add(m, SLOT(codes) + (size_t)(code - status_code_at(0)), 1);
}

void
metrics_read(const struct metrics *m, struct metrics_counts *out)
{
    uint64_t *v = (uint64_t *)(void *)out;
    for (size_t i = 0; i < SLOTS; i++) {
        v[i] = 0;
        for (size_t lane = 0; lane < LANES; lane++)
            v[i] += atomic_load_explicit(&m->lanes[lane].v[i], memory_order_relaxed);
    }
}

uint64_t
metrics_recipients_sum(const struct metrics_counts *c, enum metrics_verdict verdict)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < POLICY_REASON_COUNT; i++)
        sum += c->recipients[verdict][i];
    return sum;
}

uint64_t
metrics_histogram_count(const struct metrics_histogram *h)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < METRICS_BUCKETS; i++)
        sum += h->buckets[i];
    return sum;
}
