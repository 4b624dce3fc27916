#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/value.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define BAD       (-1)

static void
test_duration(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"0s", 0},
        {"0ms", 0},
        {"1ms", 1},
        {"500ms", 500},
        {"30s", 30000},
        {"030s", 30000},
        {"10m", 600000},
        {"1h", 3600000},
        {"7d", 604800000},
        {"106751991167d", INT64_C(9223372036828800000)},
        {"106751991168d", BAD},
        {"9223372036854775807ms", INT64_MAX},
        {"9223372036854775808ms", BAD},
        {"99999999999999999999ms", BAD},
        {"", BAD},
        {"0", BAD},
        {"5", BAD},
        {"s", BAD},
        {"-1s", BAD},
        {"+1s", BAD},
        {"1.5s", BAD},
        {"5 s", BAD},
        {" 5s", BAD},
        {"5s ", BAD},
        {"5S", BAD},
        {"5sec", BAD},
        {"1h30m", BAD},
        {"5w", BAD},
        {"0x5s", BAD},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        int64_t ms = 0;
        const char *wrong = value_duration(cases[i].text, &ms);
        if ((wrong != NULL) != (cases[i].ms == BAD) || (wrong == NULL && ms != cases[i].ms))
            fail_msg("\"%s\": %" PRId64 " %s", cases[i].text, ms, wrong);
    }
}

static void
test_size(void **state)
{
    static const struct {
        const char *text;
        int64_t octets;
    } cases[] = {
        {"0", 0},
        {"1", 1},
        {"65536", 65536},
        {"64K", 65536},
        {"25M", 26214400},
        {"1G", 1073741824},
        {"8589934591G", INT64_C(9223372035781033984)},
        {"8589934592G", BAD},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775808", BAD},
        {"", BAD},
        {"K", BAD},
        {"-1", BAD},
        {"1X", BAD},
        {"1k", BAD},
        {"1KB", BAD},
        {"1 K", BAD},
        {"1T", BAD},
        {"1.5M", BAD},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        uint64_t octets = 0;
        const char *wrong = value_size(cases[i].text, &octets);
        if ((wrong != NULL) != (cases[i].octets == BAD) ||
            (wrong == NULL && octets != (uint64_t)cases[i].octets))
            fail_msg("\"%s\": %" PRIu64 " %s", cases[i].text, octets, wrong);
    }
}

/* What is written is what would be read. */
static void
test_write(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } durations[] = {
        {0, "0s"},         {1, "1ms"},        {999, "999ms"},
        {1000, "1s"},      {1500, "1500ms"},  {60000, "1m"},
        {90000, "90s"},    {3600000, "1h"},   {86400000, "1d"},
        {172800000, "2d"}, {90000000, "25h"}, {INT64_MAX, "9223372036854775807ms"},
    };
    static const struct {
        uint64_t octets;
        const char *text;
    } sizes[] = {
        {0, "0"},       {1, "1"},        {1023, "1023"},     {1024, "1K"},
        {1536, "1536"}, {1048576, "1M"}, {1073741824, "1G"}, {INT64_MAX, "9223372036854775807"},
    };
    char out[VALUE_TEXT];
    int64_t ms;
    uint64_t octets;

    (void)state;
    for (size_t i = 0; i < LENGTH(durations); i++) {
        value_write_duration(out, durations[i].ms);
        assert_string_equal(out, durations[i].text);
        assert_null(value_duration(out, &ms));
        assert_true(ms == durations[i].ms);
    }
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        value_write_size(out, sizes[i].octets);
        assert_string_equal(out, sizes[i].text);
        assert_null(value_size(out, &octets));
        assert_true(octets == sizes[i].octets);
    }
}

static void
test_int(void **state)
{
    static const struct {
        const char *text;
        int n;
    } cases[] = {
        {"0", 0},
        {"7", 7},
        {"0010", 10},
        {"2147483647", INT32_MAX},
        {"2147483648", BAD},
        {"", BAD},
        {"-1", BAD},
        {"+1", BAD},
        {"1 ", BAD},
        {" 1", BAD},
        {"many", BAD},
        {"99999999999999999999", BAD},
        {"1.0", BAD},
        {"0x10", BAD},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        int n = 0;
        const char *wrong = value_int(cases[i].text, &n);
        if ((wrong != NULL) != (cases[i].n == BAD) || (wrong == NULL && n != cases[i].n))
            fail_msg("\"%s\": %d %s", cases[i].text, n, wrong);
    }
}

