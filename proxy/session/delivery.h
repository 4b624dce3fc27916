#ifndef PROXY_SESSION_DELIVERY_H
#define PROXY_SESSION_DELIVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "policy/delivered.h"
#include "proxy/relay/message.h"
#include "proxy/smtp/reply.h"

/* The delivery of one message, exactly once: the guard, the burst, what is to be learnt from its
 * outcome.  It outlives its session when the burst is past its end of data, for then the outcome
 * belongs to the message. */

struct session;
struct worker;
struct delivery;
struct delivery_heard;

struct delivery_result {
    bool is_delivered;
    struct smtp_reply reply; /* for the client, when it is not */
    uint64_t size;           /* octets of content */
    /* Delivered: to be confirmed at the client's next command, or to be freed. */
    struct delivery_heard *heard;
};

/* Take M over.  session_delivered is called exactly once, from the loop, unless delivery_abandon is
 * first. NULL when memory is out: M stays the caller's. */
struct delivery *delivery_start(struct session *s, struct message *m, const char *downstream);
/* The session has no more interest, and its client has no 250: what can be stopped is.  WHY is for
 * the `message` line, unless the burst goes on, which has its own at its end.  Clears *D; NULL is
 * fine. */
void delivery_abandon(struct delivery **d, const char *why);
bool delivery_is_past_end(const struct delivery *d);
/* Is there a burst on W whose session is gone, and whose reply_deadline is not over? */
bool delivery_has_orphans(const struct worker *w, int64_t now_ms);
/* At the end of W: what became of its orphans is never known. */
void delivery_end_orphans(struct worker *w);
/* A burst that a delivery of W waits for is over. */
void delivery_wake(struct worker *w, uint64_t ticket);

/* The client's next command came: it has heard our 250.  Clears *H. */
void delivery_confirm(struct worker *w, struct delivery_heard **h);
/* It did not; what was delivered stays remembered. */
void delivery_heard_free(struct delivery_heard **h);

struct message_log {
    const char *session;
    struct netaddr client;
    const char *host, *status, *reply;
    int64_t delay_ms;
};
/* The `message` line. */
void message_log(const struct message_log *line, const struct message *m);

#endif
