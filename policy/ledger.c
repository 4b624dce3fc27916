#include "policy/ledger.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "policy/memo.h"

#define SHARDS        64u
#define SHARD_BYTES   (4u << 20) /* of windows' arrays */
#define SAMPLE        8u         /* neighbours of which the weakest goes */
#define SLICE         256u       /* slots looked at under one lock */
#define SWEEP_CALLS   300u
#define STRENGTH_HELD 0x80000000u
#define REPEAT_WEIGHT 16u

struct shard {
    pthread_mutex_t mutex;
    struct ledger_entry *slots; /* zeroed memory that is not touched before it is needed */
    uint32_t *index;            /* heads of chains: slot plus one */
    uint32_t used;              /* slots ever in use are below this */
    uint32_t free;              /* chain of slots that were given back */
    uint32_t dirty;             /* chain of slots to be saved */
    uint32_t unsent;            /* chain of slots to be sent, the one that waits longest first */
    uint32_t unsent_last;       /* its end, while there is one */
    uint32_t hand;              /* where the next sample begins */
    uint32_t swept;             /* where the next sweep begins */
    uint32_t next_end_s;        /* no hold ends before; 0: none is on */
    size_t bytes;
};

struct ledger {
    struct siphash_key key;
    uint32_t slots; /* of a shard; a power of two */
    struct shard *shards;
    uint32_t unsent_hand; /* the shard where the next walk of unsent entries begins */
    _Atomic bool is_shared;
    _Atomic uint32_t count;
    _Atomic uint32_t holds;
    _Atomic uint32_t held[2][129]; /* holds by family (4, 6) and prefix */
};

static uint64_t
hash_of(const struct ledger *l, const struct network *network)
{
    return siphash64(&l->key, network, sizeof *network);
}

static struct shard *
shard_of(const struct ledger *l, uint64_t hash)
{
    return &l->shards[hash >> 58];
}

static uint32_t *
chain_of(const struct ledger *l, struct shard *s, uint64_t hash)
{
    return &s->index[hash & (l->slots - 1)];
}

struct ledger *
ledger_new(const struct siphash_key *key, size_t capacity)
{
    struct ledger *l = calloc(1, sizeof *l);

    _Static_assert(sizeof(struct network) == 18, "hashed as octets: it may have no padding");
    _Static_assert(SHARDS == 1u << (64 - 58), "a shard is chosen by the highest bits");
    if (l == NULL)
        return NULL;
    l->key = *key;
    l->slots = 2 * SAMPLE;
    while (l->slots < capacity / SHARDS)
        l->slots *= 2;
    l->shards = calloc(SHARDS, sizeof *l->shards);
    if (l->shards == NULL) {
        free(l);
        return NULL;
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shards[i];
        pthread_mutex_init(&s->mutex, NULL);
        s->slots = calloc(l->slots, sizeof *s->slots);
        s->index = calloc(l->slots, sizeof *s->index);
        if (s->slots == NULL || s->index == NULL) {
            ledger_free(&l);
            return NULL;
        }
    }
    return l;
}

static size_t
windows_bytes(const struct ledger_entry *e)
{
    return window_bytes(&e->unknown[0]) + window_bytes(&e->unknown[1]) + window_bytes(&e->served);
}

static void
clear_windows(struct shard *s, struct ledger_entry *e)
{
    s->bytes -= windows_bytes(e);
    window_clear(&e->unknown[0]);
    window_clear(&e->unknown[1]);
    window_clear(&e->served);
}

void
ledger_free(struct ledger **l)
{
    if (*l == NULL)
        return;
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = &(*l)->shards[i];
        if (s->slots == NULL)
            continue;
        for (uint32_t k = 0; k < s->used; k++)
            clear_windows(s, &s->slots[k]);
        free(s->slots);
        free(s->index);
        pthread_mutex_destroy(&s->mutex);
    }
    free((*l)->shards);
    free(*l);
    *l = NULL;
}

