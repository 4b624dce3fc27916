#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "policy/resolver_private.h"

enum { TEST_MS = 600000, SELF_MS = 3600000 };

static void
log_zone(enum log_level level, const char *state, const char *zone, const char *error)
{
    struct log_line l;

    log_begin(&l, level, "dnsbl");
    log_str(&l, "state", state);
    log_str(&l, "host", zone);
    if (error != NULL)
        log_str(&l, "error", error);
    log_end(&l);
}

/* Our own addresses */

void
resolver_zones_self(const struct resolver_item *item)
{
    struct log_line l;

    if (!item->answer.is_listed)
        return;
    log_begin(&l, LOG_LEVEL_WARNING, "dnsbl");
    log_str(&l, "state", "degraded");
    log_str(&l, "host", item->answer.zone);
    log_addr(&l, "client", &item->address);
    log_str(&l, "error", "it lists our own address");
    log_end(&l);
}

/* Not before every zone is tested, or a zone that lists everybody would raise the alarm. */
static void
check_self(struct resolver *r, int64_t now_ms)
{
    for (size_t i = 0; i < r->n_zones; i++)
        if (r->zones[i].state == ZONE_UNTESTED)
            return;
    if (now_ms < r->self_due_ms)
        return;
    r->self_due_ms = now_ms + SELF_MS;
    for (size_t i = 0; i < r->n_self; i++) {
        struct resolver_item *item = calloc(1, sizeof *item);
        if (item == NULL)
            return;
        item->kind = RESOLVER_DNSBL;
        item->address = r->self[i];
        item->lists = DNSBL_NULL_SENDER;
        resolver_take(r, item);
    }
}

/* Tests */

/* Look-ups that waited for a zone's test go on. */
static void
advance_all(struct resolver *r)
{
    struct lookup *l, *next;

    for (l = LIST_FIRST(&r->lookups); l != NULL; l = next) {
        next = LIST_NEXT(l, link);
        if (l->kind == RESOLVER_DNSBL)
            resolver_zones_advance(l);
    }
}

static void
end_test(struct zone *z)
{
    struct resolver *r = z->resolver;
    enum zone_state before = z->state;

    z->tested_ms = clock_ms();
    z->fault = dnsbl_points_fault(z->findings);
    z->state = z->fault != NULL ? ZONE_DOWN : ZONE_UP;
    if (z->state == ZONE_DOWN && before != ZONE_DOWN)
        log_zone(LOG_LEVEL_WARNING, "down", z->spec.name, z->fault);
    else if (z->state == ZONE_UP && before != ZONE_UP)
        log_zone(LOG_LEVEL_NOTICE, "up", z->spec.name, NULL);
    if (before == ZONE_UNTESTED) {
        advance_all(r);
        check_self(r, z->tested_ms);
    }
}

static void
on_test_answer(void *arg, const struct dns_answer *a)
{
    struct zone_test *test = arg;
    struct zone *z = test->zone;
    size_t point = (size_t)(test - z->tests);

    test->query = NULL;
    z->findings[point] = dnsbl_point_finding((enum dnsbl_point)point, a);
    if (--z->open == 0)
        end_test(z);
}

static void
begin_test(struct zone *z)
{
    for (size_t i = 0; i < DNSBL_POINTS; i++) {
        struct netaddr address = dnsbl_point_address((enum dnsbl_point)i);
        struct dns_question q = {.type = DNS_A};
        z->findings[i] = DNSBL_FINDING_TROUBLE;
        z->tests[i].zone = z;
        if (dns_reverse_name(q.name, &address, z->spec.name))
            z->tests[i].query =
                dns_channel_ask(z->resolver->channel, &q, on_test_answer, &z->tests[i]);
        z->open += z->tests[i].query != NULL;
    }
    if (z->open == 0)
        end_test(z);
}

void
resolver_zones_tick(struct resolver *r, int64_t now_ms)
{
    for (size_t i = 0; i < r->n_zones; i++) {
        struct zone *z = &r->zones[i];
        if (z->open == 0 && (z->state == ZONE_DOWN || now_ms - z->tested_ms >= TEST_MS))
            begin_test(z);
    }
    check_self(r, now_ms);
}

void
resolver_zones_clear(struct resolver *r)
{
    for (size_t i = 0; i < r->n_zones; i++)
        for (size_t k = 0; k < DNSBL_POINTS; k++)
            if (r->zones[i].tests[k].query != NULL)
                dns_query_cancel(r->zones[i].tests[k].query);
    r->n_zones = 0;
    free(r->self);
    r->self = NULL;
    r->n_self = 0;
}

static bool
is_up(const struct resolver *r, const char *zone)
{
    for (size_t i = 0; i < r->n_zones; i++)
        if (strcmp(r->zones[i].spec.name, zone) == 0)
            return r->zones[i].state == ZONE_UP;
    return false;
}

