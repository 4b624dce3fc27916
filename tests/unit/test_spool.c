#define _GNU_SOURCE /* syscall */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/relay/message.h"

/* A disk that takes nothing while it is shut: what waits for it is bounded. */

#define TOTAL ((size_t)8 << 20)
#define SHARE ((size_t)16 << 10)
#define PIECE ((size_t)16 << 10)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool is_shut, is_waiting, is_failing;
static size_t written;

/* The spool's thread calls this one. */
ssize_t
pwrite(int fd, const void *p, size_t n, off_t offset)
{
    pthread_mutex_lock(&lock);
    is_waiting = is_shut;
    pthread_cond_broadcast(&changed);
    while (is_shut)
        pthread_cond_wait(&changed, &lock);
    is_waiting = false;
    bool fails = is_failing;
    is_failing = false;
    written += n;
    pthread_mutex_unlock(&lock);
    if (fails) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, p, n, offset);
}

static void
shut(bool shall)
{
    pthread_mutex_lock(&lock);
    is_shut = shall;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static char dir[] = "/tmp";
static struct settings st = {.spool = {.dir = dir, .memory_total = TOTAL, .disk_total = 1 << 30}};
static struct spool *spool;
static struct spool_client *client;

static int
set_up(void **state)
{
    struct err e;

    (void)state;
    written = 0;
    spool = spool_new(&st, &e);
    client = spool != NULL ? spool_client_new(spool) : NULL;
    shut(true);
    return client == NULL;
}

static int
tear_down(void **state)
{
    (void)state;
    shut(false);
    spool_client_free(&client);
    spool_free(&spool);
    return 0;
}

static struct message *
begin(void)
{
    const struct message_place place = {.spool = spool, .client = client, .memory_share = SHARE};
    struct message *m = message_new(&place, NULL, NULL);

    assert_non_null(m);
    assert_true(message_append(m, span_str("Subject: x\r\n\r\n")));
    return m;
}

/* As a session does: until it is to wait.  What it took, at most MOST. */
static size_t
send_all(struct message *m, size_t most)
{
    static const char piece[PIECE];
    size_t n = 0;

    for (; n < most && !message_is_congested(m); n += PIECE)
        assert_true(message_append(m, span_of(piece, PIECE)));
    return n;
}

static void
await_disk(void)
{
    pthread_mutex_lock(&lock);
    while (!is_waiting)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void
dispatch(void)
{
    struct pollfd p = {.fd = spool_client_fd(client), .events = POLLIN};

    assert_int_equal(poll(&p, 1, 20000), 1);
    spool_client_dispatch(client);
}

/* What is free of memory_total. */
static size_t
room(void)
{
    size_t n = 0;

    while (spool_memory_take(spool, 4096))
        n += 4096;
    spool_memory_give(spool, n);
    return n;
}

static void
a_client_waits_for_the_disk(void **state)
{
    struct message *m = begin();
    size_t taken = send_all(m, 64 << 20);

    (void)state;
    assert_in_range(taken, 512 << 10, 1 << 20);
    /* All of it is in memory, and counts as such. */
    assert_in_range(TOTAL - room(), taken - PIECE, taken + (256 << 10));
    shut(false);
    while (message_is_congested(m))
        dispatch();
    message_free(&m);
}

static void
all_that_waits_is_memory(void **state)
{
    struct message *all[64];
    size_t taken = 0;

    (void)state;
    for (size_t i = 0; i < 64; i++) {
        all[i] = begin();
        taken += send_all(all[i], 64 << 20);
    }
    /* Whoever comes when it is used up has small blocks, two of them. */
    assert_in_range(taken, TOTAL / 2, TOTAL + 64 * 4 * PIECE);
    assert_in_range(room(), 0, 256 << 10);
    for (size_t i = 0; i < 64; i++)
        message_free(&all[i]);
}

/* It sends, goes, and comes again. */
static void
nothing_waits_for_who_is_gone(void **state)
{
    struct message *m;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        m = begin();
        assert_in_range(send_all(m, 64 << 20), 512 << 10, 1 << 20);
        if (i == 0)
            await_disk();
        message_free(&m);
        /* But what the disk is at. */
        assert_in_range(room(), TOTAL - (256 << 10), TOTAL);
    }
    shut(false);
    m = begin();
    (void)send_all(m, SHARE + PIECE);
    assert_true(message_finish(m));
    while (spool_file_is_behind(m->file, 0))
        dispatch();
    assert_false(m->has_failed);
    message_free(&m);
    assert_in_range(written, PIECE, (256 << 10) + 2 * PIECE);
    assert_int_equal(room(), TOTAL);
}

/* One write fails, room comes back, the next one is done: all before the loop has heard of it. */
static void
a_hole_is_not_read(void **state)
{
    struct message *m = begin();
    const char *data = NULL;

    (void)state;
    pthread_mutex_lock(&lock);
    is_failing = true;
    pthread_mutex_unlock(&lock);
    (void)send_all(m, 64 << 20);
    shut(false);
    while (spool_file_is_behind(m->file, 0))
        usleep(1000);
    assert_true(spool_file_read(m->file, 0, PIECE, &data));
    assert_null(data);
    while (!m->has_failed)
        dispatch();
    message_free(&m);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_client_waits_for_the_disk),
        TEST(all_that_waits_is_memory),
        TEST(nothing_waits_for_who_is_gone),
        TEST(a_hole_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
