#include "policy/policy_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "conf/settings.h"
#include "policy/delivered.h"
#include "policy/event.h"
#include "policy/ledger_redis.h"
#include "policy/mark.h"
#include "policy/state.h"

#define EPOCH_S   (60u * 24 * 3600)
#define BY_EXPIRY "expiry"

const char *
policy_action_text(enum policy_action action)
{
    switch (action) {
    case POLICY_ACTION_NONE:
        return "none";
    case POLICY_ACTION_REJECT:
        return "reject";
    case POLICY_ACTION_DISCONNECT:
        return "disconnect";
    case POLICY_ACTION_BLOCK:
        return "block";
    case POLICY_ACTION_BLIND:
        return "blind";
    }
    return "";
}

const char *
policy_by_text(enum policy_by by)
{
    switch (by) {
    case POLICY_BY_HARVEST:
        return "harvest";
    case POLICY_BY_TRAP:
        return "trap";
    case POLICY_BY_CONTROL:
        return "control";
    }
    return "";
}

uint32_t
policy_seconds_of(int64_t now_ms)
{
    return (uint32_t)(now_ms / 1000) + EPOCH_S;
}

uint32_t
policy_duration_s(int64_t ms)
{
    return ms <= 1000 ? 1 : (uint32_t)((ms + 999) / 1000);
}

struct ledger_now
policy_moment(const struct settings *st, int64_t now_ms)
{
    return (struct ledger_now){.s = policy_seconds_of(now_ms),
                               .window_s = policy_duration_s(st->harvest.window)};
}

int64_t
policy_wall_of(const struct policy *p, uint32_t s)
{
    return s + atomic_load_explicit(&p->wall_offset, memory_order_relaxed);
}

/* Both clocks are cut to seconds, each at a moment of its own, so their difference wavers by one. A
 * change of one is not followed, or the end of a block would seem to move. */
static void
follow_wall(struct policy *p, int64_t now_ms, int64_t wall_s)
{
    int64_t offset = wall_s - policy_seconds_of(now_ms);
    int64_t before = atomic_load_explicit(&p->wall_offset, memory_order_relaxed);

    if (offset < before - 1 || offset > before + 1)
        atomic_store_explicit(&p->wall_offset, offset, memory_order_relaxed);
}

static struct state_view
view_of(struct policy *p, const struct settings *st, int64_t now_ms)
{
    return (struct state_view){.ledger = p->ledger,
                               .marks = marks_table(p->marks),
                               .deliveries = deliveries_table(p->deliveries),
                               .wall_offset =
                                   atomic_load_explicit(&p->wall_offset, memory_order_relaxed),
                               .now = policy_moment(st, now_ms)};
}

/* Blocks whose time is over, and at a reload those of a monitor that was switched off. */

struct ending {
    struct policy *p;
    uint32_t now_s;
    bool is_monitor_over;
};

static void
end_holds(void *arg, struct ledger_entry *e)
{
    const struct ending *ending = arg;

    for (int is_null = 0; is_null < 2; is_null++) {
        struct ledger_hold h = e->hold[is_null];
        bool is_over = h.until_s <= ending->now_s;
        if (!h.is_on || !(is_over || (ending->is_monitor_over && h.is_monitor)))
            continue;
        event_block(false, &e->network,
                    policy_wall_of(ending->p, is_over ? h.until_s : ending->now_s), BY_EXPIRY,
                    is_null == 1, h.is_monitor);
        h.is_on = false;
        /* What was not given is no repetition either. */
        if (h.is_monitor && ending->is_monitor_over)
            h = (struct ledger_hold){0};
        ledger_hold(ending->p->ledger, e, is_null == 1, &h);
    }
}

/* Blocks that a monitor left behind. */
static void
end_monitor(struct policy *p, const struct settings *st, int64_t now_ms)
{
    struct ending ending = {p, policy_seconds_of(now_ms), !st->server.monitor};

    ledger_walk(p->ledger, end_holds, &ending);
}

/* The key comes from the state, so that is opened first and read last. */
static int
set_up(struct policy *p, const struct settings *st, int64_t now_ms, struct err *e)
{
    struct siphash_key table_key = siphash_key_random(), key = siphash_key_random();
    struct state_view view;

    if (st->server.state_dir != NULL) {
        p->state = state_open(st->server.state_dir, &key, e);
        if (p->state == NULL)
            return -1;
    }
    hash_key_set(&p->key, &key);
    p->ledger = ledger_new(&table_key, LEDGER_CAPACITY);
    p->marks = marks_new(&key);
    p->deliveries = deliveries_new(&key);
    if (p->ledger == NULL || p->marks == NULL || p->deliveries == NULL)
        return err_set(e, ERR_SYSTEM, "out of memory");
    if (p->state == NULL)
        return 0;
    view = view_of(p, st, now_ms);
    return state_load(p->state, &view, e);
}

