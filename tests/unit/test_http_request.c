#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/ops/http_request.h"

#define H "Host: a\r\n"

static const struct {
    const char *text;
    int status;
    bool is_head;
    const char *path;
} cases[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", 200, false, "/"},
    {"HEAD /metrics HTTP/1.1\r\n" H "\r\n", 200, true, "/metrics"},
    {"GET /metrics?name[]=x HTTP/1.1\r\n" H "Accept: */*\r\n\r\n", 200, false, "/metrics"},
    {"GET http://127.0.0.1:9125/readyz HTTP/1.1\r\n" H "\r\n", 200, false, "/readyz"},
    {"GET HTTP://a HTTP/1.1\r\n" H "\r\n", 200, false, "/"},
    {"GET http://a?b/c HTTP/1.1\r\n" H "\r\n", 200, false, "/"},
    {"GET / HTTP/1.0\r\n\r\n", 200, false, "/"},
    {"GET / HTTP/1.0\n\n", 200, false, "/"},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 200, false, "/"},
    {"GET / HTTP/1.1\r\nhOsT:\r\n\r\n", 200, false, "/"},
    {"GET / HTTP/1.1\r\n" H "X:\ty\r\n\r\nrest\0", 200, false, "/"},
    /* RFC 9112 3.2: Host exactly once */
    {"GET / HTTP/1.1\r\n\r\n", 400, false, NULL},
    {"GET / HTTP/1.1\r\n" H H "\r\n", 400, false, NULL},
    {"GET / HTTP/1.0\r\n" H H "\r\n", 400, false, NULL},
    /* 5.1: no blank before the colon; 5.2: no folding */
    {"GET / HTTP/1.1\r\n" H "X : y\r\n\r\n", 400, false, NULL},
    {"GET / HTTP/1.1\r\n" H " folded\r\n\r\n", 400, false, NULL},
    {"GET / HTTP/1.1\r\n" H "no colon\r\n\r\n", 400, false, NULL},
    {"GET / HTTP/1.1\r\n" H ": y\r\n\r\n", 400, false, NULL},
    {"GET / HTTP/1.1\r\n" H "X: \x01\r\n\r\n", 400, false, NULL},
    {"GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 400, false, NULL},
    {"GET /\r\n", 400, false, NULL},
    {"GET  / HTTP/1.1\r\n", 400, false, NULL},
    {"GET / HTTP/1.1 \r\n", 400, false, NULL},
    {"GET metrics HTTP/1.1\r\n", 400, false, NULL},
    {"GET * HTTP/1.1\r\n", 400, false, NULL},
    {" / HTTP/1.1\r\n", 400, false, NULL},
    {"EHLO a.example.com\r\n", 400, false, NULL},
    {"\x16\x03\x01\n", 400, false, NULL},
    {"POST / HTTP/1.1\r\n", 405, false, NULL},
    {"get / HTTP/1.1\r\n", 405, false, NULL},
    {"GET / HTTP/2.0\r\n", 505, false, NULL},
};

static void
tells_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_request r = {0};
        assert_int_equal(http_request_parse(span_str(cases[i].text), &r), cases[i].status);
        if (cases[i].status == 200) {
            assert_int_equal(r.is_head, cases[i].is_head);
            assert_true(span_is(r.path, cases[i].path));
        }
    }
}

/* Short of its end, a good request is not known yet, and a bad one is refused or not known yet;
 * from there on the answer stays.  Each is in memory of exactly its size. */
static void
waits_for_the_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool is_told = false;
        for (size_t n = 0; n <= strlen(cases[i].text); n++) {
            char *part = malloc(n ? n : 1);
            memcpy(part, cases[i].text, n);
            struct http_request r = {0};
            int status = http_request_parse(span_of(part, n), &r);
            free(part);
            is_told = is_told || status;
            assert_int_equal(status, is_told ? cases[i].status : 0);
        }
        assert_true(is_told);
    }
}

static void
limits_the_head(void **state)
{
    (void)state;
    static const char start[] = "GET / HTTP/1.1\r\n" H "X: ";
    char *text = malloc(HTTP_HEAD_MAX + 1);
    memset(text, 'x', HTTP_HEAD_MAX + 1);
    memcpy(text, start, strlen(start));
    struct http_request r;
    assert_int_equal(http_request_parse(span_of(text, HTTP_HEAD_MAX - 1), &r), 0);
    assert_int_equal(http_request_parse(span_of(text, HTTP_HEAD_MAX), &r), 431);
    memcpy(text + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(http_request_parse(span_of(text, HTTP_HEAD_MAX), &r), 200);
    memcpy(text + HTTP_HEAD_MAX - 4, "x\r\n\r\n", 5);
    assert_int_equal(http_request_parse(span_of(text, HTTP_HEAD_MAX + 1), &r), 431);
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_requests),
        cmocka_unit_test(waits_for_the_end),
        cmocka_unit_test(limits_the_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
