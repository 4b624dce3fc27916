#include "base/siphash.h"

#include <stdlib.h>
#include <sys/random.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static uint64_t
rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t
load(const uint8_t *p, size_t n)
{
    uint64_t x = 0;

    for (size_t i = 0; i < n; i++)
        x |= (uint64_t)p[i] << (8 * i);
    return x;
}

/* As load(p, 8), in a form that compilers turn into a single load. */
static uint64_t
load8(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

static inline void
sip_round(struct state *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 = rotate(s->v2, 32);
}

static void
compress(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    sip_round(s);
    s->v0 ^= word;
}

static uint64_t
finish(struct state *s)
{
    for (int i = 0; i < 4; i++)
        sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

static struct state
absorb(const struct siphash_key *key, const void *data, size_t n, uint64_t variant)
{
    const uint8_t *p = data;
    uint64_t k0 = load8(key->octets), k1 = load8(key->octets + 8);
    struct state s = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ variant,
                      k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573};
    size_t left = n;

    for (; left >= 8; left -= 8, p += 8)
        compress(&s, load8(p));
    compress(&s, (uint64_t)n << 56 | load(p, left));
    return s;
}

struct siphash_key
siphash_key_random(void)
{
    struct siphash_key key;

    if (getrandom(key.octets, sizeof key.octets, 0) != (ssize_t)sizeof key.octets)
        abort(); /* so few octets never come in parts */
    return key;
}

uint64_t
siphash64(const struct siphash_key *key, const void *data, size_t n)
{
    struct state s = absorb(key, data, n, 0);

    s.v2 ^= 0xff;
    return finish(&s);
}

struct hash128
siphash128(const struct siphash_key *key, const void *data, size_t n)
{
    struct state s = absorb(key, data, n, 0xee);
    struct hash128 h;

    s.v2 ^= 0xee;
    h.lo = finish(&s);
    s.v1 ^= 0xdd;
    h.hi = finish(&s);
    return h;
}
