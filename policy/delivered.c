#include "policy/delivered.h"

#include <stdlib.h>

#include "policy/memo.h"
#include "policy/policy_private.h"

/* Only what no client confirmed stays, so this is plenty. */
#define DELIVERIES_MAX 262144u

struct waiter {
    struct waiter *next;
    struct hash128 key;
    uint64_t ticket;
    delivery_wake_fn *wake;
    void *arg;
};

struct deliveries {
    struct memo_table *table; /* its lock is for all of this */
    struct waiter *waiters;
    uint64_t last_ticket;
};

struct deliveries *
deliveries_new(const struct siphash_key *key)
{
    struct deliveries *d = calloc(1, sizeof *d);

    if (d == NULL)
        return NULL;
    d->table = memo_new(key, DELIVERIES_MAX);
    if (d->table == NULL)
        deliveries_free(&d);
    return d;
}

void
deliveries_free(struct deliveries **d)
{
    struct waiter *next;

    if (*d == NULL)
        return;
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

static bool
wait_for(struct deliveries *d, struct hash128 key, delivery_wake_fn *wake, void *arg,
         uint64_t *ticket)
{
    struct waiter *w = malloc(sizeof *w);

    if (w == NULL)
        return false;
    *ticket = ++d->last_ticket;
    *w = (struct waiter){
        .next = d->waiters, .key = key, .ticket = *ticket, .wake = wake, .arg = arg};
    d->waiters = w;
    return true;
}

enum delivery_claim
deliveries_claim(struct deliveries *d, const struct delivery_key *keys, size_t n, bool *served,
                 int64_t now_ms, delivery_wake_fn *wake, void *arg, uint64_t *ticket)
{
    uint32_t now_s = policy_seconds_of(now_ms);
    const struct delivery_key *other;

    memo_lock(d->table);
    other = pending(d, keys, n, now_s);
    if (other != NULL && wait_for(d, other->hash, wake, arg, ticket)) {
        memo_unlock(d->table);
        return DELIVERY_PENDING;
    }
    for (size_t i = 0; i < n; i++) {
        const struct memo *m = memo_find(d->table, keys[i].hash, now_s);
        served[i] = m != NULL && !is_at_work(m);
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

static void
drop(struct deliveries *d, struct memo *m, enum delivery_fact why)
{
    memo_drop(d->table, m);
    m->value = why;
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
        if (is_delivered && window_ms > 0)
            (void)memo_put(d->table, m->key, now_s + policy_duration_s(window_ms), DELIVERY_DONE);
        else
            drop(d, m, DELIVERY_RELEASED);
        wake_waiters(d, keys[i].hash);
    }
    memo_unlock(d->table);
}

void
deliveries_confirm(struct deliveries *d, const struct delivery_key *keys, size_t n)
{
    memo_lock(d->table);
    for (size_t i = 0; i < n; i++) {
        struct memo *m = memo_find(d->table, keys[i].hash, 0);
        if (m != NULL && !is_at_work(m))
            drop(d, m, DELIVERY_DONE);
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
    /* What happens here, or did and is not told yet, comes after that. */
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
        if (m != NULL && is_at_work(m)) {
            link = &w->next;
            continue;
        }
        *link = w->next;
        w->wake(w->arg, w->ticket);
        free(w);
    }
    memo_unlock(d->table);
}
