#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/settings.h"
#include "policy/delivered.h"
#include "policy/mark.h"
#include "policy/memo.h"
#include "policy/policy_private.h"

/* What a fleet's ledger asks of the tables, without Redis. */

#define SECOND ((int64_t)1000)
#define HOUR   (3600 * SECOND)
#define START  (1000 * SECOND)
#define WALL_S ((int64_t)1795536000)
#define WINDOW (4 * HOUR)

static struct settings settings;
static struct policy *policy;
static struct network host, around;

static int
set_up(void **state)
{
    struct err e;
    (void)state;

    memset(&settings, 0, sizeof settings);
    settings.harvest.enabled = true;
    settings.harvest.threshold = 10;
    settings.harvest.threshold_wide = 50;
    settings.harvest.ratio = 0.5;
    settings.harvest.window = HOUR;
    settings.harvest.action = SETTINGS_ACTION_BLOCK;
    settings.harvest.block_time = HOUR;
    settings.harvest.block_time_max = 6 * HOUR;
    settings.harvest.trusted_recipients = 10;
    settings.harvest.prefix4 = 32;
    settings.harvest.prefix6 = 64;
    assert_true(network_parse(span_str("192.0.2.1"), &host));
    assert_true(network_parse(span_str("192.0.2.0/24"), &around));
    policy = policy_new(&settings, START, WALL_S, &e);
    ledger_share(policy->ledger, true);
    return policy == NULL;
}

static int
tear_down(void **state)
{
    (void)state;
    policy_free(&policy, &settings, START, WALL_S);
    return 0;
}

static struct policy_harvest
ask(uint32_t number)
{
    struct policy_session s;
    struct policy_transaction t = {0};
    char address[] = "user00@example.com";

    address[4] = (char)('0' + number / 10);
    address[5] = (char)('0' + number % 10);
    policy_session_begin(&s, &settings, &host.base, false);
    return policy_unknown(policy, &settings, &s, &t, span_str(address), false, START);
}

/* The fleet counts so many. */
static void
hear(const struct network *network, uint16_t unknown, uint16_t served, uint16_t served_week)
{
    struct ledger_now now = policy_moment(&settings, START);
    struct ledger_entry *e = ledger_open(policy->ledger, network, true, now);

    e->share.heard_s = now.s;
    e->share.unknown[0] = unknown;
    e->share.served = served;
    e->share.served_week = served_week;
    ledger_close(policy->ledger, e);
    policy_judge(policy, &settings, network, START);
}

static uint32_t
blocks(void)
{
    return policy_counts(policy).blocks;
}

static void
test_the_fleets_counts_block(void **state)
{
    (void)state;

    hear(&host, 9, 0, 0);
    assert_int_equal(blocks(), 0);
    hear(&host, 10, 11, 0);
    assert_int_equal(blocks(), 0);
    hear(&host, 10, 10, 10); /* trusted */
    assert_int_equal(blocks(), 0);
    hear(&host, 10, 10, 9);
    assert_int_equal(blocks(), 1);
    hear(&host, 20, 10, 9);
    assert_int_equal(blocks(), 1);
    hear(&around, 49, 0, 0);
    assert_int_equal(blocks(), 1);
    hear(&around, 50, 50, 50);
    assert_int_equal(blocks(), 2);
    assert_int_equal(policy_counts(policy).harvests[POLICY_ACTION_BLOCK], 2);
}

static void
test_what_is_no_block_waits_for_a_session(void **state)
{
    (void)state;

    settings.harvest.action = SETTINGS_ACTION_DISCONNECT;
    hear(&host, 10, 0, 0);
    assert_int_equal(blocks(), 0);
    assert_int_equal(ask(1).action, POLICY_ACTION_DISCONNECT);
}

static void
test_own_counts_serve_where_they_are_more(void **state)
{
    struct policy_harvest h;
    (void)state;

    hear(&host, 3, 0, 0);
    h = ask(1);
    assert_int_equal(h.count, 3);
    for (uint32_t i = 2; i <= 4; i++)
        h = ask(i);
    assert_int_equal(h.count, 4);
}

