#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_connection.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "ldap/dir_link.h"
#include "ldap/dir_query.h"
#include "ldap/dir_timing.h"
#include "ldap/dir_wire.h"

/* Searches at once over a connection: enough to hide the round trip; OpenLDAP closes an anonymous
 * connection with over 100 of them. */
#define FLIGHTS_MAX 64

#define EARLY_MS 1000 /* after a connection that ends so soon the next one has to wait */

struct flight {
    struct dir_job *job;
    struct dir_query *query;
    int id; /* of the message */
    int64_t sent_ms;
};

struct dir_connection {
    struct dir_pool *pool;
    size_t who;
    const struct dir_plan *plan;
    int wake;
    pthread_t thread;
    struct dir_link link;
    size_t uri;        /* which server it is, or was */
    size_t n_strikes;  /* two for each server in a row that is not of use */
    bool has_answered; /* a search, since it was opened */
    int64_t opened_ms;
    int64_t heard_ms; /* when something last came */
    struct err lost;  /* why the link is, if this turn finds it so */
    bool *is_tried;   /* for each server */
    size_t n_flights;
    struct flight flights[FLIGHTS_MAX];
};

/* The link is gone: WHY, or NULL if it is given up.  A server that IS_MUTE, or that twice in a row
 * cut a connection which had not answered a question yet, is as good as down. */
static void
lose(struct dir_connection *c, const char *why, bool is_mute)
{
    const struct settings_directory *conf = c->plan->conf;
    bool is_unanswered = why && !c->has_answered && c->n_flights > 0;
    bool is_early = why && clock_ms() - c->opened_ms < EARLY_MS;
    bool is_useless;

    c->n_strikes = is_mute ? c->n_strikes + 2 : is_unanswered ? c->n_strikes + 1 : 0;
    is_useless = c->n_strikes > 1;
    dir_link_close(&c->link);
    dir_pool_closed(c->pool, c->who, why && !is_useless, is_early);
    if (is_useless) {
        dir_pool_server(c->pool, c->uri, why);
        if (c->n_strikes >= 2 * conf->uri.n) {
            c->n_strikes = 0;
            dir_pool_failed(c->pool, c->who, false);
        }
    }
    while (c->n_flights > 0) {
        struct flight *f = &c->flights[--c->n_flights];

        dir_query_free(&f->query);
        dir_pool_give_back(c->pool, c->who, f->job, why);
    }
}

static void
land(struct dir_connection *c, struct flight *f, const struct dir_verdict *v)
{
    struct dir_detail *detail = dir_query_take_detail(f->query);

    if (detail) {
        span_copy(detail->server, sizeof detail->server, span_str(c->plan->conf->uri.v[c->uri]));
        span_copy(detail->directory, sizeof detail->directory, span_str(c->plan->conf->name));
    }
    dir_pool_done(c->pool, c->who, f->job, v, detail);
    dir_query_free(&f->query);
    *f = c->flights[--c->n_flights];
}

/* Send the next search of F, or give its answer.  False: the link is lost. */
static bool
advance(struct dir_connection *c, struct flight *f)
{
    int sent = dir_wire_send(c->link.ld, c->plan, f->query, &f->id);

    f->sent_ms = clock_ms();
    if (sent == 0)
        land(c, f, dir_query_verdict(f->query));
    return sent >= 0;
}

static bool
take_jobs(struct dir_connection *c)
{
    struct dir_job *job;

    while (c->n_flights < FLIGHTS_MAX &&
           (job = dir_pool_take(c->pool, c->who, clock_ms())) != NULL) {
        static const struct dir_verdict unavailable = {.status = DIR_UNAVAILABLE};
        struct flight *f = &c->flights[c->n_flights];

        *f = (struct flight){.job = job};
        f->query = dir_query_new(c->plan, span_of(job->key, job->n), job->with_detail);
        if (!f->query) {
            dir_pool_done(c->pool, c->who, job, &unavailable, NULL);
            continue;
        }
        c->n_flights++;
        if (!advance(c, f))
            return false;
    }
    return true;
}

