#include <string.h>

#include "conf/settings.h"
#include "policy/acl.h"
#include "policy/event.h"
#include "policy/policy_private.h"

/* Counting, and what follows from it. */

#define TAGGED_MAX 320u /* no address is longer */

static uint32_t
hash_of(const struct policy *p, struct span address)
{
    struct siphash_key key = hash_key_get(&p->key);

    return (uint32_t)siphash64(&key, address.p, address.n);
}

/* One unknown recipient, as it is counted for a client and for its wide network. */
struct question {
    struct policy *p;
    const struct settings *st;
    struct ledger_now now;
    uint32_t hash;
    bool is_null, is_trap, is_private;
    enum policy_action prior; /* the session's state before */
};

struct finding {
    enum policy_action action;
    bool is_new;
    bool is_held;        /* until the block ends, not the session */
    const char *limited; /* why a block is no more than a disconnect, or NULL */
    uint32_t count;
    double ratio;
    uint32_t until_s;
};

static uint8_t
repeats_of(const struct ledger_hold *before, uint32_t now_s)
{
    if (before->until_s == 0 || elapsed_s(now_s, before->until_s) >= LEDGER_REPEAT_KEEP_S)
        return 0;
    /* What an operator did is no repetition. */
    if (before->by == POLICY_BY_CONTROL || before->repeats == LEDGER_REPEATS_MAX)
        return before->repeats;
    return (uint8_t)(before->repeats + 1);
}

static enum policy_by
by_of(const struct question *q)
{
    return q->is_trap ? POLICY_BY_TRAP : POLICY_BY_HARVEST;
}

/* Begin a block, or find that it has begun. */
static void
hold(const struct question *q, struct ledger_entry *e, enum policy_action action, struct finding *f)
{
    const struct ledger_hold *before = &e->hold[q->is_null];
    uint64_t time_s = policy_duration_s(q->st->harvest.block_time);
    uint64_t longest_s = policy_duration_s(q->st->harvest.block_time_max);
    struct ledger_hold begun = {.action = (uint8_t)action,
                                .by = (uint8_t)by_of(q),
                                .repeats = repeats_of(before, q->now.s),
                                .is_on = true,
                                .is_monitor = q->st->server.monitor};

    f->is_held = true;
    if (policy_is_in_force(before, q->now.s) && (!before->is_monitor || q->st->server.monitor)) {
        f->action = (enum policy_action)before->action;
        f->until_s = before->until_s;
        return;
    }
    time_s <<= begun.repeats;
    begun.until_s = q->now.s + (uint32_t)(time_s < longest_s ? time_s : longest_s);
    ledger_hold(q->p->ledger, e, q->is_null, &begun);
    /* A trial is this Postern's own affair. */
    if (!begun.is_monitor)
        ledger_set_hold_unsent(q->p->ledger, e, q->is_null);
    f->action = action;
    f->until_s = begun.until_s;
    f->is_new = true;
}

static enum policy_action
configured(const struct settings *st)
{
    switch (st->harvest.action) {
    case SETTINGS_ACTION_REJECT:
        return POLICY_ACTION_REJECT;
    case SETTINGS_ACTION_DISCONNECT:
        return POLICY_ACTION_DISCONNECT;
    case SETTINGS_ACTION_BLOCK:
        return POLICY_ACTION_BLOCK;
    case SETTINGS_ACTION_BLIND:
        return POLICY_ACTION_BLIND;
    }
    return POLICY_ACTION_NONE;
}

static void
act(const struct question *q, struct ledger_entry *e, struct finding *f)
{
    enum policy_action action = configured(q->st);
    bool is_block = action == POLICY_ACTION_BLOCK || action == POLICY_ACTION_BLIND;

    if (is_block && f->limited != NULL)
        action = POLICY_ACTION_DISCONNECT;
    else
        f->limited = NULL;
    if (q->is_null)
        action = POLICY_ACTION_BLIND;
    if (is_block && f->limited == NULL) {
        hold(q, e, action, f);
    } else {
        f->action = action;
        f->is_new = q->prior == POLICY_ACTION_NONE;
    }
}

