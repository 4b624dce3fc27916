#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash for tables that a stranger fills. */

struct siphash_key {
    uint8_t octets[16];
};

struct hash128 {
    uint64_t lo, hi;
};

/* A fresh random key; aborts if the kernel gives none. */
struct siphash_key siphash_key_random(void);
uint64_t siphash64(const struct siphash_key *key, const void *data, size_t n);
struct hash128 siphash128(const struct siphash_key *key, const void *data, size_t n);

#endif
