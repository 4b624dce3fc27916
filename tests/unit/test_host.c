#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/relay/host.h"
#include "tests/unit/load_settings.h"

#define LOOPS 3

struct world {
    struct settings *st;
    struct hosts *hosts;
    struct route *route;
    unsigned told[LOOPS];
};

static void
note(void *arg, struct route *r)
{
    unsigned *told = arg;

    assert_non_null(r);
    ++*told;
}

static void
begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->st = load_good(BASE);
    w->hosts = hosts_new();
    assert_int_equal(hosts_update(w->hosts, w->st), 0);
    w->route = hosts_route(w->hosts, "x");
    assert_non_null(w->route);
    for (unsigned i = 0; i < LOOPS; i++)
        hosts_set_post(w->hosts, i, note, &w->told[i]);
}

static void
wake(struct world *w)
{
    memset(w->told, 0, sizeof(w->told));
    route_wake(w->route);
}

static void
end(struct world *w)
{
    hosts_free(&w->hosts);
    settings_unref(w->st);
}

static void
assert_told(const struct world *w, unsigned first, unsigned second, unsigned third)
{
    assert_int_equal(w->told[0], first);
    assert_int_equal(w->told[1], second);
    assert_int_equal(w->told[2], third);
}

/* A loop with a retired pool and a new one: that the one has nobody left who waits says nothing of
 * the other. */
static void
test_a_loop_waits_as_long_as_one_of_its_requests(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    route_wait(w.route, 1, true);
    route_wait(w.route, 1, true);
    route_wait(w.route, 2, true);
    route_wait(w.route, 1, false);
    wake(&w);
    assert_told(&w, 0, 1, 1);
    assert_int_equal(route_waiting(w.route), 2);
    route_wait(w.route, 1, false);
    route_wait(w.route, 2, false);
    wake(&w);
    assert_told(&w, 0, 0, 0);
    assert_int_equal(route_waiting(w.route), 0);
    end(&w);
}

static void
test_each_that_begins_to_wait_is_told_while_something_is_idle(void **state)
{
    struct network client;
    struct world w;

    (void)state;
    begin(&w);
    assert_true(network_parse(span_str("192.0.2.1"), &client));
    struct host *h = route_host(w.route, 0);
    assert_int_equal(host_slot_take(h, 4, &client), HOST_SLOT_TAKEN);
    assert_int_equal(host_slots_left(h, 4), 3);
    assert_int_equal(host_slots_left(h, 0), -1);
    route_wait(w.route, 0, true);
    assert_told(&w, 0, 0, 0);
    host_slot_idle(h, &client);
    route_wait(w.route, 0, true);
    route_wait(w.route, 0, true);
    assert_told(&w, 2, 2, 2);
    assert_true(host_slot_busy(h, 4, &client));
    route_wait(w.route, 1, true);
    assert_told(&w, 2, 2, 2);
    end(&w);
}

/* What is free is for who has waited for much longer; who stood back hears when it no longer is. */
static void
test_who_waits_for_much_longer_comes_first(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    assert_false(route_is_due_elsewhere(w.route, 0, 10000));
    route_set_full(w.route, 1, 10000);
    assert_true(route_is_due_elsewhere(w.route, 0, 10251));
    assert_false(route_is_due_elsewhere(w.route, 0, 10250));
    assert_false(route_is_due_elsewhere(w.route, 0, 9000));
    assert_false(route_is_due_elsewhere(w.route, 1, 10251));
    route_wait(w.route, 0, true);
    route_set_full(w.route, 1, 11000);
    assert_told(&w, 1, 0, 0);
    route_set_full(w.route, 1, 12000); /* nobody has stood back for 11000 */
    assert_told(&w, 1, 0, 0);
    assert_true(route_is_due_elsewhere(w.route, 0, 20000));
    route_set_full(w.route, 1, 12000);
    assert_told(&w, 1, 0, 0);
    route_set_full(w.route, 1, 0);
    assert_told(&w, 2, 0, 0);
    assert_false(route_is_due_elsewhere(w.route, 0, 20000));
    end(&w);
}

/* One that has its share could use no slot, so it waits for none. */
static void
test_a_client_at_its_share_is_told_so_of_a_full_host(void **state)
{
    struct network greedy, other;
    struct world w;

    (void)state;
    begin(&w);
    assert_true(network_parse(span_str("192.0.2.1"), &greedy));
    assert_true(network_parse(span_str("192.0.2.2"), &other));
    struct host *h = route_host(w.route, 0);
    assert_int_equal(host_slot_take(h, 1, &greedy), HOST_SLOT_TAKEN);
    assert_int_equal(host_slot_take(h, 1, &greedy), HOST_SLOT_CLIENT_FULL);
    assert_int_equal(host_slot_take(h, 1, &other), HOST_SLOT_FULL);
    end(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loop_waits_as_long_as_one_of_its_requests),
        cmocka_unit_test(test_each_that_begins_to_wait_is_told_while_something_is_idle),
        cmocka_unit_test(test_who_waits_for_much_longer_comes_first),
        cmocka_unit_test(test_a_client_at_its_share_is_told_so_of_a_full_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
