#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file_version.h"
#include "base/siphash.h"
#include "ldap/dir_connection.h"
#include "ldap/dir_job.h"
#include "ldap/dir_scout.h"
#include "ldap/dir_servers.h"

#define BUCKETS  1024u
#define JOBS_MAX 10000u /* questions at a time; more are refused */

#define PROBE_MS 10000

#define BACKOFF_FIRST_MS   100
#define BACKOFF_LAST_MS    15000
#define BACKOFF_REFUSED_MS (10 * 60 * 1000) /* an account locks after a few wrong passwords */

struct member {
    struct dir_connection *connection;
    int wake; /* eventfd */
    bool is_woken, is_ready;
    size_t uri;      /* of the server */
    unsigned logins; /* the pool's when it was opened */
    size_t in_flight;
    int64_t next_try_ms;
    int64_t backoff_ms;
};

struct dir_pool {
    const struct settings_directory *conf;
    struct dir_cache *cache;
    struct dir_plan plan;
    struct dir_watchdog *watchdog;
    struct dir_scout *scout; /* if there is more than one server */
    struct siphash_key key;

    pthread_mutex_t lock; /* over all that follows */
    enum dir_pool_end end;
    size_t n_members, n_ready, n_ended;
    struct member *members;
    bool is_trying;    /* no connection is open, and one tries to connect */
    bool is_down;      /* no connection is open, and the last try failed */
    int64_t useful_ms; /* when the last useful connection was closed */
    int64_t next_try_ms, backoff_ms, refused_until_ms;
    unsigned jitter;
    struct file_version password; /* its file, as it was last looked at */
    unsigned logins;              /* how often it has changed */
    struct dir_servers *servers;
    struct dir_job *first, **last; /* the queue */
    size_t n_jobs;
    uint64_t searches;
    struct dir_job *buckets[BUCKETS];
};

/* The functions from here to "The connections' part" are called with the lock held. */

static void
wake(struct member *m)
{
    uint64_t one = 1;

    if (m->is_woken)
        return;
    m->is_woken = true;
    /* It fails only if the counter would overflow, and then it is readable anyway. */
    if (write(m->wake, &one, sizeof one) < 0)
        assert(errno == EAGAIN);
}

static void
wake_all(struct dir_pool *p)
{
    for (size_t i = 0; i < p->n_members; i++)
        wake(&p->members[i]);
}

/* Should M reconnect, to another server or with the new password? */
static bool
goes_home(const struct dir_pool *p, const struct member *m)
{
    return m->logins != p->logins || !dir_servers_is_up(p->servers, m->uri) ||
           (m->uri > 0 && dir_servers_is_up(p->servers, 0));
}

/* A connection that should reconnect gets no more questions, or it might never become idle. */
static bool
takes_jobs(const struct dir_pool *p, const struct member *m)
{
    return m->is_ready && !goes_home(p, m);
}

/* For a new question, wake the least busy connection; or all, if the previous question is still in
 * the queue (WAS_WAITING), since the connection that was woken for it may hang. */
static void
wake_for_job(struct dir_pool *p, bool was_waiting)
{
    struct member *best = NULL;

    for (size_t i = 0; i < p->n_members; i++) {
        struct member *m = &p->members[i];

        if (!takes_jobs(p, m))
            continue;
        if (was_waiting)
            wake(m);
        if (!best || m->in_flight < best->in_flight)
            best = m;
    }
    if (best)
        wake(best);
}

static void
queue_push(struct dir_pool *p, struct dir_job *job)
{
    bool was_waiting = p->first != NULL;

    job->next = NULL;
    *p->last = job;
    p->last = &job->next;
    wake_for_job(p, was_waiting);
}

static struct dir_job *
queue_pop(struct dir_pool *p)
{
    struct dir_job *job = p->first;

    if (job) {
        p->first = job->next;
        if (!p->first)
            p->last = &p->first;
    }
    return job;
}

static struct dir_job **
job_find(struct dir_pool *p, uint64_t hash, struct span key)
{
    struct dir_job **at = &p->buckets[hash % BUCKETS];

    while (*at && !((*at)->hash == hash && !(*at)->with_detail &&
                    span_equal(span_of((*at)->key, (*at)->n), key)))
        at = &(*at)->chain;
    return at;
}

