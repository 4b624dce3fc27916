#include <stdlib.h>
#include <string.h>

#include "conf/settings.h"
#include "policy/event.h"
#include "policy/policy_private.h"

/* What an operator sees and does. */

struct gathering {
    const struct policy *p;
    uint32_t now_s;
    struct policy_block *v;
    size_t n, capacity;
    bool is_failed;
};

static bool
make_room(struct gathering *g)
{
    size_t capacity = g->capacity == 0 ? 64 : 2 * g->capacity;
    struct policy_block *v;

    if (g->n < g->capacity)
        return true;
    v = realloc(g->v, capacity * sizeof *v);
    if (v == NULL) {
        g->is_failed = true;
        return false;
    }
    g->v = v;
    g->capacity = capacity;
    return true;
}

static void
gather_block(void *arg, struct ledger_entry *e)
{
    struct gathering *g = arg;

    for (int is_null = 0; is_null < 2; is_null++) {
        const struct ledger_hold *h = &e->hold[is_null];
        if (!policy_is_in_force(h, g->now_s) || !make_room(g))
            continue;
        g->v[g->n++] = (struct policy_block){.network = e->network,
                                             .action = (enum policy_action)h->action,
                                             .by = (enum policy_by)h->by,
                                             .is_null = is_null == 1,
                                             .is_monitor = h->is_monitor,
                                             .until_s = policy_wall_of(g->p, h->until_s),
                                             .repeats = h->repeats};
    }
}

static int
compare_blocks(const void *a, const void *b)
{
    const struct policy_block *x = a, *y = b;

    if (x->until_s != y->until_s)
        return x->until_s < y->until_s ? -1 : 1;
    return memcmp(&x->network, &y->network, sizeof x->network);
}

int
policy_blocks(struct policy *p, int64_t now_ms, struct policy_block **blocks, size_t *n)
{
    struct gathering g = {.p = p, .now_s = policy_seconds_of(now_ms)};

    ledger_walk(p->ledger, gather_block, &g);
    if (g.is_failed) {
        free(g.v);
        return -1;
    }
    if (g.n > 0)
        qsort(g.v, g.n, sizeof *g.v, compare_blocks);
    *blocks = g.v;
    *n = g.n;
    return 0;
}

int64_t
policy_block(struct policy *p, const struct settings *st, const struct network *network,
             int64_t duration_ms, int64_t now_ms)
{
    struct ledger_now now = policy_moment(st, now_ms);
    struct ledger_entry *e = ledger_open(p->ledger, network, true, now);
    struct ledger_hold h = {.action = POLICY_ACTION_BLOCK,
                            .by = POLICY_BY_CONTROL,
                            .repeats = e->hold[0].repeats,
                            .is_on = true};

    h.until_s = now.s + policy_duration_s(duration_ms == 0 ? st->harvest.block_time : duration_ms);
    ledger_hold(p->ledger, e, false, &h);
    ledger_set_hold_unsent(p->ledger, e, false);
    ledger_close(p->ledger, e);
    int64_t until_s = policy_wall_of(p, h.until_s);
    event_block(true, network, until_s, policy_by_text(POLICY_BY_CONTROL), false, false);
    return until_s;
}

struct lifting {
    struct policy *p;
    const struct network *network;
    uint32_t now_s;
    size_t n;
};

static void
lift(void *arg, struct ledger_entry *e)
{
    struct lifting *l = arg;

    if (e->network.prefix < l->network->prefix || !network_contains(l->network, &e->network.base))
        return;
    for (int is_null = 0; is_null < 2; is_null++) {
        if (!policy_is_in_force(&e->hold[is_null], l->now_s))
            continue;
        event_block(false, &e->network, policy_wall_of(l->p, l->now_s),
                    policy_by_text(POLICY_BY_CONTROL), is_null == 1, e->hold[is_null].is_monitor);
        l->n++;
    }
    for (int is_null = 0; is_null < 2; is_null++)
        if (e->hold[is_null].until_s != 0)
            ledger_set_hold_unsent(l->p->ledger, e, is_null == 1);
    ledger_clear(l->p->ledger, e);
    if (ledger_is_shared(l->p->ledger)) {
        e->share.cleared_s = l->now_s;
        ledger_set_unsent(l->p->ledger, e);
    }
}

/* The others of the fleet may count for networks inside this one that are not known here. */
static void
share_lift(struct policy *p, const struct network *network, uint32_t now_s)
{
    struct ledger_now now = {.s = now_s, .window_s = 1};
    struct ledger_entry *e;

    if (!ledger_is_shared(p->ledger))
        return;
    e = ledger_open(p->ledger, network, true, now);
    e->share.cleared_s = now_s;
    e->share.is_network_cleared = true;
    ledger_set_unsent(p->ledger, e);
    ledger_close(p->ledger, e);
}

size_t
policy_unblock(struct policy *p, const struct network *network, int64_t now_ms)
{
    struct lifting l = {.p = p, .network = network, .now_s = policy_seconds_of(now_ms)};

    ledger_walk(p->ledger, lift, &l);
    share_lift(p, network, l.now_s);
    return l.n;
}

struct ranking {
    const struct policy *p;
    struct ledger_now now;
    struct policy_suspect *v;
    size_t n, capacity;
};

static void
rank(void *arg, struct ledger_entry *e)
{
    struct ranking *r = arg;
    uint32_t count = ledger_unknown(e, false, r->now);
    size_t i;

    if (count == 0 || (r->n == r->capacity && r->v[r->n - 1].count >= count))
        return;
    if (r->n < r->capacity)
        r->n++;
    for (i = r->n - 1; i > 0 && r->v[i - 1].count < count; i--)
        r->v[i] = r->v[i - 1];
    r->v[i] = (struct policy_suspect){.network = e->network,
                                      .count = count,
                                      .ratio = (double)count / (count + ledger_served(e, r->now))};
    if (policy_is_in_force(&e->hold[0], r->now.s)) {
        r->v[i].until_s = policy_wall_of(r->p, e->hold[0].until_s);
        r->v[i].action = (enum policy_action)e->hold[0].action;
    }
}

size_t
policy_top(struct policy *p, const struct settings *st, struct policy_suspect *out, size_t n,
           int64_t now_ms)
{
    struct ranking r = {.p = p, .now = policy_moment(st, now_ms), .v = out, .capacity = n};

    if (n > 0)
        ledger_walk(p->ledger, rank, &r);
    return r.n;
}
