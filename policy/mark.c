#include "policy/mark.h"

#include <stdlib.h>

#include "policy/memo.h"
#include "policy/policy_private.h"

/* A directory seldom lacks as many addresses that the downstream does not know. */
#define MARKS_MAX 65536u

enum mark_kind { MARK_REFUSED = 1, MARK_HALVED = 2 };

struct marks {
    struct memo_table *table;
};

struct marks *
marks_new(const struct siphash_key *key)
{
    struct marks *m = calloc(1, sizeof *m);

    if (m == NULL)
        return NULL;
    m->table = memo_new(key, MARKS_MAX);
    if (m->table == NULL)
        marks_free(&m);
    return m;
}

void
marks_free(struct marks **m)
{
    if (*m == NULL)
        return;
    memo_free(&(*m)->table);
    free(*m);
    *m = NULL;
}

struct memo_table *
marks_table(struct marks *m)
{
    return m->table;
}

static struct hash128
refused_key(const struct marks *m, struct span recipient)
{
    return memo_key(m->table, MARK_REFUSED, span_str(NULL), recipient, NULL);
}

static struct hash128
halved_key(const struct marks *m, struct span sender, struct span recipient)
{
    return memo_key(m->table, MARK_HALVED, sender, recipient, NULL);
}

void
marks_add(struct marks *m, struct span recipient, int64_t memory_ms, int64_t now_ms)
{
    if (memory_ms == 0)
        return;
    memo_lock(m->table);
    (void)memo_put(m->table, refused_key(m, recipient),
                   policy_seconds_of(now_ms) + policy_duration_s(memory_ms), 0);
    memo_unlock(m->table);
}

bool
marks_has(struct marks *m, struct span recipient, int64_t now_ms)
{
    struct hash128 key;
    bool has;

    if (!memo_was_used(m->table))
        return false;
    key = refused_key(m, recipient);
    memo_lock(m->table);
    has = memo_find(m->table, key, policy_seconds_of(now_ms)) != NULL;
    memo_unlock(m->table);
    return has;
}

void
marks_remove(struct marks *m, struct span recipient)
{
    struct hash128 key = refused_key(m, recipient);
    struct memo *memo;

    memo_lock(m->table);
    memo = memo_find(m->table, key, 0);
    if (memo != NULL)
        memo_drop(m->table, memo);
    memo_unlock(m->table);
}

void
marks_halve(struct marks *m, struct span sender, const struct span *recipients, size_t n,
            int64_t memory_ms, int64_t now_ms)
{
    uint32_t limit = n < 2 ? 1 : (uint32_t)(n / 2);

    if (memory_ms == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        struct hash128 key = halved_key(m, sender, recipients[i]);
        memo_lock(m->table);
        (void)memo_put(m->table, key, policy_seconds_of(now_ms) + policy_duration_s(memory_ms),
                       limit);
        memo_unlock(m->table);
    }
}

uint32_t
marks_limit(struct marks *m, struct span sender, struct span recipient, int64_t now_ms)
{
    struct hash128 key;
    const struct memo *memo;
    uint32_t limit = UINT32_MAX;

    if (!memo_was_used(m->table))
        return limit;
    key = halved_key(m, sender, recipient);
    memo_lock(m->table);
    memo = memo_find(m->table, key, policy_seconds_of(now_ms));
    if (memo != NULL)
        limit = memo->value;
    memo_unlock(m->table);
    return limit;
}

bool
mark_share_allows(const struct mark_share *share, uint32_t limit)
{
    if (limit == UINT32_MAX)
        return true;
    return share->taken < limit && (share->limit == 0 || share->taken < share->limit);
}

void
mark_share_take(struct mark_share *share, uint32_t limit)
{
    if (limit == UINT32_MAX)
        return;
    share->taken++;
    if (share->limit == 0 || limit < share->limit)
        share->limit = limit;
}
