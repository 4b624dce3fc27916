#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "base/clock.h"
#include "conf/settings.h"
#include "policy/ledger_redis_private.h"

/* What the fleet is told. */

#define BATCH       16u /* entries, or facts, copied under a lock */
#define SLACK_S     2u  /* each thread reads its clock once in a while */
#define LEASE_S     30u
#define LEASE_MS    10000
#define COUNT_MIN   256 /* addresses of a network that the fleet keeps at least */
#define FIXED_WORDS 11u
#define COUNT_WORDS (FIXED_WORDS + 2u * 3u * WINDOW_EXACT)
#define COUNT_TEXT  16

/* A call under way, and what is unsent again if it gets no answer. */
struct telling {
    struct ledger_redis *r;
    struct memo_table *table; /* NULL: of a network */
    struct hash128 key;
    struct network network;
    struct ledger_share before;
};

/* Networks. */

/* A copy of what is to be told of an entry. */
struct report {
    struct network network;
    struct ledger_share before;
    struct ledger_hold hold[2];
    uint32_t n[3];
    struct sighting seen[3][WINDOW_EXACT];
};

struct reports {
    uint32_t now_s;
    size_t n;
    struct report v[BATCH];
};

static void
copy_window(struct report *report, size_t w, const struct window *window)
{
    size_t n;
    const struct sighting *v = window_sightings(window, &n);

    report->n[w] = 0;
    for (size_t i = 0; i < n; i++)
        if (v[i].at_s >= report->before.sent_s)
            report->seen[w][report->n[w]++] = v[i];
}

static void
take_report(void *arg, struct ledger_entry *e)
{
    struct reports *reports = arg;
    struct report *report = &reports->v[reports->n++];

    report->network = e->network;
    report->before = e->share;
    memcpy(report->hold, e->hold, sizeof report->hold);
    copy_window(report, 0, &e->unknown[0]);
    copy_window(report, 1, &e->unknown[1]);
    copy_window(report, 2, &e->served);
    e->share.sent_s = reports->now_s > SLACK_S ? reports->now_s - SLACK_S : 0;
    e->share.cleared_s = 0;
    e->share.is_network_cleared = false;
    e->share.hold[0] = e->share.hold[1] = MEMO_SENT;
}

/* It may not have been heard. */
static void
retell_network(const struct telling *t)
{
    struct ledger *l = t->r->p->ledger;
    struct ledger_now now = policy_moment(t->r->st, clock_ms());
    struct ledger_entry *e = ledger_open(l, &t->network, false, now);
    const struct ledger_share *before = &t->before;

    if (e == NULL)
        return;
    if (before->sent_s < e->share.sent_s)
        e->share.sent_s = before->sent_s;
    if (before->cleared_s > e->share.cleared_s)
        e->share.cleared_s = before->cleared_s;
    e->share.is_network_cleared = e->share.is_network_cleared || before->is_network_cleared;
    for (int i = 0; i < 2; i++)
        if (before->hold[i] > e->share.hold[i])
            e->share.hold[i] = before->hold[i];
    ledger_set_unsent(l, e);
    ledger_close(l, e);
}

static void
retell_fact(const struct telling *t)
{
    struct memo *m;

    memo_lock(t->table);
    m = memo_find(t->table, t->key, 0);
    if (m != NULL && m->unsent == MEMO_SENT)
        memo_set_unsent(t->table, m, MEMO_CHANGED);
    memo_unlock(t->table);
}

static void
retell(struct telling *t)
{
    if (t->table == NULL)
        retell_network(t);
    else
        retell_fact(t);
    free(t);
}

static void
settle(struct telling *t)
{
    struct memo *m;

    if (t->table != NULL) {
        memo_lock(t->table);
        m = memo_find(t->table, t->key, 0);
        if (m != NULL)
            memo_release(m);
        memo_unlock(t->table);
    }
    free(t);
}

