#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "conf/value.h"
#include "policy/resolver_private.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* A name server of a few lines on loopback, in the loop of the resolver. */

static const struct row {
    const char *name;
    enum dns_type type;
    const char *value; /* NULL: no reply at all */
} rows[] = {
    {"pass.test", DNS_TXT, "v=spf1 ip4:192.0.2.1 -all"},
    {"a.test", DNS_TXT, "v=spf1 a:host.test -all"},
    {"host.test", DNS_A, "192.0.2.1"},
    {"local.test", DNS_TXT, "v=spf1 exists:%{l}.host.test -all"},
    {"me.host.test", DNS_A, "127.0.0.2"},
    {"silent.test", DNS_TXT, NULL},
    {"2.0.0.127.bl.test", DNS_A, "127.0.0.2"},
    {"1.2.0.192.bl.test", DNS_A, "127.0.0.2"},
    {"2.2.0.192.bl.test", DNS_A, "127.0.0.9"},
    {"3.2.0.192.bl.test", DNS_A, "127.255.255.254"},
    {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test", DNS_A, "127.0.0.2"},
    {"2.0.0.127.everybody.test", DNS_A, "127.0.0.2"},
    {"1.0.0.127.everybody.test", DNS_A, "127.0.0.2"},
    {"1.2.0.192.everybody.test", DNS_A, "127.0.0.2"},
    {"1.2.0.192.nobody.test", DNS_A, "127.0.0.2"},
    {"2.0.0.127.late.test", DNS_A, "127.0.0.2"},
    {"1.2.0.192.late.test", DNS_A, NULL},
    {"2.0.0.127.strict.test", DNS_A, "127.0.0.2"},
    {"strict.test", DNS_TXT, "v=spf1 -all"},
};

static const char *gone;       /* a name that is not there for now */
static bool are_points_silent; /* the zones' test points get no answer */
static atomic_uint asked;

struct server {
    int fd;
    struct event *event;
    char address[32];
};

static size_t
name_of(const uint8_t *p, size_t n, char *out)
{
    size_t i = 12, k = 0;

    while (i < n && p[i] != 0) {
        for (size_t j = 1; j <= p[i]; j++)
            out[k++] = (char)p[i + j];
        out[k++] = '.';
        i += p[i] + 1u;
    }
    out[k > 0 ? k - 1 : 0] = '\0';
    return i + 1;
}

/* Put the answer behind the question, which ends at N; returns the new length. */
static size_t
put_answer(uint8_t *p, size_t n, const struct row *row)
{
    uint8_t data[256];
    size_t data_n;

    if (row->type == DNS_A) {
        data_n = 4;
        assert_int_equal(inet_pton(AF_INET, row->value, data), 1);
    } else {
        data_n = strlen(row->value) + 1;
        data[0] = (uint8_t)(data_n - 1);
        memcpy(data + 1, row->value, data_n - 1);
    }
    const uint8_t head[] = {0xc0, 12, 0, (uint8_t)row->type, 0, 1, 0, 0, 1, 0, 0, (uint8_t)data_n};
    memcpy(p + n, head, sizeof head);
    memcpy(p + n + sizeof head, data, data_n);
    return n + sizeof head + data_n;
}

static void
on_query(evutil_socket_t fd, short what, void *arg)
{
    uint8_t p[1024];
    char name[256];
    struct sockaddr_storage from;
    socklen_t from_n = sizeof from;
    ssize_t got = recvfrom(fd, p, 600, 0, (struct sockaddr *)&from, &from_n);
    const struct row *row = NULL;

    (void)what;
    (void)arg;
    if (got < 17)
        return;
    asked++;
    size_t n = name_of(p, (size_t)got, name) + 4;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (strcmp(rows[i].name, name) == 0 && (unsigned)rows[i].type == p[n - 3])
            row = &rows[i];
    if (gone != NULL && strcmp(gone, name) == 0)
        row = NULL;
    if (are_points_silent && strstr(name, ".0.0.127.") != NULL)
        return;
    if (row != NULL && row->value == NULL)
        return;
    p[2] = 0x81;
    p[3] = row != NULL ? 0x80 : 0x83;
    p[7] = row != NULL;
    p[11] = 0;
    if (row != NULL)
        n = put_answer(p, n, row);
    assert_int_equal(sendto(fd, p, n, 0, (struct sockaddr *)&from, from_n), (ssize_t)n);
}

/* PORT 0: any.  False if it cannot be had. */
static bool
server_start(struct server *s, struct event_base *base, const char *ip, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t n = sizeof in;

    assert_int_equal(inet_pton(AF_INET, ip, &in.sin_addr), 1);
    s->fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(s->fd, (struct sockaddr *)&in, n) != 0) {
        close(s->fd);
        return false;
    }
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&in, &n), 0);
    snprintf(s->address, sizeof s->address, "%s:%d", ip, ntohs(in.sin_port));
    s->event = event_new(base, s->fd, EV_READ | EV_PERSIST, on_query, NULL);
    assert_int_equal(event_add(s->event, NULL), 0);
    return true;
}