int
resolver_zones_set(struct resolver *r, const struct dnsbl_zone *specs, size_t n,
                   const struct network_list *self, bool is_same_server)
{
    struct netaddr *addresses = calloc(self->n + 1, sizeof *addresses);
    bool was_up[RESOLVER_ZONES_MAX] = {false};
    struct lookup *l;

    if (addresses == NULL)
        return -1;
    for (size_t i = 0; i < n && is_same_server; i++)
        was_up[i] = is_up(r, specs[i].name);
    LIST_FOREACH(l, &r->lookups, link)
        resolver_zones_cancel(l);
    resolver_zones_clear(r);
    r->self = addresses;
    for (size_t i = 0; i < self->n; i++)
        r->self[r->n_self++] = self->v[i].base;
    r->self_due_ms = 0;
    memset(r->zones, 0, sizeof r->zones);
    for (size_t i = 0; i < n; i++) {
        r->zones[i].resolver = r;
        r->zones[i].spec = specs[i];
        r->zones[i].state = was_up[i] ? ZONE_UP : ZONE_UNTESTED;
    }
    r->n_zones = n;
    for (size_t i = 0; i < n; i++)
        begin_test(&r->zones[i]);
    advance_all(r);
    return 0;
}

/* Look-ups */

void
resolver_zones_cancel(struct lookup *l)
{
    for (size_t i = 0; i < RESOLVER_ZONES_MAX; i++) {
        if (l->zones[i].query != NULL)
            dns_query_cancel(l->zones[i].query);
        l->zones[i] = (struct zone_question){.lookup = l};
    }
}

/* True if LISTS, by zone I, are among those asked: L is ended. */
static bool
is_found(struct lookup *l, size_t i, unsigned lists)
{
    struct resolver_answer answer = {.spf = SPF_TEMPERROR, .is_listed = true};

    if ((lists & l->waiting->lists) == 0)
        return false;
    (void)span_copy(answer.zone, sizeof answer.zone, span_str(l->resolver->zones[i].spec.name));
    resolver_finish(l, &answer);
    return true;
}

static void
on_zone_answer(void *arg, const struct dns_answer *a)
{
    struct zone_question *zq = arg;
    struct lookup *l = zq->lookup;
    size_t i = (size_t)(zq - l->zones);
    unsigned lists = dnsbl_zone_lists(&l->resolver->zones[i].spec, a);

    zq->query = NULL;
    dns_cache_put(l->resolver->cache, zq->key, lists, clock_ms(),
                  a->status == DNS_TROUBLE ? RESOLVER_TROUBLE_MS : resolver_ttl_ms(a->ttl_s));
    if (!is_found(l, i, lists))
        resolver_zones_advance(l);
}

/* Begin with zone I.  True if L is ended by it. */
static bool
begin_zone(struct lookup *l, size_t i)
{
    struct resolver *r = l->resolver;
    struct zone_question *zq = &l->zones[i];
    struct dns_question q = {.type = DNS_A};
    unsigned lists;

    zq->lookup = l;
    zq->is_begun = true;
    if (r->zones[i].state == ZONE_DOWN)
        return false;
    zq->key = resolver_cache_key(r, RESOLVER_DNSBL, &l->waiting->address, r->zones[i].spec.name);
    if (dns_cache_get(r->cache, zq->key, clock_ms(), &lists))
        return is_found(l, i, lists);
    if (dns_reverse_name(q.name, &l->waiting->address, r->zones[i].spec.name))
        zq->query = dns_channel_ask(r->channel, &q, on_zone_answer, zq);
    return false;
}

static const struct resolver_answer unlisted = {.spf = SPF_TEMPERROR};

void
resolver_zones_expire(struct lookup *l)
{
    for (size_t i = 0; i < RESOLVER_ZONES_MAX; i++)
        if (l->zones[i].query != NULL)
            dns_cache_put(l->resolver->cache, l->zones[i].key, 0, clock_ms(), RESOLVER_TROUBLE_MS);
    resolver_finish(l, &unlisted);
}

void
resolver_zones_advance(struct lookup *l)
{
    const struct resolver *r = l->resolver;
    bool is_waiting = false;

    for (size_t i = 0; i < r->n_zones; i++) {
        const struct zone *z = &r->zones[i];
        if ((z->spec.lists & l->waiting->lists) == 0)
            continue;
        if (!l->zones[i].is_begun && z->state != ZONE_UNTESTED && begin_zone(l, i))
            return;
        is_waiting = is_waiting || z->state == ZONE_UNTESTED || l->zones[i].query != NULL;
    }
    if (!is_waiting)
        resolver_finish(l, &unlisted);
}
