#ifndef POLICY_EVENT_H
#define POLICY_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/netaddr.h"
#include "policy/policy.h"

/* The lines that policy writes into the log: harvest, block, unblock; and what a status code means
 * in one that asks for attention. */

struct event_harvest {
    const struct network *network;
    uint32_t count;
    double ratio;
    enum policy_action action;
    int64_t until_s;     /* wall clock; 0: the session's end */
    const char *limited; /* why it is no more than this action: "private", "trusted"; or NULL */
    bool is_null, is_monitor;
};

void event_harvest(const struct event_harvest *h);
/* Of a block that begins (IS_BLOCK) or ended. */
void event_block(bool is_block, const struct network *network, int64_t until_s, const char *by,
                 bool is_null, bool is_monitor);

/* The pairs `status` and `reply` of a line, and behind them, if its level is notice or above, the
 * `cause` that status_code.def knows for the two. */
void event_status(struct log_line *l, const char *status, const char *reply);

#endif
