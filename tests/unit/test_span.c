#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/span.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static void
test_equal(void **state)
{
    static const struct {
        const char *a, *b;
        bool equal, nocase;
    } cases[] = {
        {"", "", true, true},          {"a", "", false, false},
        {"", "a", false, false},       {"a", "a", true, true},
        {"a", "A", false, true},       {"aZ[", "Az[", false, true},
        {"[", "{", false, false},      {"@", "`", false, false},
        {"ab", "abc", false, false},   {"\xc3\x84", "\xc3\xa4", false, false},
        {"MAIL", "mail", false, true},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct span a = span_str(cases[i].a), b = span_str(cases[i].b);

        assert_int_equal(span_equal(a, b), cases[i].equal);
        assert_int_equal(span_is(a, cases[i].b), cases[i].equal);
        assert_int_equal(span_equal_nocase(a, b), cases[i].nocase);
        assert_int_equal(span_is_nocase(a, cases[i].b), cases[i].nocase);
    }
    /* A NUL is an octet like any other, and no pointer is the empty span. */
    assert_false(span_is(span_of("a\0b", 3), "a"));
    assert_false(span_equal(span_of("a\0b", 3), span_of("a\0c", 3)));
    assert_true(span_equal(span_str(NULL), span_of(NULL, 0)));
    assert_true(span_equal_nocase(span_of(NULL, 0), span_str("")));
}

static void
test_starts_and_ends(void **state)
{
    static const struct {
        const char *text, *part;
        bool starts, ends;
    } cases[] = {
        {"FROM:<a@b>", "from:", true, false},
        {"from", "from:", false, false},
        {"a@Example.COM", "@example.com", false, true},
        {"", "", true, true},
        {"x", "", true, true},
        {"", "x", false, false},
        {"abc", "ABC", true, true},
        {"abcabc", "abc", true, true},
        {"xabc", "abcx", false, false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct span text = span_str(cases[i].text);

        assert_int_equal(span_starts_nocase(text, cases[i].part), cases[i].starts);
        assert_int_equal(span_ends_nocase(text, cases[i].part), cases[i].ends);
    }
    assert_true(span_ends_nocase(span_of(NULL, 0), ""));
}

static void
test_trim(void **state)
{
    static const char *const cases[][2] = {
        {"", ""}, {" ", ""}, {" \t ", ""}, {"a", "a"}, {" a b\t", "a b"}, {"\ra\n", "\ra\n"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_true(span_is(span_trim(span_str(cases[i][0])), cases[i][1]));
}

static void
test_next(void **state)
{
    static const struct {
        const char *text;
        const char *items[5];
    } cases[] = {
        {"", {""}},        {"a", {"a"}},    {"a,b", {"a", "b"}},
        {"a,", {"a", ""}}, {",", {"", ""}}, {",,a", {"", "", "a"}},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct span rest = span_str(cases[i].text), item;
        size_t n = 0;

        for (; span_next(&rest, ',', &item); n++) {
            assert_non_null(cases[i].items[n]);
            assert_true(span_is(item, cases[i].items[n]));
        }
        assert_null(cases[i].items[n]);
        assert_false(span_next(&rest, ',', &item));
    }
}

static void
test_copy(void **state)
{
    char out[4] = "???";
    char *copy;

    (void)state;
    assert_true(span_copy(out, sizeof out, span_str("abc")));
    assert_string_equal(out, "abc");
    assert_false(span_copy(out, sizeof out, span_str("abcd")));
    assert_string_equal(out, "");
    assert_true(span_copy(out, 1, span_of(NULL, 0)));
    assert_string_equal(out, "");
    assert_false(span_copy(out, 0, span_str("")));
    copy = span_dup(span_of("a\0bc", 3));
    assert_non_null(copy);
    assert_memory_equal(copy, "a\0b", 4);
    free(copy);
    copy = span_dup(span_of(NULL, 0));
    assert_string_equal(copy, "");
    free(copy);
}

static void
test_u64(void **state)
{
    static const struct {
        const char *text;
        uint64_t max;
        bool ok;
        uint64_t value;
    } cases[] = {
        {"0", 0, true, 0},
        {"007", 9, true, 7},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
        {"18446744073709551616", UINT64_MAX, false, 0},
        {"99999999999999999999999", UINT64_MAX, false, 0},
        {"65535", 65535, true, 65535},
        {"65536", 65535, false, 0},
        {"", 9, false, 0},
        {"-1", 9, false, 0},
        {"+1", 9, false, 0},
        {" 1", 9, false, 0},
        {"1 ", 9, false, 0},
        {"0x1", 99, false, 0},
        {"1.", 99, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        uint64_t value = 42;

        assert_int_equal(span_u64(span_str(cases[i].text), cases[i].max, &value), cases[i].ok);
        assert_int_equal(value, cases[i].ok ? cases[i].value : 42);
    }
    for (int c = 0; c < 256; c++) {
        char digit = (char)c;
        uint64_t value;

        assert_int_equal(span_u64(span_of(&digit, 1), 9, &value), c >= '0' && c <= '9');
    }
}

static void
test_lower(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++)
        assert_int_equal(ascii_lower((char)c), (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal), cmocka_unit_test(test_starts_and_ends),
        cmocka_unit_test(test_trim),  cmocka_unit_test(test_next),
        cmocka_unit_test(test_copy),  cmocka_unit_test(test_u64),
        cmocka_unit_test(test_lower),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
