#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/header.h"
#include "tests/smtp_reference.h"

/* Scan IN in two pieces, or in steps of one; returns the section's length. */
static size_t
scan(struct span in, size_t first, size_t step, bool *found)
{
    struct header_end end = {0};
    size_t total = 0, at = 0, n = first;

    for (;;) {
        char *copy;
        size_t taken;

        if (n > in.n - at)
            n = in.n - at;
        copy = malloc(n > 0 ? n : 1);
        assert_non_null(copy);
        if (n > 0)
            memcpy(copy, in.p + at, n);
        taken = header_end_scan(&end, span_of(copy, n));
        free(copy);
        assert_true(taken <= n);
        total += taken;
        at += n;
        if (end.found)
            assert_int_equal(header_end_scan(&end, in), 0);
        else
            assert_int_equal(taken, n);
        if (end.found || at == in.n)
            break;
        n = step;
    }
    *found = end.found;
    return total;
}

static void
test_end(void **state)
{
    static const struct {
        const char *in;
        size_t n;
        bool found;
    } rows[] = {
        {"", 0, false},
        {"A: b", 4, false},
        {"A: b\r\n", 6, false},
        {"A: b\r\n\r\n", 8, true},
        {"A: b\r\n\r\nbody\r\n\r\n", 8, true},
        {"A: b\n\nbody", 6, true},
        {"A: b\r\rbody", 6, true},
        {"A: b\r\r", 6, false}, /* a LF may come */
        {"A: b\r\r\nbody", 7, true},
        {"A: b\r\n\rbody", 7, true},
        {"A: b\r\n\nbody", 7, true},
        {"A: b\n\r\nbody", 7, true},
        {"A: b\n\rbody", 6, true},
        {"\r\nbody", 2, true},
        {"\nbody", 1, true},
        {"\rbody", 1, true},
        {"\r\r\n", 1, true},
        {"\n\n", 1, true},
        {"A: b\r\n \r\n\r\n", 11, true}, /* a blank line is none that is empty */
        {"A: b\r\n c\n\td\r e\r\n\r\nx", 18, true},
        {"\r", 1, false},
        {"junk\r\nmore\r\n\r\n", 14, true},
    };
    bool found;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct span in = span_str(rows[i].in);
        for (size_t split = 0; split <= in.n; split++)
            for (size_t step = 1; step < 100; step += 98) {
                size_t n = scan(in, split, step, &found);
                if (n != rows[i].n || found != rows[i].found)
                    fail_msg("row %zu split at %zu: %zu", i, split, n);
            }
    }
}

static void
test_end_of_every_short_input(void **state)
{
    char in[8];
    (void)state;

    for (size_t n = 0; n <= sizeof in; n++) {
        size_t inputs = 1;
        for (size_t i = 0; i < n; i++)
            inputs *= 3;
        for (size_t i = 0; i < inputs; i++) {
            size_t rest = i, expected;
            bool found, expect_found;

            for (size_t k = 0; k < n; k++, rest /= 3)
                in[k] = "\r\nx"[rest % 3];
            expected = header_end_reference(span_of(in, n), &expect_found);
            for (size_t split = 0; split <= n; split++)
                for (size_t step = 1; step < 10; step += 8) {
                    assert_int_equal(scan(span_of(in, n), split, step, &found), expected);
                    assert_int_equal(found, expect_found);
                }
        }
    }
}

#define FIELDS 6