static bool
take_message(struct dir_connection *c, LDAPMessage *m)
{
    int id = ldap_msgid(m);
    struct flight *f = c->flights;
    struct err e;

    while (f < c->flights + c->n_flights && f->id != id)
        f++;
    if (f == c->flights + c->n_flights)
        return id != 0; /* an abandoned one; or 0, the notice of disconnection (RFC 4511 4.4.1) */
    switch (dir_wire_take(c->link.ld, f->query, m, &e)) {
    case DIR_WIRE_GOES_ON:
        return true;
    case DIR_WIRE_ENDED:
    case DIR_WIRE_REFUSED:
        c->has_answered = true;
        c->n_strikes = 0;
        if (e.kind != ERR_NONE)
            dir_pool_search_state(c->pool, c->uri, e.text);
        else if (dir_query_verdict(f->query)->status != DIR_UNAVAILABLE)
            dir_pool_search_state(c->pool, c->uri, NULL);
        return advance(c, f);
    case DIR_WIRE_LOST:
        c->lost = e;
        break;
    }
    return false;
}

/* With TLS several messages may wait within libldap, and no descriptor tells: until there is none.
 */
static bool
take_messages(struct dir_connection *c)
{
    for (;;) {
        struct timeval zero = {.tv_sec = 0};
        LDAPMessage *m = NULL;
        int rc = ldap_result(c->link.ld, LDAP_RES_ANY, LDAP_MSG_ONE, &zero, &m);
        bool is_fine;

        if (rc == 0)
            return true;
        if (rc < 0)
            return false;
        c->heard_ms = clock_ms();
        is_fine = take_message(c, m);
        ldap_msgfree(m);
        if (!is_fine)
            return false;
    }
}

/* Give up searches that got no answer in time; false if nothing at all has come since. */
static bool
expire(struct dir_connection *c, int64_t now_ms)
{
    static const struct dir_verdict unavailable = {.status = DIR_UNAVAILABLE};
    const struct settings_directory *conf = c->plan->conf;

    for (size_t i = c->n_flights; i > 0; i--) {
        struct flight *f = &c->flights[i - 1];

        switch (dir_timing_patience(f->sent_ms, c->heard_ms, now_ms, conf->timeout, conf->uri.n)) {
        case DIR_PATIENCE_WAIT:
            break;
        case DIR_PATIENCE_GIVE_UP:
            ldap_abandon_ext(c->link.ld, f->id, NULL, NULL);
            dir_query_explain(f->query, "no answer within the timeout");
            land(c, f, &unavailable);
            break;
        case DIR_PATIENCE_LOST:
            return false;
        }
    }
    return true;
}

static int64_t
next_ms(const struct dir_connection *c)
{
    const struct settings_directory *conf = c->plan->conf;
    int64_t next = c->heard_ms + DIR_IDLE_MAX_MS, probe_ms = dir_pool_probe_ms(c->pool);

    if (c->n_flights == 0 && probe_ms < next)
        next = probe_ms;
    for (size_t i = 0; i < c->n_flights; i++) {
        int64_t end_ms =
            dir_timing_end_ms(c->flights[i].sent_ms, c->heard_ms, conf->timeout, conf->uri.n);

        if (end_ms < next)
            next = end_ms;
    }
    return next;
}

