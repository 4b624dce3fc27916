#include "proxy/relay/host.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* How much longer a request may wait than those of another loop. */
#define FAIR_MS 250

/* What was learnt of a host. */
struct knowledge {
    struct host_addresses addresses;
    struct smtp_capabilities caps;
    bool was_reached;
    char error[160];
};

struct host {
    struct hosts *owner;
    char *name;
    char *label;
    uint16_t port;
    int weight;
    bool is_literal; /* an address: never resolved */
    _Atomic int state;
    pthread_mutex_t lock; /* over all below */
    struct knowledge known;
    int total;              /* connections, open or being opened */
    struct network *active; /* the client that each busy one serves; family 0 for a probe */
    size_t n_active, capacity;
};

struct route {
    struct route *next;
    struct hosts *owner;
    char *name;
    struct host **hosts;
    size_t n_hosts;
    bool is_current; /* named by the settings in force; under the owner's lock */
    /* Requests of each loop: counted, since a loop may have a retired pool beside the new one. */
    _Atomic unsigned waiting[HOST_LOOPS_MAX];
    _Atomic int64_t full_since_ms[HOST_LOOPS_MAX];
    _Atomic bool is_stood_back; /* some loop has, and is to hear of a change of these */
    _Atomic bool no_dsn_told;
};

struct hosts {
    _Atomic bool has_changed; /* of capabilities, since hosts_changed */
    pthread_mutex_t lock;     /* over the list and the posts; a route lives as long as we do */
    struct route *routes;
    struct {
        route_post_fn *post;
        void *arg;
    } loops[HOST_LOOPS_MAX];
};

static void
host_free(struct host *h)
{
    if (h == NULL)
        return;
    free(h->name);
    free(h->label);
    free(h->active);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static struct host *
host_new(const struct host_entry *entry)
{
    struct host *h = calloc(1, sizeof(*h));
    size_t n = strlen(entry->name) + sizeof("[]:65535");

    if (h == NULL)
        return NULL;
    pthread_mutex_init(&h->lock, NULL);
    h->name = span_dup(span_str(entry->name));
    h->label = malloc(n);
    if (h->name == NULL || h->label == NULL) {
        host_free(h);
        return NULL;
    }
    snprintf(h->label, n, strchr(entry->name, ':') != NULL ? "[%s]:%u" : "%s:%u", entry->name,
             (unsigned)entry->port);
    h->weight = entry->weight;
    h->known.caps.bits = SMTP_CAP_BIT(8BITMIME);
    h->port = entry->port;
    if (netaddr_parse(span_str(entry->name), &h->known.addresses.v[0])) {
        h->is_literal = true;
        h->known.addresses.n = 1;
    }
    return h;
}

static void
route_free(struct route *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n_hosts; i++)
        host_free(r->hosts[i]);
    free(r->hosts);
    free(r->name);
    free(r);
}

static struct route *
route_new(struct hosts *owner, const struct settings_downstream *ds)
{
    struct route *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->owner = owner;
    r->name = span_dup(span_str(ds->name));
    r->hosts = calloc(ds->hosts.n, sizeof(*r->hosts));
    if (r->name == NULL || r->hosts == NULL) {
        route_free(r);
        return NULL;
    }
    for (size_t i = 0; i < ds->hosts.n; i++) {
        if ((r->hosts[i] = host_new(&ds->hosts.v[i])) == NULL) {
            route_free(r);
            return NULL;
        }
        r->hosts[i]->owner = owner;
        r->n_hosts++;
    }
    return r;
}

static bool
route_matches(const struct route *r, const struct settings_downstream *ds)
{
    if (strcmp(r->name, ds->name) != 0 || r->n_hosts != ds->hosts.n)
        return false;
    for (size_t i = 0; i < r->n_hosts; i++) {
        const struct host *h = r->hosts[i];
        const struct host_entry *entry = &ds->hosts.v[i];
        if (strcmp(h->name, entry->name) != 0 || h->port != entry->port ||
            h->weight != entry->weight)
            return false;
    }
    return true;
}

