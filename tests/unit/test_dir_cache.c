#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "ldap/dir_cache.h"

static const struct dir_cache_limits limits = {
    .entries = 1600, .positive_ms = 100, .negative_ms = 10, .stale_ms = 1000};
static const struct dir_verdict found = {.status = DIR_FOUND, .max_size = 7};
static const struct dir_verdict absent = {.status = DIR_ABSENT};
static const struct dir_verdict unavailable = {.status = DIR_UNAVAILABLE};

static enum dir_cache_age
look(struct dir_cache *c, const char *key, int64_t now_ms)
{
    struct dir_verdict v;
    int64_t age_ms;

    return dir_cache_get(c, span_str(key), now_ms, &v, &age_ms);
}

static void
keeps_for_each_lifetime(void **state)
{
    struct dir_cache *c = dir_cache_new(&limits);
    struct dir_verdict v;
    int64_t age_ms = 0;

    (void)state;
    dir_cache_put(c, span_str("a@b"), 1000, &found);
    dir_cache_put(c, span_str("n@b"), 1000, &absent);
    dir_cache_put(c, span_str("u@b"), 1000, &unavailable);
    assert_int_equal(dir_cache_get(c, span_str("a@b"), 1099, &v, &age_ms), DIR_CACHE_FRESH);
    assert_int_equal(v.status, DIR_FOUND);
    assert_int_equal(v.max_size, 7);
    assert_int_equal(age_ms, 99);
    assert_int_equal(look(c, "a@b", 1100), DIR_CACHE_STALE);
    assert_int_equal(look(c, "a@b", 1999), DIR_CACHE_STALE);
    assert_int_equal(look(c, "a@b", 2000), DIR_CACHE_NONE);
    assert_int_equal(look(c, "n@b", 1009), DIR_CACHE_FRESH);
    assert_int_equal(look(c, "n@b", 1010), DIR_CACHE_NONE); /* "no" is never stale */
    assert_int_equal(look(c, "u@b", 1000), DIR_CACHE_NONE);
    assert_int_equal(dir_cache_count(c), 0);
    dir_cache_unref(&c);
    assert_null(c);
}

static void
takes_new_limits_for_what_is_there(void **state)
{
    static const struct dir_cache_limits longer = {
        .entries = 100000, .positive_ms = 200, .negative_ms = 20, .stale_ms = 200};
    static const struct dir_cache_limits none = {.positive_ms = 200, .negative_ms = 20};
    struct dir_cache *c = dir_cache_new(&limits);
    char key[32];

    (void)state;
    dir_cache_put(c, span_str("a@b"), 0, &found);
    dir_cache_put(c, span_str("n@b"), 0, &absent);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d@b", i);
        dir_cache_put(c, span_str(key), 0, &found);
    }
    dir_cache_limit(c, &longer);
    assert_int_equal(dir_cache_count(c), 102);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d@b", i);
        assert_int_equal(look(c, key, 199), DIR_CACHE_FRESH);
    }
    assert_int_equal(look(c, "a@b", 199), DIR_CACHE_FRESH);
    assert_int_equal(look(c, "n@b", 19), DIR_CACHE_FRESH);
    dir_cache_limit(c, &none);
    assert_int_equal(dir_cache_count(c), 0);
    dir_cache_put(c, span_str("a@b"), 0, &found);
    assert_int_equal(look(c, "a@b", 0), DIR_CACHE_NONE);
    dir_cache_unref(&c);
}

static void
serves_while_somebody_would_be_found(void **state)
{
    struct dir_cache *c = dir_cache_new(&limits);

    (void)state;
    assert_false(dir_cache_serves(c, 0));
    dir_cache_put(c, span_str("n@b"), 1000, &absent);
    assert_false(dir_cache_serves(c, 1000));
    dir_cache_put(c, span_str("a@b"), 1000, &found);
    assert_true(dir_cache_serves(c, 1000));
    assert_true(dir_cache_serves(c, 1999)); /* stale */
    assert_false(dir_cache_serves(c, 2000));
    dir_cache_put(c, span_str("a@b"), 3000, &found);
    assert_true(dir_cache_serves(c, 3000));
    assert_true(dir_cache_forget(c, span_str("a@b")));
    assert_false(dir_cache_serves(c, 3000));
    dir_cache_unref(&c);
}

