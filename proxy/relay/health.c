#include "proxy/relay/health.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "policy/name_lookup.h"
#include "proxy/relay/downstream.h"

/* Each is a thread while it is looked up. */
#define NAMES_MAX 64u

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
    bool awaits_name;
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

/* A name that is being looked up, for every probe of it.  It outlives the round: a reload does not
 * ask again for what nobody answers. */
struct name {
    LIST_ENTRY(name) link;
    struct health *health;
    struct name_lookup *lookup;
    char text[];
};

struct health {
    const struct stream_loop *loop;
    struct hosts *hosts;
    struct round round, fresh; /* fresh: of a reload that is not settled yet */
    LIST_HEAD(names, name) names;
    unsigned n_names;
};

static void on_opened(void *owner);
static void on_closed(void *owner, enum downstream_fail why, const struct smtp_reply *reply);
static void ask_names(struct health *h);

static const struct downstream_events probe_events = {.opened = on_opened, .closed = on_closed};

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
set_timer(struct probe *p, int64_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    event_add(p->timer, &tv);
}

static void
probe_end(struct probe *p)
{
    downstream_quit(&p->d);
    give_slot(p);
    p->has_looked = true;
    set_timer(p, p->ds->health_interval);
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
    event_del(p->timer);
    p->awaits_name = false;
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

/* --- names --- */

static void
name_free(struct name *n)
{
    LIST_REMOVE(n, link);
    n->health->n_names--;
    name_lookup_cancel(&n->lookup);
    free(n);
}

/* None found: the last addresses serve on. */
static void
on_addresses(void *arg, const struct netaddr *addresses, size_t n, const char *error)
{
    struct name *name = arg;
    struct health *h = name->health;
    struct host_addresses found = {.n = n < HOST_ADDRESSES ? (unsigned)n : HOST_ADDRESSES};

    (void)error;
    memcpy(found.v, addresses, found.n * sizeof(found.v[0]));
    for (size_t i = 0; i < h->round.n_probes; i++) {
        struct probe *p = &h->round.probes[i];
        if (strcmp(host_name(p->host), name->text) != 0)
            continue;
        if (n > 0)
            host_set_addresses(p->host, &found);
        if (p->d == NULL && (n > 0 || p->awaits_name))
            probe_start(p);
    }
    name_free(name);
    ask_names(h);
}

static bool
is_asked(const struct health *h, const char *text)
{
    const struct name *n;

    LIST_FOREACH(n, &h->names, link)
        if (strcmp(n->text, text) == 0)
            return true;
    return false;
}

static void
ask_name(struct health *h, const char *text)
{
    size_t length = strlen(text);
    struct name *n = calloc(1, sizeof(*n) + length + 1);

    if (n == NULL)
        return;
    n->health = h;
    memcpy(n->text, text, length);
    LIST_INSERT_HEAD(&h->names, n, link);
    h->n_names++;
    if ((n->lookup = name_lookup_start(h->loop->base, text, on_addresses, n)) == NULL)
        name_free(n);
}

/* Those for whom there is no room, memory or thread have their timer. */
static void
ask_names(struct health *h)
{
    for (size_t i = 0; i < h->round.n_probes && h->n_names < NAMES_MAX; i++) {
        const struct probe *p = &h->round.probes[i];
        if (p->awaits_name && !is_asked(h, host_name(p->host)))
            ask_name(h, host_name(p->host));
    }
}

/* The time of a probe has come, or that of the look-up for it is over. */
static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;

    (void)fd;
    (void)what;
    if (host_is_literal(p->host) || p->awaits_name) {
        probe_start(p);
        return;
    }
    p->awaits_name = true;
    set_timer(p, p->ds->connect_timeout);
    ask_names(p->health);
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
health_prepare(struct health *h, struct settings *st, struct err *e)
{
    return round_make(h, st, &h->fresh, e);
}

void
health_settle(struct health *h, bool is_taken)
{
    if (!is_taken) {
        round_clear(&h->fresh);
        return;
    }
    round_clear(&h->round);
    h->round = h->fresh;
    memset(&h->fresh, 0, sizeof(h->fresh));
    for (size_t i = 0; i < h->round.n_probes; i++)
        event_active(h->round.probes[i].timer, EV_TIMEOUT, 0);
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
    LIST_INIT(&h->names);
    if (health_prepare(h, st, e) == 0)
        health_settle(h, true);
    else
        health_free(&h);
    return h;
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
    struct name *n;

    if (h == NULL)
        return;
    *hp = NULL;
    round_clear(&h->fresh);
    round_clear(&h->round);
    while ((n = LIST_FIRST(&h->names)) != NULL)
        name_free(n);
    free(h);
}
