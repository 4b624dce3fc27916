#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ldap/dir_timing.h"

#define ACTIVE_DIRECTORY_CUTS_MS (900 * 1000)

static void
idle_connections_go_before_they_are_cut(void **state)
{
    (void)state;
    assert_false(dir_timing_is_idle(1000, 1000));
    assert_false(dir_timing_is_idle(1000, 1000 + DIR_IDLE_MAX_MS - 1));
    assert_true(dir_timing_is_idle(1000, 1000 + DIR_IDLE_MAX_MS));
    /* With room for a loop that looks a minute late. */
    assert_true(DIR_IDLE_MAX_MS + 60 * 1000 < ACTIVE_DIRECTORY_CUTS_MS);
}

static void
patience_ends(void **state)
{
    static const struct {
        int64_t sent, heard, now;
        size_t n_servers;
        enum dir_patience expected;
    } rows[] = {
        /* Nothing at all came since. */
        {1000, 500, 1000, 1, DIR_PATIENCE_WAIT},
        {1000, 500, 5999, 1, DIR_PATIENCE_WAIT},
        {1000, 500, 6000, 1, DIR_PATIENCE_LOST},
        {1000, 1000, 6000, 1, DIR_PATIENCE_LOST},
        {1000, 500, 3499, 2, DIR_PATIENCE_WAIT},
        {1000, 500, 3500, 2, DIR_PATIENCE_LOST},
        /* It answers others. */
        {1000, 1001, 5999, 1, DIR_PATIENCE_WAIT},
        {1000, 1001, 6000, 1, DIR_PATIENCE_GIVE_UP},
        {1000, 1001, 3500, 3, DIR_PATIENCE_WAIT},
        {1000, 5999, 6000, 3, DIR_PATIENCE_GIVE_UP},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t end_ms = dir_timing_end_ms(rows[i].sent, rows[i].heard, 5000, rows[i].n_servers);

        assert_int_equal(
            dir_timing_patience(rows[i].sent, rows[i].heard, rows[i].now, 5000, rows[i].n_servers),
            rows[i].expected);
        /* Who sleeps until then has something to do. */
        assert_int_equal(rows[i].now >= end_ms, rows[i].expected != DIR_PATIENCE_WAIT);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_connections_go_before_they_are_cut),
        cmocka_unit_test(patience_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