static void
replaces(void **state)
{
    struct dir_cache *c = dir_cache_new(&limits);

    (void)state;
    dir_cache_put(c, span_str("a@b"), 0, &absent);
    dir_cache_put(c, span_str("a@b"), 1, &found);
    assert_int_equal(look(c, "a@b", 50), DIR_CACHE_FRESH);
    dir_cache_put(c, span_str("a@b"), 51, &absent);
    assert_int_equal(look(c, "a@b", 61), DIR_CACHE_NONE);
    dir_cache_unref(&c);
}

static void
forgets_an_address_with_its_senders(void **state)
{
    struct dir_cache *c = dir_cache_new(&limits);

    (void)state;
    dir_cache_put(c, span_str("a@b"), 0, &found);
    dir_cache_put(c, span_of("a@b\0", 4), 0, &found);
    dir_cache_put(c, span_of("a@b\0s@t", 7), 0, &found);
    dir_cache_put(c, span_str("a@bc"), 0, &found);
    assert_true(dir_cache_forget(c, span_str("a@b")));
    assert_false(dir_cache_forget(c, span_str("a@b")));
    assert_int_equal(dir_cache_count(c), 1);
    assert_int_equal(look(c, "a@bc", 0), DIR_CACHE_FRESH);
    dir_cache_unref(&c);
}

/* Guesses by the hundred thousand: the bound holds, and who is known and asked for stays. */
static void
a_flood_of_guesses_does_not_push_out_the_known(void **state)
{
    struct dir_cache *c = dir_cache_new(&limits);
    char key[32];

    (void)state;
    for (int i = 0; i < 800; i++) {
        snprintf(key, sizeof key, "known%d@b", i);
        dir_cache_put(c, span_str(key), 0, &found);
    }
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "guess%d@b", i);
        dir_cache_put(c, span_str(key), 0, &absent);
    }
    assert_in_range(dir_cache_count(c), 800, limits.entries);
    for (int i = 0; i < 800; i++) {
        snprintf(key, sizeof key, "known%d@b", i);
        assert_int_equal(look(c, key, 1), DIR_CACHE_FRESH);
    }
    dir_cache_unref(&c);
}

/* A recipient that has rules about senders is looked up anew for each one that is forged. */
static void
a_flood_of_senders_does_not_push_out_the_known(void **state)
{
    struct dir_cache *c = dir_cache_new(&limits);
    char key[32];

    (void)state;
    for (int i = 0; i < 800; i++) {
        snprintf(key, sizeof key, "known%d@b", i);
        dir_cache_put(c, span_str(key), 0, &found);
    }
    for (int i = 0; i < 10000; i++) {
        int n = snprintf(key, sizeof key, "known1@b%cs%d@t", '\0', i);
        dir_cache_put(c, span_of(key, (size_t)n), 0, &found);
    }
    assert_in_range(dir_cache_count(c), 800, limits.entries);
    for (int i = 0; i < 800; i++) {
        snprintf(key, sizeof key, "known%d@b", i);
        assert_int_equal(look(c, key, 1), DIR_CACHE_FRESH);
    }
    dir_cache_unref(&c);
}

static void
the_least_used_goes_first(void **state)
{
    const struct dir_cache_limits small = {.entries = 16, .positive_ms = 100};
    struct dir_cache *c = dir_cache_new(&small);
    char key[32];

    (void)state;
    dir_cache_put(c, span_str("kept@b"), 0, &found);
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "k%d@b", i);
        dir_cache_put(c, span_str(key), 0, &found);
        assert_in_range(dir_cache_count(c), 1, 16);
    }
    assert_int_equal(look(c, "kept@b", 1), DIR_CACHE_NONE);
    assert_int_equal(look(c, "k999@b", 1), DIR_CACHE_FRESH);
    dir_cache_unref(&c);
}

static void
size_nought_keeps_nothing(void **state)
{
    const struct dir_cache_limits none = {.positive_ms = 100};
    struct dir_cache *c = dir_cache_new(&none);

    (void)state;
    dir_cache_put(c, span_str("a@b"), 0, &found);
    assert_int_equal(look(c, "a@b", 0), DIR_CACHE_NONE);
    dir_cache_unref(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_for_each_lifetime),
        cmocka_unit_test(takes_new_limits_for_what_is_there),
        cmocka_unit_test(serves_while_somebody_would_be_found),
        cmocka_unit_test(replaces),
        cmocka_unit_test(forgets_an_address_with_its_senders),
        cmocka_unit_test(a_flood_of_guesses_does_not_push_out_the_known),
        cmocka_unit_test(a_flood_of_senders_does_not_push_out_the_known),
        cmocka_unit_test(the_least_used_goes_first),
        cmocka_unit_test(size_nought_keeps_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
