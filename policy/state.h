#ifndef POLICY_STATE_H
#define POLICY_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/siphash.h"
#include "policy/ledger.h"
#include "policy/memo.h"

/* What policy keeps in state_dir: an LMDB file of its own, state_dir/policy.mdb.  One thread saves;
 * a damaged file is set aside as policy.mdb.damaged, told in the log (event=ledger), and begun
 * anew. */

struct state;

/* What to save or load, and the moment.  WALL_OFFSET turns policy's seconds into the wall clock's,
 * in which everything is kept; when it changes, everything is saved anew. */
struct state_view {
    struct ledger *ledger;
    struct memo_table *marks, *deliveries;
    int64_t wall_offset;
    struct ledger_now now;
};

/* Open, or make, with DIR itself if its parent is there.  *KEY is the one that is kept, a fresh one
 * in a fresh file. */
struct state *state_open(const char *dir, struct siphash_key *key, struct err *e);
void state_close(struct state **s);
/* Keep another key.  What is hashed with the one before it is taken out of the tables between the
 * two calls; no save has the one with the key of the other.  From any thread. */
void state_rekey_begin(struct state *s, const struct siphash_key *key);
void state_rekey_end(struct state *s);
/* Load into empty tables; what has run out is left out.  However the clock was set since the last
 * save, nothing lasts longer than it did then.  -1 with E set when no file can be had. */
int state_load(struct state *s, const struct state_view *v, struct err *e);
/* Save what changed since the last call, if anything, in one transaction on disk.  So that it comes
 * to an end while others go on, a call saves some ten thousand networks at most unless IS_LAST; the
 * others come with the next.  -1 with E set: all of it is tried again at the next call. */
int state_save(struct state *s, const struct state_view *v, bool is_last, struct err *e);

#endif
