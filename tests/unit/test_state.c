#define _GNU_SOURCE

#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/settings.h"
#include "policy/delivered.h"
#include "policy/mark.h"
#include "policy/policy.h"
#include "policy/policy_private.h"

#define SECOND ((int64_t)1000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)
#define WALL_S ((int64_t)1795536000)

/* What outlives the process, seen through policy.h: each restart has another monotonic clock. */

static char dir[96], parent[64];
static struct settings settings;
static struct policy *policy;
static int64_t now, wall;

static void
start(void)
{
    struct err e = {0};

    policy = policy_new(&settings, now, wall, &e);
    if (policy == NULL)
        print_error("%s\n", e.text);
    assert_non_null(policy);
}

static void
save(void)
{
    struct err e = {0};

    if (policy_save(policy, &settings, now, &e) < 0)
        fail_msg("%s", e.text);
}

/* DOWN_S seconds later another process goes on; its clock began elsewhere. */
static void
restart(int64_t down_s)
{
    policy_free(&policy, &settings, now, wall);
    wall += down_s;
    now = now > 5 * HOUR ? 7 * SECOND : 900 * DAY;
    start();
}

static void
pass(int64_t s)
{
    now += s * SECOND;
    wall += s;
    policy_tick(policy, &settings, now, wall);
}

static int
set_up(void **state)
{
    (void)state;
    memset(&settings, 0, sizeof settings);
    settings.harvest.enabled = true;
    settings.harvest.threshold = 10;
    settings.harvest.ratio = 0.5;
    settings.harvest.window = HOUR;
    settings.harvest.action = SETTINGS_ACTION_BLOCK;
    settings.harvest.block_time = HOUR;
    settings.harvest.block_time_max = 6 * HOUR;
    settings.harvest.trusted_recipients = 10;
    settings.harvest.prefix4 = 32;
    settings.harvest.prefix6 = 64;
    (void)snprintf(parent, sizeof parent, "/tmp/postern-state-XXXXXX");
    assert_non_null(mkdtemp(parent));
    (void)snprintf(dir, sizeof dir, "%s/state", parent);
    settings.server.state_dir = dir;
    now = 1000 * SECOND;
    wall = WALL_S;
    start();
    return 0;
}

static int
tear_down(void **state)
{
    char command[160];
    (void)state;

    policy_free(&policy, &settings, now, wall);
    (void)snprintf(command, sizeof command, "rm -r %s", parent);
    return system(command);
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

static struct policy_harvest
ask(const char *client, int first, int n, bool is_null)
{
    struct policy_session s = session_of(client);
    struct policy_transaction t = {0};
    struct policy_harvest h = {0};

    for (int i = first; i < first + n; i++) {
        char address[64];
        (void)snprintf(address, sizeof address, "user%d@example.com", i);
        h = policy_unknown(policy, &settings, &s, &t, span_str(address), is_null, now);
    }
    return h;
}

static void
serve(const char *client, int n)
{
    struct policy_session s = session_of(client);

    for (int i = 0; i < n; i++) {
        char address[64];
        struct span span;
        (void)snprintf(address, sizeof address, "known%d@example.com", i);
        span = span_str(address);
        policy_served(policy, &settings, &s.client, &span, 1, now);
    }
}

static enum policy_standing
check(const char *client)
{
    struct policy_session s = session_of(client);

    return policy_session_check(policy, &settings, &s, now);
}

static void
test_counts_survive(void **state)
{
    (void)state;

    assert_int_equal(ask("192.0.2.1", 0, 9, false).action, POLICY_ACTION_NONE);
    pass(1800);
    assert_int_equal(ask("192.0.2.2", 0, 9, false).action, POLICY_ACTION_NONE);
    assert_int_equal(ask("2001:db8::1", 0, 5, true).action, POLICY_ACTION_NONE);
    for (int i = 0; i < 3; i++)
        restart(500);
    /* 1800 + 1500 seconds for the one, 1500 for the other. */
    assert_int_equal(ask("2001:db8::2", 5, 4, true).count, 9);
    assert_int_equal(ask("192.0.2.2", 0, 9, false).count, 9);
    assert_int_equal(ask("192.0.2.1", 0, 1, false).count, 9);
    restart(400);
    assert_int_equal(ask("192.0.2.1", 20, 1, false).count, 2);
    assert_int_equal(ask("192.0.2.2", 9, 1, false).action, POLICY_ACTION_BLOCK);
}

static void
test_blocks_survive(void **state)
{
    struct policy_block *blocks;
    struct network net;
    size_t n;
    (void)state;

    assert_int_equal(ask("192.0.2.1", 0, 10, false).action, POLICY_ACTION_BLOCK);
    assert_int_equal(ask("192.0.2.5", 0, 10, true).action, POLICY_ACTION_BLIND);
    assert_true(network_parse(span_str("203.0.113.0/24"), &net));
    policy_block(policy, &settings, &net, 2 * DAY, now);
    restart(600);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("203.0.113.9"), POLICY_STANDING_BLOCKED);
    assert_int_equal(check("192.0.2.5"), POLICY_STANDING_OK);
    assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(blocks[0].until_s, WALL_S + 3600);
    assert_int_equal(blocks[2].until_s, WALL_S + 2 * 86400);
    assert_int_equal(blocks[2].by, POLICY_BY_CONTROL);
    assert_true(blocks[0].is_null != blocks[1].is_null);
    free(blocks);
    pass(2999);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_BLOCKED);
    pass(1);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_OK);
    assert_int_equal(policy_counts(policy).blocks, 1);
    /* One that ends while nobody is there, and one that is remembered: the next is the second. */
    restart(86400);
    pass(1);
    assert_int_equal(ask("192.0.2.1", 0, 10, false).until_s, wall + 7200);
    restart(86400);
    assert_int_equal(check("203.0.113.9"), POLICY_STANDING_OK);
    assert_int_equal(policy_counts(policy).blocks, 0);
}

