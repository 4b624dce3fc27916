#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/log_queue.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static void
assert_text(const struct log_line *l, const char *text)
{
    if (!span_is(span_of(l->text, l->n), text))
        fail_msg("%.*s, not %s", (int)l->n, l->text, text);
}

static void
test_quoting(void **state)
{
    static const struct {
        const char *value, *text;
    } cases[] = {
        {"", "event=e k="},
        {"plain", "event=e k=plain"},
        {"<>", "event=e k=<>"},
        {"a b", "event=e k=\"a b\""},
        {" ", "event=e k=\" \""},
        {"a=b", "event=e k=\"a=b\""},
        {"\"", "event=e k=\"\\x22\""},
        {"\\", "event=e k=\"\\x5c\""},
        {"a\r\nb", "event=e k=\"a\\x0d\\x0ab\""},
        {"\t", "event=e k=\"\\x09\""},
        {"\x1b[31m", "event=e k=\"\\x1b[31m\""},
        {"\x7f", "event=e k=\"\\x7f\""},
        {"x\" verdict=accept", "event=e k=\"x\\x22 verdict=accept\""},
        {"\\x22", "event=e k=\"\\x5cx22\""},
        {"a'b,c;d[e]", "event=e k=a'b,c;d[e]"},
        {"2001:db8::1", "event=e k=2001:db8::1"},
        {"\xc3\xbc", "event=e k=\xc3\xbc"},                         /* U+00FC */
        {"\xc2\xa0", "event=e k=\xc2\xa0"},                         /* U+00A0 */
        {"\xc2\x9f", "event=e k=\"\\xc2\\x9f\""},                   /* the last of C1 */
        {"\xc2\x80", "event=e k=\"\\xc2\\x80\""},                   /* the first of C1 */
        {"\xe2\x82\xac", "event=e k=\xe2\x82\xac"},                 /* U+20AC */
        {"\xe2\x80\xa8", "event=e k=\"\\xe2\\x80\\xa8\""},          /* LINE SEPARATOR */
        {"\xe2\x80\xae", "event=e k=\"\\xe2\\x80\\xae\""},          /* right-to-left override */
        {"\xe2\x81\xa6", "event=e k=\"\\xe2\\x81\\xa6\""},          /* left-to-right isolate */
        {"\xe2\x80\x8d", "event=e k=\xe2\x80\x8d"},                 /* a joiner belongs to words */
        {"\xf0\x9f\x93\xa7", "event=e k=\xf0\x9f\x93\xa7"},         /* U+1F4E7 */
        {"\xf4\x8f\xbf\xbf", "event=e k=\xf4\x8f\xbf\xbf"},         /* U+10FFFF */
        {"\xf4\x90\x80\x80", "event=e k=\"\\xf4\\x90\\x80\\x80\""}, /* beyond */
        {"\xc0\xaf", "event=e k=\"\\xc0\\xaf\""},                   /* overlong */
        {"\xe0\x9f\xbf", "event=e k=\"\\xe0\\x9f\\xbf\""},          /* overlong */
        {"\xf0\x8f\xbf\xbf", "event=e k=\"\\xf0\\x8f\\xbf\\xbf\""}, /* overlong */
        {"\xed\xa0\x80", "event=e k=\"\\xed\\xa0\\x80\""},          /* a surrogate */
        {"\xc3", "event=e k=\"\\xc3\""},                            /* cut off */
        {"\xe2\x82", "event=e k=\"\\xe2\\x82\""},                   /* cut off */
        {"\xe2\x28\xa1", "event=e k=\"\\xe2(\\xa1\""},              /* no continuation */
        {"\xff\xc3\xbc", "event=e k=\"\\xff\xc3\xbc\""},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct log_line l;

        log_begin(&l, LOG_LEVEL_INFO, "e");
        log_str(&l, "k", cases[i].value);
        assert_text(&l, cases[i].text);
        assert_false(l.full);
    }
}

