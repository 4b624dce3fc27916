#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/ops/history.h"
#include "proxy/ops/metrics.h"

static struct metrics_counts
counts_of(const struct metrics *m)
{
    struct metrics_counts c;
    metrics_read(m, &c);
    return c;
}

static bool
is_zero(const struct metrics_counts *c)
{
    const uint64_t *v = (const void *)c;
    for (size_t i = 0; i < sizeof *c / sizeof *v; i++) {
        if (v[i])
            return false;
    }
    return true;
}

/* Each call counts in its own slot and nowhere else: taken back, nothing is left. */
static void
each_counts_its_own(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    struct metrics_counts c = counts_of(m);
    assert_true(is_zero(&c));
    metrics_connection(m);
    metrics_drift(m);
    metrics_refused(m, METRICS_REFUSAL_SYSTEM);
    metrics_tls(m, METRICS_LEG_OUT, 0x0304);
    metrics_tls(m, METRICS_LEG_IN, 0x0303);
    metrics_tls(m, METRICS_LEG_IN, 0x0305); /* of the future: not counted */
    metrics_recipient(m, METRICS_VERDICT_WOULD_REJECT, POLICY_REASON_BLOCKED_SENDER);
    metrics_message(m, METRICS_STATUS_DELIVERED, 1000);
    metrics_message(m, METRICS_STATUS_REFUSED, 500);
    metrics_lookup(m, DIR_SOURCE_FILE, DIR_FOUND, 10);
    metrics_lookup(m, DIR_SOURCE_FILE, DIR_PENDING, 10);
    metrics_lookup(m, DIR_SOURCE_NONE, DIR_UNAVAILABLE, 10);
    metrics_lookup_downstream(m, DIR_ABSENT, 10);
    metrics_delivery_ns(m, 70000000);
    metrics_code(m, NULL);
    metrics_code(m, status_code_at(METRICS_CODES - 1));
    c = counts_of(m);
    assert_int_equal(c.connections--, 1);
    assert_int_equal(c.drift--, 1);
    assert_int_equal(c.refused[METRICS_REFUSAL_SYSTEM]--, 1);
    assert_int_equal(c.tls[METRICS_LEG_OUT][METRICS_TLS_1_3]--, 1);
    assert_int_equal(c.tls[METRICS_LEG_IN][METRICS_TLS_1_2]--, 1);
    assert_int_equal(c.recipients[METRICS_VERDICT_WOULD_REJECT][POLICY_REASON_BLOCKED_SENDER]--, 1);
    assert_int_equal(c.messages[METRICS_STATUS_DELIVERED]--, 1);
    assert_int_equal(c.messages[METRICS_STATUS_REFUSED]--, 1);
    assert_int_equal(c.message_bytes, 1000);
    c.message_bytes = 0;
    assert_int_equal(c.lookups[METRICS_SOURCE_FILE][METRICS_RESULT_FOUND]--, 1);
    assert_int_equal(c.lookups[METRICS_SOURCE_NONE][METRICS_RESULT_UNAVAILABLE]--, 1);
    assert_int_equal(c.lookups[METRICS_SOURCE_DOWNSTREAM][METRICS_RESULT_ABSENT]--, 1);
    assert_int_equal(metrics_histogram_count(&c.lookup), 3);
    assert_int_equal(c.lookup.sum_ns, 30);
    c.lookup = (struct metrics_histogram){{0}, 0};
    assert_int_equal(metrics_histogram_count(&c.delivery), 1);
    assert_int_equal(c.delivery.sum_ns, 70000000);
    c.delivery = (struct metrics_histogram){{0}, 0};
    assert_int_equal(c.codes[METRICS_CODES - 1]--, 1);
    assert_true(is_zero(&c));
    metrics_free(&m);
    assert_null(m);
}

static void
a_limit_belongs_to_its_bucket(void **state)
{
    (void)state;
    for (size_t i = 0; i < METRICS_BUCKETS - 1; i++) {
        struct metrics *m = metrics_new();
        metrics_delivery_ns(m, metrics_delivery_limits_ns[i]);
        metrics_delivery_ns(m, metrics_delivery_limits_ns[i] + 1);
        struct metrics_counts c = counts_of(m);
        assert_int_equal(c.delivery.buckets[i], 1);
        assert_int_equal(c.delivery.buckets[i + 1], 1);
        metrics_free(&m);
        if (i) {
            assert_true(metrics_delivery_limits_ns[i - 1] < metrics_delivery_limits_ns[i]);
            assert_true(metrics_lookup_limits_ns[i - 1] < metrics_lookup_limits_ns[i]);
        }
    }
}