static void
count_hold(struct ledger *l, const struct ledger_entry *e, int difference)
{
    _Atomic uint32_t *held = &l->held[e->network.base.family == 6][e->network.prefix];

    /* Adding the complement is subtracting. */
    atomic_fetch_add_explicit(held, (uint32_t)difference, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->holds, (uint32_t)difference, memory_order_relaxed);
}

static void
mark_dirty(struct shard *s, struct ledger_entry *e)
{
    if (e->is_dirty)
        return;
    e->is_dirty = true;
    e->dirty_next = s->dirty;
    s->dirty = (uint32_t)(e - s->slots) + 1;
}

static void
mark_unsent(const struct ledger *l, struct shard *s, struct ledger_entry *e)
{
    uint32_t slot = (uint32_t)(e - s->slots) + 1;

    if (e->share.is_unsent || !ledger_is_shared(l))
        return;
    e->share.is_unsent = true;
    e->share.next = 0;
    *(s->unsent == 0 ? &s->unsent : &s->slots[s->unsent_last - 1].share.next) = slot;
    s->unsent_last = slot;
}

static void
remove_entry(struct ledger *l, struct shard *s, struct ledger_entry *e)
{
    uint32_t slot = (uint32_t)(e - s->slots) + 1;
    uint32_t *link = chain_of(l, s, hash_of(l, &e->network));

    while (*link != slot)
        link = &s->slots[*link - 1].next;
    *link = e->next;
    for (int i = 0; i < 2; i++)
        if (e->hold[i].is_on)
            count_hold(l, e, -1);
    clear_windows(s, e);
    e->is_used = false;
    e->next = s->free;
    s->free = slot;
    atomic_fetch_sub_explicit(&l->count, 1, memory_order_relaxed);
}

static uint32_t
hold_strength(const struct ledger_hold *h, uint32_t now_s)
{
    if (h->until_s > now_s)
        return STRENGTH_HELD + (h->until_s - now_s);
    if (h->until_s != 0 && elapsed_s(now_s, h->until_s) < LEDGER_REPEAT_KEEP_S)
        return REPEAT_WEIGHT * (h->repeats + 1u);
    return 0;
}