/* To `put`: nothing, or what the fleet knows better. */
static void
on_put(void *arg, const struct redisReply *reply)
{
    struct telling *t = arg;
    struct ledger_redis *r = t->r;
    struct redis_row row;

    if (reply == NULL) {
        retell(t);
        return;
    }
    settle(t);
    if (reply->type != REDIS_REPLY_ARRAY ||
        (reply->elements != 0 && !redis_row_read(reply, 0, &row))) {
        redis_link_give_up(r->link, LEDGER_REDIS_GARBLED);
        return;
    }
    if (reply->elements != 0)
        ledger_redis_learn(r, &row);
}

static bool
tell(struct ledger_redis *r, const struct telling *what, size_t keys, size_t n,
     const char *const *words, redis_link_reply_fn *reply)
{
    struct telling *t = malloc(sizeof *t);

    if (t == NULL)
        return false;
    *t = *what;
    if (ledger_redis_call(r, keys, n, words, reply, t))
        return true;
    free(t);
    return false;
}

static bool
put(struct ledger_redis *r, const struct telling *what, const char *member, int64_t left_s,
    int64_t keep_s, const uint32_t values[3])
{
    char text[5][24];
    const char *words[] = {"put", member, text[0], text[1], text[2], text[3], text[4]};

    (void)snprintf(text[0], sizeof text[0], "%" PRId64, left_s);
    (void)snprintf(text[1], sizeof text[1], "%" PRId64, keep_s);
    for (int i = 0; i < 3; i++)
        (void)snprintf(text[2 + i], sizeof text[0], "%" PRIu32, values[i]);
    return tell(r, what, 0, sizeof words / sizeof *words, words, on_put);
}

static bool
put_hold(struct ledger_redis *r, const struct telling *what, const struct report *report,
         bool is_null, uint32_t now_s)
{
    const struct ledger_hold *h = &report->hold[is_null];
    int64_t left_s = h->until_s == 0 ? 0 : (int64_t)h->until_s - now_s;
    uint32_t values[3] = {h->until_s == 0 ? POLICY_ACTION_NONE : h->action, h->by, h->repeats};
    char member[REDIS_ROW_MEMBER];

    if (h->is_monitor)
        return true;
    redis_row_network_member(member, is_null ? REDIS_ROW_NULL_HOLD : REDIS_ROW_HOLD,
                             &report->network);
    return put(r, what, member, left_s, (left_s > 0 ? left_s : 0) + LEDGER_REPEAT_KEEP_S, values);
}

static bool
put_cleared(struct ledger_redis *r, const struct telling *what, const struct report *report,
            uint32_t now_s)
{
    static const uint32_t values[3] = {1, 0, 0};
    char member[REDIS_ROW_MEMBER];

    redis_row_network_member(member, REDIS_ROW_CLEARED, &report->network);
    return put(r, what, member, (int64_t)report->before.cleared_s - now_s, LEDGER_REPEAT_KEEP_S,
               values);
}

static uint16_t
clamp16(int64_t value)
{
    return value > UINT16_MAX ? UINT16_MAX : (uint16_t)value;
}

static void
on_count(void *arg, const struct redisReply *reply)
{
    struct telling *t = arg;
    struct ledger_redis *r = t->r;
    struct network network = t->network;
    struct ledger_now now = policy_moment(r->st, clock_ms());
    struct ledger_entry *e;
    int64_t counts[4];

    if (reply == NULL) {
        retell(t);
        return;
    }
    settle(t);
    for (size_t i = 0; i < 4; i++)
        if (reply->type != REDIS_REPLY_ARRAY ||
            !redis_row_number(reply, i, 0, UINT32_MAX, &counts[i])) {
            redis_link_give_up(r->link, LEDGER_REDIS_GARBLED);
            return;
        }
    e = ledger_open(r->p->ledger, &network, false, now);
    if (e == NULL)
        return;
    /* If E was cleared meanwhile, the counts are older than that. */
    if (e->share.cleared_s == 0) {
        e->share.heard_s = now.s;
        e->share.unknown[0] = clamp16(counts[0]);
        e->share.unknown[1] = clamp16(counts[1]);
        e->share.served = clamp16(counts[2]);
        e->share.served_week = clamp16(counts[3]);
    }
    ledger_close(r->p->ledger, e);
    policy_judge(r->p, r->st, &network, clock_ms());
}

