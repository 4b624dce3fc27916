#define _GNU_SOURCE /* accept4 */
#include "proxy/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/thread.h"
#include "policy/delivered.h"
#include "proxy/ops/metrics.h"
#include "proxy/sandbox.h"
#include "proxy/session/delivery.h"
#include "proxy/session/session.h"
#include "proxy/smtp/reply.h"

/* So many connections are taken from one listener in a turn. */
#define ACCEPT_BATCH 64
/* How long the loop works off what it found active before it looks for more. */
#define TURN_MS 5
/* Above this part of max_connections a client's silence is borne for PRESSED_MS only. */
#define PRESSURE_PERCENT 80
#define PRESSED_MS       10000

enum letter_kind {
    LETTER_ACCEPT,
    LETTER_RELOAD,
    LETTER_DRAIN,
    LETTER_STOP,
    LETTER_ROUTE,
    LETTER_DELIVERY
};

struct letter {
    struct mailbox_item item;
    enum letter_kind kind;
    struct settings *settings;
    struct tls_contexts *tls;
    struct route *route;
    uint64_t ticket;
};

struct listener {
    struct worker *worker;
    int fd;
    struct event *event;
    char text[NETADDR_TEXT + 8];
};

struct worker_private {
    pthread_t thread;
    bool is_started;
    struct mailbox *mailbox;
    struct event *mailbox_event, *directory_event, *directory_timer, *resolver_event,
        *resolver_timer, *spool_event, *tick, *reaper;
    struct event *retry; /* accepting again after descriptors ran out */
    struct listener *listeners;
    size_t n_listeners;
    struct pool **pools; /* one for each downstream of the settings */
    size_t n_pools;
    struct pool_list all_pools; /* retired ones too */
    int spare_fd;               /* given up for a moment when descriptors run out */
    int64_t drain_until_ms;
};

/* --- letters --- */

static void
post(struct worker *w, struct letter l)
{
    struct letter *copy = malloc(sizeof(*copy));

    if (copy == NULL) {
        log_event(LOG_LEVEL_ERROR, "worker", "error", "out of memory", NULL);
        return;
    }
    *copy = l;
    mailbox_post(w->private->mailbox, &copy->item);
}

void
worker_accept(struct worker *w)
{
    post(w, (struct letter){.kind = LETTER_ACCEPT});
}

void
worker_reload(struct worker *w, struct settings *st, struct tls_contexts *tls)
{
    post(w, (struct letter){
                .kind = LETTER_RELOAD, .settings = settings_ref(st), .tls = tls_contexts_ref(tls)});
}

void
worker_drain(struct worker *w)
{
    post(w, (struct letter){.kind = LETTER_DRAIN});
}

void
worker_stop(struct worker *w)
{
    post(w, (struct letter){.kind = LETTER_STOP});
}

void
worker_post_delivery(struct worker *w, uint64_t ticket)
{
    post(w, (struct letter){.kind = LETTER_DELIVERY, .ticket = ticket});
}

static void
post_route(void *arg, struct route *r)
{
    post(arg, (struct letter){.kind = LETTER_ROUTE, .route = r});
}

/* --- accepting --- */

static void reap(struct worker *w);