/* The wall clock is DAYS off until the next call. */
static void
set_clock(int64_t days)
{
    static int64_t off;

    wall += (days - off) * 86400;
    off = days;
    if (policy != NULL)
        policy_tick(policy, &settings, now, wall);
}

static void
stop(void)
{
    policy_free(&policy, &settings, now, wall);
    now = now > 5 * HOUR ? 7 * SECOND : 900 * DAY;
}

static int64_t
longest_block(void)
{
    struct policy_block *blocks;
    int64_t longest;
    size_t n;

    assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
    assert_int_equal(n, 1);
    longest = blocks[0].until_s - wall;
    free(blocks);
    return longest;
}

/* Wrong at the last save, at the start or at both, it makes nothing last longer. */
static void
test_wrong_clock_prolongs_nothing(void **state)
{
    static const struct {
        int first, at_save, at_start;
    } cases[] = {{0, 0, -30}, {0, 40, 0}, {0, -30, -30}, {20, -10, -10}, {-5, 0, -30}};
    struct span sender = span_str("s@example.net"), a = span_str("a@example.com");
    uint8_t content[32] = {1};
    bool served[1];
    uint64_t ticket;
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct delivery_key key;
        char client[32];
        (void)snprintf(client, sizeof client, "192.0.%zu.1", i);
        set_clock(cases[i].first);
        content[1] = (uint8_t)i;
        key = deliveries_key(policy_deliveries(policy), sender, a, content);
        assert_int_equal(ask(client, 0, 10, false).action, POLICY_ACTION_BLOCK);
        marks_add(policy_marks(policy), a, HOUR, now);
        assert_int_equal(deliveries_claim(policy_deliveries(policy), &key, 1, false, served, now,
                                          NULL, NULL, &ticket),
                         DELIVERY_CLAIMED);
        deliveries_finish(policy_deliveries(policy), &key, served, 1, true, HOUR, now);
        save();
        set_clock(cases[i].at_save);
        serve("198.51.100.1", 1);
        stop();
        set_clock(cases[i].at_start);
        start();
        assert_int_equal(check(client), POLICY_STANDING_BLOCKED);
        assert_in_range(longest_block(), 3500, 3600);
        /* It is set right, and what is saved is right as well. */
        set_clock(0);
        assert_in_range(longest_block(), 3500, 3600);
        stop();
        start();
        assert_in_range(longest_block(), 3500, 3600);
        assert_true(marks_has(policy_marks(policy), a, now));
        pass(3600);
        assert_int_equal(check(client), POLICY_STANDING_OK);
        assert_false(marks_has(policy_marks(policy), a, now));
        assert_int_equal(deliveries_claim(policy_deliveries(policy), &key, 1, false, served, now,
                                          NULL, NULL, &ticket),
                         DELIVERY_CLAIMED);
        assert_false(served[0]);
        deliveries_finish(policy_deliveries(policy), &key, served, 1, false, 0, now);
    }
}