static void
server_stop(struct server *s)
{
    event_free(s->event);
    close(s->fd);
}

/* Everything on one loop. */

static struct fixture {
    struct event_base *base;
    struct server server;
    struct settings st;
    struct resolver *resolver;
    struct resolver_client *client;
    struct event *arrival;
} f;

static struct network self_network = {{4, {192, 0, 2, 1}}, 32};

static void
on_client(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    resolver_client_dispatch(f.client, clock_ms());
}

static int
setup(void **state)
{
    struct err e;
    (void)state;

    memset(&f, 0, sizeof f);
    f.base = event_base_new();
    assert_true(server_start(&f.server, f.base, "127.0.0.1", 0));
    f.st.dns.nameserver = f.server.address;
    f.st.dns.timeout = 20000;
    f.resolver = resolver_new(f.base, &f.st, &e);
    assert_non_null(f.resolver);
    f.client = resolver_client_new(f.resolver);
    assert_non_null(f.client);
    f.arrival =
        event_new(f.base, resolver_client_fd(f.client), EV_READ | EV_PERSIST, on_client, NULL);
    event_add(f.arrival, NULL);
    asked = 0;
    gone = NULL;
    are_points_silent = false;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;

    event_free(f.arrival);
    resolver_client_free(&f.client);
    resolver_free(&f.resolver);
    server_stop(&f.server);
    event_base_free(f.base);
    zone_list_clear(&f.st.dnsbl.null_sender);
    zone_list_clear(&f.st.dnsbl.any_sender);
    return 0;
}

struct result {
    unsigned calls;
    struct resolver_answer answer;
};

static void
on_done(void *arg, const struct resolver_answer *answer)
{
    struct result *r = arg;

    r->calls++;
    r->answer = *answer;
}

/* Until R is there, waiting no longer than the client asks for. */
static void
wait_for(const struct result *r)
{
    while (r->calls == 0) {
        int64_t left_ms = resolver_client_next_ms(f.client) - clock_ms();
        struct timeval t = {.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 + 999};
        if (left_ms >= 0) {
            event_base_loopexit(f.base, &t);
            event_base_loop(f.base, EVLOOP_ONCE);
        }
        resolver_client_dispatch(f.client, clock_ms());
    }
    assert_int_equal(r->calls, 1);
}

static uint64_t
ask_spf(const char *client, const char *helo, const char *sender, struct result *r)
{
    struct netaddr a;

    memset(r, 0, sizeof *r);
    assert_true(netaddr_parse(span_str(client), &a));
    uint64_t ticket = resolver_ask_spf(f.client, &f.st, &a, span_str(helo), span_str(sender),
                                       clock_ms(), on_done, r);
    assert_int_not_equal(ticket, 0);
    assert_int_equal(r->calls, 0);
    return ticket;
}

static enum spf_result
spf(const char *client, const char *helo, const char *sender)
{
    struct result r;

    ask_spf(client, helo, sender, &r);
    wait_for(&r);
    return r.answer.spf;
}

static const char *
dnsbl(const char *client, unsigned lists)
{
    static struct result r;
    struct netaddr a;

    memset(&r, 0, sizeof r);
    assert_true(netaddr_parse(span_str(client), &a));
    assert_int_not_equal(resolver_ask_dnsbl(f.client, &f.st, &a, lists, clock_ms(), on_done, &r),
                         0);
    wait_for(&r);
    return r.answer.is_listed ? r.answer.zone : "";
}