static void
tell(const struct question *q, const struct network *network, const struct finding *f)
{
    int64_t until_s = f->is_held ? policy_wall_of(q->p, f->until_s) : 0;
    struct event_harvest h = {.network = network,
                              .count = f->count,
                              .ratio = f->ratio,
                              .action = f->action,
                              .until_s = until_s,
                              .limited = f->limited,
                              .is_null = q->is_null,
                              .is_monitor = q->st->server.monitor};

    event_harvest(&h);
    atomic_fetch_add_explicit(&q->p->harvests[f->action], 1, memory_order_relaxed);
    if (f->is_held)
        event_block(true, network, until_s, policy_by_text(by_of(q)), q->is_null,
                    q->st->server.monitor);
}

/* Judge E, which is open, by its counts. */
static struct finding
weigh(const struct question *q, struct ledger_entry *e, int threshold, bool is_client)
{
    struct finding f = {.count = ledger_unknown(e, q->is_null, q->now)};
    uint32_t served = ledger_served(e, q->now);

    f.ratio = f.count == 0 ? 0 : (double)f.count / (f.count + served);
    if (q->is_private)
        f.limited = "private";
    else if (is_client && policy_is_trusted(q->st, e, q->now))
        f.limited = "trusted";
    if (q->is_trap || (f.count >= (uint32_t)threshold && f.ratio >= q->st->harvest.ratio))
        act(q, e, &f);
    return f;
}

static struct finding
count(const struct question *q, const struct network *network, int threshold, bool is_client)
{
    struct ledger_entry *e = ledger_open(q->p->ledger, network, true, q->now);
    struct finding f;

    ledger_note(q->p->ledger, e, &e->unknown[q->is_null], q->hash, q->now);
    f = weigh(q, e, threshold, is_client);
    ledger_close(q->p->ledger, e);
    if (f.is_new)
        tell(q, network, &f);
    return f;
}

/* Count for the client, then for its wide network; what speaks against the client comes first. */
static struct finding
judge(const struct question *q, const struct policy_client *c)
{
    struct finding own = count(q, &c->network, q->st->harvest.threshold, true), wide;
    bool is_wide = q->st->harvest.threshold_wide > 0 && c->wide.base.family != 0;
    struct question of_wide = *q;

    /* Who is shut out already asks in sessions that were under way then: however many they are, one
     * host alone shuts out no neighbour. */
    if (!is_wide || (own.is_held && !own.is_new))
        return own;
    /* A trap speaks against the client alone. */
    of_wide.is_trap = false;
    wide = count(&of_wide, &c->wide, q->st->harvest.threshold_wide, false);
    if (own.action != POLICY_ACTION_NONE || wide.action == POLICY_ACTION_NONE)
        return own;
    if (own.limited != NULL && wide.is_held && !q->is_null) {
        wide.action = POLICY_ACTION_DISCONNECT;
        wide.is_held = false;
    }
    return wide;
}

void
policy_judge(struct policy *p, const struct settings *st, const struct network *network,
             int64_t now_ms)
{
    bool is_client =
        network->prefix == (network->base.family == 6 ? st->harvest.prefix6 : st->harvest.prefix4);
    int threshold = is_client ? st->harvest.threshold : st->harvest.threshold_wide;
    struct question q = {.p = p,
                         .st = st,
                         .now = policy_moment(st, now_ms),
                         .is_private =
                             netaddr_is_private(&network->base) && !st->harvest.block_private};
    enum policy_action action = configured(st);

    /* Actions that end with a session can only begin in one. */
    if (!st->harvest.enabled || threshold == 0 || q.is_private ||
        (action != POLICY_ACTION_BLOCK && action != POLICY_ACTION_BLIND))
        return;
    for (int is_null = 0; is_null < 2; is_null++) {
        struct ledger_entry *e = ledger_open(p->ledger, network, false, q.now);
        struct finding f;
        if (e == NULL)
            return;
        q.is_null = is_null == 1;
        f = weigh(&q, e, threshold, is_client);
        ledger_close(p->ledger, e);
        if (f.is_new && f.is_held)
            tell(&q, network, &f);
    }
}

static void
note_in_transaction(struct policy_transaction *t, uint32_t hash)
{
    uint16_t kept = t->n < POLICY_TRANSACTION_MAX ? t->n : POLICY_TRANSACTION_MAX;

    for (uint16_t i = 0; i < kept; i++)
        if (t->unknown[i] == hash)
            return;
    if (t->n < POLICY_TRANSACTION_MAX)
        t->unknown[t->n] = hash;
    if (t->n < UINT16_MAX)
        t->n++;
}

