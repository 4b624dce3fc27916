#include "policy/window.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* 2048 bits take about 15000 values before they are all ones. */
#define SKETCH_QUARTERS 4u
#define SKETCH_BITS     2048u
#define SKETCH_WORDS    (SKETCH_BITS / 64u)

struct sketch {
    uint32_t latest; /* number of the newest quarter since the clock's zero */
    unsigned zeros;  /* bits that are set in no quarter */
    uint64_t bits[SKETCH_QUARTERS][SKETCH_WORDS];
};

static const uint16_t steps[] = {0, 8, 32, WINDOW_EXACT};
#define STEP_COUNT (sizeof steps / sizeof steps[0])

static size_t
capacity_bytes(uint16_t capacity)
{
    return capacity * sizeof(struct sighting) +
           (capacity == WINDOW_EXACT ? sizeof(struct sketch) : 0);
}

static struct sighting *
sightings(struct window *w)
{
    return w->capacity == 0 ? &w->u.one : w->u.many;
}

static struct sketch *
sketch_of(const struct window *w)
{
    return w->capacity == WINDOW_EXACT ? (struct sketch *)(void *)(w->u.many + WINDOW_EXACT) : NULL;
}

static uint16_t
room_of(uint16_t capacity)
{
    return capacity == 0 ? 1 : capacity;
}

static uint32_t
quarter_s(uint32_t count_s)
{
    return count_s < SKETCH_QUARTERS ? 1 : count_s / SKETCH_QUARTERS;
}

/* Bits that are set in none of the quarters that count at LATEST. */
static unsigned
sketch_zeros(const struct sketch *k, uint32_t latest)
{
    unsigned zeros = SKETCH_BITS;

    for (uint32_t i = 0; i < SKETCH_WORDS; i++) {
        uint64_t word = 0;
        for (uint32_t q = 0; q < SKETCH_QUARTERS; q++)
            if (latest - (k->latest - q) < SKETCH_QUARTERS)
                word |= k->bits[(k->latest - q) % SKETCH_QUARTERS][i];
        zeros -= (unsigned)__builtin_popcountll(word);
    }
    return zeros;
}

/* Unless LATEST is the same or a little higher, much time has passed or the window's length has
 * changed; either makes what is there worthless. */
static void
sketch_advance(struct sketch *k, uint32_t latest)
{
    uint32_t passed = latest - k->latest;

    if (passed == 0)
        return;
    if (passed >= SKETCH_QUARTERS) {
        memset(k->bits, 0, sizeof k->bits);
    } else {
        for (uint32_t i = 1; i <= passed; i++)
            memset(k->bits[(k->latest + i) % SKETCH_QUARTERS], 0, sizeof k->bits[0]);
    }
    k->latest = latest;
    k->zeros = sketch_zeros(k, latest);
}

static bool
sketch_has(const struct sketch *k, uint32_t bit)
{
    uint64_t word = 0;

    for (uint32_t q = 0; q < SKETCH_QUARTERS; q++)
        word |= k->bits[q][bit / 64];
    return (word >> (bit % 64) & 1) != 0;
}

static void
sketch_note(struct sketch *k, const struct sighting *s, uint32_t count_s)
{
    uint32_t quarter = s->at_s / quarter_s(count_s), bit = s->hash % SKETCH_BITS;

    if (k->latest - quarter >= SKETCH_QUARTERS)
        return;
    if (!sketch_has(k, bit))
        k->zeros--;
    k->bits[quarter % SKETCH_QUARTERS][bit / 64] |= (uint64_t)1 << (bit % 64);
}

static uint32_t
sketch_count(const struct sketch *k, uint32_t now_s, uint32_t count_s)
{
    uint32_t latest = now_s / quarter_s(count_s);
    unsigned zeros = latest == k->latest ? k->zeros : sketch_zeros(k, latest);

    if (zeros == 0)
        return WINDOW_COUNT_MAX;
    return (uint32_t)lround(SKETCH_BITS * log((double)SKETCH_BITS / zeros));
}

/* Give W room for CAPACITY (one of the steps), at least what it holds. */
static bool
resize(struct window *w, uint16_t capacity)
{
    struct sighting *old = sightings(w), *many;

    if (capacity == 0) {
        struct sighting one = {0};
        if (w->n > 0)
            one = old[0];
        free(w->u.many);
        w->u.one = one;
    } else {
        many = malloc(capacity_bytes(capacity));
        if (many == NULL)
            return false;
        memcpy(many, old, w->n * sizeof *many);
        if (w->capacity != 0)
            free(w->u.many);
        w->u.many = many;
    }
    w->capacity = capacity;
    return true;
}