static void
test_spf_results(void **state)
{
    (void)state;

    assert_int_equal(spf("192.0.2.1", "h.test", "x@pass.test"), SPF_PASS);
    assert_int_equal(spf("192.0.2.9", "h.test", "x@pass.test"), SPF_FAIL);
    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
    assert_int_equal(spf("192.0.2.1", "a.test", ""), SPF_PASS);
    assert_int_equal(spf("192.0.2.1", "h.test", "x@nowhere.test"), SPF_NONE);
    assert_int_equal(spf("192.0.2.1", "h.test", "x@local"), SPF_NONE);
}

static void
test_cache(void **state)
{
    (void)state;

    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
    assert_int_equal(asked, 2);
    assert_int_equal(spf("192.0.2.1", "other.test", "y@A.test"), SPF_PASS);
    assert_int_equal(spf("192.0.2.1", "a.test", ""), SPF_PASS);
    assert_int_equal(asked, 2);
    assert_int_equal(spf("192.0.2.2", "h.test", "x@a.test"), SPF_FAIL);
    assert_int_equal(asked, 4);
    /* What depends on the sender is asked for each. */
    assert_int_equal(spf("192.0.2.1", "h.test", "me@local.test"), SPF_PASS);
    assert_int_equal(spf("192.0.2.1", "h.test", "you@local.test"), SPF_FAIL);
    assert_int_equal(asked, 8);
    /* A reload forgets. */
    assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
    assert_int_equal(asked, 10);
}

static void
test_shared(void **state)
{
    struct result r[5];
    (void)state;

    for (size_t i = 0; i < COUNT(r); i++)
        ask_spf("192.0.2.1", "h.test", "x@a.test", &r[i]);
    for (size_t i = 0; i < COUNT(r); i++) {
        wait_for(&r[i]);
        assert_int_equal(r[i].answer.spf, SPF_PASS);
    }
    assert_int_equal(asked, 2);
}

/* A reload while a question is under way: the old server may still answer. */
static void
test_reload_under_way(void **state)
{
    struct result r;
    (void)state;

    ask_spf("192.0.2.1", "h.test", "x@a.test", &r);
    while (asked == 0)
        event_base_loop(f.base, EVLOOP_ONCE);
    assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    wait_for(&r);
    assert_int_equal(r.answer.spf, SPF_PASS);
    /* Several, as one that is rejected counts for two. */
    ask_spf("192.0.2.2", "h.test", "x@a.test", &r);
    for (asked = 0; asked == 0;)
        event_base_loop(f.base, EVLOOP_ONCE);
    for (int i = 0; i < 3; i++)
        assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    wait_for(&r);
    assert_int_equal(r.answer.spf, SPF_FAIL);
    /* Those that are idle do not add up. */
    for (int i = 0; i < 3; i++)
        assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    assert_null(SLIST_NEXT(SLIST_FIRST(&f.resolver->retired), link));
}

static void
test_deadline(void **state)
{
    struct result r;
    (void)state;

    f.st.dns.timeout = 150;
    assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    assert_int_equal(spf("192.0.2.1", "h.test", "x@silent.test"), SPF_TEMPERROR);
    /* The asker's alone, with a resolver that does not get to run. */
    ask_spf("192.0.2.1", "h.test", "x@a.test", &r);
    int64_t deadline_ms = resolver_client_next_ms(f.client);
    resolver_client_dispatch(f.client, deadline_ms - 1);
    assert_int_equal(r.calls, 0);
    resolver_client_dispatch(f.client, deadline_ms);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.answer.spf, SPF_TEMPERROR);
    assert_true(resolver_client_next_ms(f.client) == INT64_MAX);
    /* Its late answer is a miss, and of use to the next. */
    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
    assert_int_equal(r.calls, 1);
}

static void
test_cancel(void **state)
{
    struct result first, second;
    (void)state;

    uint64_t ticket = ask_spf("192.0.2.1", "h.test", "x@a.test", &first);
    ask_spf("192.0.2.1", "h.test", "x@a.test", &second);
    resolver_cancel(f.client, ticket);
    wait_for(&second);
    assert_int_equal(first.calls, 0);
    resolver_cancel(f.client, ticket);
    /* The end of a client with a question under way. */
    ask_spf("192.0.2.7", "h.test", "x@a.test", &first);
    event_base_loop(f.base, EVLOOP_ONCE);
}

static void
set_zones(const char *null_sender, const char *any_sender)
{
    struct err e = {0};

    zone_list_clear(&f.st.dnsbl.null_sender);
    zone_list_clear(&f.st.dnsbl.any_sender);
    assert_null(value_zones(null_sender, &f.st.dnsbl.null_sender));
    assert_null(value_zones(any_sender, &f.st.dnsbl.any_sender));
    assert_int_equal(resolver_reload(f.resolver, &f.st, &e), 0);
}

