#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ldap.h>

#include "ldap/dir_result.h"

/* Every code of RFC 4511 and of libldap: one alone is an answer of "these are all". */
static void
only_success_is_complete(void **state)
{
    (void)state;
    for (int code = -20; code <= 0x80; code++) {
        enum dir_outcome outcome = dir_result_outcome(code);

        assert_int_equal(outcome == DIR_OUTCOME_COMPLETE, code == LDAP_SUCCESS);
        if (code < 0)
            assert_int_equal(outcome, DIR_OUTCOME_LOST);
    }
    assert_int_equal(dir_result_outcome(LDAP_NO_SUCH_OBJECT), DIR_OUTCOME_FAILED);
    assert_int_equal(dir_result_outcome(LDAP_REFERRAL), DIR_OUTCOME_FAILED);
    assert_int_equal(dir_result_outcome(LDAP_INSUFFICIENT_ACCESS), DIR_OUTCOME_FAILED);
    assert_int_equal(dir_result_outcome(LDAP_SIZELIMIT_EXCEEDED), DIR_OUTCOME_PARTIAL);
    assert_int_equal(dir_result_outcome(LDAP_TIMELIMIT_EXCEEDED), DIR_OUTCOME_PARTIAL);
    /* What a stranger's address may bring about takes no connection away from others. */
    assert_int_equal(dir_result_outcome(LDAP_OPERATIONS_ERROR), DIR_OUTCOME_FAILED);
    assert_int_equal(dir_result_outcome(LDAP_PROTOCOL_ERROR), DIR_OUTCOME_FAILED);
    assert_int_equal(dir_result_outcome(LDAP_BUSY), DIR_OUTCOME_LOST);
}

static void
compares_addresses(void **state)
{
    static const struct {
        const char *value, *address;
        bool is_same;
    } rows[] = {
        {"SMTP:Anna@Ex.Test", "anna@ex.test", true},
        {"smtp:anna@ex.test", "anna@ex.test", true},
        {"anna@ex.test", "anna@ex.test", true},
        {"smtp:anna@b\xc3\xbc"
         "cher.test",
         "anna@xn--bcher-kva.test", true},
        {"smtp:\xc3\x84nne@Ex.Test", "\xc3\xa4nne@ex.test", true},
        {"smtp:ann\xc3\xa1@ex.test", "anna@ex.test", false}, /* Active Directory finds them equal */
        {"smtp:anna@ex.test ", "anna@ex.test", false},
        {"x500:anna@ex.test", "anna@ex.test", false},
        {"sip:anna@ex.test", "anna@ex.test", false},
        {"smtp:", "anna@ex.test", false},
        {"", "anna@ex.test", false},
        {"smtp:anna@ex.testing", "anna@ex.test", false},
        {"smtp:anna", "anna@ex.test", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(dir_result_is_address(span_str(rows[i].value), span_str(rows[i].address)),
                         rows[i].is_same);
    assert_true(dir_result_is_x500(span_str("X500:/O=A/CN=b"), span_str("/o=a/cn=B")));
    assert_true(dir_result_is_x500(span_str("/O=A/CN=b"), span_str("/o=a/cn=B")));
    assert_false(dir_result_is_x500(span_str("x500:/o=a"), span_str("/o=ab")));
}

static void
reads_ranges(void **state)
{
    static const struct {
        const char *description, *name;
        bool is_ranged, is_last;
        unsigned next;
    } rows[] = {
        {"proxyAddresses", "proxyAddresses", false, false, 0},
        {"proxyAddresses;range=0-1499", "proxyAddresses", true, false, 1500},
        {"proxyAddresses;Range=1500-*", "proxyAddresses", true, true, 0},
        {"member;lang-de;range=0-4", "member", true, false, 5},
        {"member;binary", "member", false, false, 0},
        {"member;range=5", "member", false, false, 0},
        {"member;range=0-99999999999", "member", false, false, 0},
        {"", "", false, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct dir_attribute a = dir_result_attribute(span_str(rows[i].description));

        assert_true(span_is(a.name, rows[i].name));
        assert_int_equal(a.is_ranged, rows[i].is_ranged);
        assert_int_equal(a.is_last, rows[i].is_last);
        assert_int_equal(a.next, rows[i].next);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_success_is_complete),
        cmocka_unit_test(compares_addresses),
        cmocka_unit_test(reads_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