static bool
grow(struct window *w, uint32_t now_s, uint32_t count_s)
{
    size_t step = 0;
    struct sketch *k;

    while (steps[step] != w->capacity)
        step++;
    if (step + 1 == STEP_COUNT || !resize(w, steps[step + 1]))
        return false;
    k = sketch_of(w);
    if (k != NULL) {
        memset(k, 0, sizeof *k);
        k->latest = now_s / quarter_s(count_s);
        k->zeros = SKETCH_BITS;
        for (uint16_t i = 0; i < w->n; i++)
            sketch_note(k, &w->u.many[i], count_s);
    }
    return true;
}

/* How many of the oldest were not seen within LENGTH_S. */
static uint16_t
stale(const struct sighting *v, uint16_t n, uint32_t now_s, uint32_t length_s)
{
    uint16_t low = 0, high = n;

    while (low < high) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (elapsed_s(now_s, v[middle].at_s) >= length_s)
            low = (uint16_t)(middle + 1);
        else
            high = middle;
    }
    return low;
}

/* The order by time holds though clocks differ. */
static uint32_t
not_before_newest(const struct window *w, uint32_t now_s)
{
    size_t n;
    const struct sighting *v = window_sightings(w, &n);

    return n > 0 && v[n - 1].at_s > now_s ? v[n - 1].at_s : now_s;
}

static void
drop(struct window *w, uint16_t from, uint16_t count)
{
    struct sighting *v = sightings(w);

    if (count == 0)
        return;
    w->n = (uint16_t)(w->n - count);
    memmove(v + from, v + from + count, (size_t)(w->n - from) * sizeof *v);
}

void
window_note(struct window *w, uint32_t hash, uint32_t now_s, uint32_t keep_s, uint32_t count_s)
{
    struct sighting s, *v = sightings(w);
    struct sketch *k;
    uint16_t i;

    now_s = not_before_newest(w, now_s);
    s = (struct sighting){hash, now_s};
    drop(w, 0, stale(v, w->n, now_s, keep_s));
    for (i = w->n; i > 0 && v[i - 1].hash != hash; i--)
        ;
    if (i > 0)
        drop(w, (uint16_t)(i - 1), 1);
    else if (w->n == room_of(w->capacity) && !grow(w, now_s, count_s))
        drop(w, 0, 1);
    v = sightings(w);
    v[w->n++] = s;
    k = sketch_of(w);
    if (k != NULL) {
        sketch_advance(k, now_s / quarter_s(count_s));
        sketch_note(k, &s, count_s);
    }
}

uint32_t
window_count(const struct window *w, uint32_t now_s, uint32_t length_s)
{
    size_t n;
    const struct sighting *v = window_sightings(w, &n);
    uint32_t fresh = (uint32_t)n - stale(v, (uint16_t)n, now_s, length_s), estimate;

    if (fresh < WINDOW_EXACT)
        return fresh;
    estimate = sketch_count(sketch_of(w), not_before_newest(w, now_s), length_s);
    return estimate > fresh ? estimate : fresh;
}

void
window_prune(struct window *w, uint32_t now_s, uint32_t keep_s)
{
    size_t step = 0;

    drop(w, 0, stale(sightings(w), w->n, now_s, keep_s));
    while (w->n > room_of(steps[step]))
        step++;
    if (steps[step] < w->capacity)
        (void)resize(w, steps[step]); /* without memory to shrink into, it stays as it is */
}

void
window_forget(struct window *w, uint32_t until_s)
{
    uint16_t n = stale(sightings(w), w->n, until_s + 1, 1);

    if (n > 0 && n == w->n)
        window_clear(w); /* its sketch too */
    else
        drop(w, 0, n);
}

void
window_clear(struct window *w)
{
    if (w->capacity != 0)
        free(w->u.many);
    memset(w, 0, sizeof *w);
}

size_t
window_bytes(const struct window *w)
{
    return capacity_bytes(w->capacity);
}

size_t
window_growth(const struct window *w)
{
    if (w->n < room_of(w->capacity))
        return 0;
    for (size_t step = 0; step + 1 < STEP_COUNT; step++)
        if (steps[step] == w->capacity)
            return capacity_bytes(steps[step + 1]) - capacity_bytes(w->capacity);
    return 0;
}

const struct sighting *
window_sightings(const struct window *w, size_t *n)
{
    *n = w->n;
    return w->capacity == 0 ? &w->u.one : w->u.many;
}