static void
turn_away(struct worker *w, int fd, enum metrics_refusal why)
{
    char line[SMTP_REPLY_LINE];
    size_t n =
        smtp_reply_format(SMTP_REPLY_TOO_MANY_CONNECTIONS, w->settings->server.hostname, line);

    metrics_refused(w->srv->metrics, why);
    (void)send(fd, line, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    (void)recv(fd, line, sizeof(line), MSG_DONTWAIT);
    close(fd);
}

static void
take(struct listener *l, int fd, const struct sockaddr *sa)
{
    struct worker *w = l->worker;
    struct session_peer peer = {.listener = l->text};
    int one = 1;

    peer.address = netaddr_of_sockaddr(sa, &peer.port);
    metrics_connection(w->srv->metrics);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (atomic_fetch_add(&w->srv->connections, 1) >=
        (unsigned)w->settings->server.max_connections) {
        atomic_fetch_sub(&w->srv->connections, 1);
        turn_away(w, fd, METRICS_REFUSAL_LIMIT);
        return;
    }
    if (fd > w->srv->last_descriptor) {
        atomic_fetch_sub(&w->srv->connections, 1);
        turn_away(w, fd, METRICS_REFUSAL_SYSTEM);
        return;
    }
    session_start(w, fd, &peer);
}

/* Descriptors have run out: with the one kept back, take a connection only to end it, and let the
 * listeners rest for a moment, or the loop would spin. */
static void
rest(struct worker *w, int listener)
{
    struct timeval tv = {.tv_usec = 200000};

    log_event(LOG_LEVEL_WARNING, "worker", "error", "out of file descriptors", NULL);
    metrics_refused(w->srv->metrics, METRICS_REFUSAL_SYSTEM);
    if (w->private->spare_fd >= 0) {
        close(w->private->spare_fd);
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            close(fd);
        w->private->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    for (size_t i = 0; i < w->private->n_listeners; i++)
        event_del(w->private->listeners[i].event);
    event_add(w->private->retry, &tv);
}

static void
on_accept(evutil_socket_t listener, short what, void *arg)
{
    struct listener *l = arg;

    (void)what;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_storage sa;
        socklen_t n = sizeof(sa);
        int fd = accept4(listener, (struct sockaddr *)&sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(l, fd, (struct sockaddr *)&sa);
            reap(l->worker); /* who was turned away leaves room for the next */
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            rest(l->worker, listener);
        return;
    }
}

static void
start_accepting(struct worker *w)
{
    for (size_t i = 0; i < w->private->n_listeners && !w->is_draining; i++)
        event_add(w->private->listeners[i].event, NULL);
}

static void
on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    start_accepting(arg);
}

static void
close_listeners(struct worker *w)
{
    for (size_t i = 0; i < w->private->n_listeners; i++) {
        event_free(w->private->listeners[i].event);
        close(w->private->listeners[i].fd);
    }
    free(w->private->listeners);
    w->private->listeners = NULL;
    w->private->n_listeners = 0;
}

/* --- pools --- */

static int
make_pools(struct worker *w, struct settings *st, struct pool ***pools, struct err *e)
{
    *pools = calloc(st->n_downstreams + 1, sizeof(**pools));
    if (*pools == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    for (size_t i = 0; i < st->n_downstreams; i++) {
        struct pool_place place = {.loop = &w->loop,
                                   .loop_index = w->index,
                                   .list = &w->private->all_pools,
                                   .settings = st,
                                   .downstream = i,
                                   .hosts = w->srv->hosts,
                                   .metrics = w->srv->metrics};
        if (((*pools)[i] = pool_new(&place, e)) == NULL) {
            err_wrap(e, "downstream %s", st->downstreams[i].name);
            while (i > 0)
                pool_retire(&(*pools)[--i]);
            free(*pools);
            *pools = NULL;
            return -1;
        }
    }
    return 0;
}

static void
retire_pools(struct worker *w)
{
    for (size_t i = 0; i < w->private->n_pools; i++)
        pool_retire(&w->private->pools[i]);
    free(w->private->pools);
    w->private->pools = NULL;
    w->private->n_pools = 0;
}

struct pool *
worker_pool(struct worker *w, const char *downstream)
{
    for (size_t i = 0; i < w->private->n_pools; i++)
        if (strcmp(pool_settings(w->private->pools[i])->name, downstream) == 0)
            return w->private->pools[i];
    return NULL;
}

/* --- the turns of the loop --- */

static void
finish_if_done(struct worker *w)
{
    if (w->is_draining && TAILQ_EMPTY(&w->sessions) && TAILQ_EMPTY(&w->dead) &&
        !delivery_has_orphans(w, clock_ms()))
        event_base_loopbreak(w->loop.base);
}

static void
reap(struct worker *w)
{
    struct session *s;

    while ((s = TAILQ_FIRST(&w->dead)) != NULL) {
        session_unlink(&w->dead, s);
        session_free(s);
    }
    finish_if_done(w);
}

static void
on_reaper(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reap(arg);
}

void
worker_bury(struct worker *w, struct session *s)
{
    session_unlink(&w->sessions, s);
    session_link(&w->dead, s);
    event_active(w->private->reaper, EV_TIMEOUT, 0);
}

/* Let TIMER fire at NEXT_MS. */
static void
plan(struct event *timer, int64_t next_ms)
{
    int64_t now_ms = clock_ms();

    if (next_ms == INT64_MAX) {
        event_del(timer);
        return;
    }
    int64_t wait_ms = next_ms > now_ms ? next_ms - now_ms : 0;
    struct timeval tv = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000 * 1000)};
    event_add(timer, &tv);
}

