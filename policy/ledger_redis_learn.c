#include "base/clock.h"
#include "policy/event.h"
#include "policy/ledger_redis_private.h"

/* What is learnt of the fleet. */

#define SAME_S 2 /* moments that differ by no more are the same */

static bool
is_same_hold(const struct ledger_hold *a, const struct ledger_hold *b)
{
    int64_t difference = (int64_t)a->until_s - (int64_t)b->until_s;

    return a->is_on == b->is_on && a->is_monitor == b->is_monitor && a->action == b->action &&
           a->by == b->by && a->repeats == b->repeats && difference <= SAME_S &&
           difference >= -SAME_S;
}

static void
learn_hold(struct ledger_redis *r, const struct redis_row *row, struct ledger_now now)
{
    struct ledger *l = r->p->ledger;
    bool is_null = row->kind == REDIS_ROW_NULL_HOLD, is_none = row->a == POLICY_ACTION_NONE,
         is_news;
    int64_t until_s = now.s + row->left_s;
    struct ledger_entry *e = ledger_open(l, &row->network, !is_none, now);
    struct ledger_hold before, h = {.action = (uint8_t)row->a,
                                    .by = (uint8_t)row->b,
                                    .repeats = (uint8_t)row->c,
                                    .is_on = row->left_s > 0};

    if (e == NULL)
        return;
    before = e->hold[is_null];
    h.until_s = until_s < 1 ? 1 : (uint32_t)until_s;
    if (is_none)
        h = (struct ledger_hold){0};
    /* What was done here since is newer. */
    is_news = e->share.hold[is_null] != MEMO_CHANGED;
    if (is_news)
        e->share.hold[is_null] = MEMO_SENT;
    is_news = is_news && !is_same_hold(&before, &h);
    if (is_news)
        ledger_hold(l, e, is_null, &h);
    ledger_close(l, e);
    if (!is_news)
        return;
    if (h.is_on)
        event_block(true, &row->network, policy_wall_of(r->p, h.until_s),
                    policy_by_text((enum policy_by)h.by), is_null, false);
    else if (policy_is_in_force(&before, now.s))
        event_block(false, &row->network, policy_wall_of(r->p, now.s),
                    policy_by_text(POLICY_BY_CONTROL), is_null, before.is_monitor);
}

struct clearing {
    struct ledger *ledger;
    const struct network *network;
    uint32_t until_s;
};

static void
clear_inside(void *arg, struct ledger_entry *e)
{
    const struct clearing *c = arg;

    if (e->network.prefix < c->network->prefix || !network_contains(c->network, &e->network.base))
        return;
    ledger_prune(c->ledger, e, c->until_s, true);
    /* Redis may have heard our counts by now: clear them there too. */
    if (e->share.cleared_s < c->until_s)
        e->share.cleared_s = c->until_s;
    ledger_set_unsent(c->ledger, e);
}

static void
learn_cleared(struct ledger_redis *r, const struct redis_row *row, struct ledger_now now)
{
    int64_t until_s = now.s + (row->left_s < 0 ? row->left_s : 0);
    struct clearing c = {r->p->ledger, &row->network, until_s < 1 ? 1 : (uint32_t)until_s};

    ledger_walk(r->p->ledger, clear_inside, &c);
}

static uint32_t
end_of(const struct redis_row *row, struct ledger_now now)
{
    return row->a == 0 || row->left_s <= 0 ? 0 : now.s + (uint32_t)row->left_s;
}

static void
learn_mark(struct memo_table *t, const struct redis_row *row, struct ledger_now now)
{
    uint32_t until_s = end_of(row, now);
    struct memo *m;

    memo_lock(t);
    m = memo_find(t, row->hash, 0);
    if (m == NULL || m->unsent != MEMO_CHANGED) {
        if (until_s != 0)
            m = memo_learn(t, row->hash, until_s, row->b);
        else if (m != NULL)
            memo_unlearn(t, m);
        if (m != NULL) {
            m->unsent = MEMO_SENT;
            m->is_told = true;
        }
    }
    memo_unlock(t);
}

static enum delivery_fact
delivery_of(const struct redis_row *row)
{
    if (row->a == 2)
        return DELIVERY_ELSEWHERE;
    return row->b == 1 ? DELIVERY_HEARD : DELIVERY_DONE;
}

void
ledger_redis_learn(struct ledger_redis *r, const struct redis_row *row)
{
    struct ledger_now now = policy_moment(r->st, clock_ms());

    switch (row->kind) {
    case REDIS_ROW_HOLD:
    case REDIS_ROW_NULL_HOLD:
        learn_hold(r, row, now);
        break;
    case REDIS_ROW_CLEARED:
        learn_cleared(r, row, now);
        break;
    case REDIS_ROW_MARK:
        learn_mark(marks_table(r->p->marks), row, now);
        break;
    case REDIS_ROW_DELIVERY:
        /* We know better about a burst of our own. */
        if (row->a != 2 || row->c != r->self)
            deliveries_learn(r->p->deliveries, row->hash, delivery_of(row), end_of(row, now));
        break;
    }
}
