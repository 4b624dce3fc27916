#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/value.h"
#include "policy/dnsbl.h"

#define T DNSBL_FINDING_TROUBLE
#define C DNSBL_FINDING_CLEAR
#define L DNSBL_FINDING_LISTED

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static struct settings st;

/* bl.test: anything for the null sender; 127.0.0.2, 4 to 11 and 127.0.1.5 for any. */
static int
set_up(void **state)
{
    (void)state;
    assert_null(value_zones("Bl.Test, ips.test=127.0.0.2", &st.dnsbl.null_sender));
    assert_null(value_zones("bl.test=127.0.0.[2;4..11], bl.test=127.0.1.5", &st.dnsbl.any_sender));
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    zone_list_clear(&st.dnsbl.null_sender);
    zone_list_clear(&st.dnsbl.any_sender);
    return 0;
}

static struct dns_answer answer;

static void
set_answer(const char *text)
{
    struct span rest = span_str(text), item;

    dns_answer_set(&answer, DNS_NONE);
    while (text[0] != '\0' && span_next(&rest, ' ', &item)) {
        assert_true(netaddr_parse(item, &answer.records[answer.n++].address));
        answer.status = DNS_OK;
    }
}

static void
test_zones(void **state)
{
    struct dnsbl_zone zones[2];
    struct err e;
    char long_name[200];
    (void)state;

    assert_int_equal(dnsbl_zones_of(&st, zones, 2, &e), 2);
    assert_string_equal(zones[0].name, "bl.test");
    assert_int_equal(zones[0].lists, DNSBL_NULL_SENDER | DNSBL_ANY_SENDER);
    assert_int_equal(zones[0].n_filters, 3);
    assert_string_equal(zones[1].name, "ips.test");
    assert_int_equal(zones[1].lists, DNSBL_NULL_SENDER);
    assert_int_equal(dnsbl_zones_of(&st, zones, 1, &e), -1);
    assert_string_equal(e.text, "more than 1 zones");

    memset(long_name, 'a', sizeof long_name);
    for (size_t i = 50; i < 189; i += 50)
        long_name[i] = '.';
    long_name[189] = '\0';
    struct zone_entry entry = {.name = long_name};
    struct settings other = {.dnsbl.null_sender = {&entry, 1}};
    assert_int_equal(dnsbl_zones_of(&other, zones, 2, &e), 1);
    long_name[189] = 'a';
    long_name[190] = '\0';
    assert_int_equal(dnsbl_zones_of(&other, zones, 2, &e), -1);
}

static void
test_listing(void **state)
{
    enum { N = DNSBL_NULL_SENDER, A = DNSBL_ANY_SENDER };
    static const struct {
        const char *answer;
        unsigned first, second;
    } cases[] = {
        {"", 0, 0},
        {"127.0.0.2", N | A, N},
        {"127.0.0.3", N, 0},
        {"127.0.0.4", N | A, 0},
        {"127.0.0.11", N | A, 0},
        {"127.0.0.12", N, 0},
        {"127.0.1.5", N | A, 0},
        {"127.0.1.2", N, 0},
        {"127.9.9.9", N, 0},
        {"127.255.254.2", N, 0},
        {"127.0.0.0", N, 0},
        /* not a listing, whatever is let through */
        {"127.0.0.1", 0, 0},
        {"127.255.255.1", 0, 0},
        {"127.255.255.254", 0, 0},
        {"192.0.2.2", 0, 0},
        {"10.0.0.2", 0, 0},
        {"::7f00:2", 0, 0},
        /* any of several */
        {"127.0.0.1 192.0.2.1 127.0.0.12 127.0.0.5", N | A, 0},
        {"127.255.255.252 127.0.0.2", N | A, N},
    };
    struct dnsbl_zone zones[2];
    struct err e;
    (void)state;

    assert_int_equal(dnsbl_zones_of(&st, zones, 2, &e), 2);
    for (size_t i = 0; i < COUNT(cases); i++) {
        set_answer(cases[i].answer);
        if (dnsbl_zone_lists(&zones[0], &answer) != cases[i].first ||
            dnsbl_zone_lists(&zones[1], &answer) != cases[i].second)
            fail_msg("\"%s\"", cases[i].answer);
    }
    dns_answer_set(&answer, DNS_TROUBLE);
    assert_int_equal(dnsbl_zone_lists(&zones[0], &answer), 0);
}

static void
test_points(void **state)
{
    static const struct {
        enum dnsbl_finding findings[DNSBL_POINTS];
        const char *fault;
    } cases[] = {
        {{L, C, C, C}, NULL}, /* IPv4 */
        {{C, C, L, C}, NULL}, /* IPv6 */
        {{L, C, L, C}, NULL},
        {{L, C, T, T}, NULL},
        {{T, T, L, C}, NULL},
        {{L, L, C, C}, "lists its test point 127.0.0.1, so everybody"},
        {{L, C, L, L}, "lists its test point 127.0.0.1, so everybody"},
        {{C, C, C, C}, "does not list its test point 127.0.0.2"},
        {{L, T, C, C}, "no answer"},
        {{T, C, C, C}, "no answer"},
        {{T, T, T, T}, "no answer"},
    };
    static const char *const names[DNSBL_POINTS] = {
        [DNSBL_POINT4_LISTED] = "2.0.0.127.z.test",
        [DNSBL_POINT4_CLEAR] = "1.0.0.127.z.test",
        [DNSBL_POINT6_LISTED] =
            "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.z.test",
        [DNSBL_POINT6_CLEAR] =
            "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.z.test",
    };
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *fault = dnsbl_points_fault(cases[i].findings);
        if (cases[i].fault == NULL)
            assert_null(fault);
        else
            assert_string_equal(fault, cases[i].fault);
    }
    for (size_t i = 0; i < DNSBL_POINTS; i++) {
        struct netaddr a = dnsbl_point_address((enum dnsbl_point)i);
        char name[DNS_NAME_TEXT];
        assert_true(dns_reverse_name(name, &a, "z.test"));
        assert_string_equal(name, names[i]);
    }
}

static void
test_findings(void **state)
{
    (void)state;

    set_answer("127.0.0.2");
    assert_int_equal(dnsbl_point_finding(DNSBL_POINT4_LISTED, &answer), DNSBL_FINDING_LISTED);
    assert_int_equal(dnsbl_point_finding(DNSBL_POINT6_CLEAR, &answer), DNSBL_FINDING_LISTED);
    /* A domain for sale, or a refusal, is no listing, but more than "nothing". */
    set_answer("192.0.2.1 127.255.255.254");
    assert_int_equal(dnsbl_point_finding(DNSBL_POINT4_LISTED, &answer), DNSBL_FINDING_CLEAR);
    assert_int_equal(dnsbl_point_finding(DNSBL_POINT4_CLEAR, &answer), DNSBL_FINDING_LISTED);
    set_answer("");
    assert_int_equal(dnsbl_point_finding(DNSBL_POINT4_CLEAR, &answer), DNSBL_FINDING_CLEAR);
    dns_answer_set(&answer, DNS_TROUBLE);
    assert_int_equal(dnsbl_point_finding(DNSBL_POINT4_CLEAR, &answer), DNSBL_FINDING_TROUBLE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_listing),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_findings),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