/* Twice as many as any threshold asks for: more would only make the ratio milder. */
static int
count_max(const struct settings *st)
{
    int most = st->harvest.threshold > st->harvest.threshold_wide ? st->harvest.threshold
                                                                  : st->harvest.threshold_wide;

    return 2 * most > COUNT_MIN ? 2 * most : COUNT_MIN;
}

static bool
count(struct ledger_redis *r, const struct telling *what, const struct report *report,
      uint32_t now_s)
{
    static const char *const kinds[3] = {"u:", "z:", "s:"};
    char text[COUNT_WORDS][COUNT_TEXT], network[NETWORK_TEXT];
    const char *words[COUNT_WORDS];
    char *names[3];
    size_t n = FIXED_WORDS;
    bool is_told;

    network_format(&report->network, network);
    for (int i = 0; i < 3; i++)
        words[i] = names[i] = ledger_redis_name(r, kinds[i], network);
    words[3] = "count";
    words[4] = network;
    (void)snprintf(text[5], COUNT_TEXT, "%" PRIu32, policy_duration_s(r->st->harvest.window));
    (void)snprintf(text[6], COUNT_TEXT, "%d", count_max(r->st));
    (void)snprintf(
        text[7], COUNT_TEXT, "%" PRId64,
        report->before.cleared_s == 0 ? -1 : (int64_t)elapsed_s(now_s, report->before.cleared_s));
    for (size_t w = 0; w < 3; w++) {
        (void)snprintf(text[8 + w], COUNT_TEXT, "%" PRIu32, report->n[w]);
        for (uint32_t i = 0; i < report->n[w]; i++) {
            (void)snprintf(text[n++], COUNT_TEXT, "%" PRIu32,
                           elapsed_s(now_s, report->seen[w][i].at_s));
            (void)snprintf(text[n++], COUNT_TEXT, "%" PRIu32, report->seen[w][i].hash);
        }
    }
    for (size_t i = 5; i < n; i++)
        words[i] = text[i];
    is_told = names[0] != NULL && names[1] != NULL && names[2] != NULL &&
              tell(r, what, 3, n, words, on_count);
    for (int i = 0; i < 3; i++)
        free(names[i]);
    return is_told;
}

static void
tell_report(struct ledger_redis *r, const struct report *report, uint32_t now_s)
{
    struct telling whole = {.r = r, .network = report->network, .before = report->before};
    bool has_counts =
        report->n[0] + report->n[1] + report->n[2] > 0 || report->before.cleared_s != 0;
    bool is_told = true;

    for (int i = 0; i < 2 && is_told; i++)
        if (report->before.hold[i] != MEMO_SENT)
            is_told = put_hold(r, &whole, report, i == 1, now_s);
    if (is_told && report->before.is_network_cleared)
        is_told = put_cleared(r, &whole, report, now_s);
    if (is_told && has_counts)
        is_told = count(r, &whole, report, now_s);
    if (!is_told)
        retell_network(&whole);
}

/* An entry takes four calls at most. */
static bool
has_room(const struct ledger_redis *r)
{
    return redis_link_room(r->link) >= 4 * (size_t)BATCH;
}

static void
tell_networks(struct ledger_redis *r, uint32_t now_s)
{
    struct reports *reports = malloc(sizeof *reports);

    if (reports == NULL)
        return;
    do {
        reports->now_s = now_s;
        reports->n = 0;
        (void)ledger_walk_unsent(r->p->ledger, BATCH, take_report, reports);
        for (size_t i = 0; i < reports->n; i++)
            tell_report(r, &reports->v[i], now_s);
    } while (reports->n == BATCH && has_room(r));
    free(reports);
}

/* Facts. */

struct facts {
    size_t n;
    struct memo v[BATCH];
};

static void
take_fact(void *arg, struct memo *m)
{
    struct facts *facts = arg;

    m->is_told = true;
    facts->v[facts->n++] = *m;
}