/* What memory has forgotten does not come back from the disk, though the clock goes back to when it
 * was not over. */
static void
test_clock_brings_nothing_back(void **state)
{
    (void)state;

    for (int i = 0; i < 3000; i++) {
        char client[32];
        (void)snprintf(client, sizeof client, "11.0.%d.%d", i >> 8, i & 255);
        (void)ask(client, 0, 3, false);
    }
    save();
    wall += 8 * 86400;
    now += 8 * DAY;
    for (int i = 0; i < 400; i++)
        policy_tick(policy, &settings, now, wall);
    assert_int_equal(policy_counts(policy).clients, 0);
    set_clock(-9);
    serve("198.51.100.1", 1);
    stop();
    start();
    assert_int_equal(policy_counts(policy).clients, 2); /* and its wide network */
    set_clock(0);
}

static void
test_unblocked_stays_unblocked(void **state)
{
    struct network net;
    (void)state;

    assert_int_equal(ask("192.0.2.1", 0, 10, false).action, POLICY_ACTION_BLOCK);
    save();
    assert_true(network_parse(span_str("192.0.2.1"), &net));
    assert_int_equal(policy_unblock(policy, &net, now), 1);
    for (int i = 0; i < 400; i++)
        policy_tick(policy, &settings, now, wall);
    restart(1);
    assert_int_equal(check("192.0.2.1"), POLICY_STANDING_OK);
    assert_int_equal(ask("192.0.2.1", 20, 9, false).count, 9);
}

static void
test_trust_survives(void **state)
{
    (void)state;

    serve("192.0.2.1", 10);
    restart(3 * 86400);
    assert_int_equal(ask("192.0.2.1", 0, 10, false).action, POLICY_ACTION_DISCONNECT);
    restart(4 * 86400);
    assert_int_equal(ask("192.0.2.1", 0, 10, false).action, POLICY_ACTION_BLOCK);
}

static void
test_monitor_leaves_no_blocks(void **state)
{
    (void)state;

    settings.server.monitor = true;
    assert_int_equal(ask("192.0.2.1", 0, 10, false).action, POLICY_ACTION_BLOCK);
    restart(1);
    assert_int_equal(policy_counts(policy).blocks, 1);
    settings.server.monitor = false;
    restart(1);
    assert_int_equal(policy_counts(policy).blocks, 0);
}

static void
test_marks_and_deliveries_survive(void **state)
{
    struct span sender = span_str("s@example.net"), a = span_str("a@example.com"),
                b = span_str("b@example.com"), both[2] = {a, b};
    uint8_t digest[32] = {1};
    struct delivery_key keys[3];
    bool served[3];
    uint64_t ticket;
    (void)state;

    marks_add(policy_marks(policy), a, DAY, now);
    marks_add(policy_marks(policy), b, DAY, now);
    marks_halve(policy_marks(policy), sender, both, 2, HOUR, now);
    keys[0] = deliveries_key(policy_deliveries(policy), sender, a, digest);
    keys[1] = deliveries_key(policy_deliveries(policy), sender, b, digest);
    digest[0] = 2;
    keys[2] = deliveries_key(policy_deliveries(policy), sender, a, digest);
    assert_int_equal(deliveries_claim(policy_deliveries(policy), keys, 3, false, served, now, NULL,
                                      NULL, &ticket),
                     DELIVERY_CLAIMED);
    deliveries_finish(policy_deliveries(policy), keys, served, 2, true, 4 * HOUR, now);
    save();
    marks_remove(policy_marks(policy), b);
    deliveries_confirm(policy_deliveries(policy), &keys[1], 1, now);

    restart(HOUR / SECOND - 1);
    assert_true(marks_has(policy_marks(policy), a, now));
    assert_false(marks_has(policy_marks(policy), b, now));
    assert_int_equal(marks_limit(policy_marks(policy), sender, a, now), 1);
    assert_int_equal(deliveries_claim(policy_deliveries(policy), keys, 3, false, served, now, NULL,
                                      NULL, &ticket),
                     DELIVERY_CLAIMED);
    assert_true(served[0]);  /* its retry is answered */
    assert_false(served[1]); /* the client had heard */
    assert_false(served[2]); /* nobody knows what became of it */
    restart(1);
    assert_true(marks_limit(policy_marks(policy), sender, a, now) == UINT32_MAX);
    assert_true(marks_has(policy_marks(policy), a, now));
    restart(86400);
    assert_false(marks_has(policy_marks(policy), a, now));
}

