#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <event2/event.h>

#include "policy/name_lookup.h"

static struct event_base *base;
static struct name_lookup *lookup;
static struct netaddr first;
static size_t found;
static unsigned calls;

static int
set_up(void **state)
{
    (void)state;
    base = event_base_new();
    calls = 0;
    return base == NULL;
}

static int
tear_down(void **state)
{
    (void)state;
    name_lookup_cancel(&lookup);
    event_base_free(base);
    return 0;
}

static void
done(void *arg, const struct netaddr *addresses, size_t n, const char *error)
{
    assert_ptr_equal(arg, &lookup);
    calls++;
    found = n;
    if (n > 0)
        first = addresses[0];
    else
        assert_non_null(error);
    name_lookup_cancel(&lookup);
}

static void
look_up(const char *host)
{
    lookup = name_lookup_start(base, host, done, &lookup);
    assert_non_null(lookup);
    event_base_dispatch(base);
    assert_null(lookup);
    assert_int_equal(calls, 1);
}

static void
test_found(void **state)
{
    (void)state;

    look_up("localhost");
    assert_true(found > 0 && found <= NAME_LOOKUP_MAX);
    assert_true(netaddr_is_loopback(&first));
}

static void
test_not_found(void **state)
{
    (void)state;

    look_up("not a name");
    assert_int_equal(found, 0);
}

/* Nobody is called any more; what the thread still does is its own. */
static void
test_cancelled(void **state)
{
    (void)state;

    for (int i = 0; i < 50; i++) {
        lookup = name_lookup_start(base, "localhost", done, &lookup);
        assert_non_null(lookup);
        if (i % 2 == 0)
            event_base_loop(base, EVLOOP_NONBLOCK);
        name_lookup_cancel(&lookup);
        assert_null(lookup);
    }
    calls = 0;
    event_base_dispatch(base);
    assert_int_equal(calls, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_found),
        TEST(test_not_found),
        TEST(test_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