struct hosts *
hosts_new(void)
{
    struct hosts *h = calloc(1, sizeof(*h));

    if (h != NULL)
        pthread_mutex_init(&h->lock, NULL);
    return h;
}

void
hosts_free(struct hosts **hp)
{
    struct hosts *h = *hp;

    if (h == NULL)
        return;
    *hp = NULL;
    while (h->routes != NULL) {
        struct route *r = h->routes;
        h->routes = r->next;
        route_free(r);
    }
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static struct route *
find_current(const struct hosts *h, const char *downstream)
{
    struct route *r = h->routes;

    while (r != NULL && !(r->is_current && strcmp(r->name, downstream) == 0))
        r = r->next;
    return r;
}

/* What is known of a host does not end with a change of the list that it stands in.  Connections
 * stay with the list that they were made for. */
static void
inherit(const struct route *r, const struct route *before)
{
    for (size_t i = 0; i < r->n_hosts; i++) {
        struct host *h = r->hosts[i], *old;
        size_t k = 0;
        while (k < before->n_hosts && strcmp(before->hosts[k]->label, h->label) != 0)
            k++;
        if (k == before->n_hosts)
            continue;
        old = before->hosts[k];
        pthread_mutex_lock(&old->lock);
        struct knowledge known = old->known;
        pthread_mutex_unlock(&old->lock);
        pthread_mutex_lock(&h->lock);
        h->known = known;
        pthread_mutex_unlock(&h->lock);
        atomic_store(&h->state, atomic_load(&old->state));
    }
}

/* Under the lock.  False when memory is out. */
static bool
make_current(struct hosts *h, const struct settings_downstream *ds)
{
    struct route *before = find_current(h, ds->name), *r = h->routes;

    while (r != NULL && !route_matches(r, ds))
        r = r->next;
    if (r == NULL) {
        if ((r = route_new(h, ds)) == NULL)
            return false;
        r->next = h->routes;
        h->routes = r;
    }
    if (before != NULL && before != r) {
        inherit(r, before);
        before->is_current = false;
    }
    r->is_current = true;
    return true;
}

static bool
is_named(const struct settings *st, const struct route *r)
{
    size_t i = 0;

    while (i < st->n_downstreams && strcmp(st->downstreams[i].name, r->name) != 0)
        i++;
    return i < st->n_downstreams;
}

int
hosts_update(struct hosts *h, const struct settings *st)
{
    bool is_ok = true;

    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < st->n_downstreams && is_ok; i++)
        is_ok = make_current(h, &st->downstreams[i]);
    for (struct route *r = h->routes; r != NULL; r = r->next)
        r->is_current = r->is_current && is_named(st, r);
    pthread_mutex_unlock(&h->lock);
    return is_ok ? 0 : -1;
}

struct route *
hosts_route(struct hosts *h, const char *downstream)
{
    pthread_mutex_lock(&h->lock);
    struct route *r = find_current(h, downstream);
    pthread_mutex_unlock(&h->lock);
    return r;
}

bool
hosts_any_up(struct hosts *h)
{
    bool found = false;

    pthread_mutex_lock(&h->lock);
    for (const struct route *r = h->routes; r != NULL && !found; r = r->next)
        found = r->is_current && route_is_up(r);
    pthread_mutex_unlock(&h->lock);
    return found;
}

/* Of a host never reached: 8BITMIME. */
static struct smtp_capabilities
host_capabilities(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    struct smtp_capabilities caps = h->known.caps;
    pthread_mutex_unlock(&h->lock);
    return caps;
}

static bool
host_was_reached(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    bool was_reached = h->known.was_reached;
    pthread_mutex_unlock(&h->lock);
    return was_reached;
}

static bool
route_knows_capabilities(const struct route *r)
{
    for (size_t i = 0; i < r->n_hosts; i++)
        if (host_was_reached(r->hosts[i]))
            return true;
    return false;
}

