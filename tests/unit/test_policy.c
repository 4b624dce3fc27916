#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/settings.h"
#include "policy/policy.h"

#define SECOND ((int64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* 2026-11-24T16:00:00Z at START on the monotonic clock. */
#define START  (1000 * SECOND)
#define WALL_S ((int64_t)1795536000)

static struct settings settings;
static struct policy *policy;
static int64_t now;

/* Lines of the log go to stderr while none is opened: catch them. */
static int log_fd = -1, stderr_fd = -1;

static int
set_up(void **state)
{
    static struct network allow[2];
    struct err e;
    (void)state;

    memset(&settings, 0, sizeof settings);
    settings.harvest.enabled = true;
    settings.harvest.message_threshold = 2;
    settings.harvest.threshold = 10;
    settings.harvest.threshold_wide = 50;
    settings.harvest.ratio = 0.5;
    settings.harvest.window = HOUR;
    settings.harvest.action = SETTINGS_ACTION_BLOCK;
    settings.harvest.block_time = HOUR;
    settings.harvest.block_time_max = 6 * HOUR;
    settings.harvest.trusted_recipients = 10;
    settings.harvest.tarpit = 5 * SECOND;
    settings.harvest.tarpit_max = 30 * SECOND;
    settings.harvest.prefix4 = 32;
    settings.harvest.prefix6 = 64;
    assert_true(network_parse(span_str("127.0.0.0/8"), &allow[0]));
    assert_true(network_parse(span_str("198.51.100.9"), &allow[1]));
    settings.harvest.allow = (struct network_list){allow, 2};
    now = START;
    log_fd = memfd_create("log", 0);
    (void)fflush(stderr);
    stderr_fd = dup(2);
    (void)dup2(log_fd, 2);
    policy = policy_new(&settings, now, WALL_S, &e);
    assert_non_null(policy);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    policy_free(&policy, &settings, now, WALL_S);
    assert_null(policy);
    (void)fflush(stderr);
    (void)dup2(stderr_fd, 2);
    (void)close(stderr_fd);
    (void)close(log_fd);
    return 0;
}

/* The events since the last call, one a line. */
static const char *
logged(void)
{
    static char text[8192];
    static char line[8192];
    ssize_t n = pread(log_fd, text, sizeof text - 1, 0);
    char *from = text, *out = line;

    assert_true(n >= 0);
    text[n] = '\0';
    assert_int_equal(ftruncate(log_fd, 0), 0);
    (void)lseek(log_fd, 0, SEEK_SET);
    line[0] = '\0';
    while ((from = strstr(from, "event=")) != NULL) {
        size_t length = strcspn(from, "\n");
        memcpy(out, from, length);
        out += length;
        *out++ = '\n';
        *out = '\0';
        from += length;
    }
    return line;
}

static struct policy_session
session_of(const char *address)
{
    struct policy_session s;
    struct netaddr a;

    assert_true(netaddr_parse(span_str(address), &a));
    policy_session_begin(&s, &settings, &a, false);
    return s;
}

static struct policy_transaction transaction;

static struct policy_harvest
ask(struct policy_session *s, int number, bool is_null)
{
    char address[64];

    (void)snprintf(address, sizeof address, "user%d@example.com", number);
    return policy_unknown(policy, &settings, s, &transaction, span_str(address), is_null, now);
}

static void
serve(const struct policy_session *s, int first, int n)
{
    for (int i = first; i < first + n; i++) {
        char address[64];
        struct span span;
        (void)snprintf(address, sizeof address, "known%d@example.com", i);
        span = span_str(address);
        policy_served(policy, &settings, &s->client, &span, 1, now);
    }
}

static enum policy_standing
check(const char *address)
{
    struct policy_session s = session_of(address);

    return policy_session_check(policy, &settings, &s, now);
}

static void
tick_to(int64_t then)
{
    now = then;
    policy_tick(policy, &settings, now, WALL_S + (now - START) / 1000);
}