/* What the fleet said an hour ago is as old as what was counted an hour ago. */
static void
test_the_fleets_counts_grow_old(void **state)
{
    struct ledger_now now = policy_moment(&settings, START + HOUR);
    struct ledger_entry *e;
    (void)state;

    hear(&host, 9, 5, 5);
    e = ledger_open(policy->ledger, &host, false, now);
    assert_int_equal(ledger_unknown(e, false, now), 0);
    now.s--;
    assert_int_equal(ledger_unknown(e, false, now), 9);
    assert_int_equal(ledger_unknown(e, true, now), 0);
    assert_int_equal(ledger_served(e, now), 5);
    ledger_close(policy->ledger, e);
}

struct unsent {
    size_t n;
    struct ledger_entry last;
};

static void
take(void *arg, struct ledger_entry *e)
{
    struct unsent *u = arg;

    u->n++;
    u->last = *e;
}

static struct unsent
unsent(void)
{
    struct unsent u = {0};

    (void)ledger_walk_unsent(policy->ledger, 1000, take, &u);
    return u;
}

static void
test_what_is_to_be_told(void **state)
{
    struct unsent u;
    (void)state;

    assert_int_equal(unsent().n, 0);
    (void)ask(1);
    assert_int_equal(unsent().n, 2); /* the client and its /24 */
    assert_int_equal(unsent().n, 0);
    policy_block(policy, &settings, &host, HOUR, START);
    u = unsent();
    assert_int_equal(u.n, 1);
    assert_int_equal(u.last.share.hold[0], MEMO_CHANGED);
    /* The network as such is told of, too, for what others count inside it. */
    assert_int_equal(policy_unblock(policy, &around, START), 1);
    assert_int_equal(unsent().n, 2);
    settings.server.monitor = true;
    for (uint32_t i = 0; i < 10; i++)
        (void)ask(i);
    assert_int_equal(blocks(), 1);
    u = unsent();
    assert_int_equal(u.n, 2);
    assert_int_equal(u.last.share.hold[0] + u.last.share.hold[1],
                     network_equal(&u.last.network, &host) ? MEMO_CHANGED : 0);
}

static void
test_rekey_keeps_blocks(void **state)
{
    static const struct siphash_key key = {{1, 2, 3}};
    struct marks *marks = policy_marks(policy);
    (void)state;

    for (uint32_t i = 0; i < 9; i++)
        (void)ask(i);
    policy_block(policy, &settings, &around, HOUR, START);
    marks_add(marks, span_str("a@example.com"), HOUR, START);
    policy_rekey(policy, &key, policy_seconds_of(START));
    assert_int_equal(blocks(), 1);
    assert_false(marks_has(marks, span_str("a@example.com"), START));
    assert_int_equal(ask(1).count, 1);
    /* The same key changes nothing. */
    policy_rekey(policy, &key, policy_seconds_of(START));
    assert_int_equal(ask(2).count, 2);
}

/* Deliveries of others. */

static unsigned woken;

static void
wake(void *arg, uint64_t ticket)
{
    (void)arg;
    (void)ticket;
    woken++;
}

static struct delivery_key key;

static enum delivery_claim
claim(bool *served, int64_t now)
{
    uint64_t ticket;

    return deliveries_claim(policy_deliveries(policy), &key, 1, false, served, now, wake, NULL,
                            &ticket);
}

static struct deliveries *
guard(void)
{
    static const uint8_t digest[32];
    struct deliveries *d = policy_deliveries(policy);

    key = deliveries_key(d, span_str("s@x"), span_str("r@x"), digest);
    woken = 0;
    return d;
}

static void
test_delivered_by_another(void **state)
{
    struct deliveries *d = guard();
    uint32_t now_s = policy_seconds_of(START);
    bool served;
    (void)state;

    deliveries_learn(d, key.hash, DELIVERY_ELSEWHERE, now_s + 30);
    assert_int_equal(claim(&served, START), DELIVERY_PENDING);
    deliveries_tick(d, START);
    assert_int_equal(woken, 0);
    deliveries_learn(d, key.hash, DELIVERY_ELSEWHERE, now_s + 40);
    assert_int_equal(woken, 0);
    deliveries_learn(d, key.hash, DELIVERY_DONE, now_s + 3600);
    assert_int_equal(woken, 1);
    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    assert_true(served);
    /* And its client knows. */
    deliveries_learn(d, key.hash, DELIVERY_DONE, 0);
    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    assert_false(served);
}

