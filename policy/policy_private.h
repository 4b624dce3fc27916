#ifndef POLICY_POLICY_PRIVATE_H
#define POLICY_POLICY_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "policy/hash_key.h"
#include "policy/ledger.h"
#include "policy/policy.h"

/* What the files behind policy.h share: policy.c (life, clock), client.c, harvest.c, operator.c.
 */

struct policy {
    struct hash_key key; /* of addresses */
    struct ledger *ledger;
    struct marks *marks;
    struct deliveries *deliveries;
    struct state *state;                                /* NULL: nothing outlives the process */
    struct ledger_redis *redis;                         /* NULL: not of a fleet, or not yet */
    struct event_base *base;                            /* of policy_attach */
    _Atomic int64_t wall_offset;                        /* wall clock minus policy's seconds */
    _Atomic uint64_t harvests[POLICY_ACTION_BLIND + 1]; /* policy_counts's */
    pthread_mutex_t lock;                               /* over the next one */
    struct err save_error;                              /* of the last policy_save */
};

/* Policy's seconds are clock_ms's, counted from so far back that whatever is loaded after a restart
 * is later than 0.  They become the wall clock's only to be shown or saved. */
uint32_t policy_seconds_of(int64_t now_ms);
uint32_t policy_duration_s(int64_t ms); /* at least 1 */
struct ledger_now policy_moment(const struct settings *st, int64_t now_ms);
int64_t policy_wall_of(const struct policy *p, uint32_t s);

/* Is the defence on, and C not exempt? */
bool policy_is_counted(const struct settings *st, const struct policy_client *c);
/* Has the client whose entry E is (it is open) delivered to trusted_recipients? */
bool policy_is_trusted(const struct settings *st, const struct ledger_entry *e,
                       struct ledger_now now);
/* The fleet's counts of NETWORK have come: begin the block that they call for. */
void policy_judge(struct policy *p, const struct settings *st, const struct network *network,
                  int64_t now_ms);
/* The fleet hashes with KEY: so does this Postern from now on.  What it counted and marked before
 * is forgotten, blocks are not. */
void policy_rekey(struct policy *p, const struct siphash_key *key, uint32_t now_s);
bool policy_is_in_force(const struct ledger_hold *h, uint32_t now_s);

#endif
