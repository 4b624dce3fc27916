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

static sem_t asked, may_answer;

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
            struct addrinfo **found)
{
    static struct sockaddr_in address;
    static struct addrinfo answer = {.ai_family = AF_INET,
                                     .ai_addrlen = sizeof(address),
                                     .ai_addr = (struct sockaddr *)&address};

    (void)service;
    (void)hints;
    sem_post(&asked);
    while (sem_wait(&may_answer) != 0)
        ;
    if (strcmp(name, "h") != 0)
        return EAI_NONAME;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *found = &answer;
    return 0;
}

void
freeaddrinfo(struct addrinfo *all)
{
    (void)all;
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

/* Up to the question for the host's name. */
static void
begin(struct world *w)
{
    struct err e = {.kind = ERR_NONE};

    w->st = load_good(BASE);
    w->hosts = hosts_new();
    w->loop = (struct stream_loop){.base = event_base_new(), .scratch = scratch};
    assert_int_equal(hosts_update(w->hosts, w->st), 0);
    w->health = health_new(&w->loop, w->hosts, w->st, &e);
    assert_non_null(w->health);
    event_base_loop(w->loop.base, EVLOOP_NONBLOCK);
    sem_wait(&asked);
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
    int before = threads();
    struct timespec a_while = {.tv_nsec = 1000000};

    (void)state;
    begin(&w);
    end(&w);
    sem_post(&may_answer);
    while (threads() > before)
        nanosleep(&a_while, NULL);
}

/* Addresses are the loop's to set: none is known before it has turned. */
static void
test_a_name_is_resolved(void **state)
{
    struct world w;
    struct host_addresses found;

    (void)state;
    begin(&w);
    struct host *h = route_host(hosts_route(w.hosts, "x"), 0);
    assert_false(host_addresses(h, &found));
    sem_post(&may_answer);
    while (!host_addresses(h, &found))
        event_base_loop(w.loop.base, EVLOOP_ONCE);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.port, 25);
    end(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_end_waits_for_no_name),
        cmocka_unit_test(test_a_name_is_resolved),
    };

    if (sem_init(&asked, 0, 0) != 0 || sem_init(&may_answer, 0, 0) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