static void
job_unlink(struct dir_pool *p, struct dir_job *job)
{
    struct dir_job **at = &p->buckets[job->hash % BUCKETS];

    while (*at != job)
        at = &(*at)->chain;
    *at = job->chain;
    p->n_jobs--;
}

static void
job_free(struct dir_job *job)
{
    while (job->waiters) {
        struct dir_waiter *w = job->waiters;

        job->waiters = w->next;
        dir_inbox_close(&w->box);
        free(w);
    }
    free(job);
}

/* Post V to every waiter of JOB, which must be out of the queue and the table, and free it. */
static void
job_answer(struct dir_job *job, const struct dir_verdict *v, struct dir_detail *detail)
{
    for (struct dir_waiter *w = job->waiters; w; w = w->next) {
        struct dir_reply *r = calloc(1, sizeof *r);

        if (!r)
            continue; /* its deadline answers */
        r->id = w->id;
        r->step = w->step;
        r->verdict = *v;
        r->detail = detail; /* of one waiter only */
        detail = NULL;
        mailbox_post(dir_inbox_mailbox(w->box), &r->item);
    }
    free(detail);
    job_free(job);
}

static void
job_fail(struct dir_pool *p, struct dir_job *job, const char *why)
{
    static const struct dir_verdict unavailable = {.status = DIR_UNAVAILABLE};
    struct dir_detail *detail = job->with_detail ? calloc(1, sizeof *detail) : NULL;

    if (detail)
        dir_servers_explain(p->servers, why, detail);
    job_unlink(p, job);
    job_answer(job, &unavailable, detail);
}

static void
fail_queue(struct dir_pool *p)
{
    for (struct dir_job *job = queue_pop(p); job; job = queue_pop(p))
        job_fail(p, job, NULL);
}

static bool
job_add_waiter(struct dir_job *job, struct dir_inbox *box, uint64_t id, unsigned step)
{
    struct dir_waiter *w = malloc(sizeof *w);

    if (!w)
        return false;
    w->box = dir_inbox_ref(box);
    w->id = id;
    w->step = step;
    w->next = job->waiters;
    job->waiters = w;
    return true;
}

/* No connection is open, and none can be opened: fail all questions.  Not within the timeout after
 * a useful connection was closed, in which a server may restart. */
static void
go_down(struct dir_pool *p, bool is_refused)
{
    if (!is_refused && clock_ms() - p->useful_ms < p->conf->timeout)
        return;
    p->is_down = true;
    fail_queue(p);
}

/* Up to a quarter more or less, so that many instances do not reconnect at the same time. */
static int64_t
jittered(struct dir_pool *p, int64_t ms)
{
    p->jitter = p->jitter * 1103515245u + 12345u;
    return ms - ms / 4 + (int64_t)(p->jitter >> 16) % (ms / 2 + 1);
}

/* What was cut off at the end says nothing of the server. */
static bool
is_cut_off(const struct dir_pool *p, const char *error)
{
    return error && p->end == DIR_POOL_END_NOW;
}

static void
server_state(struct dir_pool *p, size_t uri, const char *error)
{
    if (is_cut_off(p, error))
        return;
    if (dir_servers_note(p->servers, uri, error))
        wake_all(p); /* its connections may have to reconnect */
}

/* The connections' part. */

bool
dir_pool_may_try(struct dir_pool *p, size_t who, int64_t now_ms, int64_t *until_ms)
{
    struct member *m = &p->members[who];
    bool may = false;

    pthread_mutex_lock(&p->lock);
    *until_ms = p->n_ready > 0 ? m->next_try_ms : p->is_trying ? INT64_MAX : p->next_try_ms;
    if (*until_ms < p->refused_until_ms)
        *until_ms = p->refused_until_ms;
    if (*until_ms <= now_ms) {
        may = true;
        m->logins = p->logins;
        p->is_trying = p->is_trying || p->n_ready == 0;
    }
    pthread_mutex_unlock(&p->lock);
    return may;
}

void
dir_pool_opened(struct dir_pool *p, size_t who, size_t uri, const char *search_error)
{
    struct member *m = &p->members[who];

    pthread_mutex_lock(&p->lock);
    server_state(p, uri, NULL);
    if (p->n_ready == 0)
        dir_servers_doubt(p->servers);
    if (!is_cut_off(p, search_error))
        dir_servers_searched(p->servers, uri, search_error);
    m->is_ready = true;
    m->uri = uri;
    m->next_try_ms = 0;
    p->n_ready++;
    p->is_trying = false;
    p->is_down = false;
    p->next_try_ms = 0;
    p->refused_until_ms = 0;
    wake_all(p);
    pthread_mutex_unlock(&p->lock);
}

