#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_scout.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/thread.h"
#include "ldap/dir_wire.h"

#define FIRST_MS   10000
#define STANDBY_MS 1000 /* until the first visit to those that stand by */
#define LAST_MS    (5 * 60 * 1000)
#define REFUSED_MS (15 * 60 * 1000) /* an account locks after a few wrong passwords */

/* When a server is tried next, and how long after that again. */
struct visit {
    int64_t next_ms, pause_ms;
};

struct dir_scout {
    struct dir_pool *pool;
    const struct dir_plan *plan;
    struct dir_link link;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_ending;
    struct visit visits[]; /* one for each server */
};

/* The server that is due first. */
static size_t
next_visit(const struct dir_scout *s)
{
    size_t uri = 0;

    for (size_t i = 1; i < s->plan->conf->uri.n; i++)
        if (s->visits[i].next_ms < s->visits[uri].next_ms)
            uri = i;
    return uri;
}

/* True: it is time to look; false: to end. */
static bool
pause_scout(struct dir_scout *s, int64_t until_ms)
{
    bool is_ending;

    pthread_mutex_lock(&s->lock);
    while (!s->is_ending && clock_ms() < until_ms)
        (void)thread_cond_wait(&s->changed, &s->lock, until_ms);
    is_ending = s->is_ending;
    pthread_mutex_unlock(&s->lock);
    return !is_ending;
}

static void
visit(struct dir_scout *s, size_t uri)
{
    struct visit *v = &s->visits[uri];
    struct err e;

    switch (dir_wire_open(&s->link, s->plan, uri, &e)) {
    case DIR_LINK_OK:
        dir_pool_server(s->pool, uri, NULL);
        dir_link_close(&s->link);
        v->pause_ms = LAST_MS;
        if (uri == 0)
            dir_pool_go_home(s->pool);
        return;
    case DIR_LINK_FAILED:
        v->pause_ms = v->pause_ms * 2 < LAST_MS ? v->pause_ms * 2 : LAST_MS;
        break;
    case DIR_LINK_REFUSED:
        v->pause_ms = REFUSED_MS;
        break;
    }
    dir_pool_server(s->pool, uri, e.text);
}

static void *
run(void *arg)
{
    struct dir_scout *s = arg;
    size_t uri = next_visit(s);

    while (pause_scout(s, s->visits[uri].next_ms)) {
        struct visit *v = &s->visits[uri];

        if (dir_pool_is_unvisited(s->pool, uri))
            visit(s, uri);
        else
            v->pause_ms = FIRST_MS;
        v->next_ms = clock_ms() + v->pause_ms;
        uri = next_visit(s);
    }
    dir_pool_ended(s->pool);
    return NULL;
}

struct dir_scout *
dir_scout_new(struct dir_pool *pool, const struct dir_plan *plan, struct dir_watchdog *w,
              struct err *e)
{
    const size_t n = plan->conf->uri.n;
    struct dir_scout *s = calloc(1, sizeof *s + n * sizeof s->visits[0]);
    int rc;

    if (!s) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    s->pool = pool;
    s->plan = plan;
    dir_link_init(&s->link, w);
    for (size_t i = 0; i < n; i++)
        s->visits[i] = (struct visit){.next_ms = clock_ms() + (i == 0 ? FIRST_MS : STANDBY_MS),
                                      .pause_ms = FIRST_MS};
    pthread_mutex_init(&s->lock, NULL);
    thread_cond_init(&s->changed);
    rc = thread_start(&s->thread, run, s);
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
dir_scout_stop(struct dir_scout *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_ending = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void
dir_scout_free(struct dir_scout **scout)
{
    struct dir_scout *s = *scout;

    if (!s)
        return;
    dir_scout_stop(s);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *scout = NULL;
}