/* How many rows the file has.  For that the policy ends, and begins again. */
static size_t
rows_on_disk(const char *table)
{
    char path[160];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi db;
    MDB_stat rows;

    policy_free(&policy, &settings, now, wall);
    (void)snprintf(path, sizeof path, "%s/policy.mdb", dir);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, table, 0, &db), 0);
    assert_int_equal(mdb_stat(txn, db, &rows), 0);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    start();
    return rows.ms_entries;
}

static void
test_bursts_of_others_are_not_kept(void **state)
{
    struct hash128 done = {1, 1}, elsewhere = {2, 2};
    uint32_t until_s = policy_seconds_of(now) + 3600;
    (void)state;

    deliveries_learn(policy_deliveries(policy), done, DELIVERY_DONE, until_s);
    deliveries_learn(policy_deliveries(policy), elsewhere, DELIVERY_ELSEWHERE, until_s);
    assert_int_equal(rows_on_disk("deliveries"), 1);
}

/* Each time there is something to save. */
static void
save_often(int n)
{
    for (int i = 0; i < n; i++) {
        (void)ask("198.51.100.1", i, 1, false);
        save();
    }
}

static void
learn_facts(int first, int n)
{
    static const uint8_t digest[32] = {1};
    struct span sender = span_str("s@example.net");

    for (int i = first; i < first + n; i++) {
        char address[64];
        struct delivery_key key;
        uint64_t ticket;
        bool served;
        (void)snprintf(address, sizeof address, "known%d@example.com", i);
        marks_add(policy_marks(policy), span_str(address), HOUR, now);
        key = deliveries_key(policy_deliveries(policy), sender, span_str(address), digest);
        (void)deliveries_claim(policy_deliveries(policy), &key, 1, false, &served, now, NULL, NULL,
                               &ticket);
        deliveries_finish(policy_deliveries(policy), &key, &served, 1, true, HOUR, now);
    }
}

/* The disk has no more than memory: what is over leaves it, though nobody asks for it any more, and
 * so does what was pushed out. */
static void
test_facts_leave_the_disk(void **state)
{
    (void)state;

    learn_facts(0, 3000);
    save();
    pass(3601);
    save_often(4);
    assert_int_equal(rows_on_disk("marks"), 0);
    assert_int_equal(rows_on_disk("deliveries"), 0);
    for (int i = 0; i < 10; i++) {
        learn_facts(10000 * i, 10000);
        save();
    }
    save_often(90);
    assert_in_range(rows_on_disk("marks"), 50000, 65536);
    assert_in_range(rows_on_disk("deliveries"), 99000, 100000);
}

