#include "proxy/relay/pool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/ops/metrics.h"

/* A message over this goes over a connection younger than that: Exchange cuts a connection of ten
 * minutes in mid-message. */
#define LARGE_BYTES (1024u * 1024u)
#define YOUNG_MS    60000

enum member_state { MEMBER_OPENING, MEMBER_BUSY, MEMBER_SETTLING, MEMBER_IDLE };

/* A connection and what the pool knows of it. */
struct member {
    TAILQ_ENTRY(member) link;
    struct pool *pool;
    struct downstream *d;
    enum member_state state;
    unsigned host;
    struct network client;        /* whom it serves, while not idle */
    struct pool_request *request; /* for whom it is being opened; NULL: cancelled */
    struct host_addresses addresses;
    unsigned next_address;
    bool is_clear; /* opportunistic TLS failed: again without */
    int64_t idle_since_ms;
};
TAILQ_HEAD(member_list, member);

/* Requests of one client network that wait, oldest first. */
struct turn {
    TAILQ_ENTRY(turn) link;
    struct network client;
    TAILQ_HEAD(, pool_request) requests;
};

enum request_state { REQUEST_OPENING, REQUEST_WAITING, REQUEST_FAILED };

struct pool_request {
    TAILQ_ENTRY(pool_request) link; /* in its turn, or in the pool's failed ones */
    struct pool *pool;
    struct pool_wish wish;
    char *session;
    const struct pool_callbacks *callbacks;
    void *arg;
    enum request_state state;
    enum pool_failure failure;
    struct turn *turn;
    struct member *member;
    int64_t deadline_ms;
};

struct pool_host {
    struct host *host;
    int credit; /* of the weighted turns */
};

struct pool {
    TAILQ_ENTRY(pool) link;
    struct pool_place place;
    unsigned holds; /* users that keep us over turns of the loop */
    const struct settings_downstream *ds;
    struct route *route;
    struct tls_client *tls;
    struct pool_host *hosts;
    size_t n_hosts;
    struct member_list members; /* idle ones: the last used first */
    TAILQ_HEAD(, turn) turns;
    TAILQ_HEAD(, pool_request) failed;
    struct event *kick; /* tells failed requests, and serves new ones, from the loop */
    unsigned n_waiting; /* requests in turns */
    bool is_retired;
};

static void member_opened(void *owner);
static void member_closed(void *owner, enum downstream_fail why, const struct smtp_reply *reply);
static void member_idle(void *owner);
static void serve(struct pool *p);

static const struct downstream_events member_events = {
    .opened = member_opened, .closed = member_closed, .idle = member_idle};

static void
set_host_state(struct pool *p, unsigned host, enum host_state state, const char *error)
{
    if (host_set_state(p->hosts[host].host, state, error))
        host_log(p->hosts[host].host, p->ds->name, error);
}

void
pool_host_failed(struct pool *p, unsigned host, const char *error)
{
    set_host_state(p, host, HOST_DOWN, error);
}

/* --- requests --- */

static int64_t
waits_since_ms(const struct pool_request *r)
{
    return r->deadline_ms - r->pool->ds->queue_timeout;
}

/* R is the next, and all hosts are full; NULL: it is not that.  A retired pool's limits are not
 * those of the others. */
static void
set_full(struct pool *p, const struct pool_request *r)
{
    if (!p->is_retired)
        route_set_full(p->route, p->place.loop_index, r != NULL ? waits_since_ms(r) : 0);
}

static void
leave_turn(struct pool_request *r)
{
    struct pool *p = r->pool;
    struct turn *t = r->turn;

    if (t == NULL)
        return;
    TAILQ_REMOVE(&t->requests, r, link);
    r->turn = NULL;
    if (TAILQ_EMPTY(&t->requests)) {
        TAILQ_REMOVE(&p->turns, t, link);
        free(t);
    }
    p->n_waiting--;
    route_wait(p->route, p->place.loop_index, false);
    if (TAILQ_EMPTY(&p->turns))
        set_full(p, NULL);
}

static bool
take_turn(struct pool_request *r)
{
    struct pool *p = r->pool;
    struct turn *t;

    TAILQ_FOREACH(t, &p->turns, link)
        if (network_equal(&t->client, &r->wish.client))
            break;
    if (t == NULL) {
        if ((t = calloc(1, sizeof(*t))) == NULL)
            return false;
        t->client = r->wish.client;
        TAILQ_INIT(&t->requests);
        TAILQ_INSERT_TAIL(&p->turns, t, link);
    }
    TAILQ_INSERT_TAIL(&t->requests, r, link);
    r->turn = t;
    r->state = REQUEST_WAITING;
    p->n_waiting++;
    route_wait(p->route, p->place.loop_index, true);
    return true;
}