static void
test_kinds_of_values(void **state)
{
    struct log_line l;
    struct netaddr four = {.family = 4, .octets = {192, 0, 2, 1}};
    struct netaddr six = {.family = 6, .octets = {0x20, 1, [15] = 1}};

    (void)state;
    log_begin(&l, LOG_LEVEL_INFO, "e");
    log_path(&l, "from", span_str(""));
    log_path(&l, "to", span_str("a@b"));
    log_path(&l, "odd", span_str("\"a> to=<b\"@x"));
    log_int(&l, "min", INT64_MIN);
    log_int(&l, "max", INT64_MAX);
    log_int(&l, "zero", 0);
    log_seconds(&l, "delay", 0);
    log_seconds(&l, "duration", 61007);
    log_seconds(&l, "back", -1);
    log_addr(&l, "client", &four);
    log_addr(&l, "six", &six);
    log_fmt(&l, "ratio", "%.2f %s", 0.5, "of");
    log_span(&l, "span", span_of("a\0b", 3));
    log_str(&l, "null", NULL);
    assert_text(&l, "event=e from=<> to=<a@b> odd=\"<\\x22a> to=<b\\x22@x>\""
                    " min=-9223372036854775808 max=9223372036854775807 zero=0 delay=0.000"
                    " duration=61.007 back=0.000 client=192.0.2.1"
                    " six=2001::1 ratio=\"0.50 of\" span=\"a\\x00b\" null=");
}

/* What a reader of the log makes of the value that starts at P: its length there, and the value in
 * OUT. */
static size_t
read_value(const char *p, size_t n, char *out, size_t *length)
{
    size_t i = 0;

    *length = 0;
    if (n == 0 || p[0] != '"') {
        for (; i < n && p[i] != ' '; i++)
            out[(*length)++] = p[i];
        return i;
    }
    for (i = 1; p[i] != '"'; i++) {
        char hex[3] = {0};

        assert_true(i + 1 < n);
        if (p[i] != '\\') {
            out[(*length)++] = p[i];
            continue;
        }
        assert_true(i + 4 < n && p[i + 1] == 'x');
        memcpy(hex, p + i + 2, 2);
        out[(*length)++] = (char)strtoul(hex, NULL, 16);
        i += 3;
    }
    return i + 1;
}

/* Whatever the octets, they come back, one pair stays one pair, and no control character is
 * written. */
static void
check_comes_back(struct span value)
{
    struct log_line l;
    char out[LOG_LINE_MAX];
    size_t at, length;

    log_begin(&l, LOG_LEVEL_INFO, "e");
    log_span(&l, "k", value);
    log_str(&l, "next", "x");
    for (size_t i = 0; i < l.n; i++)
        assert_true((unsigned char)l.text[i] >= ' ' && l.text[i] != 0x7f);
    at = strlen("event=e k=");
    at += read_value(l.text + at, l.n - at, out, &length);
    assert_int_equal(length, value.n);
    assert_memory_equal(out, value.p, value.n);
    assert_true(span_is(span_of(l.text + at, l.n - at), " next=x"));
}

static void
test_every_octet(void **state)
{
    uint32_t seed = 1;

    (void)state;
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            char octets[2] = {(char)a, (char)b};

            check_comes_back(span_of(octets, 1));
            check_comes_back(span_of(octets, 2));
        }
    }
    for (int i = 0; i < 2000; i++) {
        char octets[200];

        for (size_t j = 0; j < sizeof octets; j++) {
            seed = seed * 1664525 + 1013904223;
            octets[j] = (char)(seed >> 24);
        }
        check_comes_back(span_of(octets, sizeof octets));
    }
}

/* A value of any length is cut at a whole character, closed, and does not push out what follows. */
static void
test_cut_value(void **state)
{
    static const char *const units[] = {"x", "\xc3\xbc", "\xf0\x9f\x93\xa7", "\n", " "};

    (void)state;
    for (size_t u = 0; u < LENGTH(units); u++) {
        size_t size = strlen(units[u]);
        char value[5000];

        for (size_t n = 200; n <= sizeof value; n += 7) {
            struct log_line l;
            char out[LOG_LINE_MAX];
            size_t at = strlen("event=e k="), length;

            for (size_t i = 0; i < n; i++)
                value[i] = units[u][i % size];
            log_begin(&l, LOG_LEVEL_INFO, "e");
            log_path(&l, "k", span_of(value, n - n % size));
            log_str(&l, "next", "x y");
            at += read_value(l.text + at, l.n - at, out, &length);
            assert_true(span_is(span_of(l.text + at, l.n - at), " next=\"x y\""));
            assert_true(out[0] == '<' && out[length - 1] == '>');
            length -= 2;
            assert_true(length % size == 0 && length <= n);
            assert_memory_equal(out + 1, value, length);
            assert_int_equal(l.full, length < n - n % size);
            assert_true(length == n - n % size || length >= 200);
        }
    }
}