/* A flood of them is answered at once. */
static void
test_too_many(void **state)
{
    enum { LOOKUPS = 2000, WAITING = 20000 };
    static struct result r[WAITING + 1];
    size_t known = 0;
    (void)state;

    for (size_t i = 0; i < LOOKUPS + 1; i++) {
        char sender[32];
        snprintf(sender, sizeof sender, "x%zu@silent.test", i);
        ask_spf("192.0.2.1", "h.test", sender, &r[i]);
    }
    wait_for(&r[LOOKUPS]);
    assert_int_equal(r[LOOKUPS].answer.spf, SPF_TEMPERROR);
    for (size_t i = LOOKUPS; i < WAITING; i++)
        ask_spf("192.0.2.1", "h.test", "x0@silent.test", &r[i]);
    ask_spf("192.0.2.1", "h.test", "x0@silent.test", &r[WAITING]);
    wait_for(&r[WAITING]);
    for (size_t i = 0; i < WAITING; i++)
        known += r[i].calls;
    assert_int_equal(known, 0);
}

static void
test_dnsbl(void **state)
{
    enum { N = DNSBL_NULL_SENDER, A = DNSBL_ANY_SENDER };
    const char *fault;
    (void)state;

    set_zones("bl.test, everybody.test, nobody.test", "bl.test=127.0.0.[2..4]");
    /* Asked at once, it waits for the zones' tests. */
    assert_string_equal(dnsbl("192.0.2.1", N), "bl.test");
    assert_string_equal(dnsbl("192.0.2.1", A), "bl.test");
    assert_string_equal(dnsbl("192.0.2.2", N), "bl.test");
    assert_string_equal(dnsbl("192.0.2.2", A), "");
    assert_string_equal(dnsbl("192.0.2.2", N | A), "bl.test");
    assert_string_equal(dnsbl("192.0.2.3", N | A), "");
    assert_string_equal(dnsbl("192.0.2.4", N | A), "");
    assert_string_equal(dnsbl("2001:db8::1", A), "bl.test");
    assert_string_equal(dnsbl("2001:db8::2", A), "");
    unsigned before = asked;
    assert_string_equal(dnsbl("192.0.2.1", N), "bl.test");
    assert_string_equal(dnsbl("192.0.2.4", A), "");
    assert_int_equal(asked, before);

    assert_string_equal(resolver_zone(f.resolver, 0, &fault), "bl.test");
    assert_null(fault);
    assert_string_equal(resolver_zone(f.resolver, 1, &fault), "everybody.test");
    assert_string_equal(fault, "lists its test point 127.0.0.1, so everybody");
    assert_string_equal(resolver_zone(f.resolver, 2, &fault), "nobody.test");
    assert_string_equal(fault, "does not list its test point 127.0.0.2");
    assert_null(resolver_zone(f.resolver, 3, &fault));

    /* Zones that fail their tests list nobody. */
    set_zones("everybody.test, nobody.test", "");
    assert_string_equal(dnsbl("192.0.2.1", N | A), "");
    set_zones("", "");
    assert_string_equal(dnsbl("192.0.2.1", N | A), "");
}

/* A zone that was up is asked while a reload's test of it is under way. */
static void
test_dnsbl_reload(void **state)
{
    (void)state;

    f.st.dns.timeout = 3000;
    set_zones("bl.test", "");
    assert_string_equal(dnsbl("192.0.2.2", DNSBL_NULL_SENDER), "bl.test");
    are_points_silent = true;
    set_zones("bl.test, nobody.test", "");
    assert_string_equal(dnsbl("192.0.2.1", DNSBL_NULL_SENDER), "bl.test");
}

/* A zone that stays silent is no listing, and not waited for again. */
static void
test_dnsbl_deadline(void **state)
{
    (void)state;

    f.st.dns.timeout = 150;
    set_zones("late.test", "");
    assert_string_equal(dnsbl("192.0.2.9", DNSBL_NULL_SENDER), "");
    assert_string_equal(dnsbl("192.0.2.1", DNSBL_NULL_SENDER), "");
    while (event_base_loop(f.base, EVLOOP_NONBLOCK) == 0 && asked == 0)
        continue;
    unsigned before = asked;
    assert_string_equal(dnsbl("192.0.2.1", DNSBL_NULL_SENDER), "");
    assert_int_equal(asked, before);
}

