#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/ledger.h"

#define HOUR 3600u
#define DAY  (24 * HOUR)

static const struct siphash_key key = {{1, 2, 3}};

static struct ledger_now
at(uint32_t s)
{
    return (struct ledger_now){.s = s, .window_s = HOUR};
}

static struct network
net4(uint32_t i)
{
    struct netaddr a = {
        .family = 4,
        .octets = {(uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};

    return network_of(&a, 32);
}

/* /64s of one /32. */
static struct network
net6(uint32_t i)
{
    struct netaddr a = {.family = 6, .octets = {0x20, 0x01, 0x0d, 0xb8}};

    for (int k = 0; k < 4; k++)
        a.octets[4 + k] = (uint8_t)(i >> (24 - 8 * k));
    return network_of(&a, 64);
}

static void
note(struct ledger *l, struct network network, uint32_t first, uint32_t n, uint32_t now_s)
{
    struct ledger_entry *e = ledger_open(l, &network, true, at(now_s));

    for (uint32_t i = 0; i < n; i++)
        ledger_note(l, e, &e->unknown[0], first + i, at(now_s));
    ledger_close(l, e);
}

static uint32_t
count(struct ledger *l, struct network network, uint32_t now_s)
{
    struct ledger_entry *e = ledger_open(l, &network, false, at(now_s));
    uint32_t n;

    if (e == NULL)
        return 0;
    n = window_count(&e->unknown[0], now_s, HOUR);
    ledger_close(l, e);
    return n;
}

static void
set_hold(struct ledger *l, struct network network, uint32_t until_s, uint32_t now_s)
{
    struct ledger_entry *e = ledger_open(l, &network, true, at(now_s));
    struct ledger_hold hold = {.until_s = until_s, .action = 3, .is_on = true};

    ledger_hold(l, e, false, &hold);
    ledger_close(l, e);
}

static bool
is_held(struct ledger *l, struct network network, uint32_t now_s)
{
    struct ledger_entry *e = ledger_open(l, &network, false, at(now_s));
    bool held;

    if (e == NULL)
        return false;
    held = e->hold[0].is_on;
    ledger_close(l, e);
    return held;
}

static void
test_entries(void **state)
{
    struct ledger *l = ledger_new(&key, 65536);
    (void)state;

    assert_null(ledger_open(l, &(struct network){0}, false, at(1)));
    for (uint32_t i = 0; i < 500; i++)
        note(l, net4(i), 0, i % 7 + 1, DAY);
    assert_int_equal(ledger_count(l), 500);
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(count(l, net4(i), DAY), i % 7 + 1);
    /* The same octets with another prefix are another network. */
    struct network n = net4(3);
    n.prefix = 31;
    assert_int_equal(count(l, n, DAY), 0);
    ledger_free(&l);
    assert_null(l);
}

/* One who owns a /32 of IPv6 asks from a new /64 each time: he pushes out himself, while those with
 * higher counts stay, and blocks stay longest. */
static void
test_a_flood_pushes_out_only_the_weak(void **state)
{
    struct ledger *l = ledger_new(&key, 1024);
    (void)state;

    for (uint32_t i = 0; i < 60; i++) {
        note(l, net4(i), 0, 9, DAY);
        set_hold(l, net4(1000 + i), 2 * DAY, DAY);
    }
    for (uint32_t i = 0; i < 200000; i++)
        note(l, net6(i), i, 1, DAY + i / 1000);
    assert_true(ledger_count(l) <= 1024);
    assert_true(ledger_count(l) > 900);
    for (uint32_t i = 0; i < 60; i++) {
        assert_int_equal(count(l, net4(i), DAY + 200), 9);
        assert_true(is_held(l, net4(1000 + i), DAY + 200));
    }
    /* The newest of equals stays. */
    assert_int_equal(count(l, net6(199999), DAY + 200), 1);
    assert_int_equal(ledger_hold_count(l), 60);
    ledger_free(&l);
}

/* A table full of blocks still takes new ones: those that end first go, and are counted off. */
static void
test_blocks_go_last(void **state)
{
    struct ledger *l = ledger_new(&key, 1024);
    uint8_t prefixes[129];
    (void)state;

    for (uint32_t i = 0; i < 5000; i++)
        set_hold(l, net4(i), DAY + HOUR + i, DAY);
    assert_int_equal(ledger_hold_count(l), ledger_count(l));
    assert_true(is_held(l, net4(4999), DAY));
    assert_int_equal(ledger_held_prefixes(l, 4, prefixes), 1);
    assert_int_equal(prefixes[0], 32);
    note(l, net4(100000), 0, 9, DAY);
    assert_int_equal(count(l, net4(100000), DAY), 9);
    note(l, net6(1), 0, 9, DAY);
    assert_int_equal(ledger_held_prefixes(l, 6, prefixes), 0);
    ledger_free(&l);
}

static void
test_memory_of_windows_is_bounded(void **state)
{
    struct ledger *l = ledger_new(&key, LEDGER_CAPACITY);
    struct network heavy = net4(1);
    size_t kept = 0;
    (void)state;

    /* 128 addresses each would take 1.5 KiB a network, 600 MB in all. */
    note(l, heavy, 0, 60, DAY);
    set_hold(l, net4(2), 2 * DAY, DAY);
    for (uint32_t i = 0; i < 400000; i++)
        note(l, net6(i), 0, 33, DAY + i / 10000);
    for (uint32_t i = 0; i < 400000; i++)
        kept += count(l, net6(i), DAY + 50) == 33;
    assert_in_range(kept, 100000, 64 * (4u << 20) / 1500);
    assert_int_equal(count(l, net6(399999), DAY + 50), 33);
    assert_true(is_held(l, net4(2), DAY + 50));
    ledger_free(&l);
}

static void
test_held_prefixes(void **state)
{
    struct ledger *l = ledger_new(&key, 1024);
    struct network n = net4(0x0a000000);
    struct ledger_entry *e;
    uint8_t prefixes[129];
    (void)state;

    assert_int_equal(ledger_held_prefixes(l, 4, prefixes), 0);
    n.prefix = 8;
    set_hold(l, n, 2 * DAY, DAY);
    set_hold(l, n, 3 * DAY, DAY); /* in place of itself */
    set_hold(l, net4(7), 2 * DAY, DAY);
    set_hold(l, net6(7), 2 * DAY, DAY);
    assert_int_equal(ledger_hold_count(l), 3);
    assert_int_equal(ledger_held_prefixes(l, 4, prefixes), 2);
    assert_int_equal(prefixes[0], 8);
    assert_int_equal(prefixes[1], 32);
    assert_int_equal(ledger_held_prefixes(l, 6, prefixes), 1);
    assert_int_equal(prefixes[0], 64);
    e = ledger_open(l, &n, false, at(DAY));
    ledger_clear(l, e);
    ledger_close(l, e);
    assert_int_equal(ledger_held_prefixes(l, 4, prefixes), 1);
    assert_int_equal(ledger_hold_count(l), 2);
    ledger_free(&l);
}

struct tally {
    struct ledger *l;
    uint32_t n;
    bool ends;
};

static void
tally(void *arg, struct ledger_entry *e)
{
    struct tally *t = arg;

    t->n++;
    if (t->ends) {
        struct ledger_hold hold = e->hold[0];
        hold.is_on = false;
        ledger_hold(t->l, e, false, &hold);
    }
}

static void
test_ends(void **state)
{
    struct ledger *l = ledger_new(&key, 1024);
    struct tally t = {.l = l, .ends = true};
    (void)state;

    for (uint32_t i = 0; i < 100; i++)
        set_hold(l, net4(i), DAY + 1 + i, DAY);
    for (uint32_t now = DAY; now <= DAY + 110; now++) {
        ledger_walk_ended(l, now, tally, &t);
        assert_int_equal(t.n, now - DAY < 100 ? now - DAY : 100);
        assert_int_equal(ledger_hold_count(l), 100 - t.n);
    }
    ledger_free(&l);
}

static void
test_walks(void **state)
{
    struct ledger *l = ledger_new(&key, 65536);
    struct tally t = {.l = l};
    (void)state;

    for (uint32_t i = 0; i < 40000; i++)
        note(l, net4(i), 0, 1, DAY);
    ledger_walk(l, tally, &t);
    assert_int_equal(t.n, 40000);
    t.n = 0;
    ledger_walk_dirty(l, 64 * 100, tally, &t);
    assert_int_equal(t.n, 64 * 100);
    ledger_walk_dirty(l, 1u << 30, tally, &t);
    assert_int_equal(t.n, 40000);
    ledger_walk_dirty(l, 1u << 30, tally, &t);
    assert_int_equal(t.n, 40000);
    note(l, net4(5), 9, 1, DAY);
    note(l, net4(5), 10, 1, DAY);
    ledger_walk_dirty(l, 1u << 30, tally, &t);
    assert_int_equal(t.n, 40001);
    ledger_free(&l);
}

#define BUSY 2000u

struct telling {
    struct network told[16];
    size_t n;
};

static void
take(void *arg, struct ledger_entry *e)
{
    struct telling *t = arg;

    t->told[t->n++] = e->network;
}

/* All of them change as soon as they were told of, more than can be told: each has its turn. */
static void
test_unsent_take_turns(void **state)
{
    struct ledger *l = ledger_new(&key, 1u << 16);
    bool told[BUSY] = {false};
    size_t n_told = 0;
    (void)state;

    ledger_share(l, true);
    for (uint32_t i = 0; i < BUSY; i++)
        note(l, net4(i), 1, 1, 1000);
    for (uint32_t round = 0; round < 1000; round++) {
        struct telling t = {.n = 0};
        size_t n = ledger_walk_unsent(l, 16, take, &t);
        assert_int_equal(n, t.n);
        for (size_t i = 0; i < t.n; i++) {
            uint32_t which = (uint32_t)t.told[i].base.octets[2] << 8 | t.told[i].base.octets[3];
            n_told += !told[which];
            told[which] = true;
            note(l, t.told[i], 2 + round, 1, 1000);
        }
    }
    assert_int_equal(n_told, BUSY);
    ledger_free(&l);
}

static void
sweep_all(struct ledger *l, uint32_t now_s)
{
    for (int i = 0; i < 400; i++)
        ledger_sweep(l, at(now_s));
}

static void
test_sweep_forgets_in_time(void **state)
{
    struct ledger *l = ledger_new(&key, 1024);
    struct tally t = {.l = l};
    struct network served = net4(1), held = net4(2), asked = net4(3);
    struct ledger_entry *e;
    (void)state;

    e = ledger_open(l, &served, true, at(DAY));
    ledger_note(l, e, &e->served, 1, at(DAY));
    ledger_close(l, e);
    set_hold(l, held, DAY + HOUR, DAY);
    note(l, asked, 0, 40, DAY);

    sweep_all(l, DAY + HOUR - 1);
    assert_int_equal(count(l, asked, DAY + HOUR - 1), 40);
    /* What was not saved is not forgotten. */
    sweep_all(l, DAY + HOUR);
    assert_int_equal(ledger_count(l), 3);
    ledger_walk_dirty(l, 1000, tally, &t);
    sweep_all(l, DAY + HOUR);
    assert_int_equal(count(l, asked, DAY + HOUR), 0);
    assert_int_equal(ledger_count(l), 2);
    t.ends = true;
    ledger_walk_ended(l, DAY + HOUR, tally, &t);
    t.ends = false;
    ledger_walk_dirty(l, 1000, tally, &t);
    sweep_all(l, DAY + LEDGER_SERVED_KEEP_S - 1);
    assert_int_equal(ledger_count(l), 2);
    sweep_all(l, DAY + LEDGER_SERVED_KEEP_S); /* the block is remembered an hour longer */
    assert_int_equal(ledger_count(l), 1);
    sweep_all(l, DAY + HOUR + LEDGER_REPEAT_KEEP_S);
    assert_int_equal(ledger_count(l), 0);
    ledger_free(&l);
}

/* Eight threads, one table: nothing is lost, nothing is counted twice. */
static void *
hammer(void *arg)
{
    struct ledger *l = arg;

    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < 500; i++)
            note(l, net4(i), round, 1, DAY + round);
        ledger_sweep(l, at(DAY + round));
    }
    return NULL;
}

static void
test_threads(void **state)
{
    struct ledger *l = ledger_new(&key, 65536);
    pthread_t threads[8];
    struct tally t = {.l = l};
    (void)state;

    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, l), 0);
    ledger_walk_dirty(l, 100000, tally, &t);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(ledger_count(l), 500);
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(count(l, net4(i), DAY + 20), 20);
    ledger_free(&l);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_a_flood_pushes_out_only_the_weak),
        cmocka_unit_test(test_blocks_go_last),
        cmocka_unit_test(test_memory_of_windows_is_bounded),
        cmocka_unit_test(test_held_prefixes),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_unsent_take_turns),
        cmocka_unit_test(test_sweep_forgets_in_time),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