static void
test_many_networks(void **state)
{
    (void)state;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100000; i++) {
            char client[32];
            (void)snprintf(client, sizeof client, "11.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
            (void)ask(client, round * 3, 3, false);
        }
        save();
        restart(1);
    }
    assert_int_equal(policy_counts(policy).clients, 100000);
    assert_int_equal(ask("11.0.0.77", 6, 1, false).count, 7);
    assert_int_equal(ask("11.1.134.159", 6, 1, false).count, 7);
    /* What is over leaves the disk as well. */
    wall += 8 * 86400;
    now += 8 * DAY;
    for (int i = 0; i < 400; i++)
        policy_tick(policy, &settings, now, wall);
    for (int i = 0; i < 110; i++) {
        (void)ask("198.51.100.1", i, 1, false);
        save();
        policy_tick(policy, &settings, now, wall);
    }
    restart(1);
    assert_in_range(policy_counts(policy).clients, 1, 1);
}

static _Atomic bool is_saving;

static void *
save_on(void *arg)
{
    (void)arg;

    while (is_saving)
        save();
    return NULL;
}

static void
begin_saving(pthread_t *thread)
{
    is_saving = true;
    assert_int_equal(pthread_create(thread, NULL, save_on, NULL), 0);
}

static void
end_saving(pthread_t thread)
{
    is_saving = false;
    pthread_join(thread, NULL);
}

/* The fleet's key changes under a save: what is kept in the end is of the last one. */
static void
test_rekeying_while_it_is_saved(void **state)
{
    struct span a = span_str("a@example.com");
    pthread_t saver;
    (void)state;

    begin_saving(&saver);
    for (uint8_t i = 0; i < 50; i++) {
        struct siphash_key key = {{i}};
        marks_add(policy_marks(policy), a, DAY, now);
        (void)ask("192.0.2.1", 0, 5, false);
        policy_rekey(policy, &key, policy_seconds_of(now));
        assert_false(marks_has(policy_marks(policy), a, now));
    }
    marks_add(policy_marks(policy), a, DAY, now);
    end_saving(saver);
    assert_int_equal(rows_on_disk("marks"), 1);
    restart(1);
    assert_true(marks_has(policy_marks(policy), a, now));
    assert_int_equal(ask("192.0.2.1", 20, 1, false).count, 1);
}

/* Workers count while the housekeeper ticks and looks, and all is saved: nothing is lost. */
static void *
work(void *arg)
{
    int number = *(const int *)arg;

    for (int i = 0; i < 300; i++) {
        char client[32];
        (void)snprintf(client, sizeof client, "11.%d.0.%d", number, i % 100);
        (void)ask(client, i / 100, 1, false);
        serve(client, 1);
        (void)check(client);
    }
    return NULL;
}

static void
test_threads(void **state)
{
    pthread_t threads[4], saver;
    int numbers[4] = {0, 1, 2, 3};
    (void)state;

    begin_saving(&saver);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &numbers[i]), 0);
    for (int i = 0; i < 20; i++) {
        struct policy_suspect top[5];
        struct policy_block *blocks;
        size_t n;
        policy_tick(policy, &settings, now, wall);
        (void)policy_top(policy, &settings, top, 5, now);
        assert_int_equal(policy_blocks(policy, now, &blocks, &n), 0);
        free(blocks);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    end_saving(saver);
    restart(1);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 100; k++) {
            char client[32];
            (void)snprintf(client, sizeof client, "11.%d.0.%d", i, k);
            assert_int_equal(ask(client, 0, 1, false).count, 3);
        }
}

static bool
is_there(const char *name)
{
    char path[160];
    struct stat status;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &status) == 0;
}