static void
test_bool(void **state)
{
    static const char *const bad[] = {"", "Yes", "YES", "true", "1", "on", "y", "yes ", "noo"};
    bool b = false;

    (void)state;
    assert_null(value_bool("yes", &b));
    assert_true(b);
    assert_null(value_bool("no", &b));
    assert_false(b);
    for (size_t i = 0; i < LENGTH(bad); i++)
        assert_non_null(value_bool(bad[i], &b));
}

static void
test_ratio(void **state)
{
    static const struct {
        const char *text;
        double ratio;
    } cases[] = {
        {"0", 0},       {"1", 1},
        {"0.5", 0.5},   {"0.0", 0},
        {"1.25", 1.25}, {"00.5", 0.5},
        {"1000", 1000}, {"0.000000001", 0.000000001},
        {"0.1", 0.1},   {"1001", BAD},
        {"", BAD},      {".", BAD},
        {".5", BAD},    {"0.", BAD},
        {"0,5", BAD},   {"-0.5", BAD},
        {"+0.5", BAD},  {"0.0000000001", BAD},
        {"5e-1", BAD},  {"50%", BAD},
        {"0.5 ", BAD},  {"nan", BAD},
        {"inf", BAD},   {"0.5.5", BAD},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        double ratio = 0;
        const char *wrong = value_ratio(cases[i].text, &ratio);
        if ((wrong != NULL) != (cases[i].ratio < 0) ||
            (wrong == NULL && (ratio < cases[i].ratio || ratio > cases[i].ratio)))
            fail_msg("\"%s\": %g %s", cases[i].text, ratio, wrong);
    }
}

/* Lists are compared as text: their items joined by |; NULL: a fault. */
struct list_case {
    const char *text, *items;
};

static void
compare(const struct list_case *c, const char *wrong, const char *is)
{
    if ((wrong != NULL) != (c->items == NULL) || strcmp(is, c->items != NULL ? c->items : "") != 0)
        fail_msg("\"%s\": %s %s", c->text, is, wrong);
}

static void add(char out[1024], const char *format, ...) __attribute__((format(printf, 2, 3)));

static void
add(char out[1024], const char *format, ...)
{
    size_t n = strlen(out);
    va_list args;

    if (n > 0)
        out[n++] = '|';
    va_start(args, format);
    vsnprintf(out + n, 1024 - n, format, args);
    va_end(args);
}

