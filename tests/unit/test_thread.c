#define _POSIX_C_SOURCE 200809L
#include "base/thread.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

static bool
is_blocked(int number)
{
    sigset_t now;

    pthread_sigmask(SIG_SETMASK, NULL, &now);
    return sigismember(&now, number) == 1;
}

static void *
note_signals(void *arg)
{
    bool *is_deaf = arg;

    *is_deaf = is_blocked(SIGHUP) && is_blocked(SIGTERM) && is_blocked(SIGPIPE);
    return NULL;
}

static void
test_signals(void **state)
{
    bool is_deaf = false;
    pthread_t thread;

    (void)state;
    assert_int_equal(thread_start(&thread, note_signals, &is_deaf), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(is_deaf);
    assert_false(is_blocked(SIGTERM));
}

struct handover {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_done;
};

static void *
hand_over(void *arg)
{
    struct handover *h = arg;

    pthread_mutex_lock(&h->lock);
    h->is_done = true;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void
test_wait(void **state)
{
    struct handover h = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;

    (void)state;
    thread_cond_init(&h.changed);
    pthread_mutex_lock(&h.lock);
    /* The clock's own time: by that of day, decades ahead, a moment to come would be over. */
    assert_int_equal(thread_cond_wait(&h.changed, &h.lock, clock_ms() - 1), ETIMEDOUT);
    assert_int_equal(thread_start(&thread, hand_over, &h), 0);
    while (!h.is_done)
        assert_int_equal(thread_cond_wait(&h.changed, &h.lock, clock_ms() + 60000), 0);
    pthread_mutex_unlock(&h.lock);
    pthread_join(thread, NULL);
    h.is_done = false;
    pthread_mutex_lock(&h.lock);
    assert_int_equal(thread_start(&thread, hand_over, &h), 0);
    while (!h.is_done)
        assert_int_equal(thread_cond_wait(&h.changed, &h.lock, INT64_MAX), 0);
    pthread_mutex_unlock(&h.lock);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&h.changed);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