/* What SPF said of a sender whose domain is a zone's name is no answer of the zone, nor the other
 * way round. */
static void
test_sender_of_a_zones_name(void **state)
{
    enum { N = DNSBL_NULL_SENDER };
    (void)state;

    set_zones("bl.test, strict.test", "");
    assert_int_equal(spf("192.0.2.1", "h.test", "x@bl.test"), SPF_NONE);
    assert_string_equal(dnsbl("192.0.2.1", N), "bl.test");
    assert_int_equal(spf("192.0.2.77", "h.test", "x@strict.test"), SPF_FAIL);
    assert_string_equal(dnsbl("192.0.2.77", N), "");
    assert_string_equal(dnsbl("192.0.2.78", N), "");
    assert_int_equal(spf("192.0.2.78", "h.test", "x@strict.test"), SPF_FAIL);
}

/* What is logged, which goes to stderr while no log is open. */
static struct {
    FILE *file;
    int old;
    char text[4096];
} heard;

static void
listen_to_log(void)
{
    heard.file = tmpfile();
    heard.old = dup(STDERR_FILENO);
    assert_non_null(heard.file);
    fflush(stderr);
    dup2(fileno(heard.file), STDERR_FILENO);
}

static const char *
log_heard(void)
{
    fflush(stderr);
    dup2(heard.old, STDERR_FILENO);
    close(heard.old);
    rewind(heard.file);
    heard.text[fread(heard.text, 1, sizeof heard.text - 1, heard.file)] = '\0';
    fclose(heard.file);
    return heard.text;
}

static void
test_warnings(void **state)
{
    (void)state;

    listen_to_log();
    f.st.dnsbl.self = (struct network_list){&self_network, 1};
    set_zones("bl.test, everybody.test, nobody.test", "");
    assert_string_equal(dnsbl("192.0.2.1", DNSBL_NULL_SENDER), "bl.test");
    assert_string_equal(dnsbl("192.0.2.77", DNSBL_NULL_SENDER), "");
    const char *text = log_heard();
    assert_non_null(strstr(text, "event=dnsbl state=down host=everybody.test error=\"lists "));
    assert_non_null(strstr(text, "event=dnsbl state=down host=nobody.test error=\"does not "));
    assert_non_null(
        strstr(text, "event=dnsbl state=degraded host=bl.test client=192.0.2.1 error="));
    assert_null(strstr(text, "state=down host=bl.test"));
}

/* A tick at NOW_MS, and what it asks for is answered: what it logs. */
static const char *
tick(int64_t now_ms)
{
    listen_to_log();
    resolver_zones_tick(f.resolver, now_ms);
    while (f.resolver->zones[0].open > 0 || f.resolver->n_lookups > 0)
        event_base_loop(f.base, EVLOOP_ONCE);
    return log_heard();
}

/* A zone that is down is tested each minute, one that is up every ten. */
static void
test_zone_comes_and_goes(void **state)
{
    enum { N = DNSBL_NULL_SENDER };
    static const char down[] = "event=dnsbl state=down host=bl.test error=",
                      up[] = "event=dnsbl state=up host=bl.test\n";
    int64_t now_ms = clock_ms();
    (void)state;

    gone = "2.0.0.127.bl.test";
    listen_to_log();
    set_zones("bl.test", "");
    assert_string_equal(dnsbl("192.0.2.1", N), "");
    assert_non_null(strstr(log_heard(), down));
    assert_string_equal(tick(now_ms + 60000), ""); /* told once */
    gone = NULL;
    assert_non_null(strstr(tick(now_ms + 120000), up));
    assert_string_equal(dnsbl("192.0.2.1", N), "bl.test");
    gone = "2.0.0.127.bl.test";
    now_ms = f.resolver->zones[0].tested_ms;
    assert_string_equal(tick(now_ms + 599999), "");
    assert_string_equal(dnsbl("192.0.2.2", N), "bl.test");
    assert_non_null(strstr(tick(now_ms + 600000), down));
    assert_string_equal(dnsbl("192.0.2.1", N), "");
    /* What made it fail is set right by a reload. */
    gone = NULL;
    listen_to_log();
    set_zones("bl.test", "");
    assert_string_equal(dnsbl("192.0.2.1", N), "bl.test");
    assert_non_null(strstr(log_heard(), up));
}