/* However the file is damaged, the daemon starts, says so, and works. */
static void
test_damaged_file(void **state)
{
    enum { GARBAGE, SHORT, ZEROES, GONE, WAYS };
    char path[160];
    (void)state;

    (void)snprintf(path, sizeof path, "%s/policy.mdb", dir);
    for (int way = 0; way < WAYS; way++) {
        char junk[8192];
        struct stat status;
        int fd;
        (void)ask("192.0.2.1", 0, 9, false);
        for (int i = 0; i < 2000; i++) {
            char client[32];
            (void)snprintf(client, sizeof client, "11.%d.%d.1", i >> 8, i & 255);
            (void)ask(client, 0, 3, false);
        }
        policy_free(&policy, &settings, now, wall);
        memset(junk, way == ZEROES ? 0 : 0xa5, sizeof junk);
        fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        assert_int_equal(fstat(fd, &status), 0);
        switch (way) {
        case GARBAGE:
        case ZEROES:
            assert_int_equal(pwrite(fd, junk, sizeof junk, 0), (ssize_t)sizeof junk);
            break;
        case SHORT:
            assert_int_equal(ftruncate(fd, status.st_size / 2 & ~4095), 0);
            break;
        default:
            break;
        }
        (void)close(fd);
        if (way == GONE)
            (void)unlink(path);
        start();
        if (way != GONE) {
            assert_true(is_there("policy.mdb.damaged"));
            (void)snprintf(junk, sizeof junk, "%s/policy.mdb.damaged", dir);
            assert_int_equal(unlink(junk), 0);
        }
        assert_int_equal(policy_counts(policy).clients, 0);
        (void)ask("192.0.2.1", 0, 9, false);
        restart(1);
        assert_int_equal(ask("192.0.2.1", 9, 1, false).action, POLICY_ACTION_BLOCK);
        policy_free(&policy, &settings, now, wall);
        (void)unlink(path);
        start();
    }
}

/* A row that is none: what was read before it is kept, the rest begins anew. */
static void
test_damaged_row(void **state)
{
    static const struct {
        const char *table;
        size_t key, value;
    } rows[] = {{"ledger", 17, 24}, {"ledger", 18, 23}, {"ledger", 18, 24},   {"ledger", 18, 32},
                {"marks", 16, 7},   {"marks", 15, 8},   {"deliveries", 16, 9}};
    char path[160];
    (void)state;

    (void)snprintf(path, sizeof path, "%s/policy.mdb", dir);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        /* Comes last in the order of keys, and has an unheard-of family, prefix, action. */
        char octets[160];
        MDB_val key = {rows[i].key, octets}, value = {rows[i].value, octets};
        MDB_env *env;
        MDB_txn *txn;
        MDB_dbi db;
        memset(octets, 0xff, sizeof octets);
        (void)ask("192.0.2.1", 0, 9, false);
        policy_free(&policy, &settings, now, wall);
        assert_int_equal(mdb_env_create(&env), 0);
        assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
        assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
        assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
        assert_int_equal(mdb_dbi_open(txn, rows[i].table, 0, &db), 0);
        assert_int_equal(mdb_put(txn, db, &key, &value, 0), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
        mdb_env_close(env);
        start();
        assert_true(is_there("policy.mdb.damaged"));
        assert_int_equal(ask("192.0.2.1", 0, 1, false).count, 9);
        restart(1);
        assert_int_equal(ask("192.0.2.1", 0, 1, false).count, 9);
        (void)snprintf(octets, sizeof octets, "%s/policy.mdb.damaged", dir);
        assert_int_equal(unlink(octets), 0);
    }
}

static void
test_no_place(void **state)
{
    struct err e = {0};
    struct policy *none;
    static char missing[] = "/nonexistent/parent/state";
    (void)state;

    settings.server.state_dir = missing;
    none = policy_new(&settings, now, wall, &e);
    assert_null(none);
    assert_int_equal(e.kind, ERR_STORAGE);
    assert_non_null(strstr(e.text, missing));
    /* Empty: nothing outlives the process, and nothing fails. */
    settings.server.state_dir = NULL;
    none = policy_new(&settings, now, wall, &e);
    assert_non_null(none);
    assert_int_equal(policy_save(none, &settings, now, &e), 0);
    policy_free(&none, &settings, now, wall);
    settings.server.state_dir = dir;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_counts_survive),
        TEST(test_blocks_survive),
        TEST(test_wrong_clock_prolongs_nothing),
        TEST(test_clock_brings_nothing_back),
        TEST(test_unblocked_stays_unblocked),
        TEST(test_trust_survives),
        TEST(test_monitor_leaves_no_blocks),
        TEST(test_marks_and_deliveries_survive),
        TEST(test_bursts_of_others_are_not_kept),
        TEST(test_facts_leave_the_disk),
        TEST(test_many_networks),
        TEST(test_rekeying_while_it_is_saved),
        TEST(test_threads),
        TEST(test_damaged_file),
        TEST(test_damaged_row),
        TEST(test_no_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