static void
intersect(struct smtp_capabilities *all, const struct smtp_capabilities *one)
{
    all->bits &= one->bits;
    if (one->size != 0 && (all->size == 0 || one->size < all->size))
        all->size = one->size;
}

void
hosts_capabilities(struct hosts *h, struct smtp_capabilities *caps)
{
    bool is_first = true;

    memset(caps, 0, sizeof(*caps));
    caps->bits = SMTP_CAP_BIT(8BITMIME);
    pthread_mutex_lock(&h->lock);
    for (const struct route *r = h->routes; r != NULL; r = r->next) {
        if (!r->is_current)
            continue;
        bool was_reached = route_knows_capabilities(r);
        for (size_t i = 0; i < r->n_hosts; i++) {
            /* A host that is down since ever says nothing while another of its route does. */
            if (was_reached && !host_was_reached(r->hosts[i]))
                continue;
            struct smtp_capabilities one = host_capabilities(r->hosts[i]);
            if (is_first)
                *caps = one;
            else
                intersect(caps, &one);
            is_first = false;
        }
    }
    pthread_mutex_unlock(&h->lock);
}

bool
route_has_dsn(const struct route *r)
{
    bool was_reached = false;

    for (size_t i = 0; i < r->n_hosts; i++) {
        if (!host_was_reached(r->hosts[i]))
            continue;
        was_reached = true;
        if ((host_capabilities(r->hosts[i]).bits & SMTP_CAP_BIT(DSN)) == 0)
            return false;
    }
    return was_reached;
}

bool
route_tell_no_dsn(struct route *r)
{
    return !atomic_exchange(&r->no_dsn_told, true);
}

size_t
route_hosts(const struct route *r)
{
    return r->n_hosts;
}

struct host *
route_host(const struct route *r, size_t i)
{
    return r->hosts[i];
}

const char *
route_name(const struct route *r)
{
    return r->name;
}

bool
route_is_up(const struct route *r)
{
    for (size_t i = 0; i < r->n_hosts; i++)
        if (host_state(r->hosts[i]) != HOST_DOWN)
            return true;
    return false;
}

const char *
host_name(const struct host *h)
{
    return h->name;
}

const char *
host_label(const struct host *h)
{
    return h->label;
}

int
host_weight(const struct host *h)
{
    return h->weight;
}

enum host_state
host_state(const struct host *h)
{
    return (enum host_state)atomic_load_explicit(&h->state, memory_order_relaxed);
}

bool
host_set_state(struct host *h, enum host_state state, const char *error)
{
    int old = atomic_exchange(&h->state, (int)state);

    pthread_mutex_lock(&h->lock);
    if (!span_copy(h->known.error, sizeof(h->known.error), span_str(error)))
        span_copy(h->known.error, sizeof(h->known.error),
                  span_of(error, sizeof(h->known.error) - 1));
    pthread_mutex_unlock(&h->lock);
    return old != (int)state;
}

void
host_set_capabilities(struct host *h, const struct smtp_capabilities *caps)
{
    pthread_mutex_lock(&h->lock);
    if (!h->known.was_reached || h->known.caps.bits != caps->bits ||
        h->known.caps.size != caps->size)
        atomic_store(&h->owner->has_changed, true);
    h->known.caps = *caps;
    h->known.was_reached = true;
    pthread_mutex_unlock(&h->lock);
}

bool
host_addresses(struct host *h, struct host_addresses *out)
{
    pthread_mutex_lock(&h->lock);
    *out = h->known.addresses;
    pthread_mutex_unlock(&h->lock);
    out->port = h->port;
    return out->n > 0;
}

void
host_set_addresses(struct host *h, const struct host_addresses *fresh)
{
    pthread_mutex_lock(&h->lock);
    h->known.addresses = *fresh;
    pthread_mutex_unlock(&h->lock);
}

