#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/window.h"

#define HOUR 3600u
#define WEEK (7 * 24 * HOUR)

/* A mixer (murmur's finalizer): well spread, and different for different I. */
static uint32_t
hash_of(uint32_t i)
{
    i = (i ^ (i >> 16)) * 0x85ebca6bu;
    i = (i ^ (i >> 13)) * 0xc2b2ae35u;
    return i ^ (i >> 16);
}

static void
test_exact_to_the_second(void **state)
{
    struct window w = {0};
    (void)state;

    assert_int_equal(window_count(&w, 1000, HOUR), 0);
    window_note(&w, 7, 1000, HOUR, HOUR);
    assert_int_equal(window_count(&w, 1000, HOUR), 1);
    assert_int_equal(window_count(&w, 1000 + HOUR - 1, HOUR), 1);
    assert_int_equal(window_count(&w, 1000 + HOUR, HOUR), 0);
    /* Asked again, it is one value, seen later. */
    window_note(&w, 7, 1500, HOUR, HOUR);
    assert_int_equal(window_count(&w, 1500, HOUR), 1);
    assert_int_equal(window_count(&w, 1499 + HOUR, HOUR), 1);
    assert_int_equal(window_bytes(&w), 0);
    window_note(&w, 8, 1501, HOUR, HOUR);
    assert_int_equal(window_count(&w, 1501, HOUR), 2);
    assert_int_equal(window_count(&w, 1500 + HOUR, HOUR), 1);
    window_clear(&w);
    assert_int_equal(window_count(&w, 1501, HOUR), 0);
}

/* Against a model that forgets nothing, with random values, gaps and repetitions. */
static void
test_equals_model(void **state)
{
    enum { VALUES = 120 };
    (void)state;

    srand(1);
    for (unsigned round = 0; round < 40; round++) {
        struct window w = {0};
        uint32_t seen[VALUES] = {0}, now = 100000, length = 50 + (uint32_t)rand() % 500;
        uint32_t values = 1 + (uint32_t)rand() % VALUES;

        for (unsigned i = 0; i < 2000; i++) {
            uint32_t v = (uint32_t)rand() % values, expected = 0;
            now += (uint32_t)rand() % 8;
            if (rand() % 50 == 0)
                now += length;
            if (rand() % 10 == 0)
                window_prune(&w, now, length);
            window_note(&w, hash_of(v), now, length, length);
            seen[v] = now;
            for (uint32_t k = 0; k < values; k++)
                expected += seen[k] != 0 && now - seen[k] < length;
            assert_int_equal(window_count(&w, now, length), expected);
        }
        window_clear(&w);
    }
}

static void
test_two_lengths(void **state)
{
    struct window w = {0};
    (void)state;

    for (uint32_t i = 0; i < 20; i++)
        window_note(&w, hash_of(i), i * HOUR, WEEK, HOUR);
    assert_int_equal(window_count(&w, 19 * HOUR, WEEK), 20);
    assert_int_equal(window_count(&w, 19 * HOUR, HOUR), 1);
    assert_int_equal(window_count(&w, 19 * HOUR, 5 * HOUR), 5);
    window_clear(&w);
}

static void
test_steps_and_growth(void **state)
{
    struct window w = {0};
    (void)state;

    for (uint32_t i = 0; i < 1000; i++) {
        size_t before = window_bytes(&w), growth = window_growth(&w);
        window_note(&w, hash_of(i), 100, HOUR, HOUR);
        assert_true(window_bytes(&w) == before + growth);
        if (i == 0)
            assert_int_equal(window_bytes(&w), 0);
    }
    assert_true(window_bytes(&w) < 3072);
    window_prune(&w, 100 + HOUR, HOUR);
    assert_int_equal(window_bytes(&w), 0);
    assert_int_equal(window_count(&w, 100 + HOUR, HOUR), 0);

    /* Shrinks to what is left, which stays. */
    for (uint32_t i = 0; i < 60; i++)
        window_note(&w, hash_of(i), i < 55 ? 100 : 200, HOUR, HOUR);
    window_prune(&w, 100 + HOUR, HOUR);
    assert_int_equal(window_count(&w, 100 + HOUR, HOUR), 5);
    assert_int_equal(window_bytes(&w), 8 * sizeof(struct sighting));
    window_clear(&w);
}

static void
assert_near(uint32_t value, uint32_t expected)
{
    assert_in_range(value, expected - expected / 10, expected + expected / 10);
}

