#include "policy/delivered.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "policy/memo.h"
#include "policy/policy_private.h"

/* Only what no client confirmed stays, so this is plenty. */
#define DELIVERIES_MAX 262144u

/* How long it takes at most until what one Postern does is known to the others (ledger_redis.c: a
 * turn, a poll, two answers). */
#define HEARSAY_MS 1000
/* Until who waits has heard of the outcome, also at another Postern, and claimed. */
#define HEARD_S 5u

struct waiter {
    struct waiter *next;
    struct hash128 key;
    uint64_t ticket;
    delivery_wake_fn *wake;
    void *arg;
    int64_t not_before_ms; /* the tick leaves it alone until then */
    bool is_question;
};

struct deliveries {
    struct memo_table *table; /* its lock is for all of this */
    struct waiter *waiters;
    uint64_t last_ticket;
    struct mailbox *questions;
    _Atomic bool is_asked;
};

struct deliveries *
deliveries_new(const struct siphash_key *key)
{
    struct deliveries *d = calloc(1, sizeof *d);

    if (d == NULL)
        return NULL;
    d->table = memo_new(key, DELIVERIES_MAX);
    d->questions = mailbox_new();
    if (d->table == NULL || d->questions == NULL)
        deliveries_free(&d);
    return d;
}

void
deliveries_free(struct deliveries **d)
{
    struct mailbox_item *item, *next_item;
    struct waiter *next;

    if (*d == NULL)
        return;
    for (item = (*d)->questions != NULL ? mailbox_take((*d)->questions) : NULL; item != NULL;
         item = next_item) {
        next_item = item->next;
        free(item);
    }
    mailbox_free(&(*d)->questions);
    for (struct waiter *w = (*d)->waiters; w != NULL; w = next) {
        next = w->next;
        free(w);
    }
    memo_free(&(*d)->table);
    free(*d);
    *d = NULL;
}

struct memo_table *
deliveries_table(struct deliveries *d)
{
    return d->table;
}

struct delivery_key
deliveries_key(const struct deliveries *d, struct span sender, struct span recipient,
               const uint8_t sha256[32])
{
    return (struct delivery_key){memo_key(d->table, 0, sender, recipient, sha256)};
}

static bool
is_at_work(const struct memo *m)
{
    return m->until_s == MEMO_PINNED || m->value == DELIVERY_ELSEWHERE;
}

/* The first of the keys that is in flight, or NULL. */
static const struct delivery_key *
pending(struct deliveries *d, const struct delivery_key *keys, size_t n, uint32_t now_s)
{
    for (size_t i = 0; i < n; i++) {
        const struct memo *m = memo_find(d->table, keys[i].hash, now_s);
        if (m != NULL && is_at_work(m))
            return &keys[i];
    }
    return NULL;
}

static struct waiter *
wait_for(struct deliveries *d, struct hash128 key, delivery_wake_fn *wake, void *arg,
         uint64_t *ticket)
{
    struct waiter *w = malloc(sizeof *w);

    if (w == NULL)
        return NULL;
    *ticket = ++d->last_ticket;
    *w = (struct waiter){
        .next = d->waiters, .key = key, .ticket = *ticket, .wake = wake, .arg = arg};
    d->waiters = w;
    return w;
}

bool
deliveries_ask(struct deliveries *d, const struct delivery_key *keys, size_t n, int64_t now_ms,
               delivery_wake_fn *wake, void *arg, uint64_t *ticket)
{
    struct delivery_question *q;
    struct waiter *w;

    if (n == 0 || !atomic_load_explicit(&d->is_asked, memory_order_relaxed))
        return false;
    q = calloc(1, sizeof *q);
    if (q == NULL)
        return false;
    /* The same recipients in any order. */
    for (size_t i = 0; i < n; i++) {
        q->message.lo ^= keys[i].hash.lo;
        q->message.hi ^= keys[i].hash.hi;
    }
    memo_lock(d->table);
    w = wait_for(d, keys[0].hash, wake, arg, ticket);
    if (w != NULL) {
        w->not_before_ms = now_ms + HEARSAY_MS;
        w->is_question = true;
        q->ticket = w->ticket;
    }
    memo_unlock(d->table);
    if (w == NULL) {
        free(q);
        return false;
    }
    mailbox_post(d->questions, &q->item);
    return true;
}

void
deliveries_set_asked(struct deliveries *d, bool is_asked)
{
    atomic_store(&d->is_asked, is_asked);
}

struct mailbox *
deliveries_questions(struct deliveries *d)
{
    return d->questions;
}

enum delivery_claim
deliveries_claim(struct deliveries *d, const struct delivery_key *keys, size_t n, bool has_waited,
                 bool *served, int64_t now_ms, delivery_wake_fn *wake, void *arg, uint64_t *ticket)
{
    uint32_t now_s = policy_seconds_of(now_ms);
    const struct delivery_key *other;

    memo_lock(d->table);
    other = pending(d, keys, n, now_s);
    if (other != NULL && wait_for(d, other->hash, wake, arg, ticket) != NULL) {
        memo_unlock(d->table);
        return DELIVERY_PENDING;
    }
    for (size_t i = 0; i < n; i++) {
        const struct memo *m = memo_find(d->table, keys[i].hash, now_s);
        served[i] = m != NULL && !is_at_work(m) && (has_waited || m->value != DELIVERY_HEARD);
        if (!served[i])
            (void)memo_put(d->table, keys[i].hash, MEMO_PINNED, DELIVERY_DONE);
    }
    memo_unlock(d->table);
    return DELIVERY_CLAIMED;
}

