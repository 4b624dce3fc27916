#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ldap/dir_filter.h"

#define ADDRESS "an(na)+x@ex.test"

static void
expands(void **state)
{
    static const struct {
        const char *template, *address, *filter;
    } rows[] = {
        {"(mail=%u)", "a@b", "(mail=a@b)"},
        {"(&(uid=%l)(dc=%d))", "a@b", "(&(uid=a)(dc=b))"},
        {"(x=100%%)(y=%z)%", "a@b", "(x=100%)(y=%z)%"},
        {"%u", "*@b", "\\2a@b"},
        {"%u", ADDRESS, "an\\28na\\29+x@ex.test"},
        {"%l", "\"a\\b\"@c", "\"a\\5cb\""},
        {"%l", "a@b@c", "a@b"},
        {"%u|%d", "nobody", "nobody|"},
        {"%l", "\xc3\xa4@b", "\\c3\\a4"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct dir_filter f = {.n = 0};

        dir_filter_expand(&f, rows[i].template, span_str(rows[i].address));
        assert_false(f.is_full);
        assert_string_equal(f.text, rows[i].filter);
    }
}

/* RFC 4515 3: what is not escaped is harmless, what is escaped reads back. */
static void
escapes_every_octet(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        struct dir_filter f = {.n = 0};
        char octet = (char)c;
        unsigned back;

        dir_filter_add_value(&f, span_of(&octet, 1));
        if (f.n == 1) {
            assert_int_equal((unsigned char)f.text[0], c);
            assert_null(strchr("*()\\", octet));
            assert_in_range(c, 0x20, 0x7e);
        } else {
            assert_int_equal(f.n, 3);
            assert_int_equal(sscanf(f.text, "\\%2x", &back), 1);
            assert_int_equal(back, c);
        }
    }
}

static void
says_when_it_is_full(void **state)
{
    static char value[DIR_FILTER_MAX];
    struct dir_filter f = {.n = 0};

    (void)state;
    memset(value, 'a', sizeof value);
    dir_filter_add_value(&f, span_of(value, DIR_FILTER_MAX - 1));
    assert_false(f.is_full);
    assert_int_equal(strlen(f.text), DIR_FILTER_MAX - 1);
    dir_filter_add(&f, ")");
    assert_true(f.is_full);
    f = (struct dir_filter){.n = 0};
    dir_filter_add_value(&f, span_of(value, DIR_FILTER_MAX - 2));
    dir_filter_add_value(&f, span_str("*"));
    assert_true(f.is_full);
}

static void
decodes_imcea(void **state)
{
    static const struct {
        const char *address, *x500;
    } rows[] = {
        {"imceaex-_o=first+20org_cn=old@ex.test", "/o=first org/cn=old"},
        {"IMCEAX500-_O=A_CN=B+5FC@ex.test", "/O=A/CN=B_C"},
        {"imceaex-+2b+40@ex.test", "+@"},
        {"imceaex-a", ""},           /* no domain */
        {"imceaex-@ex.test", ""},    /* nothing */
        {"imceaex-a+2@ex.test", ""}, /* cut */
        {"imceaex-a+zz@ex.test", ""},
        {"imceasmtp-a+40b@ex.test", ""}, /* Exchange refuses these */
        {"anna@ex.test", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[64] = "";
        size_t n = dir_filter_imcea(span_str(rows[i].address), out, sizeof out);

        assert_int_equal(n, strlen(rows[i].x500));
        if (n > 0)
            assert_string_equal(out, rows[i].x500);
    }
}

static void
imcea_never_overruns(void **state)
{
    (void)state;
    for (size_t capacity = 0; capacity <= 4; capacity++) {
        char out[5] = {'#', '#', '#', '#', '#'};

        assert_int_equal(dir_filter_imcea(span_str("imceaex-abc@d"), out, capacity),
                         capacity == 4 ? 3 : 0);
        assert_int_equal(out[capacity], '#');
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expands),
        cmocka_unit_test(escapes_every_octet),
        cmocka_unit_test(says_when_it_is_full),
        cmocka_unit_test(decodes_imcea),
        cmocka_unit_test(imcea_never_overruns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
