#include "proxy/ops/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The counters are those of struct metrics_counts, in its order, so that reading them is one loop.
 */
#define SLOTS       (sizeof(struct metrics_counts) / sizeof(uint64_t))
#define SLOT(field) (offsetof(struct metrics_counts, field) / sizeof(uint64_t))

struct metrics {
    _Atomic uint64_t v[SLOTS];
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

static const char *const refusal_texts[] = {
#define METRICS_REFUSAL(id, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_REFUSAL
};
static const char *const leg_texts[] = {
#define METRICS_LEG(id, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_LEG
};
static const char *const tls_texts[] = {
#define METRICS_TLS(id, number, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_TLS
};
static const int tls_numbers[] = {
#define METRICS_TLS(id, number, text) number,
#include "proxy/ops/metrics.def"
#undef METRICS_TLS
};
static const char *const verdict_texts[] = {
#define METRICS_VERDICT(id, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_VERDICT
};
static const char *const status_texts[] = {
#define METRICS_STATUS(id, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_STATUS
};
static const char *const source_texts[] = {
#define METRICS_SOURCE(id, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_SOURCE
};
static const char *const result_texts[] = {
#define METRICS_RESULT(id, text) text,
#include "proxy/ops/metrics.def"
#undef METRICS_RESULT
};

const char *
metrics_refusal_text(enum metrics_refusal refusal)
{
    return refusal_texts[refusal];
}

const char *
metrics_leg_text(enum metrics_leg leg)
{
    return leg_texts[leg];
}

const char *
metrics_tls_text(enum metrics_tls version)
{
    return tls_texts[version];
}

const char *
metrics_verdict_text(enum metrics_verdict verdict)
{
    return verdict_texts[verdict];
}

const char *
metrics_status_text(enum metrics_status status)
{
    return status_texts[status];
}

const char *
metrics_source_text(enum metrics_source source)
{
    return source_texts[source];
}

const char *
metrics_result_text(enum metrics_result result)
{
    return result_texts[result];
}

struct metrics *
metrics_new(void)
{
    struct metrics *m = malloc(sizeof *m);
    if (m) {
        for (size_t i = 0; i < SLOTS; i++)
            atomic_init(&m->v[i], 0);
    }
    return m;
}

void
metrics_free(struct metrics **m)
{
    free(*m);
    *m = NULL;
}

static void
add(struct metrics *m, size_t slot, uint64_t n)
{
    atomic_fetch_add_explicit(&m->v[slot], n, memory_order_relaxed);
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
    for (size_t i = 0; i < METRICS_TLS_COUNT; i++) {
        if (tls_numbers[i] == version)
            add(m, SLOT(tls) + leg * (size_t)METRICS_TLS_COUNT + i, 1);
    }
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

void
metrics_harvest(struct metrics *m, enum policy_action action)
{
    if (action != POLICY_ACTION_NONE)
        add(m, SLOT(harvests) + action, 1);
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
    uint64_t v[SLOTS];
    for (size_t i = 0; i < SLOTS; i++)
        v[i] = atomic_load_explicit(&m->v[i], memory_order_relaxed);
    memcpy(out, v, sizeof *out);
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
