#ifndef POLICY_LEDGER_REDIS_H
#define POLICY_LEDGER_REDIS_H

#include <stdbool.h>

/* `ledger = redis`: what this Postern counts, blocks, marks and delivers is told to Redis, and what
 * the others of the fleet did is heard from it, four times a second.  The tables of this process
 * stay what sessions ask.  One question alone waits for Redis, and not for long: before a message
 * is handed over, whether another Postern has just begun with it (deliveries_ask).  Whatever
 * changes is noted as unsent in its table, so there is no queue to overflow; while Redis is away it
 * waits there, and is told when Redis is back.
 *
 * Addresses are hashed with one key in all of the fleet.  Redis has it, and each Postern keeps it
 * in its state: when Redis has lost its data, the first to come back puts the same key there again,
 * and each tells anew what it knows.  A Postern with another key takes the fleet's (policy_rekey).
 */

struct event_base;
struct ledger_redis;
struct policy;
struct settings;

/* Begin, change or end it as ST asks; it takes a reference to ST. */
void ledger_redis_update(struct ledger_redis **r, struct policy *p, struct settings *st,
                         struct event_base *base);
/* Clears *R; NULL is fine. */
void ledger_redis_free(struct ledger_redis **r);
/* Redis answers; also true for NULL: there is none to answer. */
bool ledger_redis_is_up(const struct ledger_redis *r);
/* Why it is not up, "" if it is.  On the thread of its loop. */
const char *ledger_redis_error(const struct ledger_redis *r);

#endif
