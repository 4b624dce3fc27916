#include "policy/resolver.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/clock.h"
#include "policy/resolver_private.h"

enum { TICK_S = 60, TTL_MIN_S = 60, TTL_MAX_S = 3600 };

static const struct resolver_answer nobody_knows = {.spf = SPF_TEMPERROR};

int64_t
resolver_ttl_ms(uint32_t ttl_s)
{
    return INT64_C(1000) * (ttl_s < TTL_MIN_S ? TTL_MIN_S : ttl_s > TTL_MAX_S ? TTL_MAX_S : ttl_s);
}

/* Clients */

uint64_t
resolver_add_client(struct resolver *r, struct mailbox *box)
{
    struct client *c = malloc(sizeof *c);

    if (c == NULL)
        return 0;
    pthread_mutex_lock(&r->lock);
    uint64_t id = ++r->last_client;
    *c = (struct client){.id = id, .box = box};
    LIST_INSERT_HEAD(&r->clients, c, link);
    pthread_mutex_unlock(&r->lock);
    return id;
}

static struct client *
find_client(struct resolver *r, uint64_t id)
{
    struct client *c;

    LIST_FOREACH(c, &r->clients, link)
        if (c->id == id)
            break;
    return c;
}

void
resolver_remove_client(struct resolver *r, uint64_t id)
{
    pthread_mutex_lock(&r->lock);
    struct client *c = find_client(r, id);
    if (c != NULL)
        LIST_REMOVE(c, link);
    pthread_mutex_unlock(&r->lock);
    free(c);
}

void
resolver_post(struct resolver *r, struct resolver_item *item)
{
    mailbox_post(r->box, &item->item);
}

/* Give ITEM back with ANSWER; a client that is gone has no use for it. */
static void
reply(struct resolver *r, struct resolver_item *item, const struct resolver_answer *answer)
{
    item->answer = *answer;
    if (item->client == 0) {
        resolver_zones_self(item);
        free(item);
        return;
    }
    pthread_mutex_lock(&r->lock);
    struct client *c = find_client(r, item->client);
    if (c != NULL)
        mailbox_post(c->box, &item->item);
    else
        free(item);
    pthread_mutex_unlock(&r->lock);
}

/* Look-ups */

static void
lookup_free(struct lookup *l)
{
    if (l->query != NULL)
        dns_query_cancel(l->query);
    resolver_zones_cancel(l);
    spf_free(&l->spf);
    if (l->deadline != NULL)
        event_free(l->deadline);
    free(l);
}

void
resolver_finish(struct lookup *l, const struct resolver_answer *answer)
{
    struct resolver *r = l->resolver;
    struct resolver_item *item = l->waiting, *next;

    LIST_REMOVE(l, link);
    r->n_lookups--;
    lookup_free(l);
    for (; item != NULL; item = next) {
        next = item->next;
        r->n_waiting--;
        reply(r, item, answer);
    }
}

static void
spf_finish(struct lookup *l, enum spf_result result)
{
    struct resolver_answer answer = {.spf = result};

    /* A result that holds for one sender only is not worth caching. */
    if (spf_is_general(l->spf))
        dns_cache_put(l->resolver->cache, l->cache_key, result, clock_ms(),
                      result == SPF_TEMPERROR ? RESOLVER_TROUBLE_MS : resolver_ttl_ms(l->ttl_s));
    resolver_finish(l, &answer);
}

static void spf_advance(struct lookup *l);

static void
on_spf_answer(void *arg, const struct dns_answer *a)
{
    struct lookup *l = arg;

    l->query = NULL;
    if (a->status != DNS_TROUBLE && a->ttl_s < l->ttl_s)
        l->ttl_s = a->ttl_s;
    spf_answer(l->spf, a);
    spf_advance(l);
}

static void
spf_advance(struct lookup *l)
{
    const struct dns_question *q = spf_question(l->spf);

    if (q == NULL) {
        spf_finish(l, spf_result(l->spf));
        return;
    }
    l->query = dns_channel_ask(l->resolver->channel, q, on_spf_answer, l);
    if (l->query == NULL)
        spf_finish(l, SPF_TEMPERROR);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct lookup *l = arg;

    (void)fd;
    (void)what;
    if (l->kind == RESOLVER_SPF)
        spf_finish(l, SPF_TEMPERROR);
    else
        resolver_zones_expire(l);
}

static size_t
append(char *out, size_t n, const void *p, size_t size)
{
    memcpy(out + n, p, size);
    return n + size;
}