static uint32_t
higher(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* How much would be lost with E. */
static uint32_t
strength(const struct ledger_entry *e, struct ledger_now now)
{
    uint32_t hold = higher(hold_strength(&e->hold[0], now.s), hold_strength(&e->hold[1], now.s));

    if (hold >= STRENGTH_HELD)
        return hold;
    if (elapsed_s(now.s, e->touched_s) < now.window_s)
        hold += higher(e->unknown[0].n, e->unknown[1].n);
    if (elapsed_s(now.s, e->touched_s) < LEDGER_SERVED_KEEP_S)
        hold += e->served.n;
    return hold;
}

/* Remove the weakest of the next neighbours, but not KEEP.  False if there is none. */
static bool
evict(struct ledger *l, struct shard *s, const struct ledger_entry *keep, struct ledger_now now)
{
    struct ledger_entry *weakest = NULL;
    uint32_t least = 0, seen = 0;

    for (uint32_t i = 0; i < s->used && seen < SAMPLE; i++) {
        struct ledger_entry *e = &s->slots[s->hand];
        uint32_t own;

        s->hand = s->hand + 1 < s->used ? s->hand + 1 : 0;
        if (!e->is_used || e == keep)
            continue;
        own = strength(e, now);
        if (weakest == NULL || own < least || (own == least && e->touched_s < weakest->touched_s)) {
            weakest = e;
            least = own;
        }
        seen++;
    }
    if (weakest == NULL)
        return false;
    remove_entry(l, s, weakest);
    return true;
}

static struct ledger_entry *
take_slot(struct ledger *l, struct shard *s, struct ledger_now now)
{
    struct ledger_entry *e;

    if (s->free == 0 && s->used < l->slots)
        return &s->slots[s->used++];
    if (s->free == 0)
        (void)evict(l, s, NULL, now);
    e = &s->slots[s->free - 1];
    s->free = e->next;
    return e;
}

struct ledger_entry *
ledger_open(struct ledger *l, const struct network *network, bool make, struct ledger_now now)
{
    uint64_t hash = hash_of(l, network);
    struct shard *s = shard_of(l, hash);
    uint32_t *chain = chain_of(l, s, hash);
    struct ledger_entry *e;

    pthread_mutex_lock(&s->mutex);
    for (uint32_t slot = *chain; slot != 0; slot = e->next) {
        e = &s->slots[slot - 1];
        if (network_equal(&e->network, network))
            return e;
    }
    if (!make) {
        pthread_mutex_unlock(&s->mutex);
        return NULL;
    }
    e = take_slot(l, s, now);
    /* The slot may still be in the chains of dirty and unsent entries: its links there stay. */
    *e = (struct ledger_entry){.network = *network,
                               .is_used = true,
                               .is_dirty = e->is_dirty,
                               .shard = (uint8_t)(s - l->shards),
                               .dirty_next = e->dirty_next,
                               .share = {.is_unsent = e->share.is_unsent, .next = e->share.next},
                               .touched_s = now.s,
                               .next = *chain};
    *chain = (uint32_t)(e - s->slots) + 1;
    atomic_fetch_add_explicit(&l->count, 1, memory_order_relaxed);
    return e;
}

static struct shard *
shard_of_entry(const struct ledger *l, const struct ledger_entry *e)
{
    return &l->shards[e->shard];
}

void
ledger_close(struct ledger *l, struct ledger_entry *e)
{
    pthread_mutex_unlock(&shard_of_entry(l, e)->mutex);
}

void
ledger_note(struct ledger *l, struct ledger_entry *e, struct window *w, uint32_t hash,
            struct ledger_now now)
{
    struct shard *s = shard_of_entry(l, e);
    uint32_t keep_s = w == &e->served ? LEDGER_SERVED_KEEP_S : now.window_s;
    size_t before = window_bytes(w);

    while (s->bytes + window_growth(w) > SHARD_BYTES && evict(l, s, e, now))
        ;
    window_note(w, hash, now.s, keep_s, now.window_s);
    s->bytes += window_bytes(w) - before;
    e->touched_s = higher(e->touched_s, now.s);
    mark_dirty(s, e);
    mark_unsent(l, s, e);
}

void
ledger_hold(struct ledger *l, struct ledger_entry *e, bool is_null, const struct ledger_hold *hold)
{
    struct shard *s = shard_of_entry(l, e);
    struct ledger_hold *h = &e->hold[is_null];

    if (h->is_on != hold->is_on)
        count_hold(l, e, hold->is_on ? 1 : -1);
    *h = *hold;
    if (h->is_on && (s->next_end_s == 0 || h->until_s < s->next_end_s))
        s->next_end_s = h->until_s;
    mark_dirty(s, e);
}

void
ledger_prune(struct ledger *l, struct ledger_entry *e, uint32_t until_s, bool all)
{
    struct shard *s = shard_of_entry(l, e);

    s->bytes -= windows_bytes(e);
    window_forget(&e->unknown[0], until_s);
    window_forget(&e->unknown[1], until_s);
    if (all)
        window_forget(&e->served, until_s);
    s->bytes += windows_bytes(e);
    if (e->share.heard_s <= until_s)
        e->share.heard_s = 0;
    mark_dirty(s, e);
}

void
ledger_clear(struct ledger *l, struct ledger_entry *e)
{
    static const struct ledger_hold none;

    clear_windows(shard_of_entry(l, e), e);
    e->share.heard_s = 0;
    ledger_hold(l, e, false, &none);
    ledger_hold(l, e, true, &none);
}

void
ledger_restore(struct ledger *l, struct ledger_entry *e, struct window *w, const struct sighting *v,
               size_t n, struct ledger_now now)
{
    for (size_t i = 0; i < n; i++)
        ledger_note(l, e, w, v[i].hash,
                    (struct ledger_now){.s = v[i].at_s, .window_s = now.window_s});
}

size_t
ledger_held_prefixes(const struct ledger *l, uint8_t family, uint8_t *out)
{
    const _Atomic uint32_t *held = l->held[family == 6];
    unsigned longest = family == 6 ? 128 : 32;
    size_t n = 0;

    if (ledger_hold_count(l) == 0)
        return 0;
    for (unsigned prefix = 0; prefix <= longest; prefix++)
        if (atomic_load_explicit(&held[prefix], memory_order_relaxed) != 0)
            out[n++] = (uint8_t)prefix;
    return n;
}

void
ledger_walk(struct ledger *l, ledger_visit_fn *visit, void *arg)
{
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shards[i];
        bool is_end = false;
        for (uint32_t from = 0; !is_end; from += SLICE) {
            pthread_mutex_lock(&s->mutex);
            for (uint32_t k = from; k < from + SLICE && k < s->used; k++)
                if (s->slots[k].is_used)
                    visit(arg, &s->slots[k]);
            is_end = from + SLICE >= s->used;
            pthread_mutex_unlock(&s->mutex);
        }
    }
}

