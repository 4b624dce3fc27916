#define _POSIX_C_SOURCE 200809L
#include "ldap/dir_cache.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/siphash.h"

#define SHARDS 16u

struct entry {
    struct entry *chain;         /* of the bucket */
    struct entry *newer, *older; /* of the list by use */
    uint64_t hash;
    int64_t learned_ms;
    struct dir_verdict verdict;
    bool has_sender; /* in its key */
    uint16_t n;
    char key[];
};

/* By use: `newest.older` leads from the newest to the oldest. */
struct use_list {
    struct entry *newest, *oldest;
    size_t n;
};

struct shard {
    pthread_mutex_t lock;
    struct dir_cache_limits limits;
    size_t capacity; /* its part of limits.entries */
    struct entry **buckets;
    size_t n_buckets;                       /* a power of two */
    struct use_list found, senders, absent; /* senders: found, with one in the key */
    int64_t found_ms;                       /* when a found one was last learned */
};

struct dir_cache {
    atomic_uint references;
    struct siphash_key key;
    struct shard shards[SHARDS];
};

static struct use_list *
list_of(struct shard *s, const struct entry *e)
{
    if (e->verdict.status != DIR_FOUND)
        return &s->absent;
    return e->has_sender ? &s->senders : &s->found;
}

static void
list_push(struct use_list *l, struct entry *e)
{
    e->newer = NULL;
    e->older = l->newest;
    if (l->newest)
        l->newest->newer = e;
    else
        l->oldest = e;
    l->newest = e;
    l->n++;
}

static void
list_remove(struct use_list *l, struct entry *e)
{
    if (e->newer)
        e->newer->older = e->older;
    else
        l->newest = e->older;
    if (e->older)
        e->older->newer = e->newer;
    else
        l->oldest = e->newer;
    l->n--;
}

static size_t
address_length(struct span key)
{
    const char *end = memchr(key.p, '\0', key.n);

    return end ? (size_t)(end - key.p) : key.n;
}

/* The address alone decides, so that an address and its senders share a bucket. */
static uint64_t
hash_of(const struct dir_cache *c, struct span key)
{
    return siphash64(&c->key, key.p, address_length(key));
}

static struct entry **
find(struct shard *s, uint64_t hash, struct span key)
{
    struct entry **at = &s->buckets[(hash / SHARDS) & (s->n_buckets - 1)];

    while (*at && !((*at)->hash == hash && span_equal(span_of((*at)->key, (*at)->n), key)))
        at = &(*at)->chain;
    return at;
}

static void
drop(struct shard *s, struct entry **at)
{
    struct entry *e = *at;

    assert(e != NULL);
    *at = e->chain;
    list_remove(list_of(s, e), e);
    free(e);
}

static size_t
count(const struct shard *s)
{
    return s->found.n + s->senders.n + s->absent.n;
}

/* Which are to lose one?  What strangers can make as many of as they like has a quarter each. */
static const struct use_list *
most_dispensable(const struct shard *s)
{
    if (s->absent.n > s->capacity / 4)
        return &s->absent;
    if (s->senders.n > s->capacity / 4)
        return &s->senders;
    if (s->found.n > 0)
        return &s->found;
    return s->senders.n > 0 ? &s->senders : &s->absent;
}

static void
evict(struct shard *s)
{
    while (count(s) > s->capacity) {
        const struct entry *e = most_dispensable(s)->oldest;

        drop(s, find(s, e->hash, span_of(e->key, e->n)));
    }
}

static size_t
capacity_of(const struct dir_cache_limits *limits)
{
    return (limits->entries + SHARDS - 1) / SHARDS;
}

/* False when memory is out: the chains become longer. */
static bool
grow(struct shard *s, size_t capacity)
{
    size_t n = 16;

    while (n < capacity)
        n *= 2;
    if (n <= s->n_buckets)
        return true;
    struct entry **buckets = calloc(n, sizeof(struct entry *));
    if (!buckets)
        return false;
    for (size_t i = 0; i < s->n_buckets; i++) {
        for (struct entry *e = s->buckets[i], *next; e; e = next) {
            struct entry **bucket = &buckets[(e->hash / SHARDS) & (n - 1)];

            next = e->chain;
            e->chain = *bucket;
            *bucket = e;
        }
    }
    free(s->buckets);
    s->buckets = buckets;
    s->n_buckets = n;
    return true;
}

struct dir_cache *
dir_cache_new(const struct dir_cache_limits *limits)
{
    struct dir_cache *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    atomic_init(&c->references, 1);
    c->key = siphash_key_random();
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&c->shards[i].lock, NULL);
        if (!grow(&c->shards[i], capacity_of(limits))) {
            dir_cache_unref(&c);
            return NULL;
        }
    }
    dir_cache_limit(c, limits);
    return c;
}

void
dir_cache_limit(struct dir_cache *c, const struct dir_cache_limits *limits)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &c->shards[i];

        pthread_mutex_lock(&s->lock);
        s->limits = *limits;
        s->capacity = capacity_of(limits);
        (void)grow(s, s->capacity);
        evict(s);
        pthread_mutex_unlock(&s->lock);
    }
}