/* Put S into the state that F asks for.  Under the null sender REJECT stands for BLIND until the
 * session's end, BLIND for until the block's. */
static void
enter(struct policy_session *s, const struct finding *f, bool is_null)
{
    if (!is_null)
        s->state = f->action;
    else
        s->null_state = f->is_held ? POLICY_ACTION_BLIND : POLICY_ACTION_REJECT;
}

struct policy_harvest
policy_unknown(struct policy *p, const struct settings *st, struct policy_session *s,
               struct policy_transaction *t, struct span address, bool is_null_sender,
               int64_t now_ms)
{
    struct question q = {.p = p,
                         .st = st,
                         .now = policy_moment(st, now_ms),
                         .hash = hash_of(p, address),
                         .is_null = is_null_sender,
                         .is_trap = acl_is_trap(st, address),
                         .is_private = s->client.is_private && !st->harvest.block_private,
                         .prior = policy_session_state(s, is_null_sender)};
    struct policy_harvest h = {0};
    struct finding f;

    if (!policy_is_counted(st, &s->client))
        return h;
    if (acl_is_role(address)) {
        h.delay_ms = policy_tarpit_ms(st, s);
        return h;
    }
    if (s->unknown < UINT32_MAX)
        s->unknown++;
    note_in_transaction(t, q.hash);
    f = judge(&q, &s->client);
    if (f.action != POLICY_ACTION_NONE && q.prior == POLICY_ACTION_NONE)
        enter(s, &f, is_null_sender);
    h.action = f.action;
    h.count = f.count;
    h.ratio = f.ratio;
    h.until_s = f.is_held ? policy_wall_of(p, f.until_s) : 0;
    /* A client that is only disconnected comes back for its next guess: make each cost it time. */
    if (h.action != POLICY_ACTION_BLOCK)
        h.delay_ms = policy_tarpit_ms(st, s);
    return h;
}

bool
policy_transaction_refused(const struct settings *st, const struct policy_session *s,
                           const struct policy_transaction *t, size_t known)
{
    int threshold = st->harvest.message_threshold;

    if (!policy_is_counted(st, &s->client) || threshold == 0 || t->n < threshold)
        return false;
    return (double)t->n / (double)(t->n + known) >= st->harvest.ratio;
}

static bool
has_tags(const struct settings *st)
{
    for (size_t i = 0; i < st->n_directories; i++)
        if (st->directories[i].plus_addressing)
            return true;
    return false;
}

/* Where user+tag@ falls back to user@, whoever knows one address knows any number of them: they are
 * one recipient. */
static uint32_t
hash_of_served(const struct policy *p, const struct settings *st, struct span address)
{
    char text[TAGGED_MAX];
    const char *plus = has_tags(st) ? memchr(address.p, '+', address.n) : NULL;
    size_t n, at = address.n;

    while (at > 0 && address.p[at - 1] != '@')
        at--;
    if (plus == NULL || at == 0 || plus >= address.p + at - 1 || address.n > sizeof text)
        return hash_of(p, address);
    n = (size_t)(plus - address.p);
    memcpy(text, address.p, n);
    memcpy(text + n, address.p + at - 1, address.n - at + 1);
    return hash_of(p, span_of(text, n + address.n - at + 1));
}

void
policy_served(struct policy *p, const struct settings *st, const struct policy_client *client,
              const struct span *addresses, size_t n, int64_t now_ms)
{
    struct ledger_now now = policy_moment(st, now_ms);
    const struct network *networks[] = {&client->network, &client->wide};

    if (!policy_is_counted(st, client))
        return;
    for (size_t w = 0; w < 2; w++) {
        if (networks[w]->base.family == 0)
            continue;
        for (size_t i = 0; i < n; i++) {
            /* Whoever knows a wildcard domain knows any number of postmasters. */
            if (acl_is_role(addresses[i]))
                continue;
            struct ledger_entry *e = ledger_open(p->ledger, networks[w], true, now);
            ledger_note(p->ledger, e, &e->served, hash_of_served(p, st, addresses[i]), now);
            ledger_close(p->ledger, e);
        }
    }
}