/* What its client has heard of: for who waited, and for nobody who comes later. */
static void
test_heard_of_another(void **state)
{
    struct deliveries *d = guard();
    uint32_t now_s = policy_seconds_of(START);
    uint64_t ticket;
    bool served;
    (void)state;

    deliveries_learn(d, key.hash, DELIVERY_ELSEWHERE, now_s + 30);
    assert_int_equal(claim(&served, START), DELIVERY_PENDING);
    deliveries_learn(d, key.hash, DELIVERY_HEARD, now_s + 5);
    assert_int_equal(woken, 1);
    assert_int_equal(deliveries_claim(d, &key, 1, true, &served, START, wake, NULL, &ticket),
                     DELIVERY_CLAIMED);
    assert_true(served);
    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    assert_false(served);
}

static void
take_value(void *arg, struct memo *m)
{
    uint32_t *value = arg;

    m->is_told = true;
    *value = m->until_s == MEMO_PINNED ? UINT32_MAX : m->value;
}

static size_t
told(uint32_t *value)
{
    struct memo_table *t = deliveries_table(policy_deliveries(policy));
    size_t n;

    memo_lock(t);
    n = memo_walk_unsent(t, 10, take_value, value);
    memo_unlock(t);
    return n;
}

/* Also if the whole burst, and the client's next command, came before the fleet was told of any of
 * it: another Postern may have found it in Redis, and waits. */
static void
test_heard_is_told(void **state)
{
    struct deliveries *d = guard();
    uint32_t value;
    bool served;
    (void)state;

    memo_share(deliveries_table(d), true);
    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    deliveries_finish(d, &key, &served, 1, true, WINDOW, START);
    deliveries_confirm(d, &key, 1, START);
    assert_int_equal(told(&value), 1);
    assert_int_equal(value, DELIVERY_HEARD);
    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    assert_false(served);
    assert_int_equal(told(&value), 1);
    assert_int_equal(value, UINT32_MAX);
    deliveries_finish(d, &key, &served, 1, true, WINDOW, START);
    deliveries_confirm(d, &key, 1, START);
    assert_int_equal(told(&value), 1);
    assert_int_equal(value, DELIVERY_HEARD);
}

static void
test_another_failed_or_fell_silent(void **state)
{
    struct deliveries *d = guard();
    uint32_t now_s = policy_seconds_of(START);
    bool served;
    (void)state;

    deliveries_learn(d, key.hash, DELIVERY_ELSEWHERE, now_s + 30);
    assert_int_equal(claim(&served, START), DELIVERY_PENDING);
    deliveries_learn(d, key.hash, DELIVERY_DONE, 0);
    assert_int_equal(woken, 1);
    deliveries_learn(d, key.hash, DELIVERY_ELSEWHERE, now_s + 30);
    assert_int_equal(claim(&served, START), DELIVERY_PENDING);
    deliveries_tick(d, START + 29 * SECOND);
    assert_int_equal(woken, 1);
    deliveries_tick(d, START + 30 * SECOND);
    assert_int_equal(woken, 2);
    assert_int_equal(claim(&served, START + 30 * SECOND), DELIVERY_CLAIMED);
    assert_false(served);
}

/* What happens here is not changed by what is heard of others. */
static void
test_own_burst_stands(void **state)
{
    struct deliveries *d = guard();
    uint32_t now_s = policy_seconds_of(START);
    bool served;
    (void)state;

    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    deliveries_learn(d, key.hash, DELIVERY_DONE, now_s + 3600);
    deliveries_learn(d, key.hash, DELIVERY_DONE, 0);
    assert_int_equal(claim(&served, START), DELIVERY_PENDING);
    served = false;
    deliveries_finish(d, &key, &served, 1, true, WINDOW, START);
    assert_int_equal(woken, 1);
    assert_int_equal(claim(&served, START), DELIVERY_CLAIMED);
    assert_true(served);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_fleets_counts_block),
        TEST(test_what_is_no_block_waits_for_a_session),
        TEST(test_own_counts_serve_where_they_are_more),
        TEST(test_the_fleets_counts_grow_old),
        TEST(test_what_is_to_be_told),
        TEST(test_rekey_keeps_blocks),
        TEST(test_delivered_by_another),
        TEST(test_heard_of_another),
        TEST(test_heard_is_told),
        TEST(test_another_failed_or_fell_silent),
        TEST(test_own_burst_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