void
worker_plan(struct worker *w)
{
    /* Also when it is planned: what was asked last may have less time than what was before. */
    plan(w->private->directory_timer, directory_client_next_ms(w->directory));
    plan(w->private->resolver_timer, resolver_client_next_ms(w->resolver));
}

static void
on_directory(evutil_socket_t fd, short what, void *arg)
{
    struct worker *w = arg;

    (void)fd;
    (void)what;
    directory_client_dispatch(w->directory, clock_ms());
    plan(w->private->directory_timer, directory_client_next_ms(w->directory));
}

static void
on_resolver(evutil_socket_t fd, short what, void *arg)
{
    struct worker *w = arg;

    (void)fd;
    (void)what;
    resolver_client_dispatch(w->resolver, clock_ms());
    plan(w->private->resolver_timer, resolver_client_next_ms(w->resolver));
}

static void
on_spool(evutil_socket_t fd, short what, void *arg)
{
    struct worker *w = arg;

    (void)fd;
    (void)what;
    spool_client_dispatch(w->spool);
}

static void
press(struct worker *w, int64_t now_ms)
{
    unsigned limit = (unsigned)w->settings->server.max_connections;
    struct session *s, *next;

    if (atomic_load(&w->srv->connections) <=
        limit / 100 * PRESSURE_PERCENT + limit % 100 * PRESSURE_PERCENT / 100)
        return;
    for (s = TAILQ_FIRST(&w->sessions); s != NULL; s = next) {
        next = session_next(s);
        session_press(s, now_ms, PRESSED_MS);
    }
}

static void
drain_sessions(struct worker *w, bool is_forced)
{
    struct session *s, *next;

    for (s = TAILQ_FIRST(&w->sessions); s != NULL; s = next) {
        next = session_next(s);
        session_drain(s, is_forced);
    }
    finish_if_done(w);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct worker *w = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    pools_tick(&w->private->all_pools, now_ms);
    deliveries_tick(policy_deliveries(w->srv->policy), now_ms);
    press(w, now_ms);
    if (w->is_draining && now_ms >= w->private->drain_until_ms)
        drain_sessions(w, true);
    finish_if_done(w);
}

static void
begin_drain(struct worker *w)
{
    struct timeval tv = {.tv_usec = 100000};

    if (w->is_draining)
        return;
    w->is_draining = true;
    w->private->drain_until_ms = clock_ms() + w->settings->server.drain_timeout;
    close_listeners(w);
    drain_sessions(w, false);
    event_add(w->private->tick, &tv);
    finish_if_done(w);
}

static void
cut(struct worker *w)
{
    struct session *s;

    begin_drain(w);
    while ((s = TAILQ_FIRST(&w->sessions)) != NULL)
        session_abort(s);
    reap(w);
    event_base_loopbreak(w->loop.base);
}