/* N unknown recipients, numbered from FIRST: nothing begins. */
static void
ask_in_peace(struct policy_session *s, int first, int n)
{
    for (int i = first; i < first + n; i++)
        assert_int_equal(ask(s, i, false).action, POLICY_ACTION_NONE);
}

static void
test_block(void **state)
{
    struct policy_session s = session_of("192.0.2.1"), other = session_of("192.0.2.1");
    struct policy_harvest h;
    (void)state;

    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    ask_in_peace(&s, 0, 9);
    for (int i = 0; i < 20; i++) /* the same again is nothing new */
        assert_int_equal(ask(&s, i % 9, false).count, 9);
    h = ask(&s, 9, false);
    assert_int_equal(h.action, POLICY_ACTION_BLOCK);
    assert_int_equal(h.count, 10);
    assert_true(h.ratio == 1.0);
    assert_int_equal(h.until_s, WALL_S + 3600);
    assert_int_equal(h.delay_ms, 0);
    assert_string_equal(logged(),
                        "event=harvest client=192.0.2.1 count=10 ratio=1.00 action=block "
                        "until=2026-11-24T17:00:00Z\n"
                        "event=block client=192.0.2.1 until=2026-11-24T17:00:00Z by=harvest\n");

    /* Its other sessions, at their next MAIL; new ones, at the greeting; nobody else. */
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("192.0.2.2"), POLICY_STANDING_OK);
    /* In an open transaction of another session: the same action, which is not new. */
    h = ask(&other, 10, false);
    assert_int_equal(h.action, POLICY_ACTION_BLOCK);
    assert_string_equal(logged(), "");

    tick_to(START + HOUR - SECOND);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
    assert_int_equal(policy_counts(policy).blocks, 1);
    tick_to(START + HOUR);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_OK);
    assert_int_equal(policy_counts(policy).blocks, 0);
    assert_string_equal(logged(),
                        "event=unblock client=192.0.2.1 until=2026-11-24T17:00:00Z by=expiry\n");
}

static void
test_block_doubles_and_is_forgotten(void **state)
{
    static const int hours[] = {1, 2, 4, 6, 6};
    int64_t until = 0;
    (void)state;

    for (size_t i = 0; i < sizeof hours / sizeof hours[0]; i++) {
        struct policy_session s = session_of("192.0.2.1");
        struct policy_harvest h;
        ask_in_peace(&s, 0, 9);
        h = ask(&s, 9, false);
        assert_int_equal(h.until_s, WALL_S + (now - START) / 1000 + hours[i] * 3600);
        until = now + hours[i] * HOUR;
        tick_to(until + HOUR);
    }
    /* A week after the end of the last one it begins anew. */
    tick_to(until + 7 * DAY);
    struct policy_session s = session_of("192.0.2.1");
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).until_s, WALL_S + (now - START) / 1000 + 3600);
}

static void
test_window_slides(void **state)
{
    struct policy_session s = session_of("192.0.2.1");
    (void)state;

    /* Nine an hour, for a day. */
    for (int i = 0; i < 9 * 24; i++) {
        ask_in_peace(&s, i, 1);
        tick_to(now + HOUR / 9);
    }
    settings.harvest.threshold = 9;
    assert_int_equal(ask(&s, 1000, false).action, POLICY_ACTION_BLOCK);
}