/* Our own address is looked up each hour. */
static void
test_self_each_hour(void **state)
{
    static const char listed[] = "event=dnsbl state=degraded host=bl.test client=192.0.2.1 error=";
    (void)state;

    gone = "1.2.0.192.bl.test";
    f.st.dnsbl.self = (struct network_list){&self_network, 1};
    listen_to_log();
    set_zones("bl.test", "");
    assert_string_equal(dnsbl("192.0.2.9", DNSBL_NULL_SENDER), "");
    assert_null(strstr(log_heard(), listed));
    gone = NULL;
    int64_t due_ms = f.resolver->self_due_ms;
    assert_int_equal(due_ms, f.resolver->zones[0].tested_ms + 3600000);
    f.resolver->zones[0].tested_ms = due_ms;
    /* What was answered lately is remembered: another key, as a reload has. */
    f.resolver->key = siphash_key_random();
    assert_string_equal(tick(due_ms - 1), "");
    assert_non_null(strstr(tick(due_ms), listed));
    assert_string_equal(tick(due_ms + 3599999), "");
    f.resolver->zones[0].tested_ms = due_ms + 3600000;
    assert_non_null(strstr(tick(due_ms + 3600000), listed));
}

/* The servers of the system, for the resolver of the test. */

static char resolv_conf[64];

static int
setup_system(void **state)
{
    int result = setup(state);

    snprintf(resolv_conf, sizeof resolv_conf, "/tmp/postern-test-XXXXXX");
    int fd = mkstemp(resolv_conf);
    assert_true(fd >= 0);
    close(fd);
    unlink(resolv_conf);
    f.resolver->resolv_conf = resolv_conf;
    f.st.dns.nameserver = NULL;
    assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    return result;
}

static int
teardown_system(void **state)
{
    unlink(resolv_conf);
    return teardown(state);
}