static void
take_settings(struct worker *w, struct settings *st, struct tls_contexts *tls)
{
    struct err e = {.kind = ERR_NONE};
    struct pool **pools;

    if (make_pools(w, st, &pools, &e) != 0) {
        log_event(LOG_LEVEL_ERROR, "config", "state", "rejected", "error", e.text, NULL);
        settings_unref(st);
        tls_contexts_unref(tls);
        return;
    }
    retire_pools(w);
    w->private->pools = pools;
    w->private->n_pools = st->n_downstreams;
    settings_unref(w->settings);
    w->settings = st;
    tls_contexts_unref(w->tls);
    w->tls = tls;
}

static void
on_mailbox(evutil_socket_t fd, short what, void *arg)
{
    struct worker *w = arg;
    struct mailbox_item *item = mailbox_take(w->private->mailbox);

    (void)fd;
    (void)what;
    while (item != NULL) {
        struct letter *l = (struct letter *)item;
        item = item->next;
        switch (l->kind) {
        case LETTER_ACCEPT:
            start_accepting(w);
            break;
        case LETTER_RELOAD:
            take_settings(w, l->settings, l->tls);
            break;
        case LETTER_DRAIN:
            begin_drain(w);
            break;
        case LETTER_STOP:
            cut(w);
            break;
        case LETTER_ROUTE:
            pools_wake(&w->private->all_pools, l->route);
            break;
        case LETTER_DELIVERY:
            delivery_wake(w, l->ticket);
            break;
        }
        free(l);
    }
}

/* --- life --- */

static void *
run(void *arg)
{
    struct worker *w = arg;

    sandbox_narrow();
    event_base_dispatch(w->loop.base);
    server_worker_done(w->srv);
    return NULL;
}

static struct event *
watch(struct worker *w, int fd, event_callback_fn fn)
{
    struct event *e = event_new(w->loop.base, fd, EV_READ | EV_PERSIST, fn, w);

    if (e != NULL && event_add(e, NULL) != 0) {
        event_free(e);
        return NULL;
    }
    return e;
}

static bool
make_listeners(struct worker *w, const struct listen_socket *sockets, size_t n)
{
    struct worker_private *p = w->private;

    p->listeners = calloc(n + 1, sizeof(*p->listeners));
    if (p->listeners == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        struct listener *l = &p->listeners[i];
        char address[NETADDR_TEXT];
        l->worker = w;
        l->fd = sockets[i].fd;
        netaddr_format(&sockets[i].entry.address, address);
        snprintf(l->text, sizeof(l->text),
                 sockets[i].entry.address.family == 6 ? "[%s]:%u" : "%s:%u", address,
                 (unsigned)sockets[i].entry.port);
        l->event = event_new(w->loop.base, l->fd, EV_READ | EV_PERSIST, on_accept, l);
        if (l->event == NULL)
            return false;
        p->n_listeners++;
    }
    return true;
}

