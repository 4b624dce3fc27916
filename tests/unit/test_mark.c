#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/siphash.h"
#include "policy/mark.h"

#define SECOND ((int64_t)1000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)
#define NOW    (5 * DAY)

static const struct siphash_key key = {{7}};
static struct marks *marks;

static int
set_up(void **state)
{
    (void)state;
    marks = marks_new(&key);
    return marks == NULL;
}

static int
tear_down(void **state)
{
    (void)state;
    marks_free(&marks);
    return marks != NULL;
}

static void
test_mark_and_its_time(void **state)
{
    struct span a = span_str("a@example.com"), b = span_str("b@example.com");
    (void)state;

    assert_false(marks_has(marks, a, NOW));
    marks_add(marks, a, DAY, NOW);
    assert_true(marks_has(marks, a, NOW));
    assert_false(marks_has(marks, b, NOW));
    assert_true(marks_has(marks, a, NOW + DAY - SECOND));
    assert_false(marks_has(marks, a, NOW + DAY));
    /* Refused again, it is marked anew. */
    marks_add(marks, a, DAY, NOW + HOUR);
    assert_true(marks_has(marks, a, NOW + DAY));
    marks_remove(marks, a);
    assert_false(marks_has(marks, a, NOW + HOUR));
    marks_remove(marks, a);
    marks_add(marks, b, 0, NOW);
    assert_false(marks_has(marks, b, NOW));
}

static void
test_limits(void **state)
{
    struct span sender = span_str("s@example.net"), other = span_str("o@example.net");
    struct span r[5] = {span_str("a@x"), span_str("b@x"), span_str("c@x"), span_str("d@x"),
                        span_str("e@x")};
    (void)state;

    assert_true(marks_limit(marks, sender, r[0], NOW) == UINT32_MAX);
    marks_halve(marks, sender, r, 5, DAY, NOW);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(marks_limit(marks, sender, r[i], NOW), 2);
        assert_true(marks_limit(marks, other, r[i], NOW) == UINT32_MAX);
        /* Not a mark: it is not asked live. */
        assert_false(marks_has(marks, r[i], NOW));
    }
    marks_halve(marks, sender, r, 2, DAY, NOW);
    assert_int_equal(marks_limit(marks, sender, r[0], NOW), 1);
    assert_int_equal(marks_limit(marks, sender, r[2], NOW), 2);
    marks_halve(marks, sender, r, 1, DAY, NOW);
    assert_int_equal(marks_limit(marks, sender, r[0], NOW), 1);
    assert_true(marks_limit(marks, sender, r[0], NOW + DAY) == UINT32_MAX);
    /* The null sender is one, too. */
    marks_halve(marks, span_str(""), r, 4, DAY, NOW);
    assert_int_equal(marks_limit(marks, span_str(NULL), r[0], NOW), 2);
}

/* How many of these limits, in this order, a transaction takes. */
static void
test_share(void **state)
{
    static const struct {
        uint32_t limits[5];
        const char *taken; /* y or n for each */
    } rows[] = {
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}, "yyyyy"},
        {{2, 2, 2, 2, 2}, "yynnn"},
        {{1, 1, 1, 1, 1}, "ynnnn"},
        {{2, UINT32_MAX, 2, 2, UINT32_MAX}, "yyyny"},
        {{3, 1, 3, 3, 3}, "ynyyn"},
        {{1, 3, 3, 3, 3}, "ynnnn"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mark_share share = {0};
        for (int k = 0; k < 5; k++) {
            bool allows = mark_share_allows(&share, rows[i].limits[k]);
            assert_int_equal(allows, rows[i].taken[k] == 'y');
            if (allows)
                mark_share_take(&share, rows[i].limits[k]);
        }
    }
}

/* By halving, whoever is the one that the downstream refuses comes to stand alone, and the others
 * are served, in a bounded number of retries. */
static void
test_halving_finds_the_one(void **state)
{
    enum { COUNT = 100 };
    char text[COUNT][32];
    struct span recipients[COUNT], sender = span_str("s@example.net");
    (void)state;

    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(text[i], sizeof text[i], "r%d@example.com", i);
        recipients[i] = span_str(text[i]);
    }
    for (int guilty = 0; guilty < COUNT; guilty += 33) {
        bool served[COUNT] = {false}, is_found = false;
        unsigned transactions = 0;
        marks_free(&marks);
        marks = marks_new(&key);
        while (!is_found) {
            struct mark_share share = {0};
            struct span taken[COUNT];
            int index[COUNT], n = 0;
            bool has_guilty = false;
            for (int i = 0; i < COUNT; i++) {
                uint32_t limit = marks_limit(marks, sender, recipients[i], NOW);
                if (served[i] || !mark_share_allows(&share, limit))
                    continue;
                mark_share_take(&share, limit);
                has_guilty = has_guilty || i == guilty;
                taken[n] = recipients[i];
                index[n++] = i;
            }
            assert_true(n > 0);
            if (has_guilty && n > 1)
                marks_halve(marks, sender, taken, (size_t)n, DAY, NOW);
            for (int i = 0; i < n && !has_guilty; i++)
                served[index[i]] = true;
            is_found = has_guilty && n == 1;
            assert_true(++transactions < 60);
        }
    }
}

static void
test_bounded(void **state)
{
    char text[32];
    unsigned kept = 0;
    (void)state;

    for (int i = 0; i < 200000; i++) {
        (void)snprintf(text, sizeof text, "r%d@example.com", i);
        marks_add(marks, span_str(text), DAY, NOW + i * SECOND);
    }
    assert_true(marks_has(marks, span_str(text), NOW));
    for (int i = 0; i < 200000; i++) {
        (void)snprintf(text, sizeof text, "r%d@example.com", i);
        kept += marks_has(marks, span_str(text), NOW);
    }
    assert_in_range(kept, 50000, 65536);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mark_and_its_time),     TEST(test_limits),  TEST(test_share),
        TEST(test_halving_finds_the_one), TEST(test_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