static void
fail_later(struct pool_request *r, enum pool_failure failure)
{
    leave_turn(r);
    r->state = REQUEST_FAILED;
    r->failure = failure;
    TAILQ_INSERT_TAIL(&r->pool->failed, r, link);
    event_active(r->pool->kick, EV_TIMEOUT, 0);
}

static void
request_free(struct pool_request *r)
{
    free(r->session);
    free(r);
}

static void
tell_failed(struct pool_request *r, enum pool_failure failure, int host)
{
    const struct pool_callbacks *callbacks = r->callbacks;
    void *arg = r->arg;

    request_free(r);
    callbacks->failed(arg, failure, host);
}

static void
on_kick(evutil_socket_t fd, short what, void *arg)
{
    struct pool *p = arg;
    struct pool_request *r;

    (void)fd;
    (void)what;
    pool_hold(p);
    while ((r = TAILQ_FIRST(&p->failed)) != NULL) {
        TAILQ_REMOVE(&p->failed, r, link);
        tell_failed(r, r->failure, -1);
    }
    serve(p);
    pool_release(p);
}

/* --- members --- */

static void
pool_free(struct pool *p)
{
    TAILQ_REMOVE(p->place.list, p, link);
    event_free(p->kick);
    tls_client_free(&p->tls);
    free(p->hosts);
    settings_unref(p->place.settings);
    free(p);
}

static void
pool_free_if_done(struct pool *p)
{
    if (p->is_retired && p->holds == 0 && TAILQ_EMPTY(&p->members) && TAILQ_EMPTY(&p->turns) &&
        TAILQ_EMPTY(&p->failed))
        pool_free(p);
}

struct pool *
pool_hold(struct pool *p)
{
    p->holds++;
    return p;
}

void
pool_release(struct pool *p)
{
    p->holds--;
    pool_free_if_done(p);
}

/* Close a connection and give its slot back. */
static void
member_drop(struct member *m)
{
    struct pool *p = m->pool;
    struct host *host = p->hosts[m->host].host;

    if (m->state != MEMBER_IDLE)
        host_slot_idle(host, &m->client);
    host_slot_give(host);
    if (m->d != NULL && downstream_is_usable(m->d))
        downstream_quit(&m->d);
    else
        downstream_free(&m->d);
    TAILQ_REMOVE(&p->members, m, link);
    free(m);
    route_wake(p->route);
}

static bool
member_connect(struct member *m)
{
    struct pool *p = m->pool;
    struct host *host = p->hosts[m->host].host;
    struct downstream_target target = {
        .settings = p->ds,
        .tls = m->is_clear ? NULL : p->tls,
        .host = host_name(host),
        .label = host_label(host),
        .hostname = p->place.settings->server.hostname,
        .session = m->request != NULL ? m->request->session : "-",
        .metrics = p->place.metrics,
        .address = m->addresses.v[m->next_address],
        .port = m->addresses.port,
    };

    m->d = downstream_open(p->place.loop, &target, &member_events, m);
    return m->d != NULL;
}

static bool
member_open(struct pool *p, unsigned host, struct pool_request *r)
{
    struct member *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return false;
    m->pool = p;
    m->host = host;
    m->client = r->wish.client;
    m->request = r;
    if (!host_addresses(p->hosts[host].host, &m->addresses) || !member_connect(m)) {
        free(m);
        return false;
    }
    m->state = MEMBER_OPENING;
    TAILQ_INSERT_TAIL(&p->members, m, link);
    r->state = REQUEST_OPENING;
    r->member = m;
    return true;
}

static void
member_become_idle(struct member *m)
{
    struct pool *p = m->pool;

    if (m->state != MEMBER_IDLE)
        host_slot_idle(p->hosts[m->host].host, &m->client);
    m->state = MEMBER_IDLE;
    m->idle_since_ms = clock_ms();
    downstream_set_owner(m->d, &member_events, m);
    TAILQ_REMOVE(&p->members, m, link);
    TAILQ_INSERT_HEAD(&p->members, m, link);
}

