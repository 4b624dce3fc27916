#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "policy/event.h"
#include "policy/status_code.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void
test_find(void **state)
{
    static const struct {
        const char *text, *code, *marker;
    } rows[] = {
        {"5.7.1", "5.7.1", ""},
        {"550 5.7.1", "5.7.1", ""},
        {"550-5.7.1 first line", "5.7.1", ""},
        {"550", "550", ""},
        {"550 no enhanced code", "550", ""},
        {"4.7.0", "4.7.0", ""},
        {"4.7.0 PRX", "4.7.0", "PRX"},
        {"451 4.7.0 Temporary server error. Please try again later. PRX5", "4.7.0", "PRX"},
        {"550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", "5.7.1",
         "RESOLVER.RST.AuthRequired"},
        {"550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized", "5.7.1", "RESOLVER.RST"},
        {"421 4.3.2 Service not active", "4.3.2", "Service not active"},
        {"550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found", "5.1.10", ""},
        /* The same subject and detail in the other class, then the subject's general row. */
        {"4.1.1", "5.1.1", ""},
        {"#550 5.1.10 smtp;550 'x'", "5.1.10", ""},
        {"Remote server returned '550-5.7.57'", "5.7.57", ""},
        {"5.4.3", "4.4.3", ""},
        {"5.1.99", "5.1.0", ""},
        {"5.7.905", "5.7.900", ""},
        {"5.7.899", "5.7.0", ""},
        {"2.1.1", NULL, NULL},
        {"550 5.9.9 odd", "550", ""},
        {"", NULL, NULL},
        {"5", NULL, NULL},
        {"5.7", NULL, NULL},
        {"5.7.", NULL, NULL},
        {"5.7.1.1", NULL, NULL},
        {"5.7.1000", NULL, NULL},
        {"3.7.1", NULL, NULL},
        {"999", NULL, NULL},
        {"hello", NULL, NULL},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct status_code *row = status_code_find(span_str(rows[i].text));
        if (rows[i].code == NULL) {
            assert_null(row);
            continue;
        }
        assert_non_null(row);
        assert_string_equal(row->code, rows[i].code);
        assert_string_equal(row->marker, rows[i].marker);
    }
}

static void
assert_own_row(const char *code)
{
    const struct status_code *row = status_code_find(span_str(code));

    assert_non_null(row);
    assert_string_equal(row->code, code);
}

/* What administrators ask for, and everything that Postern itself says. */
static void
test_codes_that_must_be_there(void **state)
{
    static const char *const codes[] = {
        "4.3.1", "4.3.2", "4.4.1",  "4.4.2", "4.4.6",   "4.4.7",  "5.0.0", "5.1.0",
        "5.1.1", "5.1.3", "5.1.4",  "5.2.1", "5.2.3",   "5.3.3",  "5.3.5", "5.4.0",
        "5.4.4", "5.4.6", "5.4.8",  "5.5.0", "5.5.2",   "5.5.3",  "5.7.1", "5.1.10",
        "5.2.2", "5.4.1", "5.6.11", "5.7.3", "5.7.133", "5.7.57", "4.7.0",
#define SMTP_REPLY(id, code, enhanced, text) enhanced,
#include "proxy/smtp/reply.def"
#undef SMTP_REPLY
    };
#define SMTP_REPLY(id, code, enhanced, text) code,
    static const int replies[] = {
#include "proxy/smtp/reply.def"
    };
#undef SMTP_REPLY
    (void)state;

    for (size_t i = 0; i < COUNT(codes); i++)
        if (codes[i][0] != '\0')
            assert_own_row(codes[i]);
    for (size_t i = 0; i < COUNT(replies); i++) {
        char text[8];
        (void)snprintf(text, sizeof text, "%d", replies[i]);
        if (replies[i] >= 400)
            assert_own_row(text);
    }
}

static void
test_table(void **state)
{
    (void)state;

    for (size_t i = 0; i < status_code_count(); i++) {
        const struct status_code *row = status_code_at(i);
        char text[256];
        assert_true(row->title[0] != '\0' && row->cause[0] != '\0' && row->remedy[0] != '\0');
        assert_true(status_code_class(row->code)[0] != '\0');
        /* Each row is found by its own code and marker: none hides behind another. */
        (void)snprintf(text, sizeof text, "%s %s", row->code, row->marker);
        assert_ptr_equal(status_code_find(span_str(text)), row);
        /* A marker's row needs a general one behind it. */
        assert_non_null(status_code_find(span_str(row->code)));
        assert_string_equal(status_code_find(span_str(row->code))->marker, "");
    }
}

static void
test_class(void **state)
{
    (void)state;

    assert_string_equal(status_code_class("2.1.5"), "success");
    assert_string_equal(status_code_class("4.7.0"), "temporary: the sender tries again");
    assert_string_equal(status_code_class("550"), "permanent: the sender gives up");
    assert_string_equal(status_code_class(""), "");
    assert_string_equal(status_code_class("3"), "");
}

/* A line that asks for attention says what its code mostly means; the others do not. */
static void
test_cause(void **state)
{
    static const struct {
        enum log_level level;
        const char *status, *reply, *code; /* whose cause; NULL: none */
    } cases[] = {
        {LOG_LEVEL_NOTICE, "5.1.1", "User unknown", "5.1.1"},
        {LOG_LEVEL_WARNING, "5.1.1", "User unknown", "5.1.1"},
        {LOG_LEVEL_ERROR, "5.1.10", "not found", "5.1.10"},
        {LOG_LEVEL_NOTICE, "4.7.0", "Temporary server error. PRX5", "4.7.0 PRX"},
        {LOG_LEVEL_NOTICE, "5.1.1", "relayed: 4.4.7 expired", "5.1.1"},
        {LOG_LEVEL_NOTICE, "5.9.9", "", NULL},
        {LOG_LEVEL_NOTICE, "", "no", NULL},
        {LOG_LEVEL_INFO, "5.1.1", "User unknown", NULL},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct log_line is, wanted;
        log_begin(&is, cases[i].level, "e");
        event_status(&is, cases[i].status, cases[i].reply);
        log_begin(&wanted, cases[i].level, "e");
        log_str(&wanted, "status", cases[i].status);
        log_str(&wanted, "reply", cases[i].reply);
        if (cases[i].code != NULL)
            log_str(&wanted, "cause", status_code_find(span_str(cases[i].code))->cause);
        assert_int_equal(is.n, wanted.n);
        assert_memory_equal(is.text, wanted.text, is.n);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),  cmocka_unit_test(test_codes_that_must_be_there),
        cmocka_unit_test(test_table), cmocka_unit_test(test_class),
        cmocka_unit_test(test_cause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
