#ifndef POLICY_DELIVERED_H
#define POLICY_DELIVERED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mailbox.h"
#include "base/siphash.h"
#include "base/span.h"

/* The exactly-once guard.  A message is known by its sender, each recipient and the SHA-256 of its
 * content as received.  Before a burst its keys are claimed, so that a retry that overlaps waits
 * for the outcome; what was delivered is remembered until the client shows that it heard so, or
 * duplicate_window is over, so that a retry is answered and not delivered again.  Thread-safe;
 * bounded, the oldest goes, but never what is in flight.  NOW_MS is clock_ms's.
 *
 * A message's walk: keys -> ask -> (true: wait for the wake) -> claim -> (PENDING: wait for the
 * wake, claim again) -> burst for the recipients that are not served -> finish -> our reply -> the
 * client's next command -> confirm. */

struct deliveries;
struct memo_table;

/* A value. */
struct delivery_key {
    struct hash128 hash;
};

enum delivery_claim {
    DELIVERY_CLAIMED, /* *SERVED says who has it already; the others are this caller's to deliver,
                         and to finish */
    DELIVERY_PENDING  /* another burst with one of the keys is under way: nothing is claimed */
};

/* Called once for a PENDING, from the thread that finished the other burst and under a lock: it may
 * do no more than post to a mailbox. */
typedef void delivery_wake_fn(void *arg, uint64_t ticket);

/* policy_new makes the one of the process: policy_deliveries. */
struct deliveries *deliveries_new(const struct siphash_key *key);
void deliveries_free(struct deliveries **d);
struct memo_table *deliveries_table(struct deliveries *d); /* for state.c and ledger_redis.c */

/* Addresses are canonical, the null sender is the empty span. */
struct delivery_key deliveries_key(const struct deliveries *d, struct span sender,
                                   struct span recipient, const uint8_t sha256[32]);

/* In a fleet: is another Postern at this message just now, and nobody here knows yet?  False: there
 * is nobody to ask.  True: WAKE is called as of a PENDING, within three seconds whatever becomes of
 * the question; by then a claim knows of the other. */
bool deliveries_ask(struct deliveries *d, const struct delivery_key *keys, size_t n, int64_t now_ms,
                    delivery_wake_fn *wake, void *arg, uint64_t *ticket);

/* Claim N keys (of one message, no two the same), all or none.  With CLAIMED, SERVED[i] is set for
 * each; with PENDING, *TICKET is set, and WAKE(ARG, ticket) is called once unless deliveries_cancel
 * comes first.  HAS_WAITED: it was PENDING before, so what the other burst came to holds for it,
 * though that was confirmed since.  When memory is out, it is CLAIMED without a guard. */
enum delivery_claim deliveries_claim(struct deliveries *d, const struct delivery_key *keys,
                                     size_t n, bool has_waited, bool *served, int64_t now_ms,
                                     delivery_wake_fn *wake, void *arg, uint64_t *ticket);
/* After this returns WAKE is not called any more.  A ticket that was woken is fine. */
void deliveries_cancel(struct deliveries *d, uint64_t ticket);

/* The outcome of the burst for the keys that were claimed (not SERVED).  IS_DELIVERED: remember it
 * for WINDOW_MS (duplicate_window); else, refused or unknown, a retry delivers. */
void deliveries_finish(struct deliveries *d, const struct delivery_key *keys, const bool *served,
                       size_t n, bool is_delivered, int64_t window_ms, int64_t now_ms);
/* Call each second, from each loop that asks or claims, so that none depends on another: wakes
 * those who wait for a burst of another Postern that has gone silent, or for an answer to their
 * question.
 */
void deliveries_tick(struct deliveries *d, int64_t now_ms);

/* What a fact of deliveries_table says: its memo.value. */
enum delivery_fact {
    DELIVERY_DONE,
    DELIVERY_ELSEWHERE, /* another Postern of the fleet is delivering it, until until_s at most */
    DELIVERY_HEARD,     /* it was, and the client knows: for those alone who wait still */
    DELIVERY_RELEASED   /* of a dropped fact: the burst failed */
};
/* The fleet says FACT of KEY, until UNTIL_S; 0: it has forgotten it. */
void deliveries_learn(struct deliveries *d, struct hash128 key, enum delivery_fact fact,
                      uint32_t until_s);

/* What deliveries_ask wants to know, for the thread that asks Redis.  MESSAGE is a hash of all its
 * keys. */
struct delivery_question {
    struct mailbox_item item; /* the taker frees it */
    struct hash128 message;
    uint64_t ticket;
};
/* That thread takes questions from now on, or no more; finds them here; and answers them. */
void deliveries_set_asked(struct deliveries *d, bool is_asked);
struct mailbox *deliveries_questions(struct deliveries *d);
void deliveries_answer(struct deliveries *d, uint64_t ticket, bool is_elsewhere, int64_t now_ms);

/* The client's next command came: it has heard our 250 for these, and will not try again. */
void deliveries_confirm(struct deliveries *d, const struct delivery_key *keys, size_t n,
                        int64_t now_ms);

#endif