/* How many busy connections serve CLIENT. Under the lock. */
static int
count_client(const struct host *h, const struct network *client)
{
    int n = 0;

    for (size_t i = 0; i < h->n_active; i++)
        if (network_equal(&h->active[i], client))
            n++;
    return n;
}

static bool
has_share_left(const struct host *h, int max, const struct network *client)
{
    int share = max / 4 > 0 ? max / 4 : 1;

    return client == NULL || count_client(h, client) < share;
}

/* A probe is noted as family 0. Under the lock. */
static bool
add_active(struct host *h, const struct network *client)
{
    if (h->n_active == h->capacity) {
        size_t capacity = h->capacity == 0 ? 16 : h->capacity * 2;
        struct network *grown = realloc(h->active, capacity * sizeof(*grown));
        if (grown == NULL)
            return false;
        h->active = grown;
        h->capacity = capacity;
    }
    if (client != NULL)
        h->active[h->n_active++] = *client;
    else
        h->active[h->n_active++] = (struct network){0};
    return true;
}

static void
drop_active(struct host *h, const struct network *client)
{
    static const struct network probe = {0};
    const struct network *wanted = client != NULL ? client : &probe;

    for (size_t i = 0; i < h->n_active; i++) {
        if (network_equal(&h->active[i], wanted)) {
            h->active[i] = h->active[--h->n_active];
            return;
        }
    }
}

enum host_slot
host_slot_take(struct host *h, int max, const struct network *client)
{
    enum host_slot slot = HOST_SLOT_TAKEN;

    pthread_mutex_lock(&h->lock);
    if (!has_share_left(h, max, client))
        slot = HOST_SLOT_CLIENT_FULL;
    else if (h->total >= max)
        slot = HOST_SLOT_FULL;
    else if (!add_active(h, client))
        slot = HOST_SLOT_FULL;
    else
        h->total++;
    pthread_mutex_unlock(&h->lock);
    return slot;
}

bool
host_slot_busy(struct host *h, int max, const struct network *client)
{
    pthread_mutex_lock(&h->lock);
    bool done = has_share_left(h, max, client) && add_active(h, client);
    pthread_mutex_unlock(&h->lock);
    return done;
}

void
host_slot_idle(struct host *h, const struct network *client)
{
    pthread_mutex_lock(&h->lock);
    drop_active(h, client);
    pthread_mutex_unlock(&h->lock);
}

void
host_slot_give(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    h->total--;
    pthread_mutex_unlock(&h->lock);
}

int
host_connections(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    int n = h->total;
    pthread_mutex_unlock(&h->lock);
    return n;
}

int
host_slots_left(struct host *h, int max)
{
    return max - host_connections(h);
}

void
hosts_set_post(struct hosts *h, unsigned loop, route_post_fn *post, void *arg)
{
    pthread_mutex_lock(&h->lock);
    h->loops[loop].post = post;
    h->loops[loop].arg = arg;
    pthread_mutex_unlock(&h->lock);
}

/* Tell the loops of MASK. */
static void
tell(struct route *r, uint64_t mask)
{
    pthread_mutex_lock(&r->owner->lock);
    for (unsigned i = 0; i < HOST_LOOPS_MAX; i++)
        if ((mask >> i & 1) != 0 && r->owner->loops[i].post != NULL)
            r->owner->loops[i].post(r->owner->loops[i].arg, r);
    pthread_mutex_unlock(&r->owner->lock);
}

static bool
has_idle(const struct route *r)
{
    bool found = false;

    for (size_t i = 0; i < r->n_hosts && !found; i++) {
        struct host *h = r->hosts[i];
        pthread_mutex_lock(&h->lock);
        found = h->total > (int)h->n_active;
        pthread_mutex_unlock(&h->lock);
    }
    return found;
}

void
route_wait(struct route *r, unsigned loop, bool waits)
{
    if (!waits) {
        atomic_fetch_sub(&r->waiting[loop], 1);
        return;
    }
    /* Counted before we look: who becomes idle behind our look finds it. */
    atomic_fetch_add(&r->waiting[loop], 1);
    if (has_idle(r))
        tell(r, UINT64_MAX);
}