static void
test_list(void **state)
{
    static const struct list_case cases[] = {
        {"", ""},       {" \t", ""},     {"a", "a"},
        {" a ", "a"},   {"a,b", "a|b"},  {" a ,\tb c , d", "a|b c|d"},
        {"a,,b", NULL}, {",a", NULL},    {"a,", NULL},
        {",", NULL},    {"a, ,b", NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct str_list l;
        char is[1024] = "";
        const char *wrong = value_list(cases[i].text, &l);
        for (size_t k = 0; k < l.n; k++)
            add(is, "%s", l.v[k]);
        compare(&cases[i], wrong, is);
        str_list_clear(&l);
        assert_null(l.v);
    }
}

static void
test_networks(void **state)
{
    static const struct list_case cases[] = {
        {"", ""},
        {"127.0.0.0/8, ::1", "127.0.0.0/8|::1"},
        {"192.0.2.1,192.0.2.0/24 , 0.0.0.0/0", "192.0.2.1|192.0.2.0/24|0.0.0.0/0"},
        {"2001:db8::/32,::/0", "2001:db8::/32|::/0"},
        {"192.0.2.1/24", NULL},
        {"192.0.2.0/33", NULL},
        {"2001:db8::/129", NULL},
        {"192.0.2", NULL},
        {"example.org", NULL},
        {"[::1]", NULL},
        {"192.0.2.1,x", NULL},
        {"192.0.2.1,", NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct network_list l;
        char is[1024] = "", text[NETWORK_TEXT];
        const char *wrong = value_networks(cases[i].text, &l);
        for (size_t k = 0; k < l.n; k++) {
            network_format(&l.v[k], text);
            add(is, "%s", text);
        }
        compare(&cases[i], wrong, is);
        network_list_clear(&l);
    }
}

static void
test_hosts(void **state)
{
    static const struct list_case cases[] = {
        {"", ""},
        {"ex1", "ex1 25 1"},
        {"ex1.corp.example.com:2525", "ex1.corp.example.com 2525 1"},
        {"a:1,b:65535 weight=3, c\t weight=0 ", "a 1 1|b 65535 3|c 25 0"},
        {"192.0.2.1:25, [2001:db8::1]:26, [::1]", "192.0.2.1 25 1|2001:db8::1 26 1|::1 25 1"},
        {"a weight=1000", "a 25 1000"},
        {"a weight=1001", NULL},
        {"a weight=-1", NULL},
        {"a weight=", NULL},
        {"a weight", NULL},
        {"a weight = 1", NULL},
        {"a b c", NULL},
        {"a weight=1 weight=2", NULL},
        {"a:0", NULL},
        {"a:65536", NULL},
        {"a:", NULL},
        {"a:b", NULL},
        {"a:25:25", NULL},
        {":25", NULL},
        {"2001:db8::1", NULL},
        {"::1", NULL},
        {"[::1", NULL},
        {"[]:25", NULL},
        {"[x]:25", NULL},
        {"[::1]25", NULL},
        {"[::1]:", NULL},
        {"a/b", NULL},
        {"ldap://a", NULL},
        {"a..b", NULL},
        {".a", NULL},
        {"a\xc3\xa4", NULL},
        {"ex1;ex2", NULL},
        {"ex1,,ex2", NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct host_list l;
        char is[1024] = "";
        const char *wrong = value_hosts(cases[i].text, &l);
        for (size_t k = 0; k < l.n; k++)
            add(is, "%s %u %d", l.v[k].name, l.v[k].port, l.v[k].weight);
        compare(&cases[i], wrong, is);
        host_list_clear(&l);
    }
}

static void
test_listen(void **state)
{
    static const struct list_case cases[] = {
        {"", ""},
        {"0.0.0.0:25, [::]:25", "0.0.0.0 25|:: 25"},
        {"127.0.0.1:9125", "127.0.0.1 9125"},
        {"[2001:db8::1]:65535", "2001:db8::1 65535"},
        {"127.0.0.1", NULL},
        {"[::1]", NULL},
        {"127.0.0.1:0", NULL},
        {"127.0.0.1:65536", NULL},
        {"localhost:25", NULL},
        {"*:25", NULL},
        {":25", NULL},
        {"25", NULL},
        {":::25", NULL},
        {"somewhere", NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct listen_list l;
        char is[1024] = "", text[NETADDR_TEXT];
        const char *wrong = value_listen(cases[i].text, &l);
        for (size_t k = 0; k < l.n; k++) {
            netaddr_format(&l.v[k].address, text);
            add(is, "%s %u", text, l.v[k].port);
        }
        compare(&cases[i], wrong, is);
        listen_list_clear(&l);
    }
}

/* The values of a set, as the ranges they make. */
static void
write_octets(char out[64], const uint64_t set[4])
{
    int low = -1;

    out[0] = '\0';
    for (int value = 0; value <= 256; value++) {
        bool is_in = value < 256 && (set[value / 64] >> value % 64 & 1) != 0;
        size_t n = strlen(out);
        if (is_in && low < 0)
            low = value;
        if (is_in || low < 0)
            continue;
        snprintf(out + n, 64 - n, value - 1 > low ? "%s%d-%d" : "%s%d", n > 0 ? "+" : "", low,
                 value - 1);
        low = -1;
    }
}

static void
test_zones(void **state)
{
    static const struct list_case cases[] = {
        {"", ""},
        {"ips.backscatterer.org", "ips.backscatterer.org 127.0-255.0-255.0-255"},
        {"a.example.", "a.example 127.0-255.0-255.0-255"},
        {"a.example=127.0.0.2", "a.example 127.0.0.2"},
        {"a.example=127.0.0.[2..11], b.example",
         "a.example 127.0.0.2-11|b.example 127.0-255.0-255.0-255"},
        {"a.example=127.[0..255].[1..1].255", "a.example 127.0-255.1.255"},
        {"a.example=127.0.0.[2;4;6..8]", "a.example 127.0.0.2+4+6-8"},
        {"a.example=127.0.[1;0].[250..255;9;9;63..65]", "a.example 127.0.0-1.9+63-65+250-255"},
        {"a.example=[127].0.0.[0]", "a.example 127.0.0.0"},
        {"a.example=", NULL},
        {"=127.0.0.2", NULL},
        {".", NULL},
        {"a b", NULL},
        {"a.example=128.0.0.2", NULL},
        {"a.example=[126..127].0.0.2", NULL},
        {"a.example=[127;9].0.0.2", NULL},
        {"a.example=127.0.0.[2;]", NULL},
        {"a.example=127.0.0.[;2]", NULL},
        {"a.example=127.0.0.[2;;4]", NULL},
        {"a.example=127.0.0.[2;4..]", NULL},
        {"a.example=127.0.0.[2;4..3]", NULL},
        {"a.example=127.0.0.[2;256]", NULL},
        {"a.example=127.0.0.[2 ;4]", NULL},
        {"a.example=127.0.0.[2..4..6]", NULL},
        {"a.example=127.0.0.2;4", NULL},
        {"a.example=127.0.0.2..4", NULL},
        {"a.example=127.0.0", NULL},
        {"a.example=127.0.0.", NULL},
        {"a.example=127.0.0.2.", NULL},
        {"a.example=127.0.0.256", NULL},
        {"a.example=127.0.0.[2..256]", NULL},
        {"a.example=127.0.0.[11..2]", NULL},
        {"a.example=127.0.0.[2.11]", NULL},
        {"a.example=127.0.0.[2-11]", NULL},
        {"a.example=127.0.0.[..11]", NULL},
        {"a.example=127.0.0.[2..]", NULL},
        {"a.example=127.0.0.[2..11", NULL},
        {"a.example=127.0.0.[]", NULL},
        {"a.example=127.0.0.[2..11]3", NULL},
        {"a.example=127.0.0.2=3", NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct zone_list l;
        char is[1024] = "";
        const char *wrong = value_zones(cases[i].text, &l);
        for (size_t k = 0; k < l.n; k++) {
            char taken[4][64];
            for (int octet = 0; octet < 4; octet++)
                write_octets(taken[octet], l.v[k].taken[octet]);
            add(is, "%s %s.%s.%s.%s", l.v[k].name, taken[0], taken[1], taken[2], taken[3]);
        }
        compare(&cases[i], wrong, is);
        zone_list_clear(&l);
    }
}

/* There is room before the name for an address to be looked up. */
static void
test_long_zone(void **state)
{
    struct zone_list l;
    char text[200];

    (void)state;
    memset(text, 'a', sizeof(text));
    text[60] = text[120] = text[180] = '.';
    text[189] = '\0';
    assert_null(value_zones(text, &l));
    zone_list_clear(&l);
    text[189] = 'a';
    text[190] = '\0';
    assert_non_null(value_zones(text, &l));
}

static void
test_host_port(void **state)
{
    char host[4] = "";
    uint16_t port = 0;

    (void)state;
    assert_null(value_host_port(span_str("abc"), 7, host, sizeof(host), &port));
    assert_string_equal(host, "abc");
    assert_int_equal(port, 7);
    assert_non_null(value_host_port(span_str("abc"), 0, host, sizeof(host), &port));
    assert_non_null(value_host_port(span_str("abcd"), 7, host, sizeof(host), &port));
    assert_non_null(value_host_port(span_str(""), 7, host, sizeof(host), &port));
}

static void
test_domain(void **state)
{
    static const struct {
        const char *text;
        bool is;
    } cases[] = {
        {"example.com", true},
        {"a", true},
        {"xn--mnchen-3ya.example", true},
        {"EXAMPLE.Com", true},
        {"_a.b-c.1", true},
        {"", false},
        {".", false},
        {"a.", false},
        {".a", false},
        {"a..b", false},
        {"*.a", false},
        {"a b", false},
        {"a@b", false},
        {"m\xc3\xbcnchen.example", false},
        {"a:25", false},
    };
    char text[260];

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        if (value_is_domain(span_str(cases[i].text)) != cases[i].is)
            fail_msg("%s", cases[i].text);
    /* RFC 1035 2.3.4: a label has 63 octets, a name 253 as it is written. */
    memset(text, 'a', sizeof(text));
    assert_true(value_is_domain(span_of(text, 63)));
    assert_false(value_is_domain(span_of(text, 64)));
    for (size_t i = 63; i < sizeof(text); i += 64)
        text[i] = '.';
    assert_true(value_is_domain(span_of(text, 253)));
    assert_false(value_is_domain(span_of(text, 254)));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duration),  cmocka_unit_test(test_size),
        cmocka_unit_test(test_write),     cmocka_unit_test(test_int),
        cmocka_unit_test(test_bool),      cmocka_unit_test(test_ratio),
        cmocka_unit_test(test_list),      cmocka_unit_test(test_networks),
        cmocka_unit_test(test_hosts),     cmocka_unit_test(test_listen),
        cmocka_unit_test(test_zones),     cmocka_unit_test(test_host_port),
        cmocka_unit_test(test_long_zone), cmocka_unit_test(test_domain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