static void
test_ratio(void **state)
{
    struct policy_session s = session_of("192.0.2.1");
    struct policy_harvest h;
    (void)state;

    settings.harvest.trusted_recipients = 0;
    serve(&s, 0, 11);
    serve(&s, 0, 11); /* distinct ones count */
    ask_in_peace(&s, 0, 10);
    h = ask(&s, 10, false); /* 11 of 22 */
    assert_int_equal(h.action, POLICY_ACTION_BLOCK);
    assert_true(h.ratio == 0.5);

    /* What was served before the window does not count. */
    s = session_of("192.0.2.7");
    serve(&s, 0, 100);
    now += HOUR;
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);

    /* Of tenths none is a double, and yet 3 of 10 are 0.3. */
    for (int tenths = 1; tenths <= 10; tenths++) {
        char client[32];
        (void)snprintf(client, sizeof client, "198.18.%d.1", tenths);
        settings.harvest.ratio = strtod((const char *[]){"0.1", "0.2", "0.3", "0.4", "0.5", "0.6",
                                                         "0.7", "0.8", "0.9", "1"}[tenths - 1],
                                        NULL);
        settings.harvest.threshold = tenths;
        s = session_of(client);
        serve(&s, 0, 10 - tenths);
        ask_in_peace(&s, 0, tenths - 1);
        assert_int_equal(ask(&s, tenths - 1, false).action, POLICY_ACTION_BLOCK);
    }
    settings.harvest.threshold = 10;

    /* 0: any. */
    settings.harvest.ratio = 0;
    s = session_of("192.0.2.8");
    serve(&s, 0, 1000);
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);
}

static void
test_reject_lasts_for_the_session(void **state)
{
    struct policy_session s = session_of("192.0.2.1"), other;
    struct policy_harvest h;
    (void)state;

    settings.harvest.action = SETTINGS_ACTION_REJECT;
    ask_in_peace(&s, 0, 9);
    h = ask(&s, 9, false);
    assert_int_equal(h.action, POLICY_ACTION_REJECT);
    assert_int_equal(h.until_s, 0);
    assert_int_equal(h.delay_ms, 30000);
    assert_string_equal(logged(), "event=harvest client=192.0.2.1 count=10 ratio=1.00 "
                                  "action=reject until=session\n");
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_REJECT);
    assert_int_equal(policy_session_state(&s, true), POLICY_ACTION_REJECT);
    assert_int_equal(policy_session_check(policy, &settings, &s, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_REJECT);
    assert_int_equal(policy_counts(policy).blocks, 0);

    /* Its next session is welcome, until its first unknown recipient. */
    other = session_of("192.0.2.1");
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&other, false), POLICY_ACTION_NONE);
    assert_int_equal(ask(&other, 3, false).action, POLICY_ACTION_REJECT);
}

static void
test_blind(void **state)
{
    struct policy_session s = session_of("192.0.2.1"), other;
    struct policy_harvest h;
    (void)state;

    settings.harvest.action = SETTINGS_ACTION_BLIND;
    ask_in_peace(&s, 0, 9);
    h = ask(&s, 9, false);
    assert_int_equal(h.action, POLICY_ACTION_BLIND);
    assert_int_equal(h.until_s, WALL_S + 3600);
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_BLIND);
    other = session_of("192.0.2.1");
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&other, false), POLICY_ACTION_BLIND);
    /* One delay for all. */
    assert_int_equal(policy_blind_ms(&settings, &s), 5000);
    assert_int_equal(policy_blind_ms(&settings, &other), 5000);
    tick_to(START + HOUR);
    assert_int_equal(policy_session_check(policy, &settings, &s, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_NONE);
}

static void
test_null_sender_is_counted_apart(void **state)
{
    struct policy_session s = session_of("192.0.2.1"), other;
    struct policy_harvest h;
    (void)state;

    for (int i = 0; i < 9; i++)
        assert_int_equal(ask(&s, i, true).action, POLICY_ACTION_NONE);
    ask_in_peace(&s, 100, 9);
    h = ask(&s, 9, true);
    assert_int_equal(h.action, POLICY_ACTION_BLIND);
    assert_int_equal(h.count, 10);
    assert_string_equal(
        logged(), "event=harvest client=192.0.2.1 count=10 ratio=1.00 action=blind "
                  "until=2026-11-24T17:00:00Z from=<>\n"
                  "event=block client=192.0.2.1 until=2026-11-24T17:00:00Z by=harvest from=<>\n");
    assert_int_equal(policy_session_state(&s, true), POLICY_ACTION_BLIND);
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_NONE);
    other = session_of("192.0.2.1");
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&other, true), POLICY_ACTION_BLIND);
    assert_int_equal(policy_session_state(&other, false), POLICY_ACTION_NONE);
    tick_to(START + HOUR);
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&other, true), POLICY_ACTION_NONE);

    /* Where the action lasts for the session, so does this. */
    settings.harvest.action = SETTINGS_ACTION_DISCONNECT;
    s = session_of("192.0.2.9");
    for (int i = 0; i < 9; i++)
        assert_int_equal(ask(&s, i, true).action, POLICY_ACTION_NONE);
    assert_int_equal(ask(&s, 9, true).action, POLICY_ACTION_BLIND);
    assert_int_equal(policy_session_check(policy, &settings, &s, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&s, true), POLICY_ACTION_BLIND);
    other = session_of("192.0.2.9");
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&other, true), POLICY_ACTION_NONE);
}

