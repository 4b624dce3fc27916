#ifndef PROXY_OPS_HTTP_H
#define PROXY_OPS_HTTP_H

#include <event2/event.h>

#include "base/err.h"
#include "conf/settings.h"

/* HTTP for monitoring and for people: /metrics, /healthz, /readyz, /api/status and the status page.
 * Nothing can be changed by it.  The housekeeper's loop. */

struct http;
struct server;

/* Listen as the settings in force say, perhaps nowhere. NULL with E set on failure. */
struct http *http_new(struct server *srv, struct event_base *base, struct err *e);
/* A reload: open the sockets that the new settings ST ask for, beside those that there are, which
 * only go first if they are in the way.  -1 with E set if that cannot be. */
int http_prepare(struct http *h, const struct settings *st, struct err *e);
/* After that, whatever it returned: have those of ST, or all as it was. */
void http_settle(struct http *h, bool is_taken);
void http_free(struct http **h); /* NULL is fine */

#endif
