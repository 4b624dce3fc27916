#ifndef PROXY_OPS_CONTROL_LOOKUP_H
#define PROXY_OPS_CONTROL_LOOKUP_H

#include <event2/event.h>

#include "proxy/ops/control_socket.h"

/* `lookup ADDRESS [SENDER]`: what RCPT would say to a client with a clean record, and why.  It
 * judges as a session does, by policy's decide and the directory's facade, and shows what was found
 * on the way. */

struct server;
struct lookups;

/* One loop's end of the directory. NULL when memory is out. */
struct lookups *lookups_new(struct server *srv, struct event_base *base);
/* After the calls that wait were cancelled. NULL is fine. */
void lookups_free(struct lookups **l);
struct directory_client *lookups_client(struct lookups *l);
/* Answers CALL, perhaps later.  SENDER "" is the null sender. */
void lookups_start(struct lookups *l, struct control_call *call, const char *address,
                   const char *sender);

#endif
