#include "policy/dns_cache.h"

#include <stdlib.h>

enum { SETS = 4096, WAYS = 4 }; /* 512 KiB */

struct entry {
    struct hash128 key;
    int64_t until_ms; /* 0: free */
    unsigned value;
};

struct dns_cache {
    struct entry sets[SETS][WAYS];
};

static bool
is_of(const struct entry *e, struct hash128 key)
{
    return e->until_ms != 0 && e->key.lo == key.lo && e->key.hi == key.hi;
}

struct dns_cache *
dns_cache_new(void)
{
    return calloc(1, sizeof(struct dns_cache));
}

void
dns_cache_free(struct dns_cache **c)
{
    free(*c);
    *c = NULL;
}

bool
dns_cache_get(const struct dns_cache *c, struct hash128 key, int64_t now_ms, unsigned *value)
{
    const struct entry *set = c->sets[key.lo % SETS];

    for (size_t i = 0; i < WAYS; i++)
        if (is_of(&set[i], key)) {
            *value = set[i].value;
            return now_ms < set[i].until_ms;
        }
    return false;
}

void
dns_cache_put(struct dns_cache *c, struct hash128 key, unsigned value, int64_t now_ms,
              int64_t ttl_ms)
{
    struct entry *set = c->sets[key.lo % SETS], *place = &set[0];

    for (size_t i = 0; i < WAYS; i++) {
        if (is_of(&set[i], key)) {
            place = &set[i];
            break;
        }
        if (set[i].until_ms < place->until_ms)
            place = &set[i];
    }
    *place = (struct entry){.key = key, .until_ms = now_ms + ttl_ms, .value = value};
}