static void
write_resolv_conf(const char *text)
{
    FILE *out = fopen(resolv_conf, "w");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* Does the next tick take up other servers? */
static bool
has_other_servers(void)
{
    const struct dns_channel *before = f.resolver->channel;

    resolver_tick(f.resolver, clock_ms());
    return f.resolver->channel != before;
}

static void
test_system_changes(void **state)
{
    (void)state;

    assert_false(has_other_servers());
    write_resolv_conf("nameserver 127.0.0.2\n");
    assert_true(has_other_servers());
    assert_false(has_other_servers());
    /* It is written anew. */
    write_resolv_conf("");
    assert_false(has_other_servers());
    write_resolv_conf("nameserver 127.0.0.33\n");
    assert_true(has_other_servers());
    unlink(resolv_conf);
    assert_false(has_other_servers());
    write_resolv_conf("nameserver 127.0.0.4\nnameserver 127.0.0.5\n");
    assert_true(has_other_servers());
    /* Who has a server of his own does not care. */
    f.st.dns.nameserver = f.server.address;
    assert_int_equal(resolver_reload(f.resolver, &f.st, NULL), 0);
    write_resolv_conf("nameserver 127.0.0.200\n");
    assert_false(has_other_servers());
    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
}

/* A start before the file is there: zones that are down are up with its first tick, and questions
 * are answered. */
static void
test_system_comes_late(void **state)
{
    struct server server;
    (void)state;

    if (!server_start(&server, f.base, "127.77.0.1", 53))
        skip(); /* no right to that port */
    f.st.dns.timeout = 150;
    set_zones("bl.test", "");
    while (f.resolver->zones[0].open > 0)
        event_base_loop(f.base, EVLOOP_ONCE);
    assert_string_equal(dnsbl("192.0.2.1", DNSBL_NULL_SENDER), "");
    f.resolver->timeout_ms = f.st.dns.timeout = 20000;
    write_resolv_conf("nameserver 127.77.0.1\n");
    resolver_tick(f.resolver, clock_ms());
    while (f.resolver->zones[0].open > 0)
        event_base_loop(f.base, EVLOOP_ONCE);
    assert_string_equal(dnsbl("192.0.2.1", DNSBL_NULL_SENDER), "bl.test");
    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
    server_stop(&server);
}

static void
test_bad_settings(void **state)
{
    static char bad_server[] = "not an address", bad_zone[] = "bad..zone";
    struct zone_entry entry = {.name = bad_zone};
    struct err e = {0};
    (void)state;

    f.st.dns.nameserver = bad_server;
    assert_int_equal(resolver_reload(f.resolver, &f.st, &e), -1);
    assert_non_null(strstr(e.text, "not an address"));
    assert_null(resolver_new(f.base, &f.st, &e));
    f.st.dns.nameserver = f.server.address;
    f.st.dnsbl.any_sender = (struct zone_list){&entry, 1};
    assert_int_equal(resolver_reload(f.resolver, &f.st, &e), -1);
    f.st.dnsbl.any_sender = (struct zone_list){NULL, 0};
    /* All stays as it was. */
    assert_int_equal(spf("192.0.2.1", "h.test", "x@a.test"), SPF_PASS);
}

/* Four threads ask one. */

static atomic_bool is_over;

static void
on_check(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    if (is_over)
        event_base_loopbreak(arg);
}

static void *
run_resolver(void *arg)
{
    static const struct timeval often = {.tv_usec = 1000};
    struct event *check = event_new(f.base, -1, EV_PERSIST, on_check, f.base);

    event_add(check, &often);
    event_base_dispatch(f.base);
    event_free(check);
    return arg;
}

static void *
run_asker(void *arg)
{
    struct resolver_client *c = resolver_client_new(f.resolver);
    struct result results[100];
    struct netaddr a = {.family = 4, .octets = {192, 0, 2, 1}};
    struct pollfd p = {.fd = resolver_client_fd(c), .events = POLLIN};
    size_t passed = 0;

    memset(results, 0, sizeof results);
    for (size_t i = 0; i < COUNT(results); i++) {
        a.octets[3] = (uint8_t)(i % 3);
        resolver_ask_spf(c, &f.st, &a, span_str("h.test"), span_str("x@a.test"), clock_ms(),
                         on_done, &results[i]);
    }
    while (resolver_client_next_ms(c) != INT64_MAX) {
        poll(&p, 1, 100);
        resolver_client_dispatch(c, clock_ms());
    }
    for (size_t i = 0; i < COUNT(results); i++)
        passed +=
            results[i].calls == 1 && results[i].answer.spf == (i % 3 == 1 ? SPF_PASS : SPF_FAIL);
    /* And leave with questions open. */
    for (size_t i = 0; i < COUNT(results); i++)
        resolver_ask_spf(c, &f.st, &a, span_str("h.test"), span_str("x@local.test"), clock_ms(),
                         on_done, &results[i]);
    resolver_client_free(&c);
    *(size_t *)arg = passed;
    return NULL;
}

static void
test_threads(void **state)
{
    pthread_t resolver, askers[4];
    size_t passed[4];
    (void)state;

    is_over = false;
    assert_int_equal(pthread_create(&resolver, NULL, run_resolver, NULL), 0);
    for (size_t i = 0; i < COUNT(askers); i++)
        assert_int_equal(pthread_create(&askers[i], NULL, run_asker, &passed[i]), 0);
    for (size_t i = 0; i < COUNT(askers); i++)
        pthread_join(askers[i], NULL);
    is_over = true;
    pthread_join(resolver, NULL);
    for (size_t i = 0; i < COUNT(askers); i++)
        assert_int_equal(passed[i], 100);
}

#define RESOLVER_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
#define SYSTEM_TEST(function)                                                                      \
    cmocka_unit_test_setup_teardown(function, setup_system, teardown_system)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RESOLVER_TEST(test_spf_results),
        RESOLVER_TEST(test_cache),
        RESOLVER_TEST(test_shared),
        RESOLVER_TEST(test_reload_under_way),
        RESOLVER_TEST(test_deadline),
        RESOLVER_TEST(test_cancel),
        RESOLVER_TEST(test_dnsbl),
        RESOLVER_TEST(test_dnsbl_reload),
        RESOLVER_TEST(test_dnsbl_deadline),
        RESOLVER_TEST(test_sender_of_a_zones_name),
        RESOLVER_TEST(test_warnings),
        SYSTEM_TEST(test_system_changes),
        SYSTEM_TEST(test_system_comes_late),
        RESOLVER_TEST(test_bad_settings),
        RESOLVER_TEST(test_threads),
        RESOLVER_TEST(test_too_many),
        RESOLVER_TEST(test_zone_comes_and_goes),
        RESOLVER_TEST(test_self_each_hour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