static int64_t
back_off(struct dir_pool *p, int64_t *backoff_ms)
{
    int64_t next_ms = clock_ms() + jittered(p, *backoff_ms);

    *backoff_ms = *backoff_ms * 2 < BACKOFF_LAST_MS ? *backoff_ms * 2 : BACKOFF_LAST_MS;
    return next_ms;
}

void
dir_pool_failed(struct dir_pool *p, size_t who, bool is_refused)
{
    struct member *m = &p->members[who];

    pthread_mutex_lock(&p->lock);
    m->next_try_ms = back_off(p, &m->backoff_ms);
    if (is_refused)
        p->refused_until_ms = clock_ms() + jittered(p, BACKOFF_REFUSED_MS);
    if (p->n_ready == 0) {
        p->next_try_ms = back_off(p, &p->backoff_ms);
        p->is_trying = false;
        go_down(p, is_refused);
        wake_all(p);
    }
    pthread_mutex_unlock(&p->lock);
}

void
dir_pool_closed(struct dir_pool *p, size_t who, bool was_useful, bool was_early)
{
    struct member *m = &p->members[who];

    pthread_mutex_lock(&p->lock);
    assert(m->is_ready);
    m->is_ready = false;
    p->n_ready--;
    if (was_useful)
        p->useful_ms = clock_ms();
    if (was_early) {
        m->next_try_ms = back_off(p, &m->backoff_ms);
        p->next_try_ms = m->next_try_ms;
    } else {
        m->backoff_ms = p->backoff_ms = BACKOFF_FIRST_MS;
    }
    bool is_refused = clock_ms() < p->refused_until_ms;
    if (p->n_ready == 0 && (is_refused || dir_servers_are_all_down(p->servers)))
        go_down(p, is_refused);
    pthread_mutex_unlock(&p->lock);
}

void
dir_pool_server(struct dir_pool *p, size_t uri, const char *error)
{
    pthread_mutex_lock(&p->lock);
    server_state(p, uri, error);
    pthread_mutex_unlock(&p->lock);
}

void
dir_pool_search_state(struct dir_pool *p, size_t uri, const char *error)
{
    pthread_mutex_lock(&p->lock);
    if (!is_cut_off(p, error))
        dir_servers_searched(p->servers, uri, error);
    pthread_mutex_unlock(&p->lock);
}

bool
dir_pool_may_probe(struct dir_pool *p, int64_t now_ms)
{
    bool may;

    pthread_mutex_lock(&p->lock);
    may = dir_servers_probe_ms(p->servers) <= now_ms;
    if (may)
        dir_servers_set_probe(p->servers, now_ms + jittered(p, PROBE_MS));
    pthread_mutex_unlock(&p->lock);
    return may;
}

int64_t
dir_pool_probe_ms(struct dir_pool *p)
{
    int64_t probe_ms;

    pthread_mutex_lock(&p->lock);
    probe_ms = dir_servers_probe_ms(p->servers);
    pthread_mutex_unlock(&p->lock);
    return probe_ms;
}

bool
dir_pool_is_server_down(struct dir_pool *p, size_t uri)
{
    bool is_down;

    pthread_mutex_lock(&p->lock);
    is_down = dir_servers_is_down(p->servers, uri);
    pthread_mutex_unlock(&p->lock);
    return is_down;
}

bool
dir_pool_goes_home(struct dir_pool *p, size_t who)
{
    bool goes;

    pthread_mutex_lock(&p->lock);
    goes = goes_home(p, &p->members[who]);
    pthread_mutex_unlock(&p->lock);
    return goes;
}

bool
dir_pool_is_unvisited(struct dir_pool *p, size_t uri)
{
    bool is_unvisited;

    pthread_mutex_lock(&p->lock);
    is_unvisited = p->n_ready > 0;
    for (size_t i = 0; i < p->n_members; i++)
        if (p->members[i].is_ready && p->members[i].uri == uri)
            is_unvisited = false;
    pthread_mutex_unlock(&p->lock);
    return is_unvisited;
}

void
dir_pool_go_home(struct dir_pool *p)
{
    pthread_mutex_lock(&p->lock);
    wake_all(p);
    pthread_mutex_unlock(&p->lock);
}

