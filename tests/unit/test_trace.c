#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/smtp/trace.h"

#define DATE "Tue, 24 Nov 2026 16:24:50 +0000"

static struct netaddr
address(const char *text)
{
    struct netaddr a;

    assert_true(netaddr_parse(span_str(text), &a));
    return a;
}

static void
test_rows(void **state)
{
    const struct netaddr v4 = address("192.0.2.1"), v6 = address("2001:db8::1");
    const struct {
        struct trace t;
        const char *field;
    } rows[] = {
        {{.helo = "mail.example.net",
          .client = &v4,
          .is_esmtp = true,
          .is_tls = true,
          .tls_version = "TLSv1.3",
          .tls_cipher = "TLS_AES_256_GCM_SHA384",
          .recipient = "a@b"},
         "Received: from mail.example.net ([192.0.2.1])\r\n"
         "\tby mx1.example.com (Postern) with ESMTPS\r\n"
         "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
         "\tid 0123456789abcdef.1\r\n"
         "\tfor <a@b>;\r\n"
         "\t" DATE "\r\n"},
        {{.helo = "[192.0.2.1]", .client = &v6, .is_esmtp = true},
         "Received: from [192.0.2.1] ([IPv6:2001:db8::1])\r\n"
         "\tby mx1.example.com (Postern) with ESMTP\r\n"
         "\tid 0123456789abcdef.1;\r\n"
         "\t" DATE "\r\n"},
        {{.helo = "", .client = &v4},
         "Received: from unknown ([192.0.2.1])\r\n"
         "\tby mx1.example.com (Postern) with SMTP\r\n"
         "\tid 0123456789abcdef.1;\r\n"
         "\t" DATE "\r\n"},
        /* what could end the field, a comment, or hide; U+00F6 only where it is allowed */
        {{.helo = "a b\r\nX: y(z)\\\"<;,>\x7f\x01\xc3\xb6\xff",
          .client = &v4,
          .is_esmtp = true,
          .recipient = "\"a> b\"@\xc3\xb6.\xff"},
         "Received: from a?b??X:?y?z???????????? ([192.0.2.1])\r\n"
         "\tby mx1.example.com (Postern) with ESMTP\r\n"
         "\tid 0123456789abcdef.1\r\n"
         "\tfor <?a??b?@??.?>;\r\n"
         "\t" DATE "\r\n"},
        {{.helo = "a\xc3\xb6\xff\xc2\x85.b",
          .client = &v4,
          .is_esmtp = true,
          .is_utf8 = true,
          .recipient = "\xc3\xb6@b"},
         "Received: from a\xc3\xb6???.b ([192.0.2.1])\r\n"
         "\tby mx1.example.com (Postern) with UTF8SMTP\r\n"
         "\tid 0123456789abcdef.1\r\n"
         "\tfor <\xc3\xb6@b>;\r\n"
         "\t" DATE "\r\n"},
        {{.helo = "h",
          .client = &v4,
          .is_esmtp = true,
          .is_utf8 = true,
          .is_tls = true,
          .tls_version = "TLSv1.2",
          .tls_cipher = "X"},
         "Received: from h ([192.0.2.1])\r\n"
         "\tby mx1.example.com (Postern) with UTF8SMTPS\r\n"
         "\t(TLSv1.2 X)\r\n"
         "\tid 0123456789abcdef.1;\r\n"
         "\t" DATE "\r\n"},
    };
    char out[2048];
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct trace t = rows[i].t;
        size_t n;

        t.hostname = "mx1.example.com";
        t.id = "0123456789abcdef.1";
        t.date = DATE;
        n = trace_received(out, sizeof out - 1, &t);
        out[n] = '\0';
        assert_string_equal(out, rows[i].field);
        /* it fits exactly, or not at all */
        assert_int_equal(trace_received(out, n, &t), n);
        assert_int_equal(trace_received(out, n - 1, &t), 0);
    }
}

/* The longest parts, all of the most hostile octets: the field is whole, no line over 998 octets.
 */
static void
test_longest(void **state)
{
    const struct netaddr v6 = address("2001:db8:1111:2222:3333:4444:5555:6666");
    char out[2048], *text = malloc(5000);
    struct span rest, line;
    size_t n, lines = 0;
    (void)state;

    assert_non_null(text);
    for (unsigned fill = 0; fill < 256; fill++) {
        const struct trace t = {.helo = text,
                                .client = &v6,
                                .hostname = text,
                                .is_esmtp = true,
                                .is_tls = true,
                                .is_utf8 = true,
                                .tls_version = text,
                                .tls_cipher = text,
                                .id = text,
                                .recipient = text,
                                .date = DATE};

        memset(text, (int)fill, 5000);
        text[4999] = '\0';
        n = trace_received(out, sizeof out, &t);
        assert_in_range(n, 1, sizeof out);
        rest = span_of(out, n);
        lines = 0;
        while (span_next(&rest, '\n', &line) && line.n > 0) {
            assert_true(line.n <= 999 && line.p[line.n - 1] == '\r');
            assert_null(memchr(line.p, '\r', line.n - 1));
            assert_null(memchr(line.p, '\0', line.n));
            assert_true(lines == 0 ? span_starts_nocase(line, "Received: from ")
                                   : line.p[0] == '\t' && line.n > 2);
            lines++;
        }
        assert_int_equal(lines, 6);
        assert_null(rest.p);
    }
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
