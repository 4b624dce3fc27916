#ifndef POLICY_LEDGER_REDIS_PRIVATE_H
#define POLICY_LEDGER_REDIS_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "policy/delivered.h"
#include "policy/mark.h"
#include "policy/memo.h"
#include "policy/policy_private.h"
#include "policy/redis_link.h"
#include "policy/redis_row.h"
#include "policy/redis_script.h"

/* What the files behind ledger_redis.h share: ledger_redis.c (life, joining, polling),
 * ledger_redis_tell.c and ledger_redis_learn.c. */

enum ledger_redis_phase {
    LEDGER_REDIS_AWAY,
    LEDGER_REDIS_JOINING, /* what the others did meanwhile is still to be heard */
    LEDGER_REDIS_READY
};

struct ledger_redis {
    struct policy *p;
    struct settings *st;
    struct redis_link *link;
    struct event *turn, *questions;
    char *names[REDIS_SCRIPT_FLEET_KEYS];
    enum ledger_redis_phase phase;
    _Atomic bool is_up;
    bool is_told;  /* the log was told a state */
    char why[128]; /* why it is not up, as the log was told last */
    uint32_t self;
    char epoch[REDIS_ROW_EPOCH_HEX]; /* of the data that we know; "": none */
    int64_t version;                 /* the newest change that we know */
    bool is_polling, is_behind;
    int64_t next_poll_ms, next_lease_ms;
};

#define LEDGER_REDIS_GARBLED "an answer that makes no sense"

/* A key of the fleet's, malloc'd; NULL when memory is out. */
char *ledger_redis_name(const struct ledger_redis *r, const char *kind, const char *name);
/* Call the script with the fleet's keys before the N WORDS, of which KEYS are keys too. */
bool ledger_redis_call(struct ledger_redis *r, size_t keys, size_t n, const char *const *words,
                       redis_link_reply_fn *reply, void *arg);

/* Send what is unsent, as far as the link has room. */
void ledger_redis_tell(struct ledger_redis *r, int64_t now_ms);
/* Take everything for unsent, though what the fleet says of it is newer. */
void ledger_redis_tell_all(struct ledger_redis *r);
void ledger_redis_learn(struct ledger_redis *r, const struct redis_row *row);
/* An event's callback: there are questions of deliveries_ask. */
void ledger_redis_ask(int fd, short what, void *arg);

#endif