static bool
is_worn(const struct pool *p, const struct member *m, int64_t now_ms)
{
    return downstream_is_bound(m->d) ||
           now_ms - downstream_opened_ms(m->d) >= p->ds->connection_lifetime ||
           downstream_transactions(m->d) >= p->ds->connection_messages;
}

/* Close what is idle beyond the settings' number, the longest idle first.  Done once a
 * second: a burst of messages finds the connections of the burst before it, which cost more to make
 * than to keep for that long. */
static void
trim_idle(struct pool *p, unsigned host)
{
    struct member *m, *next;
    int n = 0;

    for (m = TAILQ_FIRST(&p->members); m != NULL; m = next) {
        next = TAILQ_NEXT(m, link);
        if (m->state == MEMBER_IDLE && m->host == host && ++n > p->ds->idle_connections)
            member_drop(m);
    }
}

/* What is idle when all were served who wait here is for those who wait elsewhere: they get as many
 * slots as they are, first of what was idle longest.  True: some is left, since they wait for their
 * share of a host that has room. */
static bool
give_up_idle(struct pool *p)
{
    int max = p->ds->max_connections;
    unsigned others = route_waiting(p->route) - p->n_waiting;
    struct member *m, *before;
    bool is_left = false;

    for (m = TAILQ_LAST(&p->members, member_list); others > 0 && m != NULL; m = before) {
        before = TAILQ_PREV(m, member_list, link);
        if (m->state != MEMBER_IDLE)
            continue;
        if (host_slots_left(p->hosts[m->host].host, max) < (int)others)
            member_drop(m);
        else
            is_left = true;
    }
    return is_left;
}

/* A connection that has become idle: for who waits here, else for who waits elsewhere, else kept.
 */
static void
settle(struct member *m)
{
    struct pool *p = m->pool;
    unsigned host = m->host;

    member_become_idle(m);
    if (p->is_retired || is_worn(p, m, clock_ms()))
        member_drop(m);
    serve(p);
    if (p->ds->idle_connections == 0)
        trim_idle(p, host);
    if (give_up_idle(p))
        route_wake(p->route);
    pool_free_if_done(p);
}

static void
member_idle(void *owner)
{
    settle(owner);
}

static void
hand_over(struct member *m, struct pool_request *r)
{
    const struct pool_callbacks *callbacks = r->callbacks;
    void *arg = r->arg;

    m->state = MEMBER_BUSY;
    m->request = NULL;
    request_free(r);
    callbacks->got(arg, m->d, m->host);
}

static void
member_opened(void *owner)
{
    struct member *m = owner;
    struct pool *p = m->pool;
    struct pool_request *r = m->request;
    const struct smtp_capabilities *caps = downstream_capabilities(m->d);

    host_set_capabilities(p->hosts[m->host].host, caps);
    set_host_state(p, m->host, HOST_UP, NULL);
    if (r == NULL) {
        settle(m);
        return;
    }
    if ((r->wish.needs & ~caps->bits) == 0) {
        hand_over(m, r);
        return;
    }
    int host = (int)m->host;
    m->request = NULL;
    settle(m);
    tell_failed(r, POOL_NO_ANSWER, host);
}

static void
member_closed(void *owner, enum downstream_fail why, const struct smtp_reply *reply)
{
    struct member *m = owner;
    struct pool *p = m->pool;
    struct pool_request *r = m->request;
    unsigned host = m->host;
    bool was_opening = m->state == MEMBER_OPENING;

    if (was_opening) {
        struct err error = *downstream_error(m->d);
        downstream_free(&m->d);
        if (why == DOWNSTREAM_TLS && p->ds->tls == SETTINGS_TLS_OPPORTUNISTIC && !m->is_clear) {
            m->is_clear = true;
            if (member_connect(m))
                return;
        }
        if (why == DOWNSTREAM_CONNECT && reply == NULL && ++m->next_address < m->addresses.n &&
            member_connect(m))
            return;
        /* A host that answers, but refuses one more connection now, is not down; nor, before a
         * probe says so, one that answers oddly. */
        if (why == DOWNSTREAM_TLS)
            set_host_state(p, host, HOST_DEGRADED, error.text);
        else if (why != DOWNSTREAM_GARBLED && (reply == NULL || reply->code / 100 == 5))
            set_host_state(p, host, HOST_DOWN, error.text);
    }
    member_drop(m);
    serve(p);
    if (r != NULL)
        tell_failed(r, why == DOWNSTREAM_TLS ? POOL_TLS : POOL_NO_ANSWER, (int)host); /* holds P */
    else
        pool_free_if_done(p);
}

