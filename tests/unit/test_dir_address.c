#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ldap/dir_address.h"

static void
makes_canonical(void **state)
{
    static const struct {
        const char *text, *canonical;
    } rows[] = {
        {"Anna@Ex.Test", "anna@ex.test"},
        {"@Ex.Test", "@ex.test"},
        {"a@B\xc3\x9c"
         "CHER.test",
         "a@xn--bcher-kva.test"},
        {"\xc3\x84NNE@Ex.Test", "\xc3\xa4nne@ex.test"},
        {"\xc3\x84+\xff@b", "\xc3\xa4+\xff@b"},
        {"\"a b\"@c", "\"a b\"@c"},
        {"\"a\\\" b\"@c", "\"a\\\" b\"@c"},
        {"a@b@c", "a@b@c"},
        {"anna", ""},
        {"anna@", ""},
        {"an na@ex.test", ""},
        {"a@ex test", ""},
        {"a@ex\x7f", ""},
        {"a\x01@b", ""},
        {"\"a@b", ""},
        {"a@\xff\xff", ""},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[DIR_ADDRESS_MAX + 1] = "";
        size_t n = dir_address_canonical(span_str(rows[i].text), out);

        assert_int_equal(n, strlen(rows[i].canonical));
        if (n > 0)
            assert_string_equal(out, rows[i].canonical);
    }
}

static void
knows_the_limit(void **state)
{
    char text[DIR_ADDRESS_MAX + 2], out[DIR_ADDRESS_MAX + 1];

    (void)state;
    memset(text, 'a', sizeof text);
    text[3] = '@';
    assert_int_equal(dir_address_canonical(span_of(text, DIR_ADDRESS_MAX), out), DIR_ADDRESS_MAX);
    assert_int_equal(dir_address_canonical(span_of(text, DIR_ADDRESS_MAX + 1), out), 0);
}

static void
drops_tags(void **state)
{
    static const struct {
        const char *address, *untagged;
    } rows[] = {
        {"user+tag@d", "user@d"}, {"user+a+b@d", "user@d"}, {"user+@d", "user@d"},
        {"user@d", ""},           {"+tag@d", ""},           {"user@d+e", ""},
        {"\"user+tag\"@d", ""},   {"user+tag", ""},         {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char out[DIR_ADDRESS_MAX + 1] = "";
        size_t n = dir_address_untagged(span_str(rows[i].address), out);

        assert_int_equal(n, strlen(rows[i].untagged));
        assert_string_equal(out, rows[i].untagged);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_canonical),
        cmocka_unit_test(knows_the_limit),
        cmocka_unit_test(drops_tags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