static struct hash128
key_of(const struct resolver *r, const struct resolver_item *item)
{
    char text[sizeof item->kind + sizeof item->lists + sizeof item->address + DNS_NAME_TEXT +
              RESOLVER_SENDER_MAX];
    size_t n = append(text, 0, &item->kind, sizeof item->kind);

    n = append(text, n, &item->lists, sizeof item->lists);
    n = append(text, n, &item->address.family, sizeof item->address.family);
    n = append(text, n, item->address.octets, sizeof item->address.octets);
    n = append(text, n, item->helo, strlen(item->helo) + 1);
    n = append(text, n, item->sender, strlen(item->sender) + 1);
    return siphash128(&r->key, text, n);
}

struct hash128
resolver_cache_key(const struct resolver *r, enum resolver_kind kind, const struct netaddr *address,
                   const char *name)
{
    char text[2 + sizeof address->octets + RESOLVER_SENDER_MAX];

    text[0] = (char)kind;
    text[1] = (char)address->family;
    size_t n = append(text, 2, address->octets, sizeof address->octets);
    while (*name != '\0')
        text[n++] = ascii_lower(*name++);
    return siphash128(&r->key, text, n);
}

/* The key of a result that is general: of the client and the domain. */
static struct hash128
spf_key(const struct resolver *r, const struct resolver_item *item)
{
    const char *at = strrchr(item->sender, '@');
    const char *domain = at != NULL ? at + 1 : item->sender[0] != '\0' ? item->sender : item->helo;

    return resolver_cache_key(r, RESOLVER_SPF, &item->address, domain);
}

static struct lookup *
find_lookup(struct resolver *r, struct hash128 key)
{
    struct lookup *l;

    LIST_FOREACH(l, &r->lookups, link)
        if (l->key.lo == key.lo && l->key.hi == key.hi)
            break;
    return l;
}

static struct lookup *
lookup_new(struct resolver *r, const struct resolver_item *item, struct hash128 key)
{
    struct timeval timeout = {.tv_sec = r->timeout_ms / 1000,
                              .tv_usec = r->timeout_ms % 1000 * 1000};
    struct lookup *l = r->n_lookups < RESOLVER_LOOKUPS_MAX ? calloc(1, sizeof *l) : NULL;

    if (l == NULL)
        return NULL;
    l->resolver = r;
    l->kind = item->kind;
    l->key = key;
    l->ttl_s = UINT32_MAX;
    l->deadline = evtimer_new(r->base, on_deadline, l);
    if (item->kind == RESOLVER_SPF)
        l->spf = spf_new(&item->address, span_str(item->helo), span_str(item->sender));
    if (l->deadline == NULL || evtimer_add(l->deadline, &timeout) != 0 ||
        (item->kind == RESOLVER_SPF && l->spf == NULL)) {
        lookup_free(l);
        return NULL;
    }
    LIST_INSERT_HEAD(&r->lookups, l, link);
    r->n_lookups++;
    return l;
}

void
resolver_take(struct resolver *r, struct resolver_item *item)
{
    struct hash128 key = key_of(r, item), cache_key = {0, 0};
    struct lookup *l = find_lookup(r, key);
    unsigned known;

    if (r->n_waiting >= RESOLVER_WAITING_MAX) {
        reply(r, item, &nobody_knows);
        return;
    }
    if (l != NULL) {
        r->n_waiting++;
        item->next = l->waiting;
        l->waiting = item;
        return;
    }
    if (item->kind == RESOLVER_SPF) {
        cache_key = spf_key(r, item);
        if (dns_cache_get(r->cache, cache_key, clock_ms(), &known)) {
            struct resolver_answer answer = {.spf = (enum spf_result)known};
            reply(r, item, &answer);
            return;
        }
    }
    l = lookup_new(r, item, key);
    if (l == NULL) {
        reply(r, item, &nobody_knows);
        return;
    }
    r->n_waiting++;
    item->next = NULL;
    l->waiting = item;
    l->cache_key = cache_key;
    if (l->kind == RESOLVER_SPF)
        spf_advance(l);
    else
        resolver_zones_advance(l);
}

static void
on_arrival(evutil_socket_t fd, short what, void *arg)
{
    struct resolver *r = arg;
    struct mailbox_item *item, *next;

    (void)fd;
    (void)what;
    for (item = mailbox_take(r->box); item != NULL; item = next) {
        next = item->next;
        resolver_take(r, (struct resolver_item *)item);
    }
}

/* Life */

static void
free_retired(struct resolver *r, bool is_end)
{
    struct retired *one = SLIST_FIRST(&r->retired), *next;

    for (; one != NULL; one = next) {
        next = SLIST_NEXT(one, link);
        if (!is_end && !dns_channel_is_idle(one->channel))
            continue;
        SLIST_REMOVE(&r->retired, one, retired, link);
        dns_channel_free(&one->channel);
        free(one);
    }
}

/* What is under way may still be answered by the server of OLD, whose successor is in place. */
static void
retire(struct resolver *r, struct dns_channel *old)
{
    struct retired *one = old != NULL ? malloc(sizeof *one) : NULL;

    free_retired(r, false); /* or many reloads in a minute would keep as many */
    if (one == NULL) {
        dns_channel_free(&old);
        return;
    }
    one->channel = old;
    SLIST_INSERT_HEAD(&r->retired, one, link);
}