static void
test_trap(void **state)
{
    static char trap[] = "Trap@example.com";
    char *traps[] = {trap};
    struct policy_session s = session_of("192.0.2.1");
    struct policy_harvest h;
    (void)state;

    settings.harvest.traps.v = traps;
    settings.harvest.traps.n = 1;
    settings.harvest.trusted_recipients = 0;
    serve(&s, 0, 1000);
    h = policy_unknown(policy, &settings, &s, &transaction, span_str("trap@example.com"), false,
                       now);
    assert_int_equal(h.action, POLICY_ACTION_BLOCK);
    assert_int_equal(h.count, 1);
    assert_non_null(strstr(logged(), "event=block client=192.0.2.1 until=2026-11-24T17:00:00Z "
                                     "by=trap\n"));
    /* The neighbours are no harvesters by it. */
    assert_int_equal(check("192.0.2.2"), POLICY_STANDING_OK);
}

static void
test_wide_network(void **state)
{
    struct policy_session trusted = session_of("192.0.2.200");
    struct policy_harvest h = {0};
    (void)state;

    serve(&trusted, 0, 10);
    for (int client = 0; client < 11; client++) {
        char address[32];
        struct policy_session s;
        (void)snprintf(address, sizeof address, "192.0.2.%d", client);
        s = session_of(address);
        for (int i = 0; i < 5; i++) {
            assert_int_equal(h.action, POLICY_ACTION_NONE);
            h = ask(&s, client * 5 + i, false);
            if (h.action != POLICY_ACTION_NONE)
                break;
        }
        if (h.action != POLICY_ACTION_NONE)
            break;
    }
    assert_int_equal(h.action, POLICY_ACTION_BLOCK);
    assert_int_equal(h.count, 50);
    assert_string_equal(logged(), "event=harvest client=192.0.2.0/24 count=50 ratio=0.83 "
                                  "action=block until=2026-11-24T17:00:00Z\n"
                                  "event=block client=192.0.2.0/24 until=2026-11-24T17:00:00Z "
                                  "by=harvest\n");
    assert_int_equal(check("192.0.2.77"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("192.0.3.77"), POLICY_STANDING_OK);
    /* But for the client that is known to deliver. */
    assert_int_equal(check("192.0.2.200"), POLICY_STANDING_OK);
}

static void
test_wide_network_of_a_trusted_client(void **state)
{
    struct policy_session s = session_of("192.0.2.200");
    struct policy_harvest h = {0};
    (void)state;

    settings.harvest.threshold = 1000;
    serve(&s, 0, 10);
    ask_in_peace(&s, 0, 49);
    h = ask(&s, 49, false);
    assert_int_equal(h.action, POLICY_ACTION_DISCONNECT);
    assert_int_equal(check("192.0.2.200"), POLICY_STANDING_OK);
    assert_int_equal(check("192.0.2.201"), POLICY_STANDING_BLOCKED);
    /* As it was told. */
    assert_int_equal(policy_counts(policy).harvests[POLICY_ACTION_BLOCK], 1);
}

static void
test_wide_off(void **state)
{
    (void)state;

    settings.harvest.threshold_wide = 0;
    for (int client = 0; client < 200; client++) {
        char address[32];
        struct policy_session s;
        (void)snprintf(address, sizeof address, "192.0.2.%d", client);
        s = session_of(address);
        ask_in_peace(&s, client * 5, 5);
    }
    /* A client that is a /24 itself is counted once, by its own threshold. */
    settings.harvest.threshold_wide = 5;
    settings.harvest.prefix4 = 24;
    struct policy_session s = session_of("203.0.113.1"), neighbour = session_of("203.0.113.2");
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&neighbour, 9, false).action, POLICY_ACTION_BLOCK);
}

