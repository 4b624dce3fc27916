#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/capability.h"

static void
test_exchange(void **state)
{
    static const char text[] =
        "ex1.corp.example.com Hello [192.0.2.1]\nSIZE 37748736\nPIPELINING\nDSN\n"
        "ENHANCEDSTATUSCODES\nSTARTTLS\nX-ANONYMOUSTLS\nAUTH NTLM\nX-EXPS GSSAPI NTLM\n8BITMIME\n"
        "BINARYMIME\nCHUNKING\nXRDST\nSMTPUTF8";
    struct smtp_capabilities caps = {.xclient = 1, .recipients = 1};
    (void)state;

    smtp_capabilities_parse(span_str(text), &caps);
    assert_int_equal(caps.bits, SMTP_CAP_BIT(SIZE) | SMTP_CAP_BIT(PIPELINING) | SMTP_CAP_BIT(DSN) |
                                    SMTP_CAP_BIT(ENHANCEDSTATUSCODES) | SMTP_CAP_BIT(STARTTLS) |
                                    SMTP_CAP_BIT(8BITMIME) | SMTP_CAP_BIT(BINARYMIME) |
                                    SMTP_CAP_BIT(CHUNKING) | SMTP_CAP_BIT(SMTPUTF8));
    assert_true(caps.size == 37748736);
    assert_int_equal(caps.xclient, 0);
    assert_int_equal(caps.recipients, 0);
}

static void
test_rows(void **state)
{
    static const struct {
        const char *text;
        struct smtp_capabilities caps;
    } rows[] = {
        {"", {0}},
        {"host", {0}},
        {"SIZE 1", {0}}, /* the first line is the host's */
        {"h\nSIZE", {.bits = SMTP_CAP_BIT(SIZE)}},
        {"h\nSIZE 0", {.bits = SMTP_CAP_BIT(SIZE)}},
        {"h\nsize  10 ", {.bits = SMTP_CAP_BIT(SIZE), .size = 10}},
        {"h\nSIZE 18446744073709551615", {.bits = SMTP_CAP_BIT(SIZE), .size = UINT64_MAX}},
        {"h\nSIZE 18446744073709551616", {0}},
        {"h\nSIZE x", {0}},
        {"h\nSIZE -1", {0}},
        {"h\nSIZE 10\nSIZE 20", {.bits = SMTP_CAP_BIT(SIZE), .size = 20}},
        {"h\nSIZE 10\nSIZE x", {0}},
        {"h\n\n \nDsn\n", {.bits = SMTP_CAP_BIT(DSN)}},
        {"h\nDSNX\nXDSN\nDSN=1", {0}},
        {"h\nDSN x y", {.bits = SMTP_CAP_BIT(DSN)}},
        {"h\nstarttls", {.bits = SMTP_CAP_BIT(STARTTLS)}},
        {"h\nLIMITS", {.bits = SMTP_CAP_BIT(LIMITS)}},
        {"h\nLIMITS RCPTMAX=200 MAILMAX=5", {.bits = SMTP_CAP_BIT(LIMITS), .recipients = 200}},
        {"h\nLIMITS mailmax=5 rcptmax=7", {.bits = SMTP_CAP_BIT(LIMITS), .recipients = 7}},
        {"h\nLIMITS RCPTMAX=x", {.bits = SMTP_CAP_BIT(LIMITS)}},
        {"h\nLIMITS RCPTMAX=", {.bits = SMTP_CAP_BIT(LIMITS)}},
        {"h\nLIMITS RCPTMAX=4294967296", {.bits = SMTP_CAP_BIT(LIMITS)}},
        {"h\nXCLIENT", {.bits = SMTP_CAP_BIT(XCLIENT)}},
        {"h\nXCLIENT NAME addr FUTURE PORT",
         {.bits = SMTP_CAP_BIT(XCLIENT),
          .xclient = SMTP_XCLIENT_BIT(NAME) | SMTP_XCLIENT_BIT(ADDR) | SMTP_XCLIENT_BIT(PORT)}},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct smtp_capabilities caps;

        memset(&caps, 0xff, sizeof caps);
        smtp_capabilities_parse(span_str(rows[i].text), &caps);
        if (caps.bits != rows[i].caps.bits || caps.size != rows[i].caps.size ||
            caps.xclient != rows[i].caps.xclient || caps.recipients != rows[i].caps.recipients)
            fail_msg("row %zu", i);
    }
}

