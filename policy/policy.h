#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/netaddr.h"
#include "base/span.h"

/* The harvest defence: the facade of policy/ for what is counted and remembered about clients.  It
 * knows no SMTP, and libevent only where a fleet shares it.  (Others may also include the pure
 * headers decide.h, acl.h, remote_domain.h and status_code.h, and, for what is remembered about
 * messages, mark.h and delivered.h.)
 *
 * `struct policy` is shared by all threads.  Its locks are sharded and held for some hundred
 * nanoseconds; nothing here waits for a disk or a network, but policy_new, policy_save and
 * policy_free.  Every function takes the settings that the caller works under: NOW_MS is
 * clock_ms's, WALL_S clock_wall_s's, addresses are canonical.
 *
 * With `monitor = yes` everything is counted and computed as ever, but no verdict is given: a
 * harvester's state goes into decide, which answers "accept, would have been refused";
 * policy_session_check never says BLOCKED for a harvest; and for struct policy_harvest and
 * policy_transaction_refused the caller neither closes nor delays nor refuses, but logs a
 * would-reject.  What an operator blocked by hand or by [blocked] stays blocked. Harvest blocks
 * that began under monitor end with it.
 *
 * A session's walk:
 *   connect, XCLIENT   policy_session_begin, policy_session_check -> 554, 421 or the greeting
 *   MAIL               policy_session_check anew; a policy_transaction zeroed
 *   RCPT               policy_session_blind; decide with policy_session_state
 *   if is_counted      policy_unknown, whose answer decide_harvest adds to the decision
 *   DATA, BDAT         policy_transaction_refused
 *   delivered          policy_served (the session may be gone) */

struct policy;
struct settings;

/* What a harvester gets, the mildest first but for BLIND. */
enum policy_action {
    POLICY_ACTION_NONE,
    POLICY_ACTION_REJECT,     /* 550 5.7.1 for the rest of the session */
    POLICY_ACTION_DISCONNECT, /* 421 4.7.0 and close */
    POLICY_ACTION_BLOCK,      /* the same, for every session until the block ends */
    POLICY_ACTION_BLIND /* 450 4.7.1 for every recipient, known or not, until the block ends */
};

/* Who made a block. */
enum policy_by { POLICY_BY_HARVEST, POLICY_BY_TRAP, POLICY_BY_CONTROL };

/* "reject", ...; "none". */
const char *policy_action_text(enum policy_action action);
const char *policy_by_text(enum policy_by by);

/* Opens what state_dir keeps, if there is one: a damaged file is set aside and said, not an error.
 * NULL with E set if memory is out or the state cannot be kept at all. */
struct policy *policy_new(const struct settings *st, int64_t now_ms, int64_t wall_s, struct err *e);
/* After a reload: ends blocks that were made under monitor when it is off now. */
void policy_reload(struct policy *p, struct settings *st, int64_t now_ms);
/* With `ledger = redis` share counts, blocks, marks and deliveries with a fleet from now on, over
 * BASE, on whose thread this, policy_reload, policy_tick and policy_free are called then.  Nothing
 * here waits for Redis, nor does a session but for deliveries_ask: whether it answers is said in
 * the log (event=ledger) and by policy_ledger_up.  Takes references to ST. */
struct event_base;
void policy_attach(struct policy *p, struct settings *st, struct event_base *base);
/* True if the ledger is shared, where the settings of the last policy_attach or policy_reload ask
 * for that, and could be saved.  If not, WHY (N octets; "" if nobody knows).  On policy_attach's
 * thread. */
bool policy_ledger_up(struct policy *p, char *why, size_t n);
/* Saves.  No other thread may use P any more.  Clears *P; NULL is fine. */
void policy_free(struct policy **p, const struct settings *st, int64_t now_ms, int64_t wall_s);

/* Call each second, from one thread: ends blocks whose time is over (an `unblock` line, by=expiry),
 * and frees, some at a time, what no longer counts.  Follows steps of the wall clock. */
void policy_tick(struct policy *p, const struct settings *st, int64_t now_ms, int64_t wall_s);
/* Write what changed since the last call into state_dir: a transaction on disk, which takes as long
 * as the disk does (what is more than some ten thousand networks comes with the next call).  Call
 * from one thread, which need not be policy_tick's, at most 2 s apart.  -1 with E set when the disk
 * refuses; it is tried again at the next call. */
int policy_save(struct policy *p, const struct settings *st, int64_t now_ms, struct err *e);

/* The client that an address belongs to.  A value: a message keeps it when its session is gone. */
struct policy_client {
    struct netaddr address;
    struct network network; /* of prefix4 or prefix6: what is counted */
    struct network wide;    /* its /24 or /48; family 0 if the client is that wide itself */
    bool is_allowed;        /* harvest.allow: never counted, delayed or limited */
    bool is_private;        /* at most disconnected, unless block_private */
};

/* A session's part of the defence; a value, used by the session's loop only. */
struct policy_session {
    struct policy_client client;
    uint32_t unknown;              /* RCPTs to unknown recipients so far, repeated ones too */
    enum policy_action state;      /* the harvester's action that is in force for it */
    enum policy_action null_state; /* the same under MAIL FROM:<>; see policy_session_state */
};

/* A transaction's part; zeroed, it is at its start. */
#define POLICY_TRANSACTION_MAX 64
struct policy_transaction {
    uint16_t n;                               /* distinct unknown recipients */
    uint32_t unknown[POLICY_TRANSACTION_MAX]; /* hashes of the first of them */
};

