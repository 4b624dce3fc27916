#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void
test_set(void **state)
{
    struct err e = {0};

    (void)state;
    assert_int_equal(err_set(&e, ERR_CONFIG, "%s: %d", "here", 3), -1);
    assert_int_equal(e.kind, ERR_CONFIG);
    assert_string_equal(e.text, "here: 3");
    assert_int_equal(err_set(NULL, ERR_TLS, "nobody asks"), -1);
    assert_int_equal(err_errno(NULL, ERR_TLS, ENOENT, "nobody asks"), -1);
    assert_int_equal(err_wrap(NULL, "nobody asks"), -1);
}

static void
test_errno(void **state)
{
    struct err e = {0};

    (void)state;
    assert_int_equal(err_errno(&e, ERR_SYSTEM, ENOENT, "%s", "/x"), -1);
    assert_int_equal(e.kind, ERR_SYSTEM);
    assert_string_equal(e.text, "/x: No such file or directory");
}

static void
test_wrap(void **state)
{
    struct err e = {0};

    (void)state;
    err_set(&e, ERR_LDAP, "bind refused");
    assert_int_equal(err_wrap(&e, "ldap %s", "dc1"), -1);
    assert_int_equal(e.kind, ERR_LDAP);
    assert_string_equal(e.text, "ldap dc1: bind refused");
    /* Its own text may be an argument. */
    err_set(&e, ERR_STORAGE, "again: %s", e.text);
    assert_string_equal(e.text, "again: ldap dc1: bind refused");
}

static void
test_one_line(void **state)
{
    struct err e = {0};

    (void)state;
    err_set(&e, ERR_LDAP, "first\r\nsecond\tthird\n\n");
    assert_string_equal(e.text, "first  second third");
    err_set(&e, ERR_LDAP, "\n");
    assert_string_equal(e.text, "");
}

static void
test_cut(void **state)
{
    struct err e = {0};
    char longer[1000];

    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    err_set(&e, ERR_STORAGE, "%s", longer);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    err_wrap(&e, "context");
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_memory_equal(e.text, "context: xxx", 12);
    err_wrap(&e, "%s", longer);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),      cmocka_unit_test(test_errno), cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_one_line), cmocka_unit_test(test_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
