#ifndef POLICY_WINDOW_H
#define POLICY_WINDOW_H

#include <stddef.h>
#include <stdint.h>

/* How many distinct values were seen within a sliding window, in bounded space. Pure.
 *
 * Up to WINDOW_EXACT values are kept, each with the second at which it was last seen, so the count
 * is exact to the second up to there.  Beyond it the oldest are forgotten one by one, and a sketch
 * (linear counting, a bitmap for each quarter of the window: Whang and others, 1990) estimates the
 * count within some percent, up to WINDOW_COUNT_MAX.  One value takes no memory of its own; more
 * take an array that grows in steps, and shrinks when it is pruned.
 *
 * Values are 32 bits of a keyed hash.  Seconds are of any clock that never goes back. */

#define WINDOW_EXACT     128u
#define WINDOW_COUNT_MAX 15000u

/* Each thread reads its clock once in a while, so another one's moments may lie a little ahead:
 * then no time has passed, not four billion seconds. */
static inline uint32_t
elapsed_s(uint32_t now_s, uint32_t then_s)
{
    return now_s > then_s ? now_s - then_s : 0;
}

struct sighting {
    uint32_t hash;
    uint32_t at_s;
};

/* Zeroed, it is empty. */
struct window {
    union {
        struct sighting one;   /* capacity 0 */
        struct sighting *many; /* the oldest first; behind the largest array stands the sketch */
    } u;
    uint16_t n;
    uint16_t capacity;
};

/* HASH was seen now.  Values unseen for KEEP_S are dropped; COUNT_S is the length that window_count
 * will be asked about.  When memory is out, the oldest value makes room. */
void window_note(struct window *w, uint32_t hash, uint32_t now_s, uint32_t keep_s,
                 uint32_t count_s);
/* Distinct values seen within the last LENGTH_S seconds (the COUNT_S of window_note, or longer). */
uint32_t window_count(const struct window *w, uint32_t now_s, uint32_t length_s);
/* Drop what was unseen for KEEP_S, and the memory that is no longer needed. */
void window_prune(struct window *w, uint32_t now_s, uint32_t keep_s);
/* Drop what was seen last at UNTIL_S or before. */
void window_forget(struct window *w, uint32_t until_s);
void window_clear(struct window *w);
/* Octets allocated now. */
size_t window_bytes(const struct window *w);
/* Octets that the next window_note may add. */
size_t window_growth(const struct window *w);
/* The values kept, the oldest first; *N of them. */
const struct sighting *window_sightings(const struct window *w, size_t *n);

#endif