static void
take_down(struct policy **p)
{
    ledger_redis_free(&(*p)->redis);
    deliveries_free(&(*p)->deliveries);
    marks_free(&(*p)->marks);
    ledger_free(&(*p)->ledger);
    state_close(&(*p)->state);
    pthread_mutex_destroy(&(*p)->lock);
    free(*p);
    *p = NULL;
}

struct policy *
policy_new(const struct settings *st, int64_t now_ms, int64_t wall_s, struct err *e)
{
    struct policy *p = calloc(1, sizeof *p);

    if (p == NULL) {
        err_set(e, ERR_SYSTEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    follow_wall(p, now_ms, wall_s);
    if (set_up(p, st, now_ms, e) < 0) {
        take_down(&p);
        return NULL;
    }
    end_monitor(p, st, now_ms);
    return p;
}

static int
save(struct policy *p, const struct settings *st, int64_t now_ms, bool is_last, struct err *e)
{
    struct state_view view = view_of(p, st, now_ms);
    int rc = p->state == NULL ? 0 : state_save(p->state, &view, is_last, e);

    pthread_mutex_lock(&p->lock);
    p->save_error = rc == 0 ? (struct err){.kind = ERR_NONE} : *e;
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int
policy_save(struct policy *p, const struct settings *st, int64_t now_ms, struct err *e)
{
    return save(p, st, now_ms, false, e);
}

void
policy_free(struct policy **p, const struct settings *st, int64_t now_ms, int64_t wall_s)
{
    struct err e;

    if (*p == NULL)
        return;
    follow_wall(*p, now_ms, wall_s);
    if (save(*p, st, now_ms, true, &e) < 0)
        log_event(LOG_LEVEL_ERROR, "ledger", "state", "degraded", "error", e.text, NULL);
    take_down(p);
}

struct marks *
policy_marks(struct policy *p)
{
    return p->marks;
}

struct deliveries *
policy_deliveries(struct policy *p)
{
    return p->deliveries;
}

void
policy_reload(struct policy *p, struct settings *st, int64_t now_ms)
{
    end_monitor(p, st, now_ms);
    if (p->base != NULL)
        ledger_redis_update(&p->redis, p, st, p->base);
}

void
policy_attach(struct policy *p, struct settings *st, struct event_base *base)
{
    p->base = base;
    ledger_redis_update(&p->redis, p, st, base);
}

bool
policy_ledger_up(struct policy *p, char *why, size_t n)
{
    bool is_shared = ledger_redis_is_up(p->redis), is_saved;

    pthread_mutex_lock(&p->lock);
    is_saved = p->save_error.kind == ERR_NONE;
    (void)span_copy(why, n,
                    span_str(is_shared ? p->save_error.text : ledger_redis_error(p->redis)));
    pthread_mutex_unlock(&p->lock);
    return is_shared && is_saved;
}

struct rekeying {
    struct policy *p;
    uint32_t now_s;
};

/* An address would count twice, by either hash.  What was served may: it speaks for the client. */
static void
forget_unknown(void *arg, struct ledger_entry *e)
{
    const struct rekeying *r = arg;

    ledger_prune(r->p->ledger, e, r->now_s, false);
}

void
policy_rekey(struct policy *p, const struct siphash_key *key, uint32_t now_s)
{
    struct siphash_key own = hash_key_get(&p->key);
    struct rekeying r = {p, now_s};

    if (memcmp(&own, key, sizeof own) == 0)
        return;
    if (p->state != NULL)
        state_rekey_begin(p->state, key);
    hash_key_set(&p->key, key);
    memo_rekey(marks_table(p->marks), key);
    memo_rekey(deliveries_table(p->deliveries), key);
    ledger_walk(p->ledger, forget_unknown, &r);
    if (p->state != NULL)
        state_rekey_end(p->state);
}

void
policy_tick(struct policy *p, const struct settings *st, int64_t now_ms, int64_t wall_s)
{
    struct ledger_now now = policy_moment(st, now_ms);
    struct ending ending = {p, now.s, false};

    follow_wall(p, now_ms, wall_s);
    ledger_walk_ended(p->ledger, now.s, end_holds, &ending);
    ledger_sweep(p->ledger, now);
}

struct policy_counts
policy_counts(const struct policy *p)
{
    struct policy_counts c = {.clients = ledger_count(p->ledger),
                              .blocks = ledger_hold_count(p->ledger)};

    for (size_t i = 0; i <= POLICY_ACTION_BLIND; i++)
        c.harvests[i] = atomic_load_explicit(&p->harvests[i], memory_order_relaxed);
    return c;
}
