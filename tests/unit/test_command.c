#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/command.h"

static void
test_verbs(void **state)
{
    static const struct {
        const char *line;
        enum smtp_verb verb;
        const char *text, *argument;
    } rows[] = {
        {"NOOP", SMTP_VERB_NOOP, "NOOP", ""},
        {"noop", SMTP_VERB_NOOP, "noop", ""},
        {"QuIt  ", SMTP_VERB_QUIT, "QuIt", ""},
        {"MAIL FROM:<a@b> SIZE=1 ", SMTP_VERB_MAIL, "MAIL", "FROM:<a@b> SIZE=1"},
        {"RCPT \t TO:<a@b>", SMTP_VERB_RCPT, "RCPT", "TO:<a@b>"},
        {"EHLO\tx", SMTP_VERB_EHLO, "EHLO", "x"},
        {"STARTTLS", SMTP_VERB_STARTTLS, "STARTTLS", ""},
        {"BDAT 1 LAST", SMTP_VERB_BDAT, "BDAT", "1 LAST"},
        {"XCLIENT ADDR=1", SMTP_VERB_XCLIENT, "XCLIENT", "ADDR=1"},
        {"NOOPX", SMTP_VERB_UNKNOWN, "NOOPX", ""},
        {"NOO", SMTP_VERB_UNKNOWN, "NOO", ""},
        {"GET / HTTP/1.1", SMTP_VERB_UNKNOWN, "GET", "/ HTTP/1.1"},
        {"MAIL-FROM:<a@b>", SMTP_VERB_UNKNOWN, "MAIL-FROM:<a@b>", ""},
        {" NOOP", SMTP_VERB_UNKNOWN, "", "NOOP"},
        {"", SMTP_VERB_UNKNOWN, "", ""},
        {"unknown", SMTP_VERB_UNKNOWN, "unknown", ""},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct smtp_command c = smtp_command_parse(span_str(rows[i].line));

        assert_int_equal(c.verb, rows[i].verb);
        assert_true(span_is(c.text, rows[i].text));
        assert_true(span_is(c.argument, rows[i].argument));
    }
}

/* The table is one: each verb is found by its text, and is legal somewhere. */
static void
test_table(void **state)
{
    (void)state;
    for (int v = SMTP_VERB_UNKNOWN + 1; v < SMTP_VERB_COUNT; v++) {
        enum smtp_verb verb = (enum smtp_verb)v;
        bool is_legal = false;

        assert_int_equal(smtp_command_parse(span_str(smtp_verb_text(verb))).verb, verb);
        for (int phase = SMTP_PHASE_GREETED; phase <= SMTP_PHASE_BDAT; phase++)
            is_legal |= smtp_verb_legal(verb, (enum smtp_phase)phase);
        assert_true(is_legal);
        assert_false(smtp_verb_needs_argument(verb) && smtp_verb_takes_no_argument(verb));
    }
    assert_false(smtp_verb_legal(SMTP_VERB_UNKNOWN, SMTP_PHASE_READY));
}

static void
test_phases(void **state)
{
    (void)state;
    /* RFC 5321 4.1.4 */
    assert_false(smtp_verb_legal(SMTP_VERB_MAIL, SMTP_PHASE_GREETED));
    assert_true(smtp_verb_legal(SMTP_VERB_MAIL, SMTP_PHASE_READY));
    assert_false(smtp_verb_legal(SMTP_VERB_MAIL, SMTP_PHASE_MAIL));
    assert_false(smtp_verb_legal(SMTP_VERB_RCPT, SMTP_PHASE_READY));
    assert_true(smtp_verb_legal(SMTP_VERB_RCPT, SMTP_PHASE_MAIL));
    assert_true(smtp_verb_legal(SMTP_VERB_RCPT, SMTP_PHASE_RCPT));
    assert_false(smtp_verb_legal(SMTP_VERB_DATA, SMTP_PHASE_READY));
    assert_true(smtp_verb_legal(SMTP_VERB_DATA, SMTP_PHASE_RCPT));
    /* RFC 3030 2: BDAT and DATA do not mix, nor does RCPT come between chunks */
    assert_false(smtp_verb_legal(SMTP_VERB_DATA, SMTP_PHASE_BDAT));
    assert_false(smtp_verb_legal(SMTP_VERB_RCPT, SMTP_PHASE_BDAT));
    assert_true(smtp_verb_legal(SMTP_VERB_BDAT, SMTP_PHASE_BDAT));
    for (int phase = SMTP_PHASE_GREETED; phase <= SMTP_PHASE_BDAT; phase++) {
        assert_true(smtp_verb_legal(SMTP_VERB_QUIT, (enum smtp_phase)phase));
        assert_true(smtp_verb_legal(SMTP_VERB_RSET, (enum smtp_phase)phase));
        assert_true(smtp_verb_legal(SMTP_VERB_EHLO, (enum smtp_phase)phase));
    }
    /* RFC 3207 4: what is served before TLS where TLS is required */
    assert_true(smtp_verb_before_tls(SMTP_VERB_STARTTLS));
    assert_true(smtp_verb_before_tls(SMTP_VERB_NOOP));
    assert_true(smtp_verb_before_tls(SMTP_VERB_QUIT));
    assert_false(smtp_verb_before_tls(SMTP_VERB_MAIL));
    assert_false(smtp_verb_before_tls(SMTP_VERB_RCPT));
    assert_false(smtp_verb_before_tls(SMTP_VERB_DATA));
}