struct dir_job *
dir_pool_take(struct dir_pool *p, size_t who, int64_t now_ms)
{
    struct dir_job *job;

    pthread_mutex_lock(&p->lock);
    job = takes_jobs(p, &p->members[who]) ? queue_pop(p) : NULL;
    while (job && now_ms - job->asked_ms >= p->conf->timeout) {
        job_fail(p, job, NULL);
        job = queue_pop(p);
    }
    if (job) {
        p->members[who].in_flight++;
        p->searches++;
    }
    pthread_mutex_unlock(&p->lock);
    return job;
}

void
dir_pool_done(struct dir_pool *p, size_t who, struct dir_job *job, const struct dir_verdict *v,
              struct dir_detail *detail)
{
    /* First the cache: once the job is gone, the next asker must find the answer there. */
    dir_cache_put(p->cache, span_of(job->key, job->n), clock_ms(), v);
    pthread_mutex_lock(&p->lock);
    p->members[who].in_flight--;
    job_unlink(p, job);
    if (p->end == DIR_POOL_END_WHEN_IDLE && p->n_jobs == 0)
        wake_all(p);
    pthread_mutex_unlock(&p->lock);
    job_answer(job, v, detail);
}

void
dir_pool_give_back(struct dir_pool *p, size_t who, struct dir_job *job, const char *why)
{
    pthread_mutex_lock(&p->lock);
    p->members[who].in_flight--;
    if (job->was_retried || p->is_down || p->end == DIR_POOL_END_NOW) {
        job_fail(p, job, why);
    } else {
        job->was_retried = true;
        queue_push(p, job);
    }
    pthread_mutex_unlock(&p->lock);
}

enum dir_pool_end
dir_pool_woken(struct dir_pool *p, size_t who)
{
    struct member *m = &p->members[who];
    enum dir_pool_end end;
    uint64_t count;

    pthread_mutex_lock(&p->lock);
    if (m->is_woken && read(m->wake, &count, sizeof count) < 0)
        assert(errno == EAGAIN);
    m->is_woken = false;
    end = p->end;
    if (end == DIR_POOL_END_WHEN_IDLE && p->n_jobs == 0)
        end = DIR_POOL_END_NOW;
    pthread_mutex_unlock(&p->lock);
    return end;
}

void
dir_pool_ended(struct dir_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->n_ended++;
    pthread_mutex_unlock(&p->lock);
}

/* The owner's part. */

static int
start_members(struct dir_pool *p, struct err *e)
{
    const size_t n = (size_t)p->conf->connections;

    p->members = calloc(n, sizeof *p->members);
    p->servers = dir_servers_new(p->conf);
    p->watchdog = dir_watchdog_new(e);
    if (!p->members || !p->servers || !p->watchdog || dir_plan_init(&p->plan, p->conf) < 0)
        return err_set(e, ERR_SYSTEM, "out of memory");
    for (; p->n_members < n; p->n_members++) {
        struct member *m = &p->members[p->n_members];

        m->backoff_ms = BACKOFF_FIRST_MS;
        m->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (m->wake < 0)
            return err_errno(e, ERR_SYSTEM, errno, "eventfd");
    }
    for (size_t i = 0; i < n; i++) {
        struct member *m = &p->members[i];

        m->connection = dir_connection_new(p, i, &p->plan, p->watchdog, m->wake, e);
        if (!m->connection)
            return -1;
    }
    if (p->conf->uri.n > 1) {
        p->scout = dir_scout_new(p, &p->plan, p->watchdog, e);
        if (!p->scout)
            return -1;
    }
    return 0;
}

struct dir_pool *
dir_pool_new(const struct settings_directory *conf, struct dir_cache *cache, struct err *e)
{
    struct dir_pool *p = calloc(1, sizeof *p);

    if (!p) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    p->conf = conf;
    p->cache = cache;
    p->key = siphash_key_random();
    memcpy(&p->jitter, &p->key, sizeof p->jitter);
    p->password = file_version_of(conf->bind_password_file);
    p->backoff_ms = BACKOFF_FIRST_MS;
    p->useful_ms = clock_ms() - conf->timeout; /* never yet */
    p->last = &p->first;
    pthread_mutex_init(&p->lock, NULL);
    if (start_members(p, e) < 0)
        dir_pool_free(&p);
    return p;
}