static void
test_names(void **state)
{
    (void)state;
    for (int c = 0; c < SMTP_CAP_COUNT; c++)
        assert_int_equal(smtp_cap_find(span_str(smtp_cap_keyword((enum smtp_cap)c))), c);
    assert_int_equal(smtp_cap_find(span_str("AUTH")), SMTP_CAP_COUNT);
    assert_int_equal(smtp_cap_find(span_str("")), SMTP_CAP_COUNT);
    for (int a = 0; a < SMTP_XCLIENT_COUNT; a++)
        assert_int_equal(smtp_xclient_find(span_str(smtp_xclient_name((enum smtp_xclient)a))), a);
    assert_int_equal(smtp_xclient_find(span_str("REVERSE_NAME")), SMTP_XCLIENT_COUNT);
}

static void
test_format(void **state)
{
    static const struct {
        struct smtp_capabilities caps;
        const char *text;
    } rows[] = {
        {{0}, "250 mx1.example.com\r\n"},
        {{.bits = SMTP_CAP_BIT(8BITMIME)}, "250-mx1.example.com\r\n250 8BITMIME\r\n"},
        {{.bits = SMTP_CAP_BIT(SIZE)}, "250-mx1.example.com\r\n250 SIZE\r\n"},
        {{.bits = SMTP_CAP_BIT(SIZE) | SMTP_CAP_BIT(PIPELINING) | SMTP_CAP_BIT(LIMITS) |
                  SMTP_CAP_BIT(ENHANCEDSTATUSCODES) | SMTP_CAP_BIT(STARTTLS),
          .size = 37748736,
          .recipients = 200},
         "250-mx1.example.com\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-STARTTLS\r\n"
         "250-SIZE 37748736\r\n250 LIMITS RCPTMAX=200\r\n"},
        {{.bits = SMTP_CAP_BIT(DSN) | SMTP_CAP_BIT(XCLIENT),
          .xclient = SMTP_XCLIENT_BIT(NAME) | SMTP_XCLIENT_BIT(HELO)},
         "250-mx1.example.com\r\n250-DSN\r\n250 XCLIENT NAME HELO\r\n"},
    };
    char out[SMTP_EHLO_MAX], host[256];
    struct smtp_capabilities all = {.bits = (1u << SMTP_CAP_COUNT) - 1,
                                    .size = UINT64_MAX,
                                    .recipients = UINT32_MAX,
                                    .xclient = (1u << SMTP_XCLIENT_COUNT) - 1};
    size_t n;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        n = smtp_ehlo_format(out, "mx1.example.com", &rows[i].caps);
        assert_true(span_is(span_of(out, n), rows[i].text));
    }
    /* the longest fits */
    memset(host, 'h', 255);
    host[255] = '\0';
    n = smtp_ehlo_format(out, host, &all);
    assert_true(n < sizeof out);
    assert_true(span_ends_nocase(span_of(out, n), " DESTPORT\r\n"));
}

/* What is offered is what is read. */
static void
test_round_trip(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 1u << SMTP_CAP_COUNT; bits++) {
        struct smtp_capabilities caps = {.bits = bits}, again;
        char out[SMTP_EHLO_MAX], text[SMTP_EHLO_MAX];
        struct span rest, line;
        size_t n = 0;

        caps.size = (bits & SMTP_CAP_BIT(SIZE)) != 0 ? bits : 0;
        caps.recipients = (bits & SMTP_CAP_BIT(LIMITS)) != 0 ? bits : 0;
        caps.xclient = (bits & SMTP_CAP_BIT(XCLIENT)) != 0 ? bits & 0xff : 0;
        rest = span_of(out, smtp_ehlo_format(out, "h", &caps));
        while (span_next(&rest, '\n', &line) && line.n > 5) {
            memcpy(text + n, line.p + 4, line.n - 5);
            n += line.n - 5;
            text[n++] = '\n';
        }
        smtp_capabilities_parse(span_of(text, n - 1), &again);
        assert_int_equal(again.bits, caps.bits);
        assert_true(again.size == caps.size);
        assert_int_equal(again.recipients, caps.recipients);
        assert_int_equal(again.xclient, caps.xclient);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),   cmocka_unit_test(test_rows),
        cmocka_unit_test(test_names),      cmocka_unit_test(test_format),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
