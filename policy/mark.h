#ifndef POLICY_MARK_H
#define POLICY_MARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

/* What the downstream's refusals have taught.  A recipient whom it refused lately is marked: at the
 * sender's retry the downstream is asked about it live.  A mark alone refuses nobody.  And where a
 * message to several recipients was refused after the data, and nobody knows because of which one,
 * the sender may have only half as many of them at once, until the one to blame is alone.
 * Thread-safe; bounded, the oldest goes. Addresses are canonical; the null sender is the empty
 * span; NOW_MS is clock_ms's. */

struct marks;
struct memo_table;
struct siphash_key;

/* policy_new makes the one of the process: policy_marks. */
struct marks *marks_new(const struct siphash_key *key);
void marks_free(struct marks **m);
struct memo_table *marks_table(struct marks *m); /* for state.c and ledger_redis.c */

/* The downstream refused RECIPIENT: mark it for MEMORY_MS (downstream.refusal_memory). */
void marks_add(struct marks *m, struct span recipient, int64_t memory_ms, int64_t now_ms);
bool marks_has(struct marks *m, struct span recipient, int64_t now_ms);
/* It took the recipient after all, or an administrator says so. */
void marks_remove(struct marks *m, struct span recipient);

/* A message of SENDER to these N recipients was refused because of a recipient, though each of them
 * exists: from now on a transaction of this sender may have N / 2 of them at most (at least one).
 */
void marks_halve(struct marks *m, struct span sender, const struct span *recipients, size_t n,
                 int64_t memory_ms, int64_t now_ms);
/* How many such recipients a transaction of SENDER that has RECIPIENT may have; UINT32_MAX: any
 * number. */
uint32_t marks_limit(struct marks *m, struct span sender, struct span recipient, int64_t now_ms);

/* What a transaction has taken of them; zeroed at MAIL.  A recipient without a limit does not
 * matter. */
struct mark_share {
    uint32_t taken;
    uint32_t limit; /* the lowest of those taken; 0: none was */
};
/* May a recipient of LIMIT be taken too?  No: 452 4.5.3 (decide_input.is_halved with is_full). */
bool mark_share_allows(const struct mark_share *share, uint32_t limit);
void mark_share_take(struct mark_share *share, uint32_t limit);

#endif
