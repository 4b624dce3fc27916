#define _DEFAULT_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static void
test_monotonic(void **state)
{
    int64_t ns = clock_ns(), ms = clock_ms();

    (void)state;
    assert_true(ns > 0);
    assert_true(ms >= ns / 1000000);
    assert_true(clock_ns() >= ns);
}

static void
test_wall(void **state)
{
    int64_t before = (int64_t)time(NULL), us = clock_wall_us(), s = clock_wall_s();

    (void)state;
    /* time() may read a clock that is a tick behind. */
    assert_true(us / 1000000 >= before);
    assert_true(s >= us / 1000000);
}

static void
test_text(void **state)
{
    static const struct {
        const char *zone;
        int64_t wall_us;
        const char *rfc5322, *rfc3339;
    } cases[] = {
        {"UTC0", 0, "Thu, 1 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000000+00:00"},
        {"UTC0", 1795537490123456, "Tue, 24 Nov 2026 16:24:50 +0000",
         "2026-11-24T16:24:50.123456+00:00"},
        {"UTC0", 1795537490000001, "Tue, 24 Nov 2026 16:24:50 +0000",
         "2026-11-24T16:24:50.000001+00:00"},
        {"ABC-5:30", 1795537491000007, "Tue, 24 Nov 2026 21:54:51 +0530",
         "2026-11-24T21:54:51.000007+05:30"},
        {"ABC3:30", 1795537492999999, "Tue, 24 Nov 2026 12:54:52 -0330",
         "2026-11-24T12:54:52.999999-03:30"},
        {"ABC0:30", 0, "Wed, 31 Dec 1969 23:30:00 -0030", "1969-12-31T23:30:00.000000-00:30"},
        {"UTC0", 253402300799000000, "Fri, 31 Dec 9999 23:59:59 +0000",
         "9999-12-31T23:59:59.000000+00:00"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char text[CLOCK_TEXT];

        setenv("TZ", cases[i].zone, 1);
        tzset();
        clock_rfc5322(text, cases[i].wall_us / 1000000);
        assert_string_equal(text, cases[i].rfc5322);
        clock_rfc3339(text, cases[i].wall_us);
        assert_string_equal(text, cases[i].rfc3339);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monotonic),
        cmocka_unit_test(test_wall),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