/* Pairs are added until nothing fits; what is there is whole. */
static void
test_full_line(void **state)
{
    (void)state;
    for (size_t size = 0; size < 300; size++) {
        struct log_line l;
        char value[300], out[LOG_LINE_MAX];
        size_t at = strlen("event=e"), length;

        memset(value, ' ', sizeof value);
        log_begin(&l, LOG_LEVEL_INFO, "e");
        for (int i = 0; i < 2000; i++) {
            log_span(&l, "key", span_of(value, size));
            assert_true(l.n <= sizeof l.text);
        }
        assert_true(l.full);
        while (at < l.n) {
            assert_memory_equal(l.text + at, " key=", 5);
            at += 5;
            at += read_value(l.text + at, l.n - at, out, &length);
            assert_true(length <= size);
        }
    }
}

static void
test_long_format(void **state)
{
    struct log_line l;
    char value[3000];

    (void)state;
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    log_begin(&l, LOG_LEVEL_INFO, "e");
    log_fmt(&l, "k", "%s", value);
    assert_true(l.full);
    log_str(&l, "next", "y");
    assert_memory_equal(l.text + l.n - 9, "xx next=y", 9);
}

static void
test_level(void **state)
{
    struct log_line l;

    (void)state;
    assert_int_equal(log_get_level(), LOG_LEVEL_INFO);
    for (int set = LOG_LEVEL_ERROR; set <= LOG_LEVEL_DEBUG; set++) {
        log_set_level((enum log_level)set);
        assert_int_equal(log_get_level(), set);
        for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
            assert_int_equal(log_wants((enum log_level)level), level <= set);
            /* What is not wanted costs no quoting. */
            log_begin(&l, (enum log_level)level, "e");
            log_str(&l, "k", "v");
            log_fmt(&l, "k", "%d", 1);
            assert_text(&l, level <= set ? "event=e k=v k=1" : "");
        }
    }
    log_set_level(LOG_LEVEL_INFO);
}

/* What is the same in many lines, formatted once. */
static void
test_kept_beginning(void **state)
{
    struct log_line l;
    char *kept;

    (void)state;
    log_begin(&l, LOG_LEVEL_INFO, "e");
    log_str(&l, "a", "b c");
    kept = log_keep(&l);
    log_str(&l, "gone", "1");
    log_begin_with(&l, LOG_LEVEL_INFO, kept);
    log_str(&l, "d", "2");
    assert_text(&l, "event=e a=\"b c\" d=2");
    assert_int_equal(l.level, LOG_LEVEL_INFO);
    log_begin_with(&l, LOG_LEVEL_DEBUG, kept);
    log_str(&l, "d", "2");
    assert_text(&l, "");
    assert_null(log_keep(&l));
    free(kept);
}

/* The queue against a model: lines come out as they went in, over many rounds of the ring. */
static void
test_queue(void **state)
{
    enum { CAPACITY = 1000, LINES = 20000 };
    struct log_queue *q = log_queue_new(CAPACITY);
    char text[LOG_LINE_MAX], expected[256];
    struct log_record r;
    uint64_t in = 0, out = 0, refused = 0;
    uint32_t seed = 7;

    (void)state;
    assert_non_null(q);
    assert_false(log_queue_take(q, &r, text));
    while (out < LINES) {
        seed = seed * 1664525 + 1013904223;
        if (seed >> 31) {
            size_t n = in * 31 % sizeof expected;
            struct log_record new = {(int64_t)in, (enum log_level)(in % 5), span_of(text, n)};

            memset(text, (int)(in % 251), n);
            if (log_queue_put(q, &new))
                in++;
            else
                refused++;
        } else if (log_queue_take(q, &r, text)) {
            assert_int_equal(r.wall_us, out);
            assert_int_equal(r.level, out % 5);
            assert_int_equal(r.text.n, out * 31 % sizeof expected);
            memset(expected, (int)(out % 251), sizeof expected);
            assert_memory_equal(r.text.p, expected, r.text.n);
            out++;
        } else {
            assert_int_equal(in, out);
        }
        assert_int_equal(log_queue_in(q), in);
        assert_int_equal(log_queue_out(q), out);
    }
    assert_true(refused > 0);
    log_queue_free(&q);
    assert_null(q);
    log_queue_free(&q);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quoting),        cmocka_unit_test(test_kinds_of_values),
        cmocka_unit_test(test_every_octet),    cmocka_unit_test(test_cut_value),
        cmocka_unit_test(test_full_line),      cmocka_unit_test(test_long_format),
        cmocka_unit_test(test_level),          cmocka_unit_test(test_queue),
        cmocka_unit_test(test_kept_beginning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
