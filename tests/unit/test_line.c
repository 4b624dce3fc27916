#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/line.h"

#define S(text) (text), sizeof(text) - 1

struct row {
    const char *in;
    size_t n;
    size_t limit;
    enum smtp_line_status status;
    const char *line;
};

static const struct row rows[] = {
    {S(""), 20, SMTP_LINE_MORE, NULL},
    {S("NOOP"), 20, SMTP_LINE_MORE, NULL},
    {S("NOOP\r"), 20, SMTP_LINE_MORE, NULL},
    {S("\r"), 20, SMTP_LINE_MORE, NULL},
    {S("NOOP\r\n"), 20, SMTP_LINE_OK, "NOOP"},
    {S("\r\n"), 20, SMTP_LINE_OK, ""},
    {S("NOOP\r\nQUIT\r\n"), 20, SMTP_LINE_OK, "NOOP"},
    {S("NOOP\r\n\n\0\r"), 20, SMTP_LINE_OK, "NOOP"},
    {S("a\tb \x80\xff\r\n"), 20, SMTP_LINE_OK, "a\tb \x80\xff"},
    /* bare CR, bare LF, NUL */
    {S("\n"), 20, SMTP_LINE_BARE, NULL},
    {S("NOOP\n"), 20, SMTP_LINE_BARE, NULL},
    {S("NOOP\nQUIT\r\n"), 20, SMTP_LINE_BARE, NULL},
    {S("NO\rOP\r\n"), 20, SMTP_LINE_BARE, NULL},
    {S("NOOP\r\r\n"), 20, SMTP_LINE_BARE, NULL},
    {S("NO\rOP"), 20, SMTP_LINE_BARE, NULL},
    {S("\r\r"), 20, SMTP_LINE_BARE, NULL},
    {S("NO\0OP\r\n"), 20, SMTP_LINE_BARE, NULL},
    {S("NO\0"), 20, SMTP_LINE_BARE, NULL},
    {S("\0"), 20, SMTP_LINE_BARE, NULL},
    /* the limit counts the CRLF */
    {S("123456\r\n"), 8, SMTP_LINE_OK, "123456"},
    {S("1234567\r\n"), 8, SMTP_LINE_TOO_LONG, NULL},
    {S("1234567\r"), 8, SMTP_LINE_TOO_LONG, NULL},
    {S("1234567\rx"), 8, SMTP_LINE_TOO_LONG, NULL},
    {S("12345678"), 8, SMTP_LINE_TOO_LONG, NULL},
    {S("12345678\n"), 8, SMTP_LINE_TOO_LONG, NULL},
    {S("12345678\r\n"), 8, SMTP_LINE_TOO_LONG, NULL},
    {S("1234567"), 8, SMTP_LINE_MORE, NULL},
    {S("123\n5678901"), 8, SMTP_LINE_BARE, NULL},
    {S("123\r5678901"), 8, SMTP_LINE_BARE, NULL},
};

/* As octets arrive, the first answer that is not MORE is the answer to the whole, and stays. */
static void
test_next(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        enum smtp_line_status last = SMTP_LINE_MORE;

        for (size_t n = 0; n <= r->n; n++) {
            char *in = malloc(n + 1); /* exactly so long that a sanitizer sees a read behind it */
            struct span line = {0};
            size_t used = 99;
            enum smtp_line_status status;

            assert_non_null(in);
            memcpy(in, r->in, n);
            in = realloc(in, n > 0 ? n : 1);
            status = smtp_line_next(span_of(in, n), r->limit, &line, &used);
            if (last != SMTP_LINE_MORE)
                assert_int_equal(status, last);
            last = status;
            if (status == SMTP_LINE_OK) {
                assert_true(span_is(line, r->line));
                assert_ptr_equal(line.p, in);
                assert_int_equal(used, line.n + 2);
            } else {
                assert_int_equal(used, 0);
            }
            free(in);
        }
        if (last != r->status)
            fail_msg("row %zu: status %d, not %d", i, last, r->status);
    }
}

static void
test_skip(void **state)
{
    static const struct {
        const char *in;
        size_t n, used; /* 0: no end */
    } skips[] = {
        {S("12345678\r\nNOOP\r\n"), 10},
        {S("\r\n"), 2},
        {S("a\nb\n\r\nc"), 6},
        {S("a\rb\r\nc\r\n"), 5},
        {S("a\r\r\n"), 4},
        {S("a\0b\r\n"), 5},
        {S("12345678"), 0},
        {S("1234567\r"), 0},
        {S("\n\r"), 0},
        {S("\n\n\n"), 0},
    };
    size_t used;
    (void)state;

    /* what is before the input does not count */
    assert_false(smtp_line_skip(span_of(&"\r\n"[1], 1), &used));
    assert_int_equal(used, 1);
    for (size_t i = 0; i < sizeof skips / sizeof skips[0]; i++) {
        /* all splits in two: the rest is fed behind what was not used */
        for (size_t split = 0; split <= skips[i].n; split++) {
            size_t first = 0, second = 0;
            bool found = smtp_line_skip(span_of(skips[i].in, split), &first);

            assert_true(first <= split);
            if (!found) {
                assert_true(split - first <= 1);
                found = smtp_line_skip(span_of(skips[i].in + first, skips[i].n - first), &second);
            }
            assert_int_equal(found, skips[i].used > 0);
            if (found)
                assert_int_equal(first + second, skips[i].used);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_skip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
