#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/settings.h"
#include "policy/remote_domain.h"
#include "proxy/smtp/command.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define N        REMOTE_NOTIFY_NEVER
#define S        REMOTE_NOTIFY_SUCCESS
#define F        REMOTE_NOTIFY_FAILURE
#define D        REMOTE_NOTIFY_DELAY

_Static_assert(REMOTE_NOTIFY_NEVER == SMTP_NOTIFY_NEVER &&
                   REMOTE_NOTIFY_SUCCESS == SMTP_NOTIFY_SUCCESS &&
                   REMOTE_NOTIFY_FAILURE == SMTP_NOTIFY_FAILURE &&
                   REMOTE_NOTIFY_DELAY == SMTP_NOTIFY_DELAY,
               "the bits of the grammar");

static void
test_ndr(void **state)
{
    static const struct {
        enum settings_ndr ndr;
        bool is_proven, wants_proof, no_ndr;
    } rows[] = {
        {SETTINGS_NDR_YES, false, false, false},    {SETTINGS_NDR_YES, true, false, false},
        {SETTINGS_NDR_NO, false, false, true},      {SETTINGS_NDR_NO, true, false, true},
        {SETTINGS_NDR_UNPROVEN, false, true, true}, {SETTINGS_NDR_UNPROVEN, true, true, false},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct settings_remote_domain section = {.ndr = rows[i].ndr,
                                                 .delivery_reports = true,
                                                 .read_receipts = true,
                                                 .auto_replies = true};
        struct remote_rules rules = remote_domain_rules(&section, rows[i].is_proven);
        assert_int_equal(remote_domain_wants_proof(&section), rows[i].wants_proof);
        assert_int_equal(rules.no_ndr, rows[i].no_ndr);
        assert_int_equal(remote_domain_needs_dsn(&rules), rows[i].no_ndr);
        assert_false(rules.no_delivery_reports || rules.no_read_receipts || rules.no_auto_replies);
    }
}

static void
test_notify(void **state)
{
    static const struct {
        unsigned given, all_on, no_reports, no_ndr;
    } rows[] = {
        {0, 0, 0, N},
        {N, N, N, N},
        {S, S, N, N},
        {F, F, F, N},
        {D, D, D, N},
        {S | F, S | F, F, N},
        {S | D, S | D, D, N},
        {F | D, F | D, F | D, N},
        {S | F | D, S | F | D, F | D, N},
    };
    static const struct remote_rules none,
        no_reports = {.no_delivery_reports = true}, no_ndr = {.no_ndr = true},
        neither = {.no_ndr = true, .no_delivery_reports = true},
        others = {.no_read_receipts = true, .no_auto_replies = true};
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(remote_domain_notify(&none, rows[i].given), rows[i].all_on);
        assert_int_equal(remote_domain_notify(&others, rows[i].given), rows[i].all_on);
        assert_int_equal(remote_domain_notify(&no_reports, rows[i].given), rows[i].no_reports);
        assert_int_equal(remote_domain_notify(&no_ndr, rows[i].given), rows[i].no_ndr);
        assert_int_equal(remote_domain_notify(&neither, rows[i].given), rows[i].no_ndr);
    }
    assert_true(remote_domain_needs_dsn(&no_reports));
    assert_false(remote_domain_needs_dsn(&others));
}

static void
test_strips(void **state)
{
    static const struct remote_rules none = {.no_ndr = true, .no_auto_replies = true},
                                     receipts = {.no_read_receipts = true};
    static const struct {
        const char *name;
        bool is_stripped;
    } rows[] = {
        {"Disposition-Notification-To", true},
        {"disposition-notification-to", true},
        {"RETURN-RECEIPT-TO", true},
        {"Disposition-Notification-Options", false},
        {"X-Return-Receipt-To", false},
        {"Return-Path", false},
        {"", false},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(remote_domain_strips(&receipts, span_str(rows[i].name)),
                         rows[i].is_stripped);
        assert_false(remote_domain_strips(&none, span_str(rows[i].name)));
    }
}

static void
test_header(void **state)
{
    static const struct {
        struct remote_rules rules;
        const char *with_dsn, *without;
    } rows[] = {
        {{0}, "", ""},
        {{.no_read_receipts = true}, "", ""},
        {{.no_ndr = true}, "", "DR, NDR"},
        {{.no_delivery_reports = true}, "", "DR"},
        {{.no_ndr = true, .no_delivery_reports = true}, "", "DR, NDR"},
        {{.no_auto_replies = true}, "OOF, AutoReply", "OOF, AutoReply"},
        {{.no_auto_replies = true, .no_ndr = true},
         "OOF, AutoReply, DR, NDR",
         "OOF, AutoReply, DR, NDR"},
        {{.no_auto_replies = true, .no_delivery_reports = true},
         "OOF, AutoReply",
         "OOF, AutoReply, DR"},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        for (int has_dsn = 0; has_dsn < 2; has_dsn++) {
            const char *value = has_dsn ? rows[i].with_dsn : rows[i].without;
            static const char name[] = "X-Auto-Response-Suppress: ";
            char out[REMOTE_HEADER_TEXT];
            size_t n = remote_domain_header(&rows[i].rules, has_dsn == 1, out);
            assert_int_equal(n, strlen(out));
            if (*value == '\0') {
                assert_int_equal(n, 0);
                continue;
            }
            assert_int_equal(n, strlen(name) + strlen(value) + 2);
            assert_memory_equal(out, name, strlen(name));
            assert_memory_equal(out + strlen(name), value, strlen(value));
            assert_string_equal(out + n - 2, "\r\n");
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ndr),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_strips),
        cmocka_unit_test(test_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