void
deliveries_cancel(struct deliveries *d, uint64_t ticket)
{
    memo_lock(d->table);
    for (struct waiter **link = &d->waiters; *link != NULL; link = &(*link)->next) {
        struct waiter *w = *link;
        if (w->ticket == ticket) {
            *link = w->next;
            free(w);
            break;
        }
    }
    memo_unlock(d->table);
}

static void
wake_waiters(struct deliveries *d, struct hash128 key)
{
    struct waiter **link = &d->waiters;

    while (*link != NULL) {
        struct waiter *w = *link;
        if (w->key.lo == key.lo && w->key.hi == key.hi) {
            *link = w->next;
            w->wake(w->arg, w->ticket);
            free(w);
        } else {
            link = &w->next;
        }
    }
}

/* Another is at it, so a claim must wait: until what becomes of that was heard the usual way, or
 * there was time for it. */
static void
presume_elsewhere(struct deliveries *d, struct hash128 key, int64_t now_ms)
{
    uint32_t now_s = policy_seconds_of(now_ms);
    struct memo *m = memo_find(d->table, key, 0);

    if (m != NULL &&
        (m->unsent == MEMO_CHANGED || (m->until_s > now_s && m->value != DELIVERY_HEARD)))
        return;
    m = memo_learn(d->table, key, policy_seconds_of(now_ms + HEARSAY_MS) + 1, DELIVERY_ELSEWHERE);
    if (m != NULL)
        m->unsent = MEMO_SENT;
}

void
deliveries_answer(struct deliveries *d, uint64_t ticket, bool is_elsewhere, int64_t now_ms)
{
    struct waiter **link = &d->waiters, *w;

    memo_lock(d->table);
    while ((w = *link) != NULL && w->ticket != ticket)
        link = &w->next;
    if (w != NULL && w->is_question) {
        if (is_elsewhere)
            presume_elsewhere(d, w->key, now_ms);
        *link = w->next;
        w->wake(w->arg, w->ticket);
        free(w);
    }
    memo_unlock(d->table);
}

void
deliveries_finish(struct deliveries *d, const struct delivery_key *keys, const bool *served,
                  size_t n, bool is_delivered, int64_t window_ms, int64_t now_ms)
{
    uint32_t now_s = policy_seconds_of(now_ms);

    memo_lock(d->table);
    for (size_t i = 0; i < n; i++) {
        struct memo *m = served[i] ? NULL : memo_find(d->table, keys[i].hash, now_s);
        if (m == NULL || m->until_s != MEMO_PINNED)
            continue;
        if (is_delivered && window_ms > 0) {
            (void)memo_put(d->table, m->key, now_s + policy_duration_s(window_ms), DELIVERY_DONE);
        } else {
            memo_drop(d->table, m);
            m->value = DELIVERY_RELEASED;
        }
        wake_waiters(d, keys[i].hash);
    }
    memo_unlock(d->table);
}

void
deliveries_confirm(struct deliveries *d, const struct delivery_key *keys, size_t n, int64_t now_ms)
{
    uint32_t now_s = policy_seconds_of(now_ms);

    memo_lock(d->table);
    for (size_t i = 0; i < n; i++) {
        struct memo *m = memo_find(d->table, keys[i].hash, now_s);
        /* Who waits may yet be on the way from its wake to its claim, or have to hear of the
         * outcome at another Postern: of the burst it may have heard from Redis itself
         * (deliveries_ask). */
        if (m != NULL && m->until_s != MEMO_PINNED && m->value == DELIVERY_DONE)
            (void)memo_put(d->table, m->key, now_s + HEARD_S, DELIVERY_HEARD);
    }
    memo_unlock(d->table);
}

void
deliveries_learn(struct deliveries *d, struct hash128 key, enum delivery_fact fact,
                 uint32_t until_s)
{
    struct memo *m;

    memo_lock(d->table);
    m = memo_find(d->table, key, 0);
    /* What is under way here, or was and is not told yet, is newer. */
    if (m == NULL || (m->until_s != MEMO_PINNED && m->unsent != MEMO_CHANGED)) {
        if (until_s != 0)
            m = memo_learn(d->table, key, until_s, fact);
        else if (m != NULL)
            memo_unlearn(d->table, m);
        if (m != NULL) {
            m->unsent = MEMO_SENT;
            m->is_told = true;
        }
        if (until_s == 0 || fact != DELIVERY_ELSEWHERE)
            wake_waiters(d, key);
    }
    memo_unlock(d->table);
}

void
deliveries_tick(struct deliveries *d, int64_t now_ms)
{
    uint32_t now_s = policy_seconds_of(now_ms);
    struct waiter **link = &d->waiters;

    memo_lock(d->table);
    while (*link != NULL) {
        struct waiter *w = *link;
        const struct memo *m = memo_find(d->table, w->key, now_s);
        if (now_ms < w->not_before_ms || (m != NULL && is_at_work(m))) {
            link = &w->next;
            continue;
        }
        *link = w->next;
        w->wake(w->arg, w->ticket);
        free(w);
    }
    memo_unlock(d->table);
}
