#ifndef POLICY_MEMO_H
#define POLICY_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "base/span.h"

/* A bounded table of facts that run out: what stands behind mark.c and delivered.c, and what
 * state.c saves of them.  A fact has one of eight places by its key; when all are taken, the one
 * that runs out first makes room.  Every call but memo_new, memo_free, memo_key and memo_was_used
 * is made between memo_lock and memo_unlock.  Seconds are policy's own (policy_private.h). */

#define MEMO_PINNED UINT32_MAX /* as until_s: stays until it is changed, and is not saved */

/* What the fleet has not been told. */
enum memo_unsent {
    MEMO_SENT,
    MEMO_RESTORED, /* it comes from the disk: what the fleet says is newer */
    MEMO_CHANGED   /* it is newer than what the fleet says */
};

struct memo {
    struct hash128 key;
    uint32_t
        until_s; /* 0: a free place; 1: dropped, but the disk or the fleet must still be told */
    uint32_t value;
    uint32_t unsent_next; /* place, plus one */
    bool is_dirty;        /* the disk has something else */
    bool is_saved;        /* the disk has something */
    bool is_told : 1;     /* the fleet may have something */
    bool is_unsent : 1;   /* in the chain */
    uint8_t unsent : 2;   /* enum memo_unsent */
};

struct memo_table;

/* Of about N facts; KEY is for memo_key.  NULL when memory is out. */
struct memo_table *memo_new(const struct siphash_key *key, size_t n);
void memo_free(struct memo_table **t);
void memo_lock(struct memo_table *t);
void memo_unlock(struct memo_table *t);

/* The key of a fact of KIND about A, B, and DIGEST (32 octets, or NULL). */
struct hash128 memo_key(const struct memo_table *t, uint64_t kind, struct span a, struct span b,
                        const uint8_t *digest);
/* Has there ever been a fact?  Asked without the lock, so that a table that is mostly empty costs
 * no hash. */
bool memo_was_used(const struct memo_table *t);
/* NULL if it is not there, or has run out. */
struct memo *memo_find(struct memo_table *t, struct hash128 key, uint32_t now_s);
/* Change the fact, or make it, in the place of the one that runs out first.  NULL if all places are
 * pinned. */
struct memo *memo_put(struct memo_table *t, struct hash128 key, uint32_t until_s, uint32_t value);
void memo_drop(struct memo_table *t, struct memo *m);
/* Hash with another key from now on.  All facts but the pinned are forgotten. */
void memo_rekey(struct memo_table *t, const struct siphash_key *key);

/* For ledger_redis.c.  Begin, or stop, keeping account of what the fleet must be told. */
void memo_share(struct memo_table *t, bool is_shared);
/* Call VISIT for at most MAX facts that the fleet must be told, which then count as told; returns
 * how many. */
typedef void memo_visit_fn(void *arg, struct memo *m);
size_t memo_walk_unsent(struct memo_table *t, size_t max, memo_visit_fn *visit, void *arg);
/* The fleet must be told M (once more if it was). */
void memo_set_unsent(struct memo_table *t, struct memo *m, enum memo_unsent unsent);
/* As memo_put and memo_drop, for what the fleet itself has said. */
struct memo *memo_learn(struct memo_table *t, struct hash128 key, uint32_t until_s, uint32_t value);
void memo_unlearn(struct memo_table *t, struct memo *m);
/* Free M's place if M was dropped and nobody must be told any more. */
void memo_release(struct memo *m);

/* Places by number, free ones too; NULL at the end.  IS_DIRTY tells whether any place is. */
struct memo *memo_at(struct memo_table *t, size_t i);
bool memo_is_dirty(const struct memo_table *t);
void memo_set_clean(struct memo_table *t);
/* The next places of which some may be dirty, *N of them (at most MEMO_SLICE); NULL at the end. The
 * caller saves those that are.  *I is 0 at first. */
#define MEMO_SLICE 64u
struct memo *memo_next_dirty(struct memo_table *t, size_t *i, size_t *n);

#endif