/* The system's servers may be known only after the start, and change. */
static void
follow_system(struct resolver *r)
{
    struct dns_channel *old = r->channel;
    struct err e;

    if (!dns_channel_is_outdated(old))
        return;
    struct dns_channel *channel = dns_channel_new(r->base, NULL, r->resolv_conf, r->timeout_ms, &e);
    if (channel == NULL)
        return; /* until the next tick */
    r->channel = channel;
    retire(r, old);
}

void
resolver_tick(struct resolver *r, int64_t now_ms)
{
    free_retired(r, false);
    follow_system(r);
    resolver_zones_tick(r, now_ms);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    resolver_tick(arg, clock_ms());
}

int
resolver_reload(struct resolver *r, const struct settings *st, struct err *e)
{
    struct dnsbl_zone specs[RESOLVER_ZONES_MAX];
    int n = dnsbl_zones_of(st, specs, RESOLVER_ZONES_MAX, e);

    if (n < 0)
        return -1;
    struct dns_channel *channel =
        dns_channel_new(r->base, st->dns.nameserver, r->resolv_conf, st->dns.timeout, e);
    if (channel == NULL)
        return -1;
    struct dns_channel *old = r->channel;
    struct siphash_key old_key = r->key;
    char *nameserver = span_dup(span_str(st->dns.nameserver));
    bool is_same_server =
        old != NULL && nameserver != NULL && strcmp(nameserver, r->nameserver) == 0;
    r->channel = channel;
    /* With another key no result of the old server or filters is found. */
    r->key = siphash_key_random();
    if (nameserver == NULL ||
        resolver_zones_set(r, specs, (size_t)n, &st->dnsbl.self, is_same_server) != 0) {
        r->channel = old;
        r->key = old_key;
        free(nameserver);
        dns_channel_free(&channel);
        return err_set(e, ERR_SYSTEM, "out of memory");
    }
    r->timeout_ms = st->dns.timeout;
    free(r->nameserver);
    r->nameserver = nameserver;
    retire(r, old);
    return 0;
}

struct resolver *
resolver_new(struct event_base *base, const struct settings *st, struct err *e)
{
    static const struct timeval minute = {.tv_sec = TICK_S};
    static char resolv_conf[] = "/etc/resolv.conf";
    struct resolver *r = calloc(1, sizeof *r);

    if (r == NULL) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    r->base = base;
    r->resolv_conf = resolv_conf;
    pthread_mutex_init(&r->lock, NULL);
    SLIST_INIT(&r->retired);
    LIST_INIT(&r->lookups);
    LIST_INIT(&r->clients);
    r->cache = dns_cache_new();
    r->box = mailbox_new();
    if (r->box != NULL)
        r->arrival = event_new(base, mailbox_fd(r->box), EV_READ | EV_PERSIST, on_arrival, r);
    r->tick = event_new(base, -1, EV_PERSIST, on_tick, r);
    if (r->cache == NULL || r->arrival == NULL || r->tick == NULL ||
        event_add(r->arrival, NULL) != 0 || event_add(r->tick, &minute) != 0) {
        err_set(e, ERR_SYSTEM, "out of memory");
        resolver_free(&r);
        return NULL;
    }
    if (resolver_reload(r, st, e) != 0)
        resolver_free(&r);
    return r;
}

static void
free_items(struct resolver_item *item)
{
    struct resolver_item *next;

    for (; item != NULL; item = next) {
        next = item->next;
        free(item);
    }
}

void
resolver_free(struct resolver **r)
{
    struct resolver *old = *r;
    struct mailbox_item *item, *next;
    struct lookup *l;

    if (old == NULL)
        return;
    while ((l = LIST_FIRST(&old->lookups)) != NULL) {
        LIST_REMOVE(l, link);
        free_items(l->waiting);
        lookup_free(l);
    }
    resolver_zones_clear(old);
    for (item = old->box != NULL ? mailbox_take(old->box) : NULL; item != NULL; item = next) {
        next = item->next;
        free(item);
    }
    if (old->arrival != NULL)
        event_free(old->arrival);
    if (old->tick != NULL)
        event_free(old->tick);
    dns_channel_free(&old->channel);
    free(old->nameserver);
    free_retired(old, true);
    dns_cache_free(&old->cache);
    mailbox_free(&old->box);
    pthread_mutex_destroy(&old->lock);
    free(old);
    *r = NULL;
}

const char *
resolver_zone(const struct resolver *r, size_t i, const char **fault)
{
    if (i >= r->n_zones)
        return NULL;
    *fault = r->zones[i].fault;
    return r->zones[i].spec.name;
}