/* Until something happens, or UNTIL_MS. */
static void
wait_for(struct dir_connection *c, int fd, int64_t until_ms)
{
    struct pollfd fds[2] = {{.fd = c->wake, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    int64_t now_ms = clock_ms();
    int64_t ms = until_ms == INT64_MAX ? -1 : until_ms <= now_ms ? 0 : until_ms - now_ms;

    poll(fds, fd < 0 ? 1 : 2, ms > 60000 ? 60000 : (int)ms);
}

/* A search failed: is it that one, or all?  False: all. */
static bool
probe(struct dir_connection *c)
{
    if (c->n_flights > 0 || !dir_pool_may_probe(c->pool, clock_ms()))
        return true;
    if (dir_wire_probe(&c->link, c->plan, &c->lost) < 0)
        return false;
    c->heard_ms = clock_ms();
    dir_pool_search_state(c->pool, c->uri, c->lost.kind == ERR_NONE ? NULL : c->lost.text);
    return true;
}

/* One turn with an open link. */
static void
serve(struct dir_connection *c)
{
    const int64_t timeout_ms = c->plan->conf->timeout;
    bool is_fine;
    int fd = -1;

    err_set(&c->lost, ERR_LDAP, "the connection was lost");
    dir_guard_arm(&c->link.guard, clock_ms() + timeout_ms);
    is_fine = take_messages(c) && take_jobs(c);
    dir_guard_disarm(&c->link.guard);
    if (!is_fine) {
        lose(c, c->lost.text, false);
    } else if (!expire(c, clock_ms())) {
        lose(c, "no answer within the timeout", true);
    } else if (!probe(c)) {
        lose(c, c->lost.text, true);
    } else if (c->n_flights == 0 && (dir_timing_is_idle(c->heard_ms, clock_ms()) ||
                                     dir_pool_goes_home(c->pool, c->who))) {
        lose(c, NULL, false);
    } else if (ldap_get_option(c->link.ld, LDAP_OPT_DESC, &fd) == LDAP_OPT_SUCCESS) {
        wait_for(c, fd, next_ms(c));
    }
}

/* True: the end of open_any. */
static bool
open_one(struct dir_connection *c, size_t uri)
{
    struct err e;

    if (dir_pool_woken(c->pool, c->who) == DIR_POOL_END_NOW)
        return true;
    switch (dir_wire_open(&c->link, c->plan, uri, &e)) {
    case DIR_LINK_OK:
        c->uri = uri;
        c->has_answered = false;
        c->opened_ms = c->heard_ms = clock_ms();
        dir_pool_opened(c->pool, c->who, uri, e.kind == ERR_NONE ? NULL : e.text);
        return true;
    case DIR_LINK_REFUSED:
        dir_pool_server(c->pool, uri, e.text);
        dir_pool_failed(c->pool, c->who, true);
        return true;
    case DIR_LINK_FAILED:
        dir_pool_server(c->pool, uri, e.text);
        break;
    }
    return false;
}

/* The servers in their order, but those that are known to be down last. */
static void
open_any(struct dir_connection *c)
{
    const size_t n = c->plan->conf->uri.n;

    for (size_t uri = 0; uri < n; uri++) {
        c->is_tried[uri] = !dir_pool_is_server_down(c->pool, uri);
        if (c->is_tried[uri] && open_one(c, uri))
            return;
    }
    for (size_t uri = 0; uri < n; uri++)
        if (!c->is_tried[uri] && open_one(c, uri))
            return;
    dir_pool_failed(c->pool, c->who, false);
}

static void *
run(void *arg)
{
    struct dir_connection *c = arg;

    while (dir_pool_woken(c->pool, c->who) != DIR_POOL_END_NOW) {
        int64_t until_ms;

        if (c->link.ld)
            serve(c);
        else if (dir_pool_may_try(c->pool, c->who, clock_ms(), &until_ms))
            open_any(c);
        else
            wait_for(c, -1, until_ms);
    }
    if (c->link.ld)
        lose(c, NULL, false);
    dir_pool_ended(c->pool);
    return NULL;
}

struct dir_connection *
dir_connection_new(struct dir_pool *pool, size_t who, const struct dir_plan *plan,
                   struct dir_watchdog *w, int wake, struct err *e)
{
    struct dir_connection *c = calloc(1, sizeof *c);
    int rc;

    if (c)
        c->is_tried = calloc(plan->conf->uri.n + 1, sizeof *c->is_tried);
    if (!c || !c->is_tried) {
        free(c);
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    c->pool = pool;
    c->who = who;
    c->plan = plan;
    c->wake = wake;
    dir_link_init(&c->link, w);
    rc = thread_start(&c->thread, run, c);
    if (rc != 0) {
        err_errno(e, ERR_SYSTEM, rc, "a thread");
        free(c->is_tried);
        free(c);
        return NULL;
    }
    return c;
}

void
dir_connection_free(struct dir_connection **c)
{
    if (!*c)
        return;
    pthread_join((*c)->thread, NULL);
    free((*c)->is_tried);
    free(*c);
    *c = NULL;
}
