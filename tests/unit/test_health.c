#define _GNU_SOURCE

#include <dirent.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "proxy/relay/health.h"
#include "tests/unit/load_settings.h"

/* The resolver is ours, and answers when it may. */

struct name {
    sem_t asked, may_answer;
};

static struct name quick, slow;
static struct sockaddr_in address;
static struct addrinfo answer = {
    .ai_family = AF_INET, .ai_addrlen = sizeof(address), .ai_addr = (struct sockaddr *)&address};

int
getaddrinfo(const char *text, const char *service, const struct addrinfo *hints,
            struct addrinfo **found)
{
    struct name *name = strcmp(text, "slow") == 0 ? &slow : &quick;

    (void)service;
    (void)hints;
    sem_post(&name->asked);
    while (sem_wait(&name->may_answer) != 0)
        ;
    *found = &answer;
    return 0;
}

void
freeaddrinfo(struct addrinfo *all)
{
    (void)all;
}

static void
wait_asked(struct name *name)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    assert_int_equal(sem_timedwait(&name->asked, &until), 0);
}

static int
threads(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

struct world {
    struct settings *st;
    struct hosts *hosts;
    struct stream_loop loop;
    struct health *health;
};

static char scratch[STREAM_SCRATCH];

static void
begin(struct world *w, const char *settings)
{
    struct err e = {.kind = ERR_NONE};

    w->st = load_good(settings);
    w->hosts = hosts_new();
    w->loop = (struct stream_loop){.base = event_base_new(), .scratch = scratch};
    assert_int_equal(hosts_update(w->hosts, w->st), 0);
    w->health = health_new(&w->loop, w->hosts, w->st, &e);
    assert_non_null(w->health);
    event_base_loop(w->loop.base, EVLOOP_NONBLOCK);
}

static struct host *
host_of(struct world *w, const char *downstream)
{
    return route_host(hosts_route(w->hosts, downstream), 0);
}

static void
wait_addresses(struct world *w, struct host *h, struct host_addresses *found)
{
    while (!host_addresses(h, found))
        event_base_loop(w->loop.base, EVLOOP_ONCE);
}

static void
end(struct world *w)
{
    health_free(&w->health);
    hosts_free(&w->hosts);
    event_base_free(w->loop.base);
    settings_unref(w->st);
}

/* The resolver answers when all is gone: a sanitizer sees what it touches then. */
static void
test_the_end_waits_for_no_name(void **state)
{
    struct world w;
    struct timespec a_while = {.tv_nsec = 1000000};

    (void)state;
    begin(&w, BASE);
    wait_asked(&quick);
    end(&w);
    int before = threads(); /* not earlier: a sanitizer may have begun one of its own */
    sem_post(&quick.may_answer);
    while (threads() >= before)
        nanosleep(&a_while, NULL);
}

/* Addresses are the loop's to set: none is known before it has turned. */
static void
test_a_name_is_resolved(void **state)
{
    struct world w;
    struct host_addresses found;

    (void)state;
    begin(&w, BASE);
    wait_asked(&quick);
    struct host *h = host_of(&w, "x");
    assert_false(host_addresses(h, &found));
    sem_post(&quick.may_answer);
    wait_addresses(&w, h, &found);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.port, 25);
    end(&w);
}

#define SLOW_FIRST "[downstream a]\nhosts = slow\nconnect_timeout = 1ms\n" BASE

static void
test_a_slow_name_holds_up_no_other(void **state)
{
    struct world w;
    struct host_addresses found;

    (void)state;
    begin(&w, SLOW_FIRST);
    wait_asked(&slow);
    wait_asked(&quick);
    sem_post(&quick.may_answer);
    wait_addresses(&w, host_of(&w, "x"), &found);
    sem_post(&slow.may_answer);
    wait_addresses(&w, host_of(&w, "a"), &found);
    end(&w);
}

/* A host whose name nobody tells is down, and no reload asks for it again; a late answer is one. */
static void
test_a_slow_name_is_asked_once(void **state)
{
    struct world w;
    struct host_addresses found;
    struct err e = {.kind = ERR_NONE};
    int asked_again;

    (void)state;
    begin(&w, SLOW_FIRST);
    wait_asked(&slow);
    wait_asked(&quick);
    while (host_state(host_of(&w, "a")) != HOST_DOWN)
        event_base_loop(w.loop.base, EVLOOP_ONCE);
    int before = threads();
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(health_prepare(w.health, w.st, &e), 0);
        health_settle(w.health, true);
        event_base_loop(w.loop.base, EVLOOP_NONBLOCK);
    }
    assert_true(threads() <= before);
    sem_post(&quick.may_answer);
    sem_post(&slow.may_answer);
    wait_addresses(&w, host_of(&w, "a"), &found);
    sem_getvalue(&slow.asked, &asked_again);
    assert_int_equal(asked_again, 0);
    end(&w);
}

static bool
name_init(struct name *name)
{
    return sem_init(&name->asked, 0, 0) == 0 && sem_init(&name->may_answer, 0, 0) == 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_end_waits_for_no_name),
        cmocka_unit_test(test_a_name_is_resolved),
        cmocka_unit_test(test_a_slow_name_holds_up_no_other),
        cmocka_unit_test(test_a_slow_name_is_asked_once),
    };

    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!name_init(&quick) || !name_init(&slow))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
