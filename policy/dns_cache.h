#ifndef POLICY_DNS_CACHE_H
#define POLICY_DNS_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/siphash.h"

/* A bounded table of small results by the hash of what was asked; the key of the hash is secret, so
 * no stranger can make two questions meet.  One thread's. */

struct dns_cache;

struct dns_cache *dns_cache_new(void); /* NULL if memory is out */
void dns_cache_free(struct dns_cache **c);
/* False if nothing is there, or it has ended.  NOW_MS is clock_ms's. */
bool dns_cache_get(const struct dns_cache *c, struct hash128 key, int64_t now_ms, unsigned *value);
/* Replaces what is there for KEY, else whichever of its neighbours ends first.  TTL_MS is counted
 * from NOW_MS. */
void dns_cache_put(struct dns_cache *c, struct hash128 key, unsigned value, int64_t now_ms,
                   int64_t ttl_ms);

#endif