static void
test_fields(void **state)
{
    static const struct {
        const char *in;
        struct {
            const char *name, *value, *whole;
        } fields[FIELDS];
        const char *rest;
    } rows[] = {
        {"", {{0}}, ""},
        {"\r\nA: b\r\n", {{0}}, "\r\nA: b\r\n"},
        {"A: b\r\n\r\n", {{"A", " b\r\n", "A: b\r\n"}}, "\r\n"},
        {"A:b", {{"A", "b", "A:b"}}, ""},
        {"A:\r\nB:\r\n", {{"A", "\r\n", "A:\r\n"}, {"B", "\r\n", "B:\r\n"}}, ""},
        {"A: b\r\n c\r\n\td: e\r\nF: g\r\n",
         {{"A", " b\r\n c\r\n\td: e\r\n", "A: b\r\n c\r\n\td: e\r\n"}, {"F", " g\r\n", "F: g\r\n"}},
         ""},
        /* line ends of all kinds */
        {"A: b\nC: d\rE: f\r\nG: h\n i\r j\n\nx",
         {{"A", " b\n", "A: b\n"},
          {"C", " d\r", "C: d\r"},
          {"E", " f\r\n", "E: f\r\n"},
          {"G", " h\n i\r j\n", "G: h\n i\r j\n"}},
         "\nx"},
        /* blanks before the colon, also folded, belong to no name */
        {"A \t: b\n", {{"A", " b\n", "A \t: b\n"}}, ""},
        {"A\r\n : b\r\n", {{"A", " b\r\n", "A\r\n : b\r\n"}}, ""},
        /* junk */
        {"no field\r\nA: b\r\n", {{"", "", "no field\r\n"}, {"A", " b\r\n", "A: b\r\n"}}, ""},
        {"From a@b Tue Nov 24 16:24:50 2026\nA: b\n",
         {{"", "", "From a@b Tue Nov 24 16:24:50 2026\n"}, {"A", " b\n", "A: b\n"}},
         ""},
        {" folded: from nothing\r\nA: b\r\n",
         {{"", "", " folded: from nothing\r\n"}, {"A", " b\r\n", "A: b\r\n"}},
         ""},
        {": no name\n", {{"", "", ": no name\n"}}, ""},
        {"A\x01: b\nA\xc3\xb6: b\n", {{"", "", "A\x01: b\n"}, {"", "", "A\xc3\xb6: b\n"}}, ""},
        {"A\r\n B: c\r\n", {{"", "", "A\r\n B: c\r\n"}}, ""},
        /* a folded line of blanks does not end the section */
        {"A: b\r\n \r\n c\r\n\r\n", {{"A", " b\r\n \r\n c\r\n", "A: b\r\n \r\n c\r\n"}}, "\r\n"},
        {"A: b: c\r\n", {{"A", " b: c\r\n", "A: b: c\r\n"}}, ""},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct span rest = span_str(rows[i].in);
        struct header_field field;

        for (size_t k = 0; k < FIELDS && rows[i].fields[k].name != NULL; k++) {
            if (!header_next(&rest, &field))
                fail_msg("row %zu has no field %zu", i, k);
            if (!span_is(field.name, rows[i].fields[k].name) ||
                !span_is(field.value, rows[i].fields[k].value) ||
                !span_is(field.whole, rows[i].fields[k].whole))
                fail_msg("row %zu, field %zu", i, k);
        }
        assert_false(header_next(&rest, &field));
        assert_true(span_is(rest, rows[i].rest));
    }
}

static void
test_names(void **state)
{
    struct span rest = span_str("X-MS-Exchange-Organization-SCL : -1\r\njunk\r\n");
    struct header_field field;
    (void)state;

    assert_true(header_next(&rest, &field));
    assert_true(header_name_is(&field, "x-ms-exchange-organization-scl"));
    assert_false(header_name_is(&field, "x-ms-exchange-organization-sc"));
    assert_false(header_name_is(&field, "x-ms-exchange-organization-scl "));
    assert_true(header_name_starts(&field, "X-MS-Exchange-Organization-"));
    assert_false(header_name_starts(&field, "X-MS-Exchange-Forest-"));
    assert_true(header_next(&rest, &field));
    assert_false(header_name_is(&field, "junk"));
    assert_false(header_name_starts(&field, "j"));
}

static void
test_large_field(void **state)
{
    char *in = calloc(1, SMTP_HEADER_MAX);
    struct span rest = span_of(in, SMTP_HEADER_MAX);
    struct header_field field;
    bool found;
    (void)state;

    assert_non_null(in);
    memset(in, 'x', SMTP_HEADER_MAX);
    in[1] = ':';
    for (size_t i = 1000; i < SMTP_HEADER_MAX - 4; i += 1000)
        memcpy(in + i, "\r\n ", 3);
    memcpy(in + SMTP_HEADER_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(scan(rest, SMTP_HEADER_MAX, 1, &found), SMTP_HEADER_MAX);
    assert_true(found);
    assert_true(header_next(&rest, &field));
    assert_true(span_is(field.name, "x"));
    assert_int_equal(field.whole.n, SMTP_HEADER_MAX - 2);
    assert_false(header_next(&rest, &field));
    assert_int_equal(rest.n, 2);
    free(in);
}

/* Whatever the octets: the fields and what is left are the section, and every field moves on. */
static void
test_nothing_is_lost(void **state)
{
    char in[24];
    (void)state;

    srand(1);
    for (unsigned round = 0; round < 100000; round++) {
        size_t n = (size_t)rand() % sizeof in, at = 0;
        struct span rest = span_of(in, n);
        struct header_field field;

        for (size_t k = 0; k < n; k++)
            in[k] = "\r\n\t :A\0\xff"[rand() % 8];
        while (header_next(&rest, &field)) {
            assert_ptr_equal(field.whole.p, in + at);
            assert_true(field.whole.n > 0);
            at += field.whole.n;
            assert_ptr_equal(rest.p, in + at);
            assert_int_equal(rest.n, n - at);
            if (field.name.n > 0)
                assert_ptr_equal(field.value.p + field.value.n, in + at);
        }
        assert_true(rest.n == 0 || rest.p[0] == '\r' || rest.p[0] == '\n');
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end),         cmocka_unit_test(test_end_of_every_short_input),
        cmocka_unit_test(test_fields),      cmocka_unit_test(test_names),
        cmocka_unit_test(test_large_field), cmocka_unit_test(test_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