static void
test_ipv6(void **state)
{
    struct policy_session a = session_of("2001:db8:1:2::1"), b = session_of("2001:db8:1:2::2");
    (void)state;

    ask_in_peace(&a, 0, 5);
    ask_in_peace(&b, 5, 4);
    assert_int_equal(ask(&b, 9, false).action, POLICY_ACTION_BLOCK);
    assert_non_null(strstr(logged(), "event=block client=2001:db8:1:2::/64 "));
    assert_int_equal(check("2001:db8:1:2:ffff::9"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("2001:db8:1:3::1"), POLICY_STANDING_OK);
    settings.harvest.threshold = 1000;
    for (int net = 16; net < 56; net++) {
        char address[64];
        struct policy_session s;
        struct policy_harvest h;
        (void)snprintf(address, sizeof address, "2001:db8:1:%x::1", (unsigned)net);
        s = session_of(address);
        h = ask(&s, net, false);
        assert_int_equal(h.action, net == 55 ? POLICY_ACTION_BLOCK : POLICY_ACTION_NONE);
    }
    assert_non_null(strstr(logged(), "event=block client=2001:db8:1::/48 "));
    assert_int_equal(check("2001:db8:1:3::1"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("2001:db8:2:3::1"), POLICY_STANDING_OK);
}

static void
test_private_is_at_most_disconnected(void **state)
{
    struct policy_session s = session_of("10.1.2.3");
    struct policy_harvest h;
    (void)state;

    ask_in_peace(&s, 0, 9);
    h = ask(&s, 9, false);
    assert_int_equal(h.action, POLICY_ACTION_DISCONNECT);
    assert_int_equal(h.delay_ms, 30000);
    assert_string_equal(logged(), "event=harvest client=10.1.2.3 count=10 ratio=1.00 "
                                  "action=disconnect until=session limited=private\n");
    assert_int_equal(check("10.1.2.3"), POLICY_STANDING_OK);
    settings.harvest.action = SETTINGS_ACTION_REJECT;
    s = session_of("10.1.2.3");
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_REJECT);
    assert_null(strstr(logged(), "limited"));
    settings.harvest.action = SETTINGS_ACTION_BLIND;
    settings.harvest.block_private = true;
    s = session_of("10.1.2.3");
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLIND);
    /* Nor is it blinded any more once the operator has thought better of it. */
    (void)policy_session_check(policy, &settings, &s, now);
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_BLIND);
    settings.harvest.block_private = false;
    (void)policy_session_check(policy, &settings, &s, now);
    assert_int_equal(policy_session_state(&s, false), POLICY_ACTION_NONE);
}

static void
test_trusted_is_at_most_disconnected(void **state)
{
    struct policy_session s = session_of("192.0.2.1");
    (void)state;

    serve(&s, 0, 10);
    now += 7 * DAY - SECOND;
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_DISCONNECT);
    assert_non_null(strstr(logged(), "limited=trusted"));
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_OK);
    /* After a week it has to earn it anew. */
    now += SECOND;
    s = session_of("192.0.2.1");
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);

    s = session_of("192.0.2.5");
    serve(&s, 0, 9);
    serve(&s, 0, 9);
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);
}

/* Blocked while its first messages were on their way, which the downstream took then. */
static void
test_trust_ends_a_block(void **state)
{
    struct policy_session s = session_of("192.0.2.1");
    (void)state;

    serve(&s, 0, 9);
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
    serve(&s, 9, 1);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_OK);
    /* Not so an operator's. */
    policy_block(policy, &settings, &s.client.network, HOUR, now);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
}