static bool
tell_fact(struct ledger_redis *r, struct memo_table *t, enum redis_row_kind kind,
          const struct memo *m, uint32_t now_s)
{
    struct telling what = {.r = r, .table = t, .key = m->key};
    bool is_over = m->until_s <= now_s, is_delivery = kind == REDIS_ROW_DELIVERY;
    uint32_t left_s = is_over ? 0 : m->until_s - now_s;
    uint32_t values[3] = {is_over ? 0 : 1, is_delivery ? m->value == DELIVERY_HEARD : m->value, 0};
    char member[REDIS_ROW_MEMBER];

    /* Of its burst the other itself tells, which may yet fail. */
    if (is_delivery && m->value == DELIVERY_ELSEWHERE)
        return true;
    if (is_delivery && is_over && m->value == DELIVERY_RELEASED)
        values[0] = 3;
    if (is_delivery && m->until_s == MEMO_PINNED) {
        values[0] = 2;
        left_s = LEASE_S;
    }
    if (values[0] > 1)
        values[2] = r->self;
    redis_row_hash_member(member, kind, m->key);
    return put(r, &what, member, left_s, left_s > LEASE_S ? left_s : LEASE_S, values);
}

static void
tell_facts(struct ledger_redis *r, struct memo_table *t, enum redis_row_kind kind, uint32_t now_s)
{
    struct facts facts = {.n = BATCH};

    while (facts.n == BATCH && has_room(r)) {
        facts.n = 0;
        memo_lock(t);
        (void)memo_walk_unsent(t, BATCH, take_fact, &facts);
        memo_unlock(t);
        for (size_t i = 0; i < facts.n; i++)
            if (!tell_fact(r, t, kind, &facts.v[i], now_s)) {
                struct telling what = {.r = r, .table = t, .key = facts.v[i].key};
                retell_fact(&what);
            }
    }
}

/* Tell the fleet again of the bursts under way that it knows of, before it takes them for lost. */
static void
renew_leases(struct ledger_redis *r, int64_t now_ms)
{
    struct memo_table *t = deliveries_table(r->p->deliveries);
    struct memo *m;

    if (now_ms < r->next_lease_ms)
        return;
    r->next_lease_ms = now_ms + LEASE_MS;
    memo_lock(t);
    for (size_t i = 0; (m = memo_at(t, i)) != NULL; i++)
        if (m->until_s == MEMO_PINNED && m->is_told)
            memo_set_unsent(t, m, MEMO_CHANGED);
    memo_unlock(t);
}

void
ledger_redis_tell(struct ledger_redis *r, int64_t now_ms)
{
    uint32_t now_s = policy_seconds_of(now_ms);

    renew_leases(r, now_ms);
    if (has_room(r))
        tell_networks(r, now_s);
    tell_facts(r, marks_table(r->p->marks), REDIS_ROW_MARK, now_s);
    tell_facts(r, deliveries_table(r->p->deliveries), REDIS_ROW_DELIVERY, now_s);
}

static void
doubt_entry(void *arg, struct ledger_entry *e)
{
    e->share.sent_s = 0;
    for (int i = 0; i < 2; i++)
        if (e->hold[i].until_s != 0 && e->share.hold[i] == MEMO_SENT)
            e->share.hold[i] = MEMO_RESTORED;
    ledger_set_unsent(arg, e);
}

static void
doubt_facts(struct memo_table *t, uint32_t now_s)
{
    struct memo *m;

    memo_lock(t);
    for (size_t i = 0; (m = memo_at(t, i)) != NULL; i++)
        if (m->until_s > now_s && m->unsent == MEMO_SENT)
            memo_set_unsent(t, m, m->until_s == MEMO_PINNED ? MEMO_CHANGED : MEMO_RESTORED);
    memo_unlock(t);
}

void
ledger_redis_tell_all(struct ledger_redis *r)
{
    uint32_t now_s = policy_seconds_of(clock_ms());

    ledger_walk(r->p->ledger, doubt_entry, r->p->ledger);
    doubt_facts(marks_table(r->p->marks), now_s);
    doubt_facts(deliveries_table(r->p->deliveries), now_s);
}
