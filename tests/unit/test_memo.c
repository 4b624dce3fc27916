#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/memo.h"

static const struct siphash_key key = {{5}}, other_key = {{6}};
static struct memo_table *table;

static struct memo told[64];
static size_t n_told;

static int
set_up(void **state)
{
    (void)state;
    table = memo_new(&key, 1024);
    if (table == NULL)
        return 1;
    memo_share(table, true);
    memo_lock(table);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    memo_unlock(table);
    memo_free(&table);
    return 0;
}

static struct hash128
hash(uint64_t i)
{
    return (struct hash128){i + 1, i * 0x9e3779b97f4a7c15u};
}

static void
tell(void *arg, struct memo *m)
{
    (void)arg;
    m->is_told = true;
    told[n_told++] = *m;
}

static size_t
walk(size_t max)
{
    n_told = 0;
    return memo_walk_unsent(table, max, tell, NULL);
}

static void
test_each_change_is_told_once(void **state)
{
    (void)state;

    (void)memo_put(table, hash(1), 100, 7);
    (void)memo_put(table, hash(2), 200, 8);
    (void)memo_put(table, hash(1), 300, 9);
    assert_int_equal(walk(64), 2);
    assert_int_equal(told[0].until_s + told[1].until_s, 500);
    assert_int_equal(walk(64), 0);
    (void)memo_put(table, hash(1), 300, 9);
    assert_int_equal(walk(64), 1);
    assert_int_equal(told[0].value, 9);
}

static void
test_some_at_a_time(void **state)
{
    (void)state;

    for (uint64_t i = 0; i < 50; i++)
        (void)memo_put(table, hash(i), 100, 0);
    assert_int_equal(walk(20), 20);
    assert_int_equal(walk(20), 20);
    assert_int_equal(walk(20), 10);
    assert_int_equal(walk(20), 0);
}

/* What was dropped before anybody heard of it is nothing to tell. */
static void
test_drop(void **state)
{
    struct memo *m;
    (void)state;

    memo_drop(table, memo_put(table, hash(1), 100, 0));
    assert_int_equal(walk(64), 0);
    assert_null(memo_find(table, hash(1), 0));

    (void)memo_put(table, hash(1), 100, 0);
    assert_int_equal(walk(64), 1);
    memo_drop(table, memo_find(table, hash(1), 0));
    assert_null(memo_find(table, hash(1), 1));
    assert_int_equal(walk(64), 1);
    assert_int_equal(told[0].until_s, 1);
    /* It keeps its place until it was heard. */
    m = memo_find(table, hash(1), 0);
    assert_non_null(m);
    memo_set_unsent(table, m, MEMO_CHANGED);
    memo_release(m);
    assert_non_null(memo_find(table, hash(1), 0));
    assert_int_equal(walk(64), 1);
    memo_release(m);
    assert_null(memo_find(table, hash(1), 0));
}

static void
test_what_is_learnt_is_not_told(void **state)
{
    struct memo *m = memo_learn(table, hash(1), 100, 3);
    (void)state;

    assert_ptr_equal(memo_find(table, hash(1), 99), m);
    assert_int_equal(walk(64), 0);
    memo_unlearn(table, m);
    assert_null(memo_find(table, hash(1), 0));
    assert_int_equal(walk(64), 0);
    /* Learnt over a change that was not told: there is nothing left to tell. */
    m = memo_put(table, hash(2), 100, 3);
    memo_unlearn(table, m);
    assert_int_equal(walk(64), 0);
    (void)memo_put(table, hash(2), 100, 3);
    assert_int_equal(walk(64), 1);
}

/* A full row: those in the chain make room like others, and the chain stays whole. */
static void
test_eviction(void **state)
{
    (void)state;

    for (uint64_t i = 0; i < 4000; i++)
        (void)memo_put(table, hash(i), 100 + (uint32_t)i, 0);
    for (size_t left = 0, n = 0;; left += n) {
        n = walk(64);
        if (n == 0) {
            assert_true(left > 900 && left <= 1024);
            break;
        }
        for (size_t i = 0; i < n; i++)
            assert_non_null(memo_find(table, told[i].key, 0));
    }
}

static void
test_not_shared(void **state)
{
    (void)state;

    memo_unlock(table);
    memo_share(table, false);
    memo_lock(table);
    memo_drop(table, memo_put(table, hash(1), 100, 0));
    (void)memo_put(table, hash(2), 100, 0);
    assert_int_equal(walk(64), 0);
}

static void
test_rekey(void **state)
{
    struct span a = span_str("a");
    struct hash128 before = memo_key(table, 1, a, a, NULL), after;
    (void)state;

    (void)memo_put(table, before, 100, 0);
    (void)memo_put(table, hash(2), MEMO_PINNED, 0);
    memo_unlock(table);
    memo_rekey(table, &other_key);
    memo_lock(table);
    assert_null(memo_find(table, before, 0));
    assert_non_null(memo_find(table, hash(2), 0));
    after = memo_key(table, 1, a, a, NULL);
    assert_true(after.lo != before.lo);
    assert_int_equal(walk(64), 1);
}

/* How many places are dirty, of how many that are looked at. */
static size_t
count_dirty(size_t *looked_at)
{
    struct memo *places;
    size_t i = 0, n, dirty = 0;

    *looked_at = 0;
    while ((places = memo_next_dirty(table, &i, &n)) != NULL) {
        for (size_t k = 0; k < n; k++) {
            dirty += places[k].is_dirty;
            places[k].is_dirty = false;
        }
        *looked_at += n;
    }
    return dirty;
}

static void
test_dirty_places_are_found(void **state)
{
    size_t looked_at;
    struct memo *m;

    (void)state;
    assert_int_equal(count_dirty(&looked_at), 0);
    assert_int_equal(looked_at, 0);
    /* The last row, and one from the middle. */
    m = memo_put(table, (struct hash128){1, 1023}, 100, 0);
    (void)memo_put(table, (struct hash128){1, 64}, 100, 0);
    assert_int_equal(count_dirty(&looked_at), 2);
    assert_int_equal(looked_at, (size_t)2 * MEMO_SLICE);
    assert_int_equal(count_dirty(&looked_at), 0);
    assert_int_equal(looked_at, 0);
    /* What the disk has must be taken from it; else there is nothing to do. */
    m->is_saved = true;
    memo_drop(table, m);
    memo_drop(table, memo_find(table, (struct hash128){1, 64}, 0));
    assert_int_equal(count_dirty(&looked_at), 1);
    assert_int_equal(looked_at, MEMO_SLICE);
}

static void
test_a_table_of_one_row(void **state)
{
    struct memo_table *whole = table;
    size_t looked_at;

    (void)state;
    table = memo_new(&key, 1);
    assert_non_null(table);
    (void)memo_put(table, hash(1), 100, 0);
    assert_int_equal(count_dirty(&looked_at), 1);
    assert_int_equal(looked_at, 8);
    memo_free(&table);
    table = whole;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_change_is_told_once),
        TEST(test_some_at_a_time),
        TEST(test_drop),
        TEST(test_what_is_learnt_is_not_told),
        TEST(test_eviction),
        TEST(test_not_shared),
        TEST(test_rekey),
        TEST(test_dirty_places_are_found),
        TEST(test_a_table_of_one_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
