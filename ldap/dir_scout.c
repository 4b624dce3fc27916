#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_scout.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "ldap/dir_link.h"

#define FIRST_MS 10000
#define LAST_MS  (5 * 60 * 1000)

struct dir_scout {
    struct dir_pool *pool;
    const struct dir_plan *plan;
    struct dir_link link;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_ending;
};

/* True: it is time to look; false: to end. */
static bool
pause_scout(struct dir_scout *s, int64_t ms)
{
    int64_t until_ms = clock_ms() + ms;
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000L};
    bool is_ending;

    pthread_mutex_lock(&s->lock);
    while (!s->is_ending && clock_ms() < until_ms)
        pthread_cond_timedwait(&s->changed, &s->lock, &until);
    is_ending = s->is_ending;
    pthread_mutex_unlock(&s->lock);
    return !is_ending;
}

static void *
run(void *arg)
{
    struct dir_scout *s = arg;
    int64_t pause_ms = FIRST_MS;

    while (pause_scout(s, pause_ms)) {
        enum dir_link_result result;
        struct err e;

        if (!dir_pool_is_abroad(s->pool)) {
            pause_ms = FIRST_MS;
            continue;
        }
        result = dir_link_open(&s->link, s->plan, 0, &e);
        dir_pool_server(s->pool, 0, result == DIR_LINK_OK ? NULL : e.text);
        dir_link_close(&s->link);
        if (result == DIR_LINK_OK)
            dir_pool_go_home(s->pool);
        pause_ms = result == DIR_LINK_REFUSED || pause_ms * 2 > LAST_MS ? LAST_MS : pause_ms * 2;
    }
    return NULL;
}

struct dir_scout *
dir_scout_new(struct dir_pool *pool, const struct dir_plan *plan, struct dir_watchdog *w,
              struct err *e)
{
    struct dir_scout *s = calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    sigset_t all, before;
    int rc;

    if (!s) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    s->pool = pool;
    s->plan = plan;
    dir_link_init(&s->link, w);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        err_errno(e, ERR_SYSTEM, rc, "a thread");
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
    }
    return s;
}

void
dir_scout_free(struct dir_scout **scout)
{
    struct dir_scout *s = *scout;

    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_ending = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *scout = NULL;
}