/* --- choosing --- */

static struct member *
find_idle(struct pool *p, unsigned host, const struct pool_wish *wish)
{
    int64_t now_ms = clock_ms();
    struct member *m, *next;

    for (m = TAILQ_FIRST(&p->members); m != NULL; m = next) {
        next = TAILQ_NEXT(m, link);
        if (m->state != MEMBER_IDLE || m->host != host)
            continue;
        if (is_worn(p, m, now_ms) || !downstream_is_usable(m->d)) {
            member_drop(m);
            continue;
        }
        if ((wish->needs & ~downstream_capabilities(m->d)->bits) != 0)
            continue;
        if (wish->size <= LARGE_BYTES || now_ms - downstream_opened_ms(m->d) < YOUNG_MS)
            return m;
    }
    return NULL;
}

static bool
close_one_idle(struct pool *p, unsigned host)
{
    struct member *m;

    TAILQ_FOREACH_REVERSE(m, &p->members, member_list, link) {
        if (m->state == MEMBER_IDLE && m->host == host) {
            member_drop(m);
            return true;
        }
    }
    return false;
}

enum try { TRY_NOW, TRY_OPENING, TRY_FULL, TRY_CLIENT_FULL, TRY_FAILED };

static enum try
try_host(struct pool *p, unsigned host, struct pool_request *r, struct member **found)
{
    struct host *h = p->hosts[host].host;
    struct member *m;

    /* What is left to one that has tried some may be of no use to those of other loops. */
    if (r->wish.tried == 0 &&
        route_is_due_elsewhere(p->route, p->place.loop_index, waits_since_ms(r)))
        return TRY_FULL;
    m = find_idle(p, host, &r->wish);
    if (m != NULL) {
        if (!host_slot_busy(h, p->ds->max_connections, &r->wish.client))
            return TRY_CLIENT_FULL;
        m->state = MEMBER_BUSY;
        m->client = r->wish.client;
        *found = m;
        return TRY_NOW;
    }
    enum host_slot slot = host_slot_take(h, p->ds->max_connections, &r->wish.client);
    /* Ours may be idle and yet of no use for this one. */
    if (slot == HOST_SLOT_FULL && close_one_idle(p, host))
        slot = host_slot_take(h, p->ds->max_connections, &r->wish.client);
    if (slot == HOST_SLOT_FULL)
        return TRY_FULL;
    if (slot == HOST_SLOT_CLIENT_FULL)
        return TRY_CLIENT_FULL;
    if (member_open(p, host, r))
        return TRY_OPENING;
    host_slot_idle(h, &r->wish.client);
    host_slot_give(h);
    return TRY_FAILED;
}

/* The next host by weight among those of MASK (smooth weighted round robin); spares only when no
 * other is left.  -1: none. */
static int
choose_host(struct pool *p, uint64_t mask)
{
    int best = -1, total = 0;

    for (size_t i = 0; i < p->n_hosts; i++) {
        int weight = host_weight(p->hosts[i].host);
        if ((mask >> i & 1) == 0 || weight == 0)
            continue;
        p->hosts[i].credit += weight;
        total += weight;
        if (best < 0 || p->hosts[i].credit > p->hosts[best].credit)
            best = (int)i;
    }
    if (best >= 0) {
        p->hosts[best].credit -= total;
        return best;
    }
    for (size_t i = 0; i < p->n_hosts; i++)
        if ((mask >> i & 1) != 0)
            return (int)i;
    return -1;
}

/* The hosts that R has not tried and whose state is not worse than WORST. */
static uint64_t
candidates(const struct pool *p, const struct pool_request *r, enum host_state worst)
{
    uint64_t mask = 0;

    for (size_t i = 0; i < p->n_hosts && i < 64; i++)
        if (host_state(p->hosts[i].host) <= worst && (r->wish.tried >> i & 1) == 0)
            mask |= UINT64_C(1) << i;
    return mask;
}

/* TRY_FULL: every host that it may use is.  TRY_CLIENT_FULL: one is not, but for this client, which
 * says nothing of the others.  TRY_FAILED: no host is left for it. */
