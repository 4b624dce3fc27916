#ifndef POLICY_LEDGER_H
#define POLICY_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "base/siphash.h"
#include "policy/window.h"

/* What is remembered about client networks, of any prefix in one table: what each asked for and was
 * given, and its blocks.  Thread-safe: shards with a mutex each, held while an entry is open.
 *
 * The table is bounded, in entries and in octets.  When it is full, the weakest of eight neighbours
 * makes room: the one with the lowest count, a block last.  So one who owns many networks pushes
 * out his own ones.  At worst (a million networks that each ask for many addresses) it takes 400
 * MB; an entry alone takes about 140 octets, and memory is touched only as it is used.
 *
 * Seconds are policy's own (policy.c): monotonic, never 0. */

#define LEDGER_CAPACITY      (1u << 20)
#define LEDGER_SERVED_KEEP_S (7u * 24 * 3600) /* trusted_recipients looks so far back */
#define LEDGER_REPEAT_KEEP_S                                                                       \
    (7u * 24 * 3600) /* a block's repetition is remembered so long after its end */

#define LEDGER_REPEATS_MAX 31u /* more are not told apart */

/* A block; kept when it has ended, since a repetition doubles it. */
struct ledger_hold {
    uint32_t until_s; /* 0: never was one */
    uint8_t action;   /* enum policy_action */
    uint8_t by;       /* enum policy_by */
    uint8_t repeats;  /* blocks before this one that are remembered */
    bool is_on : 1;   /* until its end was noticed */
    bool is_monitor : 1;
};

/* What ledger_redis.c needs to know of an entry. */
struct ledger_share {
    uint32_t next;      /* among the entries that are to be sent: slot, plus one */
    uint32_t sent_s;    /* sightings from here on are yet to be sent */
    uint32_t cleared_s; /* the fleet must forget those up to here; 0: none */
    uint32_t heard_s;   /* when the fleet's counts were heard; 0: never */
    uint16_t unknown[2], served, served_week; /* the fleet's counts, as of heard_s */
    uint8_t hold[2];                          /* enum memo_unsent */
    bool is_unsent;
    bool is_network_cleared; /* cleared_s holds for the networks inside as well */
};

struct ledger_entry {
    struct network network;
    bool is_used : 1, is_dirty : 1;
    uint8_t shard;
    uint32_t next, dirty_next; /* slots, plus one */
    uint32_t touched_s;
    struct ledger_hold hold[2]; /* [1]: under the null sender only */
    struct window unknown[2];   /* the same */
    struct window served;
    struct ledger_share share;
};

/* The moment, and how long an unknown recipient counts. */
struct ledger_now {
    uint32_t s;
    uint32_t window_s;
};

struct ledger;

/* NULL when memory is out.  KEY is for the table; the values noted are hashed by the caller. */
struct ledger *ledger_new(const struct siphash_key *key, size_t capacity);
void ledger_free(struct ledger **l);

/* Open the entry of NETWORK, which stays locked until ledger_close; a thread has one open at a
 * time.  If it is not there: NULL, or with MAKE a new one, for which another may have to go. */
struct ledger_entry *ledger_open(struct ledger *l, const struct network *network, bool make,
                                 struct ledger_now now);
void ledger_close(struct ledger *l, struct ledger_entry *e);

/* The functions from here to ledger_restore are called with E open.  W is one of its windows; HASH
 * was seen now. */
void ledger_note(struct ledger *l, struct ledger_entry *e, struct window *w, uint32_t hash,
                 struct ledger_now now);
void ledger_hold(struct ledger *l, struct ledger_entry *e, bool is_null,
                 const struct ledger_hold *hold);
/* Forget what E was seen with up to UNTIL_S: unknown recipients, and with ALL also those served. */
void ledger_prune(struct ledger *l, struct ledger_entry *e, uint32_t until_s, bool all);
/* Forget all counts and blocks of E. */
void ledger_clear(struct ledger *l, struct ledger_entry *e);
/* Put back N saved sightings, the oldest first. */
void ledger_restore(struct ledger *l, struct ledger_entry *e, struct window *w,
                    const struct sighting *v, size_t n, struct ledger_now now);

/* The prefix lengths of the networks of FAMILY (4 or 6) that have a hold, into OUT (129); returns
 * how many.  Costs next to nothing while there is none. */
size_t ledger_held_prefixes(const struct ledger *l, uint8_t family, uint8_t *out);

/* Call VISIT for each entry, a few under one lock; it may use the functions above on the entry. */
typedef void ledger_visit_fn(void *arg, struct ledger_entry *e);
void ledger_walk(struct ledger *l, ledger_visit_fn *visit, void *arg);
/* The same for entries with a hold that is on though its time is over. */
void ledger_walk_ended(struct ledger *l, uint32_t now_s, ledger_visit_fn *visit, void *arg);
/* The same for entries that changed since the last call, at most MAX (a fair part of it in a
 * shard); returns how many. */
size_t ledger_walk_dirty(struct ledger *l, size_t max, ledger_visit_fn *visit, void *arg);
/* Take every entry for changed again, when what was walked could not be saved. */
void ledger_mark_all_dirty(struct ledger *l);
/* Free what no longer counts; all of the table is looked through in about 300 calls. */
void ledger_sweep(struct ledger *l, struct ledger_now now);

/* Distinct values of E: unknown and served within the window, served in the last seven days.  The
 * fleet's count where that is higher. */
uint32_t ledger_unknown(const struct ledger_entry *e, bool is_null, struct ledger_now now);
uint32_t ledger_served(const struct ledger_entry *e, struct ledger_now now);
uint32_t ledger_served_week(const struct ledger_entry *e, struct ledger_now now);

/* Begin, or stop, keeping account of what the fleet must be told. */
void ledger_share(struct ledger *l, bool is_shared);
bool ledger_is_shared(const struct ledger *l);
/* The fleet must be told of E, which is open (once more if it was). */
void ledger_set_unsent(struct ledger *l, struct ledger_entry *e);
/* The same of a hold, which is newer than what the fleet says. */
void ledger_set_hold_unsent(struct ledger *l, struct ledger_entry *e, bool is_null);
/* As ledger_walk, for at most MAX entries that the fleet must be told of; returns how many.  Goes
 * on where the last call stopped, so that whoever cannot tell of all still tells of each in its
 * turn. From one thread. */
size_t ledger_walk_unsent(struct ledger *l, size_t max, ledger_visit_fn *visit, void *arg);

uint32_t ledger_count(const struct ledger *l);
uint32_t ledger_hold_count(const struct ledger *l);

#endif