static bool
has_ended(const struct ledger_entry *e, uint32_t now_s)
{
    return (e->hold[0].is_on && e->hold[0].until_s <= now_s) ||
           (e->hold[1].is_on && e->hold[1].until_s <= now_s);
}

static void
lower_end(uint32_t *next_s, const struct ledger_hold *h)
{
    if (h->is_on && (*next_s == 0 || h->until_s < *next_s))
        *next_s = h->until_s;
}

/* Rare enough (a block ended in this shard) to look through the shard under one lock: its next end
 * must be known before another thread makes a block. */
static void
walk_ended_shard(struct shard *s, uint32_t now_s, ledger_visit_fn *visit, void *arg)
{
    s->next_end_s = 0;
    for (uint32_t k = 0; k < s->used; k++) {
        struct ledger_entry *e = &s->slots[k];
        if (!e->is_used)
            continue;
        if (has_ended(e, now_s))
            visit(arg, e);
        lower_end(&s->next_end_s, &e->hold[0]);
        lower_end(&s->next_end_s, &e->hold[1]);
    }
}

void
ledger_walk_ended(struct ledger *l, uint32_t now_s, ledger_visit_fn *visit, void *arg)
{
    if (ledger_hold_count(l) == 0)
        return;
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shards[i];
        pthread_mutex_lock(&s->mutex);
        if (s->next_end_s != 0 && s->next_end_s <= now_s)
            walk_ended_shard(s, now_s, visit, arg);
        pthread_mutex_unlock(&s->mutex);
    }
}

static size_t
walk_dirty_slice(struct shard *s, size_t max, ledger_visit_fn *visit, void *arg)
{
    size_t n = 0;

    while (s->dirty != 0 && n < max) {
        struct ledger_entry *e = &s->slots[s->dirty - 1];
        s->dirty = e->dirty_next;
        e->is_dirty = false;
        if (e->is_used) {
            visit(arg, e);
            n++;
        }
    }
    return n;
}

size_t
ledger_walk_dirty(struct ledger *l, size_t max, ledger_visit_fn *visit, void *arg)
{
    size_t total = 0;

    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shards[i];
        for (size_t left = max / SHARDS, n = 1; left > 0 && n > 0; left -= n) {
            pthread_mutex_lock(&s->mutex);
            n = walk_dirty_slice(s, left < SLICE ? left : SLICE, visit, arg);
            pthread_mutex_unlock(&s->mutex);
            total += n;
        }
    }
    return total;
}

static void
visit_dirty(void *arg, struct ledger_entry *e)
{
    mark_dirty(shard_of_entry(arg, e), e);
}

void
ledger_mark_all_dirty(struct ledger *l)
{
    ledger_walk(l, visit_dirty, l);
}

void
ledger_share(struct ledger *l, bool is_shared)
{
    atomic_store(&l->is_shared, is_shared);
}

bool
ledger_is_shared(const struct ledger *l)
{
    return atomic_load_explicit(&l->is_shared, memory_order_relaxed);
}

void
ledger_set_unsent(struct ledger *l, struct ledger_entry *e)
{
    mark_unsent(l, shard_of_entry(l, e), e);
}