static enum try
try_request(struct pool *p, struct pool_request *r, struct member **found)
{
    uint64_t mask = candidates(p, r, HOST_UP);
    bool weighted = false;
    enum try outcome = TRY_FAILED;

    if (mask == 0)
        mask = candidates(p, r, HOST_DEGRADED);
    for (size_t i = 0; i < p->n_hosts && i < 64; i++)
        if ((mask >> i & 1) != 0 && host_weight(p->hosts[i].host) > 0)
            weighted = true;
    for (int host = choose_host(p, mask); host >= 0; host = choose_host(p, mask)) {
        /* A spare is not for when the others are merely busy. */
        if (weighted && host_weight(p->hosts[host].host) == 0)
            break;
        enum try one = try_host(p, (unsigned)host, r, found);
        if (one == TRY_NOW || one == TRY_OPENING)
            return one;
        if (one != TRY_FAILED && outcome != TRY_CLIENT_FULL)
            outcome = one;
        mask &= ~(UINT64_C(1) << host);
    }
    return outcome;
}

/* The first request of T that may be served: one that has tried some hosts, and waits for the rest,
 * holds up nobody who has not.  FULL: every host is, for anybody. */
static enum try
try_turn(struct pool *p, struct turn *t, struct pool_request **r, struct member **found)
{
    TAILQ_FOREACH(*r, &t->requests, link) {
        enum try one = try_request(p, *r, found);
        bool waits = one == TRY_FULL || one == TRY_CLIENT_FULL;
        if (!waits || (*r)->wish.tried == 0)
            return one;
    }
    return TRY_CLIENT_FULL;
}

/* Who waits gets what is free, a client network after the other.  Those that have their share are
 * passed over; they are few, since a share is a quarter of a host. */
static void
serve(struct pool *p)
{
    struct turn *t = TAILQ_FIRST(&p->turns);

    while (t != NULL) {
        struct turn *next = TAILQ_NEXT(t, link);
        struct pool_request *r = NULL;
        struct member *m = NULL;
        enum try one = try_turn(p, t, &r, &m);
        if (one == TRY_FULL) {
            set_full(p, r);
            return;
        }
        if (one == TRY_CLIENT_FULL) {
            t = next;
            continue;
        }
        /* Served: to the end of the line with this network, before R leaves it, which may be its
         * end. */
        TAILQ_REMOVE(&p->turns, t, link);
        TAILQ_INSERT_TAIL(&p->turns, t, link);
        leave_turn(r);
        if (one == TRY_FAILED)
            fail_later(r, POOL_NO_ROUTE);
        else if (one == TRY_NOW)
            hand_over(m, r);
        t = TAILQ_FIRST(&p->turns);
    }
    set_full(p, NULL);
}

/* --- the interface --- */

struct pool *
pool_new(const struct pool_place *place, struct err *e)
{
    struct pool *p = calloc(1, sizeof(*p));

    if (p == NULL) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    p->place = *place;
    p->ds = &place->settings->downstreams[place->downstream];
    TAILQ_INIT(&p->members);
    TAILQ_INIT(&p->turns);
    TAILQ_INIT(&p->failed);
    p->route = hosts_route(place->hosts, p->ds->name);
    p->n_hosts = p->route != NULL ? route_hosts(p->route) : 0;
    p->hosts = calloc(p->n_hosts + 1, sizeof(*p->hosts));
    p->kick = evtimer_new(place->loop->base, on_kick, p);
    if (p->hosts == NULL || p->kick == NULL || p->n_hosts == 0) {
        err_set(e, ERR_SYSTEM, "out of memory");
    } else if (tls_client_new(p->ds, &p->tls, e) == 0) {
        for (size_t i = 0; i < p->n_hosts; i++)
            p->hosts[i].host = route_host(p->route, i);
        settings_ref(place->settings);
        TAILQ_INSERT_TAIL(place->list, p, link);
        return p;
    }
    if (p->kick != NULL)
        event_free(p->kick);
    free(p->hosts);
    free(p);
    return NULL;
}

static void
drop_idle(struct pool *p)
{
    struct member *m, *next;

    for (m = TAILQ_FIRST(&p->members); m != NULL; m = next) {
        next = TAILQ_NEXT(m, link);
        if (m->state == MEMBER_IDLE)
            member_drop(m);
    }
}

void
pool_retire(struct pool **pp)
{
    struct pool *p = *pp;

    if (p == NULL)
        return;
    *pp = NULL;
    set_full(p, NULL);
    p->is_retired = true;
    drop_idle(p);
    pool_free_if_done(p);
}