static void
test_allowed(void **state)
{
    struct policy_session s = session_of("198.51.100.9");
    struct netaddr loopback;
    (void)state;

    for (int i = 0; i < 1000; i++) {
        struct policy_harvest h = ask(&s, i, false);
        assert_int_equal(h.action, POLICY_ACTION_NONE);
        assert_int_equal(h.delay_ms, 0);
    }
    assert_false(policy_transaction_refused(&settings, &s, &transaction, 0));
    assert_int_equal(policy_counts(policy).clients, 0);

    s = session_of("127.0.0.1");
    assert_true(s.client.is_allowed);
    assert_true(netaddr_parse(span_str("127.0.0.1"), &loopback));
    policy_session_begin(&s, &settings, &loopback, true);
    assert_false(s.client.is_allowed);
    /* Told, but allowed for another reason than being loopback. */
    assert_true(netaddr_parse(span_str("198.51.100.9"), &loopback));
    policy_session_begin(&s, &settings, &loopback, true);
    assert_true(s.client.is_allowed);
}

static void
test_disabled(void **state)
{
    struct policy_session s = session_of("192.0.2.1");
    (void)state;

    settings.harvest.enabled = false;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(ask(&s, i, false).delay_ms, 0);
    serve(&s, 0, 10);
    assert_false(policy_transaction_refused(&settings, &s, &transaction, 0));
    assert_int_equal(policy_counts(policy).clients, 0);
}

static void
test_tarpit_grows(void **state)
{
    static const uint32_t delays[] = {5000, 10000, 15000, 20000, 25000, 30000, 30000, 30000};
    struct policy_session s = session_of("192.0.2.1");
    (void)state;

    assert_int_equal(policy_tarpit_ms(&settings, &s), 0);
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        assert_int_equal(ask(&s, 0, false).delay_ms, delays[i]);
        assert_int_equal(policy_tarpit_ms(&settings, &s), delays[i]);
    }
    settings.harvest.tarpit = 0;
    assert_int_equal(ask(&s, 0, false).delay_ms, 0);
}

static void
test_roles_are_never_counted(void **state)
{
    static const char *const roles[] = {"postmaster@example.com", "abuse@example.com",
                                        "postmaster@other.example", "postmaster"};
    struct policy_session s = session_of("192.0.2.1");
    (void)state;

    transaction = (struct policy_transaction){0};
    settings.harvest.threshold = 1;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        assert_int_equal(
            policy_unknown(policy, &settings, &s, &transaction, span_str(roles[i]), false, now)
                .action,
            POLICY_ACTION_NONE);
    assert_int_equal(s.unknown, 0);
    assert_int_equal(transaction.n, 0);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        struct span role = span_str(roles[i]);
        policy_served(policy, &settings, &s.client, &role, 1, now);
    }
    assert_int_equal(policy_counts(policy).clients, 0);
}

static void
test_message_threshold(void **state)
{
    static const struct {
        int unknown, repeats;
        size_t known;
        int threshold;
        bool is_refused;
    } rows[] = {
        {0, 0, 5, 2, false}, {1, 0, 0, 2, false},   {1, 5, 0, 2, false},    {2, 0, 0, 2, true},
        {2, 0, 2, 2, true},  {2, 0, 3, 2, false},   {3, 3, 3, 2, true},     {5, 0, 0, 0, false},
        {1, 0, 0, 1, true},  {90, 0, 90, 90, true}, {90, 0, 91, 90, false},
    };
    (void)state;

    settings.harvest.threshold = 1000;
    settings.harvest.threshold_wide = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct policy_session s = session_of("192.0.2.1");
        transaction = (struct policy_transaction){0};
        settings.harvest.message_threshold = rows[i].threshold;
        for (int k = 0; k < rows[i].unknown; k++)
            ask_in_peace(&s, k, 1);
        for (int k = 0; k < rows[i].repeats; k++)
            ask_in_peace(&s, k % rows[i].unknown, 1);
        assert_int_equal(policy_transaction_refused(&settings, &s, &transaction, rows[i].known),
                         rows[i].is_refused);
    }
}

