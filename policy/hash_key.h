#ifndef POLICY_HASH_KEY_H
#define POLICY_HASH_KEY_H

#include <stdatomic.h>
#include <string.h>

#include "base/siphash.h"

/* A key that every thread hashes with, and that changes when this Postern joins a fleet with a key
 * of its own.  A hash made at that moment may be of neither key: it matches nothing, and does no
 * harm.
 */
struct hash_key {
    _Atomic uint64_t half[2];
};

static inline void
hash_key_set(struct hash_key *k, const struct siphash_key *key)
{
    uint64_t half[2];

    _Static_assert(sizeof half == sizeof *key, "two halves");
    memcpy(half, key, sizeof half);
    atomic_store_explicit(&k->half[0], half[0], memory_order_relaxed);
    atomic_store_explicit(&k->half[1], half[1], memory_order_relaxed);
}

static inline struct siphash_key
hash_key_get(const struct hash_key *k)
{
    uint64_t half[2] = {atomic_load_explicit(&k->half[0], memory_order_relaxed),
                        atomic_load_explicit(&k->half[1], memory_order_relaxed)};
    struct siphash_key key;

    memcpy(&key, half, sizeof key);
    return key;
}

#endif