void
pools_end(struct pool_list *list)
{
    struct pool *p;

    while ((p = TAILQ_FIRST(list)) != NULL) {
        while (!TAILQ_EMPTY(&p->members))
            member_drop(TAILQ_FIRST(&p->members));
        pool_free(p);
    }
}

const struct settings_downstream *
pool_settings(const struct pool *p)
{
    return p->ds;
}

struct route *
pool_route(const struct pool *p)
{
    return p->route;
}

struct pool_request *
pool_ask(struct pool *p, const struct pool_wish *wish, const struct pool_callbacks *callbacks,
         void *arg, struct downstream **d, unsigned *host)
{
    struct pool_request *r = calloc(1, sizeof(*r));
    struct member *m = NULL;

    *d = NULL;
    if (r == NULL || (r->session = span_dup(span_str(wish->session))) == NULL) {
        free(r);
        return NULL;
    }
    r->pool = p;
    r->wish = *wish;
    r->wish.session = NULL;
    r->callbacks = callbacks;
    r->arg = arg;
    r->deadline_ms = clock_ms() + p->ds->queue_timeout;
    /* Nobody overtakes who waits. */
    enum try one = TAILQ_EMPTY(&p->turns) ? try_request(p, r, &m) : TRY_FULL;
    switch (one) {
    case TRY_NOW:
        *d = m->d;
        *host = m->host;
        request_free(r);
        return NULL;
    case TRY_OPENING:
        break;
    case TRY_FAILED:
        fail_later(r, POOL_NO_ROUTE);
        break;
    case TRY_FULL:
    case TRY_CLIENT_FULL:
        if (!take_turn(r)) {
            request_free(r);
            return NULL;
        }
        /* It may be served at once, but from the loop: we have not returned yet. */
        event_active(p->kick, EV_TIMEOUT, 0);
        break;
    }
    return r;
}

void
pool_cancel(struct pool_request **rp)
{
    struct pool_request *r = *rp;

    if (r == NULL)
        return;
    *rp = NULL;
    switch (r->state) {
    case REQUEST_OPENING:
        r->member->request = NULL;
        break;
    case REQUEST_WAITING:
        leave_turn(r);
        break;
    case REQUEST_FAILED:
        TAILQ_REMOVE(&r->pool->failed, r, link);
        break;
    }
    request_free(r);
}

void
pool_give(struct pool *p, struct downstream *d, bool is_broken)
{
    struct member *m;

    TAILQ_FOREACH(m, &p->members, link)
        if (m->d == d)
            break;
    if (m == NULL)
        return;
    if (is_broken) {
        member_drop(m);
        serve(p);
        pool_free_if_done(p);
    } else if (downstream_is_usable(d)) {
        settle(m);
    } else {
        m->state = MEMBER_SETTLING;
        downstream_set_owner(d, &member_events, m);
    }
}

static void
wake(struct pool *p)
{
    serve(p);
    give_up_idle(p);
}

static void
tick(struct pool *p, int64_t now_ms)
{
    struct member *m, *next;

    for (m = TAILQ_FIRST(&p->members); m != NULL; m = next) {
        next = TAILQ_NEXT(m, link);
        if (m->state == MEMBER_IDLE &&
            (now_ms - m->idle_since_ms >= p->ds->idle_timeout || is_worn(p, m, now_ms)))
            member_drop(m);
    }
    for (size_t i = 0; i < p->n_hosts; i++)
        trim_idle(p, (unsigned)i);
    for (bool again = true; again;) {
        struct turn *t;
        again = false;
        TAILQ_FOREACH(t, &p->turns, link) {
            struct pool_request *r = TAILQ_FIRST(&t->requests);
            if (r->deadline_ms <= now_ms) {
                fail_later(r, POOL_BUSY);
                again = true;
                break;
            }
        }
    }
    wake(p);
}

void
pools_tick(struct pool_list *list, int64_t now_ms)
{
    struct pool *p, *next;

    for (p = TAILQ_FIRST(list); p != NULL; p = next) {
        next = TAILQ_NEXT(p, link);
        tick(p, now_ms);
    }
}

void
pools_wake(struct pool_list *list, const struct route *route)
{
    struct pool *p, *next;

    for (p = TAILQ_FIRST(list); p != NULL; p = next) {
        next = TAILQ_NEXT(p, link);
        if (p->route == route)
            wake(p);
    }
}