/* Everything is computed and told, nothing is in the client's way. */
static void
test_monitor(void **state)
{
    struct policy_session s = session_of("192.0.2.1"), other;
    struct policy_block *blocks;
    struct network net;
    size_t n;
    (void)state;

    settings.server.monitor = true;
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);
    assert_string_equal(logged(),
                        "event=harvest client=192.0.2.1 count=10 ratio=1.00 action=block "
                        "until=2026-11-24T17:00:00Z monitor=yes\n"
                        "event=block client=192.0.2.1 until=2026-11-24T17:00:00Z by=harvest "
                        "monitor=yes\n");
    for (int i = 10; i < 100; i++)
        (void)ask(&s, i % 40, false);
    assert_string_equal(logged(), "");
    other = session_of("192.0.2.1");
    assert_int_equal(policy_session_check(policy, &settings, &other, now), POLICY_STANDING_OK);
    assert_int_equal(policy_session_state(&other, false), POLICY_ACTION_BLOCK);
    assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
    assert_int_equal(n, 1);
    assert_true(blocks[0].is_monitor);
    free(blocks);
    assert_string_equal(logged(), "");

    /* A block by hand is one. */
    assert_true(network_parse(span_str("203.0.113.0/24"), &net));
    policy_block(policy, &settings, &net, 0, now);
    assert_int_equal(check("203.0.113.5"), POLICY_STANDING_BLOCKED);
    (void)logged();

    settings.server.monitor = false;
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_OK);
    policy_reload(policy, &settings, now);
    assert_string_equal(logged(), "event=unblock client=192.0.2.1 until=2026-11-24T16:00:00Z "
                                  "by=expiry monitor=yes\n");
    assert_int_equal(policy_counts(policy).blocks, 1);
    assert_int_equal(check("203.0.113.5"), POLICY_STANDING_BLOCKED);
    /* Now it is given, and it is the first time. */
    s = session_of("192.0.2.1");
    assert_int_equal(ask(&s, 0, false).until_s, WALL_S + 3600);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
}