static void
end(struct dir_pool *p, enum dir_pool_end how)
{
    pthread_mutex_lock(&p->lock);
    p->end = how;
    wake_all(p);
    pthread_mutex_unlock(&p->lock);
    dir_scout_stop(p->scout);
}

void
dir_pool_stop(struct dir_pool *p)
{
    end(p, DIR_POOL_END_WHEN_IDLE);
}

bool
dir_pool_has_ended(struct dir_pool *p)
{
    bool has_ended;

    pthread_mutex_lock(&p->lock);
    has_ended = p->n_ended == p->n_members + (p->scout ? 1 : 0);
    pthread_mutex_unlock(&p->lock);
    return has_ended;
}

void
dir_pool_free(struct dir_pool **pool)
{
    struct dir_pool *p = *pool;
    struct dir_job *job;

    if (!p)
        return;
    end(p, DIR_POOL_END_NOW);
    if (p->watchdog)
        dir_watchdog_cut(p->watchdog);
    dir_scout_free(&p->scout);
    for (size_t i = 0; i < p->n_members; i++)
        dir_connection_free(&p->members[i].connection);
    for (size_t i = 0; i < p->n_members; i++)
        close(p->members[i].wake); /* only now: until it ends, a thread may wake the others */
    dir_watchdog_free(&p->watchdog);
    while ((job = queue_pop(p)) != NULL)
        job_free(job);
    dir_plan_clear(&p->plan);
    free(p->members);
    dir_servers_free(&p->servers);
    pthread_mutex_destroy(&p->lock);
    free(p);
    *pool = NULL;
}

static bool
ask_locked(struct dir_pool *p, struct span key, bool with_detail, struct dir_inbox *box,
           uint64_t id, unsigned step)
{
    uint64_t hash = siphash64(&p->key, key.p, key.n);
    struct dir_job *job = with_detail ? NULL : *job_find(p, hash, key);

    /* A question with detail is accepted even then: its answer explains why. */
    if (p->is_down && !with_detail)
        return false;
    if (job)
        return job_add_waiter(job, box, id, step);
    if (p->n_jobs >= JOBS_MAX)
        return false;
    job = calloc(1, sizeof *job + key.n);
    if (!job || !job_add_waiter(job, box, id, step)) {
        free(job);
        return false;
    }
    job->hash = hash;
    job->asked_ms = clock_ms();
    job->with_detail = with_detail;
    job->n = key.n;
    memcpy(job->key, key.p, key.n);
    job->chain = p->buckets[hash % BUCKETS];
    p->buckets[hash % BUCKETS] = job;
    p->n_jobs++;
    if (p->is_down)
        job_fail(p, job, NULL);
    else
        queue_push(p, job);
    return true;
}

bool
dir_pool_ask(struct dir_pool *p, struct span key, bool with_detail, struct dir_inbox *box,
             uint64_t id, unsigned step)
{
    bool is_asked;

    pthread_mutex_lock(&p->lock);
    is_asked = ask_locked(p, key, with_detail, box, id, step);
    pthread_mutex_unlock(&p->lock);
    return is_asked;
}

void
dir_pool_explain(struct dir_pool *p, struct dir_detail *detail)
{
    pthread_mutex_lock(&p->lock);
    dir_servers_explain(p->servers, NULL, detail);
    pthread_mutex_unlock(&p->lock);
}

bool
dir_pool_is_up(struct dir_pool *p)
{
    bool is_up;

    pthread_mutex_lock(&p->lock);
    is_up = !p->is_down && !dir_servers_are_mute(p->servers);
    pthread_mutex_unlock(&p->lock);
    return is_up;
}

void
dir_pool_retry(struct dir_pool *p)
{
    struct file_version password = file_version_of(p->conf->bind_password_file);

    pthread_mutex_lock(&p->lock);
    if (!file_version_equal(&password, &p->password))
        p->logins++;
    p->password = password;
    p->next_try_ms = 0;
    p->refused_until_ms = 0;
    for (size_t i = 0; i < p->n_members; i++)
        p->members[i].next_try_ms = 0;
    wake_all(p);
    pthread_mutex_unlock(&p->lock);
}

void
dir_pool_view(struct dir_pool *p, struct dir_view *out)
{
    pthread_mutex_lock(&p->lock);
    out->is_up = p->n_ready > 0;
    out->pending = (unsigned)p->n_jobs;
    out->searches = p->searches;
    dir_servers_view(p->servers, out);
    pthread_mutex_unlock(&p->lock);
}
