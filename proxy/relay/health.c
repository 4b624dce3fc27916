#include "proxy/relay/health.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mailbox.h"
#include "base/thread.h"
#include "proxy/relay/downstream.h"

/* One host under observation. */
struct probe {
    struct health *health;
    const struct settings_downstream *ds;
    const struct tls_client *tls;
    struct route *route;
    struct host *host;
    struct event *timer;
    struct downstream *d;
    struct host_addresses addresses;
    unsigned next_address;
    bool is_clear; /* opportunistic TLS failed: again without */
    bool has_slot;
    bool has_looked;
};

/* The probes of one configuration. */
struct round {
    struct settings *settings;
    struct tls_client **tls; /* one for each downstream */
    struct probe *probes;
    size_t n_probes;
};

/* The thread has a copy of the name, and the host's own place is filled from the loop: at the end
 * nobody waits for getaddrinfo, and the hosts go. */
struct name_job {
    struct mailbox_item item;
    struct host *host; /* NULL: stop */
    struct host_addresses found;
    bool is_found;
    char name[];
};

struct health {
    const struct stream_loop *loop;
    struct hosts *hosts;
    struct round round;
    struct names *names;
    struct event *names_event;
};

/* The thread's part, which outlives a health that does not wait for it. */
struct names {
    struct mailbox *questions, *answers;
    _Atomic unsigned references;
};

static void on_opened(void *owner);
static void on_closed(void *owner, enum downstream_fail why, const struct smtp_reply *reply);

static const struct downstream_events probe_events = {.opened = on_opened, .closed = on_closed};

static void
free_items(struct mailbox_item *item)
{
    while (item != NULL) {
        struct mailbox_item *next = item->next;
        free(item);
        item = next;
    }
}

static void
names_unref(struct names *n)
{
    if (atomic_fetch_sub(&n->references, 1) != 1)
        return;
    free_items(mailbox_take(n->questions));
    free_items(mailbox_take(n->answers));
    mailbox_free(&n->questions);
    mailbox_free(&n->answers);
    free(n);
}

static void *
names_thread(void *arg)
{
    struct names *n = arg;
    bool runs = true;

    while (runs) {
        struct mailbox_item *item = mailbox_wait(n->questions);
        while (item != NULL) {
            struct name_job *job = (struct name_job *)item;
            item = item->next;
            if (job->host == NULL || !runs) {
                runs = false;
                free(job);
                continue;
            }
            job->is_found = host_resolve(job->name, &job->found);
            mailbox_post(n->answers, &job->item);
        }
    }
    names_unref(n);
    return NULL;
}