static struct event_base *
make_base(void)
{
    struct event_config *config = event_config_new();
    struct timeval turn = {.tv_usec = TURN_MS * 1000};

    if (config == NULL)
        return NULL;
    /* A loop is used by its thread alone: no locks. */
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    /* What an event makes active would be done before the sockets and clocks are looked at again,
     * and so for ever where many streams have more to do each time. */
    event_config_set_max_dispatch_interval(config, &turn, -1, 0);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static bool
make_events(struct worker *w)
{
    struct worker_private *p = w->private;
    struct timeval second = {.tv_sec = 1};

    p->mailbox_event = watch(w, mailbox_fd(p->mailbox), on_mailbox);
    p->directory_event = watch(w, directory_client_fd(w->directory), on_directory);
    p->resolver_event = watch(w, resolver_client_fd(w->resolver), on_resolver);
    p->resolver_timer = evtimer_new(w->loop.base, on_resolver, w);
    p->spool_event = watch(w, spool_client_fd(w->spool), on_spool);
    p->directory_timer = evtimer_new(w->loop.base, on_directory, w);
    p->reaper = evtimer_new(w->loop.base, on_reaper, w);
    p->retry = evtimer_new(w->loop.base, on_retry, w);
    p->tick = event_new(w->loop.base, -1, EV_PERSIST, on_tick, w);
    return p->mailbox_event != NULL && p->directory_event != NULL && p->spool_event != NULL &&
           p->resolver_event != NULL && p->resolver_timer != NULL && p->directory_timer != NULL &&
           p->reaper != NULL && p->retry != NULL && p->tick != NULL &&
           event_add(p->tick, &second) == 0;
}

static void
free_event(struct event *e)
{
    if (e != NULL)
        event_free(e);
}

static void
worker_free(struct worker *w)
{
    struct worker_private *p = w->private;

    if (w->loop.base != NULL) {
        hosts_set_post(w->srv->hosts, w->index, NULL, NULL);
        close_listeners(w);
        delivery_end_orphans(w);
        retire_pools(w);
        pools_end(&w->private->all_pools);
        directory_client_free(&w->directory);
        resolver_client_free(&w->resolver);
        spool_client_free(&w->spool);
        free_event(p->mailbox_event);
        free_event(p->directory_event);
        free_event(p->directory_timer);
        free_event(p->resolver_event);
        free_event(p->resolver_timer);
        free_event(p->spool_event);
        free_event(p->reaper);
        free_event(p->retry);
        free_event(p->tick);
        event_base_free(w->loop.base);
    }
    free(w->spare);
    if (p->mailbox != NULL) {
        struct mailbox_item *item = mailbox_take(p->mailbox);
        while (item != NULL) {
            struct letter *l = (struct letter *)item;
            item = item->next;
            settings_unref(l->settings);
            tls_contexts_unref(l->tls);
            free(l);
        }
    }
    mailbox_free(&p->mailbox);
    if (p->spare_fd >= 0)
        close(p->spare_fd);
    settings_unref(w->settings);
    tls_contexts_unref(w->tls);
    free(w->loop.scratch);
    free(p);
    free(w);
}

struct worker *
worker_new(struct server *srv, unsigned index, struct settings *st, struct tls_contexts *tls,
           const struct listen_socket *sockets, size_t n, struct err *e)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (w == NULL || (w->private = calloc(1, sizeof(*w->private))) == NULL) {
        free(w);
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    w->srv = srv;
    w->index = index;
    w->settings = settings_ref(st);
    w->tls = tls_contexts_ref(tls);
    TAILQ_INIT(&w->sessions);
    TAILQ_INIT(&w->dead);
    TAILQ_INIT(&w->waiting);
    TAILQ_INIT(&w->orphans);
    TAILQ_INIT(&w->private->all_pools);
    w->private->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    w->loop.scratch = malloc(STREAM_SCRATCH);
    w->loop.base = make_base();
    w->private->mailbox = mailbox_new();
    err_set(e, ERR_SYSTEM, "out of memory");
    if (w->loop.scratch != NULL && w->loop.base != NULL && w->private->mailbox != NULL &&
        (w->directory = directory_client_new(srv->directories)) != NULL &&
        (w->resolver = resolver_client_new(srv->resolver)) != NULL &&
        (w->spool = spool_client_new(srv->spool)) != NULL && make_events(w) &&
        make_pools(w, st, &w->private->pools, e) == 0) {
        w->private->n_pools = st->n_downstreams;
        if (make_listeners(w, sockets, n)) {
            hosts_set_post(srv->hosts, index, post_route, w);
            return w;
        }
    }
    worker_free(w);
    return NULL;
}

int
worker_start(struct worker *w, struct err *e)
{
    int error = thread_start(&w->private->thread, run, w);

    if (error != 0)
        return err_errno(e, ERR_SYSTEM, error, "thread of a worker");
    w->private->is_started = true;
    return 0;
}

void
worker_join(struct worker **w)
{
    if (*w == NULL)
        return;
    if ((*w)->private->is_started)
        pthread_join((*w)->private->thread, NULL);
    worker_free(*w);
    *w = NULL;
}