unsigned
route_waiting(const struct route *r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < HOST_LOOPS_MAX; i++)
        n += atomic_load(&r->waiting[i]);
    return n;
}

void
route_set_full(struct route *r, unsigned loop, int64_t since_ms)
{
    if (atomic_exchange(&r->full_since_ms[loop], since_ms) != since_ms &&
        atomic_exchange(&r->is_stood_back, false))
        route_wake(r);
}

static bool
waits_longer_elsewhere(const struct route *r, unsigned loop, int64_t since_ms)
{
    for (unsigned i = 0; i < HOST_LOOPS_MAX; i++) {
        int64_t other_ms = i != loop ? atomic_load(&r->full_since_ms[i]) : 0;
        if (other_ms != 0 && other_ms + FAIR_MS < since_ms)
            return true;
    }
    return false;
}

bool
route_is_due_elsewhere(struct route *r, unsigned loop, int64_t since_ms)
{
    if (!waits_longer_elsewhere(r, loop, since_ms))
        return false;
    /* Noted before we look again: who waits there may just have got what it waited for. */
    atomic_store(&r->is_stood_back, true);
    return waits_longer_elsewhere(r, loop, since_ms);
}

void
route_wake(struct route *r)
{
    uint64_t waiting = 0;

    for (unsigned i = 0; i < HOST_LOOPS_MAX; i++)
        if (atomic_load(&r->waiting[i]) > 0)
            waiting |= UINT64_C(1) << i;
    if (waiting != 0)
        tell(r, waiting);
}

void
hosts_each(struct hosts *h, hosts_each_fn *fn, void *arg)
{
    pthread_mutex_lock(&h->lock);
    for (const struct route *r = h->routes; r != NULL; r = r->next) {
        for (size_t i = 0; r->is_current && i < r->n_hosts; i++) {
            struct host *host = r->hosts[i];
            struct host_view view = {.downstream = r->name, .host = host->label};
            view.state = host_state(host);
            pthread_mutex_lock(&host->lock);
            view.active = (int)host->n_active;
            view.idle = host->total - view.active;
            view.caps = host->known.caps;
            view.was_reached = host->known.was_reached;
            memcpy(view.error, host->known.error, sizeof(view.error));
            pthread_mutex_unlock(&host->lock);
            fn(arg, &view);
        }
    }
    pthread_mutex_unlock(&h->lock);
}

bool
host_is_literal(const struct host *h)
{
    return h->is_literal;
}

void
hosts_recall(struct hosts *h, struct span downstream, struct span label,
             const struct smtp_capabilities *caps)
{
    pthread_mutex_lock(&h->lock);
    for (const struct route *r = h->routes; r != NULL; r = r->next) {
        for (size_t i = 0; r->is_current && i < r->n_hosts; i++)
            if (span_is(downstream, r->name) && span_is(label, r->hosts[i]->label) &&
                !host_was_reached(r->hosts[i]))
                host_set_capabilities(r->hosts[i], caps);
    }
    pthread_mutex_unlock(&h->lock);
}

bool
hosts_changed(struct hosts *h)
{
    return atomic_exchange(&h->has_changed, false);
}

void
hosts_set_changed(struct hosts *h)
{
    atomic_store(&h->has_changed, true);
}

void
host_log(const struct host *h, const char *downstream, const char *error)
{
    struct log_line l;
    enum host_state state = host_state(h);
    bool is_up = state == HOST_UP;

    log_begin(&l, is_up ? LOG_LEVEL_NOTICE : LOG_LEVEL_WARNING, "downstream");
    log_str(&l, "downstream", downstream);
    log_str(&l, "host", h->label);
    log_str(&l, "state", is_up ? "up" : state == HOST_DEGRADED ? "degraded" : "down");
    if (!is_up && error != NULL)
        log_str(&l, "error", error);
    log_end(&l);
}