/* What an unknown recipient led to.  A value. */
struct policy_harvest {
    enum policy_action action; /* in force from this recipient on; NONE: no harvester */
    uint32_t count;            /* distinct unknown addresses within the window */
    double ratio;
    int64_t until_s;   /* wall clock; 0: the session's end */
    uint32_t delay_ms; /* the tarpit; 0 with BLOCK, which closes for good */
};

/* Start S anew for a client.  IS_TOLD: the address came by PROXY or XCLIENT, so being loopback
 * makes it no `allow`. */
void policy_session_begin(struct policy_session *s, const struct settings *st,
                          const struct netaddr *address, bool is_told);

enum policy_standing {
    POLICY_STANDING_OK,
    POLICY_STANDING_LISTED, /* [blocked] clients: 554 5.7.1 */
    POLICY_STANDING_BLOCKED /* a block is in force: 421 4.7.0 */
};
/* At connect, after XCLIENT, and at each MAIL.  Also brings S's state up to date: a client that is
 * blinded is so from its first RCPT, and no longer than the block. */
enum policy_standing policy_session_check(struct policy *p, const struct settings *st,
                                          struct policy_session *s, int64_t now_ms);

/* At each RCPT: blind S if, since the last MAIL, its client was blinded for what it did in another
 * session.  A block waits for the next MAIL, so that what has begun may end. */
void policy_session_blind(struct policy *p, const struct settings *st, struct policy_session *s,
                          int64_t now_ms);

/* The action that governs a RCPT under this sender: decide's input. */
enum policy_action policy_session_state(const struct policy_session *s, bool is_null_sender);

/* The delay of a reply to an unknown recipient: tarpit times the unknown ones of the session so
 * far, at most tarpit_max; 0 for the allowed.  Whether max_tarpitted leaves room is the caller's
 * business. */
uint32_t policy_tarpit_ms(const struct settings *st, const struct policy_session *s);
/* The one delay of every reply under BLIND. */
uint32_t policy_blind_ms(const struct settings *st, const struct policy_session *s);

/* The directory says for certain that ADDRESS (canonical) is not there, and no tombstone tells that
 * it was: count it for S's client, its wide network and transaction T, and say what follows.
 * postmaster@ and abuse@ are never counted, nor is anything of an allowed client or with `enabled =
 * no` (then the delay is 0).  When an action begins it is logged (`harvest`, `block`) and S's state
 * is set.
 *
 * A wide network that is a harvester gets the same action as a client: under BLOCK and BLIND the
 * wide network is blocked, but for its trusted clients.  A trap makes a harvester of the client
 * alone.  Under the null sender the action is always BLIND's, for the block's time where the action
 * is BLOCK or BLIND, else for the session.  A block is a repetition within 7 days of the end of the
 * last one; an operator's block is not.  For trusted_recipients 128 are enough, whatever is set. */
struct policy_harvest policy_unknown(struct policy *p, const struct settings *st,
                                     struct policy_session *s, struct policy_transaction *t,
                                     struct span address, bool is_null_sender, int64_t now_ms);

/* message_threshold: is the transaction refused whole?  KNOWN is its distinct accepted recipients.
 * Under monitor the answer is what would be. */
bool policy_transaction_refused(const struct settings *st, const struct policy_session *s,
                                const struct policy_transaction *t, size_t known);

/* The downstream took a message of CLIENT for these N recipients (canonical).  Of them postmaster
 * and abuse are no merit. */
void policy_served(struct policy *p, const struct settings *st, const struct policy_client *client,
                   const struct span *addresses, size_t n, int64_t now_ms);

/* What an operator sees and does. */

struct policy_block {
    struct network network;
    enum policy_action action; /* BLOCK or BLIND */
    enum policy_by by;
    bool is_null;     /* only for recipients under MAIL FROM:<> */
    bool is_monitor;  /* would be, but monitor = yes */
    int64_t until_s;  /* wall clock */
    unsigned repeats; /* how often before, as far as is remembered */
};
/* All blocks in force, the one that ends first first, in *BLOCKS (malloc'd; the caller frees).  -1
 * when memory is out. */
int policy_blocks(struct policy *p, int64_t now_ms, struct policy_block **blocks, size_t *n);
/* Block a network of any size; DURATION_MS 0: block_time.  In place of a block that is there.
 * Logged with by=control.  Returns its end, wall clock. */
int64_t policy_block(struct policy *p, const struct settings *st, const struct network *network,
                     int64_t duration_ms, int64_t now_ms);
/* End every block of NETWORK and of networks inside it, and forget their counts and repetitions, or
 * the next typing error would bring the block back.  Returns how many blocks ended. */
size_t policy_unblock(struct policy *p, const struct network *network, int64_t now_ms);

struct policy_suspect {
    struct network network;
    uint32_t count; /* distinct unknown addresses within the window */
    double ratio;
    int64_t until_s; /* of its block; 0: none */
    enum policy_action action;
};
/* The N networks that asked for most unknown recipients, worst first, into OUT; returns how many.
 */
size_t policy_top(struct policy *p, const struct settings *st, struct policy_suspect *out, size_t n,
                  int64_t now_ms);

struct policy_counts {
    uint32_t clients;                           /* networks about which anything is remembered */
    uint32_t blocks;                            /* in force */
    uint64_t harvests[POLICY_ACTION_BLIND + 1]; /* begun since the start: lines of event=harvest */
};
struct policy_counts policy_counts(const struct policy *p);

/* What is remembered about messages, in the same state; owned by P, used from any thread. */
struct marks;
struct deliveries;
struct marks *policy_marks(struct policy *p);
struct deliveries *policy_deliveries(struct policy *p);

#endif
