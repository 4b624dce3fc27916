#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ldap/snapshot_rows.h"
#include "ldap/sync_look.h"

/* What of an entry is an address, and which entries are asked for. */

static void
test_addresses(void **state)
{
    static const struct {
        bool is_ad;
        const char *value, *address; /* NULL: it is none */
    } cases[] = {
        {true, "SMTP:Anna@Example.Test", "anna@example.test"},
        {true, "smtp:anna@example.test", "anna@example.test"},
        {true, "anna@example.test", "anna@example.test"},
        {true, "smtp:\"a:b\"@example.test", "\"a:b\"@example.test"},
        {true, "smtp:anna@b\303\274cher.example", "anna@xn--bcher-kva.example"},
        {true, "sip:anna@example.test", NULL},
        {true, "x500:/o=Example/cn=anna@example.test", NULL},
        {true, "X400:c=us;a= ;p=x;o=y;s=anna", NULL},
        {true, "smtp:", NULL},
        {true, "smtp:anna", NULL},
        {true, "smtp:an na@example.test", NULL},
        {true, "", NULL},
        {false, "Anna@Example.Test", "anna@example.test"},
        {false, "smtp:anna@example.test", "anna@example.test"},
        {false, "Anna", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct dir_plan plan = {.is_ad = cases[i].is_ad};
        char out[DIR_ADDRESS_MAX + 1] = "";
        size_t n = sync_address(&plan, span_str(cases[i].value), out);

        if (cases[i].address) {
            assert_string_equal(out, cases[i].address);
            assert_int_equal(n, strlen(cases[i].address));
        } else {
            assert_int_equal(n, 0);
        }
    }
}

static void
test_filters(void **state)
{
    static const struct {
        enum settings_type type;
        const char *filter, *attributes[2], *snapshot_filter, *expected;
    } cases[] = {
        {SETTINGS_TYPE_AD, NULL, {NULL, NULL}, NULL, "(|(proxyAddresses=smtp:*))"},
        {SETTINGS_TYPE_LDAP, NULL, {NULL, NULL}, NULL, "(|(mail=*))"},
        {SETTINGS_TYPE_LDAP, NULL, {"mail", "alias"}, NULL, "(|(mail=*)(alias=*))"},
        {SETTINGS_TYPE_AD,
         NULL,
         {"mail", "ProxyAddresses"},
         NULL,
         "(|(mail=*)(ProxyAddresses=smtp:*))"},
        {SETTINGS_TYPE_AD, "(cn=%l)", {NULL, NULL}, NULL, "(|(proxyAddresses=smtp:*))"},
        {SETTINGS_TYPE_LDAP, "(cn=%l)", {"mail", NULL}, "(cn=*)", "(cn=*)"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *attributes[2] = {NULL}, filter[256];
        struct settings_directory conf = {.type = cases[i].type, .mode = SETTINGS_MODE_SNAPSHOT};
        struct dir_plan plan;

        while (conf.attributes.n < 2 && cases[i].attributes[conf.attributes.n]) {
            attributes[conf.attributes.n] =
                span_dup(span_str(cases[i].attributes[conf.attributes.n]));
            conf.attributes.n++;
        }
        conf.attributes.v = attributes;
        conf.filter = cases[i].filter ? span_dup(span_str(cases[i].filter)) : NULL;
        conf.snapshot_filter =
            cases[i].snapshot_filter ? span_dup(span_str(cases[i].snapshot_filter)) : NULL;
        assert_int_equal(dir_plan_init(&plan, &conf), 0);
        sync_filter(&plan, filter, sizeof filter);
        assert_string_equal(filter, cases[i].expected);
        dir_plan_clear(&plan);
        free(attributes[0]);
        free(attributes[1]);
        free(conf.filter);
        free(conf.snapshot_filter);
    }
}

/* Rows. */

static void
fill(struct snapshot_rows *r, const char *letters)
{
    *r = snapshot_rows_of(1);
    for (; *letters; letters++)
        snapshot_rows_add(r, letters);
}

static void
assert_rows(const struct snapshot_rows *r, const char *letters)
{
    assert_int_equal(r->n, strlen(letters));
    if (r->n > 0)
        assert_memory_equal(r->octets, letters, r->n);
}

static void
test_rows_are_sorted_once_each(void **state)
{
    static const char *const cases[][2] = {{"", ""},       {"a", "a"},        {"aa", "a"},
                                           {"cab", "abc"}, {"cabbac", "abc"}, {"dddd", "d"}};
    struct snapshot_rows r;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fill(&r, cases[i][0]);
        snapshot_rows_sort(&r);
        assert_rows(&r, cases[i][1]);
        snapshot_rows_clear(&r);
    }
}

static void
test_rows_differ(void **state)
{
    static const struct {
        const char *old, *fresh, *gone, *come;
    } cases[] = {
        {"", "", "", ""},         {"abc", "abc", "", ""},   {"", "abc", "", "abc"},
        {"abc", "", "abc", ""},   {"ac", "abc", "", "b"},   {"abc", "bd", "ac", "d"},
        {"ab", "cd", "ab", "cd"}, {"cd", "ab", "cd", "ab"}, {"bcd", "abcde", "", "ae"},
    };
    struct snapshot_rows old, fresh;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fill(&old, cases[i].old);
        fill(&fresh, cases[i].fresh);
        snapshot_rows_differ(&old, &fresh);
        assert_rows(&old, cases[i].gone);
        assert_rows(&fresh, cases[i].come);
        snapshot_rows_clear(&old);
        snapshot_rows_clear(&fresh);
    }
}

/* A server that does not come to an end. */
static void
test_rows_are_bounded(void **state)
{
    struct snapshot_rows r = snapshot_rows_of(1);
    char *many = calloc(1, SNAPSHOT_ROWS_MAX);

    (void)state;
    assert_non_null(many);
    snapshot_rows_add_many(&r, many, SNAPSHOT_ROWS_MAX);
    assert_false(r.is_full);
    snapshot_rows_add(&r, many);
    assert_true(r.is_full);
    assert_int_equal(r.n, SNAPSHOT_ROWS_MAX);
    snapshot_rows_clear(&r);
    free(many);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_rows_are_sorted_once_each),
        cmocka_unit_test(test_rows_differ),
        cmocka_unit_test(test_rows_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