struct dir_cache *
dir_cache_ref(struct dir_cache *c)
{
    atomic_fetch_add(&c->references, 1);
    return c;
}

void
dir_cache_unref(struct dir_cache **cache)
{
    struct dir_cache *c = *cache;

    *cache = NULL;
    if (!c || atomic_fetch_sub(&c->references, 1) > 1)
        return;
    for (size_t i = 0; i < SHARDS && c->shards[i].n_buckets > 0; i++) {
        struct shard *s = &c->shards[i];

        for (size_t b = 0; s->buckets && b < s->n_buckets; b++)
            while (s->buckets[b])
                drop(s, &s->buckets[b]);
        free(s->buckets);
        pthread_mutex_destroy(&s->lock);
    }
    free(c);
}

static enum dir_cache_age
age_of(const struct dir_cache_limits *l, const struct entry *e, int64_t now_ms)
{
    int64_t age_ms = now_ms - e->learned_ms;

    if (age_ms < (e->verdict.status == DIR_FOUND ? l->positive_ms : l->negative_ms))
        return DIR_CACHE_FRESH;
    return e->verdict.status == DIR_FOUND && age_ms < l->stale_ms ? DIR_CACHE_STALE
                                                                  : DIR_CACHE_NONE;
}

enum dir_cache_age
dir_cache_get(struct dir_cache *c, struct span key, int64_t now_ms, struct dir_verdict *v,
              int64_t *age_ms)
{
    uint64_t hash = hash_of(c, key);
    struct shard *s = &c->shards[hash % SHARDS];
    enum dir_cache_age age = DIR_CACHE_NONE;
    struct entry **at;

    pthread_mutex_lock(&s->lock);
    at = find(s, hash, key);
    if (*at) {
        struct entry *e = *at;

        age = age_of(&s->limits, e, now_ms);
        if (age == DIR_CACHE_NONE) {
            drop(s, at);
        } else {
            *v = e->verdict;
            *age_ms = now_ms - e->learned_ms;
            list_remove(list_of(s, e), e);
            list_push(list_of(s, e), e);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return age;
}

void
dir_cache_put(struct dir_cache *c, struct span key, int64_t now_ms, const struct dir_verdict *v)
{
    uint64_t hash = hash_of(c, key);
    struct shard *s = &c->shards[hash % SHARDS];
    struct entry **at, *e;

    if (key.n > DIR_KEY_MAX || (v->status != DIR_FOUND && v->status != DIR_ABSENT))
        return;
    e = malloc(sizeof *e + key.n);
    if (!e)
        return; /* a cache may forget */
    e->hash = hash;
    e->learned_ms = now_ms;
    e->verdict = *v;
    e->has_sender = address_length(key) < key.n;
    e->n = (uint16_t)key.n;
    memcpy(e->key, key.p, key.n);
    pthread_mutex_lock(&s->lock);
    at = find(s, hash, key);
    if (*at)
        drop(s, at);
    at = &s->buckets[(hash / SHARDS) & (s->n_buckets - 1)];
    e->chain = *at;
    *at = e;
    list_push(list_of(s, e), e);
    if (v->status == DIR_FOUND)
        s->found_ms = now_ms;
    evict(s);
    pthread_mutex_unlock(&s->lock);
}

bool
dir_cache_forget(struct dir_cache *c, struct span address)
{
    uint64_t hash = hash_of(c, address);
    struct shard *s = &c->shards[hash % SHARDS];
    bool was_there = false;
    struct entry **at;

    pthread_mutex_lock(&s->lock);
    at = &s->buckets[(hash / SHARDS) & (s->n_buckets - 1)];
    while (*at) {
        const struct entry *e = *at;

        if (e->hash == hash && e->n >= address.n && memcmp(e->key, address.p, address.n) == 0 &&
            (e->n == address.n || e->key[address.n] == '\0')) {
            drop(s, at);
            was_there = true;
        } else {
            at = &(*at)->chain;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return was_there;
}

size_t
dir_cache_count(struct dir_cache *c)
{
    size_t n = 0;

    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&c->shards[i].lock);
        n += count(&c->shards[i]);
        pthread_mutex_unlock(&c->shards[i].lock);
    }
    return n;
}

bool
dir_cache_serves(struct dir_cache *c, int64_t now_ms)
{
    bool serves = false;

    for (size_t i = 0; i < SHARDS && !serves; i++) {
        struct shard *s = &c->shards[i];
        const struct dir_cache_limits *l = &s->limits;

        pthread_mutex_lock(&s->lock);
        int64_t life_ms = l->positive_ms > l->stale_ms ? l->positive_ms : l->stale_ms;
        serves = s->found.n + s->senders.n > 0 && now_ms - s->found_ms < life_ms;
        pthread_mutex_unlock(&s->lock);
    }
    return serves;
}