static void
test_estimate_of_many(void **state)
{
    static const uint32_t counts[] = {128, 129, 150, 200, 500, 1000, 3000};
    (void)state;

    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        struct window w = {0};
        /* Three times over: a repetition counts nothing. */
        for (uint32_t i = 0; i < 3 * counts[c]; i++)
            window_note(&w, hash_of(i % counts[c]), 50000 + i / 100, HOUR, HOUR);
        assert_near(window_count(&w, 50100, HOUR), counts[c]);
        assert_true(window_count(&w, 50100, HOUR) >= WINDOW_EXACT);
        assert_int_equal(window_count(&w, 51000 + HOUR, HOUR), 0);
        window_clear(&w);
    }
}

static void
test_estimate_slides(void **state)
{
    struct window w = {0};
    (void)state;

    /* 1000 new values an hour: about as many in any window of an hour, between three quarters and
     * one. */
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t now = 100 * HOUR + i * HOUR / 1000;
        window_note(&w, hash_of(i), now, HOUR, HOUR);
        if (i > 1200)
            assert_in_range(window_count(&w, now, HOUR), 680, 1100);
    }
    window_clear(&w);
}

static void
test_estimate_has_a_ceiling(void **state)
{
    struct window w = {0};
    (void)state;

    for (uint32_t i = 0; i < 100000; i++)
        window_note(&w, hash_of(i), 1000, HOUR, HOUR);
    assert_int_equal(window_count(&w, 1000, HOUR), WINDOW_COUNT_MAX);
    window_clear(&w);
}

/* A reload may change the length at any moment: what the sketch knew is lost, the exact part stays.
 */
static void
test_length_changes(void **state)
{
    struct window w = {0};
    (void)state;

    for (uint32_t i = 0; i < 300; i++)
        window_note(&w, hash_of(i), 100 * HOUR, HOUR, HOUR);
    window_note(&w, hash_of(0), 100 * HOUR + 1, 60, 60);
    assert_in_range(window_count(&w, 100 * HOUR + 1, 60), 128, 330);
    window_note(&w, hash_of(1), 100 * HOUR + 2, HOUR, HOUR);
    assert_in_range(window_count(&w, 100 * HOUR + 2, HOUR), 128, 330);
    window_clear(&w);
}

/* Another thread's clock may be a second behind: nothing is lost by it. */
static void
test_clocks_that_differ(void **state)
{
    struct window w = {0};
    (void)state;

    for (uint32_t i = 0; i < 100; i++) {
        window_note(&w, hash_of(i), 50000 + i - i % 2, HOUR, HOUR);
        assert_int_equal(window_count(&w, 50000 + i - 1, HOUR), i + 1);
    }
    window_prune(&w, 50000, HOUR);
    assert_int_equal(window_count(&w, 50000, HOUR), 100);
    for (uint32_t i = 0; i < 1000; i++) {
        window_note(&w, hash_of(i), 50400 - i % 2, HOUR, HOUR);
        assert_true(window_count(&w, 50399, HOUR) >= (i + 1 < 128 ? i + 1 : 128));
    }
    assert_near(window_count(&w, 50399, HOUR), 1000);
    window_clear(&w);
}

static void
test_forget(void **state)
{
    struct window w = {0};
    (void)state;

    window_forget(&w, 1000);
    window_note(&w, 1, 1000, HOUR, HOUR);
    window_forget(&w, 999);
    assert_int_equal(window_count(&w, 1000, HOUR), 1);
    window_forget(&w, 1000);
    assert_int_equal(window_count(&w, 1000, HOUR), 0);
    for (uint32_t i = 0; i < 20; i++)
        window_note(&w, hash_of(i), 1000 + i, HOUR, HOUR);
    window_forget(&w, 1009);
    assert_int_equal(window_count(&w, 1020, HOUR), 10);
    for (uint32_t i = 0; i < 1000; i++)
        window_note(&w, hash_of(i), 1100, HOUR, HOUR);
    window_forget(&w, 1100);
    assert_int_equal(window_count(&w, 1100, HOUR), 0);
    assert_int_equal(window_bytes(&w), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_to_the_second),
        cmocka_unit_test(test_equals_model),
        cmocka_unit_test(test_two_lengths),
        cmocka_unit_test(test_steps_and_growth),
        cmocka_unit_test(test_estimate_of_many),
        cmocka_unit_test(test_estimate_slides),
        cmocka_unit_test(test_estimate_has_a_ceiling),
        cmocka_unit_test(test_length_changes),
        cmocka_unit_test(test_clocks_that_differ),
        cmocka_unit_test(test_forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
