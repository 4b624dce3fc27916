#ifndef POLICY_MEMO_H
#define POLICY_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "base/span.h"

/* A bounded table of facts that run out: what stands behind mark.c and delivered.c, and what
 * state.c saves of them.  A fact has one of eight places by its key; when all are taken, the one
 * that runs out first makes room.  Every call but memo_new, memo_free and memo_key is made between
 * memo_lock and memo_unlock.  Seconds are policy's own (policy_private.h). */

#define MEMO_PINNED UINT32_MAX /* as until_s: stays until it is changed, and is not saved */

struct memo {
    struct hash128 key;
    uint32_t until_s; /* 0: a free place */
    uint32_t value;
    bool is_dirty; /* the disk has something else */
    bool is_saved; /* the disk has something */
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
/* NULL if it is not there, or over. */
struct memo *memo_find(struct memo_table *t, struct hash128 key, uint32_t now_s);
/* Change what is there, or make it, in place of the weakest.  NULL if all places are pinned. */
struct memo *memo_put(struct memo_table *t, struct hash128 key, uint32_t until_s, uint32_t value);
void memo_drop(struct memo_table *t, struct memo *m);

/* Places by number, free ones too; NULL at the end.  IS_DIRTY tells whether any place is. */
struct memo *memo_at(struct memo_table *t, size_t i);
bool memo_is_dirty(const struct memo_table *t);
void memo_set_clean(struct memo_table *t);

#endif
