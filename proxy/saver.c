#include "proxy/saver.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "policy/policy.h"
#include "proxy/relay/host_memory.h"
#include "proxy/server.h"

#define SAVE_EVERY_MS 2000

struct saver {
    struct server *srv;
    pthread_t thread;
    pthread_mutex_t lock; /* over is_ending */
    pthread_cond_t condition;
    bool is_ending;
    /* At the last attempt they could not be written; the thread's, and then saver_free's. */
    bool is_policy_unsaved, is_hosts_unsaved;
};

/* It is said when something can no longer be written, and when it can again. */
static void
tell_saved(const char *event, bool *is_unsaved, bool is_saved, const struct err *e)
{
    if (is_saved && *is_unsaved)
        log_event(LOG_LEVEL_NOTICE, event, "state", "up", NULL);
    else if (!is_saved && !*is_unsaved)
        log_event(LOG_LEVEL_WARNING, event, "state", "degraded", "error", e->text, NULL);
    *is_unsaved = !is_saved;
}

static void
save_hosts(struct saver *s, const struct settings *st)
{
    struct err e = {.kind = ERR_NONE};

    if (st->server.state_dir != NULL)
        tell_saved("downstream", &s->is_hosts_unsaved,
                   host_memory_save(s->srv->hosts, st->server.state_dir, &e) == 0, &e);
}

static void
save_policy(struct saver *s, const struct settings *st)
{
    struct err e = {.kind = ERR_NONE};

    tell_saved("ledger", &s->is_policy_unsaved,
               policy_save(s->srv->policy, st, clock_ms(), &e) == 0, &e);
}

/* False at the end. */
static bool
wait_until(struct saver *s, int64_t until_ms)
{
    pthread_mutex_lock(&s->lock);
    while (!s->is_ending && clock_ms() < until_ms)
        (void)thread_cond_wait(&s->condition, &s->lock, until_ms);
    bool is_ending = s->is_ending;
    pthread_mutex_unlock(&s->lock);
    return !is_ending;
}

static void *
run(void *arg)
{
    struct saver *s = arg;
    int64_t due_ms = clock_ms() + SAVE_EVERY_MS;

    while (wait_until(s, due_ms)) {
        struct settings *st = server_settings(s->srv);
        due_ms = clock_ms() + SAVE_EVERY_MS;
        save_policy(s, st);
        save_hosts(s, st);
        settings_unref(st);
    }
    return NULL;
}

struct saver *
saver_new(struct server *srv, struct err *e)
{
    struct saver *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    s->srv = srv;
    pthread_mutex_init(&s->lock, NULL);
    thread_cond_init(&s->condition);
    int error = thread_start(&s->thread, run, s);
    if (error != 0) {
        err_errno(e, ERR_SYSTEM, error, "thread");
        pthread_cond_destroy(&s->condition);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
    }
    return s;
}

void
saver_free(struct saver **sp)
{
    struct saver *s = *sp;

    if (s == NULL)
        return;
    *sp = NULL;
    pthread_mutex_lock(&s->lock);
    s->is_ending = true;
    pthread_cond_signal(&s->condition);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    struct settings *st = server_settings(s->srv);
    save_hosts(s, st);
    settings_unref(st);
    pthread_cond_destroy(&s->condition);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
