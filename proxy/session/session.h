#ifndef PROXY_SESSION_SESSION_H
#define PROXY_SESSION_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/netaddr.h"
#include "proxy/worker.h"

/* One client's SMTP session, from the connection to the close: what is heard, judged and answered.
 * Lives on one worker. */

struct session;

struct session_peer {
    struct netaddr address;
    uint16_t port;
    const char *listener; /* ADDRESS:PORT it came in on, for the log; static */
};

/* Take over the connected socket FD and begin (greeting, or PROXY header first).  False when it was
 * turned away or memory is out: FD is closed in any case. */
bool session_start(struct worker *w, int fd, const struct session_peer *peer);
/* The worker's lists of sessions. */
void session_link(struct session_list *list, struct session *s);
void session_unlink(struct session_list *list, struct session *s);
struct session *session_next(const struct session *s);
/* Free what session_start made; only the worker's reaper calls it. */
void session_free(struct session *s);
/* Shutting down: an idle one is told 421 and ends; IS_FORCED: all but those whose message's end has
 * reached the downstream. */
void session_drain(struct session *s, bool is_forced);
/* Once a second under pressure: end it if it keeps us waiting for longer than LIMIT_MS. */
void session_press(struct session *s, int64_t now_ms, int64_t limit_ms);
/* Cut it. */
void session_abort(struct session *s);

#endif