void
ledger_set_hold_unsent(struct ledger *l, struct ledger_entry *e, bool is_null)
{
    if (!ledger_is_shared(l))
        return;
    e->share.hold[is_null] = MEMO_CHANGED;
    ledger_set_unsent(l, e);
}

static size_t
walk_unsent_shard(struct shard *s, size_t max, ledger_visit_fn *visit, void *arg)
{
    size_t n = 0;

    while (s->unsent != 0 && n < max) {
        struct ledger_entry *e = &s->slots[s->unsent - 1];
        s->unsent = e->share.next;
        e->share.is_unsent = false;
        if (e->is_used) {
            visit(arg, e);
            n++;
        }
    }
    return n;
}

size_t
ledger_walk_unsent(struct ledger *l, size_t max, ledger_visit_fn *visit, void *arg)
{
    size_t n = 0;

    for (uint32_t i = 0; i < SHARDS && n < max; i++) {
        struct shard *s = &l->shards[l->unsent_hand];
        pthread_mutex_lock(&s->mutex);
        n += walk_unsent_shard(s, max - n, visit, arg);
        pthread_mutex_unlock(&s->mutex);
        l->unsent_hand = (l->unsent_hand + 1) % SHARDS;
    }
    return n;
}

static uint32_t
counted(const struct ledger_entry *e, const struct window *w, uint16_t heard, struct ledger_now now,
        uint32_t length_s)
{
    uint32_t own = window_count(w, now.s, length_s);
    bool is_fresh = e->share.heard_s != 0 && elapsed_s(now.s, e->share.heard_s) < now.window_s;

    return is_fresh ? higher(own, heard) : own;
}

uint32_t
ledger_unknown(const struct ledger_entry *e, bool is_null, struct ledger_now now)
{
    return counted(e, &e->unknown[is_null], e->share.unknown[is_null], now, now.window_s);
}

uint32_t
ledger_served(const struct ledger_entry *e, struct ledger_now now)
{
    return counted(e, &e->served, e->share.served, now, now.window_s);
}

uint32_t
ledger_served_week(const struct ledger_entry *e, struct ledger_now now)
{
    return counted(e, &e->served, e->share.served_week, now, LEDGER_SERVED_KEEP_S);
}

/* Has the fleet been told of E, as far as that matters more than memory? */
static bool
is_told(const struct ledger_entry *e)
{
    return !e->share.is_unsent || (e->share.hold[0] == MEMO_SENT && e->share.hold[1] == MEMO_SENT &&
                                   e->share.cleared_s == 0);
}

static void
sweep_entry(struct ledger *l, struct shard *s, struct ledger_entry *e, struct ledger_now now)
{
    s->bytes -= windows_bytes(e);
    window_prune(&e->unknown[0], now.s, now.window_s);
    window_prune(&e->unknown[1], now.s, now.window_s);
    window_prune(&e->served, now.s, LEDGER_SERVED_KEEP_S);
    s->bytes += windows_bytes(e);
    /* What is still to be saved stays: an unblocked network must not come back from the disk. */
    if (strength(e, now) == 0 && !e->is_dirty && is_told(e) && !e->hold[0].is_on &&
        !e->hold[1].is_on)
        remove_entry(l, s, e);
}

void
ledger_sweep(struct ledger *l, struct ledger_now now)
{
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shards[i];
        pthread_mutex_lock(&s->mutex);
        for (uint32_t k = 0; k < s->used / SWEEP_CALLS + 1 && s->used > 0; k++) {
            if (s->swept >= s->used)
                s->swept = 0;
            if (s->slots[s->swept].is_used)
                sweep_entry(l, s, &s->slots[s->swept], now);
            s->swept++;
        }
        pthread_mutex_unlock(&s->mutex);
    }
}

uint32_t
ledger_count(const struct ledger *l)
{
    return atomic_load_explicit(&l->count, memory_order_relaxed);
}

uint32_t
ledger_hold_count(const struct ledger *l)
{
    return atomic_load_explicit(&l->holds, memory_order_relaxed);
}
