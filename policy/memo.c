#include "policy/memo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "policy/hash_key.h"

#define WAYS 8u

struct memo_table {
    pthread_mutex_t mutex;
    struct hash_key key;
    struct memo *places;
    size_t rows;     /* a power of two */
    uint32_t unsent; /* chain of places: place, plus one */
    bool *dirty;     /* of MEMO_SLICE places each: some may be */
    bool is_dirty, is_shared;
    _Atomic bool was_used;
};

static size_t
slices(const struct memo_table *t)
{
    return (t->rows * WAYS + MEMO_SLICE - 1) / MEMO_SLICE;
}

struct memo_table *
memo_new(const struct siphash_key *key, size_t n)
{
    struct memo_table *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    hash_key_set(&t->key, key);
    t->rows = 1;
    while (t->rows * WAYS < n)
        t->rows *= 2;
    t->places = calloc(t->rows * WAYS, sizeof *t->places);
    t->dirty = calloc(slices(t), sizeof *t->dirty);
    if (t->places == NULL || t->dirty == NULL) {
        free(t->places);
        free(t->dirty);
        free(t);
        return NULL;
    }
    pthread_mutex_init(&t->mutex, NULL);
    return t;
}

void
memo_free(struct memo_table **t)
{
    if (*t == NULL)
        return;
    pthread_mutex_destroy(&(*t)->mutex);
    free((*t)->places);
    free((*t)->dirty);
    free(*t);
    *t = NULL;
}

void
memo_lock(struct memo_table *t)
{
    pthread_mutex_lock(&t->mutex);
}

void
memo_unlock(struct memo_table *t)
{
    pthread_mutex_unlock(&t->mutex);
}

struct hash128
memo_key(const struct memo_table *t, uint64_t kind, struct span a, struct span b,
         const uint8_t *digest)
{
    struct {
        uint64_t kind;
        struct hash128 a, b;
        uint8_t digest[32];
    } whole = {.kind = kind};
    struct siphash_key secret = hash_key_get(&t->key);

    whole.a = siphash128(&secret, a.p, a.n);
    whole.b = siphash128(&secret, b.p, b.n);
    if (digest != NULL)
        memcpy(whole.digest, digest, sizeof whole.digest);
    return siphash128(&secret, &whole, sizeof whole);
}

static struct memo *
row_of(struct memo_table *t, struct hash128 key)
{
    return &t->places[(key.hi & (t->rows - 1)) * WAYS];
}

static struct memo *
place_of(struct memo_table *t, struct hash128 key)
{
    struct memo *row = row_of(t, key);

    for (size_t i = 0; i < WAYS; i++)
        if (row[i].until_s != 0 && row[i].key.lo == key.lo && row[i].key.hi == key.hi)
            return &row[i];
    return NULL;
}

bool
memo_was_used(const struct memo_table *t)
{
    return atomic_load_explicit(&t->was_used, memory_order_acquire);
}

struct memo *
memo_find(struct memo_table *t, struct hash128 key, uint32_t now_s)
{
    struct memo *m = place_of(t, key);

    return m != NULL && m->until_s > now_s ? m : NULL;
}

void
memo_set_unsent(struct memo_table *t, struct memo *m, enum memo_unsent unsent)
{
    if (!t->is_shared)
        return;
    m->unsent = (uint8_t)unsent & 3u;
    if (m->is_unsent)
        return;
    m->is_unsent = true;
    m->unsent_next = t->unsent;
    t->unsent = (uint32_t)(m - t->places) + 1;
}

static void
mark_dirty(struct memo_table *t, struct memo *m)
{
    m->is_dirty = true;
    t->dirty[(size_t)(m - t->places) / MEMO_SLICE] = true;
    t->is_dirty = true;
}

struct memo *
memo_learn(struct memo_table *t, struct hash128 key, uint32_t until_s, uint32_t value)
{
    struct memo *m = place_of(t, key), *row = row_of(t, key);

    if (m == NULL) {
        m = row;
        for (size_t i = 1; i < WAYS; i++)
            if (row[i].until_s < m->until_s)
                m = &row[i];
        if (m->until_s == MEMO_PINNED)
            return NULL;
        /* The place may still be in the chain of unsent ones: its link stays. */
        *m = (struct memo){.key = key, .is_unsent = m->is_unsent, .unsent_next = m->unsent_next};
    }
    m->until_s = until_s;
    m->value = value;
    mark_dirty(t, m);
    atomic_store_explicit(&t->was_used, true, memory_order_release);
    return m;
}

struct memo *
memo_put(struct memo_table *t, struct hash128 key, uint32_t until_s, uint32_t value)
{
    struct memo *m = memo_learn(t, key, until_s, value);

    if (m != NULL)
        memo_set_unsent(t, m, MEMO_CHANGED);
    return m;
}

void
memo_unlearn(struct memo_table *t, struct memo *m)
{
    /* What the disk has too keeps its place until the disk is told. */
    m->until_s = m->is_saved ? 1 : 0;
    m->unsent = MEMO_SENT;
    m->is_dirty = false;
    if (m->is_saved)
        mark_dirty(t, m);
}

void
memo_drop(struct memo_table *t, struct memo *m)
{
    bool is_told = t->is_shared && m->is_told;

    memo_unlearn(t, m);
    if (!is_told)
        return;
    m->until_s = 1;
    memo_set_unsent(t, m, MEMO_CHANGED);
}

void
memo_release(struct memo *m)
{
    if (m->until_s == 1 && !m->is_dirty && !m->is_saved && m->unsent == MEMO_SENT)
        m->until_s = 0;
}

void
memo_rekey(struct memo_table *t, const struct siphash_key *key)
{
    memo_lock(t);
    hash_key_set(&t->key, key);
    for (size_t i = 0; i < t->rows * WAYS; i++)
        if (t->places[i].until_s != 0 && t->places[i].until_s != MEMO_PINNED)
            memo_unlearn(t, &t->places[i]);
    memo_unlock(t);
}

void
memo_share(struct memo_table *t, bool is_shared)
{
    memo_lock(t);
    t->is_shared = is_shared;
    memo_unlock(t);
}

size_t
memo_walk_unsent(struct memo_table *t, size_t max, memo_visit_fn *visit, void *arg)
{
    size_t n = 0;

    while (t->unsent != 0 && n < max) {
        struct memo *m = &t->places[t->unsent - 1];
        t->unsent = m->unsent_next;
        m->is_unsent = false;
        if (m->until_s == 0 || m->unsent == MEMO_SENT)
            continue;
        m->unsent = MEMO_SENT;
        visit(arg, m);
        n++;
    }
    return n;
}

struct memo *
memo_at(struct memo_table *t, size_t i)
{
    return i < t->rows * WAYS ? &t->places[i] : NULL;
}

bool
memo_is_dirty(const struct memo_table *t)
{
    return t->is_dirty;
}

struct memo *
memo_next_dirty(struct memo_table *t, size_t *i, size_t *n)
{
    size_t all = t->rows * WAYS, at;

    while (*i < slices(t) && !t->dirty[*i])
        ++*i;
    if (*i == slices(t))
        return NULL;
    at = *i * MEMO_SLICE;
    t->dirty[(*i)++] = false;
    *n = all - at < MEMO_SLICE ? all - at : MEMO_SLICE;
    return &t->places[at];
}

void
memo_set_clean(struct memo_table *t)
{
    t->is_dirty = false;
}