static struct names *
names_start(struct err *e)
{
    struct names *n = calloc(1, sizeof(*n));
    pthread_t thread;

    if (n == NULL || (n->questions = mailbox_new()) == NULL ||
        (n->answers = mailbox_new()) == NULL) {
        if (n != NULL)
            mailbox_free(&n->questions);
        free(n);
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    atomic_store(&n->references, 2);
    int error = thread_start(&thread, names_thread, n);
    if (error != 0) {
        atomic_store(&n->references, 1);
        names_unref(n);
        err_errno(e, ERR_SYSTEM, error, "thread for names");
        return NULL;
    }
    pthread_detach(thread);
    return n;
}

/* --- a probe --- */

static void
give_slot(struct probe *p)
{
    if (!p->has_slot)
        return;
    p->has_slot = false;
    host_slot_idle(p->host, NULL);
    host_slot_give(p->host);
    route_wake(p->route);
}

static void
probe_end(struct probe *p)
{
    struct timeval tv = {.tv_sec = p->ds->health_interval / 1000,
                         .tv_usec = (suseconds_t)(p->ds->health_interval % 1000 * 1000)};

    downstream_quit(&p->d);
    give_slot(p);
    p->has_looked = true;
    event_add(p->timer, &tv);
}

static void
set_state(struct probe *p, enum host_state state, const char *error)
{
    if (host_set_state(p->host, state, error))
        host_log(p->host, p->ds->name, error);
}

static bool
probe_connect(struct probe *p)
{
    struct downstream_target target = {
        .settings = p->ds,
        .tls = p->is_clear ? NULL : p->tls,
        .host = host_name(p->host),
        .label = host_label(p->host),
        .hostname = p->health->round.settings->server.hostname,
        .session = "-",
        .address = p->addresses.v[p->next_address],
        .port = p->addresses.port,
    };

    p->d = downstream_open(p->health->loop, &target, &probe_events, p);
    return p->d != NULL;
}

static void
probe_start(struct probe *p)
{
    p->next_address = 0;
    p->is_clear = false;
    if (!host_addresses(p->host, &p->addresses)) {
        set_state(p, HOST_DOWN, "the name does not resolve");
        probe_end(p);
        return;
    }
    /* All slots in use: it is alive, or those who use them will tell. */
    if (host_slot_take(p->host, p->ds->max_connections, NULL) != HOST_SLOT_TAKEN) {
        probe_end(p);
        return;
    }
    p->has_slot = true;
    if (!probe_connect(p))
        probe_end(p);
}

static struct name_job *
name_job_new(struct host *host)
{
    struct span name = span_str(host_name(host));
    struct name_job *job = calloc(1, sizeof(*job) + name.n + 1);

    if (job == NULL)
        return NULL;
    job->host = host;
    memcpy(job->name, name.p, name.n);
    return job;
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;
    struct name_job *job;

    (void)fd;
    (void)what;
    if (host_is_literal(p->host) || (job = name_job_new(p->host)) == NULL) {
        probe_start(p);
        return;
    }
    mailbox_post(p->health->names->questions, &job->item);
}

static void
on_names(evutil_socket_t fd, short what, void *arg)
{
    struct health *h = arg;
    struct mailbox_item *item = mailbox_take(h->names->answers);

    (void)fd;
    (void)what;
    while (item != NULL) {
        struct name_job *job = (struct name_job *)item;
        item = item->next;
        if (job->is_found) /* else the last addresses serve on */
            host_set_addresses(job->host, &job->found);
        for (size_t i = 0; i < h->round.n_probes; i++) {
            struct probe *p = &h->round.probes[i];
            if (p->host == job->host && p->d == NULL && !evtimer_pending(p->timer, NULL))
                probe_start(p);
        }
        free(job);
    }
}

static void
on_opened(void *owner)
{
    struct probe *p = owner;

    host_set_capabilities(p->host, downstream_capabilities(p->d));
    set_state(p, HOST_UP, NULL);
    probe_end(p);
}

static void
on_closed(void *owner, enum downstream_fail why, const struct smtp_reply *reply)
{
    struct probe *p = owner;
    struct err error = *downstream_error(p->d);

    downstream_free(&p->d);
    if (why == DOWNSTREAM_TLS && p->ds->tls == SETTINGS_TLS_OPPORTUNISTIC && !p->is_clear) {
        p->is_clear = true;
        if (probe_connect(p))
            return;
    }
    if (why == DOWNSTREAM_CONNECT && reply == NULL && ++p->next_address < p->addresses.n &&
        probe_connect(p))
        return;
    if (why == DOWNSTREAM_TLS)
        set_state(p, HOST_DEGRADED, error.text);
    /* One that refuses one more connection now is not down while it serves others of ours. */
    else if (reply == NULL || reply->code / 100 != 4 || host_connections(p->host) <= 1)
        set_state(p, HOST_DOWN, error.text);
    probe_end(p);
}

/* --- the round --- */

static void
round_clear(struct round *r)
{
    for (size_t i = 0; i < r->n_probes; i++) {
        downstream_free(&r->probes[i].d);
        give_slot(&r->probes[i]);
        if (r->probes[i].timer != NULL)
            event_free(r->probes[i].timer);
    }
    free(r->probes);
    if (r->tls != NULL)
        for (size_t i = 0; i < r->settings->n_downstreams; i++)
            tls_client_free(&r->tls[i]);
    free(r->tls);
    settings_unref(r->settings);
    memset(r, 0, sizeof(*r));
}

static int
round_make(struct health *h, struct settings *st, struct round *r, struct err *e)
{
    size_t n = 0;

    for (size_t i = 0; i < st->n_downstreams; i++)
        n += st->downstreams[i].hosts.n;
    memset(r, 0, sizeof(*r));
    r->settings = settings_ref(st);
    r->tls = calloc(st->n_downstreams + 1, sizeof(struct tls_client *));
    r->probes = calloc(n + 1, sizeof(*r->probes));
    if (r->tls == NULL || r->probes == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    for (size_t i = 0; i < st->n_downstreams; i++) {
        const struct settings_downstream *ds = &st->downstreams[i];
        struct route *route = hosts_route(h->hosts, ds->name);
        if (tls_client_new(ds, &r->tls[i], e) != 0)
            return err_wrap(e, "downstream %s", ds->name);
        for (size_t k = 0; route != NULL && k < route_hosts(route); k++) {
            struct probe *p = &r->probes[r->n_probes++];
            p->health = h;
            p->ds = ds;
            p->tls = r->tls[i];
            p->route = route;
            p->host = route_host(route, k);
            if ((p->timer = evtimer_new(h->loop->base, on_timer, p)) == NULL)
                return err_set(e, ERR_SYSTEM, "out of memory");
        }
    }
    return 0;
}

int
health_update(struct health *h, struct settings *st, struct err *e)
{
    struct round fresh;

    if (round_make(h, st, &fresh, e) != 0) {
        round_clear(&fresh);
        return -1;
    }
    round_clear(&h->round);
    h->round = fresh;
    for (size_t i = 0; i < h->round.n_probes; i++)
        event_active(h->round.probes[i].timer, EV_TIMEOUT, 0);
    return 0;
}

struct health *
health_new(const struct stream_loop *loop, struct hosts *hosts, struct settings *st, struct err *e)
{
    struct health *h = calloc(1, sizeof(*h));

    if (h == NULL) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    h->loop = loop;
    h->hosts = hosts;
    if ((h->names = names_start(e)) != NULL) {
        h->names_event =
            event_new(loop->base, mailbox_fd(h->names->answers), EV_READ | EV_PERSIST, on_names, h);
        if (h->names_event != NULL && event_add(h->names_event, NULL) == 0 &&
            health_update(h, st, e) == 0)
            return h;
    }
    health_free(&h);
    return NULL;
}

bool
health_has_looked(const struct health *h)
{
    for (size_t i = 0; i < h->round.n_probes; i++)
        if (!h->round.probes[i].has_looked)
            return false;
    return true;
}

void
health_free(struct health **hp)
{
    struct health *h = *hp;
    struct name_job *stop;

    if (h == NULL)
        return;
    *hp = NULL;
    round_clear(&h->round);
    if (h->names_event != NULL)
        event_free(h->names_event);
    if (h->names != NULL) {
        if ((stop = calloc(1, sizeof(*stop))) != NULL)
            mailbox_post(h->names->questions, &stop->item);
        names_unref(h->names);
    }
    free(h);
}
