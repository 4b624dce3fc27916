#define _GNU_SOURCE /* towlower_l */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <locale.h>
#include <wctype.h>

#include "base/utf8.h"

static size_t
encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static void
test_every_character(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x200000; c++) {
        char text[4];
        size_t n = encode(c, text);
        uint32_t code = 0;
        bool is_character = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
        bool is_control = c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
                          (c >= 0x2066 && c <= 0x2069);

        assert_int_equal(utf8_next(span_of(text, n), &code), is_character ? n : 0);
        if (is_character)
            assert_int_equal(code, c);
        assert_int_equal(utf8_printable(span_of(text, n)), is_character && !is_control ? n : 0);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(utf8_next(span_of(text, cut), &code), 0);
    }
}

static void
test_malformed(void **state)
{
    static const char *const rows[] = {
        "\x80",         "\xbf",         "\xc0\xaf",         "\xc1\xbf",
        "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf",
        "\xc3(",        "\xe2\x28\xa1", "\xe2\x82(",        "\xf0\x9f\x93(",
        "\xfe",         "\xff"};
    uint32_t code;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(utf8_next(span_str(rows[i]), &code), 0);
}

static void
test_fit(void **state)
{
    static const char text[] = "a\xc3\xb6\xe2\x82\xac\xf0\x9f\x93\xa7";
    static const size_t fits[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
    (void)state;

    for (size_t max = 0; max < sizeof fits / sizeof fits[0]; max++)
        assert_int_equal(utf8_fit(span_str(text), max), fits[max]);
    assert_int_equal(utf8_fit(span_str("\x80\x80\x80"), 2), 0);
}

/* Against the C library's table, for the scripts that utf8_lower promises. */
static void
test_lower_is_unicodes(void **state)
{
    /* lower case of another length: they stay */
    static const uint32_t kept[] = {0x130, 0x1e9e};
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    (void)state;

    if (utf8 == (locale_t)0)
        skip();
    for (uint32_t c = 0; c < 0x10000; c++) {
        char text[4], expected[4];
        size_t n;
        uint32_t lower = (uint32_t)towlower_l((wint_t)c, utf8);
        bool is_promised = c < 0x180 || (c >= 0x386 && c < 0x3cf) || (c >= 0x400 && c < 0x590) ||
                           (c >= 0x1e00 && c < 0x1f00);

        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        n = encode(c, text);
        utf8_lower(text, n);
        if (c == kept[0] || c == kept[1])
            lower = c;
        /* Elsewhere a letter may stay, but never becomes another. */
        if (!is_promised && memcmp(text, expected, encode(c, expected)) == 0)
            continue;
        assert_int_equal(encode(lower, expected), n);
        if (memcmp(text, expected, n) != 0)
            fail_msg("U+%04X", c);
    }
    freelocale(utf8);
}

static void
test_lower_text(void **state)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"Azaz09@[Z", "azaz09@[z"},
        {"\xc3\x9c"
         "BUNG",
         "\xc3\xbc"
         "bung"},
        {"\xc8\x98tefan", "\xc8\x99tefan"}, /* Romanian */
        {"\xe1\xba\xa4n", "\xe1\xba\xa5n"}, /* Vietnamese */
        {"\xc6\xa0\xc6\xaf", "\xc6\xa1\xc6\xb0"},
        {"\xce\xa9\xce\x88", "\xcf\x89\xce\xad"}, /* Greek */
        {"\xd0\x96\xd0\x81", "\xd0\xb6\xd1\x91"}, /* Cyrillic */
        {"\xc5\xb8", "\xc3\xbf"},
        {"A\xff"
         "B\xc3",
         "a\xff"
         "b\xc3"}, /* what is no UTF-8 stays */
        {"\xf0\x9f\x93\xa7X", "\xf0\x9f\x93\xa7x"},
    };
    char text[32];
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(span_copy(text, sizeof text, span_str(rows[i][0])));
        utf8_lower(text, strlen(text));
        assert_string_equal(text, rows[i][1]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_lower_is_unicodes),
        cmocka_unit_test(test_lower_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