static void
test_operator(void **state)
{
    static const char *const networks[] = {"10.0.0.0/8", "192.0.2.0/24", "192.0.2.7",
                                           "2001:db8::/32"};
    struct policy_session s = session_of("192.0.2.1");
    struct policy_block *blocks;
    struct network net;
    size_t n;
    (void)state;

    assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
    assert_int_equal(n, 0);
    free(blocks);
    for (int i = 0; i < 4; i++) {
        assert_true(network_parse(span_str(networks[i]), &net));
        policy_block(policy, &settings, &net, (4 - i) * MINUTE, now);
    }
    assert_non_null(strstr(logged(), "event=block client=10.0.0.0/8 until=2026-11-24T16:04:00Z "
                                     "by=control\n"));
    assert_int_equal(check("10.9.9.9"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("192.0.2.99"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("2001:db8:5::1"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("192.0.3.1"), POLICY_STANDING_OK);
    assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
    assert_int_equal(n, 4);
    for (int i = 0; i < 4; i++) {
        char text[NETWORK_TEXT];
        network_format(&blocks[i].network, text);
        assert_string_equal(text, networks[3 - i]);
        assert_int_equal(blocks[i].by, POLICY_BY_CONTROL);
        assert_int_equal(blocks[i].action, POLICY_ACTION_BLOCK);
        assert_int_equal(blocks[i].until_s, WALL_S + 60 * (i + 1));
    }
    free(blocks);

    /* An operator's block stands for the allowed and with the defence off, too. */
    assert_true(network_parse(span_str("198.51.100.9"), &net));
    policy_block(policy, &settings, &net, 0, now);
    settings.harvest.enabled = false;
    assert_int_equal(check("198.51.100.9"), POLICY_STANDING_BLOCKED);
    settings.harvest.enabled = true;

    /* Unblocking takes what is inside along, and its counts. */
    ask_in_peace(&s, 0, 9);
    (void)logged();
    assert_true(network_parse(span_str("192.0.2.0/24"), &net));
    assert_int_equal(policy_unblock(policy, &net, now), 2);
    assert_non_null(strstr(logged(), "event=unblock client=192.0.2.7 until=2026-11-24T16:00:00Z "
                                     "by=control\n"));
    assert_int_equal(policy_unblock(policy, &net, now), 0);
    assert_int_equal(check("192.0.2.7"), POLICY_STANDING_OK);
    assert_int_equal(check("10.9.9.9"), POLICY_STANDING_BLOCKED);
    ask_in_peace(&s, 9, 9);
    assert_int_equal(policy_counts(policy).blocks, 3);
}

static void
test_top(void **state)
{
    struct policy_suspect top[3];
    char text[NETWORK_TEXT];
    (void)state;

    assert_int_equal(policy_top(policy, &settings, top, 3, now), 0);
    settings.harvest.threshold_wide = 0;
    for (int client = 1; client <= 8; client++) {
        char address[32];
        struct policy_session s;
        (void)snprintf(address, sizeof address, "192.0.%d.1", client);
        s = session_of(address);
        serve(&s, 0, client == 7 ? 7 : 0);
        ask_in_peace(&s, 0, client);
    }
    struct policy_session s = session_of("203.0.113.1");
    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).action, POLICY_ACTION_BLOCK);
    assert_int_equal(policy_top(policy, &settings, top, 3, now), 3);
    network_format(&top[0].network, text);
    assert_string_equal(text, "203.0.113.1");
    assert_int_equal(top[0].count, 10);
    assert_int_equal(top[0].action, POLICY_ACTION_BLOCK);
    assert_int_equal(top[0].until_s, WALL_S + 3600);
    assert_int_equal(top[1].count, 8);
    assert_int_equal(top[1].until_s, 0);
    assert_int_equal(top[2].count, 7);
    assert_true(top[2].ratio == 0.5);
    assert_int_equal(policy_top(policy, &settings, top, 0, now), 0);
    now += HOUR;
    assert_int_equal(policy_top(policy, &settings, top, 3, now), 0);
}

static void
test_blocked_clients(void **state)
{
    struct network listed;
    (void)state;

    assert_true(network_parse(span_str("203.0.113.0/24"), &listed));
    settings.blocked.clients = (struct network_list){&listed, 1};
    settings.harvest.enabled = false;
    settings.server.monitor = true;
    assert_int_equal(check("203.0.113.77"), POLICY_STANDING_LISTED);
    assert_int_equal(check("203.0.114.77"), POLICY_STANDING_OK);
}

/* The wall clock is stepped: what is shown follows, what is counted does not care. */
static void
test_wall_clock_steps(void **state)
{
    struct policy_session s = session_of("192.0.2.1");
    struct policy_block *blocks;
    size_t n;
    (void)state;

    ask_in_peace(&s, 0, 9);
    assert_int_equal(ask(&s, 9, false).until_s, WALL_S + 3600);
    now += MINUTE;
    policy_tick(policy, &settings, now, WALL_S + 60 + 86400);
    assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(blocks[0].until_s, WALL_S + 3600 + 86400);
    free(blocks);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_block),
        TEST(test_block_doubles_and_is_forgotten),
        TEST(test_window_slides),
        TEST(test_ratio),
        TEST(test_reject_lasts_for_the_session),
        TEST(test_blind),
        TEST(test_null_sender_is_counted_apart),
        TEST(test_trap),
        TEST(test_wide_network),
        TEST(test_wide_network_of_a_trusted_client),
        TEST(test_wide_off),
        TEST(test_ipv6),
        TEST(test_private_is_at_most_disconnected),
        TEST(test_trusted_is_at_most_disconnected),
        TEST(test_trust_ends_a_block),
        TEST(test_allowed),
        TEST(test_disabled),
        TEST(test_tarpit_grows),
        TEST(test_roles_are_never_counted),
        TEST(test_message_threshold),
        TEST(test_monitor),
        TEST(test_operator),
        TEST(test_top),
        TEST(test_blocked_clients),
        TEST(test_wall_clock_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
