#ifndef LDAP_DIR_CACHE_H
#define LDAP_DIR_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "ldap/dir_verdict.h"

/* Verdicts by key, bounded, shared by all threads: each key belongs to one of several shards, with
 * a lock that is held for a look-up and no longer.  It is whoever's holds a reference.  Times are
 * clock_ms's. */

struct dir_cache;

struct dir_cache_limits {
    size_t entries; /* 0: nothing is kept */
    int64_t positive_ms, negative_ms;
    int64_t stale_ms; /* a positive verdict serves this long if nobody can be asked */
};

enum dir_cache_age { DIR_CACHE_NONE, DIR_CACHE_STALE, DIR_CACHE_FRESH };

/* With one reference.  NULL when memory is out. */
struct dir_cache *dir_cache_new(const struct dir_cache_limits *limits);
struct dir_cache *dir_cache_ref(struct dir_cache *c);
/* Give a reference back; with the last one it is freed.  *C is NULL then. */
void dir_cache_unref(struct dir_cache **c);
/* LIMITS hold from now on, also for what is there. */
void dir_cache_limit(struct dir_cache *c, const struct dir_cache_limits *limits);
/* *V and how old it is in *AGE_MS, unless DIR_CACHE_NONE.  Only FOUND is ever stale. */
enum dir_cache_age dir_cache_get(struct dir_cache *c, struct span key, int64_t now_ms,
                                 struct dir_verdict *v, int64_t *age_ms);
/* FOUND and ABSENT are kept, in place of what was there.  Where room lacks the least lately used
 * goes, and of the absent, then of those with a sender in the key, before the others, so that a
 * flood of guesses or of forged senders does not push out the known. */
void dir_cache_put(struct dir_cache *c, struct span key, int64_t now_ms,
                   const struct dir_verdict *v);
/* Drop ADDRESS, with every sender; false if there was nothing. */
bool dir_cache_forget(struct dir_cache *c, struct span address);
size_t dir_cache_count(struct dir_cache *c);
/* Some address would be found in it, if only a stale one.  Not exact: what was forgotten since may
 * count. */
bool dir_cache_serves(struct dir_cache *c, int64_t now_ms);

#endif
