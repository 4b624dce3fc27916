#define _GNU_SOURCE
#include "ldap/dir_watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

struct dir_watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct dir_guard *armed;
    int64_t wakes_ms; /* when the thread looks next */
    bool is_cutting;  /* every deadline is over */
    bool is_ending;
};

static void
fire(struct dir_guard *g)
{
    g->has_fired = true;
    if (g->fd >= 0)
        shutdown(g->fd, SHUT_RDWR);
}

static void
unlink_guard(struct dir_guard *g)
{
    struct dir_guard **at = &g->watchdog->armed;

    while (*at && *at != g)
        at = &(*at)->next;
    if (*at)
        *at = g->next;
}

/* Fire what is over; the earliest deadline that is left. */
static int64_t
look(struct dir_watchdog *w, int64_t now_ms)
{
    struct dir_guard **at = &w->armed;
    int64_t earliest_ms = INT64_MAX;

    while (*at) {
        struct dir_guard *g = *at;

        if (g->deadline_ms <= now_ms) {
            *at = g->next;
            fire(g);
            continue;
        }
        if (g->deadline_ms < earliest_ms)
            earliest_ms = g->deadline_ms;
        at = &g->next;
    }
    return earliest_ms;
}

static void *
watch(void *arg)
{
    struct dir_watchdog *w = arg;

    pthread_mutex_lock(&w->lock);
    while (!w->is_ending) {
        w->wakes_ms = look(w, w->is_cutting ? INT64_MAX : clock_ms());
        (void)thread_cond_wait(&w->changed, &w->lock, w->wakes_ms);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

struct dir_watchdog *
dir_watchdog_new(struct err *e)
{
    struct dir_watchdog *w = calloc(1, sizeof *w);
    int rc;

    if (!w) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    thread_cond_init(&w->changed);
    w->wakes_ms = INT64_MAX;
    rc = thread_start(&w->thread, watch, w);
    if (rc != 0) {
        err_errno(e, ERR_SYSTEM, rc, "a thread");
        pthread_cond_destroy(&w->changed);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return NULL;
    }
    return w;
}

void
dir_watchdog_cut(struct dir_watchdog *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_cutting = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void
dir_watchdog_free(struct dir_watchdog **watchdog)
{
    struct dir_watchdog *w = *watchdog;

    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_ending = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    *watchdog = NULL;
}

void
dir_guard_init(struct dir_guard *g, struct dir_watchdog *w)
{
    *g = (struct dir_guard){.watchdog = w, .fd = -1};
}

void
dir_guard_arm(struct dir_guard *g, int64_t deadline_ms)
{
    struct dir_watchdog *w = g->watchdog;

    pthread_mutex_lock(&w->lock);
    unlink_guard(g);
    g->deadline_ms = deadline_ms;
    g->next = w->armed;
    w->armed = g;
    if (deadline_ms < w->wakes_ms) {
        /* Until the thread has looked nobody need wake it again. */
        w->wakes_ms = deadline_ms;
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
}

void
dir_guard_disarm(struct dir_guard *g)
{
    pthread_mutex_lock(&g->watchdog->lock);
    unlink_guard(g);
    pthread_mutex_unlock(&g->watchdog->lock);
}

void
dir_guard_watch(struct dir_guard *g, int fd)
{
    pthread_mutex_lock(&g->watchdog->lock);
    if (g->fd >= 0)
        close(g->fd);
    g->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (g->has_fired)
        fire(g);
    pthread_mutex_unlock(&g->watchdog->lock);
}

bool
dir_guard_close(struct dir_guard *g)
{
    bool has_fired;

    pthread_mutex_lock(&g->watchdog->lock);
    unlink_guard(g);
    if (g->fd >= 0)
        close(g->fd);
    g->fd = -1;
    has_fired = g->has_fired;
    g->has_fired = false;
    pthread_mutex_unlock(&g->watchdog->lock);
    return has_fired;
}