#define OFFERED                                                                                    \
    (SMTP_CAP_BIT(SIZE) | SMTP_CAP_BIT(8BITMIME) | SMTP_CAP_BIT(DSN) | SMTP_CAP_BIT(SMTPUTF8) |    \
     SMTP_CAP_BIT(CHUNKING) | SMTP_CAP_BIT(BINARYMIME))

static void
test_mail(void **state)
{
    static const struct {
        const char *argument;
        enum smtp_syntax syntax, without_extensions;
    } rows[] = {
        {"FROM:<>", SMTP_SYNTAX_OK, SMTP_SYNTAX_OK},
        {"FROM:<a@b>", SMTP_SYNTAX_OK, SMTP_SYNTAX_OK},
        {"from: \t<a@b>", SMTP_SYNTAX_OK, SMTP_SYNTAX_OK},
        {"FROM:<a@b> SIZE=0", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> size=18446744073709551615", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=99999999999999999999", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b>  BODY=7BIT", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> BODY=8bitmime", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> BODY=BINARYMIME", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> RET=FULL ENVID=x+2By=", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> RET=hdrs", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SMTPUTF8", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<\xc3\xb6@b> SMTPUTF8", SMTP_SYNTAX_OK, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<\xc3\xb6@b>", SMTP_SYNTAX_UTF8, SMTP_SYNTAX_UTF8},
        {"FROM:<a@b> AUTH=<>", SMTP_SYNTAX_UNKNOWN, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> X=1", SMTP_SYNTAX_UNKNOWN, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> NOTIFY=NEVER", SMTP_SYNTAX_UNKNOWN, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> =", SMTP_SYNTAX_UNKNOWN, SMTP_SYNTAX_UNKNOWN},
        {"", SMTP_SYNTAX_ARGUMENT, SMTP_SYNTAX_ARGUMENT},
        {"FROM", SMTP_SYNTAX_ARGUMENT, SMTP_SYNTAX_ARGUMENT},
        {"FROM <a@b>", SMTP_SYNTAX_ARGUMENT, SMTP_SYNTAX_ARGUMENT},
        {"FROM :<a@b>", SMTP_SYNTAX_ARGUMENT, SMTP_SYNTAX_ARGUMENT},
        {"TO:<a@b>", SMTP_SYNTAX_ARGUMENT, SMTP_SYNTAX_ARGUMENT},
        {"FROM:", SMTP_SYNTAX_ADDRESS, SMTP_SYNTAX_ADDRESS},
        {"FROM:a@b", SMTP_SYNTAX_ADDRESS, SMTP_SYNTAX_ADDRESS},
        {"FROM:<postmaster>", SMTP_SYNTAX_ADDRESS, SMTP_SYNTAX_ADDRESS},
        {"FROM:<a@b>SIZE=1", SMTP_SYNTAX_ADDRESS, SMTP_SYNTAX_ADDRESS},
        {"FROM:<a@b>>", SMTP_SYNTAX_ADDRESS, SMTP_SYNTAX_ADDRESS},
        {"FROM:x <a@b>", SMTP_SYNTAX_ADDRESS, SMTP_SYNTAX_ADDRESS},
        {"FROM:<a@b> SIZE", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=-1", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=+1", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=0x1", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=999999999999999999999", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=9999999999999999999x", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SIZE=1 SIZE=1", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> BODY=9BIT", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> BODY", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> BODY=7BIT BODY=7BIT", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> RET=NONE", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> RET=FULL RET=FULL", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> ENVID=", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> ENVID=a+2", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> ENVID=a+2gx", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> ENVID=\xc3\xb6", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> ENVID=a\x01", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> ENVID=a ENVID=b", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SMTPUTF8=1", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
        {"FROM:<a@b> SMTPUTF8 SMTPUTF8", SMTP_SYNTAX_PARAMETER, SMTP_SYNTAX_UNKNOWN},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct smtp_mail mail;
        enum smtp_syntax syntax = smtp_mail_parse(span_str(rows[i].argument), OFFERED, &mail);

        if (syntax != rows[i].syntax)
            fail_msg("%s: %d", rows[i].argument, syntax);
        syntax = smtp_mail_parse(span_str(rows[i].argument), 0, &mail);
        if (syntax != rows[i].without_extensions)
            fail_msg("%s without extensions: %d", rows[i].argument, syntax);
    }
}

static void
test_mail_values(void **state)
{
    struct smtp_mail mail;
    char envid[200] = "FROM:<a@b> ENVID=";
    size_t n = strlen(envid);
    (void)state;

    assert_int_equal(smtp_mail_parse(span_str("FROM:<A@b> SIZE=123 BODY=8BITMIME SMTPUTF8 RET=HDRS "
                                              "ENVID=QQ+2B"),
                                     OFFERED, &mail),
                     SMTP_SYNTAX_OK);
    assert_string_equal(mail.path.text, "A@b");
    assert_true(mail.has_size && mail.has_body && mail.is_smtputf8);
    assert_true(mail.size == 123);
    assert_int_equal(mail.body, SMTP_BODY_8BITMIME);
    assert_int_equal(mail.ret, SMTP_RET_HDRS);
    assert_true(span_is(mail.envid, "QQ+2B"));

    assert_int_equal(smtp_mail_parse(span_str("FROM:<> RET=FULL BODY=BINARYMIME"), OFFERED, &mail),
                     SMTP_SYNTAX_OK);
    assert_true(mail.path.is_null);
    assert_true(!mail.has_size && mail.has_body && !mail.is_smtputf8);
    assert_true(mail.size == 0);
    assert_int_equal(mail.body, SMTP_BODY_BINARYMIME);
    assert_int_equal(mail.ret, SMTP_RET_FULL);
    assert_int_equal(mail.envid.n, 0);

    assert_int_equal(
        smtp_mail_parse(span_str("FROM:<a@b> SIZE=18446744073709551616"), OFFERED, &mail),
        SMTP_SYNTAX_OK);
    assert_true(mail.has_size && mail.size == UINT64_MAX);

    assert_int_equal(smtp_mail_parse(span_str("FROM:<a@b>"), OFFERED, &mail), SMTP_SYNTAX_OK);
    assert_false(mail.has_body);
    assert_int_equal(mail.body, SMTP_BODY_7BIT);
    assert_int_equal(mail.ret, SMTP_RET_NONE);

    /* BINARYMIME is an extension of its own */
    assert_int_equal(
        smtp_mail_parse(span_str("FROM:<a@b> BODY=BINARYMIME"), SMTP_CAP_BIT(8BITMIME), &mail),
        SMTP_SYNTAX_PARAMETER);
    assert_int_equal(
        smtp_mail_parse(span_str("FROM:<a@b> BODY=8BITMIME"), SMTP_CAP_BIT(8BITMIME), &mail),
        SMTP_SYNTAX_OK);

    memset(envid + n, 'x', 101);
    assert_int_equal(smtp_mail_parse(span_of(envid, n + 100), OFFERED, &mail), SMTP_SYNTAX_OK);
    assert_int_equal(smtp_mail_parse(span_of(envid, n + 101), OFFERED, &mail),
                     SMTP_SYNTAX_PARAMETER);
}

static void
test_rcpt(void **state)
{
    static const struct {
        const char *argument;
        bool is_smtputf8;
        enum smtp_syntax syntax;
        unsigned notify;
        const char *orcpt;
    } rows[] = {
        {"TO:<a@b>", false, SMTP_SYNTAX_OK, 0, ""},
        {"to: <a@b>", false, SMTP_SYNTAX_OK, 0, ""},
        {"TO:<Postmaster>", false, SMTP_SYNTAX_OK, 0, ""},
        {"TO:<a@b> NOTIFY=NEVER", false, SMTP_SYNTAX_OK, SMTP_NOTIFY_NEVER, ""},
        {"TO:<a@b> notify=success", false, SMTP_SYNTAX_OK, SMTP_NOTIFY_SUCCESS, ""},
        {"TO:<a@b> NOTIFY=SUCCESS,FAILURE,DELAY", false, SMTP_SYNTAX_OK,
         SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY, ""},
        {"TO:<a@b> ORCPT=rfc822;a+2Bb@c NOTIFY=DELAY", false, SMTP_SYNTAX_OK, SMTP_NOTIFY_DELAY,
         "rfc822;a+2Bb@c"},
        {"TO:<a@b> ORCPT=utf-8;\xc3\xb6@c", true, SMTP_SYNTAX_OK, 0, "utf-8;\xc3\xb6@c"},
        {"TO:<\xc3\xb6@b>", true, SMTP_SYNTAX_OK, 0, ""},
        {"TO:<\xc3\xb6@b>", false, SMTP_SYNTAX_UTF8, 0, ""},
        {"TO:<a@b> ORCPT=utf-8;\xc3\xb6@c", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> ORCPT=utf-8;\xc3@c", true, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"FROM:<a@b>", false, SMTP_SYNTAX_ARGUMENT, 0, NULL},
        {"TO:<>", false, SMTP_SYNTAX_ADDRESS, 0, NULL},
        {"TO:a@b", false, SMTP_SYNTAX_ADDRESS, 0, NULL},
        {"TO:<a@b>NOTIFY=NEVER", false, SMTP_SYNTAX_ADDRESS, 0, NULL},
        {"TO:<a@b> NOTIFY", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> NOTIFY=", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> NOTIFY=ALWAYS", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> NOTIFY=NEVER,DELAY", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> NOTIFY=DELAY,", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> NOTIFY=,DELAY", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> ORCPT=rfc822", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> ORCPT=rfc822;", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> ORCPT=;a@b", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> ORCPT=rfc822;a+b@c", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> ORCPT=rfc822;a ORCPT=rfc822;a", false, SMTP_SYNTAX_PARAMETER, 0, NULL},
        {"TO:<a@b> SIZE=1", false, SMTP_SYNTAX_UNKNOWN, 0, NULL},
        {"TO:<a@b> BODY=7BIT", false, SMTP_SYNTAX_UNKNOWN, 0, NULL},
    };
    struct smtp_rcpt rcpt;
    char orcpt[600] = "TO:<a@b> ORCPT=x;";
    size_t n = strlen(orcpt);
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum smtp_syntax syntax =
            smtp_rcpt_parse(span_str(rows[i].argument), OFFERED, rows[i].is_smtputf8, &rcpt);

        if (syntax != rows[i].syntax)
            fail_msg("%s: %d", rows[i].argument, syntax);
        if (rows[i].orcpt == NULL)
            continue;
        assert_int_equal(rcpt.notify, rows[i].notify);
        assert_true(span_is(rcpt.orcpt, rows[i].orcpt));
    }
    assert_int_equal(smtp_rcpt_parse(span_str("TO:<a@b> NOTIFY=NEVER"), 0, false, &rcpt),
                     SMTP_SYNTAX_UNKNOWN);
    memset(orcpt + n, 'x', 499);
    assert_int_equal(smtp_rcpt_parse(span_of(orcpt, n + 498), OFFERED, false, &rcpt),
                     SMTP_SYNTAX_OK);
    assert_int_equal(smtp_rcpt_parse(span_of(orcpt, n + 499), OFFERED, false, &rcpt),
                     SMTP_SYNTAX_PARAMETER);
}

static void
test_bdat(void **state)
{
    static const struct {
        const char *argument;
        bool is_ok, is_last;
        uint64_t size;
    } rows[] = {
        {"0", true, false, 0},
        {"0 LAST", true, true, 0},
        {"1000 last", true, true, 1000},
        {"007   LAST", true, true, 7},
        {"9223372036854775807", true, false, INT64_MAX},
        {"9223372036854775808", false, false, 0},
        {"18446744073709551616", false, false, 0},
        {"99999999999999999999999", false, false, 0},
        {"", false, false, 0},
        {"LAST", false, false, 0},
        {"-1", false, false, 0},
        {"+1", false, false, 0},
        {"0x10", false, false, 0},
        {"1.5", false, false, 0},
        {"1LAST", false, false, 0},
        {"1 LASTX", false, false, 0},
        {"1 LAST LAST", false, false, 0},
        {"1 2", false, false, 0},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct smtp_bdat bdat;
        enum smtp_syntax syntax = smtp_bdat_parse(span_str(rows[i].argument), &bdat);

        if (syntax != (rows[i].is_ok ? SMTP_SYNTAX_OK : SMTP_SYNTAX_ARGUMENT))
            fail_msg("%s: %d", rows[i].argument, syntax);
        if (!rows[i].is_ok)
            continue;
        assert_true(bdat.size == rows[i].size);
        assert_int_equal(bdat.is_last, rows[i].is_last);
    }
}

static void
test_helo(void **state)
{
    char name[256];
    (void)state;

    memset(name, 'x', sizeof name);
    assert_true(smtp_helo_valid(span_of(name, 255)));
    assert_false(smtp_helo_valid(span_of(name, 256)));
    assert_true(smtp_helo_valid(span_str("mail.example.com")));
    assert_true(smtp_helo_valid(span_str("[192.0.2.1]")));
    assert_true(smtp_helo_valid(span_str("WIN_PC")));
    assert_false(smtp_helo_valid(span_str("")));
    assert_false(smtp_helo_valid(span_str("a b")));
    assert_false(smtp_helo_valid(span_str("a\tb")));
    assert_false(smtp_helo_valid(span_str("a\x7f")));
    assert_false(smtp_helo_valid(span_str("\xc3\xb6")));
    assert_false(smtp_helo_valid(span_of("a\0b", 3)));
}

static void
test_xclient(void **state)
{
    static const char *const bad[] = {
        "NAME=",    "NAME",       "NAME=a NAME=b", "NAME=a+0",
        "NAME=+00", "NAME=a+0Ab", "NAME=+7F",      "ADDR=1 HELO=+0D+0A"};
    struct smtp_xclient_args args;
    char name[300] = "NAME=";
    (void)state;

    assert_int_equal(smtp_xclient_parse(span_str("ADDR=192.0.2.1 name=[UNAVAILABLE] "
                                                 "HELO=a+20+2Bb PORT=[TEMPUNAVAIL] PROTO=ESMTP "
                                                 "DESTADDR=IPV6:::1 DESTPORT=25 LOGIN=x"),
                                        &args),
                     SMTP_SYNTAX_OK);
    assert_int_equal(args.given, (1u << SMTP_XCLIENT_COUNT) - 1);
    assert_string_equal(args.value[SMTP_XCLIENT_ADDR], "192.0.2.1");
    assert_string_equal(args.value[SMTP_XCLIENT_NAME], "");
    assert_string_equal(args.value[SMTP_XCLIENT_HELO], "a +b");
    assert_string_equal(args.value[SMTP_XCLIENT_PORT], "");
    assert_string_equal(args.value[SMTP_XCLIENT_PROTO], "ESMTP");
    assert_string_equal(args.value[SMTP_XCLIENT_DESTADDR], "IPV6:::1");
    assert_string_equal(args.value[SMTP_XCLIENT_DESTPORT], "25");
    assert_string_equal(args.value[SMTP_XCLIENT_LOGIN], "x");

    assert_int_equal(smtp_xclient_parse(span_str("ADDR=192.0.2.2"), &args), SMTP_SYNTAX_OK);
    assert_int_equal(args.given, SMTP_XCLIENT_BIT(ADDR));
    assert_string_equal(args.value[SMTP_XCLIENT_HELO], "");

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (smtp_xclient_parse(span_str(bad[i]), &args) != SMTP_SYNTAX_PARAMETER)
            fail_msg("%s", bad[i]);
    assert_int_equal(smtp_xclient_parse(span_str("REVERSE_NAME=a"), &args), SMTP_SYNTAX_UNKNOWN);
    assert_int_equal(smtp_xclient_parse(span_str(""), &args), SMTP_SYNTAX_ARGUMENT);

    memset(name + 5, 'x', 256);
    assert_int_equal(smtp_xclient_parse(span_of(name, 5 + 255), &args), SMTP_SYNTAX_OK);
    assert_int_equal(strlen(args.value[SMTP_XCLIENT_NAME]), 255);
    assert_int_equal(smtp_xclient_parse(span_of(name, 5 + 256), &args), SMTP_SYNTAX_PARAMETER);
    assert_string_equal(args.value[SMTP_XCLIENT_NAME], "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verbs),       cmocka_unit_test(test_table),
        cmocka_unit_test(test_phases),      cmocka_unit_test(test_mail),
        cmocka_unit_test(test_mail_values), cmocka_unit_test(test_rcpt),
        cmocka_unit_test(test_bdat),        cmocka_unit_test(test_helo),
        cmocka_unit_test(test_xclient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