static void
the_table_of_codes_is_policys(void **state)
{
    (void)state;
    assert_int_equal(METRICS_CODES, status_code_count());
}

#define THREADS 4
#define TIMES   20000

static void *
count_many(void *arg)
{
    for (int i = 0; i < TIMES; i++)
        metrics_recipient(arg, METRICS_VERDICT_REJECT, POLICY_REASON_UNKNOWN);
    return NULL;
}

static void
threads_lose_nothing(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, m), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct metrics_counts c = counts_of(m);
    assert_int_equal(metrics_recipients_sum(&c, METRICS_VERDICT_REJECT), THREADS * TIMES);
    metrics_free(&m);
}

#define MINUTE 60000

static void
history_keeps_minutes(void **state)
{
    (void)state;
    struct history *h = history_new(5 * MINUTE);
    struct metrics_counts c = {0};
    struct history_slot v[60];
    history_read(h, 1, 60, v);
    assert_int_equal(v[59].v[HISTORY_ACCEPTED], 0);
    c.recipients[METRICS_VERDICT_ACCEPT][POLICY_REASON_NONE] = 3;
    c.recipients[METRICS_VERDICT_WOULD_REJECT][POLICY_REASON_UNKNOWN] = 1;
    c.recipients[METRICS_VERDICT_REJECT][POLICY_REASON_UNKNOWN] = 2;
    c.recipients[METRICS_VERDICT_REJECT][POLICY_REASON_RELAY] = 2;
    c.recipients[METRICS_VERDICT_DEFER][POLICY_REASON_DIRECTORY] = 7;
    history_sample(h, &c, 5 * MINUTE + 1);
    history_sample(h, &c, 6 * MINUTE - 1);
    c.recipients[METRICS_VERDICT_ACCEPT][POLICY_REASON_NONE] = 10;
    history_sample(h, &c, 7 * MINUTE); /* the sixth was empty */
    history_read(h, 1, 60, v);
    assert_int_equal(v[57].v[HISTORY_ACCEPTED], 4);
    assert_int_equal(v[57].v[HISTORY_REFUSED], 4);
    assert_int_equal(v[57].v[HISTORY_DEFERRED], 7);
    assert_int_equal(v[58].v[HISTORY_ACCEPTED], 0);
    assert_int_equal(v[59].v[HISTORY_ACCEPTED], 7);
    assert_int_equal(v[59].v[HISTORY_REFUSED], 0);
    struct history_slot day[96];
    history_read(h, 15, 96, day);
    assert_int_equal(day[95].v[HISTORY_ACCEPTED], 11);
    assert_int_equal(day[94].v[HISTORY_ACCEPTED], 0);
    history_free(&h);
    assert_null(h);
}

static void
history_forgets_after_a_day(void **state)
{
    (void)state;
    struct history *h = history_new(0);
    struct metrics_counts c = {0};
    struct history_slot all;
    for (int64_t minute = 0; minute < 3 * HISTORY_MINUTES; minute++) {
        c.recipients[METRICS_VERDICT_ACCEPT][POLICY_REASON_NONE]++;
        history_sample(h, &c, minute * MINUTE);
        history_read(h, HISTORY_MINUTES, 1, &all);
        assert_int_equal(all.v[HISTORY_ACCEPTED],
                         minute < HISTORY_MINUTES ? minute + 1 : HISTORY_MINUTES);
    }
    /* A machine that slept for days. */
    history_sample(h, &c, 10 * HISTORY_MINUTES * (int64_t)MINUTE);
    history_read(h, HISTORY_MINUTES, 1, &all);
    assert_int_equal(all.v[HISTORY_ACCEPTED], 0);
    history_free(&h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_counts_its_own),
        cmocka_unit_test(a_limit_belongs_to_its_bucket),
        cmocka_unit_test(the_table_of_codes_is_policys),
        cmocka_unit_test(threads_lose_nothing),
        cmocka_unit_test(history_keeps_minutes),
        cmocka_unit_test(history_forgets_after_a_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
